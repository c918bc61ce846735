"""Old tensors as rules make them, to be compared with new ones of other names and layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from ckptool.core.tensor import Tensor
from ckptool.engine.reading import Reader

Blocks: TypeAlias = Callable[[Reader], Iterator[memoryview]]
"""Packed bytes in C order, in blocks of any sizes."""


@dataclass(frozen=True, slots=True)
class Made(Tensor):
    """A tensor whose elements are computed from others; it has a spec and no place in a file.

    Attributes:
        blocks: its bytes.
    """

    blocks: Blocks = lambda reader: iter(())


@dataclass(frozen=True, slots=True)
class Mapped:
    """One tensor of the old checkpoint under the key that it has in the new one.

    Attributes:
        key: the new key.
        sources: the old ones.
        tensor: the old tensor itself, or a `Made` one.
        how: what is done with the elements; "" for nothing.
    """

    key: str
    sources: tuple[str, ...]
    tensor: Tensor
    how: str = ""
