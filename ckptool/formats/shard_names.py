"""Names of the files in a folder of shards, and which files of an existing folder a new output replaces."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import PurePath

from ckptool.core.errors import CkptError
from ckptool.formats.sharded import read_index
from ckptool.storage.locate import locate_file
from ckptool.storage.paths import entry_names, exists, is_address, is_file, link_target
from ckptool.storage.touched import only_looking

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"model-\d{5,}-of-\d{5,}\.safetensors", re.ASCII)


def shard_name(number: int, count: int) -> str:
    """The name of one of several shards, counted from 1.

    Example:
        >>> shard_name(1, 4)
        'model-00001-of-00004.safetensors'
    """
    return f"model-{number:05d}-of-{count:05d}.safetensors"


def is_shard_name(name: str) -> bool:
    """True for a name that a file of an output may have.

    Example:
        >>> [is_shard_name(name) for name in (shard_name(2, 4), "model.safetensors.index.json", "optimizer.bin")]
        [True, True, False]
    """
    return name in (SINGLE, INDEX) or _SHARD.fullmatch(name) is not None


def replaceable(folder: PurePath) -> frozenset[str]:
    """The files of a folder that an earlier output left there: by their names, or because its index names them."""
    there = entry_names(folder) if exists(folder) else []
    is_far = is_address(folder)  # where everything but a folder is a file, and each question costs
    names = {name for name in there if is_far or link_target(folder / name) or is_file(folder / name)}
    ours = {name for name in names if is_shard_name(name)}
    if INDEX in ours:
        with suppress(CkptError), only_looking():  # a damaged index names nothing; it is replaced itself
            shards = names.intersection(read_index(locate_file(folder / INDEX)).weight_map.values())
            ours |= {name for name in shards if name.endswith(".safetensors")}
    return frozenset(ours)
