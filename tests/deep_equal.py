"""Deep equality of what torch.load returns: classes, order, values, strides of dense tensors, and who shares what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch


def assert_equal(a: Any, b: Any, path: str = "root") -> None:
    """The two objects are the same, down to the bytes of their tensors."""
    assert type(a) is type(b), f"{path}: {type(a)} and {type(b)}"
    if isinstance(a, torch.Tensor):
        assert_tensors_equal(a, b, path)
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype, path
        assert np.array_equal(a, b), path
    elif isinstance(a, Mapping):
        assert list(a) == list(b), path
        for key in a:
            assert_equal(a[key], b[key], f"{path}[{key!r}]")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for number, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{path}[{number}]")
    elif isinstance(a, torch.UntypedStorage | torch.TypedStorage):
        assert a.tolist() == b.tolist(), path
    elif isinstance(a, float) and a != a:
        assert b != b, path
    elif type(a).__eq__ is object.__eq__ and hasattr(a, "__dict__"):
        assert_equal(vars(a), vars(b), f"{path}.__dict__")
    else:
        assert a == b, path
    for name in ("_metadata", "default_factory"):
        assert getattr(a, name, None) == getattr(b, name, None), f"{path}.{name}"


def assert_tensors_equal(a: torch.Tensor, b: torch.Tensor, path: str) -> None:
    """Equal specs, flags, attributes and bits."""
    for fact in ("dtype", "shape", "layout", "requires_grad", "is_quantized", "device"):
        assert getattr(a, fact) == getattr(b, fact), f"{path}.{fact}"
    assert_equal(dict(vars(a)), dict(vars(b)), f"{path}.__dict__")
    if a.device.type == "meta":
        return
    if a.layout is torch.sparse_coo:
        assert_tensors_equal(a._indices(), b._indices(), f"{path}.indices")
        assert_tensors_equal(a._values(), b._values(), f"{path}.values")
        assert a.is_coalesced() == b.is_coalesced(), path
    elif a.layout is not torch.strided:
        assert torch.equal(a.values(), b.values()), path
        assert torch.equal(a.to_dense(), b.to_dense()), path
    elif a.is_quantized:
        assert a.qscheme() == b.qscheme(), path
        assert torch.equal(a.int_repr(), b.int_repr()), path
        assert torch.equal(a.dequantize(), b.dequantize()), path
    else:
        assert (a.is_conj(), a.is_neg()) == (b.is_conj(), b.is_neg()), path
        assert bits(a) == bits(b), path


def bits(tensor: torch.Tensor) -> bytes:
    """The elements of a dense tensor in C order."""
    dense = tensor.detach().as_subclass(torch.Tensor).resolve_conj().resolve_neg()
    dense = dense.clone(memory_format=torch.contiguous_format)  # also where one element has any stride
    if not dense.numel():
        return b""
    return dense.reshape(-1).view(torch.uint8).numpy().tobytes()


def tensors_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], torch.Tensor]]:
    """Every tensor in nested dicts, lists, tuples and objects."""
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from tensors_in(item, (*path, key))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from tensors_in(item, (*path, number))
    elif hasattr(value, "__dict__"):
        yield from tensors_in(vars(value), path)


def sharing(value: Any) -> set[frozenset[tuple[Any, ...]]]:
    """Which tensors view one storage."""
    groups: dict[int, set[tuple[Any, ...]]] = {}
    for path, tensor in tensors_in(value):
        plain = tensor.layout is torch.strided and tensor.device.type != "meta"
        if plain and tensor.numel():
            groups.setdefault(tensor.untyped_storage().data_ptr(), set()).add(path)
    return {frozenset(group) for group in groups.values() if len(group) > 1}
