"""JSON: one document on stdout, stable field names, every tensor in a line of its own.

Names stand there exactly as the file has them. Only ASCII is written, so no name can act on a terminal, and lone
surrogates survive. Numbers that JSON cannot say (NaN, Inf) are the strings "nan", "inf", "-inf".
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.errors import CkptError
from ckptool.facts.architecture import Architecture
from ckptool.report.document import Document
from ckptool.storage.session import read_so_far

if TYPE_CHECKING:
    from ckptool.values.stats import Stats


def encode(value: Any) -> str:
    """A value as JSON in ASCII.

    Example:
        >>> encode({"key": "é\\x1b", "rel": float("nan")})
        '{"key": "\\\\u00e9\\\\u001b", "rel": "nan"}'
    """
    return json.dumps(_sayable(value), ensure_ascii=True, allow_nan=False)


def _sayable(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {key: _sayable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_sayable(item) for item in value]
    return value


def json_object(fields: Iterable[tuple[str, Any]]) -> Iterator[str]:
    """An object, piece by piece. An iterator as a value becomes an array with an item per line."""
    separator = "{"
    for name, value in fields:
        yield f"{separator}{encode(name)}: "
        if isinstance(value, Iterator):
            yield from _array(value)
        else:
            yield encode(value)
        separator = ",\n"
    yield "}\n"


def _array(items: Iterator[Any]) -> Iterator[str]:
    separator = "[\n"
    for item in items:
        yield f"{separator}{encode(item)}"
        separator = ",\n"
    yield "[]" if separator == "[\n" else "]"


def encode_document(document: Document) -> Iterator[str]:
    """The result of a command under its schema, and what was read over the network for it."""
    return json_object(chain(document.result(), transfer_fields()))


def transfer_fields() -> Iterator[tuple[str, Any]]:
    """``transfer``: requests, bytes, and the size of the files; nothing where the network was not asked."""
    read = read_so_far()
    if read is not None:
        pins = {address: pinned.rpartition("@")[2] for address, pinned in read.pins}
        yield "transfer", {"requests": read.requests, "bytes": read.nbytes, "of": read.of, "commits": pins}


def error_json(error: CkptError) -> str:
    """An error as the object that ``--json`` promises."""
    said = {
        "code": error.code,
        "message": error.message,
        "detail": list(error.detail),
        "path": None if error.path is None else str(error.path),
        "key": error.key,
        "hint": error.hint,
    }
    return encode({"schema": "ckptool.error/1", "error": said})


def file_fields(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    """A file or folder and which of its weights were taken."""
    selection = checkpoint.selection
    return {
        "path": name,
        "format": str(checkpoint.format),
        "bytes": checkpoint.nbytes,
        "files": [str(file.path) for file in checkpoint.files],
        "selected": list(selection.path),
        "why": selection.why,
        "others": list(selection.others),
        "ema": selection.ema,
    }


def model_fields(model: Architecture) -> dict[str, Any]:
    """A model that the keys and shapes are those of."""
    return {
        "name": model.model,
        "names": model.library,
        "prefixes": model.prefixes,
        "parts": [part.text for part in model.parts],
        "head": None if model.head is None else model.head.text,
        "text": model.text,
    }


def note_fields(note: Note) -> dict[str, Any]:
    """A note with all its keys."""
    return {"level": note.level, "text": note.text, "hint": note.hint, "keys": list(note.keys)}


def stats_fields(stats: Stats) -> dict[str, Any]:
    """The numbers of one tensor, by their names."""
    import dataclasses

    return dataclasses.asdict(stats)
