"""torch.distributed checkpoints as safetensors: every rank's pieces in files of its own, ``shard-00001-model-...``.

Each file states where its pieces begin in their tensors; nothing states how large the tensors are, or how many ranks
there were. Sizes follow from the piece that reaches furthest: a last rank whose files are all missing cannot be seen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ckptool.core.bytes import Folder
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import CkptError, UnreadableError, UsageError
from ckptool.core.format import Format
from ckptool.core.observations import Observation, RanksNotStated
from ckptool.core.ranks import Ranks
from ckptool.core.spec import TensorSpec, short_spec
from ckptool.core.tensor import Tensor
from ckptool.formats.pickle.objects import Dict
from ckptool.formats.ranks.cover import TooManyError, overlap, uncovered
from ckptool.formats.ranks.held import are_equal
from ckptool.formats.ranks.names import PIECES_FILE, lacks, listed
from ckptool.formats.ranks.runs import in_runs
from ckptool.formats.ranks.stand_ins import Joined, StandIns, joined_checkpoint
from ckptool.formats.safetensors import open_safetensors
from ckptool.formats.torch.view import ints_of

SHARDING = "DCP_SHARDING_INFO"
MAX_FILES = 200_000
"""Most files that the names of a folder may count up to."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A piece of a tensor: where it begins in it, and its elements."""

    at: tuple[int, ...]
    tensor: Tensor
    file: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape


def differing_numbers(whole: Checkpoint, folder: Folder) -> list[str]:
    """The single numbers that differ between whole files and the pieces in a folder, of which torch made them.

    torch 2.13 writes 0 for every tensor without dimensions. Pieces that cannot be joined tell nothing.
    """
    try:
        pieces = open_ranks(folder)
        pairs = [(key, tensor, whole.get(key)) for key, tensor in pieces.items() if not tensor.shape]
        return [key for key, piece, other in pairs if other is not None and are_equal(piece, other) is False]
    except CkptError:
        return []


def open_ranks(folder: Folder, select: str | None = None) -> Checkpoint:
    """Open the pieces of all ranks as whole tensors.

    Raises:
        UnreadableError: a file is missing or damaged, or the pieces leave a hole or overlap.
        UsageError: `select` is given; the format has no nested dicts.
    """
    if select is not None:
        raise UsageError(
            f"{folder.path} holds safetensors files, which hold one flat set of tensors: nothing to select"
        )
    names = _checked_names(folder, [entry.name for entry in folder.entries()])
    sources = [folder.open(name) for name in names]
    pieces: dict[str, list[_Piece]] = {}
    observations: list[Observation] = []
    for source in sources:
        shard = open_safetensors(source)
        observations += shard.observations
        places = _places(shard)
        for key, tensor in shard.items():
            if key not in places:
                raise UnreadableError(
                    f"{source.path} does not say where its piece of {key} belongs", path=source.path, key=key
                )
            if len(places[key]) != len(tensor.shape):
                raise UnreadableError(
                    f"{source.path} places {key}, which has {len(tensor.shape)} axes, by {len(places[key])}",
                    path=source.path,
                    key=key,
                )
            pieces.setdefault(key, []).append(_Piece(places[key], tensor, source.name))
    stand_ins = StandIns(sources[0])
    whole = [(key, stand_ins.of(_whole(folder, key, found))) for key, found in pieces.items()]
    count = max(int(match["rank"]) for match in map(PIECES_FILE.fullmatch, names) if match is not None)
    in_pieces = sum(len(found) > 1 for found in pieces.values())
    return joined_checkpoint(
        Joined(
            path=folder.path,
            format=Format("torch.distributed safetensors", ranks=count),
            root=Dict([*whole]),
            stand_ins=stand_ins,
            files=tuple(sources),
            observations=(*dict.fromkeys(observations), RanksNotStated(count)),
            ranks=Ranks(count, placements={"in pieces": in_pieces}),
        ),
        None,
    )


def _checked_names(folder: Folder, names: Sequence[str]) -> list[str]:
    """The files, by rank and index; there is one of each rank for each index."""
    found: dict[tuple[int, int], str] = {}
    counts: dict[str, int] = {}
    for name in names:
        match = PIECES_FILE.fullmatch(name)
        if match is None:
            continue
        counts[name] = int(match["count"])
        found[int(match["rank"]), int(match["index"])] = name
    if len(set(counts.values())) > 1 or len(found) < len(counts):
        raise UnreadableError(
            f"{folder.path} holds files of two saves: {', '.join(sorted(counts)[:: max(1, len(counts) - 1)])}",
            hint="remove those of the older one",
            path=folder.path,
        )
    ranks = sorted({rank for rank, _ in found})
    last, count = ranks[-1], next(iter(counts.values()))
    if last * count > MAX_FILES:
        raise UnreadableError(f"{folder.path} names more than {MAX_FILES:,} files", path=folder.path)
    first = 0 if ranks[0] == 0 else 1
    width = len(re.split(r"-", next(iter(counts)))[1])
    absent = [rank for rank in range(first, last + 1) if rank not in ranks]
    if absent:
        like = re.sub(r"^shard-\d+", f"shard-{{:0{width}}}", next(iter(counts)))
        raise lacks(folder.path, absent, last, like)
    indexes = {index for _, index in found}
    holes = [(rank, index) for rank in ranks for index in range(1, count + 1) if (rank, index) not in found]
    if holes:
        absent_names = [f"shard-{r:0{width}}-model-{i:0{width}}-of-{count:0{width}}.safetensors" for r, i in holes]
        who = f"rank {holes[0][0]}" if len(holes) == 1 else f"{len({r for r, _ in holes})} ranks"
        raise UnreadableError(
            f"{folder.path} lacks files of {who}: {listed(absent_names)}",
            hint=f"every rank wrote {max(indexes)} files: copy all of them from where the checkpoint was saved",
            path=folder.path / absent_names[0],
        )
    return [found[place] for place in sorted(found)]


def _places(shard: Checkpoint) -> Mapping[str, tuple[int, ...]]:
    """Where each piece of a file begins in its tensor."""
    text = shard.metadata.get(SHARDING)
    try:
        stated = json.loads(text) if text is not None else None
    except (ValueError, RecursionError):
        stated = None
    if not isinstance(stated, dict):
        raise UnreadableError(
            f"{shard.path} does not say where its pieces belong: it has no {SHARDING}",
            hint="it is damaged, or another program wrote it",
            path=shard.path,
        )
    places = {}
    for key, info in stated.items():
        offsets = info.get("saved_offsets") if isinstance(info, dict) else None
        if isinstance(offsets, list):
            places[key] = ints_of(offsets, key)
    return places


def _whole(folder: Folder, key: str, pieces: Sequence[_Piece]) -> Tensor:
    """A tensor from its pieces."""
    first = pieces[0]
    for piece in pieces:
        if (piece.tensor.dtype, len(piece.shape)) != (first.tensor.dtype, len(first.shape)):
            ours, theirs = (short_spec(each.tensor.dtype, each.shape) for each in (first, piece))
            raise UnreadableError(
                f"the pieces of {key} differ: {first.file} has {ours}, {piece.file} has {theirs}",
                path=folder.path / piece.file,
                key=key,
            )
    shape = tuple(max(p.at[axis] + p.shape[axis] for p in pieces) for axis in range(len(first.shape)))
    try:
        both = overlap(pieces)
    except TooManyError:
        raise UnreadableError(f"{key} is cut into too many pieces to check", path=folder.path, key=key) from None
    if both is not None:
        raise UnreadableError(
            f"the pieces of {key} in {both[0].file} and {both[1].file} overlap",
            hint="the files are not of one save: copy the folder again",
            path=folder.path / both[1].file,
            key=key,
        )
    if left := uncovered(pieces, shape):
        raise UnreadableError(
            f"{left:,} elements of {key} are in no file: a rank's file is missing, or of another save",
            hint="copy the files of all ranks from where the checkpoint was saved",
            path=folder.path,
            key=key,
        )
    if len(pieces) == 1:
        return first.tensor
    boxes = tuple(replace(piece.tensor.pieces[0], at=piece.at if any(piece.at) else ()) for piece in pieces)
    return in_runs(Tensor(TensorSpec(key, first.tensor.dtype, shape), boxes))
