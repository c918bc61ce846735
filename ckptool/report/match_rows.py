"""An automatic match as rows: a rule each, what it rests on, and what was found but not taken."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from ckptool.commands.automatic import Automatic
from ckptool.core.fold import rollup
from ckptool.matching.result import MatchRule
from ckptool.report.match_words import evidence_words, rival_words, shape_words
from ckptool.report.units import number_of


@dataclass(frozen=True, slots=True)
class MatchRow:
    """One rule that was found.

    Attributes:
        symbol: ``>`` renames, ``*`` computes, ``-`` drops, ``=`` changes nothing, ``!`` brings another
            shape, ``?`` is not taken.
        number: the N of "match rule N", as plans name it; 0 if it is not taken.
        rule: it.
        what: "aligned, 24 tensors: words agree, order agrees".
        rival: the next best source and how near it came, of the pair that is decided most narrowly; "" for none.
    """

    symbol: str
    number: int
    rule: str
    what: str
    rival: str

    @property
    def is_taken(self) -> bool:
        return self.symbol != "?"


def match_rows(found: Automatic) -> list[MatchRow]:
    """The rules that are taken, then those that are not."""
    rules = sorted(found.report.rules, key=lambda rule: not rule.confidence.within(found.accept))
    taken = sum(rule.confidence.within(found.accept) for rule in rules)
    reshaped = {*found.report.reshaped}
    return [
        _row(rule, at if at <= taken else 0, not reshaped.isdisjoint(rule.pairs)) for at, rule in enumerate(rules, 1)
    ]


def _row(rule: MatchRule, number: int, reshapes: bool) -> MatchRow:
    many = f", {number_of(len(rule.pairs), 'tensor')}" if rule.pairs else ""
    return MatchRow(
        "?" if not number else "!" if reshapes else _symbol(rule),
        number,
        rule.text,
        f"{rule.confidence.value}{many}: {', '.join(evidence_words(rule.evidence, rule.pairs))}",
        rival_words(rule),
    )


def _symbol(rule: MatchRule) -> str:
    if not rule.pairs:
        return "-"
    if any(pair.layout for pair in rule.pairs):
        return "*"
    return "=" if all(pair.sources == pair.targets for pair in rule.pairs) else ">"


def match_text(found: Automatic) -> str:
    """``150 of 152 target tensors, 150 of 180 source tensors, 9 rules``"""
    report = found.report
    taken = report.accepted(found.accept)
    targets, sources = {key for pair in taken for key in pair.targets}, {key for pair in taken for key in pair.sources}
    whole = sum(len(pair.targets) for pair in report.pairs) + len(report.unmatched_targets)
    everything = len({key for pair in report.pairs for key in pair.sources}) + len(report.unmatched_sources)
    rules = number_of(sum(row.is_taken for row in match_rows(found)), "rule")
    return f"{len(targets):,} of {whole:,} target tensors, {len(sources):,} of {everything:,} source tensors, {rules}"


def left_texts(found: Automatic) -> Iterator[tuple[str, list[str]]]:
    """(what is true of them, key patterns) of tensors of either side that no rule makes or takes."""
    report = found.report
    ruled = {pair for rule in report.rules for pair in rule.pairs}
    reshaped = [pair for pair in report.reshaped if pair not in ruled]
    yield from _left(
        "target tensors without a source",
        report.unmatched_targets,
        [key for pair in report.pairs for key in pair.targets],
        {key for pair in report.reshaped for key in pair.targets},
    )
    yield from _left(
        "source tensors without a target",
        report.unmatched_sources,
        [key for pair in report.pairs for key in pair.sources],
        {key for pair in report.reshaped for key in pair.sources},
    )
    if reshaped:
        texts = [f"{pair.targets[0]} {shape_words(pair)}" for pair in reshaped]
        yield f"{len(reshaped):,} of another shape in source and target", texts


def _left(
    what: str, keys: Sequence[str], paired: Sequence[str], reshaped: Collection[str]
) -> Iterator[tuple[str, list[str]]]:
    left = dict.fromkeys(key for key in keys if key not in reshaped)
    groups = rollup([(key, key not in left) for key in [*paired, *reshaped, *left]])
    if left:
        yield f"{len(left):,} {what}", [group.pattern for group in groups if not group.label]


def taking_hint(found: Automatic) -> str:
    """The option that takes what is not taken; "" if all is."""
    left = [rule.confidence for rule in found.report.rules if not rule.confidence.within(found.accept)]
    return f"--accept {max(left, key=lambda one: one.rank).value}" if left else ""
