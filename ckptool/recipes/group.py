"""Tensors that one rule takes together: gathers them by their captures, and makes what they become."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, product
from typing import TypeAlias

from ckptool.core.errors import PlanError
from ckptool.core.ops import Cast
from ckptool.core.plan import Apply, Op, Value
from ckptool.core.reasons import RuleName
from ckptool.core.spec import TensorSpec
from ckptool.fits.args import Fit
from ckptool.recipes.capture import Hole
from ckptool.recipes.expression import Expression
from ckptool.recipes.layout import Layout
from ckptool.recipes.matching import Owned
from ckptool.recipes.pattern import Pattern
from ckptool.recipes.rearrange import Piece, Rearrange, pieces, stack
from ckptool.recipes.rules import Rule, Then

FitOp: TypeAlias = Callable[[Fit, TensorSpec, TensorSpec], Op]
"""Makes the op of ``fit METHOD(args)`` from a source's and its target's spec."""
Place: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """A tensor on its way through the stages: what it is made of, what it is now, which rules it met."""

    value: Value
    spec: TensorSpec
    rules: tuple[RuleName, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """The keys that one application of a rule takes.

    Attributes:
        values: the captures that both sides have.
        members: for each pattern on the left, the key at each place along the captures that only the left has.
        position: where the first of them stood.
    """

    values: dict[str, str]
    members: tuple[dict[Place, str], ...]
    position: int

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key for found in self.members for key in found.values())


@dataclass(slots=True)
class Context:
    """What making tensors needs to know, and the layouts solved so far."""

    variables: Mapping[str, float]
    targets: Mapping[str, TensorSpec] | None = None
    fit: FitOp | None = None
    solved: dict[object, list[Piece]] = field(default_factory=dict)

    @property
    def sizes(self) -> dict[str, int]:
        """The vars that can be lengths of axes."""
        return {name: int(value) for name, value in self.variables.items() if float(value).is_integer() and value >= 0}


class IncompleteError(PlanError):
    """Keys of a group are missing, or there are too many."""


def groups_of(rule: Rule, owned: Sequence[Owned]) -> Iterator[Group | IncompleteError]:
    """The keys of a rule, put together; an error in place of a group that is not complete."""
    spread = rule.joined
    shared = rule.shared
    if len(rule.sources) == 1 and not spread[0]:
        for match in owned:
            yield Group(match.values, ({(): match.key},), match.position)
        return
    found: dict[tuple[str, ...], tuple[dict[Place, str], ...]] = {}
    positions: dict[tuple[str, ...], int] = {}
    for match in owned:
        name = tuple(match.values[capture] for capture in shared)
        members = found.setdefault(name, tuple({} for _ in rule.sources))
        positions[name] = min(positions.get(name, match.position), match.position)
        numbers = [(hole, match.values[hole.name]) for hole in spread[match.pattern]]
        if any(len(text) > 18 for _, text in numbers):
            yield IncompleteError(f"{match.key[:80]} has a number that no list is as long as", key=match.key)
            continue
        place = tuple(hole.index_of(text) for hole, text in numbers)
        if place in members[match.pattern]:
            yield IncompleteError(
                f"{members[match.pattern][place]} and {match.key} stand for the same tensor", key=match.key
            )
        members[match.pattern][place] = match.key
    lengths: dict[str, int] = {}
    for name, members in found.items():
        values = dict(zip(shared, name, strict=True))
        error = _incomplete(rule.sources, spread, members, values, lengths)
        in_order = tuple({place: keys[place] for place in sorted(keys)} for keys in members)
        yield error or Group(values, in_order, positions[name])


def _incomplete(
    sources: Sequence[Pattern],
    spread: Sequence[Sequence[Hole]],
    members: Sequence[dict[Place, str]],
    values: dict[str, str],
    lengths: dict[str, int],
) -> IncompleteError | None:
    """What is missing from a group; None if it is complete and as long as the groups before (`lengths`)."""
    here: dict[str, int] = {}
    for holes, found in zip(spread, members, strict=True):
        for at, hole in enumerate(holes):
            last = max((place[at] for place in found), default=-1)
            here[hole.name] = max(hole.size or 0, last + 1, here.get(hole.name, 0))
    for pattern, holes, found in zip(sources, spread, members, strict=True):
        wanted = 1
        for hole in holes:
            wanted *= here[hole.name]
        if len(found) < wanted:
            place = _first_missing([here[hole.name] for hole in holes], found)
            captures = {**values, **{hole.name: hole.value_at(index) for hole, index in zip(holes, place, strict=True)}}
            there = next(key for keys in members for key in keys.values())
            more = f" and {wanted - len(found) - 1} more" if wanted - len(found) > 1 else ""
            return IncompleteError(
                f"{pattern.write(captures)}{more} is missing beside {there}",
                hint="numbers run from 0 without gaps; others are written {e=1..8} or {e+1}" if holes else None,
                key=there,
            )
    for name, length in here.items():
        if lengths.setdefault(name, length) != length:
            key = next(iter(members[0].values()))
            return IncompleteError(
                f"there are {length} of {{{name}}} beside {key}, and {lengths[name]} elsewhere", key=key
            )
    return None


def _first_missing(lengths: Sequence[int], found: Collection[Place]) -> Place:
    """The first place of a grid that is not there. Counted, not listed: a number in a key may be huge."""
    for number in count():
        place: list[int] = []
        for length in reversed(lengths):
            number, at = divmod(number, length)
            place.insert(0, at)
        if tuple(place) not in found:
            return tuple(place)
    raise AssertionError


# ---------------------------------------------------------------------------------------------- what they become


def make(rule: Rule, group: Group, items: Mapping[str, Item], context: Context) -> list[tuple[str, Item]]:
    """The tensors that a rule makes of a group, by name. Raises `PlanError`; `ValueError` for a negative number."""
    joining = rule.joining
    if joining is None:
        (only,) = group.members[0].values()
        item = items[only]
        if not rule.steps and len(rule.targets) == 1 and not rule.fanned[0]:  # a mere rename: most rules are
            return [(rule.targets[0].write(group.values), Item(item.value, item.spec, _rules([item], rule)))]
        made = [(name, item) for name, _ in _names(rule, group.values)]
        rest = rule.steps
    else:
        before, step, rest = rule.steps[:joining], rule.steps[joining], rule.steps[joining + 1 :]
        args = [
            {place: mapped(items[key], before, key, context) for place, key in found.items()} for found in group.members
        ]
        if isinstance(step, Layout):
            made = _laid_out(rule, step, group, args, context, is_last=not rest)
        else:
            assert isinstance(step, Expression)
            made = _computed(rule, step, group, args, context)
    rules = _rules((items[key] for key in group.keys), rule)
    return [(name, replace(mapped(item, rest, name, context), rules=rules)) for name, item in made]


def _rules(items: Iterable[Item], rule: Rule) -> tuple[RuleName, ...]:
    return tuple(dict.fromkeys([*(name for item in items for name in item.rules), rule.name]))


def mapped(item: Item, steps: Iterable[Then], name: str, context: Context) -> Item:
    """A tensor after steps that take one tensor each. The name is its target's, which ``fit`` looks up."""
    for step in steps:
        op: Op
        if isinstance(step, Cast):
            if not step.changes(item.spec.dtype):
                continue
            op = step
        elif isinstance(step, Layout):
            op = pieces(step, [{(): item.spec.shape}], [()], [()], context.sizes)[0].op
        elif isinstance(step, Expression):
            ((op, used),) = step.ops([item.spec], context.variables)
            if not used:
                item = Item(Apply(op, ()), op.result([]), item.rules)
                continue
        else:
            found = _fitted(step, item, name, context)
            if found is None:
                continue
            op = found
        item = applied(op, [item])
    return item


def applied(op: Op, args: Sequence[Item]) -> Item:
    """An op on tensors; the tensor itself where the op would change nothing."""
    spec = op.result([arg.spec for arg in args])
    if isinstance(op, Rearrange) and op.is_identity:
        return args[0]
    return Item(Apply(op, tuple(arg.value for arg in args)), spec, args[0].rules)


def _fitted(step: Fit, item: Item, name: str, context: Context) -> Op | None:
    if context.targets is None or context.fit is None:
        raise PlanError(f'"{step.text}" needs a model to fit to', hint="name it: --into MODEL")
    target = context.targets.get(name)
    if target is None:
        raise PlanError(f'"{step.text}": the target has no {name}')
    fits_already = target.shape == item.spec.shape and not step.moves
    return None if fits_already else context.fit(step, item.spec, target)


def _names(rule: Rule, values: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """Each name on the right, with its pattern's number; one for each value of a capture that only the right has."""
    for number, (pattern, holes) in enumerate(zip(rule.targets, rule.fanned, strict=True)):
        for place in product(*(range(hole.size or 0) for hole in holes)):
            yield _name(pattern, holes, place, values), number


def _name(pattern: Pattern, holes: Sequence[Hole], place: Place, values: Mapping[str, str]) -> str:
    own = {hole.name: hole.value_at(index) for hole, index in zip(holes, place, strict=True)}
    return pattern.write({**values, **own})


def _laid_out(
    rule: Rule,
    layout: Layout,
    group: Group,
    args: Sequence[Mapping[Place, Item]],
    context: Context,
    *,
    is_last: bool,
) -> list[tuple[str, Item]]:
    left = [tuple(hole.name for hole in holes) for holes in rule.joined]
    right = [tuple(hole.name for hole in holes) for holes in rule.fanned[: len(layout.right)]]
    known = context.sizes
    for names, found in zip(left, args, strict=True):
        known |= {name: max(place[at] for place in found) + 1 for at, name in enumerate(names)}
    holes = {hole.name: hole for row in rule.fanned for hole in row}
    known |= {name: hole.size for name, hole in holes.items() if hole.size is not None}
    members = [{place: item.spec.shape for place, item in found.items()} for found in args]
    targets: list[tuple[int, ...] | None] = []
    if context.targets is not None and is_last:
        first = {hole.name: hole.value_at(0) for hole in holes.values()}
        wanted = [context.targets.get(pattern.write({**group.values, **first})) for pattern in rule.targets]
        targets = [spec.shape if spec else None for spec in wanted[: len(layout.right)]]
    memo = (id(rule), tuple(tuple(found.items()) for found in members), tuple(targets))
    if memo not in context.solved:
        context.solved[memo] = pieces(layout, members, left, right, known, targets)
    made: list[tuple[str, Item]] = []
    for piece in context.solved[memo]:
        item = applied(piece.op, [args[number][place] for number, place in piece.args])
        numbers = range(len(rule.targets)) if len(layout.right) == 1 else [piece.tensor]
        made += [(_name(rule.targets[at], rule.fanned[at], piece.place, group.values), item) for at in numbers]
    return made


def _computed(
    rule: Rule, step: Expression, group: Group, args: Sequence[Mapping[Place, Item]], context: Context
) -> list[tuple[str, Item]]:
    """An expression; a tensor that is spread over captures is stacked along them first."""
    whole = [
        found[()]
        if () in found
        else applied(stack({place: item.spec.shape for place, item in found.items()}), list(found.values()))
        for found in args
    ]
    results: list[Item] = []
    for text, (op, used) in zip(step.outputs, step.ops([item.spec for item in whole], context.variables), strict=True):
        if text in (f"${at + 1}" for at in used):
            results.append(whole[used[0]])
        elif used:
            results.append(applied(op, [whole[at] for at in used]))
        else:
            results.append(Item(Apply(op, ()), op.result([])))
    return [(name, results[number if len(results) > 1 else 0]) for name, number in _names(rule, group.values)]
