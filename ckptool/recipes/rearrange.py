"""A solved layout as an op: boxes of elements that move from the arguments to the result.

Each box is affine: a shape, and for each side a start and strides. So the same few numbers say what numpy has to copy,
whether the result is a mere view, and which runs of bytes the kernel can copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

from ckptool.core.errors import PlanError
from ckptool.core.plan import Run
from ckptool.core.spec import DTYPES, TensorSpec
from ckptool.recipes.axes import Axis, Dim, Sizes, size_of, solve
from ckptool.recipes.layout import Layout

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

_SHORTEST_RUN = 4096
_FEW_RUNS = 64  # copied as runs however short they are


@dataclass(frozen=True, slots=True)
class Box:
    """Elements of one argument and where they go; strides and starts count elements in packed C order."""

    arg: int
    shape: tuple[int, ...]
    source: int
    source_strides: tuple[int, ...]
    target: int
    target_strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rearrange:
    """An `Op` that moves elements and changes none.

    Attributes:
        text: the layout.
        arg_shapes: shapes of its arguments, for which it was solved.
        shape: of the result.
        boxes: what moves; they do not overlap. What no box covers is zero.
    """

    text: str
    arg_shapes: tuple[tuple[int, ...], ...]
    shape: tuple[int, ...]
    boxes: tuple[Box, ...]

    is_elementwise = False

    @property
    def is_identity(self) -> bool:
        """The result is the one argument itself."""
        return len(self.arg_shapes) == 1 and self.arg_shapes[0] == self.shape and self._keeps_order

    @property
    def _keeps_order(self) -> bool:
        whole = (prod(self.shape),)
        return prod(self.arg_shapes[0]) == whole[0] and self.boxes in (
            (Box(0, whole, 0, (1,), 0, (1,)),),
            (Box(0, (), 0, (), 0, ()),),
        )

    def result(self, args: Sequence[TensorSpec]) -> TensorSpec:
        """Dtype and shape of the result. Raises `PlanError` if the arguments are not what it was solved for."""
        if tuple(arg.shape for arg in args) != self.arg_shapes:
            shapes = ", ".join(arg.short for arg in args)
            raise PlanError(f'the layout "{self.text}" was solved for other shapes than {shapes}')
        if len(dtypes := {arg.dtype for arg in args}) > 1:
            raise PlanError(
                f"{' and '.join(sorted(dtypes))} cannot be joined in one tensor",
                hint="cast them first: ... | f32 | LAYOUT",
                key=args[0].key,
            )
        if DTYPES[args[0].dtype].is_packed and not self._keeps_order:
            raise PlanError(f"{args[0].dtype} is packed and cannot be rearranged", key=args[0].key)
        return TensorSpec(args[0].key, args[0].dtype, self.shape)

    def runs(self, args: Sequence[TensorSpec]) -> list[Run] | None:
        """The result as runs of the arguments' bytes; None if they are short or some elements are zero."""
        dtype = DTYPES[args[0].dtype]
        if self._keeps_order:
            return [Run(0, 0, args[0].nbytes)] if args[0].nbytes else []
        if dtype.is_packed:
            return None
        number = sum(prod(box.shape[:-1]) for box in self.boxes)
        shortest = min((_run_length(box) for box in self.boxes), default=0) * dtype.block_nbytes
        if number > _FEW_RUNS and shortest < _SHORTEST_RUN:
            return None
        moves = sorted(move for box in self.boxes for move in _moves(box))
        found: list[Run] = []
        end = 0
        for target, arg, source, length in moves:
            if target != end:
                return None  # zeros between
            end += length
            last = found[-1] if found else None
            run = Run(arg, source * dtype.block_nbytes, length * dtype.block_nbytes)
            if last and last.arg == arg and last.offset + last.nbytes == run.offset:
                found[-1] = Run(arg, last.offset, last.nbytes + run.nbytes)
            else:
                found.append(run)
        return found if end == prod(self.shape) else None

    def compute(self, args: Sequence[Array]) -> Array:
        """The result; a view of the argument where one box is all of it."""
        import numpy as np

        flat = [np.ascontiguousarray(arg).reshape(-1) for arg in args]
        total = prod(self.shape)
        if len(self.boxes) == 1 and prod(self.boxes[0].shape) == total:
            return _view(flat[self.boxes[0].arg], self.boxes[0], source=True).reshape(self.shape)
        covered = sum(prod(box.shape) for box in self.boxes) == total
        out = (np.empty if covered else np.zeros)(total, dtype=flat[0].dtype)
        for box in self.boxes:
            _view(out, box, source=False)[...] = _view(flat[box.arg], box, source=True)
        return out.reshape(self.shape)


def _view(flat: Array, box: Box, *, source: bool) -> Array:
    from numpy.lib.stride_tricks import as_strided

    start, strides = (box.source, box.source_strides) if source else (box.target, box.target_strides)
    last = start + sum((size - 1) * stride for size, stride in zip(box.shape, strides, strict=True))
    if last >= len(flat):  # as_strided checks nothing
        raise PlanError("the argument is shorter than the layout was solved for")
    return as_strided(flat[start:], box.shape, [stride * flat.itemsize for stride in strides], writeable=not source)


def _run_length(box: Box) -> int:
    """Elements that stand together on both sides."""
    return box.shape[-1] if box.shape and box.source_strides[-1] == box.target_strides[-1] == 1 else 1


def _moves(box: Box) -> Iterator[tuple[int, int, int, int]]:
    """(target, argument, source, length) of each run of a box, in elements."""
    length = _run_length(box)
    outer = len(box.shape) if length == 1 else len(box.shape) - 1
    for at in product(*map(range, box.shape[:outer])):
        source = box.source + sum(map(int.__mul__, at, box.source_strides))
        yield box.target + sum(map(int.__mul__, at, box.target_strides)), box.arg, source, length


# ---------------------------------------------------------------------------------------------- from layouts

Members: TypeAlias = Mapping[tuple[int, ...], tuple[int, ...]]
"""The shapes of the tensors that one tensor of a layout is spread over, by their place along its captures."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One result of a layout: which of its right tensors, at which place along the captures, made from what.

    Attributes:
        tensor: number on the right.
        place: the value of each capture that the right tensor is spread over.
        op: what makes it.
        args: for each argument of the op: number on the left, and place.
    """

    tensor: int
    place: tuple[int, ...]
    op: Rearrange
    args: tuple[tuple[int, tuple[int, ...]], ...]


def pieces(
    layout: Layout,
    members: Sequence[Members],
    left_spread: Sequence[tuple[str, ...]],
    right_spread: Sequence[tuple[str, ...]],
    known: Sizes,
    targets: Sequence[Sequence[int] | None] = (),
) -> list[Piece]:
    """All results of a layout on tensors of known shapes.

    Args:
        layout: checked for the spreads.
        members: the tensors on the left.
        left_spread, right_spread: the captures that the tensors are spread over.
        known: vars, and the number of values of the captures where it is known.
        targets: shapes wanted on the right.

    Raises:
        PlanError: the sizes cannot be solved, or tensors that are stacked differ in shape.
    """
    shapes = [next(iter(found.values())) for found in members]
    for found in members:
        if len(set(found.values())) > 1:
            raise PlanError(f"tensors to be joined have different shapes: {_different(found)}")
    layout = layout.ranked(shapes)
    sizes = solve(layout.left, layout.right, shapes, known, targets)
    sources: dict[frozenset[str], tuple[int, int, dict[str, int]]] = {}
    for number, tensor in enumerate(layout.left):
        for start, strides in _affine(tensor, sizes):
            sources[frozenset([*strides, *left_spread[number]])] = (number, start, strides)
    found_pieces: list[Piece] = []
    for number, tensor in enumerate(layout.right):
        spread = right_spread[number]
        for place in product(*(range(sizes[name]) for name in spread)):
            at = dict(zip(spread, place, strict=True))
            found_pieces.append(_piece(layout, members, left_spread, sources, sizes, number, tensor, at))
    return found_pieces


def stack(members: Members) -> Rearrange:
    """Tensors of one shape as one tensor, along new axes in front."""
    place, shape = next(iter(members.items()))
    axes = [Axis(f"i{at}") for at in range(len(shape))]
    spread = tuple(f"n{at}" for at in range(len(place)))
    layout = Layout((tuple(axes),), ((*map(Axis, spread), *axes),))
    known = {name: max(found[at] for found in members) + 1 for at, name in enumerate(spread)}
    return pieces(layout, [members], [spread], [()], known)[0].op


def _different(members: Members) -> str:
    shapes = sorted(set(members.values()))
    return " and ".join(f"[{','.join(map(str, shape))}]" for shape in shapes[:2])


def _piece(
    layout: Layout,
    members: Sequence[Members],
    left_spread: Sequence[tuple[str, ...]],
    sources: Mapping[frozenset[str], tuple[int, int, dict[str, int]]],
    sizes: Sizes,
    number: int,
    tensor: tuple[Dim, ...],
    at: Mapping[str, int],
) -> Piece:
    known = frozenset[str]().union(*sources)
    args: dict[tuple[int, tuple[int, ...]], int] = {}
    boxes: list[Box] = []
    for target, target_strides in _affine(tensor, sizes):
        names = [*target_strides, *at]
        if any(name[:1] == "#" and name not in known for name in names):
            continue  # zeros
        left, source, source_strides = sources[known.intersection(names)]
        spread = [name for name in left_spread[left] if name in target_strides]
        for place in product(*(range(sizes[name]) for name in spread)):
            fixed = {**at, **dict(zip(spread, place, strict=True))}
            member = tuple(fixed[name] for name in left_spread[left])
            arg = args.setdefault((left, member), len(args))
            moving = [name for name in target_strides if name not in spread]
            boxes.append(
                _box(
                    arg,
                    [Axis(name).number or sizes[name] for name in moving],
                    source + sum(source_strides.get(name, 0) * index for name, index in at.items()),
                    [source_strides.get(name, 0) for name in moving],
                    target + sum(target_strides[name] * fixed[name] for name in spread),
                    [target_strides[name] for name in moving],
                )
            )
    shape = tuple(size_of(dim, sizes) for dim in tensor)
    if not args:  # all zeros: it still needs an argument that says of which dtype
        args[0, next(iter(members[0]))] = 0
    arg_shapes = tuple(members[left][member] for left, member in args)
    op = Rearrange(layout.text, arg_shapes, shape, tuple(box for box in boxes if 0 not in box.shape))
    return Piece(number, tuple(at.values()), op, tuple(args))


def _affine(dims: Sequence[Dim], sizes: Sizes, stride: int = 1) -> list[tuple[int, dict[str, int]]]:
    """The blocks of a tensor in packed C order: where each starts, and the stride of each of its axes."""
    found: list[tuple[int, dict[str, int]]] = [(0, {})]
    for dim in reversed(dims):
        options: list[tuple[int, dict[str, int]]] = []
        if isinstance(dim, Axis):
            options.append((0, {dim.name: stride} if dim.name else {}))
        else:
            start = 0
            for factors in dim.products:
                options += [(start + at, strides) for at, strides in _affine(factors, sizes, stride)]
                start += stride * prod(size_of(factor, sizes) for factor in factors)
        found = [(at + more, {**outer, **inner}) for at, outer in options for more, inner in found]
        stride *= size_of(dim, sizes)
    return found


def _box(
    arg: int,
    shape: Sequence[int],
    source: int,
    source_strides: Sequence[int],
    target: int,
    target_strides: Sequence[int],
) -> Box:
    """The box with as few axes as possible: those of one element fall away, those that run on in both merge."""
    axes: list[tuple[int, int, int]] = []
    for size, here, there in zip(shape, source_strides, target_strides, strict=True):
        if size == 1:
            continue
        if axes and axes[-1][1:] == (here * size, there * size):
            axes[-1] = (axes[-1][0] * size, here, there)
        else:
            axes.append((size, here, there))
    sizes, heres, theres = (tuple(axis[at] for axis in axes) for at in range(3))
    return Box(arg, sizes, source, heres, target, theres)
