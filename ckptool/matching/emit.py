"""From matched units to pairs of tensors, each with its layout."""

from __future__ import annotations

from collections.abc import Iterator

from ckptool.matching.edges import Match
from ckptool.matching.group_layouts import joining_layout, splitting_layout
from ckptool.matching.halves import HALVES, half_layout, is_lost
from ckptool.matching.modules import Shape, Unit
from ckptool.matching.relations import relation
from ckptool.matching.result import Confidence, Pair, least_sure


def pairs_of(match: Match) -> Iterator[Pair]:
    """One pair for each role that both units have, in each instance."""
    source, target = match.source, match.target
    for role in target.shapes:
        if role not in source.shapes or (source.kind == HALVES and is_lost(source, role)):
            continue
        way, made = match.way if role == source.main else "", source if source.kind else target
        flips = role == made.main and made.turned, bool(way)
        for at in range(len(target.members)):
            sources, targets = _keys(source, role, at), _keys(target, role, at)
            shapes = source.shapes[role][at], target.shapes[role][at]
            if made.kind:
                layout = _layout(shapes, len(targets if made is target else sources), flips, made is source)
            else:
                layout = relation(*shapes, way) or ""
            for half in (source, target):
                if half.kind == HALVES:
                    layout = half_layout(half, role, len(shapes[0]), half is source)
            same = sources == targets and match.confidence.within(Confidence.ALIGNED)
            confidence = Confidence.CERTAIN if same else match.confidence
            if HALVES in (source.kind, target.kind):
                confidence = least_sure([confidence, Confidence.ALIGNED])
            rival = _rival(match, role, at)
            yield Pair(targets, sources, layout, match.evidence, confidence, rival, round(match.score, 2))


def _rival(match: Match, role: str, at: int) -> tuple[str, float] | None:
    """The next best source of one tensor, and its score."""
    if match.runner_up is None:
        return None
    unit, score = match.runner_up
    role = role if role in unit.keys else unit.main
    return _keys(unit, role, min(at, len(unit.members) - 1))[0], round(score, 2)


def _keys(unit: Unit, role: str, at: int) -> tuple[str, ...]:
    return unit.groups[role][at] if unit.groups else (unit.keys[role][at],)


def _layout(shapes: tuple[Shape, Shape], parts: int, flips: tuple[bool, bool], is_joined: bool) -> str:
    """How the parts of a unit that is made of several are joined, or it is split into them."""
    made, whole = shapes if is_joined else shapes[::-1]
    rank = min(len(made), len(whole))
    ones = len(made) - rank, len(whole) - rank
    return (joining_layout if is_joined else splitting_layout)(parts, rank, flips, ones)
