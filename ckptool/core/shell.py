"""Commands that are printed to be pasted: every word that comes from a file or a user is quoted here."""

from __future__ import annotations

import shlex
import sys

from ckptool.core.bytes import PathText


def shell_quote(word: PathText) -> str:
    """The word as a POSIX shell reads it back; characters that a terminal would not show are escaped.

    Example:
        >>> print(shell_quote("a.pth"), shell_quote("$(x).pth"), shell_quote("a\\nb"))
        a.pth '$(x).pth' $'a\\nb'
    """
    text = word if isinstance(word, str) else word.__fspath__()
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(_escaped(byte) for byte in _raw(text)) + "'"


def _raw(text: str) -> bytes:
    """The bytes that the system has for a name; for text that no name can have, escapes."""
    try:
        return text.encode(sys.getfilesystemencoding(), sys.getfilesystemencodeerrors())
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")


def _escaped(byte: int) -> str:
    """One byte inside of ``$'...'``."""
    char = chr(byte)
    if char in "\\'":
        return f"\\{char}"
    if char == "\n":
        return "\\n"
    return char if 32 <= byte < 127 else f"\\x{byte:02x}"
