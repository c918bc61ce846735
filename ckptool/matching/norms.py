"""The two norms of a block: which of them comes first is said by their names together, not by each alone.

``post_attention_layernorm`` stands before the MLP beside ``input_layernorm``, and behind the attention elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable

from ckptool.matching.words import vocabulary, words_of

_PARTS = frozenset({"attn", "qkv", "mlp", "fc"})


def norms_beside(siblings: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """What the names of two norms mean beside each other in a block; nothing where one of them is not known.

    Args:
        siblings: the names in a block.

    Example:
        >>> norms_beside(["attn", "norm1", "mlp", "postAttentionLayernorm"])["postAttentionLayernorm"]
        ('mlp', 'norm', '2/2')
        >>> norms_beside(["attn", "post_attention_layernorm", "post_feedforward_layernorm"])
        {}
    """
    norms, others = list[str](), set[str]()
    for name in siblings:
        words = words_of(name)
        if "norm" in words or _plain(name) in vocabulary().norms:
            norms.append(name)
        else:
            others.update(words)
    places = [vocabulary().norms.get(_plain(name), -1) for name in norms]
    if sorted(places) != [0, 1] or (others and not others & _PARTS):
        return {}
    meant = ("attn", "norm", "1/2"), ("mlp", "norm", "2/2")
    return {name: meant[place] for name, place in zip(norms, places, strict=True)}


def _plain(name: str) -> str:
    """The name whatever its case and underscores."""
    return name.replace("_", "").lower()
