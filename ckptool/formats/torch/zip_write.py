"""Lays out a torch zip archive as `torch.save` writes it: stored records, aligned data, a ZIP64 end record.

Source: caffe2/serialize/inline_container.cc of torch 2.13 (record names, padding field "FB", format version 3).
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ckptool.formats.image import Content, Image, Slot, congruent

ROOT = "archive"
ALIGNMENT = 64
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_MAX32 = 0xFFFFFFFF
_UTF8 = 0x0800
_DOS_DATE = (1 << 5) | 1  # 1 January 1980: the same input gives the same bytes
_DATA_FIELD = b"FB"  # torch's padding field


@dataclass(frozen=True, slots=True)
class Record:
    """One storage: its number is its name in the archive."""

    nbytes: int
    contents: tuple[Content, ...]


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    header: int  # offset of the local header
    data: int
    nbytes: int
    crc: int | None


def zip_image(data_pkl: bytes, records: Sequence[Record], others: Mapping[str, bytes] | None = None) -> Image:
    """The archive that holds a pickle and its storages; storage i is the record `data/i`.

    Args:
        data_pkl: the pickle.
        records: the storages.
        others: small records under names of their own, which torch does not read.
    """
    literals: list[tuple[int, bytes]] = []
    members: list[_Member] = []
    slots: list[Slot] = []
    position = 0

    def small(name: str, content: bytes) -> None:
        nonlocal position
        member = _place(f"{ROOT}/{name}", position, len(content), (), zlib.crc32(content))
        literals.append((member.header, _local_header(member) + content))
        members.append(member)
        position = member.data + member.nbytes

    small("data.pkl", data_pkl)
    small(".format_version", b"1")
    small(".storage_alignment", str(ALIGNMENT).encode())
    small("byteorder", b"little")
    for number, record in enumerate(records):
        member = _place(f"{ROOT}/data/{number}", position, record.nbytes, record.contents, None)
        slots.append(Slot(member.name, member.data, record.nbytes, record.contents, needs_crc=True))
        members.append(member)
        position = member.data + member.nbytes
    small("version", b"3\n")
    for name, content in (others or {}).items():
        small(name, content)
    small(".data/serialization_id", _identity(data_pkl, records))
    directory = sum(_CENTRAL.size + len(m.name.encode()) + len(_zip64(m, central=True)) for m in members)

    def finish(crcs: Mapping[str, int]) -> list[tuple[int, bytes]]:
        done = [
            m if m.crc is not None else _Member(m.name, m.header, m.data, m.nbytes, crcs.get(m.name, 0))
            for m in members
        ]
        headers = [(m.header, _local_header(m)) for m, was in zip(done, members, strict=True) if was.crc is None]
        central = b"".join(map(_central_header, done))
        return [*headers, (position, central + _end(len(done), len(central), position))]

    return Image(position + directory + len(_end(0, 0, 0)), tuple(literals), tuple(slots), finish)


def _place(name: str, position: int, nbytes: int, contents: tuple[Content, ...], crc: int | None) -> _Member:
    fixed = _LOCAL.size + len(name.encode()) + len(_zip64(_Member(name, 0, 0, nbytes, crc), central=False))
    data = congruent(position + fixed + 4, ALIGNMENT, contents)
    return _Member(name, position, data, nbytes, crc)


def _zip64(member: _Member, *, central: bool) -> bytes:
    """The ZIP64 field, where a size or an offset does not fit 32 bits."""
    values: list[int] = []
    if member.nbytes >= _MAX32:
        values += [member.nbytes, member.nbytes]
    if central and member.header >= _MAX32:
        values.append(member.header)
    return struct.pack(f"<2H{len(values)}Q", 1, 8 * len(values), *values) if values else b""


def _local_header(member: _Member) -> bytes:
    name = member.name.encode()
    size = min(member.nbytes, _MAX32)
    extra = _zip64(member, central=False)
    padding = member.data - member.header - _LOCAL.size - len(name) - len(extra) - 4
    extra += struct.pack("<2sH", _DATA_FIELD, padding) + b"Z" * padding
    version = 45 if member.nbytes >= _MAX32 else 20
    crc = member.crc or 0
    fixed = _LOCAL.pack(b"PK\3\4", version, _UTF8, 0, 0, _DOS_DATE, crc, size, size, len(name), len(extra))
    return fixed + name + extra


def _central_header(member: _Member) -> bytes:
    name = member.name.encode()
    size = min(member.nbytes, _MAX32)
    extra = _zip64(member, central=True)
    version = 45 if extra else 20
    crc = member.crc or 0
    offset = min(member.header, _MAX32)
    fixed = _CENTRAL.pack(
        b"PK\1\2", version, version, _UTF8, 0, 0, _DOS_DATE, crc, size, size, len(name), len(extra), 0, 0, 0, 0, offset
    )
    return fixed + name + extra


def _end(count: int, size: int, offset: int) -> bytes:
    """ZIP64 end record, its locator, and the end record; torch writes all three always."""
    zip64 = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, offset + size, 1)
    few, small, near = min(count, 0xFFFF), min(size, _MAX32), min(offset, _MAX32)
    return zip64 + locator + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, few, few, small, near, 0)


def _identity(data_pkl: bytes, records: Sequence[Record]) -> bytes:
    """Forty digits, as torch writes: here of the pickle and the storages' sizes."""
    digest = hashlib.sha256(data_pkl)
    for record in records:
        digest.update(record.nbytes.to_bytes(8, "little"))
    return str(int.from_bytes(digest.digest(), "big"))[:40].encode()
