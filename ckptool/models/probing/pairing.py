"""Which module of the source a module of the target is to be compared with: the one with the same tensors."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

Keys = frozenset[str]
Elements = Mapping[str, tuple[str, int]]


@dataclass(frozen=True, slots=True, eq=False)
class Pairing:
    """Modules that have the same tensors of the source.

    Attributes:
        others: for a module of the target, the modules of the source that have its tensors, the likeliest first.
        is_loose: modules of the target that wrap others, or share their tensors, differently than in the source; where
            they differ, that says nothing.
    """

    others: Mapping[str, tuple[str, ...]]
    is_loose: Collection[str]


def pair_modules(
    target: Mapping[str, Iterable[str]],
    source: Mapping[str, Iterable[str]],
    target_modules: Collection[str],
    source_modules: Collection[str],
    elements: tuple[Elements, Elements] = ({}, {}),
) -> Pairing:
    """Pair the modules of two models by the tensors in and below them.

    Args:
        target: for each key of the target that is filled, the keys of the source that it is made of.
        source: for each key of the source's model, the keys of the source; what the target does not use is left aside.
        target_modules: names of the modules, outer ones first.
        source_modules: likewise.
        elements: of each key of the target and of the source's model; a half of a tensor is not that tensor. With each
            the first key that shares its tensor.

    Example:
        >>> found = pair_modules({"b.fc.w": ["x"], "b.n.w": ["y"]}, {"a.0.w": ["x"], "a.1.w": ["y"]},
        ...     ["", "b", "b.fc", "b.n"], ["", "a", "a.0", "a.1"])
        >>> found.others
        {'': ('', 'a'), 'b': ('a', ''), 'b.fc': ('a.0',), 'b.n': ('a.1',)}
    """
    used = {key for keys in target.values() for key in keys}
    mine = _below(target, target_modules, elements[0])
    kept = {key: [one for one in keys if one in used] for key, keys in source.items()}
    other = _below(kept, source_modules, elements[1])
    chains, others = _chains(mine), _chains(other)
    found: dict[str, tuple[str, ...]] = {}
    loose: set[str] = set()
    for keys, chain in chains.items():
        opposite = others.get(keys)
        if opposite is None:
            continue
        for at, module in enumerate(chain):
            inner = len(opposite) - len(chain) + at  # the innermost faces the innermost
            likeliest = opposite[max(0, inner)]
            found[module] = (likeliest, *(name for name in opposite if name != likeliest))
            is_inner = module == chain[-1] and all(module.startswith(outer) for outer in chain)
            if len(chain) != len(opposite) and not is_inner:
                loose.add(module)
    return Pairing({name: found[name] for name in mine if name in found}, frozenset(loose))


def _below(
    keys: Mapping[str, Iterable[str]], modules: Collection[str], elements: Elements
) -> dict[str, tuple[Keys, int]]:
    """For each module, the source's keys that the tensors in and below it are made of, and how many elements."""
    found: dict[str, set[str]] = {name: set() for name in modules}
    sizes: dict[str, dict[str, int]] = {name: {} for name in modules}
    for key, origins in keys.items():
        module = key if origins else ""
        while module:
            module = module.rpartition(".")[0]
            if module in found:
                found[module].update(origins)
                sizes[module].update([elements[key]] if key in elements else [])
    return {name: (frozenset(below), sum(sizes[name].values())) for name, below in found.items() if below}


def _chains(below: Mapping[str, tuple[Keys, int]]) -> dict[tuple[Keys, int], list[str]]:
    """Modules by their keys, outer ones first: several if one wraps the other, or if a tensor is shared."""
    chains: dict[tuple[Keys, int], list[str]] = {}
    for name, keys in below.items():
        chains.setdefault(keys, []).append(name)
    return chains
