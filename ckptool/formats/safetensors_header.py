"""The JSON header of a safetensors file: from its text to columns.

An entry in the usual form is taken by one regular expression; one with further fields or unusual spellings goes through
`json`, in a small piece. As strict as the reference implementation, and stricter: see `ckptool.formats.strict_json`.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterator
from operator import attrgetter, ne, sub
from typing import NamedTuple, TypeAlias

from ckptool.core.dtypes import DTYPES
from ckptool.core.spec import Form
from ckptool.formats.strict_json import Entries, JsonError, JsonReader, compiled, unquoted_all

MAX_DIMENSION = 2**63 - 1  # torch's
MAX_BITS = 2**64 - 1  # the reference counts in 64 bits and refuses what overflows, even if a later dimension is 0


class Parsed(NamedTuple):
    """A header's content in columns: tensors in the order of the text. Whether they fill the data is not yet checked.

    Attributes:
        names: their keys, no two equal.
        forms: their dtypes (torch's), shapes and sizes.
        starts: the first byte of each, counted from the first byte of the data.
        metadata: `__metadata__`.
        odd: names of tensors with fields that the format does not have.
    """

    names: list[str]
    forms: list[Form]
    starts: array[int]
    metadata: dict[str, str]
    odd: list[str]


Batch: TypeAlias = tuple[list[str], list[Form], list[int]]

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


# The three fields in any order, none of them twice; shapes of up to 100 dimensions.
_USUAL = compiled(
    r'"(?!__metadata__")([^"\\\x00-\x1f]*+)"~:~\{~(?:(?:'
    r'(?(2)(?!)|"dtype"~:~"([A-Z0-9_]++)")|(?(3)(?!)|"shape"~:~\[~((?:INT(?:~,~INT){0,99}+)?+)~\])|'
    r'(?(4)(?!)|"data_offsets"~:~\[~(INT)~,~(INT)~\])'
    r')~(?:,~(?=")|(?=\}))){3}\}'
)


def parse(reader: JsonReader) -> Parsed:
    """Read a header.

    Raises:
        JsonError: it is not JSON, not of the form that the format prescribes, or its sizes contradict its shapes.

    Example:
        >>> parse(JsonReader.of(b'{"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}')).forms[0].label
        'f32[2,3]'
    """
    parsed = Parsed([], [], array("Q"), {}, [])
    for names, forms, starts in batches(reader, parsed.metadata, parsed.odd):
        parsed.names.extend(names)
        parsed.forms.extend(forms)
        parsed.starts.extend(starts)
    if len(set(parsed.names)) < len(parsed.names):
        twin = next(name for name, count in Counter(parsed.names).items() if count > 1)
        raise JsonError(f'names "{twin}" twice')
    return parsed


def batches(reader: JsonReader, metadata: dict[str, str], odd: list[str]) -> Iterator[Batch]:
    """The tensors of a header, some at a time: keys, forms, and the first byte of each. Keys may come twice.

    Args:
        reader: at the header's start.
        metadata: gets `__metadata__`.
        odd: gets the names of tensors with fields that the format does not have.

    Raises:
        JsonError: as `parse` does.
    """
    known: dict[tuple[bytes, bytes], Form] = {}  # most shapes come often
    has_metadata = False
    for member in reader.members(_USUAL):
        if isinstance(member, list):
            yield _batch(member, known)
        elif member == "__metadata__":
            if has_metadata:
                raise JsonError('names "__metadata__" twice')
            has_metadata = True
            metadata.update(reader.strings(member))
        else:
            start, end, file_dtype, shape = _unusual(member, reader.small_value(), odd)
            form = _form(member, file_dtype, shape)
            _check(member, form, start, end)
            yield [member], [form], [start]


def _batch(entries: Entries, known: dict[tuple[bytes, bytes], Form]) -> Batch:
    """Entries in the usual form. Whole columns are worked on at once: there may be a million."""
    raw, dtypes, sizes, firsts, stops, _ = zip(*entries, strict=True)
    names = unquoted_all(raw)
    kinds = list(zip(dtypes, sizes, strict=True))
    for kind in set(kinds).difference(known):
        shape = tuple(map(int, kind[1].split(b","))) if kind[1] else ()
        known[kind] = _form(names[kinds.index(kind)], kind[0].decode(), shape)
    forms = list(map(known.__getitem__, kinds))
    starts, ends = list(map(int, firsts)), list(map(int, stops))
    if max(starts) > MAX_DIMENSION or any(map(ne, map(sub, ends, starts), map(_NBYTES, forms))):
        for row in zip(names, forms, starts, ends, strict=True):
            _check(*row)
    return names, forms, starts


_NBYTES = attrgetter("nbytes")


def _check(name: str, form: Form, start: int, end: int) -> None:
    if end - start != form.nbytes:
        raise JsonError(f'gives "{name}" {end - start:,} bytes where its dtype and shape need {form.nbytes:,}')
    if start > MAX_DIMENSION:
        raise JsonError(f'puts "{name}" at byte {start:,}, beyond any file')


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


def _unusual(name: str, value: object, odd: list[str]) -> tuple[int, int, str, tuple[int, ...]]:
    """(start, stop, dtype, shape) from a value that may be anything."""
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
    return offsets[0], offsets[1], dtype, tuple(shape)


def _are_naturals(value: object) -> bool:
    return isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)
