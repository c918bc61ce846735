"""The outlines of keys: all digits are one, so that very many keys have few outlines.

Keys of one outline have the same length, and their dots and numbers at the same places. What does not depend on the
value of a number is decided once for an outline.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_DIGIT = re.compile("[0-9]")
_NUMBER = re.compile(r"(?<![^.])[0-9]+(?![^.])")
_IN_NAME = re.compile(r"(?:(?<=[^.0-9])|(?=[0-9]+[^.0-9]))[0-9]+")
_ZEROS = str.maketrans("123456789", "0" * 9)
_AT_ONCE = 4096  # keys
_LONG = 1000  # characters; a longer key is its own outline


def outline(text: str) -> str:
    """The text with a 0 for every digit."""
    return text.translate(_ZEROS)


def has_digits(text: str) -> bool:
    """True if the text is more than its outline says."""
    return _DIGIT.search(text) is not None


def has_numbers(text: str) -> bool:
    """A part of the text is a number.

    Example:
        >>> has_numbers("h.7.w"), has_numbers("w1.up"), has_numbers("1x1")
        (True, False, False)
    """
    return _NUMBER.search(text) is not None


def by_names(text: str, keys: Sequence[str]) -> dict[str, list[int]]:
    """The places of keys of one outline whose numbers inside names (``w1``) are the same.

    Args:
        text: the outline.
        keys: its keys.

    Example:
        >>> by_names("h.0.w0", ["h.7.w1", "h.8.w1", "h.7.w2"])
        {'1': [0, 1], '2': [2]}
    """
    places = [slice(*match.span()) for match in _IN_NAME.finditer(text)]
    found: dict[str, list[int]] = {}
    for at, key in enumerate(keys):
        found.setdefault(".".join([key[place] for place in places]), []).append(at)
    return found


def outlines(keys: Sequence[str]) -> list[str]:
    """The outline of each key; equal ones are one object.

    Example:
        >>> outlines(["h.7.w", "h.12.w", "h.31.w1", "norm"])
        ['h.0.w', 'h.00.w', 'h.00.w0', 'norm']
    """
    known: dict[str, str] = {}
    found: list[str] = []
    for at in range(0, len(keys), _AT_ONCE):
        some = keys[at : at + _AT_ONCE]
        lengths = list(map(len, some))
        texts = "\n".join(some).translate(_ZEROS).split("\n") if max(lengths) <= _LONG else []
        if len(texts) != len(some):  # a key has a line break, or is long
            texts = [outline(key) if len(key) <= _LONG else key for key in some]
        found += map(known.setdefault, texts, texts)
    return found


def by_outline(keys: Sequence[str]) -> dict[str, list[str]]:
    """The keys of each outline, in their order.

    Example:
        >>> by_outline(["h.7.w", "norm", "h.8.w"])
        {'h.0.w': ['h.7.w', 'h.8.w'], 'norm': ['norm']}
    """
    names = outlines(keys)
    found: dict[str, list[str]] = {name: [] for name in dict.fromkeys(names)}
    for name, key in zip(names, keys, strict=True):
        found[name].append(key)
    return found
