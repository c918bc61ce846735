"""A recipe on the keys of a checkpoint: every tensor of the result, what it is made of, and all that is wrong.

Everything is decided on headers. Problems are collected, not raised, so that one preview shows all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeAlias

from ckptool.core.errors import CkptError, UsageError
from ckptool.core.keys import Pattern as KeyPattern
from ckptool.core.keys import escape
from ckptool.core.near_miss import near_miss
from ckptool.core.ops import made
from ckptool.core.plan import Apply, Dropped, Problem, Source, Step, Use, sources_of
from ckptool.core.reasons import ByRules, Init, Kept, NotUsed, Reason, RecipeTie, RuleName, Unmatched
from ckptool.core.spec import TensorSpec
from ckptool.recipes.binding import with_lists, with_numbers
from ckptool.recipes.group import Context, FitOp, Group, Item, groups_of, make, mapped
from ckptool.recipes.matching import Matches, Owned, Span, match_stage, new_names
from ckptool.recipes.pattern import Pattern
from ckptool.recipes.recipe import Recipe
from ckptool.recipes.require import unmet_by_keys
from ckptool.recipes.rules import Rule, Stage

Specs: TypeAlias = Mapping[str, TensorSpec]

_KEPT = Kept()
_NEAR_MISSES = 5  # looked for; a recipe for another model has many rules that match nothing
_NEAR_MISS_KEYS = 20_000
MAX_TENSORS = 50_000  # that one stage makes; and 20 more for each tensor of the inputs
MAX_NAMES = 300_000_000  # characters of all names that one stage makes


@dataclass(frozen=True, slots=True)
class Expansion:
    """A recipe on actual keys.

    Attributes:
        steps: the result's tensors, each where its first source stood.
        dropped: source tensors that no step uses.
        problems: what makes the result impossible.
        uses: what became of each rule, in order.
    """

    steps: tuple[Step, ...]
    dropped: tuple[Dropped, ...]
    problems: tuple[Problem, ...]
    uses: tuple[Use, ...]

    @property
    def unused(self) -> tuple[Use, ...]:
        """Rules that decided no key."""
        return tuple(use for use in self.uses if not use.keys)


@dataclass(slots=True)
class _State:
    """What is collected on the way."""

    context: Context
    problems: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    dropped: dict[Source, Reason] = field(default_factory=dict)
    near_misses: int = 0
    most: int = MAX_TENSORS
    met: dict[tuple[RuleName, ...], tuple[RuleName, ...]] = field(default_factory=dict)
    reasons: dict[tuple[RuleName, ...], ByRules] = field(default_factory=dict)

    def problem(self, message: str, hint: str | None = None, keys: Iterable[str] = ()) -> None:
        """One problem; the same for several keys is said once."""
        self.problems.setdefault((message, hint or ""), []).extend(keys)

    def found(self) -> tuple[Problem, ...]:
        """All problems."""
        return tuple(Problem(message, hint, tuple(keys)) for (message, hint), keys in self.problems.items())

    def applied(self, before: tuple[RuleName, ...], rules: Sequence[Rule]) -> tuple[RuleName, ...]:
        """The rules that a tensor has met, each once; one tuple for all tensors that met the same."""
        met = (*before, *(rule.name for rule in rules))
        met = tuple(dict.fromkeys(met)) if len(met) > 1 else met
        return self.met.setdefault(met, met)

    def reason(self, item: Item) -> Reason:
        """Why a tensor of the result is there."""
        if not item.rules:
            return _KEPT
        return self.reasons.setdefault(item.rules, ByRules(item.rules))

    def drop(self, item: Item, reason: Reason) -> None:
        for source in sources_of(item.value):
            self.dropped.setdefault(source, reason)


def expand(
    recipe: Recipe,
    sources: Specs | Sequence[Specs],
    *,
    prefixes: Sequence[str] = (),
    vars: Mapping[str, float] | None = None,
    targets: Specs | None = None,
    fit: FitOp | None = None,
) -> Expansion:
    """A recipe on the tensors of one or several inputs.

    Args:
        recipe: what to do.
        sources: key -> spec for each input, in the order that `Source.input` counts; one mapping is one input.
        prefixes: put before the keys of each input, as `source_file_captures` gives them ("rank0").
        vars: the numbers that names in layouts and expressions stand for, as `resolve_vars` gives them.
        targets: the target model's specs, which help to solve sizes and are what ``fit`` and ``init`` aim at.
        fit: makes the ops of ``fit``.

    Raises:
        UsageError: an ``init`` value is none.

    Example:
        >>> from ckptool.recipes.recipe import parse_recipe
        >>> spec = TensorSpec("in_proj_weight", "float32", (12, 4))
        >>> found = expand(parse_recipe(["in_proj_weight -> {x=q|k|v}.weight | (x o) i -> o i"]), {spec.key: spec})
        >>> [(step.target.key, step.target.short) for step in found.steps]
        [('q.weight', 'f32[4,4]'), ('k.weight', 'f32[4,4]'), ('v.weight', 'f32[4,4]')]
        >>> found.steps[0].reason
        ByRules(rules=(RuleName(recipe='', number=1, backwards=False),))
    """
    numbers = {name: value for name, value in recipe.vars.items() if not isinstance(value, str)}
    numbers |= vars or {}
    recipe = with_numbers(recipe, numbers)
    state = _State(Context(numbers, fit=fit))
    inputs = [sources] if isinstance(sources, Mapping) else list(sources)
    items = _loaded(inputs, prefixes, state)
    state.most += 20 * len(items)
    unmet = list(unmet_by_keys(recipe.require, {key: item.spec for key, item in items.items()}))
    for number, stage in enumerate(recipe.stages):
        state.context.targets = targets if number == len(recipe.stages) - 1 else None
        items = _run(with_lists(stage, items, recipe.lists), items, state)
    steps = [
        Step(TensorSpec(key, item.spec.dtype, item.spec.shape), item.value, state.reason(item))
        for key, item in items.items()
    ]
    if targets is not None:
        _fill(recipe, steps, targets, state)
    _tie(recipe, steps, state)
    used = {source for step in steps for source in sources_of(step.value)}
    everything = (Source(number, key) for number, specs in enumerate(inputs) for key in specs)
    return Expansion(
        tuple(steps),
        tuple(Dropped(s, state.dropped.get(s, NotUsed())) for s in everything if s not in used),
        (_misfit(recipe, unmet),) if unmet else state.found(),  # what follows from a misfit is not said
        tuple(state.uses),
    )


def _misfit(recipe: Recipe, unmet: Sequence[tuple[str, str]]) -> Problem:
    """The preconditions that are not met, each with a key that does not meet it."""
    listed = ", and ".join(f'"{text}", which {key} does not meet' for text, key in unmet)
    keys = tuple(dict.fromkeys(key for _, key in unmet))
    return Problem(
        f"the recipe {recipe.name} does not fit this input: it requires {listed}", "use another recipe", keys
    )


def _loaded(inputs: Sequence[Specs], prefixes: Sequence[str], state: _State) -> dict[str, Item]:
    items: dict[str, Item] = {}
    for number, specs in enumerate(inputs):
        prefix = f"{prefixes[number]}." if prefixes and prefixes[number] else ""
        for key, spec in specs.items():
            if prefix + key in items:
                state.problem("keys are in two inputs", "give the inputs prefixes: source.files in a recipe", [key])
            else:
                items[prefix + key] = Item(Source(number, key), spec)
    return items


# ---------------------------------------------------------------------------------------------- one stage

_Made: TypeAlias = tuple[int, int, str, Item]
"""Position of the first source, order within the rule, name, tensor."""


def _run(stage: Stage, items: dict[str, Item], state: _State) -> dict[str, Item]:
    matches = match_stage(stage, items)
    outputs: list[_Made] = []
    for number, rule in enumerate(stage.rules):
        if rule.is_whole:
            _run_whole(rule, matches.owned.get(number, []), items, outputs, state, number in matches.seen)
        else:
            _note_partial(rule, number, stage, matches, state)
        if number not in matches.seen and not rule.optional:
            _note_unused(rule, items, state)
    for position, (key, item) in enumerate(items.items()):
        if key in matches.touched:
            _rename(key, item, position, matches.touched[key], stage, outputs, state)
        elif key not in matches.taken:
            _keep(key, item, position, stage, outputs, state)
    return _collected(outputs, items, state)


def _run_whole(
    rule: Rule, owned: Sequence[Owned], items: dict[str, Item], outputs: list[_Made], state: _State, seen: bool
) -> None:
    before = len(outputs)
    if rule.drops:
        for match in owned:
            state.drop(items[match.key], ByRules((rule.name,)))
    for group in () if rule.drops else groups_of(rule, owned):
        if not isinstance(group, Group):
            state.problem(f"{rule.name}: {group.message}", group.hint)
            continue
        try:
            tensors = make(rule, group, items, state.context)
        except CkptError as error:
            state.problem(f"{rule.name}: {error.message}", error.hint, group.keys)
        except ValueError as error:
            state.problem(f"{rule.name}: {error}", keys=group.keys)
        else:
            outputs += [(group.position, at, name, item) for at, (name, item) in enumerate(tensors)]
            _require_few(outputs, state)
    example = None
    if owned:
        example = (owned[0].key, outputs[before][2] if len(outputs) > before else "!")
    state.uses.append(Use(rule.text, rule.name, len(owned), len(outputs) - before, example, seen and not owned))


def _note_partial(rule: Rule, number: int, stage: Stage, matches: Matches, state: _State) -> None:
    count, first = matches.partial.get(number, (0, ""))
    example = None
    if count:
        names = [] if rule.drops else _names_or_none(first, matches.touched[first], stage)
        example = (first, names[0] if names else "!")
    made_here = 0 if rule.drops else count * max(1, len(rule.targets))
    state.uses.append(Use(rule.text, rule.name, count, made_here, example, number in matches.seen and not count))


def _names_or_none(key: str, spans: list[Span], stage: Stage) -> list[str]:
    try:
        return new_names(key, spans, stage.rules)
    except ValueError:
        return []


def _inside(rule: Rule, keys: Sequence[str]) -> tuple[str, str] | None:
    """The rule for a module anywhere in a key, and a key that has it there; None if none has, or it is no such rule."""
    old, _, new = (part.strip() for part in rule.text.partition("->"))
    if not all(part.endswith(".") and part[:1].isalnum() for part in (old, new)):
        return None
    key = next((key for key in keys if f".{old}" in key), None)
    return None if key is None else (f".{old} -> .{new}", key)


def _note_unused(rule: Rule, items: Mapping[str, Item], state: _State) -> None:
    near = None
    some = list(islice(items, _NEAR_MISS_KEYS)) if state.near_misses < _NEAR_MISSES else []
    state.near_misses += 1
    for pattern in rule.sources:
        near = near or near_miss(KeyPattern.parse(_glob(pattern)), some)
    hint = f"a key that it might mean: {near.select(some)[0]}" if near else "a leading ? lets it match nothing"
    if module := _module_named(rule, some):
        hint = f'{module} is a module: "{module}." with a dot at its end means every key in it'
    elif inside := _inside(rule, some):
        hint = f'keys begin otherwise, as {inside[1]}; to rename it wherever it is: "{inside[0]}"'
    what = f"matches none of the {len(items):,} keys" if len(items) != 1 else "does not match the only key"
    state.problem(f'{rule.name} "{rule.text}" {what}', hint)


def _module_named(rule: Rule, keys: Sequence[str]) -> str:
    """The module that a rule names without the dot at its end; "" if it names none."""
    globs = (_glob(pattern) for pattern in rule.sources if not pattern.ends_anywhere)
    names = (glob for glob in globs if "*" not in glob and "[" not in glob)
    return next((name for name in names if any(key.startswith(f"{name}.") for key in keys)), "")


def _glob(pattern: Pattern) -> str:
    """A key pattern that is close to a rule's."""
    parts = ("".join(escape(token) if isinstance(token, str) else "*" for token in part) for part in pattern.parts)
    return "*." * pattern.starts_anywhere + (".".join(parts) or "*") + ".*" * pattern.ends_anywhere


def _rename(
    key: str, item: Item, position: int, spans: list[Span], stage: Stage, outputs: list[_Made], state: _State
) -> None:
    numbers = sorted({span.rule for span in spans}) if len(spans) > 1 else [spans[0].rule]
    rules = [stage.rules[number] for number in numbers]
    if dropping := next((rule for rule in rules if rule.drops), None):
        state.drop(item, ByRules((dropping.name,)))
        return
    try:
        names = new_names(key, spans, stage.rules)
        applied = state.applied(item.rules, rules)
        steps = [step for rule in rules for step in rule.steps]
        for at, name in enumerate(names):
            new = mapped(item, steps, name, state.context) if steps else item
            outputs.append((position, at, name, Item(new.value, new.spec, applied)))
        _require_few(outputs, state)
    except (CkptError, ValueError) as error:
        state.problem(f"{rules[0].name}: {error}", getattr(error, "hint", None), [key])


def _keep(key: str, item: Item, position: int, stage: Stage, outputs: list[_Made], state: _State) -> None:
    if stage.unmatched == "drop":
        state.drop(item, Unmatched())
        return
    if stage.unmatched == "error":
        state.problem("keys that no rule matches", 'give them a rule; to drop one: "KEY -> !"', [key])
    outputs.append((position, 0, key, item))


def _require_few(outputs: list[_Made], state: _State) -> None:
    if len(outputs) > state.most:
        raise UsageError(f"a stage would make more than {state.most:,} tensors")


def _collected(outputs: list[_Made], items: Mapping[str, Item], state: _State) -> dict[str, Item]:
    """The outputs in order; two tensors for one name are a problem."""
    if sum(len(name) for _, _, name, _ in outputs) > MAX_NAMES:
        raise UsageError(f"the names of a stage would have more than {MAX_NAMES:,} characters")
    outputs.sort(key=lambda row: row[:2])
    found: dict[str, Item] = {}
    clashes: dict[str, list[Item]] = {}
    for _, _, name, item in outputs:
        if name in found:
            clashes.setdefault(name, [found[name]]).append(item)
        found.setdefault(name, item)
    for name, rivals in clashes.items():
        sides = "; ".join(f"{_source_name(item)} {_by(item)}" for item in rivals[:4])
        state.problem(f'{len(rivals)} tensors would become "{name}": {sides}', "drop or rename one of them", [name])
    if "" in found:
        state.problem(
            f"{_by(found[''])} nothing is left of {_source_name(found[''])}", "a rule that keeps a part of it"
        )
    return found


def _source_name(item: Item) -> str:
    first = next(sources_of(item.value), None)
    return first.key if first else "a new tensor"


def _by(item: Item) -> str:
    return f"by {', '.join(map(str, item.rules))}" if item.rules else "kept"


# ---------------------------------------------------------------------------------------------- what no rule makes


def _fill(recipe: Recipe, steps: list[Step], targets: Specs, state: _State) -> None:
    """Target tensors that nothing made, as ``init`` says; ``keep`` leaves them to the model."""
    there = {step.target.key: step for step in steps}
    for pattern, how in recipe.init:
        chosen = KeyPattern.parse(pattern)
        for key, spec in targets.items():
            if key in there or not chosen.matches(key):
                continue
            if op := made(how, spec):
                there[key] = Step(TensorSpec(key, spec.dtype, spec.shape), Apply(op, ()), Init(how))
                steps.append(there[key])
            elif how.startswith("copy:"):
                origin = there.get(how[5:])
                if origin is None or origin.target.shape != spec.shape:
                    state.problem(f"init: {how[5:]} cannot be copied to {key}", "it must exist and have the same shape")
                    continue
                there[key] = replace(origin, target=replace(origin.target, key=key), reason=Init(how))
                steps.append(there[key])


def _tie(recipe: Recipe, steps: list[Step], state: _State) -> None:
    """Keys that share one tensor: the first that exists gives it, the others are made where they are absent."""
    for keys in recipe.tie:
        there = {step.target.key: (at, step) for at, step in enumerate(steps)}
        owner = next((there[key][1] for key in keys if key in there), None)
        if owner is None:
            state.problem(f"tie: there is none of {', '.join(keys)}", keys=keys)
            continue
        for key in keys:
            if key == owner.target.key:
                continue
            name = owner.target.key
            tied = replace(owner, target=replace(owner.target, key=key), reason=RecipeTie(name), tied_to=name)
            if key not in there:
                steps.append(tied)
            elif there[key][1].value == owner.value:
                steps[there[key][0]] = tied
            else:
                state.problem(
                    f"tie: {key} has a tensor of its own beside {owner.target.key}",
                    f'drop it first: "{key} -> !"',
                    [key],
                )


def require_no_problems(expansion: Expansion) -> Expansion:
    """The expansion; `UsageError` with the first problem if it has any."""
    if expansion.problems:
        first = expansion.problems[0]
        raise UsageError(first.message, hint=first.hint or None)
    return expansion
