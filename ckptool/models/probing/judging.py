"""Compares two runs, call by call, and says which differences count."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ckptool.models.probing.flow import ROUNDED
from ckptool.models.probing.measure import difference, spread
from ckptool.models.probing.pairing import Pairing
from ckptool.models.probing.recording import Call, Kept, Run
from ckptool.models.probing.rounding import Rounding

Verdict = Literal["agrees", "differs", "divided", "behind"]


@dataclass(slots=True, eq=False)
class Compared:
    """A call of the target's beside one of the source's.

    Attributes:
        call: the target's.
        other: the source's.
        error: of the output; see `measure.difference`.
        limit: the largest error that is rounding here.
        input_error: of the input; None if it agrees, for then nobody asks.
        scale: of the source's output.
        shapes: of both outputs.
        verdict: "divided" if it differs and all that is computed from it agrees; "behind" if it differs, and so may it,
            for something that only one of the models has lies before it.
    """

    call: Call
    other: Call
    error: float
    limit: float
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
        rounding: which differences are none.
        compared: what was compared so far.
    """

    pairing: Pairing
    source: Run
    owners: frozenset[str]
    around: frozenset[str]
    rounding: Rounding
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
                if call.output is None or likely.output is None:
                    continue
                error, limit = self._difference(call, call.output, likely.output, likely.made)
                if error <= limit:
                    return self._beside(call, other, error, limit, "agrees")
                first = first or self._beside(call, other, error, limit)
        if first is None or call.module in self.pairing.is_loose:
            return None
        is_other = math.prod(first.shapes[0]) != math.prod(first.shapes[1])
        return None if is_other and call.module in self.around else first

    def _whole(self, call: Call) -> Compared | None:
        """The model beside the source's: each of its outputs may be any of the source's, for heads differ."""
        if not self.source.calls or "" not in self.pairing.others:
            return None
        other = self.source.calls[-1]
        if call.output is None or other.output is None:
            return None
        made, worst = 0, (0.0, 0.0)
        for mine, marks in call.outputs:
            found = min((self._difference(call, mine, its, there) for its, there in other.outputs), default=None)
            if found is not None and found[0] <= found[1]:
                made, worst = made | marks, max(worst, found)
        if made:
            call.made = made
            return self._beside(call, other, *worst, "agrees")
        error, limit = self._difference(call, call.output, other.output, other.made)
        return None if math.isinf(error) else self._beside(call, other, error, limit)

    def _difference(self, call: Call, mine: Kept, its: Kept, marks: int) -> tuple[float, float]:
        """Of two outputs, and the most that is rounding; `marks` are those of the source's."""
        is_rounded = bool((call.made | marks) & ROUNDED)
        limit = self.rounding.limit(is_rounded, 0.0)
        error = difference(mine.array, its.array, limit)
        if error > limit and math.isfinite(error):
            before = (row.error for row in self.compared if row.verdict == "agrees" and call.made & row.call.mark)
            limit = self.rounding.limit(is_rounded, max(before, default=0.0))
        return error, limit

    def _beside(self, call: Call, other: Call, error: float, limit: float, verdict: Verdict = "differs") -> Compared:
        assert call.output is not None and other.output is not None
        mine, its = call.output.array, other.output.array
        given = _apart(call.input, other.input, limit) if verdict == "differs" else None
        return Compared(call, other, error, limit, given, spread(its), (mine.shape, its.shape), verdict)

    def _followers(self, at: int) -> Iterator[Call]:
        """What the source does to an output before the next module with weights: the target may do it within."""
        calls = self.source.calls
        for later in range(at + 1, len(calls)):
            call = calls[later]
            if call.module in self.owners:
                return
            if call.made & calls[at].mark:
                yield call


def _apart(mine: Kept | None, its: Kept | None, limit: float) -> float | None:
    return None if mine is None or its is None else difference(mine.array, its.array, limit)


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
