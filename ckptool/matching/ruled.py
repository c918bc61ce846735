"""What was matched as rules: those that are taken, and apart from them those that somebody has to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ckptool.core.checkpoint import Note
from ckptool.core.counts import many
from ckptool.core.spec import TensorSpec
from ckptool.matching.order import has_order
from ckptool.matching.result import Confidence, Evidence, MatchReport, MatchRule, Pair, least_sure
from ckptool.recipes.induce.induce import rules_from
from ckptool.recipes.induce.lines import Ruled
from ckptool.recipes.induce.reversing import why_not_reversed

Specs = Mapping[str, TensorSpec]

_REASONS = 3  # said of a rule


def with_rules(report: MatchReport, source: Specs, target: Specs, accept: Confidence) -> MatchReport:
    """The report with rules, less the pairs that no rule says: it never says more than the recipe does.

    Args:
        report: its pairs.
        source: the source's specs.
        target: the target's.
        accept: rules are made of pairs that are as sure as this, or surer; the others get rules of their own.
    """
    level = min(accept, Confidence.ALIGNED, key=lambda one: one.rank)
    sure = [pair for pair in report.pairs if pair.confidence.within(level)]
    rules: list[MatchRule] = []
    for one in Confidence:
        doubtful = [pair for pair in report.pairs if pair.confidence is one and not one.within(level)]
        rules += _rules(doubtful, source, target, in_parts=False)
    taken = _rules(sure, source, target, in_parts=True)
    rules += taken
    said = {id(pair) for rule in rules for pair in rule.pairs}
    fitted = {**target, **{pair.targets[0]: source[pair.sources[0]] for pair in report.reshaped}}
    why = why_not_reversed((Ruled(rule.text, rule.pairs) for rule in taken), source, target)
    unsaid = [pair for pair in report.pairs if id(pair) not in said]
    return replace(
        report,
        pairs=tuple(pair for pair in report.pairs if id(pair) in said),
        unmatched_targets=(*report.unmatched_targets, *(key for pair in unsaid for key in pair.targets)),
        unmatched_sources=(*report.unmatched_sources, *(key for pair in unsaid for key in pair.sources)),
        notes=(*report.notes, *_unsaid(unsaid), *((Note(f"the rules do not reverse: {why}"),) if why else ())),
        rules=tuple(rules),
        reshaped_rules=tuple(_rules(report.reshaped, source, fitted, in_parts=False)),
    )


def _rules(pairs: Sequence[Pair], source: Specs, target: Specs, *, in_parts: bool) -> list[MatchRule]:
    """Rules for pairs, in the order of the model: the target's, or the source's if that alone has one."""
    if not pairs:
        return []
    is_source = has_order([*source]) and not has_order([*target])
    at = {key: number for number, key in enumerate(source if is_source else target)}
    ordered = sorted(pairs, key=lambda pair: min(at[key] for key in (pair.sources if is_source else pair.targets)))
    found = []
    for rule in rules_from(ordered, source, target, in_parts=in_parts):
        mine = tuple(pair for pair in rule.said if isinstance(pair, Pair))
        if mine:
            sure = least_sure(pair.confidence for pair in mine)
            found.append(MatchRule(rule.text, mine, _reasons(mine), sure))
        else:
            found.append(MatchRule(rule.text, (), (Evidence.NO_COUNTERPART,), Confidence.CERTAIN))
    return found


def _reasons(pairs: Sequence[Pair]) -> tuple[Evidence, ...]:
    """What speaks for pairs, the most telling first: what holds for most of them, and tells most from others."""
    counts = Counter(said for pair in pairs for said in pair.evidence)

    def rank(said: Evidence) -> tuple[bool, float]:
        return 2 * counts[said] < len(pairs), -abs(said.weight)

    return tuple(sorted(counts, key=rank)[:_REASONS])


def _unsaid(pairs: Sequence[Pair]) -> tuple[Note, ...]:
    """What was found, and is not taken, for no rule says it."""
    keys = tuple(key for pair in pairs for key in pair.targets)
    text = f"left out, for no rule says what they are made of: {many(len(keys), 'tensor')}"
    return (Note(text, keys=keys),) if keys else ()
