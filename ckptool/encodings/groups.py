"""Encoded tensors in columns: very many of them in little memory."""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import overload

from ckptool.core.spec import TensorSpec
from ckptool.encodings.encoded import Encoded


class Groups(Sequence[Encoded]):
    """Encoded tensors of one checkpoint, in the order of their payloads; each is made when it is asked for.

    Most differ from others in nothing but their keys. Of each the number of its kind is kept, and the rows of its
    members among all keys. One that has problems, whose texts name keys, is kept as it is.

    Example:
        >>> keys = ["a.weight", "a.scale", "b.weight", "b.scale"]
        >>> def encoded(module):
        ...     spec = TensorSpec(f"{module}.weight", "int8", (8, 4))
        ...     return Encoded("int8", spec, {"codes": spec, "scales": TensorSpec(f"{module}.scale", "float32", (8,))})
        >>> groups = Groups.of(map(encoded, "ba"), keys)
        >>> [group.key for group in groups], groups[1] == encoded("b"), list(groups.member_keys())
        (['a.weight', 'b.weight'], True, [('a.weight', 'a.scale'), ('b.weight', 'b.scale')])
    """

    __slots__ = ("_endings", "_keys", "_kind_of", "_kinds", "_order", "_rows", "_starts")

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = keys
        self._kinds: list[Encoded] = []  # one of each kind
        self._endings: list[tuple[int, str]] = []
        self._kind_of = array("I")
        self._starts = array("I", [0])
        self._rows = array("I")
        self._order = array("I")

    @classmethod
    def of(cls, found: Iterable[Encoded], keys: Sequence[str], rows: Mapping[str, int] | None = None) -> Groups:
        """Those found, in any order.

        Args:
            found: they are not held.
            keys: of the checkpoint; they are.
            rows: the place of each key in them.
        """
        groups = cls(keys)
        numbers: dict[Hashable, int] = {}
        if rows is None:
            rows = {key: row for row, key in enumerate(keys)}
        for encoded in found:
            name: Hashable = encoded.key if encoded.problems else _kind(encoded)
            number = numbers.setdefault(name, len(groups._kinds))
            if number == len(groups._kinds):
                groups._kinds.append(encoded)
                groups._endings.append(_ending(encoded))
            groups._kind_of.append(number)
            groups._rows.extend(map(rows.__getitem__, encoded.keys))
            groups._starts.append(len(groups._rows))
        firsts = groups._starts
        order = sorted(range(len(groups._kind_of)), key=lambda at: groups._rows[firsts[at]])
        groups._order = array("I", order)
        return groups

    def subset(self, wanted: Iterable[int]) -> Groups:
        """Those at these places."""
        groups = Groups(self._keys)
        groups._kinds, groups._endings, groups._kind_of = self._kinds, self._endings, self._kind_of
        groups._starts, groups._rows = self._starts, self._rows
        groups._order = array("I", (self._order[at] for at in wanted))
        return groups

    def alike(self) -> Iterator[Encoded]:
        """For each an encoded tensor that differs from it in nothing but keys: it is not made anew."""
        return (self._kinds[self._kind_of[number]] for number in self._order)

    def keys(self) -> Iterator[str]:
        """The logical key of each."""
        return map(self._key, self._order)

    def rows_of(self, at: int) -> array[int]:
        """The rows of the members of one among all keys, the payload's first."""
        number = self._order[at]
        return self._rows[self._starts[number] : self._starts[number + 1]]

    def members(self) -> Iterator[array[int]]:
        """The same of each."""
        return map(self.rows_of, range(len(self)))

    def member_keys(self) -> Iterator[tuple[str, ...]]:
        """The keys of the members of each, the payload's first."""
        return (tuple(self._keys[row] for row in rows) for rows in self.members())

    def by_codes(self) -> Mapping[str, Encoded]:
        """Each by the key of its payload."""
        return _ByCodes(self)

    def described(self) -> Iterator[bytes]:
        """What tells which of the checkpoint's tensors they are, and how they are decoded."""
        for kind, ending in zip(self._kinds, self._endings, strict=True):
            name: Hashable = (kind.key, kind.problems) if kind.problems else _kind(kind)
            yield f"{name} {ending}\n".encode("utf-8", "surrogatepass")
        yield from (column.tobytes() for column in (self._kind_of, self._rows, self._starts, self._order))

    def settled(self, found: Iterable[Encoded]) -> Groups:
        """The same tensors after their descriptions were read."""
        return Groups.of(found, self._keys)

    def _key(self, number: int) -> str:
        cut, tail = self._endings[self._kind_of[number]]
        key = self._keys[self._rows[self._starts[number]]]
        return key[: len(key) - cut] + tail if cut or tail else key

    @overload
    def __getitem__(self, at: int) -> Encoded: ...
    @overload
    def __getitem__(self, at: slice) -> Groups: ...
    def __getitem__(self, at: int | slice) -> Encoded | Groups:
        if isinstance(at, slice):
            return self.subset(range(*at.indices(len(self))))
        number = self._order[at]
        kind = self._kinds[self._kind_of[number]]
        if kind.problems:
            return kind
        rows = self.rows_of(at)
        members = {
            role: TensorSpec(self._keys[row], spec.dtype, spec.shape)
            for (role, spec), row in zip(kind.members.items(), rows, strict=True)
        }
        spec = TensorSpec(self._key(number), kind.spec.dtype, kind.spec.shape)
        return Encoded(
            kind.scheme, spec, members, kind.parameters, kind.needs, (), kind.markers, kind.lead, kind.detail
        )

    def __len__(self) -> int:
        return len(self._order)


class _ByCodes(Mapping[str, Encoded]):
    """Groups by the keys of their payloads."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self._places = {keys[0]: at for at, keys in enumerate(groups.member_keys())}

    def __getitem__(self, key: str) -> Encoded:
        return self._groups[self._places[key]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: object) -> bool:
        return key in self._places


def _kind(encoded: Encoded) -> Hashable:
    """Equal for encoded tensors that differ in nothing but keys."""
    spec, members = encoded.spec, encoded.members
    forms = tuple((role, member.dtype, member.shape) for role, member in members.items())
    about = encoded.needs, encoded.markers, encoded.lead, encoded.detail
    return encoded.scheme, spec.dtype, spec.shape, forms, repr(encoded.parameters), about, _ending(encoded)


def _ending(encoded: Encoded) -> tuple[int, str]:
    """How the payload's key becomes the logical one: so many letters at its end go, and these come."""
    codes, key = encoded.codes.key, encoded.key
    if codes == key:
        return 0, ""
    same = 0
    while codes[: same + 1] == key[: same + 1] and same < min(len(codes), len(key)):
        same += 1
    return len(codes) - same, key[same:]
