"""Compares two runs, call by call, and says which differences count."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ckptool.probing.measure import difference, spread
from ckptool.probing.pairing import Pairing
from ckptool.probing.recording import Call, Run

Verdict = Literal["agrees", "differs", "divided", "behind"]


@dataclass(slots=True, eq=False)
class Compared:
    """A call of the target's beside one of the source's.

    Attributes:
        call: the target's.
        other: the source's.
        error: of the output; see `measure.difference`.
        input_error: of the input.
        scale: of the source's output.
        shapes: of both outputs.
        verdict: "divided" if it differs and all that is computed from it agrees; "behind" if it differs, and so may it,
            for something that only one of the models has lies before it.
    """

    call: Call
    other: Call
    error: float
    input_error: float | None
    scale: float
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    verdict: Verdict = "differs"


@dataclass(slots=True, eq=False)
class Comparer:
    """Takes the target's calls as they end and compares them with the source's; keeps numbers and no tensors."""

    pairing: Pairing
    source: Run
    owners: frozenset[str]
    tolerance: float
    compared: list[Compared] = field(default_factory=list)
    _calls: dict[tuple[str, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._calls = {(call.module, call.number): at for at, call in enumerate(self.source.calls)}

    def take(self, call: Call) -> None:
        """One call of the target that ended."""
        found = self._best(call)
        if found is not None:
            self.compared.append(found)
        call.input = call.output = None

    def _best(self, call: Call) -> Compared | None:
        """The call beside the likeliest of the source's, or beside the first whose output it has."""
        first: Compared | None = None
        for name in self.pairing.others.get(call.module, ()):
            at = self._calls.get((name, call.number))
            if at is None:
                continue
            other = self.source.calls[at]
            for likely in (other, *self._followers(at)):
                error = difference(call.output, likely.output, self.tolerance)
                if error is None:
                    continue
                if error <= self.tolerance or first is None:
                    found = self._beside(call, other, error)
                    first = first or found
                    if error <= self.tolerance:
                        found.verdict = "agrees"
                        return found
        return None if first is None or call.module in self.pairing.is_loose else first

    def _beside(self, call: Call, other: Call, error: float) -> Compared:
        mine, its = call.output, other.output
        assert mine is not None and its is not None
        input_error = difference(call.input, other.input, self.tolerance)
        return Compared(call, other, error, input_error, spread(its), (tuple(mine.shape), tuple(its.shape)))

    def _followers(self, at: int) -> Iterator[Call]:
        """What the source does to an output before the next module with weights: the target may do it within."""
        calls = self.source.calls
        for later in range(at + 1, len(calls)):
            call = calls[later]
            if call.module in self.owners:
                return
            if call.made & calls[at].mark:
                yield call


def judge(comparer: Comparer, excused: int, excused_source: int) -> None:
    """Decide which differences count.

    Args:
        comparer: after both runs; its `compared` get their verdicts.
        excused: the marks of the target's tensors that nothing filled: what is computed from them may differ.
        excused_source: the marks of the source's tensors that the target has no place for.
    """
    rows = comparer.compared
    for at in range(len(rows) - 1, -1, -1):
        row = rows[at]
        if row.verdict == "agrees":
            continue
        if row.call.made & excused or row.other.made & excused_source:
            row.verdict = "behind"
            continue
        after = list(_next(row, rows[at + 1 :]))
        if after and all(later.verdict in ("agrees", "divided") for later in after):
            row.verdict = "divided"


def _next(row: Compared, later: Sequence[Compared]) -> Iterator[Compared]:
    """What is computed from a call and from none of the other calls that are."""
    below = [other for other in later if other.call.made & row.call.mark]
    for other in below:
        if not any(other.call.made & between.call.mark for between in below if between is not other):
            yield other


def nearest(row: Compared, rows: Sequence[Compared]) -> list[Compared]:
    """The compared calls that what goes into a call is computed from, and none of the others is."""
    above = [other for other in rows if row.call.before & other.call.mark]
    return [one for one in above if not any(other.call.made & one.call.mark for other in above if other is not one)]


def largest(rows: Sequence[Compared]) -> float:
    return max((row.error for row in rows if row.verdict == "agrees" and math.isfinite(row.error)), default=0.0)


def marks_of(keys: Mapping[str, int], wanted: Iterator[str]) -> int:
    found = 0
    for key in wanted:
        found |= keys.get(key, 0)
    return found
