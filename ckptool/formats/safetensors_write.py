"""Lays out a safetensors file: eight bytes of header length, a JSON header, the data without holes.

Source: the format section of the safetensors README. Widest dtypes come first, as the reference writes them, so that
every tensor starts aligned to its element size; among equals the order of the plan is kept.
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise

from ckptool.core.dtypes import DTYPES
from ckptool.core.errors import OutputError
from ckptool.core.spec import TensorSpec
from ckptool.formats.image import PAGE, Content, Image, Range, SlotColumns, Text, align
from ckptool.formats.safetensors_header import to_header

HEADER_LIMIT = 100_000_000
METADATA = "__metadata__"


def safetensors_image(
    specs: Sequence[TensorSpec], contents: Callable[[int], tuple[Content, ...]], metadata: Mapping[str, str]
) -> Image:
    """The file that holds these tensors.

    Args:
        specs: of the tensors.
        contents: where the packed bytes of a tensor come from, by its place in `specs`; asked whenever it is needed.
        metadata: `__metadata__`.

    Raises:
        OutputError: for a key or a text that the format cannot hold, or a header over its limit of 100 MB.
    """
    widths, sizes, order = array("B"), array("Q"), array("I")
    for spec in specs:
        widths.append(min(255, DTYPES[spec.dtype].bits))
        sizes.append(spec.nbytes)
    for width in sorted(set(widths), reverse=True):
        order.extend(at for at, each in enumerate(widths) if each == width)
    starts = array("Q", accumulate(map(sizes.__getitem__, order), initial=0))
    try:
        length = sum(map(len, _members(specs, order, starts, metadata)))
    except UnicodeEncodeError as error:
        raise OutputError(
            f"a key or a metadata entry has a character that UTF-8 cannot hold: {error.object[error.start]}",
            hint="rename it with ckptool remap, or write a .pth file",
        ) from None
    start = _data_start(8 + length, order, starts, contents)
    if start - 8 > HEADER_LIMIT:
        raise OutputError(
            f"the header would take {start - 8:,} bytes; safetensors allows {HEADER_LIMIT:,}",
            hint="write a .pth file, or split the output with --max-shard-size",
        )
    for at, position in enumerate(starts):
        starts[at] = start + position

    def header() -> Iterator[bytes]:
        yield struct.pack("<Q", start - 8)
        yield from _members(specs, order, starts, metadata)
        yield b" " * (start - 8 - length)

    return Image(starts[-1], Text(header), SlotColumns(specs, contents, order, starts))


def _members(
    specs: Sequence[TensorSpec], order: array[int], starts: array[int], metadata: Mapping[str, str]
) -> Iterator[bytes]:
    """The JSON text of a header, a piece for each tensor; it does not matter where the first of them starts."""
    before = "{"
    if metadata:
        yield f'{{"{METADATA}":{_json(dict(metadata))}'.encode()
        before = ","
    first = starts[0]
    for number, at in enumerate(order):
        spec = specs[at]
        if spec.key == METADATA:
            raise OutputError(
                f"a tensor is called {METADATA}, which in a safetensors file is something else",
                hint="rename it with ckptool remap, or write a .pth file",
                key=METADATA,
            )
        form = _form(spec.dtype, spec.shape)
        if not form:
            raise OutputError(f"safetensors cannot hold {spec.key}: it is {spec.short}", key=spec.key)
        offsets = f"[{starts[number] - first},{starts[number + 1] - first}]"
        yield f'{before}{_json(spec.key)}:{form},"data_offsets":{offsets}}}'.encode()
        before = ","
    yield b"}" if before == "," else b"{}"


@lru_cache(1024)
def _form(dtype: str, shape: tuple[int, ...]) -> str:
    """The first fields of what a header says of a tensor; "" if the format cannot hold it."""
    named = to_header(dtype, shape)
    return f'{{"dtype":{_json(named[0])},"shape":{_json(named[1])}' if named else ""


_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _data_start(
    end_of_header: int, order: array[int], starts: array[int], contents: Callable[[int], tuple[Content, ...]]
) -> int:
    """Where the data begins: 8-byte aligned, and block-aligned with the first big source range where there is one.

    Data has no holes, so the padding of the header is the only freedom; tensors that follow each other in the source
    as they do here stay aligned behind the first.
    """
    start = align(end_of_header, 8)
    for at, (position, end) in zip(order, pairwise(starts), strict=True):
        if end - position < PAGE:
            continue
        first = next(iter(contents(at)), None)
        if isinstance(first, Range) and first.nbytes >= PAGE and first.offset % 8 == (start + position) % 8:
            return start + (first.offset - start - position) % PAGE
    return start
