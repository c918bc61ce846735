"""The JSON header of a safetensors file: from its text to entries.

An entry in the usual form is taken by one regular expression; one with further fields or unusual spellings goes through
`json`, in a small piece. As strict as the reference implementation, and stricter: see `ckptool.formats.strict_json`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ckptool.core.dtypes import DTYPES
from ckptool.formats.strict_json import JsonError, JsonReader, compiled


class Entry(NamedTuple):
    """One tensor as the header describes it; `start` and `stop` count from the first byte of the data."""

    start: int
    stop: int
    name: str
    dtype: str
    shape: tuple[int, ...]


class Parsed(NamedTuple):
    """A header's content, not yet checked against dtypes and the file.

    Attributes:
        entries: in the order of the text; dtypes by the format's names.
        metadata: `__metadata__`.
        odd: names of tensors with fields that the format does not have.
    """

    entries: list[Entry]
    metadata: dict[str, str]
    odd: list[str]


_PAIRS, _SINGLES = "float4_e2m1fn_x2", "float4_e2m1fn"
"""torch's 4-bit dtype, of which an element is two numbers, and the single numbers; a header calls both F4."""

DTYPE_NAMES = {dtype.safetensors: dtype.name for dtype in DTYPES.values() if dtype.safetensors and dtype.name != _PAIRS}
"""The format's names of its dtypes, and torch's (ml_dtypes' for the 4- and 6-bit floats)."""


def from_header(name: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]] | None:
    """torch's dtype and shape for a header's; None if the format has no such dtype.

    torch holds 4-bit numbers in pairs, so an F4 tensor is one of pairs wherever its last axis has an even length.

    Example:
        >>> from_header("F4", (3, 8)), from_header("F4", (2, 3)), from_header("F3", (1,))
        (('float4_e2m1fn_x2', (3, 4)), ('float4_e2m1fn', (2, 3)), None)
    """
    dtype = DTYPE_NAMES.get(name)
    if dtype == _SINGLES and shape and shape[-1] % 2 == 0:
        return _PAIRS, (*shape[:-1], shape[-1] // 2)
    return None if dtype is None else (dtype, shape)


def to_header(dtype: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]] | None:
    """A header's dtype and shape from which `from_header` gives these; None if the format cannot hold the tensor.

    It has no name for some dtypes, and no tensor whose elements do not fill bytes.

    Example:
        >>> to_header("float4_e2m1fn_x2", (3, 4)), to_header("float4_e2m1fn_x2", ()), to_header("complex128", (2,))
        (('F4', (3, 8)), None, None)
    """
    known = DTYPES[dtype]
    stored = (*shape[:-1], 2 * shape[-1]) if dtype == _PAIRS and shape else shape
    is_whole = math.prod(stored) % known.block_elements == 0
    if not known.safetensors or not is_whole or from_header(known.safetensors, stored) != (dtype, shape):
        return None
    return known.safetensors, stored


# The three fields in any order; shapes of up to 100 dimensions. A field that is there twice leaves another one unset.
_USUAL = compiled(
    r'"(?!__metadata__")([^"\\\x00-\x1f]*+)"~:~\{~(?:(?:'
    r'"dtype"~:~"([A-Z0-9_]++)"|"shape"~:~\[~((?:INT(?:~,~INT){0,99}+)?+)~\]|"data_offsets"~:~\[~(INT)~,~(INT)~\]'
    r')~(?:,~(?=")|(?=\}))){3}\}~([,}])~'
)


def parse(text: bytes) -> Parsed:
    """Read a header.

    Raises:
        JsonError: it is not JSON, or not of the form that the format prescribes.

    Example:
        >>> parse(b'{"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}').entries
        [Entry(start=0, stop=24, name='w', dtype='F32', shape=(2, 3))]
    """
    parsed = Parsed([], {}, [])
    shapes: dict[bytes, tuple[int, ...]] = {b"": ()}
    reader = JsonReader(text)
    for name, usual in reader.members(_USUAL):
        if usual is not None:
            _, dtype, sizes, start, stop, _ = usual.groups()
            shape = shapes.get(sizes)
            if shape is None:
                shape = shapes[sizes] = tuple(map(int, sizes.split(b",")))
            parsed.entries.append(Entry(int(start), int(stop), name, dtype.decode(), shape))
        elif name == "__metadata__":
            parsed.metadata.update(reader.strings("__metadata__"))
        else:
            parsed.entries.append(_unusual(name, reader.small_value(), parsed.odd))
    return parsed


def _unusual(name: str, value: object, odd: list[str]) -> Entry:
    """An entry from a value that may be anything."""
    if not isinstance(value, dict):
        raise JsonError(f'has an entry "{name}" that is not an object')
    for field in ("dtype", "shape", "data_offsets"):
        if field not in value:
            raise JsonError(f'has no {field} for "{name}"')
    dtype, shape, offsets = value.pop("dtype"), value.pop("shape"), value.pop("data_offsets")
    if not isinstance(dtype, str):
        raise JsonError(f'has a dtype for "{name}" that is not text')
    if not _are_naturals(shape) or not _are_naturals(offsets) or len(offsets) != 2:
        raise JsonError(f'has a shape or data_offsets for "{name}" that are not lists of natural numbers')
    for field, extra in value.items():  # the reference ignores them, up to some depth
        if isinstance(extra, (dict, list)):
            raise JsonError(f'has a field "{field}" for "{name}" that the format does not have')
    if value:
        odd.append(name)
    return Entry(offsets[0], offsets[1], name, dtype, tuple(shape))


def _are_naturals(value: object) -> bool:
    return isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)
