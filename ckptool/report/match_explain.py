"""What was weighed for the keys that were asked for: candidates, signals, and what objected."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ckptool.matching.result import Candidate, Pair
from ckptool.report.blocks import Block, Column, Item, Items, Rows
from ckptool.report.cells import Row
from ckptool.report.match_words import evidence_words

if TYPE_CHECKING:
    from ckptool.commands.automatic import Automatic


_MOST = 8  # candidates of a key that are shown


def explain_blocks(found: Automatic) -> Iterator[Block]:
    """For each key that was asked for: what became of it and why, then its candidates with their signals."""
    for key in found.asked:
        yield Items((Item("explain", key, (_outcome(found, key),), style="dim"),))
        rows = _candidates(found, key)
        shown = [Row((f"  {_names(one, key)}", *map(_number, _signals(one)))) for one in rows[:_MOST]]
        if len(rows) > _MOST:
            shown.append(Row((f"  {len(rows) - _MOST:,} more (all: --json)",), "dim"))
        yield Rows(_COLUMNS, lambda shown=shown: shown, title=f"candidates of {key}")  # type: ignore[misc]


def explain_fields(found: Automatic) -> list[dict[str, Any]]:
    """The same as JSON fields."""
    return [
        {"key": key, "outcome": _outcome(found, key), "candidates": [asdict(one) for one in _candidates(found, key)]}
        for key in found.asked
    ]


_SIGNALS = ("names", "lacking", "around", "siblings", "blocks", "order")
_COLUMNS = (Column("  candidate", "code", least=16), *(Column(name, "real") for name in (*_SIGNALS, "total")))


def _signals(one: Candidate) -> tuple[float | None, ...]:
    return one.words, one.lacking, one.around, one.siblings, one.blocks, one.order, one.total


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _candidates(found: Automatic, key: str) -> list[Candidate]:
    return found.report.weighed(key) if found.report.weighed else []


def _names(one: Candidate, key: str) -> str:
    """The other side of the candidate."""
    first, *others = one.targets if key in one.sources else one.sources
    return f"{first}  +{len(others)} more" if others else first


def _outcome(found: Automatic, key: str) -> str:
    """What became of a key."""
    report = found.report
    pair = next((pair for pair in (*report.pairs, *report.reshaped) if key in (*pair.targets, *pair.sources)), None)
    if pair is None:
        return "no match: no candidate has two independent signals that tell it from all others, and no objection"
    what = f"comes from {', '.join(pair.sources)}" if key in pair.targets else f"becomes {', '.join(pair.targets)}"
    return f"{'' if pair.confidence.within(found.accept) else 'not taken: '}{what}, {_why(pair)}"


def _why(pair: Pair) -> str:
    speaks = evidence_words([one for one in pair.evidence if not one.objects], (pair,))
    objects = evidence_words([one for one in pair.evidence if one.objects], (pair,))
    against = f"; against it: {', '.join(objects)}" if objects else ""
    return f"{pair.confidence.value}: {', '.join(speaks)}{against}"
