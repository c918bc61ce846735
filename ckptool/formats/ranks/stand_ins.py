"""Stand-ins: what takes a whole tensor's place among inert objects where its bytes lie in the files of several ranks.

The nested object that was saved is put together again with a stand-in for every tensor. Which of it are the weights is
then decided as for torch files, and a torch output can be written from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath

from ckptool.core.bytes import ByteSource
from ckptool.core.checkpoint import Checkpoint, GlobalUse
from ckptool.core.format import Format
from ckptool.core.observations import Observation
from ckptool.core.ranks import Ranks
from ckptool.core.spec import TensorSpec
from ckptool.core.tensor import Storage, Tensor
from ckptool.core.views import c_strides
from ckptool.formats.pickle.loading import merge_globals
from ckptool.formats.pickle.objects import Call, Dict, Global, Persistent
from ckptool.formats.torch.arrays import array_ref
from ckptool.formats.torch.edit import children
from ckptool.formats.torch.storage import ArrayBytes, StorageRef
from ckptool.formats.torch.tree import interpret
from ckptool.formats.torch.zip import Archive

_STAND_IN = ("the storage of a stand-in",)  # known by identity: no file can make it
_ENDLESS = 1 << 62
_STEPS = 64  # bytes of a pickle that a stand-in is worth


def is_stand_in(node: object) -> bool:
    """True for an object that `StandIns` made in place of a tensor."""
    if type(node) is not Call or type(node.args) is not tuple or not node.args:
        return False
    return type(node.args[0]) is Persistent and node.args[0].pid is _STAND_IN


@dataclass(slots=True)
class StandIns:
    """Makes stand-ins, and knows the tensors behind them.

    Args:
        file: any file of the checkpoint.

    Attributes:
        nbytes: bytes of the pickles of adopted objects and what stand-ins add, for the budget of a walk through them.
    """

    file: ByteSource
    nbytes: int = 0
    _tensors: dict[int, Tensor] = field(default_factory=dict)  # by the id of the stand-in
    _archives: dict[int, Archive] = field(default_factory=dict)  # by the id of a reference to a storage
    _kept: list[object] = field(default_factory=list)  # so that no id is used twice

    def of(self, tensor: Tensor) -> object:
        """A new stand-in for a tensor."""
        strides, dtype = c_strides(tensor.shape), Global("torch", tensor.dtype)
        args = (Persistent(_STAND_IN), 0, tensor.shape, strides, False, Dict(), dtype)
        node = Call("reduce", Global("torch._utils", "_rebuild_tensor_v3"), args)
        self._tensors[id(node)] = tensor
        self._kept.append(node)
        self.nbytes += _STEPS
        return node

    def adopt(self, root: object, archive: Archive) -> object:
        """Note the archive in which the storages lie that an object refers to; gives the object."""
        self._kept.append(root)
        self.nbytes += archive.pickle_nbytes
        seen: set[int] = set()
        stack = [root]
        while stack:
            node = stack.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if type(node) is Persistent:
                self._archives[id(node)] = archive
            stack.extend(children(node))
        return root

    def storage_of(self, node: Persistent | ArrayBytes, key: str) -> StorageRef:
        """The bytes of a stand-in, which are nowhere, or of a tensor of an adopted object."""
        if isinstance(node, ArrayBytes):
            return array_ref(self.file, node, key)
        if node.pid is _STAND_IN:
            return StorageRef(Storage(self.file, 0, _ENDLESS), None)
        return self._archives[id(node)].storage_of(node, key)

    def shape_of(self, node: object) -> tuple[int, ...] | None:
        """The shape of the tensor behind a stand-in; None for any other object."""
        tensor = self._tensors.get(id(node))
        return tensor.shape if tensor is not None else None

    def real(self, tensors: Mapping[str, Tensor], *, keep_nodes: bool = False) -> dict[str, Tensor]:
        """The tensors behind stand-ins, under the keys that the stand-ins got.

        Args:
            tensors: tensors of a walk through the objects.
            keep_nodes: True for tensors that a torch output finds among the objects beside its weights.
        """
        found = {}
        for key, tensor in tensors.items():
            behind = self._tensors.get(id(tensor.node))
            if behind is None:
                found[key] = tensor
            else:
                spec = TensorSpec(key, behind.dtype, behind.shape)
                found[key] = replace(behind, spec=spec, node=tensor.node if keep_nodes else None)
        return found


@dataclass(frozen=True, slots=True)
class Joined:
    """What a reader of rank files found.

    Attributes:
        path: the folder.
        format: the container.
        root: the nested object, with stand-ins.
        stand_ins: what made them.
        files: the files that hold the bytes.
        indexes: files that say what is where.
        globals: what the pickles name.
        observations: what the reader noticed.
        ranks: the ranks.
        faithful: False if a pickle did more than its objects say.
    """

    path: PurePath
    format: Format
    root: object
    stand_ins: StandIns
    files: tuple[ByteSource, ...]
    indexes: tuple[ByteSource, ...] = ()
    globals: tuple[tuple[GlobalUse, ...], ...] = ()
    observations: tuple[Observation, ...] = ()
    ranks: Ranks | None = None
    faithful: bool = True


def joined_checkpoint(joined: Joined, select: str | None) -> Checkpoint:
    """The checkpoint of joined rank files, with the weights chosen as for a torch file.

    Raises:
        UsageError: nothing is under `select`.
    """
    stand_ins = joined.stand_ins
    tree = interpret(joined.root, stand_ins.storage_of, select, nbytes=stand_ins.nbytes, faithful=joined.faithful)
    frame = tree.frame if tree.frame is not None and tree.frame.is_flat else None
    return Checkpoint(
        path=joined.path,
        format=joined.format,
        tensors=stand_ins.real(tree.tensors),
        files=joined.files,
        indexes=joined.indexes,
        nbytes=sum(file.size for file in (*joined.indexes, *joined.files)),
        selection=tree.selection,
        extras=tree.extras,
        other_tensors=stand_ins.real(tree.other_tensors, keep_nodes=True),
        module_versions=tree.module_versions,
        globals=merge_globals(*joined.globals),
        observations=(*tree.observations, *joined.observations),
        ranks=joined.ranks,
        tree=frame,
    )
