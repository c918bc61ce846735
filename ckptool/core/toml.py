"""TOML: what a stranger wrote, read by tomllib within limits, and text as it is written."""

from __future__ import annotations

import json
import re
from pathlib import PurePath
from typing import Any

from ckptool.core.errors import UsageError

MAX_DOTS = 100  # of one dotted key: tomllib and every reader of its tables takes time with the square of them
_WORD = r"""(?>[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_DOTTED = re.compile(rf"(?<![A-Za-z0-9_\-\"'])(?:{_WORD}[ \t]*+\.[ \t]*+){{{MAX_DOTS}}}")


def parse_toml_text(text: str, name: str, path: PurePath | None = None) -> dict[str, Any]:
    """The tables of a TOML document.

    Args:
        text: the document.
        name: how errors call it.
        path: where it was read, for errors.

    Raises:
        UsageError: it is not TOML, nests too deep, or has a number of more than 64 bits.

    Example:
        >>> parse_toml_text('a.b = 1', "mine")
        {'a': {'b': 1}}
    """
    import tomllib  # most runs read no TOML

    if _DOTTED.search(text):
        raise UsageError(f"{name} has a key with more than {MAX_DOTS} dots", path=path)
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise UsageError(f"{name} is not TOML: nested too deep", path=path) from None
    except ValueError as error:  # also an integer with too many digits
        raise UsageError(
            f"{name} is not TOML: {error}", hint='texts stand in quotes: name = "text"', path=path
        ) from None
    waiting: list[object] = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, int) and not -(2**63) <= value < 2**64:
            raise UsageError(f"{name} has an integer of more than 64 bits", path=path)
    return document


def toml_text(text: str) -> str:
    """A basic string: JSON's escapes do, but for one character that TOML wants escaped, too.

    Example:
        >>> toml_text('a"b')
        '"a\\\\"b"'
    """
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
