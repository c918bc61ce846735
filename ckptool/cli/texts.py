"""Small text files that a command writes beside its output: recipes, lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath


def require_texts(files: Iterable[PurePath], inputs: Iterable[PurePath], *, force: bool) -> None:
    """Refuse text files that could not be written, before anything is.

    Args:
        files: their names.
        inputs: what is read, and must not be replaced.
        force: existing files may be replaced.
    """
    from ckptool.storage.targets import check_file

    sources = list(inputs)
    for file in files:
        check_file(file, sources, force=force)


def write_texts(texts: Mapping[PurePath, str], *, force: bool) -> list[str]:
    """Write them, each whole or not at all; gives their names."""
    from ckptool.storage.staging import write_file

    for file, text in texts.items():
        write_file(file, [text.encode("utf-8", "surrogatepass")], force=force)
    return [str(file) for file in texts]
