"""Commands that are printed to be pasted: every word that comes from a file or a user is quoted here."""

from __future__ import annotations

import os
import shlex


def shell_quote(word: str | os.PathLike[str]) -> str:
    """The word as a POSIX shell reads it back; characters that a terminal would not show are escaped.

    Example:
        >>> print(shell_quote("a.pth"), shell_quote("$(x).pth"), shell_quote("a\\nb"))
        a.pth '$(x).pth' $'a\\nb'
    """
    text = os.fspath(word)
    if text.isprintable():
        return shlex.quote(text)
    raw = os.fsencode(text) if _is_encodable(text) else text.encode("utf-8", "backslashreplace")
    return "$'" + "".join(_escaped(byte) for byte in raw) + "'"


def _is_encodable(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def _escaped(byte: int) -> str:
    """One byte inside of ``$'...'``."""
    char = chr(byte)
    if char in "\\'":
        return f"\\{char}"
    if char == "\n":
        return "\\n"
    return char if 32 <= byte < 127 else f"\\x{byte:02x}"
