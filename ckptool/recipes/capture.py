"""Captures: what stands in braces in a pattern, what it matches, and what it writes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind = Literal["digits", "range", "choice", "piece", "parts", "glob", "list", "place", "named"]
OPEN = 10**18
"""The end of a range without one: ``{i=4..}``."""
Values: TypeAlias = Mapping[str, str]
"""What captures matched: the text; for a choice, its place in the list; for ``{2*s+1}``, the s."""


@dataclass(frozen=True, slots=True)
class Hole:
    """A capture where it stands in a pattern.

    Attributes:
        name: its name; ``*1`` and so on where none is written.
        kind: what it matches; "" until the whole rule has been read (``{p}`` may be explained elsewhere).
        factor, offset: ``{2*s+1}`` is 2 and 1.
        width: digits that it has at least, with zeros in front: 3 of ``{i:03}``.
        low, high: of a range.
        choices: of a choice.
        written: what stands in the braces where numbers of it are names: ``i=first..last``, until they are known.
    """

    name: str
    kind: Kind | Literal[""] = ""
    factor: int = 1
    offset: int = 0
    width: int = 0
    low: int = 0
    high: int = 0
    choices: tuple[str, ...] = ()
    written: str = ""

    @property
    def size(self) -> int | None:
        """How many values it has, where that is written down."""
        if self.kind == "range":
            return self.high - self.low + 1 if self.high < OPEN else None
        return len(self.choices) if self.kind == "choice" else None

    @property
    def linear(self) -> bool:
        """Its text is not its value."""
        return self.factor != 1 or self.offset != 0 or self.width > 0

    def regex(self) -> str:
        if self.kind == "choice":
            return "|".join(map(re.escape, sorted(self.choices, key=len, reverse=True)))
        return {"piece": "[^.]+", "glob": ".*", "parts": ".+?"}.get(self.kind, "[0-9]+")

    def read(self, text: str) -> str | None:
        """The capture's value where this text was matched; None if it is not of the form."""
        if self.kind == "choice":
            return str(self.choices.index(text))
        if self.kind != "range" and (self.kind != "digits" or not self.linear):
            return text
        if len(text) > 18 or len(text) < self.width or (len(text) > max(self.width, 1) and text[0] == "0"):
            return None
        value, rest = divmod(int(text) - self.offset, self.factor)
        fits = rest == 0 and (self.low <= value <= self.high if self.kind == "range" else value >= 0)
        return str(value) if fits else None

    def write(self, value: str) -> str:
        """The text for a value; `ValueError` if the number would be negative."""
        if self.kind == "choice":
            return self.choices[int(value)]
        if not self.linear:
            return value
        number = int(value) * self.factor + self.offset
        if number < 0:
            raise ValueError(f"{self} is negative for {self.name} = {value}")
        return str(number).zfill(self.width)

    def value_at(self, index: int) -> str:
        """The value at a place of its order: the first of ``{s=1..3}`` is 1."""
        return str(index + self.low) if self.kind == "range" else str(index)

    def index_of(self, value: str) -> int:
        """The place of a value in its order."""
        return int(value) - self.low

    @property
    def text(self) -> str:
        """It in the notation of rules."""
        if self.kind in ("named", "list", "place"):
            return "{" + {"list": f"{self.name}#", "place": f"#{self.name}"}.get(self.kind, self.written) + "}"
        if self.name[0] == "*":
            return "{" + ",".join(self.choices) + "}" if self.choices else {"parts": "**"}.get(self.kind, "*")
        text = f"{self.factor}*{self.name}" if self.factor != 1 else self.name
        if self.offset:
            text += f"{self.offset:+d}"
        if self.width:
            text += f":0{self.width}"
        if self.kind == "range" and not self.linear:
            text += f"={self.low}..{self.high if self.high < OPEN else ''}"
        elif self.kind == "choice":
            text += f"={'|'.join(self.choices)}"
        return "{" + text + {"piece": "*", "parts": "**"}.get(self.kind, "") + "}"

    def __str__(self) -> str:
        return self.text
