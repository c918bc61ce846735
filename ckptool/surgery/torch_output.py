"""The pickle of a torch output: the frame input's objects, with the plan's tensors in the place of its weights.

What is not weights (epoch, optimizer, a second set of weights) stays what it was: the same inert objects, pickled
again. Tensors that are copied keep their strides and share storages as before; of a storage that other tensors no
longer need, only the part in use is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ckptool.checkpoint import Storage, Tensor
from ckptool.errors import PlanError, UnsafeError
from ckptool.formats.image import Image, Range
from ckptool.formats.objects import Call, Dict, Global, Persistent
from ckptool.formats.pickle_dump import dump
from ckptool.formats.pickle_globals import risk_of
from ckptool.formats.torch_edit import REMOVED, children, substitute
from ckptool.formats.torch_frame import Frame
from ckptool.formats.torch_tensor import STORAGE_CLASSES, rebuilt_by
from ckptool.formats.torch_zip_write import Record, zip_image
from ckptool.spec import DTYPES, TensorSpec, packed_nbytes
from ckptool.surgery.encode import contents_of, tied_steps
from ckptool.surgery.plan import Plan, Source

_PROTOCOL = 2  # what torch writes, and what torch.load(weights_only=True) reads


def torch_output(plan: Plan) -> tuple[Image, tuple[TensorSpec, ...], str | None]:
    """Lay out the torch archive of a plan.

    Returns:
        The image, the tensors it will hold, and the path of the dict that holds them.

    Raises:
        UnsafeError: if the frame carries objects of unknown classes and the plan does not say what to do with them.
        PlanError: if the keys cannot be written into the frame as it is nested.
    """
    nodes = _Nodes(plan)
    frame = frame_of(plan)
    weights = [(step.target.key, nodes.node(index)) for index, step in enumerate(plan.steps)]
    if frame is None:
        root, select = _state_dict(weights, plan.module_versions), None
    else:
        root, select = _framed(plan, frame, weights)
    if not plan.keep_unknown:
        _refuse_unknown(root, plan)
    data_pkl = dump(root, _PROTOCOL, persistent=nodes.persistent_id)
    return zip_image(data_pkl, nodes.records), tuple(step.target for step in plan.steps), select


def frame_of(plan: Plan) -> Frame | None:
    """The objects around the weights of the plan's frame input, if it is a torch file."""
    tree = None if plan.frame is None else plan.inputs[plan.frame].tree
    return tree if isinstance(tree, Frame) else None


def _framed(plan: Plan, frame: Frame, weights: list[tuple[str, object]]) -> tuple[object, str | None]:
    """The frame's root with new weights in it."""
    assert plan.frame is not None
    source = plan.inputs[plan.frame]
    select = source.selection.name or None
    edits: dict[int, object] = {id(old): new for old, new in plan.replaced_nodes}
    if frame.is_flat:
        edits[id(frame.weights)] = _refilled(frame, weights, plan.module_versions)
    elif frame.is_module:
        edits[id(frame.weights)] = _state_dict(weights, plan.module_versions)
    else:
        edits |= _in_place(plan, source.tensors, dict(weights))
        select = select if select is not None else "."
    return substitute(frame.root, edits), select


def _in_place(plan: Plan, tensors: Mapping[str, Tensor], weights: Mapping[str, object]) -> dict[int, object]:
    """Tensors of nested dicts stay where they are; keys can be left out, not changed."""
    new = [key for key in weights if key not in tensors]
    if new:
        raise PlanError(
            f"the weights lie in nested dicts, so {len(new)} keys cannot get new names there: {new[0]}",
            hint="--select one dict, or --only-weights to write a flat state dict",
            key=new[0],
        )
    edits: dict[int, object] = {}
    for key, tensor in tensors.items():
        replacement = weights.get(key, REMOVED)
        if edits.setdefault(id(tensor.node), replacement) is not replacement and replacement is REMOVED:
            raise PlanError(
                f"{key} is one object with another key that is kept",
                hint="--only-weights writes a flat state dict",
                key=key,
            )
        edits[id(tensor.node)] = replacement
    return edits


def _refilled(frame: Frame, weights: list[tuple[str, object]], versions: Mapping[str, int] | None) -> object:
    """A dict like the frame's, with other tensors; what else was in it stays, behind them."""
    items: list[tuple[object, object]] = [*weights, *frame.leaves]
    old = frame.weights
    if isinstance(old, Call):
        is_ordered = isinstance(old.fn, Global) and old.fn.name == "OrderedDict"  # whose arguments may hold the entries
        new = Call("reduce", old.fn, () if is_ordered else old.args)
        new.items = items
        new.states = [_with_versions(state, versions) for state in old.states]
        return new
    return Dict(items)


def _with_versions(state: object, versions: Mapping[str, int] | None) -> object:
    if not isinstance(state, Dict):
        return state
    kept = [(name, value) for name, value in state.items if name != "_metadata"]
    if versions is not None:
        kept.append(("_metadata", _metadata(versions)))
    return Dict(kept)


def _state_dict(weights: Sequence[tuple[str, object]], versions: Mapping[str, int] | None) -> object:
    """An OrderedDict as `module.state_dict()` gives."""
    new = Call("reduce", Global("collections", "OrderedDict"), ())
    new.items = list(weights)
    if versions is not None:
        new.states = [Dict([("_metadata", _metadata(versions))])]
    return new


def _metadata(versions: Mapping[str, int]) -> object:
    new = Call("reduce", Global("collections", "OrderedDict"), ())
    new.items = [(module, Dict([("version", version)])) for module, version in versions.items()]
    return new


def _refuse_unknown(root: object, plan: Plan) -> None:
    """A payload must not travel into a file that people trust because ckptool wrote it."""
    found = unknown_globals(root)
    if found:
        names = ", ".join(found[:4]) + (f" and {len(found) - 4} more" if len(found) > 4 else "")
        raise UnsafeError(
            f"what lies beside the weights needs {len(found)} unknown class{'es' if len(found) > 1 else ''}: {names}",
            hint="--only-weights leaves it behind; --keep-unknown keeps it unchanged (ckptool never runs it)",
            path=None if plan.frame is None else plan.inputs[plan.frame].path,
        )


def unknown_globals(root: object) -> list[str]:
    """Names of the classes and functions in an object that are not known to be harmless, each once."""
    found: dict[str, None] = {}
    seen = {id(root)}
    stack = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, Global) and risk_of(node.module, node.name) != "harmless":
            found[node.qualified] = None
        pid = [node.pid] if isinstance(node, Persistent) else []
        for child in (*children(node), *pid):
            if id(child) not in seen:
                seen.add(id(child))
                stack.append(child)
    return list(found)


@dataclass(frozen=True, slots=True)
class _Part:
    """Bytes of a source storage that become a storage of the output."""

    storage: Storage
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class _Made:
    """A storage of the output that step `index` fills."""

    index: int


_Origin = _Part | _Made


@dataclass(slots=True)
class _Nodes:
    """Makes the tensors' objects, and gives out the storages' numbers in the order in which the pickle names them."""

    plan: Plan
    records: list[Record] = field(default_factory=list)
    _numbers: dict[_Origin, int] = field(default_factory=dict)
    _origins: dict[int, tuple[Persistent, _Origin]] = field(default_factory=dict)
    _ids: dict[int, object] = field(default_factory=dict)
    _made: dict[int, object] = field(default_factory=dict)
    _parts: dict[Storage, list[_Part]] = field(default_factory=dict)
    _ties: dict[int, int] = field(default_factory=dict)
    _globals: dict[tuple[str, str], Global] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ties = tied_steps(self.plan)
        self._parts = _parts_in_use(self.plan, _copied_views(self.plan))

    def node(self, index: int) -> object:
        """The object of one step's tensor."""
        step = self.plan.steps[index]
        if isinstance(step.value, Source):
            tensor = self.plan.inputs[step.value.input][step.value.key]
            if tensor.node is not None and (tensor.layout != "strided" or _keeps_layout(tensor)):
                return self._relocated(tensor, self._storage_of(step.value.input), step.target.key)
        elif index in self._ties:
            return self.node(self._ties[index])
        if index not in self._made:
            self._made[index] = self._fresh(step.target, index)
        return self._made[index]

    def _storage_of(self, number: int) -> Callable[[Persistent, str], Storage]:
        tree = self.plan.inputs[number].tree
        assert isinstance(tree, Frame)  # only torch files have tensor nodes
        return lambda persistent, key: tree.storage_of(persistent, key).storage

    def _relocated(self, tensor: Tensor, storage_of: Callable[[Persistent, str], Storage], key: str) -> object:
        """The tensor's own object, its storages replaced by those of the output."""
        if id(tensor.node) in self._made:
            return self._made[id(tensor.node)]
        edits: dict[int, object] = {}
        for call in rebuilt_by(tensor.node):
            args = call.args
            assert isinstance(args, tuple)
            old = args[0]
            assert isinstance(old, Persistent)
            storage = storage_of(old, key)
            start = args[1] * _itemsize(tensor) if tensor.layout == "strided" else 0
            part = self._part(storage, start, whole=tensor.layout != "strided")
            token = self._token(old, part, _itemsize(tensor))
            new = Call(call.how, call.fn, (token, args[1] - part.low // _itemsize(tensor), *args[2:]), call.kwargs)
            new.states = call.states
            edits[id(call)] = new
        made = substitute(tensor.node, edits)
        self._made[id(tensor.node)] = made
        return made

    def _part(self, storage: Storage, start: int, *, whole: bool) -> _Part:
        """The part in use of a storage that holds a byte."""
        if not whole:
            for part in self._parts.get(storage, ()):
                if part.low <= start < part.high:
                    return part
        return _Part(storage, 0, storage.nbytes)

    def _token(self, old: Persistent, part: _Part, itemsize: int) -> Persistent:
        """A reference to a storage of the output, of the old one's class and device."""
        assert isinstance(old.pid, tuple)
        kind, _, location = old.pid[1:4]
        nbytes = part.high - part.low
        untyped = isinstance(kind, Global) and kind.name == "UntypedStorage"
        count = old.pid[4] if nbytes == part.storage.nbytes else nbytes if untyped else nbytes // itemsize
        token = Persistent(("storage", kind, "", location, count))
        self._origins[id(token)] = (token, part)
        return token

    def _fresh(self, spec: TensorSpec, index: int) -> object:
        """A contiguous tensor as torch writes it."""
        storage_class = STORAGE_CLASSES.get(spec.dtype)
        nbytes = spec.nbytes
        if storage_class is None:
            kind, count, rebuild = self._global("torch.storage", "UntypedStorage"), nbytes, "_rebuild_tensor_v3"
        else:
            kind, count, rebuild = self._global("torch", storage_class), spec.elements, "_rebuild_tensor_v2"
        token = Persistent(("storage", kind, "", "cpu", count))
        self._origins[id(token)] = (token, _Made(index))
        hooks = Call("reduce", self._global("collections", "OrderedDict"), ())
        args: tuple[object, ...] = (token, 0, spec.shape, _c_strides(spec.shape), False, hooks)
        if storage_class is None:
            args = (*args, self._global("torch", spec.dtype))
        return Call("reduce", self._global("torch._utils", rebuild), args)

    def _global(self, module: str, name: str) -> Global:
        return self._globals.setdefault((module, name), Global(module, name))

    def persistent_id(self, persistent: Persistent) -> object:
        """The persistent id that the output's pickle gets for a storage."""
        if id(persistent) in self._ids:
            return self._ids[id(persistent)]
        if id(persistent) in self._origins:
            _, origin = self._origins[id(persistent)]
        else:
            origin = self._of_the_frame(persistent)
        if origin not in self._numbers:
            self._numbers[origin] = len(self.records)
            self.records.append(self._record(origin))
        pid = persistent.pid
        assert isinstance(pid, tuple)
        self._ids[id(persistent)] = (_STORAGE, pid[1], str(self._numbers[origin]), pid[3], pid[4])
        return self._ids[id(persistent)]

    def _of_the_frame(self, persistent: Persistent) -> _Part:
        frame = frame_of(self.plan)
        assert frame is not None  # every other reference was made here
        storage = frame.storage_of(persistent, "").storage
        if storage.big_endian:
            raise PlanError(
                "the file is big-endian and holds tensors beside the weights, which cannot be copied as they are",
                hint="--only-weights leaves them behind",
            )
        return _Part(storage, 0, storage.nbytes)

    def _record(self, origin: _Origin) -> Record:
        if isinstance(origin, _Made):
            return Record(self.plan.steps[origin.index].target.nbytes, contents_of(self.plan, origin.index))
        nbytes = origin.high - origin.low
        crc = origin.storage.crc if nbytes == origin.storage.nbytes else None
        content = (Range(origin.storage.file, origin.storage.offset + origin.low, nbytes, crc),) if nbytes else ()
        return Record(nbytes, content)


_STORAGE = "storage"


def _itemsize(tensor: Tensor) -> int:
    return DTYPES[tensor.dtype].bits // 8


def _c_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """torch's strides of a contiguous tensor; an empty axis counts as one."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def _hull(tensor: Tensor) -> tuple[int, int]:
    """First byte and end of what a one-piece tensor reaches in its storage."""
    piece = tensor.pieces[0]
    strides = piece.strides if piece.strides is not None else _c_strides(piece.shape)
    last = piece.start + sum((size - 1) * stride for size, stride in zip(piece.shape, strides, strict=True))
    return piece.start * _itemsize(tensor), (last + 1) * _itemsize(tensor)


def _keeps_layout(tensor: Tensor) -> bool:
    """True if a dense tensor is copied with its strides; a thin view of a wide range is packed instead."""
    if len(tensor.pieces) != 1 or tensor.pieces[0].storage.big_endian or not tensor.elements:
        return False
    low, high = _hull(tensor)
    return high - low <= 2 * packed_nbytes(tensor.dtype, tensor.shape)


def _copied_views(plan: Plan) -> Iterable[tuple[Storage, tuple[int, int]]]:
    for step in plan.steps:
        if isinstance(step.value, Source):
            tensor = plan.inputs[step.value.input][step.value.key]
            if tensor.node is not None and tensor.layout == "strided" and _keeps_layout(tensor):
                yield tensor.pieces[0].storage, _hull(tensor)


def _parts_in_use(plan: Plan, views: Iterable[tuple[Storage, tuple[int, int]]]) -> dict[Storage, list[_Part]]:
    """The parts of storages that copied tensors use; tensors that overlap stay in one part."""
    frame = frame_of(plan)
    whole = frame.storages_beside() if frame is not None else frozenset()
    hulls: dict[Storage, list[tuple[int, int]]] = {}
    for storage, hull in views:
        if storage not in whole:
            hulls.setdefault(storage, []).append(hull)
    return {storage: _merged(storage, sorted(spans)) for storage, spans in hulls.items()}


def _merged(storage: Storage, spans: Sequence[tuple[int, int]]) -> list[_Part]:
    parts: list[_Part] = []
    for low, high in spans:
        if parts and low < parts[-1].high:
            parts[-1] = _Part(storage, parts[-1].low, max(high, parts[-1].high))
        else:
            parts.append(_Part(storage, low, high))
    return parts
