"""An automatic match as blocks: a rule each, what it rests on, and what was found but not taken."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from ckptool.core.counts import many
from ckptool.core.fold import rollup
from ckptool.matching.result import MatchRule
from ckptool.report.blocks import Block, Facts, Item, Items, Next, Notes
from ckptool.report.match_explain import explain_blocks
from ckptool.report.match_words import rule_words, shape_words

if TYPE_CHECKING:
    from ckptool.commands.automatic import Automatic


def match_blocks(found: Automatic | None) -> Iterator[Block]:
    """The rules that are taken, then those that are not, what has no counterpart; nothing if nothing was matched."""
    if found is None:
        return
    rules = sorted(found.report.rules, key=lambda rule: not rule.confidence.within(found.accept))
    taken = sum(rule.confidence.within(found.accept) for rule in rules)
    reshaped = {*found.report.reshaped}
    yield Items(
        tuple(
            Item(
                "?" if at > taken else "!" if not reshaped.isdisjoint(rule.pairs) else _symbol(rule),
                rule.text,
                (rule_words(rule),),
                str(at) if at <= taken else "",
            )
            for at, rule in enumerate(rules, 1)
        ),
        title="match",
        sum=match_text(found),
        code=True,
    )
    if taken < len(rules):
        least = max((rule.confidence for rule in rules[taken:]), key=lambda one: one.rank)
        yield Next((f"? is not taken: look at it, then --accept {least.value}",))
    yield Facts(tuple(_left_texts(found)))
    yield Notes(found.report.notes)
    yield from explain_blocks(found)


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
    rules = many(sum(rule.confidence.within(found.accept) for rule in report.rules), "rule")
    wanted, given = many(whole, "target tensor"), many(everything, "source tensor")
    return f"{len(targets):,} of {wanted}, {len(sources):,} of {given}, {rules}"


def _left_texts(found: Automatic) -> Iterator[tuple[str, list[str]]]:
    """(what is true of them, key patterns) of tensors of either side that no rule makes or takes."""
    report = found.report
    ruled = {pair for rule in report.rules for pair in rule.pairs}
    reshaped = [pair for pair in report.reshaped if pair not in ruled]
    yield from _left(
        ("target tensor without a source", "target tensors without a source"),
        report.unmatched_targets,
        [key for pair in report.pairs for key in pair.targets],
        {key for pair in report.reshaped for key in pair.targets},
    )
    yield from _left(
        ("source tensor without a target", "source tensors without a target"),
        report.unmatched_sources,
        [key for pair in report.pairs for key in pair.sources],
        {key for pair in report.reshaped for key in pair.sources},
    )
    if reshaped:
        texts = [f"{pair.targets[0]} {shape_words(pair)}" for pair in reshaped]
        yield f"{len(reshaped):,} of another shape in source and target", texts


def _left(
    what: tuple[str, str], keys: Sequence[str], paired: Sequence[str], reshaped: Collection[str]
) -> Iterator[tuple[str, list[str]]]:
    left = dict.fromkeys(key for key in keys if key not in reshaped)
    groups = rollup([(key, key not in left) for key in [*paired, *reshaped, *left]])
    if left:
        yield many(len(left), *what), [group.pattern for group in groups if not group.label]
