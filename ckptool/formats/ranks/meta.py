"""Meta's own files of Llama models: ``consolidated.00.pth`` and on, one for each model-parallel rank."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from ckptool.core.bytes import Folder
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import UnreadableError, UsageError
from ckptool.core.format import Format
from ckptool.core.observations import ReplicasDiffer
from ckptool.core.ranks import Ranks
from ckptool.core.tensor import Tensor
from ckptool.formats.pickle.objects import Call, Dict
from ckptool.formats.ranks.by_axis import WHOLE, Shard, joined
from ckptool.formats.ranks.files import RankFile, opened, read_rank
from ckptool.formats.ranks.names import CONSOLIDATED_FILE, lacks
from ckptool.formats.ranks.stand_ins import Joined, StandIns, joined_checkpoint

_SETTINGS = "params.json"
_MOST = 1 << 20
_AXES = {
    **dict.fromkeys(("wq", "wk", "wv", "w1", "w3", "output"), 0),
    **dict.fromkeys(("wo", "w2"), 1),
}
_EMBEDDING = "tok_embeddings"


def open_ranks(folder: Folder, select: str | None = None) -> Checkpoint:
    """Open the files of all model-parallel ranks as one checkpoint.

    Raises:
        UnreadableError: a rank is missing, or the parts of a tensor do not fit together; or nothing says how a tensor
            was cut.
        UsageError: `select` is given; the files hold one flat dict.
    """
    if select not in (None, "", "."):
        raise UsageError(f"{folder.path} holds files of one flat dict of weights: nothing to select")
    numbers = {
        int(match["rank"]): match[0] for entry in folder.entries() if (match := CONSOLIDATED_FILE.fullmatch(entry.name))
    }
    world = max(numbers) + 1
    absent = [rank for rank in range(world) if rank not in numbers]
    if absent:
        raise lacks(folder.path, absent, world, "consolidated.{:02}.pth")
    files = [read_rank(folder.open(numbers[rank]), f"rank {rank} of {world}") for rank in sorted(numbers)]
    settings = _settings(folder)
    stand_ins = StandIns(files[0].source)
    roots = [file.entries(file.root) for file in files]
    _check_keys(files, roots)
    items: list[tuple[object, object]] = []
    differing: list[str] = []
    for key, node in roots[0].items():
        tensor = files[0].tensor(node, key)
        if tensor is None:
            items.append((key, stand_ins.adopt(node, files[0].archive)))
            continue
        shards = [_shard(file, root[key], key) for file, root in zip(files, roots, strict=True)]
        axis = _axis(key, [shard.tensor for shard in shards], settings, folder)
        whole = joined(folder.path, key, shards, axis, differing)
        items.append((key, stand_ins.of(whole)))
    odd = [seen for file in files for seen in file.archive.observations]
    root = files[0].root
    new: object = Dict(items)
    if type(root) is Call and type(root.args) is tuple and not root.args:
        new = Call(root.how, root.fn, root.args, root.kwargs)
        new.items = items
    return joined_checkpoint(
        Joined(
            path=folder.path,
            format=Format("Meta consolidated", is_pickle=True, ranks=world),
            root=new,
            stand_ins=stand_ins,
            files=tuple(file.source for file in files),
            globals=tuple(file.archive.loaded.globals for file in files),
            observations=(*odd, *((ReplicasDiffer(tuple(differing), 0),) if differing else ())),
            ranks=Ranks(world, (("tp", world),)),
            faithful=all(file.archive.loaded.faithful for file in files),
        ),
        None,
    )


def _shard(file: RankFile, node: object, key: str) -> Shard:
    tensor = file.tensor(node, key)
    if tensor is None:
        raise file.bad(f"holds no plain tensor for {key}", key)
    return Shard(file.who, file.name, tensor)


def _check_keys(files: Sequence[RankFile], roots: Sequence[Mapping[str, object]]) -> None:
    for file, root in zip(files, roots, strict=True):
        if root.keys() != roots[0].keys():
            key = next(iter(root.keys() ^ roots[0].keys()))
            raise UnreadableError(
                f"{key} is in only one of {files[0].name} and {file.name}",
                hint="the files are not of one checkpoint: download them again",
                path=file.source.path,
                key=key,
            )


def _axis(key: str, tensors: Sequence[Tensor], settings: Mapping[str, object], folder: Folder) -> int | None:
    """Along which axis a tensor of Llama was cut; None for a name that is not Llama's."""
    parts = key.split(".")
    module = parts[-2] if len(parts) > 1 else ""
    if parts[-1] == "freqs" or module.endswith("norm"):
        return WHOLE
    if module == _EMBEDDING:
        return _embedding_axis(key, tensors, settings, folder)
    return _AXES.get(module)


def _embedding_axis(key: str, tensors: Sequence[Tensor], settings: Mapping[str, object], folder: Folder) -> int:
    """Llama 1 and 2 cut the embedding's columns, Llama 3 its rows; the sizes in params.json tell."""
    rows, columns = (*tensors[0].shape, 0, 0)[:2]
    world = len(tensors)
    if settings.get("dim") == columns * world or settings.get("vocab_size") == rows:
        return 1
    if settings.get("dim") == columns or settings.get("vocab_size") == rows * world:
        return 0
    raise UnreadableError(
        f"nothing says along which axis {key} was cut: {list(tensors[0].shape)} on each of {world} ranks",
        hint=f"copy {_SETTINGS} along, which states dim and vocab_size",
        path=folder.path,
        key=key,
    )


def _settings(folder: Folder) -> Mapping[str, object]:
    source = opened(folder, _SETTINGS)
    if source is None or source.size > _MOST:
        return {}
    with source.open() as file:
        text = file.read(0, file.size)
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}
