"""What reading a tensor reads: which ranges of which files, and what that costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ckptool.core.bytes import ByteSource
from ckptool.core.dtypes import DTYPES
from ckptool.core.spec import TensorSpec
from ckptool.core.tensor import Tensor
from ckptool.core.views import flat_runs, is_flat, is_run, run_of, views_of


def ranges_of(tensor: Tensor) -> Iterator[tuple[ByteSource, int, int]]:
    """(file, offset, bytes) of everything that reading a tensor reads."""
    for dense in dense_parts(tensor):
        if not dense.nbytes:
            continue
        if is_run(dense):
            yield run_of(dense)
        elif is_flat(dense):
            yield from ((run.file, run.offset, run.nbytes) for run in flat_runs(dense))
        else:
            for view in views_of(dense):
                offset = view.storage.offset + view.start * view.itemsize
                yield view.storage.file, offset, view.span * view.itemsize


def expect_ranges(ranges: Iterable[tuple[ByteSource, int, int]]) -> None:
    """Tell each file which of its (offset, bytes) will be read."""
    by_file: dict[ByteSource, list[tuple[int, int]]] = {}
    for source, offset, nbytes in ranges:
        by_file.setdefault(source, []).append((offset, nbytes))
    for source, wanted in by_file.items():
        source.will_read(wanted)


def dense_parts(tensor: Tensor) -> Iterator[Tensor]:
    """The dense tensors that hold a tensor's bytes: itself, its parts, or none for a meta tensor."""
    if tensor.parts:
        for _, part in tensor.parts:
            yield from dense_parts(part)
    elif DTYPES[tensor.dtype].kind == "quantized" and tensor.dtype in ("quint4x2", "quint2x4"):
        # several elements to a byte: the storage is the only thing that can be counted
        for piece in tensor.pieces:
            spec = TensorSpec(tensor.key, "uint8", (piece.storage.nbytes,))
            yield Tensor(spec, (replace(piece, start=0, shape=spec.shape, strides=None, at=()),))
    elif tensor.layout != "meta" and tensor.pieces:
        yield tensor


def reads_cheaply(tensor: Tensor) -> bool:
    """True unless a part of a tensor lies where reading costs much."""
    pieces = tensor.pieces[:1] if not tensor.parts else [piece for _, part in tensor.parts for piece in part.pieces[:1]]
    return all(piece.storage.file.reads_cheaply for piece in pieces)
