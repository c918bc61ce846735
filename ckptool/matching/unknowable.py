"""What no header can decide, said where it applies."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ckptool.core.checkpoint import Note
from ckptool.core.spec import TensorSpec
from ckptool.matching.result import Confidence, Evidence, Pair
from ckptool.matching.words import words_of

_META = frozenset({"wq", "wk"})  # Meta's Llama rotates neighbours, transformers rotates halves
_Q_FIRST = frozenset({"qkv", "in_proj", "in_proj_weight", "in_proj_bias", "qkv_proj", "to_qkv"})  # timm, torch, Phi-3
_GATED = frozenset({"gate", "up"})
_COLOURS = "the order of the input's colours, RGB or BGR, is not in any header"
_NO_DIGITS = dict.fromkeys(map(ord, "0123456789"))
_BLUE_FIRST = re.compile(r"(^|[./])(res[2-5]([._]|$)|conv1_1|conv[2-5]_block1|.*branch2a)")  # Caffe, detectron2, Keras
_COMPARE = "compare the outputs of both models"


def unknowable(pairs: Iterable[Pair], target: Mapping[str, TensorSpec]) -> tuple[Note, ...]:
    """Notes on the accepted pairs whose elements may differ in order though names and shapes agree.

    Args:
        pairs: all that were found.
        target: the target's specs.

    Example:
        >>> pair = Pair(("a.q_proj.weight",), ("a.wq.weight",), confidence=Confidence.ALIGNED)
        >>> print(unknowable([pair], {})[0].text)
        rotary layout: the rows of q and k may have to be permuted, which no header shows
    """
    taken = [
        pair for pair in pairs if pair.confidence.within(Confidence.ALIGNED) or Evidence.REARRANGED in pair.evidence
    ]
    alike: dict[object, list[Pair]] = defaultdict(list)  # the same tensors in other blocks
    for pair in taken:
        if pair.sources != pair.targets or pair.layout:
            names = (*pair.sources, "", *pair.targets, pair.layout)
            alike["\n".join(names).translate(_NO_DIGITS)].append(pair)
    doubtful: dict[_Doubt, list[Pair]] = {doubt: [] for doubt in _DOUBTS}
    for row in alike.values():
        ours, theirs = ({part for key in keys for part in key.split(".")} for keys in (row[0].sources, row[0].targets))
        for doubt in _DOUBTS:
            if doubt.holds(row[0], ours, theirs):
                doubtful[doubt] += row
    rows = [(doubt.text, doubt.hint, found) for doubt, found in doubtful.items()]
    rows.append((_COLOURS, "to turn them round: | = flip($1, 1)", _stems(taken, target)))
    return tuple(
        Note(text, hint, tuple(key for pair in row for key in pair.targets)) for text, hint, row in rows if row
    )


def _is_single(pair: Pair) -> bool:
    return len(pair.sources) == len(pair.targets) == 1


def _may_be_by_heads(pair: Pair, ours: set[str], theirs: set[str]) -> bool:
    """Both have q, k and v in one, under names of which not both are known to have q first, or the other way round."""
    if not _is_single(pair):
        return False
    fused = [{part for part in side if "qkv" in words_of(part)} for side in (ours, theirs)]
    if not all(fused):
        return False
    return bool(pair.layout) if fused[0] == fused[1] else not all(side <= _Q_FIRST for side in fused)


def _may_be_up_first(pair: Pair, ours: set[str], theirs: set[str]) -> bool:
    """Gate and up are one tensor, on one side at least, whose name does not say which of them comes first."""
    if len(pair.sources) == len(pair.targets):
        whole = [ours, theirs] if any(_gated(side) for side in (ours, theirs)) and ours != theirs else []
    else:
        split, one = (ours, theirs) if len(pair.sources) > 1 else (theirs, ours)
        whole = [one] if {word for part in split for word in words_of(part)} >= _GATED else []
    return any(not _gated(side) for side in whole)


def _gated(parts: Iterable[str]) -> bool:
    """A name that says gate and then up."""
    words = [words_of(part) for part in parts]
    return any({*said} >= _GATED and said.index("gate") < said.index("up") for said in words)


def _is_halved(pair: Pair, ours: set[str], theirs: set[str]) -> bool:
    several, one = (ours, theirs) if len(pair.sources) > 1 else (theirs, ours)
    said = {word for part in several - one for word in words_of(part)}
    return len(pair.sources) + len(pair.targets) == 3 and not said & {"q", "k", "v", *_GATED}


@dataclass(frozen=True, slots=True)
class _Doubt:
    """What may differ, what to do about it, and where: given a pair, and the parts of the keys of either side."""

    text: str
    hint: str
    holds: Callable[[Pair, set[str], set[str]], bool]


_DOUBTS = (
    _Doubt(
        "rotary layout: the rows of q and k may have to be permuted, which no header shows",
        "for Llama: | (h d two) i -> (h two d) i",
        lambda _, ours, theirs: bool(_META & ours) != bool(_META & theirs),
    ),
    _Doubt(
        "the order inside a fused qkv, all q first or head by head, is not in any header", _COMPARE, _may_be_by_heads
    ),
    _Doubt("which half of a fused matrix is the gate is not in any header", _COMPARE, _may_be_up_first),
    _Doubt("which half comes first is taken from the order in the file, no header shows it", _COMPARE, _is_halved),
)


def _stems(taken: Sequence[Pair], target: Mapping[str, TensorSpec]) -> list[Pair]:
    """The convolutions on three colours, if the names of one side are those of a library that has blue first."""
    single = [pair for pair in taken if _is_single(pair)]
    ours = any(_BLUE_FIRST.search(pair.sources[0]) for pair in single)
    if ours == any(_BLUE_FIRST.search(pair.targets[0]) for pair in single):
        return []
    shapes = [(pair, target[pair.targets[0]].shape) for pair in single if pair.targets[0] in target]
    return [pair for pair, shape in shapes if len(shape) > 3 and shape[1] == 3]
