"""Arithmetic on tensors: ``= $1 + (alpha / r) * $3 @ $2``.

``$1`` is the tensor of the first pattern, names are vars, functions are those of `FUNCTIONS` and the dtypes. The text
is parsed by `ast` and walked by hand: nothing is ever evaluated by Python. Half and 8-bit floats are computed in float32.
The result has the dtype of the first tensor in it, unless the whole is a cast: ``int64(0)``.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from ckptool.errors import PlanError, UsageError
from ckptool.reading import numpy_dtype
from ckptool.spec import DTYPES, TensorSpec
from ckptool.surgery.ops import parse_cast
from ckptool.surgery.pattern import malformed
from ckptool.surgery.plan import Run

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

_REDUCTIONS = ("sum", "mean", "norm", "min", "max")
_ELEMENTWISE = ("sqrt", "exp", "log", "abs", "clip", "zeros_like", "ones_like")
_MOVES = ("flip", "transpose", "take")
FUNCTIONS = (*_REDUCTIONS, *_ELEMENTWISE, *_MOVES)
"""``sum mean norm min max`` take the axes to reduce, which stay with length 1 (``keepdims=0`` removes them, ``keep=0``
reduces all axes but 0); ``take($1, [2, 0], 1)`` picks along an axis; ``clip($1, 0, 6)``; the others as in numpy."""

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.MatMult: operator.matmul,
}


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed ``= EXPR``, with the expression that undoes it where one is written: ``= a <= b``.

    Attributes:
        outputs: one text per tensor it makes.
        undo: the same for the inverse; None where none is written.
    """

    outputs: tuple[str, ...]
    undo: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, text: str, rule: str | None = None, at: int = 0) -> Expression:
        """The expression behind the ``=``; `UsageError` if it is none.

        Example:
            >>> Expression.parse("$1 - 1e-5 <= $1 + 1e-5").inverse().text
            '= $1 + 1e-5 <= $1 - 1e-5'
        """
        sides = text.split("<=")
        if len(sides) > 2:
            raise malformed("two inverses", rule or text, at + text.rindex("<="))
        begins = [at, at + len(sides[0]) + 2]
        read = [_outputs(side, rule or text, begin) for side, begin in zip(sides, begins, strict=False)]
        return cls(read[0], read[1] if len(read) > 1 else None)

    @property
    def text(self) -> str:
        return f"= {', '.join(self.outputs)}" + (f" <= {', '.join(self.undo)}" if self.undo else "")

    def __str__(self) -> str:
        return self.text

    @property
    def highest(self) -> int:
        """The highest n of its ``$n``."""
        return max((int(n) for text in self.outputs for n in re.findall(r"\$(\d+)", text)), default=0)

    def inverse(self) -> Expression:
        """The expression that undoes it; `UsageError` if none is written."""
        if self.undo is None:
            raise UsageError(f'"{self.text}" has no inverse', hint="write it behind <= : = $1 - 1 <= $1 + 1")
        return Expression(self.undo, self.outputs)

    def ops(self, args: Sequence[TensorSpec], variables: Mapping[str, float]) -> list[tuple[Compute, tuple[int, ...]]]:
        """For each output: the op, and which of the tensors it takes. Raises `PlanError`."""
        return [_bind(text, args, variables) for text in self.outputs]


@dataclass(frozen=True, slots=True)
class Compute:
    """An `Op` that computes one expression.

    Attributes:
        expression: its text.
        used: the n of the ``$n`` in it, in the order of the op's arguments.
        variables: values of the names in it.
        shape, dtype: of the result.
        is_elementwise: see `Op`.
    """

    expression: str
    used: tuple[int, ...]
    variables: tuple[tuple[str, float], ...]
    shape: tuple[int, ...]
    dtype: str
    is_elementwise: bool

    @property
    def text(self) -> str:
        return f"= {self.expression}"

    def result(self, args: Sequence[TensorSpec]) -> TensorSpec:
        _, found = _abstract(self.expression, dict(zip(self.used, args, strict=True)), dict(self.variables))
        if (found.shape, found.dtype) != (self.shape, self.dtype):
            raise PlanError(f'"{self.text}" was made for other tensors')
        return TensorSpec(args[0].key if args else "", self.dtype, self.shape)

    def runs(self, args: Sequence[TensorSpec]) -> list[Run] | None:
        return None

    def compute(self, args: Sequence[Array]) -> Array:
        import numpy as np

        names: dict[str, Any] = {f"_{n}": _computable(arg) for n, arg in zip(self.used, args, strict=True)}
        with np.errstate(all="ignore"):
            found = np.asarray(_numeric(_tree(self.expression), {**dict(self.variables), **names}))
            return found.astype(numpy_dtype(self.dtype), copy=False)


def _bind(text: str, args: Sequence[TensorSpec], variables: Mapping[str, float]) -> tuple[Compute, tuple[int, ...]]:
    numbers = {n: args[n - 1] for n in sorted({int(n) for n in re.findall(r"\$(\d+)", text)})}
    names, found = _abstract(text, numbers, variables)
    if found.dtype is None:
        raise PlanError(f'"= {text}" has no dtype', hint="say it: = float32(...)")
    same = bool(numbers) and all(spec.shape == found.shape for spec in numbers.values())
    chosen = tuple((name, variables[name]) for name in names)
    op = Compute(text, tuple(numbers), chosen, found.shape, found.dtype, found.elementwise and same)
    return op, tuple(n - 1 for n in numbers)


# ---------------------------------------------------------------------------------------------- reading

_MAX_TEXT = 2000


def _outputs(text: str, rule: str, at: int) -> tuple[str, ...]:
    body = text.strip()
    at += len(text) - len(text.lstrip())
    if not body or len(body) > _MAX_TEXT:
        raise malformed("an expression is missing here" if not body else "an expression too long", rule, at)
    if clash := re.search(r"(?<!\w)_\d+", body):
        raise malformed("not a name", rule, at + clash.start())
    source = re.sub(r"\$(\d+)", r"_\1", body)
    try:
        tree = ast.parse(source, mode="eval").body
        found = tree.elts if isinstance(tree, ast.Tuple) else [tree]
        for node in found:
            _check(node)
    except SyntaxError as error:
        raise malformed("not an expression", rule, at + max((error.offset or 1) - 1, 0)) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise malformed(f"not an expression: {error}", rule, at, f"functions: {' '.join(FUNCTIONS)}") from None
    return tuple(_dollars(ast.unparse(node)) for node in found)


def _dollars(source: str) -> str:
    return re.sub(r"(?<!\w)_(\d+)", r"$\1", source)


@lru_cache(maxsize=256)
def _tree(text: str) -> ast.expr:
    return ast.parse(re.sub(r"\$(\d+)", r"_\1", text), mode="eval").body


def _check(node: ast.AST) -> None:
    """Raises `ValueError` at the first node that is not on the list."""
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        children: list[ast.AST] = [node.left, node.right]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        children = [node.operand]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        name = node.func.id
        if name not in FUNCTIONS and parse_cast(name) is None:
            raise ValueError(f"there is no function {name}")
        if wrong := [
            key.arg for key in node.keywords if name not in _REDUCTIONS or key.arg not in ("keep", "keepdims")
        ]:
            raise ValueError(f"{name} has no argument {wrong[0]}")
        children = [*node.args, *(key.value for key in node.keywords)]
        if not node.args:
            raise ValueError(f"{name} needs a tensor")
    elif isinstance(node, ast.List):
        children = [*node.elts]
    elif isinstance(node, ast.Name) or (isinstance(node, ast.Constant) and type(node.value) in (int, float)):
        children = []
    else:
        raise ValueError(f"{ast.unparse(node)} is not arithmetic" if isinstance(node, ast.expr) else "no arithmetic")
    for child in children:
        _check(child)


# ---------------------------------------------------------------------------------------------- on headers


@dataclass(frozen=True, slots=True)
class _Abstract:
    """What is known of a value without computing it; `number` is the n of the ``$n`` that its dtype comes from."""

    shape: tuple[int, ...] = ()
    dtype: str | None = None
    number: float = math.inf
    elementwise: bool = True
    value: Any = None


def _abstract(text: str, args: Mapping[int, TensorSpec], variables: Mapping[str, float]) -> tuple[list[str], _Abstract]:
    """The names used, and what comes out. Raises `PlanError` where shapes do not fit."""
    names: dict[str, None] = {}

    def walk(node: ast.expr) -> _Abstract:
        if isinstance(node, ast.Constant):
            return _Abstract(value=node.value)
        if isinstance(node, ast.Name):
            if re.fullmatch(r"_\d+", node.id):
                spec = args[int(node.id[1:])]
                if DTYPES[spec.dtype].kind in ("quantized", "bits") or DTYPES[spec.dtype].bits < 8:
                    raise PlanError(f"{spec.dtype} cannot be computed with", key=spec.key)
                return _Abstract(spec.shape, spec.dtype, int(node.id[1:]))
            if node.id not in variables:
                raise PlanError(f'"= {text}" needs a value for {node.id}', hint=f"vars.{node.id} = ... in the recipe")
            names[node.id] = None
            return _Abstract(value=variables[node.id])
        if isinstance(node, ast.UnaryOp):
            inner = walk(node.operand)
            minus = isinstance(node.op, ast.USub) and inner.value is not None
            return replace(inner, value=-inner.value) if minus else inner
        if isinstance(node, ast.List):
            return _Abstract(value=[walk(item).value for item in node.elts])
        if isinstance(node, ast.BinOp):
            return _joined(node, walk(node.left), walk(node.right))
        assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        keywords = {key.arg: walk(key.value).value for key in node.keywords if key.arg}
        return _called(node.func.id, [walk(arg) for arg in node.args], keywords)

    try:
        found = walk(_tree(text))
    except (ArithmeticError, TypeError, ValueError, IndexError) as error:
        shapes = ", ".join(f"${n} {spec.short}" for n, spec in args.items())
        raise PlanError(f'"= {text}" does not fit {shapes or "its values"}: {error}') from None
    return list(names), found


def _joined(node: ast.BinOp, left: _Abstract, right: _Abstract) -> _Abstract:
    first = min(left, right, key=lambda value: value.number)
    if left.value is not None and right.value is not None:
        return _Abstract(value=_BINARY[type(node.op)](float(left.value), float(right.value)))
    if not isinstance(node.op, ast.MatMult):
        shape = _broadcast(left.shape, right.shape)
        return _Abstract(shape, first.dtype, first.number, left.elementwise and right.elementwise)
    if min(len(left.shape), len(right.shape)) < 2 or left.shape[-1] != right.shape[-2]:
        raise ValueError(f"{list(left.shape)} @ {list(right.shape)}")
    shape = (*_broadcast(left.shape[:-2], right.shape[:-2]), left.shape[-2], right.shape[-1])
    return _Abstract(shape, first.dtype, first.number, elementwise=False)


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    rank = max(len(a), len(b))
    pairs = list(zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=True))
    if any(x != y and 1 not in (x, y) for x, y in pairs):
        raise ValueError(f"{list(a)} against {list(b)}")
    return tuple(y if x == 1 else x for x, y in pairs)


def _called(name: str, args: list[_Abstract], keywords: Mapping[str, Any]) -> _Abstract:
    tensor, rest = args[0], [arg.value for arg in args[1:]]
    rank = len(tensor.shape)
    if any(value is None for value in rest):
        raise ValueError(f"the further arguments of {name} are numbers")
    if cast := parse_cast(name):
        return replace(tensor, dtype=cast.dtype, value=None)
    if name in _REDUCTIONS:
        axes, keepdims = _axes(rank, rest, keywords)
        shape = tuple(1 if at in axes else size for at, size in enumerate(tensor.shape) if keepdims or at not in axes)
        return replace(tensor, shape=shape, elementwise=False, value=None)
    if name == "take":
        axis = _axis(rest[1] if len(rest) > 1 else 0, rank)
        if (
            not rest
            or not isinstance(rest[0], list)
            or not all(-tensor.shape[axis] <= i < tensor.shape[axis] for i in rest[0])
        ):
            raise ValueError("take needs a list of places that exist")
        shape = (*tensor.shape[:axis], len(rest[0]), *tensor.shape[axis + 1 :])
        return replace(tensor, shape=shape, elementwise=False)
    if name in ("flip", "transpose"):
        picked = [_axis(axis, rank) for axis in rest]
        if name == "transpose" and rest and sorted(picked) != list(range(rank)):
            raise ValueError(f"transpose needs all {rank} axes")
        order = picked if rest and name == "transpose" else range(rank - 1, -1, -1)
        shape = tuple(tensor.shape[axis] for axis in order) if name == "transpose" else tensor.shape
        return replace(tensor, shape=shape, elementwise=False)
    if len(rest) != 2 * (name == "clip"):
        raise ValueError(f"{name} takes {'two numbers' if name == 'clip' else 'nothing'} more")
    return replace(tensor, value=None if tensor.value is None else _scalar(name, tensor.value, rest))


def _scalar(name: str, value: float, rest: Sequence[float]) -> float:
    if name == "clip":
        return min(max(value, rest[0]), rest[1])
    if name.endswith("_like"):
        return float(name == "ones_like")
    return abs(value) if name == "abs" else float(getattr(math, name)(value))


def _axis(axis: Any, rank: int) -> int:
    if not isinstance(axis, int) or not -rank <= axis < rank:
        raise ValueError(f"there is no axis {axis}")
    return axis % rank


def _axes(rank: int, given: Sequence[Any], keywords: Mapping[str, Any]) -> tuple[set[int], bool]:
    """The axes that a reduction reduces, and whether they stay with length 1."""
    if "keep" in keywords:
        kept = keywords["keep"] if isinstance(keywords["keep"], list) else [keywords["keep"]]
        return set(range(rank)) - {_axis(axis, rank) for axis in kept}, bool(keywords.get("keepdims", 1))
    return {_axis(axis, rank) for axis in given} or set(range(rank)), bool(keywords.get("keepdims", bool(given)))


# ---------------------------------------------------------------------------------------------- on numbers


def _computable(array: Array) -> Array:
    """The array in a dtype that arithmetic keeps its precision in."""
    import numpy as np

    if array.dtype.kind == "b":
        return array.astype(np.int64)
    small = array.dtype.itemsize < 4 and array.dtype.kind not in "iu"
    return array.astype(np.float32) if small else array


def _numeric(node: ast.expr, names: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return names[node.id]
    if isinstance(node, ast.UnaryOp):
        inner = _numeric(node.operand, names)
        return -inner if isinstance(node.op, ast.USub) else inner
    if isinstance(node, ast.List):
        return [_numeric(item, names) for item in node.elts]
    if isinstance(node, ast.BinOp):
        left, right = _numeric(node.left, names), _numeric(node.right, names)
        if isinstance(left, int) and isinstance(right, int):
            left = float(left)  # 9**9**9 overflows at once
        return _BINARY[type(node.op)](left, right)
    assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    keywords = {key.arg: _numeric(key.value, names) for key in node.keywords if key.arg}
    return _call(node.func.id, [_numeric(arg, names) for arg in node.args], keywords)


def _call(name: str, args: list[Any], keywords: Mapping[str, Any]) -> Any:
    import numpy as np

    tensor, rest = np.asarray(args[0]), args[1:]
    if cast := parse_cast(name):
        return _computable(tensor.astype(numpy_dtype(cast.dtype)))
    if name in _REDUCTIONS:
        found, keepdims = _axes(tensor.ndim, rest, keywords)
        axes = tuple(sorted(found))
        if name == "norm":
            return np.sqrt(np.sum(np.square(np.abs(tensor)), axis=axes, keepdims=keepdims))
        return getattr(np, name)(tensor, axis=axes, keepdims=keepdims)
    if name == "take":
        return np.take(tensor, rest[0], axis=rest[1] if len(rest) > 1 else 0)
    if name == "flip":
        return np.flip(tensor, tuple(rest) or None)
    if name == "transpose":
        return np.transpose(tensor, tuple(rest) or None)
    return getattr(np, name)(tensor, *rest)
