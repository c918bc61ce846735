"""Rules: ``FROM -> TO | STEP | STEP``, one per line; a line ``---`` begins a new stage.

A rule names keys on its left and the keys they become on its right; ``!`` drops, nothing removes the named parts. A
capture that is on one side only is an axis: of several tensors that become one, or of one that becomes several. The
steps say what happens to the tensors on the way.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import prod
from typing import Literal, Protocol, TypeAlias

from ckptool.core.counts import many
from ckptool.core.errors import UsageError
from ckptool.core.ops import Cast
from ckptool.core.reasons import RuleName
from ckptool.fits.args import Fit
from ckptool.recipes.axes import names_of
from ckptool.recipes.capture import Hole
from ckptool.recipes.expression import Expression
from ckptool.recipes.layout import Layout
from ckptool.recipes.pattern import Pattern

Unmatched = Literal["keep", "drop", "error"]


MAX_FANNED = 10_000  # tensors that a rule makes of one
Then: TypeAlias = Layout | Expression | Cast | Fit


NAMELESS = RuleName()


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        sources: the patterns on the left.
        targets: the patterns on the right; none if it drops or only removes parts.
        drops: the right is ``!``.
        optional: it may match nothing (a leading ``?``).
        steps: what happens to the tensors.
        name: how reports call it.
        comment: what stands behind it in its line.
        joining: which step takes all tensors of the left at once; the steps before it are casts.
        shared: the captures of both sides; equal values of these make one group.
        joined: for each pattern on the left, the captures that only the left has: several tensors become one.
        fanned: the same for the right: one tensor becomes several.
        only_renames: one tensor becomes one, as it is.
    """

    sources: tuple[Pattern, ...]
    targets: tuple[Pattern, ...] = ()
    drops: bool = False
    optional: bool = False
    steps: tuple[Then, ...] = ()
    name: RuleName = NAMELESS
    comment: str = field(default="", compare=False)
    joining: int | None = field(init=False, repr=False, compare=False)
    shared: tuple[str, ...] = field(init=False, repr=False, compare=False)
    joined: tuple[tuple[Hole, ...], ...] = field(init=False, repr=False, compare=False)
    fanned: tuple[tuple[Hole, ...], ...] = field(init=False, repr=False, compare=False)
    only_renames: bool = field(init=False, repr=False, compare=False)

    @property
    def text(self) -> str:
        """The rule as it is written."""
        said: set[str] = set()
        left = ", ".join(pattern.written(said) for pattern in self.sources)
        right = "!" if self.drops else ", ".join(pattern.written(said) for pattern in self.targets)
        parts = [f"{left} -> {right}".strip(), *(step.text for step in self.steps)]
        return "?" * self.optional + " | ".join(parts)

    def __str__(self) -> str:
        return self.text

    @property
    def numbers(self) -> tuple[str, ...]:
        """The names in its steps that a number may stand for: axes of layouts, names in expressions."""
        found: list[str] = []
        for hole in self._holes("named"):
            found += (name for name in re.findall(r"[A-Za-z_]\w*", hole.written) if name != hole.name)
        for step in self.steps:
            if isinstance(step, Layout):
                found += names_of((*step.left, *step.right))
            elif isinstance(step, Expression):
                found += step.variables
        return tuple(dict.fromkeys(found))

    @property
    def is_named(self) -> bool:
        """Numbers in its captures are names, which `ckptool.recipes.binding` replaces."""
        return any(self._holes("named"))

    @property
    def lists(self) -> tuple[str, ...]:
        """The names of its captures that stand for a list of modules."""
        return tuple(dict.fromkeys(hole.name for hole in self._holes("list")))

    @property
    def places(self) -> tuple[str, ...]:
        """The captures of which its right wants the places."""
        return tuple(dict.fromkeys(hole.name for hole in self._holes("place")))

    def _holes(self, kind: str) -> Iterator[Hole]:
        return (hole for side in (*self.sources, *self.targets) for hole in side.holes if hole.kind == kind)

    @property
    def is_whole(self) -> bool:
        """It names whole keys, and owns those it matches."""
        return self.sources[0].is_whole

    def __post_init__(self) -> None:
        left = {hole.name: None for pattern in self.sources for hole in pattern.holes}
        right = {hole.name: None for pattern in self.targets for hole in pattern.holes}
        join = next((at for at, step in enumerate(self.steps) if isinstance(step, Layout | Expression)), None)
        joined = tuple(_spread(pattern, right) for pattern in self.sources)
        fanned = tuple(_spread(pattern, left) for pattern in self.targets)
        is_one = len(self.sources) == 1 and len(self.targets) <= 1 and not any(fanned)
        is_one = is_one and not (self.is_whole and any(joined))
        for name, value in (
            ("joining", join),
            ("shared", tuple(name for name in left if name in right)),
            ("joined", joined),
            ("fanned", fanned),
            ("only_renames", is_one and not self.steps and not self.drops),
        ):
            object.__setattr__(self, name, value)


def _spread(pattern: Pattern, other: Container[str]) -> tuple[Hole, ...]:
    return tuple({hole.name: hole for hole in pattern.holes if hole.name not in other}.values())


@dataclass(frozen=True, slots=True)
class Stage:
    """Rules that apply at the same time, and what becomes of keys that none of them matches."""

    rules: tuple[Rule, ...]
    unmatched: Unmatched = "keep"


# ---------------------------------------------------------------------------------------------- checks


class _Fail(Protocol):
    """Makes the error for a rule."""

    def __call__(self, what: str, hint: str | None = None) -> UsageError: ...


def checked(rule: Rule, text: str) -> Rule:
    """The rule, if its sides and steps fit together; `UsageError` otherwise."""

    def fail(what: str, hint: str | None = None) -> UsageError:
        return UsageError(f"{rule.name} {what}", hint=hint, detail=(f"    {text}",))

    if rule.is_named:
        return rule  # once its numbers are known
    if not rule.sources:
        rule = _adding(rule, fail("has nothing on the left", 'it may only add a prefix: "-> model."'))
    if len({pattern.is_whole for pattern in rule.sources}) > 1 or not (rule.is_whole or len(rule.sources) == 1):
        raise fail("names several patterns, and some are not whole keys", "write them with {m**}. in front")
    if rule.is_whole and not rule.targets and not rule.drops:
        raise fail(
            "has nothing on the right for whole keys", 'to drop them: "-> !"; to remove a prefix, end it in a dot'
        )
    for first, second in (pair for pattern in rule.sources for part in pattern.parts for pair in pairwise(part)):
        if (
            isinstance(first, Hole)
            and isinstance(second, Hole)
            and {"choice", "list"}.isdisjoint((first.kind, second.kind))
        ):
            raise fail(f"has {first} and {second} side by side, so nothing says where one ends")
    ends = {(pattern.starts_anywhere, pattern.ends_anywhere) for pattern in (*rule.sources, *rule.targets)}
    if len(ends) > 1:
        raise fail(
            "begins or ends in a dot on one side only", 'write both alike: ".norm. -> .ln.", "module. -> model."'
        )
    if rule.drops and rule.steps:
        raise fail("drops tensors and also computes with them")
    if not rule.drops and rule.targets:
        _check_captures(rule, fail)
    _check_steps(rule, fail)
    return rule


def _adding(rule: Rule, error: UsageError) -> Rule:
    """``-> model.``: the left is nothing, at the begin or the end of every key."""
    ends = {(pattern.starts_anywhere, pattern.ends_anywhere) for pattern in rule.targets}
    if len(rule.targets) != 1 or ends & {(False, False), (True, True)}:
        raise error
    return replace(rule, sources=(Pattern((), rule.targets[0].starts_anywhere, rule.targets[0].ends_anywhere),))


def _check_captures(rule: Rule, fail: _Fail) -> None:
    joining = rule.joining
    layout = rule.steps[joining] if joining is not None else None
    if any(hole.kind == "place" for pattern in rule.sources for hole in pattern.holes):
        raise fail("asks for a place on the left", "{#i} stands on the right, {i} on the left")
    for pattern in rule.sources:
        if missing := set(rule.shared) - {hole.name for hole in pattern.holes}:
            raise fail(
                f"has {{{min(missing)}}} on the right, but not in {pattern}", "each pattern on the left needs it"
            )
    for holes in rule.joined:
        for hole in holes:
            if hole.kind in ("piece", "parts", "glob") or hole.name.startswith("*"):
                raise fail(f"has {hole} on the left only, so several keys could become one", "name it on the right too")
            if layout is None or not rule.is_whole:
                raise fail(
                    f"has {hole} on the left only and does not say how the tensors are joined",
                    f"to stack them: | ... -> {hole.name} ...",
                )
    for holes in rule.fanned:
        copies = prod(hole.size or 1 for hole in holes)
        if copies > MAX_FANNED:
            raise fail(f"would make {copies:,} tensors of one", "give the captures on the right fewer values")
        for hole in holes:
            inside = isinstance(layout, Layout) and hole.name in names_of(layout.left)
            if not rule.is_whole or hole.kind in ("piece", "parts", "glob") or (hole.size is None and not inside):
                raise fail(f"has {hole} on the right only, and nothing says what it is", "give it choices: {x=q|k|v}")


def _check_steps(rule: Rule, fail: _Fail) -> None:
    joining = rule.joining
    before = rule.steps[:joining] if joining is not None else ()
    if any(isinstance(step, Fit) for step in before) and len(rule.sources) > 1:
        raise fail("fits several tensors at once", "join them first")
    if joining is None:
        if len(rule.sources) > 1 and not rule.drops:
            raise fail(
                "has several patterns on the left and does not say how they are joined", "add | LAYOUT or | = EXPR"
            )
        return
    for at, step in enumerate(rule.steps):
        left, right = (rule.sources, rule.targets or (None,)) if at == joining else ((None,), (None,))
        if isinstance(step, Layout):
            if len(step.left) != len(left) or len(step.right) not in (1, len(right)):
                raise fail(f'has {len(left)} -> {many(len(right), "tensor")} where the layout "{step.text}" has others')
            if at == joining:
                joined, fanned = (
                    [tuple(hole.name for hole in row) for row in side] for side in (rule.joined, rule.fanned)
                )
                if len(step.right) == 1 and len(set(fanned)) > 1:
                    raise fail("copies one tensor to patterns with different captures")
                step.check(joined, fanned[: len(step.right)] or [()])
            else:
                step.check([()], [()])
        elif isinstance(step, Expression):
            if step.highest > len(left):
                raise fail(f'has {many(len(left), "tensor")} on the left, but "{step.text}" wants ${step.highest}')
            if len(step.outputs) not in (1, len(right)):
                raise fail(f'makes {many(len(right), "tensor")}, but "{step.text}" has {len(step.outputs)}')
