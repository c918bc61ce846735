"""The evidence of an automatic match in words."""

from __future__ import annotations

from collections.abc import Sequence

from ckptool.core.counts import many
from ckptool.matching.result import Evidence, MatchRule, Pair

_WORDS = {
    Evidence.SAME_NAME: "same name",
    Evidence.SAME_UNDER_PREFIX: "same name under a prefix",
    Evidence.ONLY_OF_SHAPE: "the only tensor of this shape",
    Evidence.LAST_OF_SHAPE: "the last one left of this shape",
    Evidence.PAIR_OFF: "names pair one to one among tensors of this shape",
    Evidence.SAME_SEQUENCE: "all modules have the same shapes in the same order",
    Evidence.WORDS_AGREE: "similar names",
    Evidence.SAME_SHAPES: "all tensors of both sides have the same shapes",
    Evidence.SAME_TABLE: "a table of as many words",
    Evidence.SAME_BLOCKS: "the blocks of both lists have the same shapes",
    Evidence.NEIGHBOURS_AGREE: "neighbouring modules match",
    Evidence.BESIDE: "the matrices beside them match",
    Evidence.ORDER_AGREES: "same order in the files",
    Evidence.ONLY_ORDER: "nothing but the order in the files",
    Evidence.NO_COUNTERPART: "nothing in the target was found for it",
    Evidence.SQUARE: "it is square, and others of its block are transposed",
    Evidence.OTHER_BLOCKS: "other modules match these two blocks with others",
    Evidence.CROSSED: "another tensor of its block has this name or this position",
    Evidence.NAMESAKE: "another tensor has its name",
    Evidence.MOST_MATCH: "most of the model matches already",
    Evidence.TWINS: "the target has equal parts, which all get the same",
    Evidence.REARRANGED: "one library stores its elements in another order, which no header shows",
    Evidence.UNDIVIDED: "one library stores sums, to be divided by a number beside them",
    Evidence.SPLIT: "its siblings match another module",
    Evidence.NO_WORD: "the names have no word in common, and many tensors have no counterpart",
    Evidence.MIRRORED: "all are in reverse order, and the names have no word in common: a mirror image?",
    Evidence.TWIN: "another tensor fits as well, and nothing tells which is meant",
}


def evidence_words(evidence: Sequence[Evidence], pairs: Sequence[Pair]) -> list[str]:
    """A few words for each.

    Args:
        evidence: what speaks for pairs or against them.
        pairs: these, which say how much.

    Example:
        >>> pair = Pair(("a",), ("b",), score=0.5)
        >>> evidence_words((Evidence.BEST_OF_SHAPE, Evidence.TWIN), (pair,))
        ['the best of its shape, by 0.50', 'another tensor fits as well, and nothing tells which is meant']
    """
    return [_words(one, pairs) for one in evidence]


def _words(one: Evidence, pairs: Sequence[Pair]) -> str:
    mine = [pair for pair in pairs if one in pair.evidence] or pairs
    if one is Evidence.BEST_OF_SHAPE:
        return f"the best of its shape, by {min(pair.score for pair in mine):.2f}"
    if one is Evidence.OTHER_SHAPE:
        return f"other shape: {shape_words(mine[0])}"
    return _WORDS[one]


def shape_words(pair: Pair) -> str:
    """``[1000,512] and [10,512]``; nothing where a layout makes one shape of the other."""
    return " and ".join(f"[{','.join(map(str, shape))}]" for shape in pair.shapes or ())


def rival_words(rule: MatchRule) -> str:
    """The next best source of what is decided most narrowly; nothing if that is not near."""
    return f"next best: {rule.rival[0]} ({rule.rival[1]:.2f})" if rule.rival else ""


def rule_words(rule: MatchRule) -> str:
    """How sure a rule is, what it makes, and why."""
    pairs = f", {many(len(rule.pairs), 'tensor')}" if rule.pairs else ""
    rival = f"; {rival_words(rule)}" if rule.rival else ""
    return f"{rule.confidence.value}{pairs}: {', '.join(evidence_words(rule.evidence, rule.pairs))}{rival}"
