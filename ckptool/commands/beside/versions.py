"""torch's module versions (`_metadata`), renamed and filtered with the keys.

A state dict written by `module.state_dict()` carries a version for each module by its dotted name, also for modules
without tensors (ReLU). `load_state_dict` reads them: BatchNorm of version 2 demands its counters, MNASNet refuses a
dict without any. So they must follow the keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def carried_versions(
    versions: Mapping[str, int], pairs: Iterable[tuple[str, str]], keys: Iterable[str]
) -> dict[str, int]:
    """Module versions for new keys.

    Args:
        versions: by module name; the root is "".
        pairs: (old key, new key) of every tensor that is kept.
        keys: all old keys; a module that had tensors and lost them all is known by them.

    Returns:
        Versions by new module name. A module all of whose tensors are gone is left out; one that never had tensors goes
        where the nearest module around it went; a module that is split gives its version to each part.

    Example:
        >>> carried_versions({"": 1, "module": 1, "module.bn": 2}, [("module.bn.weight", "bn.weight")], [])
        {'': 1, 'bn': 2}
        >>> carried_versions({"": 1, "fc": 1, "relu": 1}, [("bn.weight", "bn.weight")], ["bn.weight", "fc.weight"])
        {'': 1, 'relu': 1}
    """
    moved: dict[str, dict[str, None]] = {}
    for old, new in pairs:
        _follow(moved, old, new)
    had: set[str] = set()
    for key in keys:
        module = key.rpartition(".")[0]
        while module and module not in had:
            had.add(module)
            module = module.rpartition(".")[0]
    carried: dict[str, int] = {}
    for module, version in versions.items():
        for name in _destinations(module, moved, had) if module else ("", *moved.get("", {})):
            carried.setdefault(name, version)
    return carried


def _follow(moved: dict[str, dict[str, None]], old: str, new: str) -> None:
    """Note where the modules around a key went: its own, and those above as long as the names agree."""
    old_module, _, _ = old.rpartition(".")
    new_module, _, _ = new.rpartition(".")
    while True:
        places = moved.setdefault(old_module, {})
        if new_module in places:
            return
        places[new_module] = None
        if not old_module:
            return
        old_module, _, old_last = old_module.rpartition(".")
        new_module, _, new_last = new_module.rpartition(".")
        if old_last != new_last:
            return


def _destinations(module: str, moved: Mapping[str, Mapping[str, None]], had: set[str]) -> list[str]:
    """Where a module went; to several places if its tensors did, to none if they are gone."""
    if module in moved:
        return list(moved[module])
    around, rest = module, ""
    while around and around not in moved:
        if around in had:
            return []
        around, _, last = around.rpartition(".")
        rest = f"{last}.{rest}" if rest else last
    return [f"{place}.{rest}" if place else rest for place in moved.get(around, {"": None})]
