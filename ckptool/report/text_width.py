"""Text by the columns it takes on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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


def elide_apart(texts: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Texts elided to their widths so that texts that differ stay different, even where their middles alone differ.

    A text that no elision tells from another stays whole.

    Example:
        >>> elide_apart(["encoder.layer.alpha.weight", "encoder.layer.gamma.weight"], [13, 13])
        ['enco…alpha…ht', 'enco…gamma…ht']
    """
    shown = list(map(elide, texts, widths))
    for group in _collisions(texts, shown):
        start = _common(min(texts[at] for at in group), max(texts[at] for at in group))
        for at in group:
            shown[at] = _around(texts[at], start, widths[at])
    for group in _collisions(texts, shown):
        for at in group:
            shown[at] = texts[at]
    return shown


def _collisions(texts: Sequence[str], shown: Sequence[str]) -> Iterator[list[int]]:
    """Places whose texts differ and look the same."""
    places: dict[str, list[int]] = {}
    for at, text in enumerate(shown):
        places.setdefault(text, []).append(at)
    for group in list(places.values()):
        if len(group) > 1 and len({texts[at] for at in group}) > 1:
            yield group


def _common(first: str, last: str) -> int:
    """How many characters two texts have in common at their beginnings."""
    return next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))


def _around(text: str, start: int, width: int) -> str:
    """The text elided so that what begins at `start` is seen."""
    if cells(text) <= width or width < 5:
        return elide(text, width)
    room = width - 2
    rest = text[start:]
    head_room = max(1, room * 2 // 5)
    if cells(rest) <= room + 1 - head_room:  # the end of the text is seen whole
        return f"{_take(text[:start], room + 1 - cells(rest))}…{rest}"
    head = _take(text[:start], head_room)
    tail = _take(rest[::-1], max(1, room // 5))[::-1]
    window = _take(rest, room - cells(head) - cells(tail))
    return f"{head}{'…' * (len(head) < start)}{window}…{tail}"


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
