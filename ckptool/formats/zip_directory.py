"""The directory of a zip archive, read strictly.

Python's `zipfile` takes the last of two members of one name where torch takes the first, accepts archives with
something before or after them, and never looks at local headers. Here an archive that two readers could understand
differently is refused, with the reason. Nothing is unpacked, except `inflate` of a small member within a limit.
CRCs are not checked: torch itself can write archives without them.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import NamedTuple

from ckptool.core.bytes import OpenBytes
from ckptool.core.errors import UnreadableError

MAX_DIRECTORY = 256 << 20
MAX_MEMBERS = 2_000_000
MAX_STORED = 256 << 20
MAX_INFLATED = 32 << 20  # what a few bytes may unpack to; the pickle of 200,000 tensors

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_ENCRYPTED = 0x1 | 0x40 | 0x2000  # traditional, strong, masked headers
_SIZES_FOLLOW = 0x8
_DOS_FOLDER = 0x10
_WINDOW = 1 << 16
_REWRITE = "unpack it and save it again with torch.save"


class Member(NamedTuple):
    """One file in the archive.

    Attributes:
        name: its name.
        offset: where its data begins, counted from the start of the *file*.
        nbytes: size of its content.
        packed_nbytes: size as it stands in the file.
        method: 0 stored, 8 deflated, or another that cannot be read.
        crc: the CRC-32 that the directory states; 0 where torch was told not to compute it. Not checked here.
    """

    name: str
    offset: int
    nbytes: int
    packed_nbytes: int
    method: int
    crc: int


class Directory(Mapping[str, Member]):
    """The members of an archive by name, in columns: there is one for each storage of a checkpoint."""

    __slots__ = ("_columns", "_prefix", "_rows")

    def __init__(self, columns: _Columns, rows: dict[str, int], prefix: str = "") -> None:
        self._columns = columns
        self._rows = rows
        self._prefix = prefix

    def within(self, folder: str) -> Directory:
        """What lies in a folder, by the name there."""
        inside = f"{folder}/"
        rows = {name[len(inside) :]: row for name, row in self._rows.items() if name.startswith(inside)}
        return Directory(self._columns, rows, self._prefix + inside)

    def __getitem__(self, name: str) -> Member:
        row, columns = self._rows[name], self._columns
        return Member(
            self._prefix + name,
            columns.offset[row],
            columns.nbytes[row],
            columns.packed[row],
            columns.method[row],
            columns.crc[row],
        )

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


class _Columns:
    """What the central directory says, a number of each kind for each row; `offset` comes from the local headers."""

    def __init__(self) -> None:
        self.names: list[bytes] = []  # as they stand there; given up once they are checked
        self.flags = array("H")
        self.method = array("H")
        self.packed = array("Q")
        self.nbytes = array("Q")
        self.header = array("Q")
        self.offset = array("Q")
        self.crc = array("I")


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Where the archive and its central directory lie; `start` is the archive's first byte in the file."""

    start: int
    directory: int
    nbytes: int
    members: int


def read_directory(file: OpenBytes, start: int = 0, nbytes: int | None = None) -> Directory:
    """The members of the archive that fills `file`, or the `nbytes` bytes from `start`, by name in directory order.

    Folder entries are left out. Every local header is compared with the directory.

    Raises:
        UnreadableError: the archive is cut off, damaged, encrypted, or can be understood in two ways.
    """
    size = file.size - start if nbytes is None else nbytes
    if size < _END.size or start + size > file.size:
        raise _bad(file.path, "is cut off: a zip archive ends with its directory", "fetch it again")
    bounds = _bounds(file, start, size)
    columns, rows = _central_rows(file.path, file.read(bounds.directory, bounds.nbytes), bounds)
    _locate(file, columns, bounds)
    return Directory(columns, rows)


def inflate(file: OpenBytes, member: Member, limit: int = MAX_STORED) -> bytes:
    """The content of a member, unpacked if it is deflated.

    Raises:
        UnreadableError: it is larger than `limit`, damaged, or packed by a method other than deflate.
    """
    limit = limit if member.method == 0 else min(limit, MAX_INFLATED)
    if max(member.nbytes, member.packed_nbytes) > limit:
        raise _bad(file.path, f"holds {member.nbytes:,} bytes in {member.name}, more than the limit of {limit:,}")
    packed = file.read(member.offset, member.packed_nbytes)
    if member.method == 0:
        return packed
    if member.method != 8:
        raise _bad(file.path, f"packs {member.name} by method {member.method}, which torch does not read", _REWRITE)
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = unpacker.decompress(packed, member.nbytes + 1)
    except zlib.error as error:
        raise _bad(file.path, f"is damaged: {member.name} cannot be unpacked", "fetch it again") from error
    if len(content) != member.nbytes or not unpacker.eof or unpacker.unused_data:
        raise _bad(file.path, f"is damaged: {member.name} does not unpack to the {member.nbytes:,} bytes it declares")
    return content


def _bad(path: PurePath, what: str, hint: str | None = None) -> UnreadableError:
    return UnreadableError(f"{path} {what}", path=path, hint=hint)


def _bounds(file: OpenBytes, start: int, size: int) -> _Bounds:
    """Find the end record, and the 64-bit one before it; the directory must end exactly where they begin."""
    tail_size = min(size, _END.size + _FULL16)
    tail = file.read(start + size - tail_size, tail_size)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END.size > tail_size:
        raise _bad(file.path, "is cut off: a zip archive ends with its directory", "fetch it again")
    end = _END.unpack_from(tail, at)
    if at + _END.size + end[7] != tail_size:
        raise _bad(file.path, "has something behind the end of its zip archive", _REWRITE)
    end_at = start + size - tail_size + at
    fields: tuple[int, ...] = (end[1], end[2], end[3], end[4], end[5], end[6])
    if end_at - start >= _END64_LOCATOR.size:
        locator = _END64_LOCATOR.unpack(file.read(end_at - _END64_LOCATOR.size, _END64_LOCATOR.size))
        if locator[0] == b"PK\x06\x07":
            fields, end_at = _fields64(file, start, end_at - _END64_LOCATOR.size, locator, fields)
    disk, first_disk, here, members, nbytes, directory = fields
    if disk or first_disk or here != members:
        raise _bad(file.path, "is one part of a zip archive that was split", "join the parts first")
    if directory + nbytes != end_at - start:
        raise _bad(file.path, "has something before or inside its zip archive that does not belong to it", _REWRITE)
    if nbytes > MAX_DIRECTORY or members > min(MAX_MEMBERS, nbytes // _CENTRAL.size):
        raise _bad(file.path, f"declares {members:,} members in a directory of {nbytes:,} bytes")
    return _Bounds(start, start + directory, nbytes, members)


def _fields64(
    file: OpenBytes, start: int, locator_at: int, locator: tuple[bytes, int, int, int], fields: tuple[int, ...]
) -> tuple[tuple[int, ...], int]:
    """The end record's fields in 64 bits and where that record begins. torch writes one into every file."""
    at = start + locator[2]
    if locator[1] or at + _END64.size > locator_at:
        raise _bad(file.path, "is damaged: its zip end records do not fit together")
    record = _END64.unpack(file.read(at, _END64.size))
    if record[0] != b"PK\x06\x06" or at + 12 + record[1] != locator_at:
        what = "has something before its zip archive, or is damaged: its end records do not fit together"
        raise _bad(file.path, what, _REWRITE)
    wide = record[4:]
    full = (_FULL16, _FULL16, _FULL16, _FULL16, _FULL32, _FULL32)
    if any(narrow not in (value, most) for narrow, value, most in zip(fields, wide, full, strict=True)):
        raise _bad(file.path, "has two zip end records that disagree", _REWRITE)
    return wide, at


def _central_rows(path: PurePath, directory: bytes, bounds: _Bounds) -> tuple[_Columns, dict[str, int]]:
    """Every row of the central directory, and the rows by name without those of folders.

    Names are checked for doubles as torch's case-blind look-up sees them.
    """
    columns = _Columns()
    rows: dict[str, int] = {}
    seen: set[bytes] = set()
    at = 0
    for number in range(bounds.members):
        if at + _CENTRAL.size > len(directory):
            raise _bad(path, "is damaged: its zip directory ends early")
        row = _CENTRAL.unpack_from(directory, at)
        name_end = at + _CENTRAL.size + row[10]
        extra_end = name_end + row[11]
        at_next = extra_end + row[12]
        if row[0] != b"PK\x01\x02" or at_next > len(directory):
            raise _bad(path, "is damaged: its zip directory ends early")
        raw_name = directory[at + _CENTRAL.size : name_end]
        name = _text(raw_name)
        _add(columns, path, name, row, directory[name_end:extra_end])
        columns.names.append(raw_name)
        folded = lower if (lower := raw_name.lower()) != raw_name else raw_name  # one object, where it can be
        if folded in seen:
            raise _bad(path, f"holds two members named {name}: readers would disagree which one counts", _REWRITE)
        seen.add(folded)
        if row[9] or not name.endswith("/"):
            rows[name] = number
        at = at_next
    if at != len(directory):
        raise _bad(path, "is damaged: its zip directory is longer than it says")
    return columns, rows


def _add(columns: _Columns, path: PurePath, name: str, row: tuple[int, ...], extra: bytes) -> None:
    """One row of the directory, sizes widened by its 64-bit extra field."""
    flags, method = row[3], row[4]
    packed, nbytes, disk, header = row[8], row[9], row[13], row[16]
    if not name or "\0" in name:
        raise _bad(path, "is damaged: a member of its zip archive has no name")
    if flags & _ENCRYPTED:
        raise _bad(path, f"is encrypted: {name}", "unpack it with its password and save it again with torch.save")
    if nbytes and (row[15] & _DOS_FOLDER or name.endswith("/")):  # torch returns uninitialised memory for these
        raise _bad(path, f"is damaged: {name} is marked as a folder, but has content")
    if row[15] >> 28 == 0o12:  # the unix file type in the high bits: a symbolic link
        raise _bad(path, f"holds a symbolic link: {name}", _REWRITE)
    if _FULL32 in (packed, nbytes, header) or disk == _FULL16:
        wide = iter(_extra64(path, name, extra))
        try:
            nbytes = next(wide) if nbytes == _FULL32 else nbytes
            packed = next(wide) if packed == _FULL32 else packed
            header = next(wide) if header == _FULL32 else header
        except StopIteration:
            raise _bad(path, f"is damaged: the size of {name} is missing") from None
    if disk not in (0, _FULL16):
        raise _bad(path, "is one part of a zip archive that was split", "join the parts first")
    if method == 0 and packed != nbytes:
        raise _bad(path, f"gives two sizes for {name}")
    columns.flags.append(flags)
    columns.method.append(method)
    columns.packed.append(packed)
    columns.nbytes.append(nbytes)
    columns.header.append(header)
    columns.crc.append(row[7])


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp437")


def _extra64(path: PurePath, name: str, extra: bytes) -> list[int]:
    """The 64-bit numbers of an entry's extra field."""
    found: list[int] | None = None
    at = 0
    while at + 4 <= len(extra):
        tag, size = struct.unpack_from("<2H", extra, at)
        at += 4
        if at + size > len(extra):
            raise _bad(path, f"is damaged: the extra field of {name} is cut off")
        if tag == 1:
            if found is not None:
                raise _bad(path, f"gives two sizes for {name}")
            found = list(struct.unpack_from(f"<{size // 8}Q", extra, at))
        at += size
    return found or []


def _locate(file: OpenBytes, columns: _Columns, bounds: _Bounds) -> None:
    """Note where the data of each row begins; local headers agree with the directory and nothing overlaps."""
    window = _Window(file, bounds.directory)
    columns.offset = array("Q", bytes(8 * len(columns.names)))
    end = bounds.start
    ordered = sorted(range(len(columns.names)), key=columns.header.__getitem__)
    following = [bounds.start + columns.header[row] for row in ordered[1:]] + [bounds.directory] * bool(ordered)
    for row, after in zip(ordered, following, strict=True):
        header, packed, name = bounds.start + columns.header[row], columns.packed[row], columns.names[row]
        if header < end or header + _LOCAL.size + len(name) > bounds.directory:
            raise _overlaps(file.path, name)
        if end == bounds.start != header:
            raise _bad(file.path, "has something before its zip archive", _REWRITE)
        offset = None if file.reads_cheaply else _derived(columns, row, header, after, bounds.start)
        if offset is None:
            local = window.read(header, _LOCAL.size + len(name), packed)
            offset = header + _local_nbytes(file.path, columns, row, name, local)
        else:
            _check_later(file, columns, row, header, offset)
        columns.offset[row] = offset
        end = offset + packed
        if end > bounds.directory:
            raise _overlaps(file.path, name)
    columns.names = []


def _derived(columns: _Columns, row: int, header: int, after: int, start: int) -> int | None:
    """Where a member's data begins, by where the next header or the directory begins; None if that does not say it.

    Data ends where the next header begins, or where a descriptor does that is announced: then torch's alignment to 64
    bytes leaves one place. What the local header says is compared before a byte of the data is used.
    """
    least, packed = header + _LOCAL.size + len(columns.names[row]), columns.packed[row]
    if not columns.flags[row] & _SIZES_FOLLOW:
        offset = after - packed
        return offset if least <= offset <= least + _FULL16 else None
    places = [after - packed - descriptor for descriptor in (12, 16, 20, 24)]
    fitting = [place for place in places if least <= place <= least + _FULL16 and (place - start) % 64 == 0]
    return fitting[0] if len(fitting) == 1 else None


def _check_later(file: OpenBytes, columns: _Columns, row: int, header: int, offset: int) -> None:
    """Have the local header compared with the directory before the first byte of the data is used."""
    name = columns.names[row]

    def check(local: bytes) -> None:
        if header + _local_nbytes(file.path, columns, row, name, local) != offset:
            raise _bad(file.path, f"has a gap around {_text(name)}, so that its data cannot be found", _REWRITE)

    file.check_first(header, _LOCAL.size + len(name), offset + columns.packed[row], check)


def _overlaps(path: PurePath, name: bytes) -> UnreadableError:
    return _bad(path, f"is damaged: {_text(name)} overlaps another member or lies outside the archive")


class _Window:
    """Reads local headers; where small members stand close together, many of them at once."""

    def __init__(self, file: OpenBytes, end: int) -> None:
        self.file = file
        self.end = end
        self.start = 0
        self.held = b""

    def read(self, offset: int, nbytes: int, following: int) -> bytes:
        """Some bytes, after which `following` others stand before the next ones are asked for."""
        at = offset - self.start
        if not 0 <= at <= len(self.held) - nbytes:
            size = max(nbytes, _WINDOW) if following < _WINDOW // 8 else nbytes
            self.held = self.file.read(offset, min(size, self.end - offset))
            self.start, at = offset, 0
        return self.held[at : at + nbytes]


def _local_nbytes(path: PurePath, columns: _Columns, row: int, name: bytes, local: bytes) -> int:
    """Length of a member's local header, once it is known to say the same as the directory."""
    fields = _LOCAL.unpack_from(local)
    if fields[0] != b"PK\x03\x04" or fields[9] != len(name) or local[_LOCAL.size :] != name:
        raise _bad(path, f"is damaged: its directory says {_text(name)} where another member stands")
    packed, nbytes = columns.packed[row], columns.nbytes[row]
    sizes_agree = fields[2] & _SIZES_FOLLOW or (fields[7] in (packed, _FULL32) and fields[8] in (nbytes, _FULL32))
    if fields[2] & _ENCRYPTED or fields[3] != columns.method[row] or not sizes_agree:
        raise _bad(path, f"is damaged: the two headers of {_text(name)} disagree")
    return int(_LOCAL.size + fields[9] + fields[10])
