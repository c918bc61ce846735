"""Which module of the source a module of the target is to be compared with: the one with the same tensors."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

Keys = frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Pairing:
    """Modules that have the same tensors of the source.

    Attributes:
        others: for a module of the target, the modules of the source that have its tensors, the likeliest first.
        is_loose: modules of the target that wrap others differently than the source does; where they differ, that
            says nothing.
    """

    others: Mapping[str, tuple[str, ...]]
    is_loose: Collection[str]


def pair_modules(
    target: Mapping[str, Iterable[str]],
    source: Mapping[str, Iterable[str]],
    target_modules: Collection[str],
    source_modules: Collection[str],
) -> Pairing:
    """Pair the modules of two models by the tensors in and below them.

    Args:
        target: for each key of the target that is filled, the keys of the source that it is made of.
        source: for each key of the source's model, the keys of the source; what the target does not use is left aside.
        target_modules: names of the modules, outer ones first.
        source_modules: likewise.

    Example:
        >>> found = pair_modules({"b.fc.w": ["x"], "b.n.w": ["y"]}, {"a.0.w": ["x"], "a.1.w": ["y"]},
        ...     ["", "b", "b.fc", "b.n"], ["", "a", "a.0", "a.1"])
        >>> found.others
        {'': ('', 'a'), 'b': ('a', ''), 'b.fc': ('a.0',), 'b.n': ('a.1',)}
    """
    used = {key for keys in target.values() for key in keys}
    mine = _below(target, target_modules)
    other = _below({key: [one for one in keys if one in used] for key, keys in source.items()}, source_modules)
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
            if len(chain) != len(opposite) and at < len(chain) - 1:
                loose.add(module)
    return Pairing({name: found[name] for name in mine if name in found}, frozenset(loose))


def _below(keys: Mapping[str, Iterable[str]], modules: Collection[str]) -> dict[str, Keys]:
    """For each module, the source's keys that the tensors in and below it are made of."""
    found: dict[str, set[str]] = {name: set() for name in modules}
    for key, origins in keys.items():
        module = key
        while module:
            module = module.rpartition(".")[0]
            if module in found:
                found[module].update(origins)
    return {name: frozenset(below) for name, below in found.items() if below}


def _chains(below: Mapping[str, Keys]) -> dict[Keys, list[str]]:
    """Modules by their keys, outer ones first: several if one wraps the other, or if a tensor is shared."""
    chains: dict[Keys, list[str]] = {}
    for name, keys in below.items():
        chains.setdefault(keys, []).append(name)
    return chains
