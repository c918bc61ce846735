"""Ranges of a file, joined where they lie close together and cut where they are long."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

GAP = 256 << 10
"""Bytes between two ranges that are read over rather than asked for separately: one more request costs more."""

LONGEST = 16 << 20
"""Bytes of one request for values: a repetition is cheap, and eight requests have work."""


class Segment(NamedTuple):
    """Bytes `start` to `stop`, of which `wanted` will be used."""

    start: int
    stop: int
    wanted: int


def segments(ranges: Iterable[tuple[int, int]], gap: int = GAP, longest: int = LONGEST) -> list[Segment]:
    """The requests for some ranges, in the order of the file.

    Args:
        ranges: (first byte, end) each, in any order; they may overlap.
        gap: ranges that are no farther apart become one.
        longest: bytes of one request.

    Example:
        >>> segments([(0, 10), (12, 20), (500, 530)], gap=8, longest=40)
        [Segment(start=0, stop=20, wanted=18), Segment(start=500, stop=530, wanted=30)]
    """
    found: list[Segment] = []
    runs: list[tuple[int, int]] = []
    for start, stop in sorted(each for each in ranges if each[0] < each[1]):
        if runs and start <= runs[-1][1]:
            runs[-1] = (runs[-1][0], max(stop, runs[-1][1]))
        else:
            runs.append((start, stop))
    first = 0
    for number, (_, stop) in enumerate(runs):
        if number + 1 == len(runs) or runs[number + 1][0] - stop > gap:
            found += _cut(runs[first : number + 1], longest)
            first = number + 1
    return found


def _cut(runs: list[tuple[int, int]], longest: int) -> list[Segment]:
    """One stretch in pieces of at most `longest` bytes; a piece that no run meets is left out."""
    pieces: list[Segment] = []
    at, end, number = runs[0][0], runs[-1][1], 0
    while at < end:
        stop = min(at + longest, end)
        wanted, scan = 0, number
        while scan < len(runs) and runs[scan][0] < stop:
            low, high = max(at, runs[scan][0]), min(stop, runs[scan][1])
            wanted += max(0, high - low)
            if runs[scan][1] > stop:
                break
            scan += 1
        number = scan
        if wanted:
            pieces.append(Segment(at, stop, wanted))
        at = stop
    return pieces
