"""Whether an output may go where the user wants it, found out before anything is written."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from pathlib import Path

from ckptool.core.address import address_of
from ckptool.core.bytes import PathText
from ckptool.core.errors import OutputError, UsageError
from ckptool.storage.publishing import Replaceable, link_with_others
from ckptool.storage.refusals import require_name, said_plainly
from ckptool.storage.touched import files_read, require_not_read, same_name


def check_target(target: PathText, inputs: Iterable[PathText], replaceable: Replaceable | None, *, force: bool) -> None:
    """Refuse an output that is an input, exists, or could not be replaced safely.

    Args:
        target: the output file or folder; a link is replaced itself, what it points to stays.
        inputs: files and folders that are read, beside those that this command has opened.
        replaceable: for a folder, says which of its files an output replaces; None for a file.
        force: True to replace an existing output.

    Raises:
        OutputError: with the reason and what to do.
    """
    address = address_of(target)
    if address is not None:
        from ckptool.storage.uploads import check_uploads

        check_uploads(address, replaceable, force=force)
        return
    target = Path(target)
    with said_plainly(target):
        _check_place(target)
        if os.path.lexists(target):
            _check_not_read(target, [Path(path) for path in inputs])
            _check_kind(target, is_folder=replaceable is not None)
            if replaceable is None:
                _check_free(target, force)
            else:
                _check_folder(target, replaceable, force)


def check_file(target: PathText, inputs: Iterable[PathText], *, force: bool) -> None:
    """Refuse a file beside the output (a report, a list, a recipe) that could not be written; see `check_target`."""
    if address_of(target) is not None:
        raise OutputError(f"{target} cannot be written: it is an address", hint="give the name of a file")
    check_target(target, inputs, None, force=force)


def check_distinct(
    outputs: Sequence[PathText], folder: PathText | None = None, is_shard_name: Callable[[str], bool] | None = None
) -> None:
    """Refuse outputs of one command that would be one file.

    Args:
        outputs: all of them.
        folder: the one among them that is a folder of shards.
        is_shard_name: says whether a name in that folder is an output's.
    """
    paths = [Path(path) for path in outputs if address_of(path) is None]
    place = None if folder is None or address_of(folder) is not None else Path(folder)
    for path in paths:
        require_name(path)
    for one, other in combinations(paths, 2):
        if same_name(one, other):
            raise UsageError(f"two outputs have one name: {one}", hint="give each a name of its own", path=other)
    for path in paths:
        if place is not None and is_shard_name and is_shard_name(path.name) and same_name(path.parent, place):
            raise UsageError(f"{path} is a file of the output {place}", hint="give another name", path=path)


def _check_place(target: Path) -> None:
    if not target.parent.is_dir():
        raise OutputError(
            f"the folder {target.parent} does not exist",
            hint=f"mkdir -p {shlex.quote(str(target.parent))}",
            path=target,
        )
    if os.path.lexists(target) and not target.exists():
        raise OutputError(f"{target} is a link to nothing", hint="give another name", path=target)


def _check_not_read(target: Path, inputs: Iterable[Path]) -> None:
    """Refuse a target that is read or belongs to what is read, or a folder that holds what is read."""
    paths = [*inputs, *files_read()]
    require_not_read(target, paths)
    if target.is_dir():
        place = target.resolve()
        held = next((path for path in paths if place in path.resolve().parents), None)
        if held is not None:
            raise OutputError(f"{target} holds the input {held}", hint="give another name", path=target)


def _check_kind(target: Path, *, is_folder: bool) -> None:
    mode = target.stat().st_mode
    if stat.S_ISDIR(mode) and not is_folder:
        raise OutputError(f"{target} is a folder", hint="give the name of a file", path=target)
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OutputError(f"{target} is not a regular file", hint="give the name of a file", path=target)
    if is_folder and not stat.S_ISDIR(mode):
        raise OutputError(f"{target} is a file", hint="give a new name", path=target)


def _check_free(target: Path, force: bool) -> None:
    if not force:
        raise OutputError(f"{target} exists", hint="--force replaces it", path=target)


def _check_folder(target: Path, replaceable: Replaceable, force: bool) -> None:
    """Refuse a folder that may not be written into; with `force` only its weights are replaced."""
    names = {entry.name for entry in target.iterdir()}
    if names and not force:
        ours = replaceable(target)
        what = "replaces it" if ours == names else "replaces its weights; other files stay"
        raise OutputError(f"{target} exists", hint=f"--force {what}", path=target)
    if target.is_symlink() and names - replaceable(target):
        raise link_with_others(target)
