"""The objects around the weights of a torch file, kept so that the file can be written again with other weights."""

from __future__ import annotations

from dataclasses import dataclass

from ckptool.checkpoint import Storage
from ckptool.formats.objects import Persistent
from ckptool.formats.torch_edit import children
from ckptool.formats.torch_tensor import StorageOf, is_tensor
from ckptool.formats.torch_walk import Pairs, Walk, is_mapping


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A torch file's inert objects.

    Attributes:
        root: everything.
        weights: the object in it that holds the selected tensors.
        storage_of: finds the bytes of a storage.
        is_flat: True if `weights` is a dict whose own entries are the selected tensors, under their keys.
        is_module: True if it is a pickled module, whose `state_dict()` the selected tensors are.
        leaves: what a flat dict holds besides tensors.
    """

    root: object
    weights: object
    storage_of: StorageOf
    is_flat: bool
    is_module: bool
    leaves: Pairs

    @classmethod
    def around(cls, root: object, weights: object, storage_of: StorageOf, walk: Walk, tensors: int) -> Frame:
        """The frame of `weights`, from which `tensors` tensors were listed."""
        is_module = walk.is_module(weights)
        pairs = walk.entries(weights) if is_mapping(weights) and not is_module else []
        direct = sum(type(key) is str and is_tensor(child) for key, child in pairs)
        leaves = [(key, child) for key, child in pairs if not is_tensor(child)]
        return cls(root, weights, storage_of, bool(pairs) and direct == tensors, is_module, leaves)

    def storages_beside(self) -> frozenset[Storage]:
        """Storages that anything but the selected weights refers to: they are kept whole."""
        inside = {id(self.weights)}
        found: set[Storage] = set()
        seen = {id(self.root)}
        stack = [self.root]
        while stack:
            node = stack.pop()
            if isinstance(node, Persistent):
                found.add(self.storage_of(node, "").storage)
            if id(node) in inside:
                continue
            for child in children(node):
                if id(child) not in seen:
                    seen.add(id(child))
                    stack.append(child)
        return frozenset(found)
