"""The objects around the weights of a torch file, kept so that the file can be written again with other weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ckptool.core.tensor import Storage
from ckptool.formats.pickle.objects import Persistent
from ckptool.formats.torch.edit import each_below
from ckptool.formats.torch.storage import StorageOf, is_storage_id
from ckptool.formats.torch.tensor import is_tensor
from ckptool.formats.torch.walk import Pairs, Walk, is_mapping


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A torch file's inert objects.

    Attributes:
        root: everything.
        weights: the object in it that holds the selected tensors.
        storage_of: finds the bytes of a storage.
        is_flat: True if `weights` is a dict whose own entries are the selected tensors, under their keys.
        is_module: True if it is a pickled module, whose `state_dict()` the selected tensors are.
        entries: what a flat dict holds, in order.
        faithful: False if the pickle did more than these objects say; they may not be written again then.
    """

    root: object
    weights: object
    storage_of: StorageOf
    is_flat: bool
    is_module: bool
    entries: Pairs
    faithful: bool = True

    @classmethod
    def around(
        cls, root: object, weights: object, storage_of: StorageOf, walk: Walk, tensors: int, *, faithful: bool = True
    ) -> Frame:
        """The frame of `weights`, from which `tensors` tensors were listed."""
        is_module = walk.is_module(weights)
        pairs = walk.entries(weights) if is_mapping(weights) and not is_module else []
        direct = sum(type(key) is str and is_tensor(child) for key, child in pairs)
        is_flat = bool(pairs) and direct == tensors
        return cls(root, weights, storage_of, is_flat, is_module, pairs if is_flat else [], faithful)

    def storages_beside(self, selected: Iterable[object], extras: Iterable[object]) -> frozenset[Storage]:
        """Storages that anything but the selected tensors refers to.

        Args:
            selected: the objects of the selected tensors.
            extras: the objects beside the weights; a selected tensor that stands there too counts as beside them.
        """
        found = storages_in([*extras, self.root], self.storage_of, {id(self.weights)})
        return found | storages_in([self.weights], self.storage_of, {id(node) for node in selected})


def storages_in(roots: Iterable[object], storage_of: StorageOf, shut: Iterable[int] = ()) -> frozenset[Storage]:
    """The storages that objects refer to, at any depth.

    Args:
        roots: where to begin.
        storage_of: finds a storage.
        shut: objects, by `id`, that are not looked into, not even as a root.
    """
    nodes = (node for node in each_below(roots, shut) if type(node) is Persistent)
    return frozenset(storage_of(node, "").storage for node in nodes if is_storage_id(node.pid))
