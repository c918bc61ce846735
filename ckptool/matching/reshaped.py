"""Tensors that belong together by their names and differ in shape: another number of classes, a larger image.

Shapes decide who may be whom everywhere else; here they cannot, so names have to be as good as equal: the same name, or
words that agree and fit no other. Such pairs are told; only a transplant, which can fit them, makes rules of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ckptool.core.spec import TensorSpec
from ckptool.matching.alike import named_words, similarity
from ckptool.matching.cuts import units_of
from ckptool.matching.edges import Match
from ckptool.matching.modules import Unit
from ckptool.matching.relations import squeezed
from ckptool.matching.result import Confidence, Evidence, MatchReport, Pair

Specs = Mapping[str, TensorSpec]

_LEAST = 0.6  # of the words agree
_MARGIN = 0.1  # by which they agree better than with any other
_MOST = 2000  # units of one side that are compared by words; of more, only equal names


def reshaped_matches(source: Specs, target: Specs) -> list[tuple[Match, tuple[Pair, ...]]]:
    """Modules whose tensors have other shapes, with the pairs of these tensors.

    Args:
        source: what is left of it.
        target: the same.

    Example:
        >>> old = {"fc.weight": TensorSpec("fc.weight", "float32", (1000, 512))}
        >>> new = {"head.fc.weight": TensorSpec("head.fc.weight", "float32", (10, 512))}
        >>> [(pair.sources, pair.targets) for _, pairs in reshaped_matches(old, new) for pair in pairs]
        [(('fc.weight',), ('head.fc.weight',))]
    """
    ours, theirs = units_of(source), units_of(target)
    by_name = {unit.text: unit for unit in theirs}
    found = [(one, by_name[one.text], Evidence.SAME_NAME) for one in ours if one.text in by_name]
    found = [row for row in found if _may_be(row[0], row[1])]
    here = [unit for unit in ours if unit not in {one for one, _, _ in found}]
    there = [unit for unit in theirs if unit not in {other for _, other, _ in found}]
    if max(len(here), len(there)) <= _MOST:
        found += _by_words(here, there)
    matches = [Match(one, other, (why, Evidence.OTHER_SHAPE), Confidence.ALIGNED) for one, other, why in found]
    return [(one, tuple(_pairs(one, source, target))) for one in matches]


def with_reshaped(report: MatchReport) -> MatchReport:
    """The report with rules for its pairs of other shapes, before all others."""
    return replace(report, rules=(*report.reshaped_rules, *report.rules))


def _by_words(ours: Sequence[Unit], theirs: Sequence[Unit]) -> Iterable[tuple[Unit, Unit, Evidence]]:
    scores = {
        (one, other): score
        for one in ours
        for other in theirs
        if _may_be(one, other) and named_words(one, other) and (score := similarity(one, other)) >= _LEAST
    }
    for (one, other), score in scores.items():
        rivals = [
            rival for pair, rival in scores.items() if pair != (one, other) and (pair[0] is one or pair[1] is other)
        ]
        if score - max(rivals, default=0.0) >= _MARGIN:
            yield one, other, Evidence.WORDS_AGREE


def _may_be(one: Unit, other: Unit) -> bool:
    """As many instances, and main tensors that differ in some axes only."""
    if len(one.members) != len(other.members) or one.main not in other.shapes:
        return False
    if one.shapes[one.main] == other.shapes[one.main]:
        return False
    return all(
        len(a) == len(b) and (len(squeezed(a)) < 2 or any(x == y for x, y in zip(a, b, strict=True) if x > 1))
        for a, b in zip(one.shapes[one.main], other.shapes[one.main], strict=True)
    )


def _pairs(match: Match, source: Specs, target: Specs) -> Iterable[Pair]:
    for role, keys in match.target.keys.items():
        for key, found in zip(keys, match.source.keys.get(role, ()), strict=False):
            shapes = source[found].shape, target[key].shape
            yield Pair((key,), (found,), "", match.evidence, match.confidence, shapes=shapes)
