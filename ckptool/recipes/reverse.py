"""A recipe backwards: the sides of every rule and layout swapped, steps and stages in reverse order.

What was thrown away does not come back. `reverse` says what that is, or names the rules that cannot be turned round;
`check_reverse` tries both directions on actual keys, for a rule that looks reversible may still not be so on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ckptool.core.columns import ColumnSpecs
from ckptool.core.errors import CkptError, IrreversibleError, UsageError
from ckptool.core.ops import Cast
from ckptool.core.plan import Copies, Step, sources_of
from ckptool.core.reasons import RuleName
from ckptool.core.spec import DTYPES, TensorSpec
from ckptool.fits.args import Fit
from ckptool.recipes.axes import Axis
from ckptool.recipes.expand import Expansion, expand
from ckptool.recipes.expression import Expression
from ckptool.recipes.layout import Layout
from ckptool.recipes.pattern import Pattern, parse_pattern
from ckptool.recipes.reading import parse_rule
from ckptool.recipes.recipe import Recipe
from ckptool.recipes.rules import Rule, Stage, Then, checked


@dataclass(frozen=True, slots=True)
class Reversed:
    """A recipe backwards.

    Attributes:
        recipe: what undoes it.
        losses: what does not come back, one sentence each.
    """

    recipe: Recipe
    losses: tuple[str, ...]


def reverse(recipe: Recipe) -> Reversed:
    """The recipe that undoes another.

    Raises:
        PlanError: it has rules that cannot be turned round and are not optional; all are named.

    Example:
        >>> from ckptool.recipes.recipe import parse_recipe
        >>> back = reverse(parse_recipe(["fc.{k**} -> head.{k**}", "in_proj -> {x=q|k|v} | (x o) i -> o i"]))
        >>> print(*back.recipe.rules, sep="\\n")
        head.{k**} -> fc.{k**}
        {x=q|k|v} -> in_proj | o i -> (x o) i
    """
    stages: list[Stage] = []
    losses: list[str] = []
    errors: list[tuple[Rule, CkptError]] = []
    variables = dict(recipe.vars)
    for stage in reversed(recipe.stages):
        rules: list[Rule] = []
        for rule in stage.rules:
            try:
                made, lost = _backwards(rule)
            except CkptError as error:
                if rule.optional:
                    losses.append(f'{rule.name} "{rule.text}" is not undone: {error.message}')
                else:
                    errors.append((rule, error))
                continue
            rules += made
            losses += lost
            for name in _uncounted(rule):
                if name not in variables:
                    variables[name] = 1
                    losses.append(f"{rule.name}: all goes back to one {{{name}}}; --var {name}=2 makes more")
        rules.sort(key=lambda rule: -max(pattern.literal_length for pattern in rule.sources))
        if rules:
            stages.append(Stage(tuple(rules), stage.unmatched))
    if errors:
        rows = "; ".join(f'{rule.name} "{rule.text}": {error.message}' for rule, error in errors)
        raise IrreversibleError(rows, hint="a rule with a leading ? is left out on the way back")
    ties = [key for keys in recipe.tie for key in keys[1:]]
    if ties:
        untie = tuple(parse_rule(f"?{key} -> !", RuleName("tie")) for key in ties)
        stages.insert(0, Stage(untie))
    firsts = [_first_prefix(prefix) for prefix, _ in recipe.source_files]
    if firsts:
        stages.append(Stage(tuple(parse_rule(f"?{prefix}. ->", RuleName("source.files")) for prefix in firsts)))
    back = Recipe(
        tuple(stages),
        f"{recipe.name} backwards".strip(),
        require=recipe.reverse_require,
        vars=variables,
        lists=recipe.lists,
    )
    return Reversed(back, tuple(dict.fromkeys(losses)))


def _first_prefix(prefix: str) -> str:
    pattern = parse_pattern(prefix)
    return pattern.write({hole.name: "0" for hole in pattern.holes})


# ---------------------------------------------------------------------------------------------- one rule


def _backwards(rule: Rule) -> tuple[list[Rule], list[str]]:
    """The rules that undo one, and what is lost. Raises `UsageError` if it cannot be undone."""
    if rule.is_named:
        raise UsageError("its numbers are not known")
    if rule.places:
        raise UsageError("nothing says which numbers there were")
    if rule.drops:
        return [], [f'{rule.name}: what "{rule.text}" drops does not come back']
    if not rule.is_whole and not rule.targets:
        return [_put_back(rule)], []
    many = len(rule.sources) > 1 or len(rule.targets) > 1 or any(rule.joined) or any(rule.fanned)
    if many and sum(isinstance(step, Layout | Expression) for step in rule.steps) > 1:
        raise UsageError("it computes in several steps")
    targets, copies, steps, lost = _sides(rule)
    name = replace(rule.name, backwards=True)
    back = replace(rule, sources=tuple(targets), targets=rule.sources, steps=steps, name=name)
    if back.targets == (Pattern((), rule.targets[0].starts_anywhere, rule.targets[0].ends_anywhere),):
        back = replace(back, targets=())
    rules = [checked(back, back.text)]
    for copy in copies:
        dropped = replace(back, sources=(copy,), targets=(), drops=True, steps=())
        rules.append(checked(dropped, dropped.text))
    return rules, lost


def _put_back(rule: Rule) -> Rule:
    """What undoes ``module. ->``: the prefix on every key."""
    (pattern,) = rule.sources
    if pattern.starts_anywhere and pattern.ends_anywhere:
        raise UsageError("nothing says where the removed parts have stood")
    if pattern.holes:
        raise UsageError("nothing says what the removed captures were")
    nothing = Pattern((), pattern.starts_anywhere, pattern.ends_anywhere)
    return replace(rule, sources=(nothing,), targets=(pattern,), name=replace(rule.name, backwards=True))


def _sides(rule: Rule) -> tuple[list[Pattern], list[Pattern], tuple[Then, ...], list[str]]:
    """The patterns that give a rule's tensors back, those that are mere copies, the steps, and what is lost."""
    targets, copies, lost = list(rule.targets), list[Pattern](), list[str]()
    steps: list[Then] = []
    for step in reversed(rule.steps):
        if isinstance(step, Fit):
            raise UsageError("a fit cannot be undone")
        if isinstance(step, Cast):
            if DTYPES[step.dtype].bits < 32 or DTYPES[step.dtype].kind != "float":
                raise UsageError(f"casting to {step.text} loses precision")
            lost.append(f"{rule.name}: tensors stay {step.dtype}")
        elif isinstance(step, Layout):
            steps.append(step.inverse({hole.name for row in rule.joined for hole in row}))
        elif (order := _picks(step, rule)) is not None:
            copies += [pattern for at, pattern in enumerate(targets) if at not in order]
            targets = [targets[at] for at in order]
            if len(order) > 1:
                steps.append(Expression(tuple(f"${at + 1}" for at in range(len(order)))))
        else:
            steps.append(step.inverse())
    made = rule.steps[rule.joining] if rule.joining is not None else None
    outputs = len(made.right) if isinstance(made, Layout) else len(made.outputs) if isinstance(made, Expression) else 1
    if outputs == 1 and len(targets) > 1:  # one tensor under several names: the first gives it back
        copies, targets = targets[1:], targets[:1]
    if not isinstance(made, Layout) and any(rule.fanned):
        raise UsageError("it repeats a tensor over a capture")
    if copies:
        lost.append(f"{rule.name}: {', '.join(map(str, copies))} is not kept")
    return targets, copies, tuple(steps), lost


def _picks(step: Expression, rule: Rule) -> list[int] | None:
    """For ``= $1, int64(0)``: which output is each source; None if some output is computed from tensors."""
    if any("$" in text and text[1:] not in map(str, range(1, len(rule.sources) + 1)) for text in step.outputs):
        return None
    order = [step.outputs.index(f"${n + 1}") for n in range(len(rule.sources)) if f"${n + 1}" in step.outputs]
    return order if len(order) == len(rule.sources) and not any(rule.joined) else None


def _uncounted(rule: Rule) -> Iterable[str]:
    """Captures of the left only that nothing counts on the way back: ``rank{r}.wo -> wo | o i -> o (r i)``."""
    layout = rule.steps[rule.joining] if rule.joining is not None else None
    if isinstance(layout, Layout):
        alone = {dim.name for tensor in layout.right for dim in tensor if isinstance(dim, Axis)}
        yield from (hole.name for row in rule.joined for hole in row if hole.size is None and hole.name not in alone)


# ---------------------------------------------------------------------------------------------- there and back


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """What there-and-back does to actual keys.

    Attributes:
        lost: keys that do not come back though no rule drops them.
        dropped: keys that do not come back because rules drop them.
        changed: keys that come back with another shape or dtype, or from another tensor.
        added: keys that were not there before.
        problems: why one of the directions is impossible.
    """

    lost: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def is_exact(self) -> bool:
        """Everything that is not dropped on purpose comes back as it was."""
        return not (self.lost or self.changed or self.added or self.problems)


def check_reverse(
    recipe: Recipe,
    specs: Mapping[str, TensorSpec],
    *,
    vars: Mapping[str, float] | None = None,
    targets: Mapping[str, TensorSpec] | None = None,
    backwards: bool = False,
    there: Expansion | None = None,
) -> RoundTrip:
    """A recipe and its reverse on actual keys.

    Args:
        recipe: the recipe forwards.
        specs: the keys that it begins with; with `backwards`, those that its reverse begins with (--reverse).
        vars: as for `expand`.
        targets: where what is made is known by its shapes; those of `specs` are then known on the way back.
        there: the first half of the way, if it is known already.

    Raises:
        PlanError: the recipe has rules that cannot be reversed at all.

    Example:
        >>> from ckptool.recipes.recipe import parse_recipe
        >>> specs = {key: TensorSpec(key, "float32", (3,)) for key in ("a.gamma", "b.weight")}
        >>> check_reverse(parse_recipe([".gamma -> .weight"]), specs)
        RoundTrip(lost=('b.weight',), dropped=(), changed=(), added=('b.gamma',), problems=())
    """
    back = reverse(recipe).recipe
    first, second = (back, recipe) if backwards else (recipe, back)
    there = there or expand(first, specs, vars=vars, targets=targets)
    if there.problems:
        return RoundTrip(problems=tuple(problem.message for problem in there.problems))
    steps = there.steps
    made = (
        ColumnSpecs(steps.keys, steps.forms) if isinstance(steps, Copies) else {s.target.key: s.target for s in steps}
    )
    again = expand(_lenient(second), made, vars=vars, targets=None if targets is None else specs)
    after = _after(specs, steps, again.steps)
    dropped = {gone.source.key for gone in there.dropped}
    return RoundTrip(
        lost=tuple(key for key in specs if key not in after and key not in dropped),
        dropped=tuple(key for key in specs if key not in after and key in dropped),
        changed=tuple(key for key in specs if key in after and not after[key]),
        added=tuple(key for key in after if key not in specs),
        problems=tuple(problem.message for problem in again.problems),
    )


def _lenient(recipe: Recipe) -> Recipe:
    """The recipe with every rule optional: on the way back some have nothing left to do."""
    return replace(
        recipe,
        stages=tuple(
            replace(stage, rules=tuple(replace(rule, optional=True) for rule in stage.rules)) for stage in recipe.stages
        ),
    )


def _after(specs: Mapping[str, TensorSpec], there: Sequence[Step], again: Sequence[Step]) -> dict[str, bool]:
    """The keys that come back, and whether each is what it was."""
    if isinstance(there, Copies) and isinstance(again, Copies):
        origin = dict(zip(there.keys, there.sources, strict=True))
        return {key: origin[middle] == key for key, middle in zip(again.keys, again.sources, strict=True)}
    between = {step.target.key: step for step in there}
    back = {step.target.key: step for step in again}
    return {key: key in specs and _same(specs[key], between, step) for key, step in back.items()}


def _same(spec: TensorSpec, between: Mapping[str, Step], step: Step) -> bool:
    """True if a key comes back with its spec, made from itself."""
    if step.target != spec:
        return False
    return any(
        source.key == spec.key for middle in sources_of(step.value) for source in sources_of(between[middle.key].value)
    )
