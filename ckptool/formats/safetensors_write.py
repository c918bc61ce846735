"""Lays out a safetensors file: eight bytes of header length, a JSON header, the data without holes.

Source: the format section of the safetensors README. Widest dtypes come first, as the reference writes them, so that
every tensor starts aligned to its element size; among equals the order of the plan is kept.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ckptool.core.dtypes import DTYPES
from ckptool.core.errors import OutputError
from ckptool.core.spec import TensorSpec
from ckptool.formats.image import PAGE, Content, Image, Range, Slot, align
from ckptool.formats.safetensors_header import to_header

HEADER_LIMIT = 100_000_000
METADATA = "__metadata__"


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor to be written: what it is, and where its packed bytes come from."""

    spec: TensorSpec
    contents: tuple[Content, ...]


def safetensors_image(entries: Sequence[Entry], metadata: Mapping[str, str]) -> Image:
    """The file that holds these tensors.

    Raises:
        OutputError: for a key or a text that the format cannot hold, or a header over its limit of 100 MB.
    """
    if any(entry.spec.key == METADATA for entry in entries):
        raise OutputError(
            f"a tensor is called {METADATA}, which in a safetensors file is something else",
            hint="rename it with ckptool remap, or write a .pth file",
            key=METADATA,
        )
    ordered = sorted(entries, key=lambda entry: -DTYPES[entry.spec.dtype].bits)
    header: dict[str, object] = {METADATA: dict(metadata)} if metadata else {}
    position = 0
    for entry in ordered:
        spec = entry.spec
        named = to_header(spec.dtype, spec.shape)
        if named is None:
            raise OutputError(f"safetensors cannot hold {spec.key}: it is {spec.short}", key=spec.key)
        dtype, shape = named
        header[spec.key] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + spec.nbytes]}
        position += spec.nbytes
    try:
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError as error:
        raise OutputError(
            f"a key or a metadata entry has a character that UTF-8 cannot hold: {error.object[error.start]}",
            hint="rename it with ckptool remap, or write a .pth file",
        ) from None
    start = _data_start(8 + len(text), ordered)
    if start - 8 > HEADER_LIMIT:
        raise OutputError(
            f"the header would take {start - 8:,} bytes; safetensors allows {HEADER_LIMIT:,}",
            hint="write a .pth file, or split the output with --max-shard-size",
        )
    text += b" " * (start - 8 - len(text))
    slots: list[Slot] = []
    position = start
    for entry in ordered:
        slots.append(Slot(entry.spec.key, position, entry.spec.nbytes, entry.contents))
        position += entry.spec.nbytes
    return Image(position, ((0, struct.pack("<Q", len(text)) + text),), tuple(slots))


def _data_start(end_of_header: int, ordered: Sequence[Entry]) -> int:
    """Where the data begins: 8-byte aligned, and block-aligned with the first big source range where there is one.

    Data has no holes, so the padding of the header is the only freedom; tensors that follow each other in the source
    as they do here stay aligned behind the first.
    """
    start = align(end_of_header, 8)
    position = start
    for entry in ordered:
        first = entry.contents[0] if entry.contents else None
        if isinstance(first, Range) and first.nbytes >= PAGE and first.offset % 8 == position % 8:
            return start + (first.offset - position) % PAGE
        position += entry.spec.nbytes
    return start
