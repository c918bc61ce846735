"""Which tensor of an export stands for which of its base: by name, wrappers and other prefixes seen through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ckptool.commands.beside.hf_config import is_embedding
from ckptool.core.keys import strip_wrappers
from ckptool.matching.prefixes import Swap, prefix_swap

Shapes = Mapping[str, tuple[int, ...]]

_ROUNDS = 4  # prefixes that differ: of the text, the image encoder, the projector, the rest
_FEW = 2  # tensors that must meet


@dataclass(slots=True)
class Counterparts:
    """Pairs of tensors, and what of their names was seen through.

    Attributes:
        pairs: the export's key of each key of the base that it has.
        swaps: a prefix of the export, the base's in its place, and for how many tensors.
        wrapped: how many keys of the export have parts that wrappers or adapters put into them.
        others: the export's further keys, by the names that they would have in the base.
    """

    pairs: dict[str, str] = field(default_factory=dict)
    swaps: list[tuple[Swap, int]] = field(default_factory=list)
    wrapped: int = 0
    others: dict[str, str] = field(default_factory=dict)


def counterparts(base: Shapes, export: Shapes) -> Counterparts:
    """The export's tensor for each of the base that it has.

    Equal names come first. Of what is left, prefixes are swapped as long as several tensors meet in name and shape.

    Args:
        base: shapes by key.
        export: shapes by key.

    Example:
        >>> base = {f"model.language_model.layers.{n}.w": (n + 1, 2) for n in range(3)} | {"model.visual.w": (2, 2)}
        >>> export = {f"model.layers.{n}.w": (n + 1, 2) for n in range(3)}
        >>> found = counterparts(base, export)
        >>> len(found.pairs), found.swaps
        (3, [(Swap(take='model.', put='model.language_model.'), 3)])
    """
    found = Counterparts()
    names = _plain_names(export)
    found.wrapped = sum(name != key for name, key in names.items())
    left = {name: export[key] for name, key in names.items() if name not in base}
    found.pairs = {name: key for name, key in names.items() if name in base}
    wanted = {key: shape for key, shape in base.items() if key not in found.pairs}

    def pair(swap: Swap, met: Mapping[str, str]) -> None:
        for name, key in met.items():
            found.pairs[key] = names[name]
            del left[name], wanted[key]
        if met:
            found.swaps.append((swap, len(met)))

    for _ in range(_ROUNDS):
        if not left or not wanted:
            break
        swap = prefix_swap(left, wanted)
        met = {name: key for name in left if swap and (key := swap.key(name)) in wanted}
        if sum(left[name] == wanted[key] for name, key in met.items()) < _FEW:
            break
        pair(swap, met)
    for name in [name for name in left if is_embedding(name)]:  # alone under their prefix, as lm_head is
        ends = [key for key in wanted if is_embedding(key) and _ends(key, name)]
        if len(ends) == 1:
            longer, shorter = sorted((name, ends[0]), key=len, reverse=True)
            prefix = longer[: -len(shorter)]
            pair(Swap(prefix, "") if longer == name else Swap("", prefix), {name: ends[0]})
    swaps = sorted((swap for swap, _ in found.swaps), key=lambda swap: -len(swap.take))
    for name in left:
        swap = next((swap for swap in swaps if name.startswith(swap.take)), Swap())
        found.others[swap.key(name)] = names[name]
    return found


def _plain_names(export: Shapes) -> dict[str, str]:
    """The export's keys by their names without what wrappers and adapters put in, where these stay different."""
    inside = _without_inside(export)
    names = {inside(key): key for key in export}
    return names if len(names) == len(export) else {key: key for key in export}


def _without_inside(export: Shapes) -> Callable[[str], str]:
    is_adapted = any(".base_layer." in key for key in export)
    wrappers = any(strip_wrappers(key) != key for key in export)

    def plain(key: str) -> str:
        key = key.replace(".base_layer.", ".") if is_adapted else key
        return strip_wrappers(key) if wrappers else key

    return plain


def _ends(first: str, second: str) -> bool:
    return first.endswith(f".{second}") or second.endswith(f".{first}")
