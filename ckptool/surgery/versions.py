"""torch's module versions (`_metadata`), renamed and filtered with the keys.

A state dict written by `module.state_dict()` carries a version for each module by its dotted name, also for modules
without tensors (ReLU). `load_state_dict` reads them: BatchNorm of version 2 demands its counters, MNASNet refuses a
dict without any. So they must follow the keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def carried_versions(versions: Mapping[str, int], pairs: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Module versions for new keys.

    Args:
        versions: by module name; the root is "".
        pairs: (old key, new key) of every tensor that is kept.

    Returns:
        Versions by new module name. A module all of whose tensors are gone is left out; one that never had tensors goes
        where the nearest module around it went; a module that is split gives its version to each part.

    Example:
        >>> carried_versions({"": 1, "module": 1, "module.bn": 2}, [("module.bn.weight", "bn.weight")])
        {'': 1, 'bn': 2}
    """
    moved: dict[str, dict[str, None]] = {"": {"": None}}
    for old, new in pairs:
        _follow(moved, old, new)
    carried: dict[str, int] = {}
    for module, version in versions.items():
        for name in _destinations(module, moved):
            carried.setdefault(name, version)
    return carried


def _follow(moved: dict[str, dict[str, None]], old: str, new: str) -> None:
    """Note where the modules around a key went: its own, and those above as long as the names agree."""
    old_module, _, _ = old.rpartition(".")
    new_module, _, _ = new.rpartition(".")
    while old_module:
        places = moved.setdefault(old_module, {})
        if new_module in places:
            return
        places[new_module] = None
        old_module, _, old_last = old_module.rpartition(".")
        new_module, _, new_last = new_module.rpartition(".")
        if old_last != new_last:
            return


def _destinations(module: str, moved: Mapping[str, Mapping[str, None]]) -> list[str]:
    if module in moved:
        return list(moved[module])
    around, _, rest = module.rpartition(".")
    while around and around not in moved:
        around, _, last = around.rpartition(".")
        rest = f"{last}.{rest}"
    if not around:
        return []
    return [f"{place}.{rest}" if place else rest for place in moved[around]]
