"""From matched units to pairs of tensors, each with its layout."""

from __future__ import annotations

from collections.abc import Iterator

from ckptool.matching.assign import Match
from ckptool.matching.group_layouts import joining_layout, splitting_layout, unstacking_layout
from ckptool.matching.halves import HALVES, half_layout, is_lost
from ckptool.matching.modules import Shape, Unit
from ckptool.matching.orient import layout_of
from ckptool.matching.result import Confidence, Pair, least_sure


def pairs_of(match: Match, turned: str) -> Iterator[Pair]:
    """One pair for each role that both units have, in each instance.

    Args:
        match: two units.
        turned: which of them has its inputs before its outputs, "source" or "target"; "" if both or none.
    """
    source, target = match.source, match.target
    for role in target.shapes:
        if role not in source.shapes:
            continue
        for at in range(len(target.members)):
            sources, targets = _keys(source, role, at), _keys(target, role, at)
            if source.kind == HALVES and is_lost(source, role):
                continue
            shapes = source.shapes[role][at], target.shapes[role][at]
            flip = turned if role == source.main else ""
            layout = _layout(source, target, role, shapes, len(sources), len(targets), flip)
            for made in (source, target):
                if made.kind == HALVES:
                    layout = half_layout(made, role, len(shapes[0]), made is source)
            same = sources == targets and match.confidence.within(Confidence.ALIGNED)
            confidence = Confidence.CERTAIN if same else match.confidence
            if HALVES in (source.kind, target.kind):
                confidence = least_sure([confidence, Confidence.ALIGNED])
            rival = _rival(match, role, at)
            yield Pair(targets, sources, layout, match.evidence, confidence, rival, round(match.score, 2), match.habit)


def _rival(match: Match, role: str, at: int) -> tuple[str, float] | None:
    """The next best source of one tensor, and its score."""
    if match.runner_up is None:
        return None
    unit, score = match.runner_up
    role = role if role in unit.keys else unit.main
    return _keys(unit, role, min(at, len(unit.members) - 1))[0], round(score, 2)


def _keys(unit: Unit, role: str, at: int) -> tuple[str, ...]:
    return unit.groups[role][at] if unit.groups else (unit.keys[role][at],)


def _layout(
    source: Unit, target: Unit, role: str, shapes: tuple[Shape, Shape], sources: int, targets: int, turned: str
) -> str:
    made = source if source.kind else target
    flips = role == made.main and made.turned, bool(turned)
    if source.kind:
        stack = "stack" in source.kind
        return joining_layout(sources, shapes[0][0] if stack else 0, len(shapes[0]) - stack, flips)
    if target.kind:
        if "stack" in target.kind:
            return unstacking_layout(shapes[1][0], targets // shapes[1][0], len(shapes[1]) - 1)
        return splitting_layout(targets, len(shapes[1]), flips)
    return layout_of(*shapes, turned)
