from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath

from ckptool.commands.checks import Rule
from ckptool.commands.checks.case import Case, Found, columns
from ckptool.core.counts import many
from ckptool.core.errors import ChangedError, CkptError
from ckptool.formats.registry import INDEX_ENDING, open_file
from ckptool.formats.sharded import SHARD_NAME, Index, read_index
from ckptool.storage.locate import locate_file
from ckptool.storage.paths import SEPARATORS, entry_names, is_file, is_named

RULE = Rule("shards", allows=("shards",), anyway=True, order=30)


def shards(case: Case) -> Iterator[Found]:
    """A sharded checkpoint's index and files do not agree.

    Found: shards that the index names and that are not there; keys that are not in the shard that the index names; keys
    that are in a shard and not in the index, which no loader loads (a warning); files named like shards that no index
    mentions, left over from another version; a total_size that is not the size of the tensors (a warning); a gap in the
    numbers of shards without an index.

    Why: loaders trust the index. A stale shard beside a new index is loaded in part, or costs a download for nothing.

    What to do: download or write the folder again as a whole, and remove files that belong to no index.

    Policy: it always runs. File names of orphans can be excused.

        allow.shards = ["old-*.safetensors"]
    """
    if case.target.path.name.endswith(INDEX_ENDING):
        try:
            index = read_index(locate_file(case.target.path))
        except ChangedError:
            raise
        except CkptError:  # told by readable
            return
        yield from _against_files(case, index)
        yield from _orphans(case, index)


def _against_files(case: Case, index: Index) -> Iterator[Found]:
    folder = index.path.parent
    names = sorted(set(index.weight_map.values()))
    if any(not SEPARATORS.isdisjoint(name) or name in ("", ".", "..") or "\0" in name for name in names):
        return  # an index that reaches outside its folder is not followed; told by readable
    missing = [name for name in names if not is_named(folder / name)]
    if missing:
        yield Found(
            f"{len(missing):,} of {many(len(names), 'shard')} are missing",
            details=tuple(missing),
            help="download what is missing",
            short=f"{len(missing):,} missing",
        )
        case.is_explained = True
    keys = {name: found for name in names if (found := _keys(folder / name)) is not None}
    wrong = [key for key, name in index.weight_map.items() if name in keys and key not in keys[name]]
    if wrong:
        rows = ((key, f"the index says {index.weight_map[key]}", _where(key, keys)) for key in wrong)
        yield Found(
            f"{many(len(wrong), 'key is', 'keys are')} not in the shard that the index names",
            tuple(wrong),
            columns(rows),
            "the index and the shards are not of one checkpoint: get them again",
            short=f"{len(wrong):,} astray",
        )
        case.is_explained = True
    unlisted = [key for shard in keys.values() for key in shard if key not in index.weight_map]
    if unlisted:
        yield Found(
            f"{many(len(unlisted), 'tensor')} of the shards {'is' if len(unlisted) == 1 else 'are'} not in the index",
            tuple(unlisted),
            tuple(unlisted),
            help="loaders leave them out; write the index again",
            level="warning",
            short=f"{len(unlisted):,} unlisted",
        )
    if not missing and not wrong and index.total_size is not None:
        yield from _size(case, index, keys)


def _size(case: Case, index: Index, keys: Mapping[str, Mapping[str, int]]) -> Iterator[Found]:
    nbytes = sum(keys[name][key] for key, name in index.weight_map.items() if name in keys)
    if len(keys) == len(set(index.weight_map.values())) and nbytes != index.total_size:
        yield Found(
            f"the index states a total_size of {many(index.total_size or 0, 'byte')}, its tensors have {nbytes:,}",
            help="some loaders plan memory by it; write the index again",
            level="warning",
            short="total_size",
        )


def _orphans(case: Case, index: Index) -> Iterator[Found]:
    """Files beside the index that are called like shards, and are in no index."""
    folder = index.path.parent
    names = entry_names(folder)
    named = set(index.weight_map.values())
    for other in names:
        if other.endswith(INDEX_ENDING) and other != index.path.name:
            try:
                named |= set(read_index(locate_file(folder / other)).weight_map.values())
            except CkptError:  # a checkpoint of its own, which tells it
                continue
    suffixes = {PurePath(name).suffix for name in index.weight_map.values()}
    like = [name for name in names if SHARD_NAME.fullmatch(name) and PurePath(name).suffix in suffixes]
    orphans = case.refused("shards", (name for name in like if name not in named))
    if orphans:
        yield Found(
            f"{many(len(orphans), 'file is', 'files are')} called like a shard, and in no index",
            details=tuple(orphans),
            help=_way(index, orphans),
            short=many(len(orphans), "orphan"),
        )


def _way(index: Index, orphans: Sequence[str]) -> str:
    """What to do: the index may be the one that is wrong."""
    counts = {match["count"] for name in orphans if (match := SHARD_NAME.fullmatch(name))}
    named = {match["count"] for name in index.weight_map.values() if (match := SHARD_NAME.fullmatch(name))}
    if counts.isdisjoint(named) and not all(is_file(index.path.parent / name) for name in index.weight_map.values()):
        return "the index is of another split; download the index that belongs to these shards"
    return "remove what is left over from another version"


def _keys(path: PurePath) -> dict[str, int] | None:
    """The keys of a shard with their bytes; None if it cannot be opened, which readable tells."""
    try:
        return {key: tensor.nbytes for key, tensor in open_file(locate_file(path)).items()}
    except ChangedError:
        raise
    except CkptError:
        return None


def _where(key: str, keys: Mapping[str, Mapping[str, int]]) -> str:
    found = next((name for name, shard in keys.items() if key in shard), None)
    return f"it is in {found}" if found else "no shard has it"
