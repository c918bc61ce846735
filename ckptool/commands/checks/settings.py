"""What a policy asks for: settings, each with the line it stands on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import PurePath
from typing import Any, Generic, Literal, TypeVar

from ckptool.commands.checks.finding import Level, Place
from ckptool.core.globs import STAR, Automaton, CharClass, Choice, Node, Repeat
from ckptool.core.keys import Pattern

_Value = TypeVar("_Value")

ALLOW: dict[str, str] = {
    "missing": "fits",
    "unexpected": "fits",
    "mismatched": "fits",
    "complete": "complete",
    "dtype": "dtype",
    "nonfinite": "nonfinite",
    "dead": "dead",
    "drift": "drift",
    "lock": "lock",
    "wrapper": "wrapper",
    "globals": "unsafe-pickle",
    "leftover": "leftover",
    "facts": "facts",
    "quantized": "quantized",
    "ranks": "ranks",
    "shards": "shards",
}
"""The allow-lists of a policy, and the rule that each of them softens."""
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
class Drift:
    """``drift = {from = "base.pth", keys = "backbone.*", rel = 0.0}``.

    Attributes:
        base: the checkpoint compared with, as the policy has it.
        keys: patterns of the tensors that must not move.
        rel: how far they may: ||new - base|| / ||base||.
    """

    base: str
    keys: tuple[str, ...] = ("*",)
    rel: float = 0.0


@dataclass(frozen=True, slots=True)
class Allow:
    """One entry of an allow-list.

    Attributes:
        list: the list's name, "missing".
        pattern: which names it excuses.
        place: where it stands.
    """

    list: str
    pattern: Pattern
    place: Place

    @property
    def rule(self) -> str:
        return ALLOW[self.list]


@dataclass(frozen=True, slots=True)
class Settings:
    """What one file must keep to. What is None is not asked for.

    Attributes:
        into: a model or checkpoint that the file must fit.
        model_args: arguments to build that model with.
        recipe: rules or recipes that make the keys which must fit.
        complete_with: the checkpoint whose tensors the file must have.
        select: the dict of the file that holds the weights.
        dtypes: the dtypes that may occur, by torch's names.
        max_size: bytes on disk.
        drift: parts that must be as in another checkpoint.
        lock: the lock file.
        metadata: names that must be there, with the text that they must have (None for any).
        tied: groups of keys that must be one tensor.
        levels: levels of rules by name, or "off".
        allow: what is excused.
    """

    into: Setting[str] | None = None
    model_args: Setting[Mapping[str, Any]] | None = None
    recipe: Setting[tuple[str, ...]] | None = None
    complete_with: Setting[str] | None = None
    select: Setting[str] | None = None
    dtypes: Setting[tuple[str, ...]] | None = None
    max_size: Setting[int] | None = None
    drift: Setting[tuple[Setting[Drift], ...]] | None = None
    lock: Setting[str] | None = None
    metadata: Setting[Mapping[str, str | None]] | None = None
    tied: Setting[tuple[tuple[str, ...], ...]] | None = None
    levels: Mapping[str, Setting[Level | Literal["off"]]] = field(default_factory=dict)
    allow: tuple[Allow, ...] = ()

    def get(self, key: str) -> Setting[Any] | None:
        """The setting of a policy key, "max-size"."""
        found: Setting[Any] | None = getattr(self, key.replace("-", "_"))
        return found

    def with_(self, other: Settings) -> Settings:
        """These settings with those of a narrower path on top: keys and levels replace, allow-lists add up."""
        both: dict[str, Any] = {"levels": {**self.levels, **other.levels}, "allow": (*self.allow, *other.allow)}
        for each in fields(Settings):
            if each.name not in both:
                mine = getattr(other, each.name)
                both[each.name] = getattr(self, each.name) if mine is None else mine
        return Settings(**both)


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
