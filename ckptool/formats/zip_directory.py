"""The directory of a zip archive, read strictly.

Python's `zipfile` takes the last of two members of one name where torch takes the first, accepts archives with
something before or after them, and never looks at local headers. Here an archive that two readers could understand
differently is refused, with the reason. Nothing is unpacked, except `inflate` of a small member within a limit.
CRCs are not checked: torch itself can write archives without them.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import PurePath

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
_REWRITE = "unpack it and save it again with torch.save"


@dataclass(frozen=True, slots=True)
class Member:
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


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Where the archive and its central directory lie; `start` is the archive's first byte in the file."""

    start: int
    directory: int
    nbytes: int
    members: int


def read_directory(file: OpenBytes, start: int = 0, nbytes: int | None = None) -> dict[str, Member]:
    """The members of the archive that fills `file`, or the `nbytes` bytes from `start`, by name in directory order.

    Folder entries are left out. Every local header is compared with the directory.

    Raises:
        UnreadableError: the archive is cut off, damaged, encrypted, or can be understood in two ways.
    """
    size = file.size - start if nbytes is None else nbytes
    if size < _END.size or start + size > file.size:
        raise _bad(file.path, "is cut off: a zip archive ends with its directory", "fetch it again")
    bounds = _bounds(file, start, size)
    directory = file.read(bounds.directory, bounds.nbytes)
    entries = _central_entries(file.path, directory, bounds)
    return _located(file, entries, bounds)


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


@dataclass(slots=True)
class _Entry:
    raw_name: bytes
    name: str
    flags: int
    method: int
    packed: int
    nbytes: int
    header: int
    crc: int


def _central_entries(path: PurePath, directory: bytes, bounds: _Bounds) -> list[_Entry]:
    """Every entry of the central directory, names checked for doubles as torch's case-blind look-up sees them."""
    entries: list[_Entry] = []
    seen: set[bytes] = set()
    at = 0
    for _ in range(bounds.members):
        if at + _CENTRAL.size > len(directory):
            raise _bad(path, "is damaged: its zip directory ends early")
        row = _CENTRAL.unpack_from(directory, at)
        name_end = at + _CENTRAL.size + row[10]
        extra_end = name_end + row[11]
        at_next = extra_end + row[12]
        if row[0] != b"PK\x01\x02" or at_next > len(directory):
            raise _bad(path, "is damaged: its zip directory ends early")
        entry = _entry(path, row, directory[at + _CENTRAL.size : name_end], directory[name_end:extra_end])
        folded = entry.raw_name.lower()
        if folded in seen:
            raise _bad(path, f"holds two members named {entry.name}: readers would disagree which one counts", _REWRITE)
        seen.add(folded)
        entries.append(entry)
        at = at_next
    if at != len(directory):
        raise _bad(path, "is damaged: its zip directory is longer than it says")
    return entries


def _entry(path: PurePath, row: tuple[int, ...], raw_name: bytes, extra: bytes) -> _Entry:
    """One row of the directory, sizes widened by its 64-bit extra field."""
    flags, method = row[3], row[4]
    packed, nbytes, disk, header = row[8], row[9], row[13], row[16]
    name = _text(raw_name)
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
    return _Entry(raw_name, name, flags, method, packed, nbytes, header, row[7])


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


def _located(file: OpenBytes, entries: list[_Entry], bounds: _Bounds) -> dict[str, Member]:
    """Members with the offsets of their data; local headers agree with the directory and nothing overlaps."""
    offsets: dict[int, int] = {}
    end = bounds.start
    ordered = sorted(entries, key=lambda entry: entry.header)
    following = [bounds.start + entry.header for entry in ordered[1:]] + [bounds.directory]
    for entry, after in zip(ordered, following, strict=False):  # without members one is left over
        header = bounds.start + entry.header
        if header < end or header + _LOCAL.size + len(entry.raw_name) > bounds.directory:
            raise _bad(file.path, f"is damaged: {entry.name} overlaps another member or lies outside the archive")
        if end == bounds.start != header:
            raise _bad(file.path, "has something before its zip archive", _REWRITE)
        found = None if file.reads_cheaply else _derived(entry, header, after, bounds.start)
        if found is None:
            offset = header + _local_nbytes(file, entry, header)
        else:
            offset = found
            _check_later(file, entry, header, offset)
        end = offset + entry.packed
        if end > bounds.directory:
            raise _bad(file.path, f"is damaged: {entry.name} overlaps another member or lies outside the archive")
        offsets[id(entry)] = offset
    return {
        entry.name: Member(entry.name, offsets[id(entry)], entry.nbytes, entry.packed, entry.method, entry.crc)
        for entry in entries
        if not (entry.name.endswith("/") and entry.nbytes == 0)
    }


def _derived(entry: _Entry, header: int, after: int, start: int) -> int | None:
    """Where a member's data begins, by where the next header or the directory begins; None if that does not say it.

    Data ends where the next header begins, or where a descriptor does that is announced: then torch's alignment to 64
    bytes leaves one place. What the local header says is compared before a byte of the data is used.
    """
    least = header + _LOCAL.size + len(entry.raw_name)
    if not entry.flags & _SIZES_FOLLOW:
        offset = after - entry.packed
        return offset if least <= offset <= least + _FULL16 else None
    places = [after - entry.packed - descriptor for descriptor in (12, 16, 20, 24)]
    fitting = [place for place in places if least <= place <= least + _FULL16 and (place - start) % 64 == 0]
    return fitting[0] if len(fitting) == 1 else None


def _check_later(file: OpenBytes, entry: _Entry, header: int, offset: int) -> None:
    def check(local: bytes) -> None:
        if header + _checked(file.path, entry, local) != offset:
            raise _bad(file.path, f"has a gap around {entry.name}, so that its data cannot be found", _REWRITE)

    file.check_first(header, _LOCAL.size + len(entry.raw_name), offset + entry.packed, check)


def _local_nbytes(file: OpenBytes, entry: _Entry, header: int) -> int:
    """Length of the member's local header, once it is known to say the same as the directory."""
    return _checked(file.path, entry, file.read(header, _LOCAL.size + len(entry.raw_name)))


def _checked(path: PurePath, entry: _Entry, local: bytes) -> int:
    """Length of a local header that says the same as the directory."""
    row = _LOCAL.unpack_from(local)
    if row[0] != b"PK\x03\x04" or row[9] != len(entry.raw_name) or local[_LOCAL.size :] != entry.raw_name:
        raise _bad(path, f"is damaged: its directory says {entry.name} where another member stands")
    sizes_agree = row[2] & _SIZES_FOLLOW or (row[7] in (entry.packed, _FULL32) and row[8] in (entry.nbytes, _FULL32))
    if row[2] & _ENCRYPTED or row[3] != entry.method or not sizes_agree:
        raise _bad(path, f"is damaged: the two headers of {entry.name} disagree")
    return int(_LOCAL.size + row[9] + row[10])
