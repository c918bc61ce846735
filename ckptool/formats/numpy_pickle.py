"""Plain pickles of numpy arrays, as detectron2's model zoo, Paddle (``.pdparams``) and others write them.

The pickle is read inertly, without its arrays: their bytes stay in the file.
"""

from __future__ import annotations

from ckptool.core.bytes import ByteSource
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import UnreadableError, naming
from ckptool.core.format import Format
from ckptool.core.observations import TrailingBytes
from ckptool.formats.pickle.loading import load_from
from ckptool.formats.pickle.objects import Persistent
from ckptool.formats.torch.arrays import array_ref
from ckptool.formats.torch.storage import ArrayBytes, StorageRef
from ckptool.formats.torch.tree import interpret

NUMPY_PICKLE = Format("numpy pickle", is_pickle=True)


def open_numpy_pickle(source: ByteSource, select: str | None = None) -> Checkpoint:
    """Open a pickle of numpy arrays.

    Args:
        source: the file.
        select: dotted path of the dict to take as the weights; None to choose.

    Raises:
        UnreadableError: it is damaged, or holds no array of numbers.
        UsageError: nothing is under `select`.
    """

    def storage_of(node: Persistent | ArrayBytes, key: str) -> StorageRef:
        if isinstance(node, ArrayBytes):
            return array_ref(source, node, key)
        raise UnreadableError(f"tensor {key} refers to bytes outside of the pickle", key=key)

    with naming(source.path):
        loaded = load_from(source, 0, source.size)
        tree = interpret(loaded.value, storage_of, select, nbytes=loaded.nbytes, faithful=loaded.faithful)
    if not tree.tensors and not tree.other_tensors:
        raise UnreadableError(
            f"{source.path} is a Python pickle that holds no numpy arrays, and not one that torch.save wrote",
            hint="load it in Python where you trust it, and torch.save its tensors",
            path=source.path,
        )
    trailing = source.size - loaded.end
    return Checkpoint(
        path=source.path,
        format=NUMPY_PICKLE,
        tensors=tree.tensors,
        files=(source,),
        nbytes=source.size,
        selection=tree.selection,
        extras=tree.extras,
        other_tensors=tree.other_tensors,
        globals=loaded.globals,
        protocol=loaded.protocol,
        observations=(*tree.observations, *((TrailingBytes(trailing, "pickle"),) if trailing else ())),
        tree=tree.frame,
    )
