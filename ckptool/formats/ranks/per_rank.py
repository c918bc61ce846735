"""Folders in which every rank saved its own torch file: DTensors and ShardedTensors become whole tensors.

What the files are called differs (verl, FSDP, a line of one's own); ranks and places are taken from what is in them.
The objects around the tensors are those of the first rank.
"""

from __future__ import annotations

from collections.abc import Sequence

from ckptool.core.bytes import Entry, Folder
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import CkptError, UsageError
from ckptool.core.format import Format
from ckptool.core.observations import NumberedOptimizer
from ckptool.core.ranks import Ranks
from ckptool.formats.pickle.objects import Dict
from ckptool.formats.ranks.files import read_rank
from ckptool.formats.ranks.groups import Group, groups_of, is_optimizer, lone_group, lone_groups
from ckptool.formats.ranks.names import listed
from ckptool.formats.ranks.optimizer import named_optimizers, numbered_optimizers
from ckptool.formats.ranks.parts import DISTRIBUTED
from ckptool.formats.ranks.rank_join import Join
from ckptool.formats.ranks.stand_ins import Joined, joined_checkpoint
from ckptool.storage.touched import only_looking

_MOST_LOOKED_INTO = 8  # groups of files of which some are read
_MOST_TRIED = 3  # files of a group, if the first are damaged


def claims(folder: Folder, entries: Sequence[Entry]) -> bool:
    """True for a folder with torch files, one for each rank, that hold parts of distributed tensors."""
    return bool(_distributed(folder, _names(entries)))


def _names(entries: Sequence[Entry]) -> list[str]:
    return [entry.name for entry in entries if not entry.is_folder]


def _distributed(folder: Folder, names: Sequence[str]) -> list[Group]:
    """The groups of which a file names the classes of distributed tensors."""
    return [group for group in groups_of(names)[:_MOST_LOOKED_INTO] if _names_parts(folder, group)]


def _names_parts(folder: Folder, group: Group) -> bool:
    """True if the pickle of a group's first file that can be read names a class of distributed tensors."""
    for name in list(group.names.values())[:_MOST_TRIED]:
        source = folder.open(name)
        try:
            with only_looking():
                with source.open() as file:
                    if file.size < 4 or file.read(0, 4) != b"PK\x03\x04":
                        continue
                found = read_rank(source, "")
        except CkptError:  # it is damaged, or no torch file: opening it says so
            continue
        return any(use.name in DISTRIBUTED for use in found.archive.loaded.globals)
    return False


def open_ranks(folder: Folder, select: str | None = None) -> Checkpoint:
    """Open the files of all ranks as one checkpoint.

    Raises:
        UnreadableError: a rank is missing or damaged; or the files are of different saves, steps or numbers of ranks.
        UsageError: the folder holds several sets of files, or nothing is under `select`.
    """
    names = _names(folder.entries())
    groups = _distributed(folder, names)
    weights = [group for group in groups if not group.is_beside] or _lone_weights(names, groups) or groups
    if len(weights) > 1:
        weights = [group for group in weights if len(group.names) == len(weights[0].names)]
    if len(weights) > 1:
        sets = listed(group.pattern.format("*") for group in weights)
        raise UsageError(
            f"{folder.path} holds {len(weights)} sets of ranks' files: {sets}",
            hint="move one of them into a folder of its own",
            path=folder.path,
        )
    return _opened(folder, names, Join(folder, weights[0]), select)


def _lone_weights(names: Sequence[str], groups: Sequence[Group]) -> list[Group]:
    """A file of weights whose other ranks' files are missing, beside those of an optimizer that are all there."""
    return [group for each in groups for group in lone_groups(names, each.tail) if not group.is_beside][:1]


def open_lone(folder: Folder, name: str, select: str | None = None) -> Checkpoint:
    """Open a torch file that holds distributed tensors, alone in its folder: it may hold all of them whole.

    Raises:
        UnreadableError: it holds one rank's parts; the message says which ranks are missing.
    """
    return _opened(folder, (), Join(folder, lone_group(name)), select)


def _opened(folder: Folder, names: Sequence[str], model: Join, select: str | None) -> Checkpoint:
    joins, root = [model], model.root
    beside = [group for group in (*groups_of(names), *lone_groups(names, model.group.tail)) if group.is_beside]
    if beside and _is_weights_alone(model):
        items: list[tuple[object, object]] = [("model", root)]
        for group in beside:
            name = "optimizer" if group.is_optimizer else group.stem
            if all(name != key for key, _ in items):
                joins.append(Join(folder, group, model))
                items.append((name, joins[-1].root))
        root = Dict(items)
    root = named_optimizers(root, _parameters(model), model.stand_ins.shape_of)
    return joined_checkpoint(
        Joined(
            path=folder.path,
            format=Format(f"torch files of ranks ({model.kind})", is_pickle=True, ranks=model.world),
            root=root,
            stand_ins=model.stand_ins,
            files=tuple(source for join in joins for source in join.sources),
            globals=tuple(each for join in joins for each in join.globals),
            observations=(
                *(each for join in joins for each in join.observations()),
                *map(NumberedOptimizer, numbered_optimizers(root)),
            ),
            ranks=Ranks(model.world, model.mesh_axes(), model.placements, model.step),
            faithful=all(join.faithful for join in joins),
        ),
        select,
    )


def _parameters(model: Join) -> dict[str, tuple[int, ...]]:
    """The shapes of a model's parameters, tied ones once: buffers are not distributed, so they are not among them."""
    shapes: dict[str, tuple[int, ...]] = {}
    seen: set[object] = set()
    for path, parts in model.parts.items():
        if not is_optimizer(path[0]):
            own = tuple((part.rank, part.local.pieces if part.local is not None else ()) for part in parts)
            if own not in seen:
                shapes[path[-1]] = parts[0].whole
            seen.add(own)
    return shapes


def _is_weights_alone(model: Join) -> bool:
    """True if the files hold weights and nothing around them."""
    return all(len(path) == 1 for path in model.parts)
