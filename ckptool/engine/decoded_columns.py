"""The tensors of a checkpoint with logical ones in place of its encoded ones, in columns."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.columns import Columns
from ckptool.core.sorted_rows import SortedRows
from ckptool.core.spec import Form, TensorSpec
from ckptool.engine.decoded import DecodedBytes, Decoding, decoded_source, dtype_decoded

if TYPE_CHECKING:
    from ckptool.core.bytes import ByteSource
    from ckptool.encodings.encoded import Encoded
    from ckptool.encodings.groups import Groups

_STORED, _MEMBER = -1, -2


class DecodedColumns(Columns):
    """Very many decoded tensors, and stored ones between them, in little memory.

    A `DecodedBytes` is made when a tensor is asked for. Equal ones stand for each other.
    """

    __slots__ = ("_decoding", "_dtypes", "_groups", "_places", "_stored")

    def __init__(self, stored: Columns, groups: Groups, dtype: str | None, gone: frozenset[str]) -> None:
        """The tensors of a checkpoint.

        Args:
            stored: as the checkpoint has them.
            groups: those of them that are decoded, settled and without problems.
            dtype: what they are rounded to; None for what each of them says.
            gone: keys of stored tensors that are left out, too.
        """
        self._stored = stored
        self._groups = groups
        self._decoding = Decoding({})  # each tensor gets its own members
        self._dtypes: dict[int, str] = {}
        number_of = array("i", [_STORED]) * len(stored)
        for row, key in enumerate(stored) if gone else ():
            if key in gone:
                number_of[row] = _MEMBER
        for number, rows in enumerate(groups.members()):
            for row in rows:
                number_of[row] = _MEMBER
            number_of[rows[0]] = number
        forms: dict[tuple[str, tuple[int, ...]], Form] = {}
        for alike in groups.alike():
            wanted = self._dtypes[id(alike)] = dtype_decoded(alike, dtype)
            shape = alike.spec.shape
            forms[wanted, shape] = Form(wanted, shape, TensorSpec("", wanted, shape).nbytes)
        keys: list[str] = []
        found: list[Form] = []
        self._places = array("i")  # the number of a group; for a stored tensor the complement of its row
        decoded = zip(groups.keys(), groups.alike(), strict=True)  # in the order of their payloads
        for row, (key, form) in enumerate(zip(stored, stored.forms(), strict=True)):
            number = number_of[row]
            if number == _MEMBER:
                continue
            if number != _STORED:
                key, alike = next(decoded)
                form = forms[self._dtypes[id(alike)], alike.spec.shape]
            keys.append(key)
            found.append(form)
            self._places.append(~row if number == _STORED else number)
        super().__init__(stored.place_of(0)[0], keys, found, array("Q"))

    @property
    def rows(self) -> Mapping[str, int]:
        if self._known is None:
            self._known = SortedRows(self._keys)
        return self._known

    def origins(self, keys: Sequence[str]) -> Iterator[bytes]:
        yield from self._stored.origins(self._stored.names)
        yield from self._groups.described()
        yield array("i", self.picked(self._places, keys)).tobytes()

    def place_of(self, row: int) -> tuple[ByteSource, int]:
        """The bytes of the tensor in a row, and the first of them."""
        number = self._places[row]
        if number < 0:
            return self._stored.place_of(~number)
        encoded = self._groups[number]
        members = {self._stored.key_of(each): self._stored.tensor_of(each) for each in self._groups.rows_of(number)}
        return DecodedBytes(encoded, replace(self._decoding, stored=members), self._forms[row].dtype), 0

    @property
    def stored_nbytes(self) -> int:
        """Bytes that the tensors take in their files."""
        plain = sum(form.nbytes for form, number in zip(self._forms, self._places, strict=True) if number < 0)
        return plain + sum(alike.nbytes for alike in self._groups.alike())

    @property
    def are_decoded(self) -> Iterator[bool]:
        """For each tensor, if it is decoded."""
        return (number >= 0 for number in self._places)

    def decoded(self) -> Iterator[DecodedTensor]:
        """The decoded tensors."""
        rows = ((key, form) for key, form, at in zip(self._keys, self._forms, self._places, strict=True) if at >= 0)
        for (key, form), alike, members in zip(rows, self._groups.alike(), self._groups.member_keys(), strict=True):
            yield DecodedTensor(key, alike, members, form.dtype)

    @property
    def infinite(self) -> Mapping[str, int]:
        """For decoded tensors that were read, how many finite numbers their dtype could not hold."""
        found = self._decoding.infinite
        keys = (each for each in self.decoded() if each.members[0] in found) if found else ()
        return {each.key: sum(found[each.members[0]].values()) for each in keys}


class DecodedTensor(NamedTuple):
    """A decoded tensor of a checkpoint.

    Attributes:
        key: its own.
        alike: an encoded tensor that differs from it in nothing but keys.
        members: the keys of its stored tensors, the payload first.
        dtype: what its numbers are rounded to.
    """

    key: str
    alike: Encoded
    members: tuple[str, ...]
    dtype: str


def decoded_tensors(checkpoint: Checkpoint) -> Iterator[DecodedTensor]:
    """The decoded tensors of a checkpoint, under its keys."""
    if isinstance(checkpoint.tensors, DecodedColumns):
        yield from checkpoint.tensors.decoded()
    elif checkpoint.columns is None and checkpoint.is_decoded:
        for key, tensor in checkpoint.tensors.items():
            source = decoded_source(tensor)
            if source is not None:
                yield DecodedTensor(key, source.encoded, source.encoded.keys, source.dtype)


def infinite_of(checkpoint: Checkpoint) -> Mapping[str, int]:
    """For decoded tensors of a checkpoint that were read, how many finite numbers their dtype could not hold."""
    if isinstance(checkpoint.tensors, DecodedColumns):
        return checkpoint.tensors.infinite
    if checkpoint.columns is not None or not checkpoint.is_decoded:
        return {}
    sources = ((key, decoded_source(tensor)) for key, tensor in checkpoint.tensors.items())
    return {key: source.infinite for key, source in sources if source is not None and source.infinite}
