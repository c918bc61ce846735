"""Plain pickles of numpy arrays, as detectron2's model zoo, Paddle (``.pdparams``) and others write them.

The pickle is read inertly, without its arrays: their bytes stay in the file.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from ckptool.core.bytes import ByteSource
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import UnreadableError, naming
from ckptool.core.format import Format
from ckptool.core.observations import TrailingBytes
from ckptool.core.spec import TensorSpec
from ckptool.core.tensor import Piece, Tensor
from ckptool.formats.pickle.arrays import spell_scalar
from ckptool.formats.pickle.loading import load_from
from ckptool.formats.pickle.objects import Dict, Persistent
from ckptool.formats.torch.arrays import array_ref
from ckptool.formats.torch.edit import each_below
from ckptool.formats.torch.storage import ArrayBytes, StorageRef
from ckptool.formats.torch.tensor import is_numpy
from ckptool.formats.torch.tree import Tree, interpret
from ckptool.formats.torch.view import ints_of

NUMPY_PICKLE = Format("numpy pickle", is_pickle=True)
_CUT = "UnpackBigParamInfor@@"


def _spell_scalars(root: object) -> None:
    """Spell numpy's scalars beside arrays, in one dict, as arrays without axes: ``arrays[0][()]`` is such a scalar."""
    for node in each_below([root]):
        if type(node) is Dict and any(is_numpy(value) for _, value in node.items):
            for _, value in node.items:
                spell_scalar(value)


def _joined(tree: Tree, root: object) -> Tree:
    """The tree with whole tensors where Paddle has cut large ones into slices (protocols 2 and 3).

    Source: `_unpack_saved_dict` in paddle/framework/io_utils.py: flat slices ``KEY@@.0``, ``KEY@@.1``, and beside them
    the shape and the slices of each key.
    """
    entries = dict(each for each in root.items if type(each[0]) is str) if type(root) is Dict else {}
    cut = entries.get(_CUT)
    if type(cut) is not Dict:
        return tree
    tensors = dict(tree.tensors)
    for key, facts in cut.items:
        stated = dict(each for each in facts.items if type(each[0]) is str) if type(facts) is Dict else {}
        names = stated.get("slices")
        if type(key) is not str or type(names) is not list or not all(type(name) is str for name in names):
            raise _bad_cut("an entry that is not one")
        found = [tensors.pop(name) for name in names if name in tensors]
        parts = [part for part in found if len(part.pieces) == len(part.shape) == 1]
        if len(parts) != len(names) or len({part.dtype for part in parts}) != 1:
            raise _bad_cut(f"slices of {key} that are not there, or not flat")
        shape = ints_of(stated.get("OriginShape"), key)
        pieces, done = [], 0
        for part in parts:
            pieces.append(Piece.flat(part.pieces[0].storage, 0, done, part.elements))
            done += part.elements
        if done != prod(shape):
            raise _bad_cut(f"{done:,} elements for {key}, and a shape of {prod(shape):,}")
        tensors[key] = Tensor(TensorSpec(key, parts[0].dtype, shape), tuple(pieces))
    extras = tuple(extra for extra in tree.extras if extra.name != _CUT)
    return replace(tree, tensors=tensors, extras=extras, frame=None)


def _bad_cut(what: str) -> UnreadableError:
    return UnreadableError(f"the list of large tensors that Paddle cut ({_CUT}) has {what}", hint="get the file again")


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
        _spell_scalars(loaded.value)
        tree = interpret(loaded.value, storage_of, select, nbytes=loaded.nbytes, faithful=loaded.faithful)
        tree = _joined(tree, loaded.value)
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
