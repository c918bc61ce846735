"""safetensors: 8 bytes of header length, a JSON header, the data.

Read at least as strictly as the reference implementation (0.8): what it refuses is refused here, with the reason. See
`ckptool.formats.safetensors_header` for what is refused beyond that.

Tensors are listed in the order of their data, the order in which the file can be read from front to back.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from typing import NoReturn

from ckptool.core.bytes import ByteSource, OpenBytes
from ckptool.core.checkpoint import Checkpoint, Columns
from ckptool.core.counts import many
from ckptool.core.dtypes import DTYPES
from ckptool.core.errors import UnreadableError, UsageError
from ckptool.core.format import Format
from ckptool.core.observations import UnknownFields
from ckptool.core.spec import Form
from ckptool.formats.safetensors_header import DTYPE_NAMES, Entry, from_header, parse
from ckptool.formats.strict_json import JsonError

SAFETENSORS = Format("safetensors", has_metadata=True)
MAX_HEADER = 100_000_000  # the reference's own cap
MAX_DIMENSION = 2**63 - 1  # torch's
MAX_BITS = 2**64 - 1  # the reference counts in 64 bits and refuses what overflows, even if a later dimension is 0


Placed = tuple[int, int, str, Form]
"""A tensor: the first byte of its data and the end, its key, its form."""


@dataclass(frozen=True, slots=True)
class Header:
    """A header that was read and checked.

    Attributes:
        entries: the tensors in the order of their data, without holes or overlaps.
        metadata: `__metadata__`.
        odd: names of tensors with fields that ckptool does not know.
        start: file offset of the first byte of the data.
        nbytes: bytes of data that it describes.
    """

    entries: list[Placed]
    metadata: dict[str, str]
    odd: list[str]
    start: int
    nbytes: int


def open_safetensors(source: ByteSource, select: str | None = None) -> Checkpoint:
    """Open a safetensors file by its header.

    Raises:
        UnreadableError: it is damaged, or says something that cannot be true.
        UsageError: `select` is given; the format has no nested dicts.
    """
    if select is not None:
        raise UsageError(f"{source.path} is a safetensors file, which holds one flat set of tensors: nothing to select")
    with source.open() as file:
        header = read_header(file)
    end = header.start + header.nbytes
    if end > source.size:
        _ends_early(source, header)
    if end < source.size:
        raise UnreadableError(
            f"{source.path} goes on for {many(source.size - end, 'byte')} after its last tensor",
            hint="header and data do not belong together; get the file again",
            path=source.path,
        )
    return Checkpoint(
        path=source.path,
        format=SAFETENSORS,
        tensors=Columns(source, ((name, form, header.start + start) for start, _, name, form in header.entries)),
        files=(source,),
        nbytes=source.size,
        metadata=header.metadata,
        observations=(UnknownFields(tuple(header.odd)),) if header.odd else (),
    )


def read_header(file: OpenBytes, offset: int = 0) -> Header:
    """Read and check the header that begins at `offset`; whether the data is all there is left to the caller."""
    path = file.path
    if file.size - offset < 8:
        raise UnreadableError(f"{path} ends inside the length of its header", hint="download it again", path=path)
    length = int.from_bytes(file.read(offset, 8), "little")
    if length > MAX_HEADER:
        raise UnreadableError(
            f"{path} claims a header of {length:,} bytes, more than the {MAX_HEADER:,} that safetensors allows",
            hint="it is damaged, or not a safetensors file",
            path=path,
        )
    start = offset + 8 + length
    if start > file.size:
        raise UnreadableError(
            f"{path} ends early, inside its header: that needs {start:,} bytes, the file has {file.size:,}",
            hint="download it again",
            path=path,
        )
    try:
        parsed, metadata, odd = parse(file.read(offset + 8, length))
        entries = _in_torch_terms(parsed)
        nbytes = _check_layout(entries)
    except JsonError as problem:
        raise UnreadableError(f"the header of {path} {problem}", hint="get the file again", path=path) from None
    return Header(entries, metadata, odd, start, nbytes)


def _in_torch_terms(entries: list[Entry]) -> list[Placed]:
    """The entries with torch's dtypes, their sizes checked, in the order of their data."""
    known: dict[tuple[str, tuple[int, ...]], Form] = {}  # most shapes come often
    result = []
    for start, stop, name, file_dtype, file_shape in entries:
        form = known.get((file_dtype, file_shape))
        if form is None:
            form = known[file_dtype, file_shape] = _form(name, file_dtype, file_shape)
        if stop - start != form.nbytes:
            raise JsonError(
                f'gives "{name}" {many(stop - start, "byte")} where its dtype and shape need {form.nbytes:,}'
            )
        result.append((start, stop, name, form))
    result.sort(key=itemgetter(0, 1, 2))
    return result


def _form(name: str, file_dtype: str, shape: tuple[int, ...]) -> Form:
    """Torch's dtype and shape for what the file says of tensor `name`, and the bytes it takes."""
    found = from_header(file_dtype, shape)
    if found is None:
        raise JsonError(f'gives "{name}" the dtype "{file_dtype}", which safetensors does not have')
    elements = 1
    for dimension in shape:
        elements *= dimension
        if dimension > MAX_DIMENSION or elements > MAX_BITS:
            raise JsonError(f'gives "{name}" a shape too large for any tensor')
    stored = DTYPES[DTYPE_NAMES[file_dtype]]
    nbytes = stored.nbytes(elements)
    if nbytes * 8 > MAX_BITS:
        raise JsonError(f'gives "{name}" a shape too large for any tensor')
    if elements % stored.block_elements:
        raise JsonError(f'gives "{name}" {elements:,} elements of {file_dtype}, which do not fill whole bytes')
    return Form(*found, nbytes)


def _check_layout(entries: list[Placed]) -> int:
    """Sorted entries follow each other without holes or overlaps; the bytes they take."""
    end, before = 0, ""
    for start, stop, name, _ in entries:
        if start < end:
            raise JsonError(f'lets "{before}" and "{name}" overlap by {many(end - start, "byte")}')
        if start > end:
            raise JsonError(f'leaves {many(start - end, "byte")} before "{name}" to no tensor')
        end, before = stop, name
    return end


def _ends_early(source: ByteSource, header: Header) -> NoReturn:
    have = source.size - header.start
    damaged = next(name for _, stop, name, _ in header.entries if stop > have)
    raise UnreadableError(
        f"{source.path} ends early: header promises {header.start + header.nbytes:,} bytes, file has {source.size:,}; "
        f"the first damaged tensor is {damaged}",
        hint="download it again",
        path=source.path,
        key=damaged,
    )
