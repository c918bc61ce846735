"""Preconditions of a recipe: what must be true of the input's headers and of the JSON files beside it.

Four forms: ``PATTERN: CONDITION`` on every tensor that the pattern matches, with the names ``shape``, ``ndim``,
``dtype``, ``elements`` and ``count`` (of matching keys); ``PATTERN, PATTERN: CONDITION`` on tensors whose captures are
equal, with ``$1.shape`` and ``$2.shape``, where all of them are there; ``FILE.json: CONDITION`` on the values of a JSON
file, where a name that is absent counts as false and an absent file says nothing; ``no PATTERN``.
"""

from __future__ import annotations

import ast
import json
import operator
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from ckptool.core.errors import MissingError, UsageError
from ckptool.core.keys import Pattern as KeyPattern
from ckptool.core.outlines import by_outline, outline
from ckptool.core.spec import TensorSpec
from ckptool.recipes.pattern import Pattern, parse_pattern

_MAX_TEXT = 1000
_MANY = 10_000  # keys whose outlines are looked at first
_ARITHMETIC: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


@dataclass(frozen=True, slots=True)
class Requirement:
    """One precondition.

    Attributes:
        text: it as it is written.
        subject: the patterns, or the JSON file.
        condition: what must hold; None for ``no PATTERN``.
    """

    text: str
    subject: str
    condition: ast.expr | None

    @property
    def is_file(self) -> bool:
        return self.subject.endswith(".json")

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns; several are written with commas outside of braces."""
        return tuple(part.strip() for part in re.split(r",(?![^{]*\})", self.subject))


def parse_requirement(text: str, name: str = "") -> Requirement:
    """A precondition from its text.

    Raises:
        UsageError: it is of none of the four forms.

    Example:
        >>> parse_requirement("{m**}.weight_g: elements == shape[0]").subject
        '{m**}.weight_g'
        >>> parse_requirement("no *.lora_magnitude_vector").condition is None
        True
    """
    if match := re.fullmatch(r"no\s+(\S.*)", text.strip()):
        return Requirement(text, match[1], None)
    subject, colon, condition = text.partition(": ")
    if not colon or not subject.strip() or len(text) > _MAX_TEXT:
        raise _bad(text, name, "it is PATTERN: CONDITION, FILE.json: CONDITION, or no PATTERN")
    try:
        tree = ast.parse(re.sub(r"\$([1-9])", r"_\1", condition.strip()), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _bad(text, name, "the condition cannot be read") from None
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED):
            raise _bad(text, name, "a condition has names, numbers, + - *, comparisons, and, or, not, shape[0]")
    found = Requirement(text, subject.strip(), tree)
    if not found.is_file and len(found.patterns) > 1:
        for pattern in found.patterns:
            if not parse_pattern(pattern).is_whole:
                raise _bad(text, name, "several patterns name whole keys")
    return found


_ALLOWED = (
    ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.Compare, ast.cmpop, ast.Name, ast.Load,
    ast.Constant, ast.Subscript, ast.Attribute, ast.BinOp, ast.Add, ast.Sub, ast.Mult,
)  # fmt: skip


def _bad(text: str, name: str, hint: str) -> UsageError:
    return UsageError(f'{name + ": " if name else ""}require "{text}" is not a precondition', hint=hint)


def unmet_by_keys(requirements: Sequence[Requirement], specs: Mapping[str, TensorSpec]) -> Iterator[tuple[str, str]]:
    """(requirement, the key that does not meet it) of each precondition on tensors that is not met.

    Example:
        >>> spec = TensorSpec("conv.weight_g", "float32", (1, 1, 5))
        >>> list(unmet_by_keys([parse_requirement("{m**}.weight_g: elements == shape[0]")], {spec.key: spec}))
        [('{m**}.weight_g: elements == shape[0]', 'conv.weight_g')]
    """
    alike = by_outline(tuple(specs)) if requirements and len(specs) > _MANY else {}
    for requirement in requirements:
        if requirement.is_file:
            continue
        if len(requirement.patterns) > 1:
            joint = _joint(requirement, specs, alike)
            key = next((key for key, names in joint if not _holds(requirement.condition, names)), None)
            if key is not None:
                yield requirement.text, key
            continue
        found = _meant(requirement.subject, specs, alike)
        for key in found:
            if requirement.condition is None or not _holds(requirement.condition, _names(specs[key], len(found))):
                yield requirement.text, key
                break


def require_files(
    requirements: Iterable[Requirement], folder: PurePath, name: str, read_text: Callable[[PurePath], str]
) -> None:
    """Refuses an input whose JSON files say that a precondition is not met.

    Args:
        requirements: of the recipe.
        folder: where the input is.
        name: of the recipe.
        read_text: reads a small file.

    Raises:
        UsageError: with the precondition and the file.
    """
    for requirement in requirements:
        path = folder / requirement.subject
        if requirement.condition is None or not requirement.is_file:
            continue
        try:
            values = json.loads(read_text(path))
        except MissingError:
            continue
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path.name} is not JSON: {error}", path=path) from None
        if not isinstance(values, dict) or not _holds(requirement.condition, values):
            raise UsageError(
                f'the recipe {name} does not fit this input: it requires "{requirement.text}"',
                hint=f"{path.name} beside the input says otherwise; use another recipe",
                path=path,
            )


def _joint(
    requirement: Requirement, specs: Mapping[str, TensorSpec], alike: Mapping[str, list[str]]
) -> Iterator[tuple[str, dict[str, dict[str, object]]]]:
    """(key of the first pattern, the names of all patterns' tensors) wherever each pattern has its tensor."""
    first, *others = map(parse_pattern, requirement.patterns)
    for key in _possible(specs, alike, first.outline):
        values = first.match(key)
        if values is None:
            continue
        keys = [key, *(pattern.write(values) for pattern in others)]
        if all(each in specs for each in keys):
            yield key, {f"_{number}": _names(specs[each], 1) for number, each in enumerate(keys, 1)}


def _meant(pattern: str, keys: Collection[str], alike: Mapping[str, list[str]]) -> list[str]:
    """The keys that a pattern means, all at once: a regex asks a process."""
    if "{" not in pattern:
        glob = KeyPattern.parse(pattern)
        return glob.select(_possible(keys, alike, glob))
    parsed = parse_pattern(pattern)
    if not parsed.is_whole:
        return []
    return [key for key in _possible(keys, alike, parsed.outline) if parsed.match(key) is not None]


def _possible(keys: Collection[str], alike: Mapping[str, list[str]], pattern: KeyPattern | Pattern) -> Collection[str]:
    """The keys without those whose outline tells that a pattern, or one whose outline it is, does not match them.

    Args:
        keys: all.
        alike: them by outline, where they are many.
        pattern: it.
    """
    if isinstance(pattern, KeyPattern):
        possible = set(pattern.possible(map(outline, alike)))  # a long key stands for itself
    else:
        possible = {text for text in map(outline, alike) if pattern.search().search(text) is not None}
    outlines = [text for text in alike if outline(text) in possible]
    if len(outlines) == len(alike):
        return keys
    wanted = {key for text in outlines for key in alike[text]}
    return [key for key in keys if key in wanted] if wanted else ()


def _names(spec: TensorSpec, count: int) -> dict[str, object]:
    return {
        "shape": spec.shape,
        "ndim": len(spec.shape),
        "dtype": spec.dtype,
        "elements": spec.elements,
        "count": count,
    }


def _holds(condition: ast.expr | None, names: Mapping[str, object]) -> bool:
    """True if a condition holds; what cannot be compared, and an axis that is not there, does not."""
    if condition is None:
        return False
    try:
        return bool(_value(condition, names))
    except (TypeError, IndexError, KeyError):
        return False


def _value(node: ast.expr, names: Mapping[str, object]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return names.get(name)
        case ast.Attribute(value=inner, attr=name):
            outer = _value(inner, names)
            return outer.get(name) if isinstance(outer, dict) else None
        case ast.Subscript(value=inner, slice=index):
            return _value(inner, names)[_value(index, names)]
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return not _value(inner, names)
        case ast.BinOp(left=left, op=op, right=right):
            sides = _value(left, names), _value(right, names)
            if not all(type(side) is int for side in sides):
                raise TypeError("only whole numbers are added and multiplied")
            return _ARITHMETIC[type(op)](*sides)
        case ast.UnaryOp(operand=inner):
            return -_value(inner, names)
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_value(part, names) for part in parts)
        case ast.BoolOp(values=parts):
            return any(_value(part, names) for part in parts)
        case ast.Compare(left=left, ops=ops, comparators=others):
            values = [_value(each, names) for each in (left, *others)]
            pairs = zip(ops, values[:-1], values[1:], strict=True)
            return all(_COMPARE[type(op)](first, second) for op, first, second in pairs)
    raise TypeError(type(node).__name__)
