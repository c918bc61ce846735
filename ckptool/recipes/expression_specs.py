"""What an expression makes, from headers alone: dtype, shape, and whether it is elementwise."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any

from ckptool.core.errors import PlanError
from ckptool.core.ops import parse_cast
from ckptool.core.spec import DTYPES, TensorSpec

REDUCTIONS = ("sum", "mean", "norm", "min", "max")
ELEMENTWISE = ("sqrt", "exp", "log", "abs", "clip", "zeros_like", "ones_like")
MOVES = ("flip", "transpose", "take")
FUNCTIONS = (*REDUCTIONS, *ELEMENTWISE, *MOVES)
"""``sum mean norm min max`` take the axes to reduce, which stay with length 1 (``keepdims=0`` removes them, ``keep=0``
reduces all axes but 0); ``take($1, [2, 0], 1)`` picks along an axis; ``clip($1, 0, 6)``; the others as in numpy."""

BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.MatMult: operator.matmul,
}


_SMALL = 1 << 26  # elements that any expression may make
_RATIO = 1000  # elements of a result for each of its tensors'; a LoRA of rank 16 on an embedding has 250


@lru_cache(maxsize=256)
def tree_of(text: str) -> ast.expr:
    """The tree of a checked expression; ``$1`` is the name ``_1``."""
    return ast.parse(re.sub(r"\$(\d+)", r"_\1", text), mode="eval").body


@dataclass(frozen=True, slots=True)
class Abstract:
    """What is known of a value without computing it; `number` is the n of the ``$n`` that its dtype comes from."""

    shape: tuple[int, ...] = ()
    dtype: str | None = None
    number: float = math.inf
    elementwise: bool = True
    value: Any = None


def abstract(text: str, args: Mapping[int, TensorSpec], variables: Mapping[str, float]) -> tuple[list[str], Abstract]:
    """The names used, and what comes out. Raises `PlanError` where shapes do not fit."""
    names: dict[str, None] = {}

    def walk(node: ast.expr) -> Abstract:
        if isinstance(node, ast.Constant):
            return Abstract(value=node.value)
        if isinstance(node, ast.Name):
            if re.fullmatch(r"_\d+", node.id):
                spec = args[int(node.id[1:])]
                if DTYPES[spec.dtype].kind in ("quantized", "bits") or DTYPES[spec.dtype].is_packed:
                    raise PlanError(f"{spec.dtype} cannot be computed with", key=spec.key)
                return Abstract(spec.shape, spec.dtype, int(node.id[1:]))
            if node.id not in variables:
                raise PlanError(f'"= {text}" needs a value for {node.id}', hint=f"vars.{node.id} = ... in the recipe")
            names[node.id] = None
            return Abstract(value=variables[node.id])
        if isinstance(node, ast.UnaryOp):
            inner = walk(node.operand)
            minus = isinstance(node.op, ast.USub) and inner.value is not None
            return replace(inner, value=-inner.value) if minus else inner
        if isinstance(node, ast.List):
            return Abstract(value=[walk(item).value for item in node.elts])
        if isinstance(node, ast.BinOp):
            return _joined(node, bounded(node.left), bounded(node.right))
        assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        keywords = {key.arg: walk(key.value).value for key in node.keywords if key.arg}
        return _called(node.func.id, [bounded(arg) for arg in node.args], keywords)

    largest = max(_SMALL, _RATIO * sum(prod(spec.shape) for spec in args.values()))

    def bounded(node: ast.expr) -> Abstract:
        found = walk(node)
        if prod(found.shape) > largest:
            raise ValueError(f"{list(found.shape)} is far larger than the tensors that it is made of")
        return found

    try:
        found = bounded(tree_of(text))
    except (ArithmeticError, TypeError, ValueError, IndexError) as error:
        shapes = ", ".join(f"${n} {spec.short}" for n, spec in args.items())
        raise PlanError(f'"= {text}" does not fit {shapes or "its values"}: {error}') from None
    return list(names), found


def _joined(node: ast.BinOp, left: Abstract, right: Abstract) -> Abstract:
    first = min(left, right, key=lambda value: value.number)
    if isinstance(node.op, ast.Div) and right.value == 0:
        raise ZeroDivisionError("division by zero")
    if left.value is not None and right.value is not None:
        return Abstract(value=BINARY[type(node.op)](float(left.value), float(right.value)))
    if not isinstance(node.op, ast.MatMult):
        shape = _broadcast(left.shape, right.shape)
        return Abstract(shape, first.dtype, first.number, left.elementwise and right.elementwise)
    if min(len(left.shape), len(right.shape)) < 2 or left.shape[-1] != right.shape[-2]:
        raise ValueError(f"{list(left.shape)} @ {list(right.shape)}")
    shape = (*_broadcast(left.shape[:-2], right.shape[:-2]), left.shape[-2], right.shape[-1])
    return Abstract(shape, first.dtype, first.number, elementwise=False)


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    rank = max(len(a), len(b))
    pairs = list(zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=True))
    if any(x != y and 1 not in (x, y) for x, y in pairs):
        raise ValueError(f"{list(a)} against {list(b)}")
    return tuple(y if x == 1 else x for x, y in pairs)


def _called(name: str, args: list[Abstract], keywords: Mapping[str, Any]) -> Abstract:
    tensor, rest = args[0], [arg.value for arg in args[1:]]
    rank = len(tensor.shape)
    if any(value is None for value in rest):
        raise ValueError(f"the further arguments of {name} are numbers")
    if cast := parse_cast(name):
        return replace(tensor, dtype=cast.dtype, value=None)
    if name in REDUCTIONS:
        axes, keepdims = axes_of(rank, rest, keywords)
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


def axes_of(rank: int, given: Sequence[Any], keywords: Mapping[str, Any]) -> tuple[set[int], bool]:
    """The axes that a reduction reduces, and whether they stay with length 1."""
    if "keep" in keywords:
        kept = keywords["keep"] if isinstance(keywords["keep"], list) else [keywords["keep"]]
        return set(range(rank)) - {_axis(axis, rank) for axis in kept}, bool(keywords.get("keepdims", 1))
    return {_axis(axis, rank) for axis in given} or set(range(rank)), bool(keywords.get("keepdims", bool(given)))
