"""Key patterns: which keys a user means; natural order; wrapper prefixes.

People know shell globs, so a pattern is one: ``*`` crosses dots, as in `fnmatch`. ``{0-6,8-31}`` and ``{a,b}`` are
added, so that what the tables print folded can be pasted. A name without wildcards is the key or module of that name:

=====================  ==============================================================================
``fc.*``, ``*bn[12]*``  a glob on the whole key: ``*``, ``?``, ``[12]``, ``[!a]``
``bias``, ``fc``        a word: every key whose last part it is, and the top-level module of that name
``layer1.{0,1}``        a dotted name: that key, or everything below that module
``layer{8-11}``         numbers; ``{8..11}`` is the same
``re:.*\\.q\\d``          a Python regex on the whole key, which may take two seconds
=====================  ==============================================================================

A character with a meaning is taken literally inside brackets: ``[*]``, ``[{]``, ``[[]``. Any bracket also makes a
pattern a glob on the whole key, which is how `quote` pins a word down to one key: ``[f]c``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ckptool.core.errors import UsageError
from ckptool.core.globs import ANY, STAR, Automaton, CharClass, Choice, Node, Repeat, numbers, outlined, regex_of

MAX_TEXT = 10_000  # characters of a pattern
_MAX_NESTING = 20
_RANGE = re.compile(r"([0-9]+)(?:-|\.\.)([0-9]+)")


class Matcher(Protocol):
    """What a pattern is compiled to."""

    def select(self, keys: Iterable[str], /) -> list[str]:
        """Those of the keys that the whole pattern matches, in their order."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A parsed key pattern; equal patterns have equal texts. Make one with `Pattern.parse`.

    Example:
        >>> Pattern.parse("layer{2-4}.*.bias").matches("layer3.0.bias")
        True
        >>> Pattern.parse("fc").select(["fc.weight", "layer1.se.fc.weight", "se.fc"])
        ['fc.weight', 'se.fc']
    """

    text: str
    matcher: Matcher = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """The pattern that `text` writes down; `UsageError` if it is malformed."""
        if not text:
            raise UsageError("an empty pattern matches nothing", hint='"*" matches every key')
        if len(text) > MAX_TEXT:
            raise UsageError(f"a pattern of {len(text):,} characters is too long", hint="use several patterns")
        try:
            return cls(text, _matcher(text))
        except (re.error, OverflowError, RecursionError) as error:
            what = "regex" if text.startswith("re:") else "pattern"
            raise UsageError(
                f'"{text}" is not a {what}: {error}', hint="patterns are globs; re:... is a regex"
            ) from None

    def matches(self, key: str) -> bool:
        """True if the pattern means this key."""
        return bool(self.matcher.select((key,)))

    def select(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys that the pattern means, in their order."""
        return self.matcher.select(keys)

    def possible(self, outlines: Iterable[str]) -> list[str]:
        """Those of the outlines that keys which it means may have (see `ckptool.core.outlines`)."""
        is_glob = isinstance(self.matcher, _Linear | Automaton)
        return _matcher(self.text, outlined).select(outlines) if is_glob else list(outlines)


class _Linear:
    """A glob without braces as a regex, which is linear, and faster than an automaton."""

    def __init__(self, regex: str) -> None:
        self.fullmatch = re.compile(regex, re.DOTALL).fullmatch

    def select(self, keys: Iterable[str]) -> list[str]:
        return list(filter(self.fullmatch, keys))


def _matcher(text: str, edit: Callable[[list[Node]], list[Node]] = list) -> Matcher:
    if text.startswith("re:"):
        from ckptool.core.regexes import Regex  # needs what most runs do not: a process

        return Regex(text[3:])
    nodes = edit(_Glob(text).nodes())
    is_glob = any(mark in text for mark in "*?[")
    if "{" not in text:
        regex = regex_of(nodes)
        if not is_glob:
            regex = rf"(?:{regex})(?:\..*)?" if "." in text else rf"(?:.*\.)?(?:{regex})|(?:{regex})\..*"
        return _Linear(regex)
    if not is_glob:
        below = [*nodes, Choice(((), (".", STAR)))]
        nodes = below if "." in text else [Choice((below, (STAR, ".", *nodes)))]
    return Automaton(nodes, text)


class _Glob:
    """Reads a glob from left to right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def nodes(self, nesting: int = 0) -> list[Node]:
        """What it is a sequence of up to the end, or, inside braces, up to the next comma or closing brace."""
        stops = ",}" if nesting else ""
        found: list[Node] = []
        while self.at < len(self.text) and self.text[self.at] not in stops:
            char = self.text[self.at]
            self.at += 1
            if char == "*":
                if not (found and isinstance(found[-1], Repeat)):
                    found.append(STAR)
            elif char == "?":
                found.append(ANY)
            elif char == "[":
                found.append(self.char_class())
            elif char == "{":
                found.append(self.braces(nesting + 1))
            else:
                found.append(char)
        return found

    def char_class(self) -> CharClass:
        """``[12]``, ``[a-f]``, ``[!x]``, ``[]]``: the position is behind the opening bracket."""
        start = self.at + (self.text[self.at : self.at + 1] == "!")
        end = self.text.find("]", start + 1)
        if end < 0:
            raise UsageError(f'"{self.text}" has a [ that is not closed', hint="write [[] for the bracket itself")
        chars, ranges = self.text[start:end], []
        negated = start > self.at
        self.at = end + 1
        while chars:
            width = 3 if len(chars) > 2 and chars[1] == "-" else 1
            low, high = chars[0], chars[width - 1]
            if low > high:
                raise UsageError(f'"{self.text}" has an invalid range: {low}-{high}', hint="write [a-f]")
            ranges.append((low, high))
            chars = chars[width:]
        return CharClass(tuple(ranges), negated)

    def braces(self, nesting: int) -> Choice:
        """``{a,b}``, ``{0-6,8..31}``: the position is behind the opening brace."""
        if nesting > _MAX_NESTING:
            raise UsageError(f'"{self.text}" nests more than {_MAX_NESTING} braces')
        options: list[Sequence[Node]] = []
        while True:
            start = self.at
            nodes = self.nodes(nesting)
            if self.at == len(self.text):
                raise UsageError(f'"{self.text}" has a {{ that is not closed', hint="write [{] for the brace itself")
            between = _RANGE.fullmatch(self.text, start, self.at)
            options += self.numbers(between[1], between[2]) if between else [nodes]
            self.at += 1
            if self.text[self.at - 1] == "}":
                return Choice(tuple(options))

    def numbers(self, low: str, high: str) -> list[Sequence[Node]]:
        """``0-31``; ``00-31`` for numbers of a fixed width."""
        padded = len(low) > 1 and low[0] == "0"
        if len(high) > 18 or len(low) > 18 or int(low) > int(high) or (padded and len(low) != len(high)):
            raise UsageError(f'"{self.text}" has an invalid range: {low}-{high}', hint="write {0-31} or {00-31}")
        return numbers(low, high)


# ---------------------------------------------------------------------------------------------- writing patterns


def escape(text: str, *, in_braces: bool = False) -> str:
    """The text with every character taken literally; inside braces, commas and ranges too.

    Example:
        >>> escape("a[0].*"), escape("0-6", in_braces=True)
        ('a[[]0].[*]', '0[-]6')
    """
    text = re.sub(r"[*?\[{}]", r"[\g<0>]", text)
    if text.startswith("re:"):
        text = f"[r]{text[1:]}"
    if not in_braces:
        return text
    return re.sub(r"([0-9]+)(?:(-)|\.(\.))([0-9]+)", _split_range, text.replace(",", "[,]"))


def _split_range(found: re.Match[str]) -> str:
    return f"{found[1]}[-]{found[4]}" if found[2] else f"{found[1]}[.].{found[4]}"


def quote(key: str, *, strict: bool = False) -> str:
    """A pattern that means exactly this key.

    A dotted key stays as it is; it would also mean the keys *below* it, which no module can have, but a hostile or
    odd file can: `strict` excludes them too.

    Example:
        >>> quote("fc.weight"), quote("weight"), quote("a[0]"), quote("fc.weight", strict=True)
        ('fc.weight', '[w]eight', 'a[[]0]', '[f]c.weight')
    """
    text = escape(key)
    return pin(text) if strict or "." not in key or key.startswith("re:") else text


def pin(text: str) -> str:
    """The same glob, made to match whole keys only: neither as a word nor as the name of a module.

    Example:
        >>> pin("{weight,bias}"), pin("*.bias")
        ('{[w]eight,bias}', '*.bias')
    """
    if any(mark in text for mark in "*?["):
        return text
    for at, char in enumerate(text):
        if char.isalpha() or char == "_":
            return f"{text[:at]}[{char}]{text[at + 1 :]}"
    return "re:" + regex_of(_Glob(text).nodes())


def natural_key(text: str) -> tuple[tuple[str, int, str], ...]:
    """A sort key that puts "10" after "9".

    Example:
        >>> sorted(["layer.10", "layer.9"], key=natural_key)
        ['layer.9', 'layer.10']
    """
    pieces = re.split("([0-9]+)", text)
    numbers = [digits.lstrip("0") for digits in pieces[1::2]]
    # a number compares by its length, then by its digits: no int() of a million digits that a file may send
    rows = [(words, len(number), number) for words, number in zip(pieces[::2], [*numbers, ""], strict=True)]
    return (*rows, (text, 0, ""))


# ---------------------------------------------------------------------------------------------- keep and drop


def choose(
    keys: Iterable[str], actions: Sequence[tuple[bool, Pattern]], selected: Sequence[Sequence[str]] | None = None
) -> dict[str, tuple[bool, Pattern | None]]:
    """What --keep (True) and --drop (False), in the order given, decide for each key: the last that matches wins.

    Keys that none of them matches are dropped if the first action keeps, and kept otherwise.

    Args:
        keys: all of them.
        actions: what was given.
        selected: the keys that each pattern means, where they are known.

    Returns:
        for each key: whether it is kept, and the pattern that decided (None for the default).

    Example:
        >>> {key: kept for key, (kept, _) in choose(["a.w", "b.w"], [(False, Pattern.parse("a"))]).items()}
        {'a.w': False, 'b.w': True}
    """
    default = not (actions and actions[0][0])
    chosen: dict[str, tuple[bool, Pattern | None]] = dict.fromkeys(keys, (default, None))
    for at, action in enumerate(actions):
        meant = action[1].select(chosen) if selected is None else selected[at]
        chosen |= dict.fromkeys(meant, action)
    return chosen


# ---------------------------------------------------------------------------------------------- prefixes

WRAPPERS = (
    "module.",  # DataParallel, DistributedDataParallel, AveragedModel, DeepSpeed
    "_orig_mod.",  # torch.compile
    "_fsdp_wrapped_module.",  # FullyShardedDataParallel
    "_fpw_module.",  # the same before torch 1.13
    "_checkpoint_wrapped_module.",  # activation checkpointing
    "_forward_module.",  # Lightning Fabric
)
_WRAPPER_PARTS = frozenset(wrapper[:-1] for wrapper in WRAPPERS)


def wrapper_prefix(keys: Iterable[str]) -> str:
    """The longest chain of wrapper prefixes that every key has; "" if there is none.

    Example:
        >>> wrapper_prefix(["module._orig_mod.fc.weight", "module._orig_mod.fc.bias"])
        'module._orig_mod.'
    """
    parts = common_prefix(keys).split(".")
    count = next((at for at, part in enumerate(parts) if part not in _WRAPPER_PARTS), len(parts))
    return "".join(f"{part}." for part in parts[:count])


def strip_wrappers(key: str) -> str:
    """The key without the parts that wrappers put in, at any depth. Whole parts only: ``se_module.`` stays.

    Example:
        >>> strip_wrappers("module.layer1._orig_mod.se_module.weight")
        'layer1.se_module.weight'
    """
    *modules, name = key.split(".")
    return ".".join([*(part for part in modules if part not in _WRAPPER_PARTS), name])


def common_prefix(keys: Iterable[str]) -> str:
    """The longest dotted prefix of all keys, with its last dot; "" if there is none.

    Example:
        >>> common_prefix(["model.net.a", "model.net.bc"]), common_prefix(["fc.weight"])
        ('model.net.', 'fc.')
    """
    names = list(keys)
    if not names:
        return ""
    low, high = min(names), max(names)
    same = next((at for at, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return low[: low.rfind(".", 0, same) + 1]
