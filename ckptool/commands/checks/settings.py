"""What a policy asks for: settings, each with the line it stands on, and how their values are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import PurePath
from typing import Any, Generic, Literal, NoReturn, TypeAlias, TypeVar

from ckptool.commands.checks.finding import Level, Place
from ckptool.commands.checks.toml_lines import key_lines
from ckptool.core.errors import CkptError, UsageError
from ckptool.core.globs import STAR, Automaton, CharClass, Choice, Node, Repeat
from ckptool.core.keys import Pattern

_Value = TypeVar("_Value")

ALSO = {"missing": "facts"}
"""A further rule that a list softens."""


@dataclass(frozen=True, slots=True)
class Setting(Generic[_Value]):
    """A value, and where it stands.

    Attributes:
        value: it.
        place: where it is written.
        is_typed: on the command line, so it is not the policy's.
    """

    value: _Value
    place: Place
    is_typed: bool = False


@dataclass(frozen=True, slots=True)
class Allow:
    """One entry of an allow-list.

    Attributes:
        list: the list's name, "missing".
        rule: the rule that the list softens.
        pattern: which names it excuses.
        place: where it stands.
    """

    list: str
    rule: str
    pattern: Pattern
    place: Place


@dataclass(frozen=True, slots=True)
class Settings:
    """What one file must keep to. What is not there is not asked for.

    Attributes:
        values: by the name of their key, "max-size".
        levels: levels of rules by name, or "off".
        allow: what is excused.
    """

    values: Mapping[str, Setting[Any]] = field(default_factory=dict)
    levels: Mapping[str, Setting[Level | Literal["off"]]] = field(default_factory=dict)
    allow: tuple[Allow, ...] = ()

    def get(self, key: Key[_Value]) -> Setting[_Value] | None:
        """The setting of a policy key."""
        return self.values.get(key.name)

    def with_(self, other: Settings) -> Settings:
        """These settings with those of a narrower path on top: keys and levels replace, allow-lists add up."""
        return Settings({**self.values, **other.values}, {**self.levels, **other.levels}, (*self.allow, *other.allow))


At: TypeAlias = tuple[str | int, ...]
"""Where a value stands in a policy: ("paths", 0, "max-size")."""


class PolicyReader:
    """Reads the values of one policy: each is of its kind, or an error with its line."""

    def __init__(self, file: PurePath, text: str) -> None:
        self.file = file
        self.lines = key_lines(text)
        self.written = text.replace("\r\n", "\n").split("\n")

    def text(self, value: Any, at: At) -> str:
        if not isinstance(value, str) or not value:
            self.refuse(f"{at[-1]} is not text", at, f'{at[-1]} = "..."')
        return str(value)

    def table(self, value: Any, at: At) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.refuse(f"{at[-1]} is not a table", at, f"{at[-1]} = {{ name = value }}")
        return dict(value)

    def texts(self, value: Any, at: At) -> tuple[str, ...]:
        """One text, or a list of them."""
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not values or not all(isinstance(each, str) and each for each in values):
            self.refuse(f"{at[-1]} is not a list of texts", at, f'{at[-1]} = ["...", "..."]')
        return tuple(values)

    def pattern(self, text: str, at: At) -> Pattern:
        try:
            return Pattern.parse(text)
        except CkptError as error:
            self.refuse(error.message, at, error.hint or "")

    def place(self, at: At) -> Place:
        while at and at not in self.lines:
            at = at[:-1]
        line = self.lines.get(at)
        return Place(str(self.file), line, "" if line is None else self.written[line - 1].strip())

    def refuse(self, message: str, at: At, hint: str = "") -> NoReturn:
        place = self.place(at)
        raise UsageError(f"{place.file}:{place.line or 1}: {message}", hint=hint or None, path=self.file)


@dataclass(frozen=True, slots=True)
class Key(Generic[_Value]):
    """A key of a policy.

    Attributes:
        name: it, "max-size".
        read: gives its value: given the reader, what the policy says, and where.

    Example:
        >>> Key("lock", PolicyReader.text).read(PolicyReader(PurePath("ckptool.toml"), 'lock = "a"'), "a", ("lock",))
        'a'
    """

    name: str
    read: Callable[[PolicyReader, Any, At], _Value]


SELECT: Key[str] = Key("select", PolicyReader.text)
"""The dict of the file that holds the weights."""


def path_matches(pattern: str, path: str) -> bool:
    """True if a pattern of `[[paths]]` means the path or a folder above it; both are relative, with slashes.

    ``*`` and ``?`` stay within one name, ``**`` goes through folders. A pattern without a slash is the name of a file
    or folder at any depth.

    Example:
        >>> path_matches("weights/*.pth", "weights/a.pth"), path_matches("*.pth", "a/b/c.pth")
        (True, True)
        >>> path_matches("weights/*.pth", "weights/old/a.pth"), path_matches("weights/**", "weights/old/a.pth")
        (False, True)
    """
    return bool(_path_matcher(pattern).select((PurePath(path).as_posix(),)))


@lru_cache(maxsize=1024)
def _path_matcher(pattern: str) -> Automaton:
    text = pattern.removeprefix("./").rstrip("/")
    name = Repeat(CharClass((("/", "/"),), negated=True))
    known: dict[str, Node] = {"**/": Choice(((), (STAR, "/"))), "**": STAR, "*": name, "?": name.of}
    nodes: list[Node] = [] if "/" in text else [known["**/"]]
    for piece in re.split(r"(\*\*/|\*\*|\*|\?)", text):
        nodes += [known[piece]] if piece in known else piece
    return Automaton([*nodes, Choice(((), ("/", STAR)))], pattern)
