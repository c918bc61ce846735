"""Text by the columns it takes on a terminal."""

from __future__ import annotations

from rich.cells import cell_len


def cells(text: str) -> int:
    """How many terminal columns the text takes: wide East Asian characters take two, combining marks none.

    Example:
        >>> cells("重み.weight"), cells("e\\u0301")
        (11, 1)
    """
    return len(text) if text.isascii() else cell_len(text)


def elide(text: str, width: int) -> str:
    """The text in at most `width` terminal columns: its middle gives way to ``…``.

    Example:
        >>> elide("post_attention_layernorm.weight", 20)
        'post_atten…rm.weight'
    """
    if cells(text) <= width:
        return text
    if width < 1:
        return ""
    tail_cells = (width - 1) // 2
    head = _take(text, width - 1 - tail_cells)
    tail = _take(text[::-1], tail_cells)[::-1]
    return f"{head}…{tail}"


def shorten_end(text: str, width: int) -> str:
    """The text in at most `width` terminal columns: its end gives way.

    Example:
        >>> shorten_end("epoch, arch, optimizer", 14)
        'epoch, arch, …'
    """
    return text if cells(text) <= width else f"{_take(text, max(0, width - 1))}…"


def _take(text: str, width: int) -> str:
    """The longest beginning of the text that fits the width."""
    used = 0
    for at, char in enumerate(text):
        used += cells(char)
        if used > width:
            return text[:at]
    return text
