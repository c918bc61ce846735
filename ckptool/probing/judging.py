"""Compares two runs, call by call, and says which differences count."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    """Takes the target's calls as they end and compares them with the source's; keeps numbers and no tensors.

    Attributes:
        pairing: which modules have the same tensors.
        source: the source's run.
        owners: modules of the source that have tensors themselves.
        around: modules of the target with modules in them; they may give something else, if those agree.
        tolerance: the largest error that is agreement.
        compared: what was compared so far.
    """

    pairing: Pairing
    source: Run
    owners: frozenset[str]
    around: frozenset[str]
    tolerance: float
    compared: list[Compared] = field(default_factory=list)
    _calls: dict[tuple[str, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._calls = {(call.module, call.number): at for at, call in enumerate(self.source.calls)}

    def take(self, call: Call) -> None:
        """One call of the target that ended."""
        found = self._best(call) if call.module else self._whole(call)
        if found is not None:
            self.compared.append(found)
        call.input, call.outputs = None, ()

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
                    found = self._beside(call, other, error, "agrees" if error <= self.tolerance else "differs")
                    if error <= self.tolerance:
                        return found
                    first = found
        if first is None or call.module in self.pairing.is_loose:
            return None
        is_other = math.prod(first.shapes[0]) != math.prod(first.shapes[1])
        return None if is_other and call.module in self.around else first

    def _whole(self, call: Call) -> Compared | None:
        """The model beside the source's: each of its outputs may be any of the source's, for heads differ."""
        if not self.source.calls or "" not in self.pairing.others:
            return None
        other = self.source.calls[-1]
        made, worst = 0, 0.0
        for mine, marks in call.outputs:
            errors = (difference(mine, its, self.tolerance) for its, _ in other.outputs)
            least = min((error for error in errors if error is not None), default=math.inf)
            if least <= self.tolerance:
                made, worst = made | marks, max(worst, least)
        if made:
            call.made = made
            return self._beside(call, other, worst, "agrees")
        error = difference(call.output, other.output, self.tolerance)
        return None if error is None or math.isinf(error) else self._beside(call, other, error)

    def _beside(self, call: Call, other: Call, error: float, verdict: Verdict = "differs") -> Compared:
        mine, its = call.output, other.output
        assert mine is not None and its is not None
        input_error = difference(call.input, other.input, self.tolerance)
        return Compared(call, other, error, input_error, spread(its), (mine.shape, its.shape), verdict)

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


def marks_of(keys: Mapping[str, int], wanted: Iterable[str]) -> int:
    found = 0
    for key in wanted:
        found |= keys.get(key, 0)
    return found
