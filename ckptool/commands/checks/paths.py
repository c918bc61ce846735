"""Which checkpoints the paths of a command line mean: files, folders searched through, shards taken together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from ckptool.core.address import named
from ckptool.core.bytes import Entry
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import ChangedError, CkptError, UsageError
from ckptool.formats.folder import KNOWN, _is_companion
from ckptool.formats.opening import open_checkpoint
from ckptool.formats.ranks.kinds import is_joined
from ckptool.formats.registry import INDEX, INDEX_ENDING, endings, folder_container, sniff, vague_endings
from ckptool.formats.sharded import SHARD_NAME, open_shards
from ckptool.formats.sniff import other_folder
from ckptool.storage.locate import locate_file, locate_folder
from ckptool.storage.paths import entry_names, exists, is_file, is_folder, normal, walk
from ckptool.storage.touched import only_looking

_LFS = b"version https://git-lfs"


@dataclass(frozen=True, slots=True)
class Target:
    """One checkpoint to check.

    Attributes:
        name: as it is called in reports: the file, the index of shards, the first of shards without an index, the
            folder of a torch.distributed checkpoint.
        path: the same, to open.
        shards: names of shards that belong together and have no index.
        is_companion: it lies beside the weights of a trainer, as `optimizer.pt` does, and is none itself.
    """

    name: str
    path: PurePath
    shards: tuple[str, ...] = ()
    is_companion: bool = False

    @property
    def is_sharded(self) -> bool:
        return bool(self.shards) or self.path.name.endswith(INDEX_ENDING)

    def open(self, select: str | None = None) -> Checkpoint:
        """Its headers; see `ckptool.formats.open_checkpoint`."""
        if self.shards:
            return open_shards(locate_folder(self.path.parent), self.shards, select)
        return open_checkpoint(self.path, select)


def find_targets(paths: Sequence[PurePath | str]) -> list[Target]:
    """The checkpoints that paths mean, each once, folders in the order of their names.

    Raises:
        UsageError: there are no paths, or a folder holds no checkpoint.
        UnreadableError: a path does not exist.
    """
    if not paths:
        raise UsageError("there is nothing to check", hint="name files or folders: ckptool check weights/")
    found: dict[str, Target] = {}
    for path in map(named, paths):
        if not exists(path):
            open_checkpoint(path)  # says what is wrong with it, and what was probably meant
        targets = list(_searched(path)) if is_folder(path) else [_target_of(path)]
        if not targets:
            if other_folder(entry_names(path)) is not None:
                open_checkpoint(path)  # says what it is
            raise UsageError(
                f"no checkpoint in {path}",
                hint=f"files that end in {', '.join(endings())} are looked for, in folders that are not hidden",
                path=path,
            )
        for target in targets:
            found.setdefault(normal(target.path), target)
    return list(found.values())


def _searched(folder: PurePath) -> Iterator[Target]:
    for here, folders, names in walk(folder):
        entries = [*(Entry(name, False) for name in names), *(Entry(name, True) for name in folders)]
        if folder_container(locate_folder(here), entries) is not None:
            yield Target(str(here), here)
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if not any(name in KNOWN for name in names) and is_joined(locate_folder(here)):
            yield Target(str(here), here)
            folders.clear()
            continue
        for name in sorted(names):
            path = here / name
            if _looks_like_one(path):
                yield _target_of(path, found=True)


def _looks_like_one(path: PurePath) -> bool:
    """True for a file that has the name of a checkpoint, and, where other files have such names too, its content."""
    if path.name.startswith(".") or not path.name.endswith((*endings(), INDEX_ENDING)):
        return False
    if (
        not path.name.endswith((*vague_endings(), INDEX_ENDING))
        or path.name in KNOWN
        or SHARD_NAME.fullmatch(path.name)
    ):
        return True
    try:
        with only_looking(), locate_file(path).open() as file:
            if file.size >= len(_LFS) and file.read(0, len(_LFS)) == _LFS:
                return True
            return (sniff(file) is INDEX) == path.name.endswith(INDEX_ENDING)
    except ChangedError:
        raise
    except CkptError:  # .bin is anything
        return False


def _target_of(path: PurePath, *, found: bool = False) -> Target:
    """The checkpoint that a file is, or is a shard of."""
    match = SHARD_NAME.fullmatch(path.name)
    if match is None or int(match["count"]) < 2 or not path.name.endswith(endings()):
        return Target(str(path), path, is_companion=found and _is_companion(path.name))
    index = path.with_name(f"{match['stem']}{match['suffix']}{INDEX_ENDING}")
    if is_file(index):
        return Target(str(index), index)
    group = [name for name in _names_beside(path) if _belong(path.name, name)]
    first = path.with_name(group[0])
    return Target(str(first), first, tuple(group))


def _names_beside(path: PurePath) -> list[str]:
    """The names in the folder of a file; its own alone where no folder can be listed, as on a web server."""
    try:
        return entry_names(path.parent)
    except CkptError:
        return [path.name]


def _belong(name: str, other: str) -> bool:
    """True if two file names are shards of one checkpoint."""
    one, two = SHARD_NAME.fullmatch(name), SHARD_NAME.fullmatch(other)
    same = ("stem", "count", "suffix")
    return one is not None and two is not None and one.group(*same) == two.group(*same)
