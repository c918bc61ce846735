"""Small text files that a command writes beside its output: recipes, lists."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ckptool.core.errors import OutputError, UsageError


def require_texts(files: Iterable[Path], inputs: Iterable[Path], out: Path | None, *, force: bool) -> None:
    """Refuses text files that could not be written, before anything is.

    Args:
        files: their names.
        inputs: what is read, and must not be replaced.
        out: the output beside them.
        force: existing files may be replaced.
    """
    files = list(files)
    named = [path.absolute() for path in (out, *files) if path is not None]
    if len(set(named)) < len(named):
        raise UsageError("two outputs have one name", hint="give each a name of its own")
    sources = [path for path in inputs if path.exists()]
    for file in files:
        if not file.parent.is_dir():
            raise OutputError(f"the folder {file.parent} does not exist", hint=f"mkdir -p {file.parent}", path=file)
        if file.is_dir():
            raise OutputError(f"{file} is a folder", hint="give the name of a file", path=file)
        if file.exists() and any(path.samefile(file) for path in sources):
            raise OutputError(f"{file} is also an input; inputs are never written to", path=file)
        if file.exists() and not force:
            raise OutputError(f"{file} exists", hint="--force replaces it", path=file)


def write_texts(texts: Mapping[Path, str], *, force: bool) -> list[str]:
    """Writes them, each whole or not at all; gives their names."""
    from ckptool.engine.output import staged_file

    for file, text in texts.items():
        with staged_file(file, force=force) as (descriptor, _), os.fdopen(descriptor, "wb", closefd=False) as stream:
            stream.write(text.encode("utf-8", "surrogatepass"))
    return [str(file) for file in texts]
