"""The methods of ``fit`` and their arguments: ``grid(prefix=1, mode='bicubic')`` as typed values, and what is wrong.

The text is Python's notation for a call, read with `ast`; nothing of it is evaluated. Words need no quotes where they
are plain: ``rows(fill=keep)``.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ckptool.core.errors import UsageError

__all__ = ["METHODS", "Fit", "normal_std", "parse_fit", "parse_options"]

_LONGEST = 1 << 18  # a list of 21,843 classes is 130 kB


@dataclass(frozen=True, slots=True)
class _Kind:
    """Values that an argument may have, and how they are called."""

    name: str
    accepts: Callable[[object], bool]


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 31


def _is_size(value: object) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(_is_count(length) and length for length in value)


def _is_choice(value: object) -> bool:
    numbers = isinstance(value, list | tuple) and all(at is None or _is_count(at) for at in value)
    return numbers or (isinstance(value, str) and bool(value))


def _is_fill(value: object) -> bool:
    return isinstance(value, str) and (value in ("keep", "zeros", "mean") or normal_std(value) is not None)


def _one_of(*names: str) -> _Kind:
    return _Kind(" or ".join(repr(name) for name in names), lambda value: value in names)


def normal_std(text: str) -> float | None:
    """The deviation in ``normal(0.02)``; None if the text is none such.

    Example:
        >>> normal_std("normal(0.02)"), normal_std("keep")
        (0.02, None)
    """
    match = re.fullmatch(r"normal\(\s*(\d*\.?\d+(?:[eE][+-]?\d{1,3})?)\s*\)", text)
    return float(match[1]) if match else None


_COUNT = _Kind("a number", _is_count)
_CHANNELS = _Kind("a number above 0", lambda value: _is_count(value) and bool(value))
_FLAG = _Kind("True or False", lambda value: isinstance(value, bool))
_SIZE = _Kind("two numbers, as in (14, 14)", _is_size)
_FILE = _Kind("the name of a file", lambda value: isinstance(value, str) and bool(value))
_ROWS = _Kind("a list of row numbers, or the name of a file with one", _is_choice)
_FILL = _Kind("'keep', 'zeros', 'mean' or 'normal(0.02)'", _is_fill)
_VALUE = _Kind(
    "a number, 'keep', 'mean' or 'normal(0.02)'", lambda value: type(value) in (int, float) or _is_fill(value)
)

METHODS: Mapping[str, Mapping[str, _Kind]] = {
    "rows": {"rows": _ROWS, "fill": _FILL, "labels_source": _FILE, "labels_target": _FILE},
    "channels": {"base": _CHANNELS},
    "grid": {
        "prefix": _COUNT,
        "mode": _one_of("bicubic", "bilinear"),
        "antialias": _FLAG,
        "source_grid": _SIZE,
        "target_grid": _SIZE,
        "layout": _one_of("nchw", "nhwc"),
    },
    "table": {
        "mode": _one_of("bicubic", "bilinear", "geometric"),
        "antialias": _FLAG,
        "source_window": _SIZE,
        "target_window": _SIZE,
    },
    "patch": {"mode": _one_of("bicubic", "bilinear"), "antialias": _FLAG},
    "pad": {"value": _VALUE},
    "slice": {},
}
"""Every method of ``fit`` with its arguments."""

_ABOUT_EQUAL_SHAPES = frozenset(
    {"rows", "labels_source", "labels_target", "source_grid", "target_grid", "source_window", "target_window"}
)


@dataclass(frozen=True, slots=True)
class Fit:
    """``fit METHOD(args)``: makes a tensor fit its target's shape, once there is a target.

    Example:
        >>> Fit("rows", "labels_source='a.txt', labels_target='b.txt'").moves, Fit("rows", "fill='keep'").moves
        (True, False)
    """

    method: str
    args: str = ""

    @property
    def text(self) -> str:
        return f"fit {self.method}" + (f"({self.args})" if self.args else "")

    @property
    def options(self) -> dict[str, Any]:
        """Its arguments; `UsageError` where they are not the method's."""
        return parse_options(self.method, self.args)

    @property
    def moves(self) -> bool:
        """It says which rows or positions are meant, and may change a tensor that has its target's shape already."""
        return not _ABOUT_EQUAL_SHAPES.isdisjoint(self.options)

    def __str__(self) -> str:
        return self.text


def parse_fit(text: str) -> Fit | None:
    """``METHOD`` or ``METHOD(args)``, as it stands behind ``fit``; None for anything else.

    Raises:
        UsageError: there is no such method, or it has no such arguments.

    Example:
        >>> parse_fit("grid(prefix=1)")
        Fit(method='grid', args='prefix=1')
    """
    match = re.fullmatch(r"\s*([a-z_]+)\s*(?:\((.*)\))?\s*", text, re.DOTALL)
    if match is None:
        return None
    fit = Fit(match[1], (match[2] or "").strip())
    parse_options(fit.method, fit.args)
    return fit


def parse_options(method: str, args: str) -> dict[str, Any]:
    """The arguments of a method, each of its type; lists become tuples.

    Raises:
        UsageError: there is no such method or argument, or its value is of another type.

    Example:
        >>> parse_options("grid", "prefix=1, mode='bicubic', source_grid=(14, 7)")
        {'prefix': 1, 'mode': 'bicubic', 'source_grid': (14, 7)}
        >>> parse_options("rows", "fill=normal(0.02)")
        {'fill': 'normal(0.02)'}
    """
    known = METHODS.get(method)
    if known is None:
        raise UsageError(f'unknown fit "{method}"', hint=_meant(method, METHODS))
    found: dict[str, Any] = {}
    for name, node in _keywords(method, args):
        if name not in known:
            raise UsageError(
                f'"fit {method}" has no argument {name}', hint=_meant(name, known) if known else "it takes none"
            )
        value = _value(node)
        if not known[name].accepts(value):
            raise UsageError(f'{name} of "fit {method}" is {known[name].name}, not {ast.unparse(node)[:60]}')
        found[name] = tuple(value) if isinstance(value, list) else value
    return found


def _keywords(method: str, args: str) -> list[tuple[str, ast.expr]]:
    wrong = UsageError(
        f'the arguments of "fit {method}" cannot be read', hint="they are written name=value, name=value"
    )
    if len(args) > _LONGEST:
        raise UsageError(f'the arguments of "fit {method}" are too long', hint="put the list into a file and name it")
    try:
        call = ast.parse(f"f({args})", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise wrong from None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
        raise wrong
    names = [keyword.arg for keyword in call.keywords]
    if None in names or len(set(names)) < len(names):
        raise wrong
    return [(keyword.arg or "", keyword.value) for keyword in call.keywords]


def _value(node: ast.expr) -> object:
    """A constant, a list of constants, or a word; None for anything else, which no argument accepts."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "normal":
        return ast.unparse(node)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def _meant(name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f'did you mean "{near[0]}"?' if near else f"there are {', '.join(known)}"
