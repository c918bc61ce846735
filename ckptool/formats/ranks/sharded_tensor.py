"""ShardedTensors, as FSDP1 saves them: each rank's file lists the shards of all ranks, and holds its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ckptool.core.checkpoint import GlobalUse
from ckptool.formats.pickle.objects import Call, Global
from ckptool.formats.ranks.dtensor import Part, wrapper
from ckptool.formats.ranks.files import RankFile
from ckptool.formats.ranks.parts import SHARDED_TENSORS
from ckptool.formats.torch.view import ints_of

FLAT = "_flat_param"
"""The last part of the key of a parameter that FSDP made of several."""


def read_sharded(file: RankFile, node: Call, key: str) -> tuple[list[Part], int]:
    """One rank's shards of a ShardedTensor, and the number of ranks.

    Raises:
        UnreadableError: it is a flat parameter, whose parts have no names or shapes; or is of a form that torch does
            not write.
    """
    dtype, whole, state = wrapper(file, node, key)
    fields = state if type(state) is tuple and len(state) == 5 else None
    if fields is None or type(fields[0]) is not list:
        raise file.bad(f"holds a ShardedTensor for {key} of a form that torch does not write", key)
    if key.rpartition(".")[2].endswith(FLAT) or key.rpartition(".")[2] == FLAT[1:]:
        raise file.bad(
            f"holds {key}, a flat parameter of FSDP: names and shapes of the parameters in it are not in the file",
            key,
            hint="it was saved with LOCAL_STATE_DICT: load it with the model under FSDP, and save FULL_STATE_DICT or "
            "SHARDED_STATE_DICT",
        )
    process = file.state(fields[2])
    rank, world = process.get("global_rank"), process.get("global_world_size")
    listed = file.state(fields[1]).get("shards_metadata")
    owners = {}
    for each in listed if type(listed) is list else []:
        place = _metadata(file, each, key)
        if place is not None:
            owners[place[0]] = place[2]
    if type(rank) is not int or type(world) is not int:
        raise file.bad(f"does not say which rank's shard of {key} it holds", key)
    parts = []
    for shard in fields[0]:
        held = file.state(shard)
        place = _metadata(file, held.get("metadata"), key)
        local = file.tensor(held.get("tensor"), key)
        if place is None or local is None or local.shape != place[1] or local.dtype != dtype:
            raise file.bad(f"holds a shard of {key} that is not what its metadata says", key)
        parts.append(Part(rank, dtype, whole, place[0], place[1], local, "ShardedTensor", owners))
    if not parts:
        zeros = (0,) * len(whole)
        parts.append(Part(rank, dtype, whole, zeros, zeros, None, "ShardedTensor", owners))
    return parts, world


def is_harmless_getattr(call: Call) -> bool:
    """True for ``getattr(ShardedTensor, "ProcessGroupState")``, with which every ShardedTensor names a class."""
    args = call.args
    if type(args) is not tuple or len(args) != 2:
        return False
    return args[1] == "ProcessGroupState" and getattr(args[0], "qualified", None) in SHARDED_TENSORS


def _metadata(file: RankFile, node: object, key: str) -> tuple[tuple[int, ...], tuple[int, ...], int] | None:
    """(offsets, sizes, rank) of a shard."""
    held = file.state(node)
    if "shard_offsets" not in held or "shard_sizes" not in held:
        return None
    rank = file.state(held.get("placement")).get("_rank")
    at, sizes = ints_of(held["shard_offsets"], key), ints_of(held["shard_sizes"], key)
    return at, sizes, rank if type(rank) is int else -1


def getattrs_in(node: Call) -> Iterator[Call]:
    """The calls of getattr in a ShardedTensor, which stand where its group of processes is."""
    args = node.args
    state = args[3] if type(args) is tuple and len(args) > 3 else None
    for part in state if type(state) is tuple else ():
        fn = part.fn if type(part) is Call else None
        if type(fn) is Call and type(fn.fn) is Global and fn.fn.name == "getattr":
            yield fn


def without_harmless(uses: tuple[GlobalUse, ...], getattrs: Sequence[Call]) -> tuple[GlobalUse, ...]:
    """What a pickle names, without the getattr of ShardedTensors if it is called for nothing else."""
    harmless = {id(call) for call in getattrs if is_harmless_getattr(call)}
    return tuple(use for use in uses if not (use.name.endswith("getattr") and use.calls and use.calls == len(harmless)))
