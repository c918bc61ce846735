"""Which rule turns an old key into a new one: the part of the key that differs, as a rule of the recipe language."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

_PLAIN = re.compile(r"[\w-]+(\.[\w-]+)*")


@dataclass(frozen=True, slots=True)
class Rename:
    """Replaces a run of a key's parts.

    Attributes:
        old: the parts replaced.
        new: what they become.
        at_start: the run begins the key.
        at_end: the run ends the key.
    """

    old: tuple[str, ...]
    new: tuple[str, ...]
    at_start: bool
    at_end: bool

    def __str__(self) -> str:
        """The rule in the recipe language: ``.gamma -> .weight``, ``backbone. ->``."""
        if not self.old:  # parts are put before or after: the rest of the key is captured
            rest, new = "{k**}", ".".join(self.new)
            return f"{rest} -> {new}.{rest}" if self.at_start else f"{rest} -> {rest}.{new}"
        return f"{self._side(self.old)} -> {self._side(self.new)}".rstrip()

    def _side(self, parts: tuple[str, ...]) -> str:
        if not parts:
            return ""
        return ("" if self.at_start else ".") + ".".join(parts) + ("" if self.at_end else ".")

    def spans(self, key: str) -> list[int]:
        """Where in a key's parts the rule applies."""
        parts = key.split(".")
        size = len(self.old)
        if not size:
            return [0 if self.at_start else len(parts)]
        starts = range(len(parts) - size + 1)
        return [
            at
            for at in starts
            if tuple(parts[at : at + size]) == self.old
            and (at == 0) >= self.at_start
            and (at + size == len(parts)) >= self.at_end
        ]

    def apply(self, key: str) -> str | None:
        """The new key; None if the rule does not apply exactly once."""
        spans = self.spans(key)
        if len(spans) != 1:
            return None
        parts = key.split(".")
        return ".".join([*parts[: spans[0]], *self.new, *parts[spans[0] + len(self.old) :]])


def rename_of(old: str, new: str) -> Rename:
    """The smallest run of parts in which two keys differ.

    Example:
        >>> str(rename_of("bn1.gamma", "bn1.weight")), str(rename_of("backbone.fc.bias", "fc.bias"))
        ('.gamma -> .weight', 'backbone. ->')
    """
    a, b = old.split("."), new.split(".")
    shorter = min(len(a), len(b))
    tail = 0
    while tail < shorter and a[-1 - tail] == b[-1 - tail]:
        tail += 1
    head = 0
    while head < shorter - tail and a[head] == b[head]:
        head += 1
    return Rename(tuple(a[head : len(a) - tail]), tuple(b[head : len(b) - tail]), head == 0, tail == 0)


def rename_rules(pairs: Mapping[str, str], kept: Iterable[str]) -> list[str]:
    """Rules that rename exactly the pairs and leave the kept keys alone; the most general first.

    A rule that would also touch another key gives way to one rule per key.

    Example:
        >>> rename_rules({"a.gamma": "a.weight", "b.gamma": "b.weight"}, ["c.bias"])
        ['.gamma -> .weight']
        >>> rename_rules({"a.gamma": "a.weight"}, ["c.gamma"])
        ['a.gamma -> a.weight']
    """
    groups: dict[Rename, list[str]] = defaultdict(list)
    for old, new in pairs.items():
        groups[rename_of(old, new)].append(old)
    others = list(kept)
    rules: list[str] = []
    for rule, olds in sorted(groups.items(), key=lambda item: -len(item[1])):
        mine = set(olds)
        clean = (
            _is_plain(rule)
            and all(rule.apply(old) == pairs[old] for old in olds)
            and not any(rule.spans(key) for key in others)
            and not any(rule.spans(key) for key in pairs if key not in mine)
        )
        if clean:
            rules.append(str(rule))
        else:
            rules.extend(f"{old} -> {pairs[old]}" for old in olds if _is_plain_key(old) and _is_plain_key(pairs[old]))
    return rules


def unsayable(keys: Iterable[str]) -> list[str]:
    """Keys that the recipe language cannot name."""
    return [key for key in keys if not _is_plain_key(key)]


def drop_rules(dropped: Sequence[str], kept: Iterable[str]) -> list[str]:
    """Rules that drop exactly these keys: whole modules as ``fc.{k**} -> !``, the rest by name.

    Example:
        >>> drop_rules(["fc.weight", "fc.bias", "a.b"], ["a.c"])
        ['fc.{k**} -> !', 'a.b -> !']
    """
    mine = {prefix for key in dropped for prefix in _prefixes(key)}
    needed = {prefix for key in kept for prefix in takewhile(mine.__contains__, _prefixes(key))}
    rules: dict[str, None] = {}
    for key in dropped:
        module = next((prefix for prefix in _prefixes(key) if prefix not in needed), None)
        if module is not None and _is_plain_key(module):
            rules[f"{module}.{{k**}} -> !"] = None
        elif _is_plain_key(key):
            rules[f"{key} -> !"] = None
    return list(rules)


def _prefixes(key: str) -> Iterator[str]:
    """The modules a key is in, outermost first."""
    return (key[:at] for at, char in enumerate(key) if char == ".")


def _is_plain_key(key: str) -> bool:
    return _PLAIN.fullmatch(key) is not None and key.isprintable()


def _is_plain(rule: Rename) -> bool:
    return all(_is_plain_key(part) for part in (*rule.old, *rule.new))
