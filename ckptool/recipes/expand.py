"""A recipe on the keys of a checkpoint: every tensor of the result, what it is made of, and all that is wrong.

Everything is decided on headers. Problems are collected, not raised, so that one preview shows all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeAlias

from ckptool.core.checkpoint import ColumnSpecs
from ckptool.core.errors import CkptError, UsageError
from ckptool.core.keys import Pattern as KeyPattern
from ckptool.core.keys import escape
from ckptool.core.near_miss import near_miss
from ckptool.core.ops import made
from ckptool.core.plan import Apply, Copies, Dropped, Problem, Source, Step, Use, sources_of
from ckptool.core.reasons import ByRules, Init, Kept, NotUsed, Reason, RecipeTie, Unmatched
from ckptool.core.spec import TensorSpec
from ckptool.recipes.binding import with_lists, with_numbers
from ckptool.recipes.capture import Hole
from ckptool.recipes.group import Context, FitOp, Group, Item, groups_of, make, mapped
from ckptool.recipes.items import Items, Loaded, Rules
from ckptool.recipes.matching import Matches, match_stage, new_names
from ckptool.recipes.pattern import Pattern
from ckptool.recipes.recipe import Recipe
from ckptool.recipes.require import unmet_by_keys
from ckptool.recipes.rules import Rule, Stage
from ckptool.recipes.template import Span

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

    steps: Sequence[Step]
    dropped: tuple[Dropped, ...]
    problems: tuple[Problem, ...]
    uses: tuple[Use, ...]

    @property
    def unused(self) -> tuple[Use, ...]:
        """Rules that decided no key."""
        return tuple(use for use in self.uses if not use.keys)


@dataclass(slots=True)
class _State:
    """What is collected on the way.

    `gone`: why each tensor of the inputs is dropped; None for those that are not. `dropped`: the same of tensors that
    a rule has made something of.
    """

    context: Context
    gone: list[Reason | None]
    problems: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    dropped: dict[Source, Reason] = field(default_factory=dict)
    near_misses: int = 0
    most: int = MAX_TENSORS
    met: dict[Rules, Rules] = field(default_factory=dict)

    def problem(self, message: str, hint: str | None = None, keys: Iterable[str] = ()) -> None:
        """One problem; the same for several keys is said once."""
        self.problems.setdefault((message, hint or ""), []).extend(keys)

    def found(self) -> tuple[Problem, ...]:
        """All problems."""
        return tuple(Problem(message, hint, tuple(keys)) for (message, hint), keys in self.problems.items())

    def applied(self, before: Rules, rules: Sequence[Rule]) -> Rules:
        """The rules that a tensor has met, each once; one tuple for all tensors that met the same."""
        met = tuple(dict.fromkeys((*before, *(rule.name for rule in rules))))
        return self.met.setdefault(met, met)

    def drop(self, items: Items, position: int, reason: Reason) -> None:
        row = items.rows[position]
        if row >= 0:
            self.gone[row] = self.gone[row] or reason
            return
        for source in sources_of(items.at(position).value):
            self.dropped.setdefault(source, reason)

    def why_dropped(self, row: int, source: Source) -> Reason:
        return self.gone[row] or self.dropped.get(source) or NotUsed()


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
    inputs = [sources] if isinstance(sources, Mapping) else list(sources)
    loaded = Loaded(inputs)
    state = _State(Context(numbers, fit=fit), [None] * len(loaded.keys))
    items = _begin(loaded, prefixes, state)
    state.most += 20 * len(items)
    specs: Specs = inputs[0] if inputs and items.names is loaded.keys else {}
    if recipe.require and items.names is not loaded.keys:
        specs = {key: items.spec(at) for at, key in enumerate(items)}
    unmet = list(unmet_by_keys(recipe.require, specs))
    for number, stage in enumerate(recipe.stages):
        state.context.targets = targets if number == len(recipe.stages) - 1 else None
        items = _run(with_lists(stage, items, recipe.lists), items, state)
    steps: Sequence[Step] | None = None
    if not recipe.tie and (targets is None or not recipe.init):
        steps = _copies(items)
    if steps is None:
        steps = list(_steps(items))
        if targets is not None:
            _fill(recipe, steps, targets, state)
        _tie(recipe, steps, state)
    return Expansion(
        steps if isinstance(steps, Copies) else tuple(steps),
        tuple(_dropped(loaded, _used(items, steps), state)),
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


def _begin(loaded: Loaded, prefixes: Sequence[str], state: _State) -> Items:
    """The tensors of the inputs, with the prefixes of these."""
    every = len(loaded.keys)
    if len(loaded.inputs) == 1 and not any(prefixes):
        return Items(loaded, loaded.keys, range(every), [()] * every)
    begin = [0, *loaded.ends]
    names = [
        f"{prefixes[at]}.{key}" if prefixes and prefixes[at] else key
        for at in range(len(loaded.inputs))
        for key in loaded.keys[begin[at] : begin[at + 1]]
    ]
    items = Items(loaded, names, range(every), [()] * every)
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        if first.setdefault(name, row) != row:
            state.problem(
                "keys are in two inputs", "give the inputs prefixes: source.files in a recipe", [loaded.keys[row]]
            )
    return items if len(first) == every else items.chosen(list(first.values()))


def _reasons(items: Items) -> list[Reason]:
    """Why each tensor of the result is there."""
    known: dict[int, Reason] = {}  # very many have met the same rules
    for rules in items.rules:
        if id(rules) not in known:
            known[id(rules)] = ByRules(rules) if rules else _KEPT
    return [known[id(rules)] for rules in items.rules]


def _copies(items: Items) -> Copies | None:
    """The result in columns, if its tensors are those of one input in columns, each once and as it is."""
    rows = items.rows
    (specs, *others) = items.loaded.inputs
    if others or not isinstance(specs, ColumnSpecs):
        return None
    keys, forms = items.loaded.keys, specs.forms
    if not isinstance(rows, range):
        if len(rows) and min(rows) < 0:
            return None
        once = bytearray(len(keys))
        for row in rows:
            once[row] = 1
        if once.count(1) < len(rows):
            return None
        keys, forms = [keys[row] for row in rows], [forms[row] for row in rows]
    return Copies(0, items.names, keys, forms, _reasons(items))


def _steps(items: Items) -> Iterator[Step]:
    for at, (name, reason) in enumerate(zip(items.names, _reasons(items), strict=True)):
        spec = items.spec(at)
        row = items.rows[at]
        value = items.computed[-row - 1].value if row < 0 else items.loaded.source(row)
        yield Step(TensorSpec(name, spec.dtype, spec.shape), value, reason)


def _used(items: Items, steps: Sequence[Step]) -> bytearray:
    """1 for each tensor of the inputs that a step is made of."""
    used = bytearray(len(items.loaded.keys))
    for row in items.rows:
        if row >= 0:
            used[row] = 1
    if not isinstance(steps, Copies):
        sources = {source for step in steps for source in sources_of(step.value)}
        for row in range(len(used)):
            used[row] = used[row] or items.loaded.source(row) in sources
    return used


def _dropped(loaded: Loaded, used: bytearray, state: _State) -> Iterator[Dropped]:
    """The tensors of the inputs that no step is made of."""
    row = used.find(0)
    while row >= 0:
        source = loaded.source(row)
        yield Dropped(source, state.why_dropped(row, source))
        row = used.find(0, row + 1)


# ---------------------------------------------------------------------------------------------- one stage

_Made: TypeAlias = dict[int, list[tuple[str, Item]]]
"""Tensors that rules make, by the position of the first that each is made of."""


def _run(stage: Stage, items: Items, state: _State) -> Items:
    matches = match_stage(stage, items.names)
    names, rules = _renamed(stage, items, matches, state)
    made: _Made = {}
    for number, rule in enumerate(stage.rules):
        if rule.is_whole:
            _run_whole(rule, number, matches, items, names, made, state)
        else:
            _note_partial(rule, number, stage, matches, items, names, state)
        if number not in matches.seen and not rule.optional:
            _note_unused(rule, items, state)
    total = sum(map(len, made.values()))
    for position, spans in sorted(matches.touched.items()):
        _touch(position, spans, stage, items, made, state)
        total += len(made.get(position, ()))
        _require_few(total, state)
    gone = bytearray(len(items))
    for owned in matches.owned.values():
        for each in owned:
            gone[each.position] = 1
    for position in matches.touched:
        gone[position] = 1
    for number, positions in matches.dropped.items():
        reason = ByRules((stage.rules[number].name,))
        for position in positions:
            gone[position] = 1
            state.drop(items, position, reason)
    if stage.unmatched != "keep":
        _unmatched(stage, items, matches, gone, state)
    return _collected(_put_together(items.renamed(names, rules), made, gone), state)


def _renamed(stage: Stage, items: Items, matches: Matches, state: _State) -> tuple[list[str], list[Rules]]:
    """The names of all tensors when those that only get another one have it, and the rules that each has met."""
    if not matches.renamed:
        return items.names, items.rules
    names, rules = list(items.names), list(items.rules)
    for numbers, renamed in matches.renamed.items():
        applied = [stage.rules[number] for number in numbers]
        after: dict[int, Rules] = {}
        for position, name in zip(renamed.positions, renamed.names, strict=True):
            names[position] = name
            before = rules[position]
            met = after.get(id(before))
            if met is None:
                met = after[id(before)] = state.applied(before, applied)
            rules[position] = met
    return names, rules


def _put_together(items: Items, made: _Made, gone: bytearray) -> Items:
    """The tensors of the next stage, those that rules have made where their first source stood."""
    if not made and 1 not in gone:
        return items
    found = Items.none_of(items.loaded)
    for position, name in enumerate(items.names):
        if not gone[position]:
            row = items.rows[position]
            if row >= 0:
                found.append(name, row, items.rules[position])
            else:
                found.append_item(name, items.at(position))
        for new, item in made.get(position, ()):
            found.append_item(new, item)
    return found


def _run_whole(
    rule: Rule, number: int, matches: Matches, items: Items, names: list[str], made: _Made, state: _State
) -> None:
    renamed = matches.renamed.get((number,))
    count = len(renamed.names) if renamed else 0
    first = ""
    for group in groups_of(rule, matches.owned.get(number, [])):
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
            first = first or (tensors[0][0] if tensors else "")
            made.setdefault(group.position, []).extend(tensors)
            count += len(tensors)
            _require_few(count, state)
    tally = matches.tallies.get(number)
    example = None
    if tally is not None:
        became = first or (names[tally.first] if renamed else "!")
        example = (items.names[tally.first], became)
    keys = tally.keys if tally else 0
    state.uses.append(Use(rule.text, rule.name, keys, count, example, number in matches.seen and not keys))


def _note_partial(
    rule: Rule, number: int, stage: Stage, matches: Matches, items: Items, names: list[str], state: _State
) -> None:
    tally = matches.tallies.get(number)
    example = None
    if tally is not None:
        key, spans = items.names[tally.first], matches.touched.get(tally.first)
        became = [names[tally.first]] if spans is None else _names_or_none(key, spans, stage)
        is_dropped = rule.drops or any(tally.first in positions for positions in matches.dropped.values())
        example = (key, became[0] if became and not is_dropped else "!")
    count = tally.keys if tally else 0
    made_here = 0 if rule.drops else count * max(1, len(rule.targets))
    state.uses.append(Use(rule.text, rule.name, count, made_here, example, number in matches.seen and not count))


def _names_or_none(key: str, spans: list[Span], stage: Stage) -> list[str]:
    try:
        return new_names(key, spans, stage.rules)
    except ValueError:
        return []


def _inside(rule: Rule, keys: Sequence[str]) -> tuple[str, str] | None:
    """The rule for a module anywhere in a key, and a key that has it there; None if none has, or it is no such rule."""
    if len(rule.sources) != 1 or len(rule.targets) != 1 or rule.optional or rule.steps:
        return None
    said: set[str] = set()
    old, new = rule.sources[0].written(said), rule.targets[0].written(said)
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
    elif some and (numbers := _numbers_there(rule, items)):
        hint = f"there is {numbers}"
    what = f"matches none of the {len(items):,} keys" if len(items) != 1 else "does not match the only key"
    state.problem(f'{rule.name} "{rule.text}" {what}', hint)


def _numbers_there(rule: Rule, keys: Iterable[str]) -> str:
    """The numbers that keys have where a rule names others, "0 to 31"; "" where they differ in more than numbers."""
    pattern = rule.sources[0]
    ranges = {hole.name for hole in pattern.holes if hole.kind == "range"}
    if len(rule.sources) > 1 or len(ranges) != 1:
        return ""
    any_number = [
        tuple(
            replace(token, kind="digits") if isinstance(token, Hole) and token.name in ranges else token
            for token in part
        )
        for part in pattern.parts
    ]
    wider = Pattern(tuple(any_number), pattern.starts_anywhere, pattern.ends_anywhere)
    (name,) = ranges
    found = [int(values[name]) for key in keys if (values := wider.match(key)) is not None and len(values[name]) < 10]
    return f"{name} = {min(found)} to {max(found)}" if found else ""


def _module_named(rule: Rule, keys: Sequence[str]) -> str:
    """The module that a rule names without the dot at its end; "" if it names none."""
    globs = (_glob(pattern) for pattern in rule.sources if not pattern.ends_anywhere)
    names = (glob for glob in globs if "*" not in glob and "[" not in glob)
    return next((name for name in names if any(key.startswith(f"{name}.") for key in keys)), "")


def _glob(pattern: Pattern) -> str:
    """A key pattern that is close to a rule's."""
    parts = ("".join(escape(token) if isinstance(token, str) else "*" for token in part) for part in pattern.parts)
    return "*." * pattern.starts_anywhere + (".".join(parts) or "*") + ".*" * pattern.ends_anywhere


def _touch(position: int, spans: list[Span], stage: Stage, items: Items, made: _Made, state: _State) -> None:
    """What partial rules make of a tensor, where that is more than another name."""
    key, item = items.names[position], items.at(position)
    rules = [stage.rules[number] for number in sorted({span.rule for span in spans})]
    try:
        names = new_names(key, spans, stage.rules)
        applied = state.applied(item.rules, rules)
        steps = [step for rule in rules for step in rule.steps]
        mine = made.setdefault(position, [])
        for name in names:
            new = mapped(item, steps, name, state.context) if steps else item
            mine.append((name, Item(new.value, new.spec, applied)))
    except (CkptError, ValueError) as error:
        state.problem(f"{rules[0].name}: {error}", getattr(error, "hint", None), [key])


def _unmatched(stage: Stage, items: Items, matches: Matches, gone: bytearray, state: _State) -> None:
    """Keys that no rule decides, where they are not just kept."""
    position = matches.taken.find(0)
    while position >= 0:
        if stage.unmatched == "drop":
            state.drop(items, position, Unmatched())
            gone[position] = 1
        else:
            key = items.names[position]
            state.problem("keys that no rule matches", 'give them a rule; to drop one: "KEY -> !"', [key])
        position = matches.taken.find(0, position + 1)


def _require_few(made: int, state: _State) -> None:
    if made > state.most:
        raise UsageError(f"a stage would make more than {state.most:,} tensors")


def _collected(items: Items, state: _State) -> Items:
    """The tensors of a stage; two for one name are a problem."""
    _require_few(len(items), state)
    if sum(map(len, items.names)) > MAX_NAMES:
        raise UsageError(f"the names of a stage would have more than {MAX_NAMES:,} characters")
    if len(set(items.names)) < len(items.names):
        places: dict[str, list[int]] = {}
        for position, name in enumerate(items.names):
            places.setdefault(name, []).append(position)
        for position, name in enumerate(items.names):
            if len(places[name]) > 1 and position == places[name][1]:
                rivals = places[name]
                sides = "; ".join(f"{_source_name(item)} {_by(item)}" for item in map(items.at, rivals[:4]))
                state.problem(
                    f'{len(rivals)} tensors would become "{name}": {sides}', "drop or rename one of them", [name]
                )
        items = items.chosen([positions[0] for positions in places.values()])
    if "" in items.names:
        item = items[""]
        state.problem(f"{_by(item)} nothing is left of {_source_name(item)}", "a rule that keeps a part of it")
    return items


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
