"""The files that one command reads and writes: no output replaces an input, and no two outputs are one file.

A file is known by its device and inode, so that links and other spellings of its name count, and by its resolved name,
so that it is known after another file took its name. The record lasts as long as `one_command`; without it (in the
Python API) only what a call names is compared.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from ckptool.core.address import address_of
from ckptool.core.bytes import PathText
from ckptool.core.errors import OutputError

Identity: TypeAlias = tuple[int, int] | str


@dataclass(frozen=True, slots=True)
class Touched:
    """What a command has read and written so far, by identity.

    Attributes:
        read: the files read, as they were named.
        written: the outputs that are in their place.
    """

    read: dict[Identity, Path] = field(default_factory=dict)
    written: dict[Identity, Path] = field(default_factory=dict)


_COMPANION = re.compile(
    r".*\.index\.json|(config|generation_config|adapter_config|model_index|trainer_state|.*tokenizer.*|special_tokens_map"
    r"|added_tokens|vocab|merges|.*processor_config|chat_template)\.(json|txt|model|jinja)|README\.md"
    r"|(optimizer|scheduler|scaler|training_args|rng_state.*)\.(bin|pt|pth)",
    re.IGNORECASE,
)
"""Files that lie beside the weights of a model and belong to it, read or not."""

_TOUCHED: ContextVar[Touched | None] = ContextVar("touched", default=None)


@contextmanager
def one_command() -> Iterator[Touched]:
    """While it lasts, every file that is opened for reading and every output is remembered."""
    touched = Touched()
    token = _TOUCHED.set(touched)
    try:
        yield touched
    finally:
        _TOUCHED.reset(token)


@contextmanager
def only_looking() -> Iterator[None]:
    """While it lasts, files that are opened do not count as read: to see what one is does not make it an input."""
    token = _TOUCHED.set(None)
    try:
        yield
    finally:
        _TOUCHED.reset(token)


def note_read(path: PathText) -> None:
    """Remember a file that was opened for reading."""
    touched = _TOUCHED.get()
    if touched is not None:
        touched.read.update(dict.fromkeys(identities(Path(path)), Path(path)))


def note_written(path: Path) -> None:
    """Remember an output that just got its name."""
    touched = _TOUCHED.get()
    if touched is not None:
        touched.written.update(dict.fromkeys(identities(path), path))


def files_read() -> tuple[Path, ...]:
    """The files that this command has read, each as it was named."""
    touched = _TOUCHED.get()
    return () if touched is None else tuple(dict.fromkeys(touched.read.values()))


def output_at(path: Path) -> Path | None:
    """The output of this command that a path names already; None if it is another file."""
    touched = _TOUCHED.get()
    if touched is None:
        return None
    return next((touched.written[each] for each in identities(path) if each in touched.written), None)


def same_file(path: PathText, others: Iterable[PathText]) -> PathText | None:
    """The first of some paths that is the same file or folder as `path`: by inode, or by its resolved name."""
    own = set(identities(path))
    return next((other for other in others if not own.isdisjoint(identities(other))), None)


def identities(path: PathText) -> Iterator[Identity]:
    """A file's device and inode if it exists, and its resolved name; of an address its text."""
    address = address_of(path)
    if address is not None:
        yield str(address)
        return
    try:
        info = Path(path).stat()
        if info.st_ino:
            yield info.st_dev, info.st_ino
    except (OSError, ValueError):
        pass  # nothing is there: it has a name only
    try:
        yield os.path.normcase(os.path.realpath(path))
    except ValueError:  # a NUL, or what no file system can hold: no file has such a name
        yield os.path.normcase(str(path))


def same_name(path: Path, other: Path) -> bool:
    """True if two outputs that need not exist would be one file, on file systems that ignore case or Unicode form too.

    Example:
        >>> same_name(Path("a/Out.pth"), Path("a/../a/out.PTH")), same_name(Path("a/x.pth"), Path("b/x.pth"))
        (True, False)
    """
    return _folded(path) == _folded(other) or not set(identities(path)).isdisjoint(identities(other))


def _folded(path: Path) -> str:
    name = unicodedata.normalize("NFC", path.name).casefold()
    return os.path.join(os.path.realpath(path.parent), name)  # noqa: PTH118 (the folder need not exist)


def require_not_read(target: Path, paths: Sequence[Path]) -> None:
    """Refuse an output that is one of the files read, or belongs to the model of one.

    Raises:
        OutputError: it is.
    """
    if same_file(target, paths) is not None:
        raise OutputError(
            f"{target} is also an input; inputs are never written to", hint="give another name", path=target
        )
    if _COMPANION.fullmatch(target.name) and os.path.lexists(target):
        folders = (path if path.is_dir() else path.parent for path in paths if address_of(path) is None)
        owner = same_file(target.parent, dict.fromkeys(folders))
        if owner is not None:
            raise OutputError(
                f"{target} belongs to the model in {owner}, which is an input; inputs are never written to",
                hint="give another name",
                path=target,
            )
