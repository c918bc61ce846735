"""The norms of a block: which of them comes first is said by their names together, not by each alone.

``post_attention_layernorm`` stands before the MLP beside ``input_layernorm``, and behind the attention elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from ckptool.matching.words import vocabulary, words_of

_PARTS = frozenset({"attn", "self", "q", "qkv", "mlp", "fc"})
_MEANT: dict[int, dict[int, tuple[str, ...]]] = {  # by how many there are, and the place
    2: {0: ("attn", "norm", "1/2"), 2: ("mlp", "norm", "2/2")},
    3: {0: ("attn", "norm"), 1: ("cross", "attn", "norm"), 2: ("mlp", "norm")},
}


def norms_beside(siblings: Collection[str], norms: Collection[str] = ()) -> dict[str, tuple[str, ...]]:
    """What the names of two or three norms mean beside each other in a block; nothing where one of them is not known.

    Args:
        siblings: the names in a block.
        norms: those of them that are norms by what they hold, a vector and its bias, whatever they are called.

    Example:
        >>> norms_beside(["attn", "norm1", "mlp", "postAttentionLayernorm"])["postAttentionLayernorm"]
        ('mlp', 'norm', '2/2')
        >>> norms_beside(["attn", "post_attention_layernorm", "post_feedforward_layernorm"])
        {}
        >>> sorted(norms_beside(["attn", "norm1", "temporal_norm1", "norm2"]))
        ['norm1', 'norm2']
        >>> norms_beside(["attn", "pre_attn", "pre_mlp"], norms=["pre_attn", "pre_mlp"])["pre_mlp"]
        ('mlp', 'norm', '2/2')
    """
    known = frozenset[str]().union(*vocabulary().norms)
    said = {name: _said(name) | ({"norm"} if name in norms else set()) for name in siblings}
    found = {
        name: words for name, words in said.items() if "norm" in words and not any(map(str.isalpha, words - known))
    }
    others = {word for name in siblings if name not in found for word in words_of(name)}
    places = {name: vocabulary().norms.get(words, -1) for name, words in found.items()}
    if sorted(places.values()) not in ([0, 2], [0, 1, 2]) or (others and not others & _PARTS):
        return {}
    return {name: _MEANT[len(places)][place] for name, place in places.items()}


def _said(name: str) -> frozenset[str]:
    """The words and the numbers of a name."""
    return frozenset((*words_of(name), *re.findall(r"\d+", name)))
