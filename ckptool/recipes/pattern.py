"""Patterns of a rule: which keys it means, part by part, and the keys it makes.

===================  =================================================================================
``fc.weight``        the whole key
``module.``          a prefix: the key goes on after it
``.gamma``           a suffix: it ends the key, at any depth
``.norm.``           anywhere, at any depth
``{i}``              a number;  ``{2*s+1}`` a number of that form;  ``{s=1..3}`` a number in that range
``{i:03}``           a number of at least three digits: 007
``{8-11}``           a number in a range, as in a key pattern; ``{8..11}`` and ``{0-6,8..11}`` too
``{s=first..last}``  numbers that are given with the recipe: ``{s=4..}``, ``{i+n}``, ``{n*i}``
``{layers#}``        the name before the numbers of the longest list of modules, with the dot: "model.layers."
``{#i}``             on the right: the place of the number among those that there are, from 0
``{p=weight|bias}``  one of these, in this order; written on both sides with two lists, it translates
``{p*}``             one part, or a piece of one
``{m**}``, ``**``    any number of whole parts (none, too, where more of the key follows)
``*``                anything, across dots, as in a shell
===================  =================================================================================

What is written without a name is matched up by position. A pattern never cuts a part that it does not name whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import NoReturn, TypeAlias

from ckptool.core.errors import UsageError
from ckptool.core.outlines import has_digits, has_numbers, outline
from ckptool.recipes.capture import OPEN, Hole, Values
from ckptool.recipes.search import Element, Match, Search, choice, is_prefix_free, literal, parts_or_none, run

Token: TypeAlias = str | Hole
Part: TypeAlias = tuple[Token, ...]

MAX_TEXT = 10_000  # characters of a pattern
MAX_CHOICES = 10_000  # of one capture
MAX_CAPTURES = 100  # of one pattern
MAX_NAME = 100_000  # characters of a key that a rule makes


@dataclass(frozen=True, slots=True)
class Pattern:
    """One side's key pattern.

    Attributes:
        parts: what stands between the dots.
        starts_anywhere: written with a leading dot.
        ends_anywhere: written with a trailing dot.
        holes: its captures, in order.
    """

    parts: tuple[Part, ...]
    starts_anywhere: bool = False
    ends_anywhere: bool = False
    holes: tuple[Hole, ...] = field(init=False, repr=False, compare=False)
    _flat: tuple[Token, ...] | None = field(init=False, repr=False, compare=False)
    _search: list[Search] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        holes = tuple(token for part in self.parts for token in part if isinstance(token, Hole))
        flat = None
        if not any(hole.kind in ("parts", "glob", "") for hole in holes):  # then no part can be empty
            flat = tuple(token for part in self.parts for token in (".", *part))[1:]
        object.__setattr__(self, "holes", holes)
        object.__setattr__(self, "_flat", flat)

    @property
    def is_whole(self) -> bool:
        """It names a whole key; otherwise a run of parts within one."""
        return not (self.starts_anywhere or self.ends_anywhere)

    @property
    def plain(self) -> str | None:
        """The key, if it has no captures."""
        return None if self.holes else ".".join("".join(map(str, part)) for part in self.parts)

    @property
    def literal_length(self) -> int:
        """Characters written out: how specific it is."""
        return sum(len(token) for part in self.parts for token in part if isinstance(token, str)) + len(self.parts)

    @property
    def first_literal(self) -> str:
        """What every key that it names begins with; "" if it begins with a capture or may start anywhere."""
        first = self.parts[0][0] if self.parts else ""
        return first if isinstance(first, str) and not self.starts_anywhere else ""

    @property
    def longest_literal(self) -> str:
        """The longest text that every match contains: a cheap first test."""
        found, run = "", ""
        for number, part in enumerate(self.parts):
            if number and run and not _is_parts(self.parts[number - 1]) and not _is_parts(part):
                run += "."
            for token in part:
                run = run + token if isinstance(token, str) else ""
                found = max(found, run, key=len)
        return found

    @property
    def is_blind(self) -> bool:
        """Where it matches a key, if it does, depends on the key's outline alone (see `ckptool.core.outlines`)."""
        return self.counts_nothing and not any(map(has_digits, self._written))

    @property
    def counts_nothing(self) -> bool:
        """Where it matches a key depends on the key's outline, and on numbers inside names (``w1``), alone."""
        counts = any(hole.kind == "range" or hole.linear for hole in self.holes)
        is_plain = len({hole.name for hole in self.holes}) == len(self.holes) and not counts
        return is_plain and not any(map(has_numbers, self._written))

    @property
    def _written(self) -> list[str]:
        written = [token for part in self.parts for token in part if isinstance(token, str)]
        return written + [text for hole in self.holes for text in hole.choices]

    @property
    def outline(self) -> Pattern:
        """A pattern that matches the outlines of all keys that this one matches."""

        def blind(token: Token) -> Token:
            if isinstance(token, str):
                return outline(token)
            choices = tuple(dict.fromkeys(map(outline, token.choices)))
            kind = "digits" if token.kind == "range" else token.kind
            return replace(token, kind=kind, factor=1, offset=0, width=0, choices=choices)

        return replace(self, parts=tuple(tuple(map(blind, part)) for part in self.parts))

    def search(self) -> Search:
        """The compiled pattern: on the whole key, or for `finditer` within it."""
        if not self._search:
            anywhere = (self.starts_anywhere, self.ends_anywhere)
            self._search.append(Search(self._regex_text(), self._elements(), self._degree(), anywhere, str(self)))
        return self._search[0]

    def _regex_text(self) -> str:
        out, dot = [], ""
        for at, part in enumerate(self.parts):
            body = "".join(f"({token.regex()})" if isinstance(token, Hole) else re.escape(token) for token in part)
            if _is_parts(part) and at < len(self.parts) - 1:
                out.append(rf"{dot}(?:{body}\.)?")
                dot = ""
            else:
                out.append(dot + body.replace(".+?", ".+"))
                dot = r"\."
        start = r"(?<![^.])" if self.starts_anywhere else r"\A"
        return start + "".join(out) + (r"(?=\.)" if self.ends_anywhere else r"\Z")

    def _elements(self) -> list[Element]:
        """The same as `_regex_text`, element by element."""
        found: list[Element] = []
        for at, part in enumerate(self.parts):
            if at and not _is_parts(self.parts[at - 1]):
                found.append(literal("."))
            if _is_parts(part) and at < len(self.parts) - 1:
                found.append(parts_or_none)
            else:
                found += [_element(token) for token in part]
        return found

    def _degree(self) -> int:
        """How many of its captures can end at several places of a key."""
        return sum(
            token.kind in ("piece", "parts", "glob")
            or (token.kind == "choice" and not is_prefix_free(token.choices))
            or isinstance(following, Hole)
            for part in self.parts
            for token, following in zip(part, (*part[1:], ""), strict=True)
            if isinstance(token, Hole)
        )

    def read(self, match: Match) -> dict[str, str] | None:
        """The captures of a match of `search`; None if a number is not of its form, or two of one name differ."""
        if not self.holes:
            return {}
        values: dict[str, str] = {}
        for hole, text in zip(self.holes, match.groups(default=""), strict=True):
            value = hole.read(text)
            if value is None or values.setdefault(hole.name, value) != value:
                return None
        return values

    def match(self, key: str) -> dict[str, str] | None:
        """The captures if the pattern names this whole key, or is found in it."""
        match = self.search().search(key)
        return None if match is None else self.read(match)

    def write(self, values: Values) -> str:
        """The text with the captures filled in, without empty parts. `ValueError`: a negative number, a long name."""
        if self._flat is not None:
            return _bounded("".join([t if isinstance(t, str) else t.write(values[t.name]) for t in self._flat]))
        texts = ("".join(t if isinstance(t, str) else t.write(values[t.name]) for t in part) for part in self.parts)
        return _bounded(".".join(text for text in texts if text))

    def written(self, said: set[str]) -> str:
        """In the notation of rules. What a capture may be is written where it is named first; `said` collects them."""

        def text(token: Token) -> str:
            if isinstance(token, str):
                return token
            full, brief = str(token), replace(token, kind="").text
            if token.kind in ("range", "choice") and full in said and token.name[0] != "*":
                return brief
            said.add(full)
            return full

        inner = ".".join("".join(map(text, part)) for part in self.parts)
        return (
            "." * (self.starts_anywhere and bool(self.parts)) + inner + "." * (self.ends_anywhere and bool(self.parts))
        )

    def __str__(self) -> str:
        return self.written(set())


def _bounded(name: str) -> str:
    if len(name) > MAX_NAME:
        raise ValueError(f"a name would have {len(name):,} characters")
    return name


def _element(token: Token) -> Element:
    if isinstance(token, str):
        return literal(token)
    if token.kind == "choice":
        return choice(token.choices)
    if token.kind == "glob":
        return run(".", 0)
    return run({"piece": "[^.]", "parts": "."}.get(token.kind, "[0-9]"), 1)


def _is_parts(part: Part) -> bool:
    return len(part) == 1 and isinstance(part[0], Hole) and part[0].kind == "parts"


# ---------------------------------------------------------------------------------------------- reading


def malformed(what: str, text: str, at: int, hint: str | None = None) -> UsageError:
    """The error for a text that cannot be read, with a caret under the place."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    return UsageError(what, hint=hint, detail=(f"    {shown}", f"    {' ' * at}^"))


_HOLE = re.compile(
    r"(?:(?P<factor>\d{1,6})\s*\*\s*)?(?P<name>[A-Za-z_]\w*)\s*"
    r"(?:(?:(?P<sign>[+-])\s*(?P<offset>\d{1,9}))?(?::0(?P<width>[1-9]))?"
    r"|=\s*(?P<low>\d{1,9})(?:(?:\.\.|-)(?P<high>\d{1,9})|\.\.)|=(?P<choices>[^=]+)|(?P<stars>\*\*?))?"
)
_SUM = r"\w+(?:\s*[+-]\s*\w+)*"
NAMED = re.compile(
    rf"(?:(?P<factor>\w+)\s*\*\s*)?(?P<name>[A-Za-z_]\w*)\s*"
    rf"(?:(?P<offset>[+-]\s*{_SUM})|=\s*(?P<low>{_SUM})\s*\.\.\s*(?P<high>{_SUM})?)?"
)
"""A capture whose numbers may be sums, and names: ``i=first..last-1``, ``i+last-first+1``, ``n*i``."""
_COMPUTED = re.compile(r"#\s*(?P<place>[A-Za-z_]\w*)|(?P<list>[A-Za-z_]\w*)\s*#")
_RANGE = re.compile(r"(\d{1,9})(?:-|\.\.)(\d{1,9})")
_LIST = re.compile(r"[^{}=|*+,]+(,[^{}=|*+,]+)*")


def parse_pattern(text: str, rule: str | None = None, at: int = 0) -> Pattern:
    """The pattern that `text` writes down.

    Args:
        text: the pattern alone.
        rule: the whole rule, shown in errors.
        at: where in the rule the pattern begins.

    Example:
        >>> pattern = parse_pattern("layer{s=1..3}.{b}.bn1.{p=weight|bias}")
        >>> pattern.match("layer2.0.bn1.bias")
        {'s': '2', 'b': '0', 'p': '1'}
        >>> print(pattern)
        layer{s=1..3}.{b}.bn1.{p=weight|bias}
    """
    if len(text) > MAX_TEXT:
        raise UsageError(f"a pattern of {len(text):,} characters is too long", hint="use several rules")
    return _PatternReader(text, rule or text, at).read()


class _PatternReader:
    def __init__(self, text: str, rule: str, base: int) -> None:
        self.text, self.rule, self.base = text, rule, base
        self.unnamed = 0

    def fail(self, what: str, at: int, hint: str | None = None) -> NoReturn:
        raise malformed(what, self.rule, self.base + at, hint)

    def read(self) -> Pattern:
        text = self.text
        parts: list[Part] = []
        part: list[Token] = []
        at = begin = int(text.startswith("."))
        end = len(text) - (text.endswith(".") and len(text) > begin)
        while at < end:
            char = text[at]
            if char == ".":
                parts.append(self.finished(part, at))
                part, at = [], at + 1
            elif char in "{*":
                token, after = self.hole(at) if char == "{" else self.star(at)
                part.append(token)
                at = after
            elif char.isspace() or char in "}|,":
                self.fail(f"{char!r} cannot stand in a key pattern", at)
            else:
                stop = re.compile(r"[.{}*|,\s]").search(text, at, end)
                after = stop.start() if stop else end
                part.append(text[at:after])
                at = after
        if parts or part or begin:
            parts.append(self.finished(part, at))
        if sum(isinstance(token, Hole) for part in parts for token in part) > MAX_CAPTURES:
            self.fail(f"more than {MAX_CAPTURES} captures in a pattern", 0)
        return Pattern(tuple(parts), begin == 1, end < len(text))

    def finished(self, part: list[Token], at: int) -> Part:
        if not part:
            self.fail("an empty part: two dots side by side, or a dot alone", max(at - 1, 0))
        if len(part) > 1 and any(isinstance(token, Hole) and token.kind == "parts" for token in part):
            self.fail("** stands for whole parts", at - 1, "put dots around it, or write {p*} for a piece of a part")
        return tuple(part)

    def star(self, at: int) -> tuple[Hole, int]:
        double = self.text[at : at + 2] == "**"
        self.unnamed += 1
        return Hole(f"*{self.unnamed}", "parts" if double else "glob"), at + 1 + double

    def hole(self, at: int) -> tuple[Hole, int]:
        end = self.text.find("}", at)
        if end < 0:
            self.fail("a { that is not closed", at)
        body = self.text[at + 1 : end].strip()
        if computed := _COMPUTED.fullmatch(body):
            return Hole(computed["place"] or computed["list"], "place" if computed["place"] else "list"), end + 1
        match, named = _HOLE.fullmatch(body), NAMED.fullmatch(body)
        if named and (match is None or (match["choices"] and named["low"])):
            return Hole(named["name"], "named", written=body), end + 1
        if match is None:
            if _LIST.fullmatch(body) and ("," in body or _RANGE.fullmatch(body)):
                self.unnamed += 1
                return Hole(f"*{self.unnamed}", "choice", choices=self.listed(body, at)), end + 1
            self.fail("not a capture", at, "captures: {i} {2*s+1} {s=1..3} {p=weight|bias} {p*} {m**} {layers#}")
        return self.named(match, at), end + 1

    def named(self, match: re.Match[str], at: int) -> Hole:
        name, factor = match["name"], int(match["factor"] or 1)
        if match["factor"] and (factor == 0 or match["low"] or match["choices"] or match["stars"]):
            self.fail("not a capture", at, "a factor needs a plain number: {2*s} or {2*s+1}")
        if match["low"]:
            low, high = int(match["low"]), int(match["high"] or OPEN)
            if low > high or (high < OPEN and high - low > 1_000_000):
                self.fail(f"an invalid range: {low}..{high}", at)
            return Hole(name, "range", low=low, high=high)
        if match["choices"]:
            choices = tuple(choice.strip() for choice in match["choices"].split("|"))
            if not all(choices) or len(set(choices)) < len(choices):
                self.fail("a choice is empty or written twice", at)
            return Hole(name, "choice", choices=choices)
        if match["stars"]:
            return Hole(name, "parts" if match["stars"] == "**" else "piece")
        offset = int(match["offset"] or 0) * (-1 if match["sign"] == "-" else 1)
        return Hole(name, factor=factor, offset=offset, width=int(match["width"] or 0))

    def listed(self, body: str, at: int) -> tuple[str, ...]:
        """``{0-6,8-31}``: as the tables print it."""
        found: list[str] = []
        for item in body.split(","):
            numbers = _RANGE.fullmatch(item.strip())
            if numbers and len(found) + int(numbers[2]) - int(numbers[1]) >= MAX_CHOICES:
                self.fail(f"more than {MAX_CHOICES:,} numbers", at, "a capture for any number: {i}")
            found += map(str, range(int(numbers[1]), int(numbers[2]) + 1)) if numbers else [item.strip()]
        return tuple(dict.fromkeys(found))
