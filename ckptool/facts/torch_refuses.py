"""What torch.load says no to: with weights_only, its default, and without."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ckptool.core.facts import FINE, Answer, Fact, Level, Operation, Say, Use
from ckptool.core.spec import DTYPES
from ckptool.facts.headers import Headers
from ckptool.facts.registry import finder
from ckptool.formats.pickle.globals import risk_of
from ckptool.formats.pickle.objects import Call, Dict, Global, Persistent
from ckptool.formats.torch.edit import each_below
from ckptool.formats.torch.frame import Frame
from ckptool.formats.torch.storage import is_storage_id
from ckptool.formats.torch.tensor import dense_storage, is_tensor

_SHOWN = 5
_PICKLE_OF_TORCH = 2  # the only protocol of which weights_only knows the opcodes
_REBUILD = """
    device_tensor_from_cpu_tensor device_tensor_from_numpy meta_tensor_no_storage nested_tensor parameter
    parameter_with_state qtensor sparse_tensor tensor tensor_v2 tensor_v3 wrapper_subclass
"""
_EXACT = frozenset(
    [
        "_codecs.encode",
        "builtins.bytearray",
        "builtins.complex",
        "builtins.set",
        "collections.Counter",
        "collections.OrderedDict",
        "torch.Size",
        "torch.Tensor",
        "torch._tensor._rebuild_from_type_v2",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "torch.per_channel_affine",
        "torch.per_channel_affine_float_qparams",
        "torch.per_channel_symmetric",
        "torch.per_tensor_affine",
        "torch.per_tensor_symmetric",
        "torch.serialization._get_layout",
        "torch.storage.TypedStorage",
        "torch.storage.UntypedStorage",
    ]
) | {f"torch._utils._rebuild_{name}" for name in _REBUILD.split()}
_KINDS = "BFloat16|Byte|Char|Double|Float|Half|Int|Long|Short"
_CLASSES = re.compile(
    rf"torch\.(?:cuda\.)?(?:(?:{_KINDS}|Bool)(?:Storage|Tensor)|Complex(?:Double|Float)Storage|sparse\.(?:{_KINDS})Tensor)"
    r"|torch\.Q(?:Int8|Int32|UInt8|UInt2x4|UInt4x2)Storage"
)
_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg", "UserDict": "collections", "UserList": "collections"}
_DICTS = ("OrderedDict", "defaultdict", "Counter", "dict", "UserDict", "ChainMap", "AttributeDict")


@dataclass(frozen=True, slots=True)
class RefusedByDefault(Fact):
    """torch.load refuses the file unless weights_only=False.

    Attributes:
        globals: the classes and functions that it does not allow.
        protocol: the pickle's protocol, where weights_only does not read that; else None.
        is_known: an alarm about classes that may run code says the same.
        is_dangerous: one of the globals runs code of the file's choice.
    """

    globals: tuple[str, ...] = ()
    protocol: int | None = None
    is_known: bool = False
    is_dangerous: bool = False

    name = "weights-only"
    grade = "warning"
    rank = 19

    @property
    def text(self) -> str:
        listed = ", ".join(self.globals[:_SHOWN]) + (", ..." if len(self.globals) > _SHOWN else "")
        reasons = [listed] if listed else []
        if self.protocol is not None:
            reasons.append(f"pickle protocol {self.protocol}")
        return f"torch.load refuses it by default (weights_only=True): {'; '.join(reasons)}"

    @property
    def hint(self) -> str:
        if not self.globals or self.protocol is not None or self.is_dangerous:
            return ""
        return f"torch.serialization.add_safe_globals([{', '.join(self.globals)}]) if you trust them"

    @property
    def remedy(self) -> str:
        return "the weights alone: ckptool filter {file} --only-weights -o OUT"

    def finding_level(self) -> Level | None:
        return None if self.is_known else self.grade


@dataclass(frozen=True, slots=True)
class RefusedAlways(Fact):
    """torch.load fails whatever it is told; `reasons` say why."""

    reasons: tuple[str, ...] = ()

    name = "unloadable"
    tells = True
    level = "warning"
    grade = "error"
    rank = 1

    @property
    def text(self) -> str:
        return f"torch cannot load the file at all: {'; '.join(self.reasons[:_SHOWN])}"

    @property
    def hint(self) -> str:
        return "the weights alone: ckptool filter {file} --only-weights -o OUT.safetensors"

    def answer(self, use: Use) -> Answer:
        return Say(self.text, self.hint) if use.operation is Operation.COPY else FINE


def is_allowed(name: str) -> bool:
    """True if torch.load with weights_only=True takes a global of this name (torch 2.13).

    Example:
        >>> is_allowed("torch.HalfStorage"), is_allowed("argparse.Namespace"), is_allowed("torch.uint3")
        (True, False, True)
    """
    module, _, last = name.rpartition(".")
    name = f"{_PYTHON_2.get(module, module)}.{last}"
    if name in _EXACT or _CLASSES.fullmatch(name):
        return True
    return module == "torch" and last in DTYPES


@finder
def find_refused_by_default(headers: Headers) -> Iterator[RefusedByDefault]:
    checkpoint = headers.checkpoint
    if not isinstance(checkpoint.tree, Frame) or not headers.is_torch_file or checkpoint.ranks is not None:
        return
    uses = [use for use in checkpoint.globals if not is_allowed(use.name)]
    names = tuple(use.name for use in uses)
    protocol = checkpoint.protocol if checkpoint.protocol not in (_PICKLE_OF_TORCH, 3, None) else None
    if names or protocol is not None:
        is_known = protocol is None and all(use.risk != "harmless" for use in uses)
        is_dangerous = any(use.risk == "dangerous" for use in uses)
        yield RefusedByDefault((), names, protocol, is_known, is_dangerous)


@finder
def find_refused_always(headers: Headers) -> Iterator[RefusedAlways]:
    tree = headers.checkpoint.tree
    if isinstance(tree, Frame) and headers.is_torch_file and headers.checkpoint.ranks is None:
        reasons = tuple(dict.fromkeys(_faults(tree.root)))
        if reasons:
            yield RefusedAlways(reasons=reasons)


def _faults(root: object) -> Iterator[str]:
    """What no unpickler can do with the objects of a file. Tensors were understood when the file was opened."""
    for node in each_below([root]):
        if type(node) is Call:
            if fault := _fault(node):
                yield fault
            if any(type(key) in _UNHASHABLE for key, _ in node.items):
                yield _BAD_KEY
        elif type(node) is Dict:
            if any(type(key) in _UNHASHABLE for key, _ in node.items):
                yield _BAD_KEY
        elif type(node) is Persistent and not _is_reference(node):
            yield "a persistent id that is not a storage"


_UNHASHABLE = frozenset((list, Dict, bytearray))
_BAD_KEY = "a dict has a list or a dict as a key"


def _is_reference(node: Persistent) -> bool:
    """True for a storage, and for a class with its source, as old files have them."""
    return is_storage_id(node.pid) or (type(node.pid) is tuple and len(node.pid) > 1 and node.pid[0] == "module")


def _fault(call: Call) -> str:
    fn = call.fn
    if type(fn) is not Global:
        if type(fn) is Call or (type(fn) is Persistent and _is_reference(fn)):
            return ""
        return f"it calls {_kind(fn)}, which is not a class or function"
    if is_tensor(call):
        if call.items:
            return f"items are set on a tensor ({fn.qualified})"
        if call.states and dense_storage(call) is not None:
            return f"a state is set on a tensor ({fn.qualified})"
        return f"values are appended to a tensor ({fn.qualified})" if call.appended else ""
    if call.items and fn.name not in _DICTS and not fn.name[:1].isupper() and risk_of(fn.module, fn.name) == "harmless":
        return f"items are set on what {fn.qualified} returns, which is not a dict"
    return ""


def _kind(value: object) -> str:
    words = {Dict: "a dict", str: "a text", int: "a number", float: "a number", tuple: "a tuple", list: "a list"}
    return words.get(type(value), "a value")
