"""The row of each of very many keys, in four bytes a key."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence


class SortedRows(Mapping[str, int]):
    """The number of each key in a list, found by bisection: slower than a dict, in a twentieth of the memory.

    Example:
        >>> rows = SortedRows(["b", "a", "c"])
        >>> rows["a"], "d" in rows, list(rows.items())
        (1, False, [('b', 0), ('a', 1), ('c', 2)])
    """

    __slots__ = ("_keys", "_order")

    def __init__(self, keys: Sequence[str]) -> None:
        """Those of keys of which no two are equal; the list is held, and must not change."""
        self._keys = keys
        self._order = array("I", sorted(range(len(keys)), key=keys.__getitem__))

    def __getitem__(self, key: str) -> int:
        row = self.get(key)
        if row is None:
            raise KeyError(key)
        return row

    def get(self, key: str, default: int | None = None) -> int | None:  # type: ignore[override]
        """The number of a key; the default for none."""
        at = bisect_left(self._order, key, key=self._keys.__getitem__)
        if at < len(self._order) and self._keys[self._order[at]] == key:
            return self._order[at]
        return default

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.get(key) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._order)
