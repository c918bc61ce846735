"""What no header can decide, said where it applies."""

from __future__ import annotations

from collections.abc import Iterable

from ckptool.checkpoint import Note
from ckptool.matching.result import Confidence, Pair
from ckptool.matching.words import words_of

_META = frozenset({"wq", "wk"})  # Meta's Llama rotates neighbours, transformers rotates halves


def unknowable(pairs: Iterable[Pair]) -> tuple[Note, ...]:
    """Notes on the accepted pairs whose layout may differ though names and shapes agree.

    Example:
        >>> pair = Pair(("a.q_proj.weight",), ("a.wq.weight",), confidence=Confidence.ALIGNED)
        >>> print(unknowable([pair])[0].text)
        rotary layout: the rows of q and k may have to be permuted, which no header shows
    """
    rotary: list[str] = []
    heads: list[str] = []
    for pair in pairs:
        if not pair.confidence.within(Confidence.ALIGNED) or (pair.sources == pair.targets and not pair.layout):
            continue
        ours, theirs = ({part for key in keys for part in key.split(".")} for keys in (pair.sources, pair.targets))
        if bool(_META & ours) != bool(_META & theirs):
            rotary += pair.targets
        alone = len(pair.sources) == len(pair.targets) == 1 and pair.layout
        if alone and any("qkv" in words_of(part) for part in ours & theirs):
            heads += pair.targets
    notes = []
    if rotary:
        text = "rotary layout: the rows of q and k may have to be permuted, which no header shows"
        notes.append(Note(text, "for Llama: | (h d two) i -> (h two d) i", tuple(rotary)))
    if heads:
        text = "the order inside a fused qkv, all q first or head by head, is not in any header"
        notes.append(Note(text, "compare the outputs of both models", tuple(heads)))
    return tuple(notes)
