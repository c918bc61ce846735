"""What an output file will look like, before a byte of it is written.

A writer lays a file out from specs alone: the bytes it knows (headers, the pickle) and slots for tensor data, each with
the place its bytes come from. The engine (`ckptool.engine.apply`) fills the slots in any order, from any thread.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, overload

from ckptool.core.bytes import ByteSource
from ckptool.storage.copying import BIG, PAGE

if TYPE_CHECKING:
    from ckptool.core.spec import TensorSpec

__all__ = [
    "BIG",
    "PAGE",
    "Computed",
    "Content",
    "Image",
    "Images",
    "Range",
    "Slot",
    "SlotColumns",
    "Text",
    "align",
    "congruent",
]

_PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes of a source file, copied unchanged.

    Attributes:
        file: the source.
        offset: first byte.
        nbytes: length.
        crc: their CRC-32, where the source states it.
    """

    file: ByteSource
    offset: int
    nbytes: int
    crc: int | None = None


@dataclass(frozen=True, slots=True)
class Computed:
    """Bytes of step `index` of the plan, computed or gathered."""

    index: int


Content: TypeAlias = Range | Computed


@dataclass(frozen=True, slots=True)
class Slot:
    """`nbytes` at `offset` of the output, filled by the contents in order.

    Attributes:
        name: the tensor or record, for messages.
        needs_crc: True if the container states the CRC-32 of these bytes.
    """

    name: str
    offset: int
    nbytes: int
    contents: tuple[Content, ...]
    needs_crc: bool = False


class SlotColumns(Sequence[Slot]):
    """Very many slots of tensors in little memory, each made when it is asked for.

    Example:
        >>> from ckptool.core.spec import TensorSpec
        >>> specs = [TensorSpec("a", "int8", (4,)), TensorSpec("b", "int8", (2,))]
        >>> slots = SlotColumns(specs, lambda at: (Computed(at),), array("I", [1, 0]), array("Q", [8, 10, 14]))
        >>> slots[1].name, slots[1].offset, slots[1].contents, slots.nbytes
        ('a', 10, (Computed(index=0),), 6)
    """

    def __init__(
        self,
        specs: Sequence[TensorSpec],
        contents: Callable[[int], tuple[Content, ...]],
        order: array[int],
        starts: array[int],
    ) -> None:
        """Slots without gaps between them.

        Args:
            specs: of the tensors.
            contents: what fills the slot of a tensor, by its place in `specs`; asked whenever it is needed.
            order: the places of the tensors in the file.
            starts: the offset of each slot, and the end of the last one.
        """
        self._specs = specs
        self._contents = contents
        self._order = order
        self._starts = starts

    @overload
    def __getitem__(self, at: int) -> Slot: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Slot]: ...
    def __getitem__(self, at: int | slice) -> Slot | Sequence[Slot]:
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(len(self)))]
        number, start = self._order[at], self._starts[at]
        return Slot(self._specs[number].key, start, self._starts[at + 1] - start, self._contents(number))

    def __len__(self) -> int:
        return len(self._order)

    @property
    def nbytes(self) -> int:
        """Bytes of all slots."""
        return self._starts[-1] - self._starts[0]


class Text:
    """What a file begins with, in pieces by offset: made whenever it is gone through, and never held.

    Example:
        >>> text = Text(lambda: (b"{", b"}"))
        >>> text.size, list(text)
        (2, [(0, bytearray(b'{}'))])
    """

    __slots__ = ("_parts", "size")

    def __init__(self, parts: Callable[[], Iterable[bytes]]) -> None:
        """The text of these parts, which are the same whenever they are asked for."""
        self._parts = parts
        self.size = sum(map(len, parts()))

    def __iter__(self) -> Iterator[tuple[int, bytearray]]:
        start, piece = 0, bytearray()
        for part in self._parts():
            piece += part
            if len(piece) >= _PIECE:
                yield start, piece
                start, piece = start + len(piece), bytearray()
        yield start, piece


@dataclass(frozen=True, slots=True)
class Image:
    """One output file.

    Attributes:
        size: its length in bytes.
        literals: bytes known beforehand, by offset.
        slots: the tensor data.
        finish: the literals that need the slots' CRC-32 (by slot name), written last.
    """

    size: int
    literals: Text | tuple[tuple[int, bytes], ...]
    slots: Sequence[Slot]
    finish: Callable[[Mapping[str, int]], Sequence[tuple[int, bytes]]] | None = field(default=None, compare=False)

    @property
    def data_nbytes(self) -> int:
        """Bytes of the tensor data."""
        return self.slots.nbytes if isinstance(self.slots, SlotColumns) else sum(slot.nbytes for slot in self.slots)


class Images(Mapping[str, Image]):
    """The files of an output, each laid out whenever it is asked for: who writes few of them lays out few.

    Example:
        >>> images = Images({"a": lambda: Image(3, ((0, b"abc"),), ())})
        >>> list(images), images["a"].size
        (['a'], 3)
    """

    __slots__ = ("_makers",)

    def __init__(self, makers: Mapping[str, Callable[[], Image]]) -> None:
        self._makers = makers

    @classmethod
    def joined(cls, *parts: Mapping[str, Image]) -> Images:
        """Files of several outputs in their order."""
        return cls({name: partial(part.__getitem__, name) for part in parts for name in part})

    def without(self, names: Collection[str]) -> Images:
        """All but some of them."""
        return Images({name: make for name, make in self._makers.items() if name not in names})

    def __getitem__(self, name: str) -> Image:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def align(offset: int, alignment: int) -> int:
    """The next multiple of `alignment` from `offset` on.

    Example:
        >>> align(65, 64)
        128
    """
    return -(-offset // alignment) * alignment


def congruent(offset: int, alignment: int, contents: Sequence[Content]) -> int:
    """The next aligned offset that stands to a filesystem block as the source bytes do, for big copied data.

    Args:
        offset: first free byte of the output.
        alignment: what the container demands, a divisor of `PAGE`.
        contents: what will stand there.
    """
    offset = align(offset, alignment)
    first = contents[0] if contents else None
    if isinstance(first, Range) and first.nbytes >= BIG and first.offset % alignment == 0:
        offset += (first.offset - offset) % PAGE
    return offset
