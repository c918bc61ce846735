"""What an output file will look like, before a byte of it is written.

A writer lays a file out from specs alone: the bytes it knows (headers, the pickle) and slots for tensor data, each with
the place its bytes come from. The engine (`ckptool.engine.apply`) fills the slots in any order, from any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from ckptool.core.bytes import ByteSource
from ckptool.storage.copying import BIG, PAGE

__all__ = ["BIG", "PAGE", "Computed", "Content", "Image", "Images", "Range", "Slot", "align", "congruent"]


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
    literals: tuple[tuple[int, bytes], ...]
    slots: tuple[Slot, ...]
    finish: Callable[[Mapping[str, int]], Sequence[tuple[int, bytes]]] | None = field(default=None, compare=False)


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
