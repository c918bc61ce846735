"""Lays out a safetensors file: eight bytes of header length, a JSON header, the data without holes.

Source: the format section of the safetensors README. Widest dtypes come first, as the reference writes them, so that
every tensor starts aligned to its element size; among equals the order of the plan is kept.
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Callable, Mapping, Sequence

from ckptool.core.dtypes import DTYPES
from ckptool.core.errors import OutputError
from ckptool.core.spec import TensorSpec
from ckptool.formats.image import PAGE, Content, Image, Range, SlotColumns, align
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
    widths = array("B", (min(255, DTYPES[spec.dtype].bits) for spec in specs))
    order = array("I", sorted(range(len(specs)), key=lambda at: -widths[at]))
    starts = array("Q", [0])
    try:
        text = bytearray(bytes(8) + b"{")
        if metadata:
            text += f'"{METADATA}":{_json(dict(metadata))},'.encode()
        for at in order:
            text += _entry(specs[at], starts)
    except UnicodeEncodeError as error:
        raise OutputError(
            f"a key or a metadata entry has a character that UTF-8 cannot hold: {error.object[error.start]}",
            hint="rename it with ckptool remap, or write a .pth file",
        ) from None
    text[max(8 + 1, len(text) - 1) :] = b"}"
    start = _data_start(len(text), order, starts, contents)
    if start - 8 > HEADER_LIMIT:
        raise OutputError(
            f"the header would take {start - 8:,} bytes; safetensors allows {HEADER_LIMIT:,}",
            hint="write a .pth file, or split the output with --max-shard-size",
        )
    text += b" " * (start - len(text))
    struct.pack_into("<Q", text, 0, start - 8)
    for at, position in enumerate(starts):
        starts[at] = start + position
    return Image(starts[-1], ((0, text),), SlotColumns(specs, contents, order, starts))


def _entry(spec: TensorSpec, starts: array[int]) -> bytes:
    """What the header says of the next tensor, whose end becomes the next start."""
    if spec.key == METADATA:
        raise OutputError(
            f"a tensor is called {METADATA}, which in a safetensors file is something else",
            hint="rename it with ckptool remap, or write a .pth file",
            key=METADATA,
        )
    named = to_header(spec.dtype, spec.shape)
    if named is None:
        raise OutputError(f"safetensors cannot hold {spec.key}: it is {spec.short}", key=spec.key)
    dtype, shape = named
    start, end = starts[-1], starts[-1] + spec.nbytes
    starts.append(end)
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    return f"{_json(spec.key)}:{_json(entry)},".encode()


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _data_start(
    end_of_header: int, order: array[int], starts: array[int], contents: Callable[[int], tuple[Content, ...]]
) -> int:
    """Where the data begins: 8-byte aligned, and block-aligned with the first big source range where there is one.

    Data has no holes, so the padding of the header is the only freedom; tensors that follow each other in the source
    as they do here stay aligned behind the first.
    """
    start = align(end_of_header, 8)
    for at, position in zip(order, starts, strict=False):
        first = next(iter(contents(at)), None)
        if isinstance(first, Range) and first.nbytes >= PAGE and first.offset % 8 == (start + position) % 8:
            return start + (first.offset - start - position) % PAGE
    return start
