"""Names of tensors in a torch file: the keys on the way to them, joined by dots, each name once."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from ckptool.core.errors import UnreadableError
from ckptool.formats.pickle.objects import ByteString, Global, as_bytes

MAX_CHARACTERS = 256 << 20
"""Most characters that all names of a file may have together."""

_MAX_TUPLE = 4


def key_text(key: object) -> str:
    """A key as one part of a dotted name.

    Example:
        >>> key_text(3), key_text("conv1"), key_text((0, "a"))
        ('3', 'conv1', '(0, a)')
    """
    if type(key) is tuple and len(key) <= _MAX_TUPLE and all(type(part) in (str, int, bool) for part in key):
        return f"({', '.join(_atom(part) for part in key)})"
    return _atom(key)


def _atom(key: object) -> str:
    if type(key) is str:
        return key
    if type(key) is bool or key is None or type(key) is float:
        return str(key)
    if type(key) is int:
        return str(key) if key.bit_length() <= 64 else f"<int of {key.bit_length()} bits>"
    if type(key) is ByteString:
        return key.data.decode("latin-1")
    if type(key) is Global:
        return key.qualified
    raw = as_bytes(key)
    return f"<{type(key).__name__.lower()}>" if raw is None else raw.decode("latin-1")


def is_ema_name(text: str) -> bool:
    """True if a name says that it holds a moving average of weights.

    Example:
        >>> [is_ema_name(name) for name in ("model_ema", "ema", "shadow_params", "schema")]
        [True, True, True, False]
    """
    return _EMA.search(text.lower()) is not None


_EMA = re.compile(r"(?:^|[_.\-])(?:ema|swa|avg|averaged?|shadow)(?:[_.\-]|$)")


@dataclass(slots=True)
class Names:
    """Gives every tensor a name of its own.

    Names are the keys joined by dots. If two paths give the same text, as ``{"a": {"b": x}, "a.b": y}`` or the keys
    ``1`` and ``"1"`` do, the later one is written with its last key in brackets: ``["a.b"]``, ``["1"]``, ``[1]``.

    Example:
        >>> names = Names()
        >>> names.unique("a", "b"), names.unique(None, "a.b"), names.unique(None, 1), names.unique(None, "1")
        ('a.b', '["a.b"]', '1', '["1"]')
    """

    used: set[str] = field(default_factory=set)
    _characters: int = 0

    def joined(self, prefix: str | None, key: object) -> str:
        """The dotted name; `prefix` is None at the root."""
        part = key_text(key)
        self._characters += len(part) + (0 if prefix is None else len(prefix) + 1)
        if self._characters > MAX_CHARACTERS:
            raise UnreadableError(f"its names add up to more than {MAX_CHARACTERS >> 20} MB")
        return part if prefix is None else f"{prefix}.{part}"

    def unique(self, prefix: str | None, key: object) -> str:
        """The dotted name, or the one with brackets if that is taken."""
        text = self.joined(prefix, key)
        if text in self.used:
            quoted = json.dumps(key, ensure_ascii=False) if type(key) is str else key_text(key)
            text = first = f"{prefix or ''}[{quoted}]"
            count = 1
            while text in self.used:
                count += 1
                text = f"{first}#{count}"
        self.used.add(text)
        return text
