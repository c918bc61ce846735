"""Text by the columns it takes on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain, groupby

from rich.cells import cell_len

_LEAST_PART = 8  # columns of a part of a key


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
        ['e…r.alpha.w…t', 'e…r.gamma.w…t']
    """
    shown = list(map(elide, texts, widths))
    alike: dict[int, list[int]] = {}  # those that collide, by how many parts they have
    for at in chain.from_iterable(_collisions(texts, shown)):
        alike.setdefault(texts[at].count("."), []).append(at)
    for group in alike.values():
        apart = _parts_apart([texts[at].split(".") for at in group], min(widths[at] for at in group))
        for at, text in zip(group, apart, strict=False):
            shown[at] = text
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


def _parts_apart(keys: Sequence[Sequence[str]], width: int) -> list[str]:
    """Keys of equally many parts, elided so that all parts that differ are seen; nothing where they have no room.

    Example:
        >>> keys = [f"model.decoder.layers.{n}.attention.{name}.weight" for n in (0, 1) for name in ("query", "key")]
        >>> _parts_apart([key.split(".") for key in keys], 28)[:2]
        ['mod…rs.0.att…on.query.weight', 'mod…ers.0.att…ion.key.weight']
    """
    columns = [list(column) for column in zip(*keys, strict=True)]
    differs = [len(set(column)) > 1 for column in columns]
    longest = [max(map(cells, column)) for column in columns]
    runs = [(same, list(run)) for same, run in groupby(range(len(columns)), lambda at: not differs[at])]
    least = sum(1 if same else sum(longest[at] + 1 for at in run) - 1 for same, run in runs)
    missing = least + len(runs) - 1 - width
    if missing > 0:  # the longest part that differs gives way
        at = max(range(len(columns)), key=lambda at: differs[at] * longest[at])
        if len(columns) == 1 or longest[at] - missing < _LEAST_PART:
            return []
        columns[at] = elide_apart(columns[at], [longest[at] - missing] * len(keys))
    shown = []
    for parts in zip(*columns, strict=True):
        texts = [".".join(parts[at] for at in run) for _, run in runs]
        common = tuple(cells(text) for text, (same, _) in zip(texts, runs, strict=True) if same)
        limit = _limit(common, width - len(runs) + 1 - sum(map(cells, texts)) + sum(common))
        cut = (elide(text, limit) if same else text for text, (same, _) in zip(texts, runs, strict=True))
        shown.append(".".join(cut))
    return shown


@cache
def _limit(lengths: tuple[int, ...], room: int) -> int:
    """How long each of some texts may be so that all have room."""
    fair = (
        limit
        for limit in range(max(lengths, default=1), 1, -1)
        if sum(min(length, limit) for length in lengths) <= room
    )
    return next(fair, 1)


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
