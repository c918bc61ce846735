"""What torch's rebuild functions mean: from an inert `Call` to a `Tensor` with its place in the file.

Sizes, strides and offsets come from the file and may lie; `ckptool.formats.torch.view` checks them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from ckptool.core.spec import DTYPES, TensorSpec
from ckptool.core.tensor import Layout, Tensor
from ckptool.formats.pickle.arrays import FROM_BUFFER, NAMED, RECONSTRUCT, Array, array_of
from ckptool.formats.pickle.objects import Call, Dict, Global, Persistent
from ckptool.formats.torch.storage import MAX_INT, ArrayBytes, StorageOf, StorageRef, bad_tensor, named_dtype
from ckptool.formats.torch.view import checked_view, int_of, ints_of

_MAX_WRAPPERS = 16
_MAX_INSIDE = 3  # subclasses inside subclasses
_MAX_PARTS = 64


def is_tensor(node: object) -> bool:
    """True if the pickle rebuilds a tensor here; decided on the names of functions alone."""
    if type(node) is not Call or type(node.fn) is not Global:
        return False
    if node.is_plain:
        return True
    name = (node.fn.module, node.fn.name)
    if name in _BUILDERS:
        return type(node.args) is tuple
    if name in _ARRAYS:
        return array_of(node) is not None
    return (name in _WRAPPERS or name in _FROM_TYPE or name in _FROM_NUMPY) and _resolved(node) is not None


def is_numpy(node: object) -> bool:
    """True for a numpy array of numbers."""
    if type(node) is not Call or type(node.fn) is not Global or node.is_plain:
        return False
    return (node.fn.module, node.fn.name) in _ARRAYS and array_of(node) is not None


def is_numpy_backed(node: object) -> bool:
    """True for a numpy array, and for a tensor of a device like XLA whose numbers are in one."""
    if type(node) is not Call or node.is_plain:
        return False
    found = _resolved(node)
    return is_numpy(node) or (found is not None and found.build is _device_array)


def subclass_of(node: object) -> str | None:
    """The class of a tensor that is of another than torch's own: ``torch.distributed.tensor.DTensor``; None else."""
    for _ in range(_MAX_WRAPPERS):
        if type(node) is not Call or type(node.fn) is not Global or type(node.args) is not tuple or not node.args:
            return None
        name, args = (node.fn.module, node.fn.name), node.args
        if name in _WRAPPERS:
            node = args[0]
            continue
        wraps = name == ("torch._utils", "_rebuild_wrapper_subclass")
        cls = args[0] if wraps else args[1] if name in _FROM_TYPE and len(args) > 1 else None
        return cls.qualified if type(cls) is Global and cls.qualified not in _PLAIN_CLASSES else None
    return None


def dense_storage(node: Call) -> object:
    """The first argument of a plain dense tensor, its storage; None for anything else."""
    if type(node.fn) is Global and (node.fn.module, node.fn.name) in _DENSE and type(node.args) is tuple and node.args:
        return node.args[0]
    return None


def tensor_of(node: object, storage_of: StorageOf, key: str) -> Tensor | None:
    """The tensor that `node` would be rebuilt into; None if it is something else.

    Args:
        node: an inert object.
        storage_of: finds the bytes of a storage.
        key: the key that the tensor gets.

    Raises:
        UnreadableError: its arguments are not what the rebuild function takes, its view leaves its storage, or
            `storage_of` does not find the storage.
    """
    if type(node) is not Call or type(node.fn) is not Global:
        return None
    if node.is_plain and type(node.args) is tuple:
        return _tensor_v2(_Context(node, storage_of, key), node.args)
    context = _Context(node, storage_of, key)
    if (node.fn.module, node.fn.name) in _ARRAYS:
        array = array_of(node)
        return None if array is None else _array(context, array)
    found = _resolved(node)
    if found is None:
        return None
    tensor = found.build(context._replace(state=found.state), found.args)
    if tensor.layout in ("nested", "meta") and (cls := subclass_of(node)) is not None:
        return replace(tensor, cls=cls.rpartition(".")[2])
    return tensor


def data_args(node: object) -> tuple[object, ...] | None:
    """The arguments that a tensor's data is rebuilt from, wherever the object has them; None if it is not a tensor.

    For a dense tensor they begin with the storage's `Persistent`, the offset of the first element, the shape and the
    strides.
    """
    found = _resolved(node) if type(node) is Call else None
    return None if found is None else found.args


class _Context(NamedTuple):
    """Whom a builder builds for."""

    node: Call
    storage_of: StorageOf
    key: str
    state: object = None


_Builder = Callable[[_Context, tuple[object, ...]], Tensor]


class _Found(NamedTuple):
    """The function that builds a tensor's data, its arguments, and the attributes of a subclass."""

    build: _Builder
    args: tuple[object, ...]
    state: object


def _resolved(node: Call) -> _Found | None:
    """Through Parameters and subclasses to the function that builds the data; None if there is no such function."""
    fn, args, state = node.fn, node.args, None
    for _ in range(_MAX_WRAPPERS):
        if type(fn) is not Global or type(args) is not tuple:
            return None
        name = (fn.module, fn.name)
        if name in _BUILDERS:
            return _Found(_BUILDERS[name], args, state)
        if name in _FROM_TYPE and len(args) >= 3:
            fn, args, state = args[0], args[2], args[3] if len(args) > 3 else None
        elif name in _FROM_NUMPY and len(args) == 4 and array_of(args[0]) is not None:
            return _Found(_device_array, args, state)
        elif (name in _WRAPPERS or name in _FROM_NUMPY) and args and type(args[0]) is Call:
            fn, args = args[0].fn, args[0].args
        else:
            return None
    return None


def _strided(
    context: _Context,
    args: tuple[object, ...],
    dtype: str | None,
    metadata: object = None,
    *,
    is_quantized: bool = False,
) -> Tensor:
    """A dense tensor from (storage, offset, size, stride, ...)."""
    key = context.key
    if len(args) < 4 or not isinstance(args[0], Persistent):
        raise bad_tensor(key, "is rebuilt from something that is not a storage")
    start, shape, strides = int_of(args[1], key), ints_of(args[2], key), ints_of(args[3], key)
    ref = context.storage_of(args[0], key)
    dtype = dtype or ref.dtype or "uint8"  # as torch reads an untyped storage
    piece = checked_view(ref, dtype, start, shape, strides, key)
    is_complex = DTYPES[dtype].kind == "complex"
    if args[4:] and not is_quantized:
        _require_grad(args[4], is_complex or DTYPES[dtype].kind == "float", key)
    conj, neg = _bits(metadata, is_complex, key)
    return Tensor(TensorSpec(key, dtype, shape), (piece,), conj=conj, neg=neg, node=context.node)


def _require_grad(value: object, may_have: bool, key: str) -> None:
    """The argument requires_grad, as torch takes it."""
    if type(value) is not bool or (value and not may_have):
        raise bad_tensor(key, "says of its gradient what torch does not take")


def _bits(metadata: object, is_complex: bool, key: str) -> tuple[bool, bool]:
    """torch's {"conj": True, "neg": True} of a lazily conjugated or negated view."""
    if metadata is None:
        return False, False
    if not isinstance(metadata, Dict):
        raise bad_tensor(key, "carries flags that are no dict")
    found = {"conj": False, "neg": False}
    for name, value in metadata.items:
        if type(name) is not str or name not in found or type(value) is not bool:
            raise bad_tensor(key, "carries a flag that ckptool does not know")
        if name == "conj" and not is_complex:
            raise bad_tensor(key, "is marked as conjugated, but its numbers are not complex")
        found[name] = value
    return found["conj"], found["neg"]


def _require_count(context: _Context, args: tuple[object, ...], counts: tuple[int, ...]) -> None:
    if len(args) not in counts:
        raise bad_tensor(context.key, f"is rebuilt from {len(args)} arguments, which torch does not take")


def _tensor_v1(context: _Context, args: tuple[object, ...]) -> Tensor:
    _require_count(context, args, (4,))
    return _strided(context, args, None)


def _tensor_v2(context: _Context, args: tuple[object, ...]) -> Tensor:
    _require_count(context, args, (6, 7))
    return _strided(context, args, None, args[6] if len(args) > 6 else None)


def _tensor_v3(context: _Context, args: tuple[object, ...]) -> Tensor:
    _require_count(context, args, (7, 8))
    dtype = named_dtype(args[6])
    if dtype is None:
        raise bad_tensor(context.key, "has a dtype that ckptool does not know")
    return _strided(context, args, dtype, args[7] if len(args) > 7 else None)


def _array(context: _Context, array: Array, dtype: str = "") -> Tensor:
    """A numpy array; with another `dtype`, the upper halves of its numbers (bfloat16 in float32)."""
    key, stored = context.key, array.number
    shape = ints_of(array.shape, key)
    if array.content is None:
        raise bad_tensor(key, "is a numpy array without bytes")
    if math.prod(shape) > MAX_INT:
        raise bad_tensor(key, "has more elements than 64 bits can count")
    itemsize = DTYPES[stored.dtype].block_nbytes
    ref = context.storage_of(ArrayBytes(array.content, math.prod(shape) * itemsize), key)
    ref = StorageRef(replace(ref.storage, big_endian=stored.big_endian and itemsize > 1), None)
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    if array.by_columns:
        strides = [math.prod(shape[:axis]) for axis in range(len(shape))]
    dtype = dtype or stored.dtype
    parts = itemsize // DTYPES[dtype].block_nbytes
    start = 0 if stored.big_endian else parts - 1
    piece = checked_view(ref, dtype, start, shape, tuple(parts * stride for stride in strides), key)
    return Tensor(TensorSpec(key, dtype, shape), (piece,), node=context.node)


def _device_array(context: _Context, args: tuple[object, ...]) -> Tensor:
    """A tensor of XLA, HPU and others, from (array, dtype, device, requires_grad), as the array has its numbers."""
    array = array_of(args[0])
    assert array is not None
    if array.number.dtype == "float32" and named_dtype(args[1]) == "bfloat16":  # numpy has no bfloat16
        return _array(context, array, "bfloat16")
    return _array(context, array)


def _quantized(context: _Context, args: tuple[object, ...]) -> Tensor:
    """Integers, and the scales and zero points of a per-channel scheme as parts of their own."""
    whole = _strided(context, args, None, is_quantized=True)
    parts = [("values", whole)]
    params = args[4] if len(args) > 4 else None
    for name, value in zip(("scales", "zero_points"), params[1:3] if type(params) is tuple else (), strict=False):
        part = tensor_of(value, context.storage_of, context.key)
        if part is not None:
            parts.append((name, part))
    extra_parts = tuple(parts) if len(parts) > 1 else ()
    return Tensor(whole.spec, whole.pieces, "quantized", extra_parts, node=context.node)


def _sparse(context: _Context, args: tuple[object, ...]) -> Tensor:
    """COO: (indices, values, size, ...); CSR, CSC, BSR, BSC: (compressed, plain, values, size)."""
    data = args[1] if len(args) > 1 else None
    if type(data) is not tuple or len(data) < 3:
        raise bad_tensor(context.key, "is sparse, but its parts are missing")
    count = 2 if is_tensor(data[1]) and not is_tensor(data[2]) else 3
    names = ("indices", "values") if count == 2 else ("compressed_indices", "plain_indices", "values")
    parts = _parts(context, list(zip(names, data, strict=False)))
    if len(parts) != count or len(data) <= count:
        raise bad_tensor(context.key, "is sparse, but its parts are missing")
    return _made_of(context, parts[-1][1].dtype, ints_of(data[count], context.key), "sparse", parts)


def _nested(context: _Context, args: tuple[object, ...]) -> Tensor:
    """A ragged tensor: one buffer, and the shapes of its rows as a tensor."""
    parts = _parts(context, list(zip(("values", "sizes", "strides", "storage_offsets"), args, strict=False)))
    if not parts or parts[0][0] != "values":
        raise bad_tensor(context.key, "is nested, but its values are missing")
    return _made_of(context, parts[0][1].dtype, parts[0][1].shape, "nested", parts)


def _meta(context: _Context, args: tuple[object, ...]) -> Tensor:
    dtype = named_dtype(args[0]) if args else None
    if dtype is None or len(args) < 2:
        raise bad_tensor(context.key, "has a dtype that ckptool does not know")
    return _made_of(context, dtype, ints_of(args[1], context.key), "meta", ())


def _wrapper_subclass(context: _Context, args: tuple[object, ...]) -> Tensor:
    """A subclass without bytes of its own; the tensors among its attributes are what it is made of."""
    dtype = named_dtype(args[1]) if len(args) > 2 else None
    if dtype is None:
        raise bad_tensor(context.key, "has a dtype that ckptool does not know")
    parts = _parts(context, list(_attributes(context.state)))
    return _made_of(context, dtype, ints_of(args[2], context.key), "nested" if parts else "meta", parts)


def subclass_attributes(node: object) -> dict[str, object]:
    """The attributes of a tensor of a subclass; of those inside it under dotted names: ``tensor_impl.scale``.

    Tensors that its values are in are among `Tensor.parts`, under the same names.
    """
    found: dict[str, object] = {}
    left = [("", node, 0)]
    while left:
        prefix, each, depth = left.pop()
        resolved = _resolved(each) if type(each) is Call else None
        for name, value in _attributes(resolved.state if resolved is not None else None):
            found[f"{prefix}{name}"] = value
            if depth < _MAX_INSIDE and subclass_of(value) is not None and len(left) < _MAX_PARTS:
                left.append((f"{prefix}{name}.", value, depth + 1))
    return found


def _attributes(state: object) -> Iterator[tuple[str, object]]:
    """What a state sets: the ``__dict__``, and the slots."""
    for part in state if type(state) is tuple else (state,):
        for name, value in part.items if isinstance(part, Dict) else ():
            if type(name) is str:
                yield name, value


def _parts(context: _Context, named: list[tuple[str, object]], depth: int = 0) -> tuple[tuple[str, Tensor], ...]:
    """The dense tensors among some values; those of a subclass among them under dotted names."""
    parts: list[tuple[str, Tensor]] = []
    for name, value in named:
        if type(value) is not Call:
            continue
        found = _resolved(value)
        if found is None:
            continue
        inner = _Context(value, context.storage_of, context.key)
        if found.build is _wrapper_subclass and depth < _MAX_INSIDE:
            inside = [(f"{name}.{last}", each) for last, each in _attributes(found.state)]
            parts += _parts(inner, inside, depth + 1)
        elif found.build in _DENSE.values():
            parts.append((name, found.build(inner, found.args)))
        else:
            raise bad_tensor(context.key, f"is made of parts that are not plain tensors ({name})")
        if len(parts) > _MAX_PARTS:
            raise bad_tensor(context.key, f"is made of more than {_MAX_PARTS} tensors")
    return tuple(parts)


def _made_of(
    context: _Context, dtype: str, shape: tuple[int, ...], layout: Layout, parts: tuple[tuple[str, Tensor], ...]
) -> Tensor:
    return Tensor(TensorSpec(context.key, dtype, shape), (), layout, parts, node=context.node)


_DENSE: dict[tuple[str, str], _Builder] = {
    ("torch._utils", "_rebuild_tensor"): _tensor_v1,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor_v2,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
}
_BUILDERS: dict[tuple[str, str], _Builder] = {
    **_DENSE,
    ("torch._utils", "_rebuild_qtensor"): _quantized,
    ("torch._utils", "_rebuild_sparse_tensor"): _sparse,
    ("torch._utils", "_rebuild_nested_tensor"): _nested,
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): _meta,
    ("torch._utils", "_rebuild_wrapper_subclass"): _wrapper_subclass,
}
_PLAIN_CLASSES = ("torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")
# (function, type, its arguments, attributes)
_FROM_TYPE = {
    ("torch._tensor", "_rebuild_from_type"),
    ("torch._tensor", "_rebuild_from_type_v2"),
    ("torch.tensor", "_rebuild_from_type"),
}
# (the tensor, ...)
_WRAPPERS = {
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_parameter_with_state"),
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"),
    # torch before 0.4 pickled these classes themselves, around the data
    ("torch.nn.parameter", "Parameter"),
    ("torch.nn.parameter", "Buffer"),
    ("torch.autograd.variable", "Variable"),
}
# (a numpy array, ...)
_FROM_NUMPY = {
    ("torch._utils", "_rebuild_device_tensor_from_numpy"),
    *(("torch._utils", f"_rebuild_{device}_tensor") for device in ("xla", "hpu", "mlc", "ort")),
}
_ARRAYS = RECONSTRUCT | FROM_BUFFER | NAMED
