"""safetensors: 8 bytes of header length, a JSON header, the data.

Read at least as strictly as the reference implementation (0.8): what it refuses is refused here, with the reason. See
`ckptool.formats.safetensors_header` for what is refused beyond that.

Tensors are listed in the order of their data, the order in which the file can be read from front to back.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, count
from operator import attrgetter, eq, lt
from pathlib import PurePath
from typing import NoReturn

from ckptool.core.bytes import ByteSource, OpenBytes
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.columns import Columns
from ckptool.core.counts import many
from ckptool.core.errors import UnreadableError, UsageError
from ckptool.core.format import Format
from ckptool.core.observations import UnknownFields
from ckptool.core.spec import Form
from ckptool.formats.safetensors_header import Parsed, batches, parse
from ckptool.formats.strict_json import JsonError, JsonReader

SAFETENSORS = Format("safetensors", has_metadata=True)
MAX_HEADER = 100_000_000  # the reference's own cap


@dataclass(frozen=True, slots=True)
class Header:
    """A header that was read and checked.

    Attributes:
        names: keys of the tensors in the order of their data, which has no holes and no overlaps.
        forms: their dtypes, shapes and sizes.
        starts: file offset of the first byte of each.
        metadata: `__metadata__`.
        odd: names of tensors with fields that ckptool does not know.
        start: file offset of the first byte of the data.
        nbytes: bytes of data that it describes.
    """

    names: list[str]
    forms: list[Form]
    starts: array[int]
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
        tensors=Columns(source, header.names, header.forms, header.starts),
        files=(source,),
        nbytes=source.size,
        metadata=header.metadata,
        observations=(UnknownFields(tuple(header.odd)),) if header.odd else (),
    )


def read_header(file: OpenBytes, offset: int = 0) -> Header:
    """Read and check the header that begins at `offset`; whether the data is all there is left to the caller."""
    start, reader = _text_of(file, offset)
    with _saying_where(file.path):
        found = parse(reader)
        names, forms, starts = _in_order(found)
        nbytes = _check_layout(names, forms, starts)
    return Header(names, forms, array("Q", (start + at for at in starts)), found.metadata, found.odd, start, nbytes)


def read_again(source: ByteSource) -> Iterator[tuple[str, Form]]:
    """The tensors of a file that was written just now, in the order of their data; none of them is held.

    Raises:
        UnreadableError: it is damaged, or its header has another order.
    """
    with source.open() as file, _saying_where(file.path):
        start, reader = _text_of(file, 0)
        end = 0
        for names, forms, starts in batches(reader, {}, []):
            *firsts, stop = accumulate(map(attrgetter("nbytes"), forms), initial=end)
            if firsts != starts:
                raise JsonError(f'does not let "{names[0]}" or what follows it begin where the tensor before it ends')
            end = stop
            yield from zip(names, forms, strict=True)
        if start + end != source.size:
            raise JsonError(f"promises {start + end:,} bytes, and the file has {source.size:,}")


def _text_of(file: OpenBytes, offset: int) -> tuple[int, JsonReader]:
    """Where the data behind a header begins, and its text."""
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
    file.expect(offset + 8, length)
    return start, JsonReader(lambda at, nbytes: file.read(offset + 8 + at, nbytes), length)


@contextmanager
def _saying_where(path: PurePath) -> Iterator[None]:
    """Say which file's header it is that something is wrong with."""
    try:
        yield
    except JsonError as problem:
        raise UnreadableError(f"the header of {path} {problem}", hint="get the file again", path=path) from None


def _in_order(found: Parsed) -> tuple[list[str], list[Form], array[int]]:
    """The tensors in the order of their data."""
    if all(map(lt, found.starts, found.starts[1:])):
        return found.names, found.forms, found.starts
    rows = sorted(zip(found.starts, (form.nbytes for form in found.forms), found.names, count(), strict=False))
    order = [row[-1] for row in rows]
    return (
        list(map(found.names.__getitem__, order)),
        list(map(found.forms.__getitem__, order)),
        array("Q", map(found.starts.__getitem__, order)),
    )


def _check_layout(names: list[str], forms: list[Form], starts: array[int]) -> int:
    """Sorted tensors follow each other without holes or overlaps; the bytes they take."""
    ends = accumulate(map(attrgetter("nbytes"), forms), initial=0)
    if all(map(eq, starts, ends)):  # no list of numbers, which takes forty bytes for each
        return starts[-1] + forms[-1].nbytes if forms else 0
    end = 0
    for at, (start, form) in enumerate(zip(starts, forms, strict=True)):
        if start < end:
            raise JsonError(f'lets "{names[at - 1]}" and "{names[at]}" overlap by {many(end - start, "byte")}')
        if start > end:
            raise JsonError(f'leaves {many(start - end, "byte")} before "{names[at]}" to no tensor')
        end += form.nbytes
    return end


def _ends_early(source: ByteSource, header: Header) -> NoReturn:
    have = source.size - header.start
    rows = zip(header.names, header.forms, header.starts, strict=True)
    damaged = next(name for name, form, start in rows if start - header.start + form.nbytes > have)
    raise UnreadableError(
        f"{source.path} ends early: header promises {header.start + header.nbytes:,} bytes, file has {source.size:,}; "
        f"the first damaged tensor is {damaged}",
        hint="download it again",
        path=source.path,
        key=damaged,
    )
