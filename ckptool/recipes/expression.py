"""Arithmetic on tensors: ``= $1 + (alpha / r) * $3 @ $2``.

``$1`` is the tensor of the first pattern, names are vars, functions are those of `FUNCTIONS` and the dtypes. The text
is parsed by `ast` and walked by hand: nothing is ever evaluated by Python. Half and 8-bit floats are computed in
float32, and the result is rounded once. It has the dtype of the first tensor in it, unless the whole is a cast:
``int64(0)``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ckptool.core.arrays import dtype_of
from ckptool.core.casting import cast
from ckptool.core.dtypes import dtypes_meant
from ckptool.core.errors import PlanError, UsageError
from ckptool.core.ops import parse_cast
from ckptool.core.plan import Run
from ckptool.core.spec import TensorSpec
from ckptool.recipes.expression_specs import BINARY, FUNCTIONS, REDUCTIONS, abstract, axes_of, tree_of
from ckptool.recipes.pattern import malformed

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed ``= EXPR``, with the expression that undoes it where one is written: ``= a <= b``.

    Attributes:
        outputs: one text per tensor it makes.
        undo: the same for the inverse; None where none is written.
    """

    outputs: tuple[str, ...]
    undo: tuple[str, ...] | None = None

    @property
    def variables(self) -> tuple[str, ...]:
        """The names in it that stand for numbers.

        Example:
            >>> Expression.parse("$1 + alpha / r * norm($2)").variables
            ('alpha', 'r')
        """
        found: dict[str, None] = {}
        for text in (*self.outputs, *(self.undo or ())):
            tree = ast.parse(text.replace("$", "_"), mode="eval")
            called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
            for node in ast.walk(tree):
                if isinstance(node, ast.Name) and id(node) not in called and not node.id.startswith("_"):
                    found[node.id] = None
        return tuple(found)

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
        _, found = abstract(self.expression, dict(zip(self.used, args, strict=True)), dict(self.variables))
        if (found.shape, found.dtype) != (self.shape, self.dtype):
            raise PlanError(f'"{self.text}" was made for other tensors')
        return TensorSpec(args[0].key if args else "", self.dtype, self.shape)

    def runs(self, args: Sequence[TensorSpec]) -> list[Run] | None:
        return None

    def compute(self, args: Sequence[Array]) -> Array:
        import numpy as np

        names: dict[str, Any] = {f"_{n}": _computable(arg) for n, arg in zip(self.used, args, strict=True)}
        with np.errstate(all="ignore"):
            found = np.asarray(_numeric(tree_of(self.expression), {**dict(self.variables), **names}))
            return cast(found, self.dtype)


def _bind(text: str, args: Sequence[TensorSpec], variables: Mapping[str, float]) -> tuple[Compute, tuple[int, ...]]:
    numbers = {n: args[n - 1] for n in sorted({int(n) for n in re.findall(r"\$(\d+)", text)})}
    names, found = abstract(text, numbers, variables)
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
    if zero := re.search(r"\$(?![1-9])", body):
        raise malformed("tensors count from $1", rule, at + zero.start())
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
    if not isinstance(tree, ast.Tuple):
        return (body,)
    segments = (ast.get_source_segment(source, node) or "" for node in found)
    return tuple(re.sub(r"(?<!\w)_(\d+)", r"$\1", segment) for segment in segments)


def _check(node: ast.AST) -> None:
    """Raises `ValueError` at the first node that is not on the list."""
    if isinstance(node, ast.BinOp) and type(node.op) in BINARY:
        children: list[ast.AST] = [node.left, node.right]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        children = [node.operand]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        name = node.func.id
        if name not in FUNCTIONS and parse_cast(name) is None:
            meant = ", ".join(dtype.short for dtype in dtypes_meant(name))
            raise ValueError(f"{name} means several dtypes: {meant}" if meant else f"there is no function {name}")
        if wrong := [key.arg for key in node.keywords if name not in REDUCTIONS or key.arg not in ("keep", "keepdims")]:
            raise ValueError(f"{name} has no argument {wrong[0]}")
        children = [*node.args, *(key.value for key in node.keywords)]
        if not node.args:
            raise ValueError(f"{name} needs a tensor")
    elif isinstance(node, ast.List):
        children = [*node.elts]
    elif isinstance(node, ast.Name) or (isinstance(node, ast.Constant) and type(node.value) in (int, float)):
        if isinstance(node, ast.Constant) and type(node.value) is int and node.value >= 1 << 63:
            raise ValueError(f"{node.value} does not fit 64 bits")
        children = []
    else:
        raise ValueError(f"{ast.unparse(node)} is not arithmetic" if isinstance(node, ast.expr) else "no arithmetic")
    for child in children:
        _check(child)


# ---------------------------------------------------------------------------------------------- on numbers


def _computable(array: Array) -> Array:
    """The array in a dtype that arithmetic keeps its precision in."""
    import numpy as np

    if array.dtype.kind == "b":
        return array.astype(np.int64)
    if dtype_of(array) == "complex32":
        return cast(array, "complex64")
    small = array.dtype.itemsize < 4 and array.dtype.kind not in "iu"
    return cast(array, "float32") if small else array


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
        return BINARY[type(node.op)](left, right)
    assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    keywords = {key.arg: _numeric(key.value, names) for key in node.keywords if key.arg}
    return _call(node.func.id, [_numeric(arg, names) for arg in node.args], keywords)


def _call(name: str, args: list[Any], keywords: Mapping[str, Any]) -> Any:
    import numpy as np

    tensor, rest = np.asarray(args[0]), args[1:]
    if op := parse_cast(name):
        return _computable(cast(tensor, op.dtype))
    if name in REDUCTIONS:
        found, keepdims = axes_of(tensor.ndim, rest, keywords)
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
