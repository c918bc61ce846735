"""What a torch pickle means: the selected weights, and everything else in the file.

Tensors are listed by path, so that a tensor that stands under two keys gets both. Where dicts are shared or cyclic, the
budget of `Walk` and the path itself bound the listing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from ckptool.core.checkpoint import Extra, Selection
from ckptool.core.observations import Observation, WholeModule
from ckptool.core.tensor import Tensor
from ckptool.formats.pickle.objects import Call, Global, Persistent
from ckptool.formats.torch.frame import Frame
from ckptool.formats.torch.names import Names, key_text
from ckptool.formats.torch.select import Choice, Chooser
from ckptool.formats.torch.storage import StorageOf, StorageRef
from ckptool.formats.torch.tensor import is_tensor, tensor_of
from ckptool.formats.torch.text import describe
from ckptool.formats.torch.walk import Pairs, ScriptClass, Walk, is_mapping

__all__ = ["StorageOf", "StorageRef", "Tree", "interpret", "is_tensor", "tensor_of"]


@dataclass(frozen=True, slots=True)
class Tree:
    """A torch file's object, understood. The fields are those of `Checkpoint`; `frame` is its `tree`."""

    tensors: Mapping[str, Tensor]
    selection: Selection
    extras: tuple[Extra, ...] = ()
    other_tensors: Mapping[str, Tensor] = field(default_factory=dict)
    module_versions: Mapping[str, int] | None = None
    observations: tuple[Observation, ...] = ()
    frame: Frame | None = None


def interpret(
    root: object,
    storage_of: StorageOf,
    select: str | None = None,
    *,
    nbytes: int,
    classes: Mapping[str, ScriptClass] | None = None,
    faithful: bool = True,
) -> Tree:
    """Find the weights in an unpickled object, and say what else there is.

    Args:
        root: the inert object.
        storage_of: finds the bytes of a storage.
        select: dotted path of the dict to take as the weights; "" or "." for the root; None to choose.
        nbytes: size of the pickle; bounds the work.
        classes: the module classes of a TorchScript archive.
        faithful: False if the pickle did more than the object says (`Loaded.faithful`).

    Raises:
        UsageError: nothing is under `select`.
        UnreadableError: a tensor cannot be where the file says it is, or the objects unfold without bound.
    """
    walk = Walk(nbytes, classes)
    holds = walk.holds_tensors(root)
    chooser = Chooser(walk, holds, storage_of)
    choice = chooser.choose(root, select)
    lister = _Lister(walk, holds, storage_of)
    if choice.everything:
        skipped = [(key, child) for key, child in walk.entries(choice.node) if chooser.is_never(key, child)]
        lister.skip = {id(child) for _, child in skipped}
    lister.collect(choice.node)
    extras = _Extras(walk, holds, storage_of)
    extras.beside(root, choice, lister.skip)
    inside = tuple(Extra(_dotted(choice, name), describe(leaf, walk), node=leaf) for name, leaf in lister.leaves)
    return Tree(
        lister.tensors,
        choice.selection,
        (*extras.found, *inside),
        extras.tensors,
        lister.versions,
        tuple(_whole_module(choice, walk)),
        Frame.around(root, choice.node, storage_of, walk, len(lister.tensors), faithful=faithful),
    )


def _dotted(choice: Choice, name: str) -> str:
    return ".".join((*choice.selection.path, name))


def _whole_module(choice: Choice, walk: Walk) -> Iterator[WholeModule]:
    """A whole module: its class is needed to load it with torch, not to read it here."""
    node = choice.node
    if type(node) is not Call or walk.classes or walk.module_parts(node) is None:
        return
    fn = node.fn
    if type(fn) is Persistent and type(fn.pid) is tuple and len(fn.pid) > 1:  # legacy: ("module", class, file, source)
        fn = fn.pid[1]
    yield WholeModule(fn.qualified if type(fn) is Global else "")


@dataclass(slots=True)
class _Open:
    """A container on the path that is being listed."""

    node: object
    prefix: str | None
    rest: Iterator[tuple[object, object]]
    plain: bool


class _Lister:
    """Lists the selected tensors by path."""

    def __init__(self, walk: Walk, holds: AbstractSet[int], storage_of: StorageOf) -> None:
        self.walk = walk
        self.holds = holds
        self.storage_of = storage_of
        self.names = Names()
        self.skip: set[int] = set()
        self.tensors: dict[str, Tensor] = {}
        self.leaves: list[tuple[str, object]] = []
        self.versions: dict[str, int] | None = None

    def collect(self, root: object) -> None:
        """Every tensor under `root`; a container inside itself is not entered again."""
        if is_tensor(root):
            self._add(root, "tensor")
            return
        path = [self._open(root, None)]
        on_path = {id(root)}
        while path:
            top = path[-1]
            entry = next(top.rest, None)
            if entry is None:
                on_path.discard(id(path.pop().node))
                continue
            key, child = entry
            if is_tensor(child):
                self._add(child, self.names.unique(top.prefix, key))
            elif id(child) in self.holds:
                if id(child) not in on_path and id(child) not in self.skip:
                    on_path.add(id(child))
                    path.append(self._open(child, self.names.joined(top.prefix, key)))
            elif top.plain and id(child) not in self.skip:
                self.leaves.append((self.names.joined(top.prefix, key), child))

    def _open(self, node: object, prefix: str | None) -> _Open:
        self._read_versions(node, prefix)
        plain = not self.walk.is_module(node)
        return _Open(node, prefix, iter(self.walk.entries(node)), plain)

    def _add(self, node: object, name: str) -> None:
        tensor = tensor_of(node, self.storage_of, name)
        if tensor is not None:
            self.tensors[name] = tensor

    def _read_versions(self, node: object, prefix: str | None) -> None:
        """torch's ``_metadata``: an attribute of the OrderedDict, {module: {"version": 2}}."""
        if type(node) is not Call or not node.states or not is_mapping(node):
            return
        metadata = dict(_texts(self.walk.attributes(node))).get("_metadata")
        if not is_mapping(metadata):
            return
        if self.versions is None:
            self.versions = {}
        for name, facts in _texts(self.walk.pairs(metadata)):
            version = dict(_texts(self.walk.pairs(facts))).get("version")
            if type(version) is int:
                self.versions[".".join(part for part in (prefix, name) if part)] = version


def _texts(pairs: Pairs) -> Iterator[tuple[str, object]]:
    """The pairs whose key is a text."""
    return ((key, value) for key, value in pairs if type(key) is str)


class _Extras:
    """Collects what lies beside the selection, each object once."""

    def __init__(self, walk: Walk, holds: AbstractSet[int], storage_of: StorageOf) -> None:
        self.walk = walk
        self.holds = holds
        self.storage_of = storage_of
        self.names = Names()
        self.seen: set[int] = set()
        self.found: list[Extra] = []
        self.tensors: dict[str, Tensor] = {}

    def beside(self, root: object, choice: Choice, skipped: set[int]) -> None:
        """The siblings of the chosen node on every level, and the entries in `skipped`."""
        node, prefix = root, None
        for chosen, below in choice.steps:
            taken = False
            for key, child in self.walk.entries(node):
                if not taken and child is below and key_text(key) == key_text(chosen):
                    taken = True
                else:
                    self._add(prefix, key, child)
            node, prefix = below, self.names.joined(prefix, chosen)
        if skipped:
            for key, child in self.walk.entries(node):
                if id(child) in skipped:
                    self._add(prefix, key, child)

    def _add(self, prefix: str | None, key: object, node: object) -> None:
        """One entry, with the tensors in it."""
        count, nbytes, text = 0, 0, ""
        for tensor in self._tensors_in(prefix, key, node):
            self.tensors[tensor.key] = tensor
            count += 1
            nbytes += tensor.nbytes
            text = tensor.spec.short
        if not is_tensor(node):
            text = describe(node, self.walk)
        self.found.append(Extra(self.names.joined(prefix, key), text, count, nbytes, node))

    def _tensors_in(self, prefix: str | None, key: object, node: object) -> Iterator[Tensor]:
        stack: list[tuple[str | None, object, object]] = [(prefix, key, node)]
        while stack:
            prefix, key, node = stack.pop()
            if is_tensor(node):
                tensor = tensor_of(node, self.storage_of, self.names.unique(prefix, key))
                if tensor is not None:
                    yield tensor
            elif id(node) in self.holds and id(node) not in self.seen:
                self.seen.add(id(node))
                inner = self.names.joined(prefix, key)
                stack.extend((inner, name, child) for name, child in reversed(self.walk.entries(node)))
