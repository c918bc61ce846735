"""Values to bytes: computes what a plan's steps say, in blocks wherever the arithmetic allows.

An elementwise expression over tensors of one shape runs block by block, each block small enough for the cache, so that
memory does not grow with the tensor. An op that is elementwise once it knows a few numbers of its whole arguments (the
angle between them) measures them first, block by block too. Any other op (a transpose, a norm over an axis) needs its
arguments whole: memory is then a few times the largest such tensor, never the checkpoint.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from ckptool.core.arrays import numpy_dtype
from ckptool.core.casting import UnfitError
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.dtypes import DTYPES
from ckptool.core.errors import PlanError
from ckptool.core.plan import Apply, Op, Source, Value, sources_of
from ckptool.core.tensor import Tensor
from ckptool.core.views import is_run, run_of
from ckptool.engine.reading import Reader
from ckptool.engine.rounding import Rounding

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

ELEMENTS = 1 << 17
"""Elements of one block: 1 MiB of float64 for each argument, about what a core's own cache holds."""

_VERY_MANY = 20_000
_KEPT = 24 << 20


@runtime_checkable
class Measuring(Op, Protocol):
    """An op that is elementwise once it has measured its arguments."""

    def measured(self, blocks: Callable[[], Iterable[Sequence[Array]]]) -> Op:
        """The elementwise op. Each call of `blocks` gives equal flat slices of all arguments, from the first on."""
        ...


@runtime_checkable
class Gathering(Op, Protocol):
    """An op that makes its result in order from elements that lie anywhere in its one argument."""

    def gathered(self, elements: Callable[[int, int], Array]) -> Iterator[Array]:
        """Flat blocks of the result; `elements` gives the argument's from one number to another."""
        ...


def packed_blocks(
    value: Value, inputs: Sequence[Checkpoint], reader: Reader, rounding: Rounding | None = None
) -> Iterator[memoryview]:
    """The packed little-endian bytes of a value, in order.

    Args:
        value: what to compute.
        inputs: the checkpoints that its sources count.
        reader: reads them.
        rounding: sees what the value's last op, a cast, makes of the numbers.

    Raises:
        PlanError: if a source cannot be computed with (sparse, quantized).
        UnfitError: after the last block, if a cast to integers met floats that do not fit; it counts all of them.
        UnreadableError: if a file changed.
    """
    if isinstance(value, Source):
        yield from reader.blocks(inputs[value.input][value.key])
        return
    sources = list(dict.fromkeys(sources_of(value)))
    unfit: list[UnfitError] = []
    for made, arrays in _made_ready(value, sources, inputs, reader):
        try:
            yield _bytes(_computed(made, arrays, rounding))
        except UnfitError as error:
            unfit.append(error)
    if unfit:
        key = sources[0].key if sources else None
        raise UnfitError(sum(error.count for error in unfit), unfit[0].dtype, key=key)


def _made_ready(
    value: Value, sources: Sequence[Source], inputs: Sequence[Checkpoint], reader: Reader
) -> Iterator[tuple[Value, dict[Source, Array]]]:
    """The value with its measuring ops ready, and the arrays of its sources: block by block, or all at once."""
    tensors = [_dense(inputs[source.input][source.key]) for source in sources]
    keep_freed_memory()
    if len(tensors) == 1 and is_run(tensors[0]) and (gathering := _gathering(value)) is not None:
        op, in_blocks = gathering
        if tensors[0].pieces[0].storage.crc is not None:
            for _ in reader.blocks(tensors[0]):  # which compares it
                pass
        for array in op.gathered(partial(_elements, tensors[0], reader)):
            yield in_blocks, {sources[0]: array}
        return
    made = _measured(value, sources, tensors, reader)
    assert isinstance(made, Apply)
    if tensors and _is_elementwise(made) and len({tensor.shape for tensor in tensors}) == 1:
        for arrays in _in_step(tensors, reader):
            yield made, dict(zip(sources, arrays, strict=True))
    else:
        yield made, {source: reader.array(tensor) for source, tensor in zip(sources, tensors, strict=True)}


def _gathering(value: Value) -> tuple[Gathering, Value] | None:
    """The gathering op of a source below elementwise ones, and these on its blocks, which stand for the source."""
    above: list[Op] = []
    while isinstance(value, Apply) and len(value.args) == 1:
        if isinstance(value.op, Gathering) and isinstance(value.args[0], Source):
            made: Value = value.args[0]
            for op in reversed(above):
                made = Apply(op, (made,))
            return value.op, made
        if not value.op.is_elementwise:
            return None
        above.append(value.op)
        (value,) = value.args
    return None


def _elements(tensor: Tensor, reader: Reader, begin: int, end: int) -> Array:
    """Elements of a tensor that is one run of its file."""
    import numpy as np

    dtype = numpy_dtype(tensor.dtype)
    source, offset, _ = run_of(tensor)
    packed = np.empty((end - begin) * dtype.itemsize, np.uint8)
    reader.read_into(source, offset + begin * dtype.itemsize, packed.data)
    return packed.view(dtype)


def _computed(value: Value, arrays: dict[Source, Array], rounding: Rounding | None) -> Array:
    if rounding is None or isinstance(value, Source):
        return compute(value, arrays)
    before = [compute(arg, arrays) for arg in value.args]
    after = value.op.compute(before)
    rounding.see(before[0], after)
    return after


@cache
def keep_freed_memory() -> None:
    """Have the C library keep freed memory for the next block.

    By default glibc maps every array above 128 kB anew and unmaps it again; the page faults take four times as long as
    the arithmetic. It goes by the largest block that it has seen freed, up to 32 MiB, so free one; it is never touched.
    """
    import numpy as np

    np.empty(_KEPT, np.uint8)


def give_back_freed_memory(tensors: int) -> None:
    """Have the C library give pages back that hold nothing any more, where there are very many tensors.

    glibc keeps what is freed between small objects: a header of 100,000 keys leaves 20 MB behind.
    """
    if tensors < _VERY_MANY or sys.platform != "linux":
        return
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
    if trim is not None:
        trim(0)


def compute(value: Value, arrays: dict[Source, Array]) -> Array:
    """A value on the arrays of its sources; each op runs on the results of its arguments."""
    if isinstance(value, Source):
        return arrays[value]
    return value.op.compute([compute(arg, arrays) for arg in value.args])


def _measured(value: Value, sources: Sequence[Source], tensors: Sequence[Tensor], reader: Reader) -> Value:
    """The value with its measuring ops ready."""
    if isinstance(value, Source):
        return value
    args = tuple(_measured(arg, sources, tensors, reader) for arg in value.args)
    if not isinstance(value.op, Measuring) or value.op.is_elementwise:
        return Apply(value.op, args)

    def blocks() -> Iterator[list[Array]]:
        for arrays in _in_step(tensors, reader):
            known = dict(zip(sources, arrays, strict=True))
            yield [compute(arg, known) for arg in args]

    return Apply(value.op.measured(blocks), args)


def _is_elementwise(value: Value) -> bool:
    if isinstance(value, Source):
        return True
    return value.op.is_elementwise and all(_is_elementwise(arg) for arg in value.args)


def _dense(tensor: Tensor) -> Tensor:
    if tensor.layout != "strided" or DTYPES[tensor.dtype].is_packed:
        what = tensor.layout if tensor.layout != "strided" else tensor.dtype
        raise PlanError(f"{tensor.key} is {what}: it can be copied, not computed with", key=tensor.key)
    return tensor


def _in_step(tensors: Sequence[Tensor], reader: Reader) -> Iterator[list[Array]]:
    """Equal flat slices of tensors of one shape, side by side."""
    import numpy as np

    streams = [reader.blocks(tensor, DTYPES[tensor.dtype].nbytes(ELEMENTS)) for tensor in tensors]
    dtypes = [numpy_dtype(tensor.dtype) for tensor in tensors]
    for blocks in zip(*streams, strict=True):
        yield [np.frombuffer(block, dtype) for block, dtype in zip(blocks, dtypes, strict=True)]


def _bytes(array: Array) -> memoryview:
    import numpy as np

    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
