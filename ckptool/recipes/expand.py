"""A recipe on the keys of a checkpoint: every tensor of the result, what it is made of, and all that is wrong.

Everything is decided on headers. Problems are collected, not raised, so that one preview shows all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from ckptool.core.columns import ColumnSpecs
from ckptool.core.errors import UsageError
from ckptool.core.keys import Pattern as KeyPattern
from ckptool.core.ops import made
from ckptool.core.plan import Apply, Copies, Dropped, Problem, Step, Use, sources_of
from ckptool.core.reasons import ByRules, Init, Kept, Reason, RecipeTie
from ckptool.core.spec import TensorSpec
from ckptool.recipes.binding import with_lists, with_numbers
from ckptool.recipes.group import Context, FitOp
from ckptool.recipes.items import Items, Loaded
from ckptool.recipes.recipe import Recipe
from ckptool.recipes.require import unmet_by_keys
from ckptool.recipes.stage import State, run_stage

Specs: TypeAlias = Mapping[str, TensorSpec]

_KEPT = Kept()


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


def expand(
    recipe: Recipe,
    sources: Specs | Sequence[Specs],
    *,
    prefixes: Sequence[str] = (),
    vars: Mapping[str, float] | None = None,
    targets: Specs | None = None,
    fit: FitOp | None = None,
    near: bool = True,
) -> Expansion:
    """A recipe on the tensors of one or several inputs.

    Args:
        recipe: what to do.
        sources: key -> spec for each input, in the order that `Source.input` counts; one mapping is one input.
        prefixes: put before the keys of each input, as `source_file_captures` gives them ("rank0").
        vars: the numbers that names in layouts and expressions stand for, as `resolve_vars` gives them.
        targets: the target model's specs, which help to solve sizes and are what ``fit`` and ``init`` aim at.
        fit: makes the ops of ``fit``.
        near: the hint for a rule that matches nothing names keys like its own; to find them takes longer than the rest.

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
    state = State(Context(numbers, fit=fit), [None] * len(loaded.keys), near=near)
    items = _begin(loaded, prefixes, state)
    state.most += 20 * len(items)
    specs: Specs = inputs[0] if inputs and items.names is loaded.keys else {}
    if recipe.require and items.names is not loaded.keys:
        specs = {key: items.spec(at) for at, key in enumerate(items)}
    unmet = list(unmet_by_keys(recipe.require, specs))
    for number, stage in enumerate(recipe.stages):
        state.context.targets = targets if number == len(recipe.stages) - 1 else None
        items = run_stage(with_lists(stage, items, recipe.lists), items, state)
    steps: Sequence[Step] | None = None
    if not recipe.tie and (targets is None or not recipe.init):
        steps = _copies(items)
    if steps is None:
        steps = list(_steps(items))
        if targets is not None and recipe.init:
            _fill(recipe, steps, targets, state)
        _tie(recipe, steps, state)
    return Expansion(
        steps if isinstance(steps, Copies) else tuple(steps),
        tuple(_dropped(loaded, _used(items), state)),
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


def _begin(loaded: Loaded, prefixes: Sequence[str], state: State) -> Items:
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


def _used(items: Items) -> bytearray:
    """1 for each tensor of the inputs that a step is made of."""
    used = bytearray(len(items.loaded.keys))
    for row in items.rows:
        if row >= 0:
            used[row] = 1
    sources = {source for row in items.rows if row < 0 for source in sources_of(items.computed[-row - 1].value)}
    for row in range(len(used)) if sources else ():
        used[row] = used[row] or items.loaded.source(row) in sources
    return used


def _dropped(loaded: Loaded, used: bytearray, state: State) -> Iterator[Dropped]:
    """The tensors of the inputs that no step is made of."""
    row = used.find(0)
    while row >= 0:
        source = loaded.source(row)
        yield Dropped(source, state.why_dropped(row, source))
        row = used.find(0, row + 1)


# ---------------------------------------------------------------------------------------------- what no rule makes


def _fill(recipe: Recipe, steps: list[Step], targets: Specs, state: State) -> None:
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


def _tie(recipe: Recipe, steps: list[Step], state: State) -> None:
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
