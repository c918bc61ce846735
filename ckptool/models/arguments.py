"""``--model-arg num_classes=751``: arguments for a model, typed by how they are written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from ckptool.core.errors import UsageError

_INT = re.compile(r"[+-]?\d+")
_FLOAT = re.compile(r"[+-]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][+-]?\d+)?|[+-]?inf|nan")
_WORDS = {"true": True, "false": False, "none": None, "null": None}


def parse_model_args(texts: Iterable[str]) -> dict[str, object]:
    """Arguments by name from ``name=value`` texts.

    A value is an int, a float, ``true`` / ``false``, ``none``, JSON if it starts with ``[`` or ``{``, the text between
    quotes, and else the text itself.

    Raises:
        UsageError: there is no name, a name comes twice, or JSON is malformed.

    Example:
        >>> parse_model_args(["num_classes=751", "drop=1e-1", "pretrained=false", "norm=none"])
        {'num_classes': 751, 'drop': 0.1, 'pretrained': False, 'norm': None}
        >>> parse_model_args(["depth='50'", "img_size=[384, 192]", "neck=bnneck"])
        {'depth': '50', 'img_size': [384, 192], 'neck': 'bnneck'}
    """
    arguments: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise UsageError(f"{text} is not an argument of a model", hint="write name=value, as num_classes=751")
        if name in arguments:
            raise UsageError(f"the model argument {name} is given twice")
        arguments[name] = _value(name, value.strip())
    return arguments


def _value(name: str, text: str) -> object:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(
                f"the model argument {name} begins like JSON, but is not: {error}",
                hint=f"put it in quotes if it is a text: {name}='\"...\"'",
            ) from None
    return text
