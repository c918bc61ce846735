"""Tensors of other classes than torch's own (DTensor, torchao, ShardedTensor), and numpy arrays of objects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from ckptool.core.counts import listed, many
from ckptool.core.facts import FINE, Answer, Fact, Operation, Refuse, Say, Use
from ckptool.facts.headers import Headers
from ckptool.facts.registry import finder
from ckptool.formats.pickle.objects import Call, Dict, Global
from ckptool.formats.torch.frame import Frame
from ckptool.formats.torch.tensor import is_numpy, is_tensor, subclass_of

_MOST = 100_000  # entries that are looked at
_ARRAYS = ("_reconstruct", "_frombuffer")
_MANY = {
    "numpy array": "numpy arrays",
    "numpy array of objects": "numpy arrays of objects",
    "ShardedTensor": "ShardedTensors",
}
_SHARDED = ("ShardedTensor", "DTensor", "EFTensor")


@dataclass(frozen=True, slots=True)
class Subclass(Fact):
    """Tensors of a subclass.

    Attributes:
        cls: its qualified name.
        is_opaque: their values lie in objects that ckptool does not read.
    """

    cls: str = ""
    is_opaque: bool = False

    name = "tensor-class"
    tells = True
    level = "warning"
    grade = "warning"
    rank = 2

    @property
    def short(self) -> str:
        """``DTensor``"""
        return self.cls.rpartition(".")[2]

    @property
    def text(self) -> str:
        is_a = "is of class" if len(self.keys) == 1 else "are of class"
        return f"{many(len(self.keys), 'tensor')} {is_a} {self.cls}: {', '.join(self.keys[:3])}"

    @property
    def hint(self) -> str:
        if self.short in _SHARDED:
            return (
                "each rank stores its part; save a full state dict "
                "(get_model_state_dict with StateDictOptions(full_state_dict=True)), or tensor.full_tensor()"
            )
        if self.cls.startswith("torchao."):
            return "quantized by torchao; call dequantize() on them before saving for plain numbers"
        return "torch needs this class to load the file; plain tensors: save tensor.detach().as_subclass(torch.Tensor)"

    def answer(self, use: Use) -> Answer:
        if use.operation not in (Operation.CAST, Operation.COMPUTE, Operation.LOAD):
            return FINE
        return Refuse(self.text, self.hint) if self.is_opaque else Say(self.text, self.hint)


@dataclass(frozen=True, slots=True)
class NotTorch(Fact):
    """Entries that are not torch tensors: numpy arrays, also of objects, ShardedTensors; `names` are their paths."""

    kind: Literal["numpy array", "numpy array of objects", "ShardedTensor"] = "numpy array"
    names: tuple[str, ...] = ()

    name = "no-tensors"
    tells = True
    level = "warning"
    grade = "warning"
    rank = 0

    @property
    def text(self) -> str:
        is_one = len(self.names) == 1
        are = f"entry is a {self.kind}" if is_one else f"entries are {_MANY[self.kind]}"
        what = "not a torch tensor" if is_one else "not torch tensors"
        return f"{len(self.names):,} {are}, {what}: {listed(self.names, 3)}"

    @property
    def hint(self) -> str:
        if self.kind == "numpy array":
            return "load_state_dict refuses arrays; tensors of them: ckptool filter {file} -o OUT.pth"
        if self.kind == "numpy array of objects":
            return "ckptool reads arrays of numbers; save these as such, or with torch.save"
        return "save a full state dict on one rank, or with torch.distributed.checkpoint"


@finder
def find_subclasses(headers: Headers) -> Iterator[Subclass]:
    if headers.checkpoint.columns is not None:
        return
    by_class: dict[tuple[str, bool], list[str]] = defaultdict(list)
    decodable = _decodable(headers)
    for key, tensor in headers.checkpoint.tensors.items():
        if tensor.node is not None and key not in decodable and (cls := subclass_of(tensor.node)) is not None:
            by_class[cls, tensor.layout == "meta"].append(key)
    for (cls, is_opaque), keys in by_class.items():
        yield Subclass(tuple(keys), cls, is_opaque)


def _decodable(headers: Headers) -> Collection[str]:
    """The keys of quantized tensors that are decoded: the fact `encoded` is theirs."""
    if not any(use.name.startswith("torchao.") for use in headers.checkpoint.globals):
        return ()
    from ckptool.engine.dequantize import encoded_of

    return {each.key for each in encoded_of(headers.checkpoint) if not each.problems}


@finder
def find_arrays(headers: Headers) -> Iterator[NotTorch]:
    checkpoint = headers.checkpoint
    if headers.is_torch_file and any(use.name.startswith("numpy.") for use in checkpoint.globals):
        among = tuple(key for key, tensor in checkpoint.tensors.items() if is_numpy(tensor.node))
        if among:
            yield NotTorch(names=among)
    if not isinstance(checkpoint.tree, Frame) or not any(_is_holder(use.name) for use in checkpoint.globals):
        return
    arrays, sharded = [], []
    for name, node in _entries(checkpoint.tree.root):
        if _class_of(node) in _SHARDED:
            sharded.append(name)
        elif _is_array(node):
            arrays.append(name)
    if sharded:
        yield NotTorch(kind="ShardedTensor", names=tuple(sharded))
    if len(arrays) > len(checkpoint):  # a few arrays beside the weights are nothing special
        yield NotTorch(kind="numpy array of objects", names=tuple(arrays))


def _is_holder(name: str) -> bool:
    return name.rpartition(".")[2] in (*_ARRAYS, *_SHARDED)


def _is_array(node: object) -> bool:
    named = isinstance(node, Call) and isinstance(node.fn, Global) and node.fn.name in _ARRAYS
    return named and node.fn.module.startswith("numpy")  # type: ignore[attr-defined]


def _class_of(node: object) -> str:
    return node.fn.name if isinstance(node, Call) and isinstance(node.fn, Global) else ""


def _entries(root: object) -> Iterator[tuple[str, object]]:
    """The objects of nested dicts by their dotted path; each dict once."""
    seen = {id(root)}
    stack: list[tuple[str, object]] = [("", root)]
    left = _MOST
    while stack:
        prefix, node = stack.pop()
        pairs = node.items if isinstance(node, (Dict, Call)) and not is_tensor(node) else []
        for key, child in pairs:
            left -= 1
            if left < 0:
                return
            name = f"{prefix}{key}" if isinstance(key, (str, int)) else f"{prefix}?"
            if isinstance(child, (Dict, Call)) and not is_tensor(child):
                if id(child) in seen:
                    continue
                seen.add(id(child))
                yield name, child
                stack.append((f"{name}.", child))
