"""Lists in files: the labels of a head's classes, and row numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, TypeAlias

from ckptool.core.bytes import PathText
from ckptool.core.errors import PlanError, UnreadableError, UsageError
from ckptool.core.spec import TensorSpec
from ckptool.storage.local import LocalFile

Lookup: TypeAlias = Callable[[str], str]
"""The text of a file that a fit names."""

_LARGEST_LIST = 1 << 26


def beside(*folders: PathText) -> Lookup:
    """Looks files up in folders, the first one first; without folders, in the working directory.

    Example:
        >>> import tempfile, pathlib
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "labels.txt").write_text("cat\\ndog\\n")
        >>> beside(folder)("labels.txt")
        'cat\\ndog\\n'
    """
    places = [PurePath(folder) for folder in folders] or [PurePath()]

    def lookup(name: str) -> str:
        file = next((found for place in places if (found := _file_at(place / name)) is not None), None)
        if file is None:
            where = ", ".join(str(place) for place in places)
            raise UsageError(f"there is no file {name}", hint=f"it was looked for in {where}")
        if file.size > _LARGEST_LIST:
            raise UsageError(f"{name} is too large for a list", path=file.path)
        try:
            with file.open() as opened:
                return opened.read(0, file.size).decode("utf-8-sig")
        except (UnreadableError, UnicodeDecodeError) as error:
            raise UsageError(f"{name} cannot be read as text: {error}", path=file.path) from error

    return lookup


def _file_at(path: PurePath) -> LocalFile | None:
    try:
        return LocalFile.at(path)
    except UnreadableError:  # not there, or no file
        return None


def labels_for(name: str, lookup: Lookup, spec: TensorSpec, side: str) -> list[str]:
    """The labels in a file, one for each row of a tensor. Raises `PlanError` if there are more or fewer."""
    found = parse_labels(lookup(name), name)
    if len(found) != spec.shape[0]:
        raise PlanError(
            f"{name} has {len(found):,} labels, and the {side}'s {spec.key} has {spec.shape[0]:,} rows", key=spec.key
        )
    return found


def parse_labels(text: str, name: str = "labels") -> list[str]:
    """The labels in a file: one a line, or JSON.

    JSON is a list of names, index -> name, name -> index (torchvision's ``class_to_idx``), or a config.json with
    ``id2label``.

    Raises:
        UsageError: it is none of these.

    Example:
        >>> parse_labels("cat\\ndog\\n"), parse_labels('{"1": "dog", "0": "cat"}'), parse_labels('{"dog": 1, "cat": 0}')
        (['cat', 'dog'], ['cat', 'dog'], ['cat', 'dog'])
    """
    if text.lstrip()[:1] not in ("[", "{"):
        return [line.strip() for line in text.splitlines() if line.strip()]
    value = _json(text, name)
    if isinstance(value, dict):
        value = value.get("id2label", value)
    if isinstance(value, dict):
        value = _in_order(value)
    if not isinstance(value, list) or not all(isinstance(label, str) for label in value):
        raise UsageError(
            f"{name} is not a list of labels", hint='["cat", "dog"], {"0": "cat"}, {"cat": 0}, or one a line'
        )
    return [label.strip() for label in value]


def _in_order(value: Mapping[str, object]) -> list[object] | None:
    """The names of index -> name or of name -> index, if every index from 0 on is there once."""
    if all(type(index) is int for index in value.values()):
        pairs: dict[object, object] = {index: name for name, index in value.items()}
    else:
        pairs = {int(index): name for index, name in value.items() if index.isascii() and index.isdecimal()}
    complete = len(pairs) == len(value) and pairs.keys() == set(range(len(value)))
    return [pairs[at] for at in range(len(pairs))] if complete else None


def numbers_in(name: str, lookup: Lookup) -> list[int | None]:
    """The row numbers in a file: one a line, or a JSON list, where null is a row to be filled."""
    text = lookup(name)
    found: Any = _json(text, name) if text.lstrip().startswith("[") else _words(text)
    if not isinstance(found, list) or not all(at is None or (type(at) is int and at >= 0) for at in found):
        raise UsageError(f"{name} is not a list of row numbers", hint="[3, 17, null], or one number a line")
    return list(found)


def _words(text: str) -> list[int] | None:
    words = text.replace(",", " ").split()
    return [int(word) for word in words] if all(re.fullmatch(r"[0-9]{1,9}", word) for word in words) else None


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name} is not JSON: {error}") from None
