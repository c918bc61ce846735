"""The tensors of a torch output: the object that each becomes in the pickle, and the storages they view.

A tensor that is copied keeps its own object, with whatever the file says of it (a Parameter, a subclass, attributes),
its strides, and the storage that it shares with others. Of a storage of which only a part is still needed, that part is
written. A thin view of a wide range is packed, and so is everything that is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeGuard, TypeVar

from ckptool.core.counts import many
from ckptool.core.dtypes import DTYPES, DType
from ckptool.core.errors import OutputError, PlanError
from ckptool.core.plan import Plan, Source, Step, Value
from ckptool.core.spec import TensorSpec
from ckptool.core.tensor import Storage, Tensor
from ckptool.core.views import c_strides
from ckptool.formats.contents import contents_of, tied_steps
from ckptool.formats.image import Range
from ckptool.formats.pickle.globals import risk_of
from ckptool.formats.pickle.objects import Call, Dict, Global, Persistent
from ckptool.formats.pickle.tensors import plain_storage
from ckptool.formats.torch.edit import each_below, substitute
from ckptool.formats.torch.frame import Frame
from ckptool.formats.torch.spans import Part, itemsize, parts_in_use
from ckptool.formats.torch.storage import STORAGE_CLASSES, is_storage_id, storage_dtype
from ckptool.formats.torch.tensor import data_args, is_numpy_backed
from ckptool.formats.torch.zip_write import Record

_Kind = TypeVar("_Kind", Global, Persistent)
_STORAGE = "storage"


@dataclass(frozen=True, slots=True)
class _Made:
    """A storage of the output that step `index` fills."""

    index: int


_Origin = Part | _Made


@dataclass(slots=True)
class Nodes:
    """Makes the tensors' objects; gives the storages numbers in the order in which the pickle names them.

    Args:
        plan: the plan.
        frame: the objects around the weights, if the output keeps them.

    Attributes:
        records: the storages, once the pickle is written.

    Raises:
        OutputError: torch has no dtype for a tensor.
    """

    plan: Plan
    frame: Frame | None
    records: list[Record] = field(default_factory=list)
    _names: dict[_Origin, str] = field(default_factory=dict)
    _tokens: dict[int, _Origin] = field(default_factory=dict)  # of references made here, by id
    _storages: dict[int, Storage] = field(default_factory=dict)  # of references in tensors' own objects, by id
    _ids: dict[int, object] = field(default_factory=dict)
    _moved: dict[int, object] = field(default_factory=dict)
    _made: dict[int, object] = field(default_factory=dict)
    _own: dict[int, Tensor] = field(default_factory=dict)  # steps whose tensors keep their objects
    _parts: dict[int, Part] = field(default_factory=dict)
    _ties: dict[int, int] = field(default_factory=dict)
    _globals: dict[tuple[str, str], Global] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ties = tied_steps(self.plan)
        beside: set[Storage] = set()
        used: set[Value] = set()
        for index, step in enumerate(self.plan.steps):
            if step.value in used and self._ties.get(index) not in self._own:
                continue  # a tensor that is given twice is two tensors
            used.add(step.value)
            tensor = self._kept_object(step)
            if tensor is not None and isinstance(step.value, Source):
                self._own[index] = tensor
                beside |= self._storages_around(tensor, step.value.input)
        if self.frame is not None and self.plan.frame is not None:
            source = self.plan.inputs[self.plan.frame]
            selected = [tensor.node for tensor in source.tensors.values()]
            beside |= self.frame.storages_beside(selected, [extra.node for extra in source.extras])
        self._parts = parts_in_use(self._own, beside)
        fresh = [step for index, step in enumerate(self.plan.steps) if index not in self._own]
        fresh += [moved.step for moved in self.plan.moved]
        unknown = [step.target for step in fresh if _is_unknown(DTYPES[step.target.dtype])]
        if unknown:
            raise OutputError(
                f"torch has no dtype for {many(len(unknown), 'tensor')}: {unknown[0].key} is {unknown[0].dtype}",
                hint="write a .safetensors file",
                key=unknown[0].key,
            )

    def _kept_object(self, step: Step) -> Tensor | None:
        """The tensor whose object a step keeps: a plain copy from a torch file."""
        if not isinstance(step.value, Source):
            return None
        tensor = self.plan.inputs[step.value.input][step.value.key]
        if tensor.node is None or is_numpy_backed(tensor.node):
            return None
        bare = self.frame is None and not self.plan.keep_unknown and tensor.layout == "strided"
        if bare and not _is_plain(tensor.node) and judged(_below(tensor.node, Global)):
            return None  # only weights are asked for, so a subclass of somebody's becomes a tensor
        return tensor

    def _storages_around(self, tensor: Tensor, number: int) -> set[Storage]:
        """Note what the references in a tensor's object mean; those of all but a dense tensor's own data."""
        found: set[Storage] = set()
        if tensor.layout == "strided":
            args = data_args(tensor.node)
            assert args is not None
            self._storages[id(args[0])] = tensor.pieces[0].storage
            if _is_plain(tensor.node):
                return found
        for persistent in _references(tensor.node):
            if id(persistent) not in self._storages:
                self._storages[id(persistent)] = storage = self._storage_of(persistent, tensor, number)
                found.add(storage)
        return found

    def _storage_of(self, persistent: Persistent, tensor: Tensor, number: int) -> Storage:
        tree = self.plan.inputs[number].tree
        if isinstance(tree, Frame):
            return tree.storage_of(persistent, tensor.key).storage
        for part in _dense_parts(tensor):
            args = data_args(part.node)
            if args and args[0] is persistent:
                return part.pieces[0].storage
        raise PlanError(f"{tensor.key} carries tensors that cannot be told apart in shards", key=tensor.key)

    def node(self, index: int) -> object:
        """The object of one step's tensor."""
        tensor = self._own.get(index)
        if tensor is None:
            index = self._ties.get(index, index)
            if index not in self._made:
                self._made[index] = self._fresh(self.plan.step(index).target, index)
            return self._made[index]
        if id(tensor.node) not in self._moved:
            self._moved[id(tensor.node)] = self._relocated(tensor, index)
        return self._moved[id(tensor.node)]

    def _relocated(self, tensor: Tensor, index: int) -> object:
        """The tensor's own object, with a reference to a storage of the output."""
        if tensor.layout != "strided":
            return tensor.node
        args, part = data_args(tensor.node), self._parts.get(index)
        assert args is not None
        old, start = args[0], args[1]
        assert isinstance(old, Persistent)
        assert isinstance(start, int)
        if part is None:
            origin = _Made(self._ties.get(index, index))
            flags = tuple(arg for arg in args[6:] if not isinstance(arg, Dict))  # conj and neg are computed
            new = (self._token(old, origin), 0, tensor.shape, c_strides(tensor.shape), *args[4:6], *flags)
        elif part.is_whole:
            return tensor.node
        else:
            new = (self._token(old, part), max(0, start - part.low // itemsize(tensor)), *args[2:])
        node = tensor.node
        return _plain(node.fn, new) if _is_as_read(node) else substitute(node, {id(args): new})

    def _token(self, old: Persistent, origin: _Origin) -> Persistent:
        """A reference to a storage of the output, of the old one's class and device."""
        assert isinstance(old.pid, tuple)
        token = Persistent(old.pid)
        self._tokens[id(token)] = origin
        return token

    def _fresh(self, spec: TensorSpec, index: int) -> object:
        """A contiguous tensor as torch writes it."""
        storage_class = STORAGE_CLASSES.get(spec.dtype)
        if storage_class is None:
            kind, rebuild = self._global("torch.storage", "UntypedStorage"), "_rebuild_tensor_v3"
        else:
            kind, rebuild = self._global("torch", storage_class), "_rebuild_tensor_v2"
        token = self._token(Persistent((_STORAGE, kind, "", "cpu", 0)), _Made(index))
        hooks = Call("reduce", self._global("collections", "OrderedDict"), ())
        args: tuple[object, ...] = (token, 0, spec.shape, c_strides(spec.shape), False, hooks)
        if storage_class is None:
            return Call("reduce", self._global("torch._utils", rebuild), (*args, self._global("torch", spec.dtype)))
        return _plain(self._global("torch._utils", rebuild), args)

    def _global(self, module: str, name: str) -> Global:
        return self._globals.setdefault((module, name), Global(module, name))

    def persistent_id(self, persistent: Persistent) -> object:
        """The persistent id that the output's pickle gets for a storage."""
        if id(persistent) not in self._ids:
            origin = self._tokens.get(id(persistent)) or self._whole(persistent)
            if origin not in self._names:
                self._names[origin] = str(len(self.records))
                self.records.append(self._record(origin))
            pid = persistent.pid
            assert isinstance(pid, tuple)
            _, dtype = storage_dtype(pid[1])
            count = self.records[int(self._names[origin])].nbytes // (DTYPES[dtype].block_nbytes if dtype else 1)
            self._ids[id(persistent)] = (_STORAGE, pid[1], self._names[origin], pid[3], count)
        return self._ids[id(persistent)]

    def require_copyable(self, persistent: Persistent) -> None:
        """Refuse a reference to a storage that cannot be copied into the output as it is."""
        if id(persistent) not in self._tokens:
            self._whole(persistent)

    def _whole(self, persistent: Persistent) -> Part:
        storage = self._storages.get(id(persistent))
        if storage is None:
            assert self.frame is not None  # every other reference is noted, or was made here
            storage = self.frame.storage_of(persistent, "").storage
        if storage.big_endian:
            raise PlanError(
                "the file is big-endian and holds tensors beside the weights, which cannot be copied as they are",
                hint="--only-weights leaves them behind",
            )
        return Part(storage, 0, storage.nbytes)

    def _record(self, origin: _Origin) -> Record:
        if isinstance(origin, _Made):
            return Record(self.plan.step(origin.index).target.nbytes, contents_of(self.plan, origin.index))
        nbytes = origin.high - origin.low
        crc = origin.storage.crc if origin.is_whole else None
        content = (Range(origin.storage.file, origin.storage.offset + origin.low, nbytes, crc),) if nbytes else ()
        return Record(nbytes, content)


def judged(names: Iterable[Global]) -> dict[str, str]:
    """The classes and functions that are not known to be harmless, each once, and how they are judged."""
    distinct = dict.fromkeys((node.module, node.name) for node in names)
    risks = ((f"{module}.{name}", risk_of(module, name)) for module, name in distinct)
    return {name: risk for name, risk in risks if risk != "harmless"}


def _is_plain(node: object) -> bool:
    """True for a dense tensor as torch writes nearly all: no attributes, no hooks, no class of its own."""
    if _is_as_read(node):
        return True
    if not isinstance(node, Call) or data_args(node) is not node.args or not isinstance(node.args, tuple):
        return False
    return not (node.states or node.items or node.appended) and all(map(_is_bare, node.args[1:]))


def _is_as_read(node: object) -> TypeGuard[Call]:
    """True if the pickle said at once that it is a plain tensor, and nothing since has changed that."""
    return type(node) is Call and plain_storage(node) is not None


def _plain(fn: object, args: tuple[object, ...]) -> Call:
    """A plain tensor of the output."""
    call = Call("reduce", fn, args)
    call.is_plain = True
    return call


def _is_bare(value: object) -> bool:
    if isinstance(value, tuple):
        return all(type(item) is int for item in value)
    if isinstance(value, Call):  # the hooks, nearly always an empty OrderedDict
        empty = not (value.items or value.states or value.appended or value.args)
        return empty and isinstance(value.fn, Global) and value.fn.qualified == "collections.OrderedDict"
    if isinstance(value, Global):
        return value.module == "torch" and value.name in DTYPES
    return value is None or isinstance(value, (bool, int))


def _references(root: object) -> Iterator[Persistent]:
    """Every reference to a storage in an object."""
    return (node for node in _below(root, Persistent) if is_storage_id(node.pid))


def _below(root: object, kind: type[_Kind]) -> Iterator[_Kind]:
    """Every object of a class in another, the contents of references included."""
    return (node for node in each_below([root], in_references=True) if isinstance(node, kind))


def _dense_parts(tensor: Tensor) -> Iterator[Tensor]:
    if tensor.pieces:
        yield tensor
    for _, part in tensor.parts:
        if part is not tensor:
            yield from _dense_parts(part)


def _is_unknown(dtype: DType) -> bool:
    """True for the numbers of 4 and 6 bits, which torch cannot name."""
    return dtype.is_packed and dtype.kind == "float"
