"""A rule being made: the patterns of both sides, and the pairs that it stands for."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

_DOTS = re.compile(r"\.(?![^{}]*\})")
_UNSAYABLE = re.compile(r"[\s{}*|,]|->|'''|\.\.|^[?#!.]|\.$|^$")


class Said(Protocol):
    """Tensors of the source that become tensors of the target, and what is done with their axes."""

    @property
    def sources(self) -> tuple[str, ...]: ...
    @property
    def targets(self) -> tuple[str, ...]: ...
    @property
    def layout(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Line:
    """A rule being made.

    Attributes:
        left: the patterns of the source.
        right: those of the target.
        layout: what is done with the axes.
        said: the pairs that it stands for.
        general: the layout with "..." for all axes but the first, which holds for tensors of several ranks.
    """

    left: tuple[str, ...]
    right: tuple[str, ...]
    layout: str
    said: tuple[Said, ...]
    general: str = ""

    @property
    def text(self) -> str:
        """It in the recipe language."""
        return f"{', '.join(self.left)} -> {', '.join(self.right)}" + (f" | {self.layout}" if self.layout else "")

    @property
    def is_single(self) -> bool:
        """It has one pattern on each side."""
        return len(self.left) == len(self.right) == 1


@dataclass(frozen=True, slots=True)
class Ruled:
    """A rule, and the pairs that it makes, alone or with others; none if it drops."""

    text: str
    said: tuple[Said, ...]


def is_sayable(key: str) -> bool:
    """The rule language can name this key.

    Example:
        >>> is_sayable("layer1.0.conv1.weight"), is_sayable("a{b.weight"), is_sayable("a..b")
        (True, False, False)
    """
    return key.isprintable() and _UNSAYABLE.search(key) is None


def parts_of(pattern: str) -> list[str]:
    """The parts of a pattern.

    Example:
        >>> parts_of("a.{n=0.x|1.y}.b")
        ['a', '{n=0.x|1.y}', 'b']
    """
    return _DOTS.split(pattern)


def with_roles(lines: Iterable[Line], source: Iterable[str]) -> list[Line]:
    """Lines that differ in the last parts of their patterns only as one: ``{p*}``, or ``{p=weight|bias}``.

    Args:
        lines: literal ones.
        source: all keys that there are.

    Example:
        >>> one, two = (Line((f"a.{x}",), (f"b.{x}",), "", ()) for x in ("weight", "bias"))
        >>> with_roles([one, two], ["a.weight", "a.bias"])[0].text
        'a.{p*} -> b.{p*}'
        >>> with_roles([one, two], ["a.weight", "a.bias", "a.scale"])[0].text
        'a.{p=weight|bias} -> b.{p}'
    """
    sizes, first = Counter[str](), dict[str, int]()
    for key in source:
        module, _, end = key.rpartition(".")
        sizes[module] += 1
        first.setdefault(end, len(first))
    groups: dict[object, list[tuple[Line, str, str]]] = defaultdict(list)
    found: list[Line] = []
    for line in lines:
        left, right = ([pattern.rpartition(".")[::2] for pattern in side] for side in (line.left, line.right))
        ends = {end for _, end in left}
        if len(ends) == len({end for _, end in right}) == 1 and ends <= first.keys() and all(head for head, _ in left):
            modules = tuple(head for head, _ in left), tuple(head for head, _ in right)
            groups[modules, line.general or line.layout].append((line, left[0][1], right[0][1]))
        else:
            found.append(line)
    for row in groups.values():
        row.sort(key=lambda one: first[one[1]])
    return [*found, *(row[0][0] if len(row) == 1 else _together(row, sizes) for row in groups.values())]


def _together(row: Sequence[tuple[Line, str, str]], sizes: Counter[str]) -> Line:
    first = row[0][0]
    ours, theirs = [one for _, one, _ in row], [other for _, _, other in row]
    whole = first.is_single and not first.layout and sizes[first.left[0].rpartition(".")[0]] == len(row)
    left, right = _ends(ours, theirs, whole)
    alike = len({line.layout for line, _, _ in row}) == 1
    return Line(
        tuple(f"{pattern.rpartition('.')[0]}.{left}" for pattern in first.left),
        tuple(f"{head}.{right}" if (head := pattern.rpartition(".")[0]) else right for pattern in first.right),
        first.layout if alike else first.general,
        tuple(pair for line, _, _ in row for pair in line.said),
        first.general,
    )


def _ends(ours: Sequence[str], theirs: Sequence[str], whole: bool) -> tuple[str, str]:
    """The last parts of both sides as a capture or a choice, what all begin or end with before and behind it."""
    (before, a, behind), (head, b, tail) = apart(ours), apart(theirs)
    if a == b and whole and not behind and not tail:
        return f"{before}{{p*}}", f"{head}{{p*}}"
    left, right = ("{p=" + "|".join(row) + "}" for row in (a, b))
    return f"{before}{left}{behind}", f"{head}{right if a != b else '{p}'}{tail}"


def apart(texts: Sequence[str]) -> tuple[str, list[str], str]:
    """What all begin with, up to an underscore or slash; what is left of each; what all end with, from one on.

    Example:
        >>> apart(["q_proj", "k_proj"]), apart(["ln/gamma", "ln/beta"])
        (('', ['q', 'k'], '_proj'), ('ln/', ['gamma', 'beta'], ''))
    """
    rows = [re.split(r"(?<=[_/])|(?=[_/])", text) for text in texts]
    same = 0
    while all(len(row) > same + 1 for row in rows) and len({row[same] for row in rows}) == 1:
        same += 1
    while same and rows[0][same - 1][-1] not in "_/":
        same -= 1
    end = 0
    while all(len(row) > same + end + 1 for row in rows) and len({row[-1 - end] for row in rows}) == 1:
        end += 1
    while end and rows[0][-end][0] not in "_/":
        end -= 1
    before, behind = "".join(rows[0][:same]), "".join(rows[0][len(rows[0]) - end :])
    return before, [text[len(before) : len(text) - len(behind)] for text in texts], behind
