"""From matched units to rules: one line for what many pairs have in common, checked against every pair.

A unit is one rule already: the families around it are captures, its roles a capture or a choice. Rules that share their
beginnings become one that carries the rest over (``{m**}``), those that differ in one part become a choice. What comes
out is expanded on the actual keys; where it does not say exactly what the pairs say, the plainer rules are taken.
"""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from ckptool.core.errors import CkptError
from ckptool.core.plan import sources_of
from ckptool.core.spec import TensorSpec
from ckptool.matching.captures import Side, instance_sides, side_pairs
from ckptool.matching.choices import chosen
from ckptool.matching.drafts import Draft, finished, with_open_ends
from ckptool.matching.edges import Match
from ckptool.matching.fold import folded
from ckptool.matching.grouped import group_sides
from ckptool.matching.halves import HALVES
from ckptool.matching.order import has_order
from ckptool.matching.result import Confidence, Evidence, MatchRule, Pair, least_sure
from ckptool.matching.reversal import dropping, why_not_reversed
from ckptool.recipes.expand import expand
from ckptool.recipes.recipe import parse_recipe
from ckptool.recipes.renaming import drop_rules

Specs = Mapping[str, TensorSpec]

_PLAIN = re.compile(r"[\w.]*")
_MOST_DROPS = 2000  # keys; with more of them no rule carries a rest over
_FEW = 10  # rules that nobody needs fewer of
_FEW_DOUBTS = 4  # of those that have to be looked at one by one
_MOST_FOLDED = 20_000  # pairs; of more, the rules of units have to do
_REASONS = 3  # said of a rule


def rules_of(
    found: Sequence[tuple[Match, Sequence[Pair]]], source: Specs, target: Specs, *, merge: bool = True
) -> tuple[MatchRule, ...]:
    """Rules that say exactly what the pairs say, together with drops of what they would carry over by mistake.

    Of rules that say it the shortest that reverse; the shortest of all where the plainest do not either.

    Args:
        found: matches of one level of confidence, each with its pairs.
        source: the source's specs.
        target: the target's.
        merge: make one rule of several where that says the same; else only where there would be many.
    """
    if not found:
        return ()
    units = [draft for match, pairs in found for draft in _unit_drafts(match, pairs)]
    pairs = [pair for draft in units for pair in draft.pairs]
    wanted = {key: (tuple(sorted(pair.sources)), target[key].shape) for pair in pairs for key in pair.targets}
    kept = {key for pair in pairs for key in pair.sources}
    place = _place(source, target)
    shortest: tuple[MatchRule, ...] = ()
    for drafts in _levels(found, units, source, kept, merge=merge):
        drafts = sorted(finished(drafts), key=lambda draft: draft.order)
        for drops in _drops(drafts, source, kept):
            said = _in_order_of_model(drafts, drops, place, lambda texts: _says(texts, source, target) == wanted)
            if said is not None:
                rules = tuple(_finished(said, drops))
                if not _fault(said, source, target) or (not shortest and _fault(units, source, target)):
                    return rules
                shortest = shortest or rules
                break
    return shortest or tuple(_finished(_one_by_one(_narrow(found), source, target), []))


def _place(source: Specs, target: Specs) -> Callable[[Pair], int]:
    """Where a pair stands in the model: in the target's file, or in the source's if that alone has an order."""
    is_source = has_order([*source]) and not has_order([*target])
    at = {key: number for number, key in enumerate(source if is_source else target)}
    return lambda pair: min(at[key] for key in (pair.sources if is_source else pair.targets))


def _in_order_of_model(
    drafts: Sequence[Draft], drops: Sequence[str], place: Callable[[Pair], int], holds: Callable[[list[str]], bool]
) -> Sequence[Draft] | None:
    """The drafts in the order of the model, where they say the same so; else the narrow ones first; None if wrong."""
    by_model = sorted(drafts, key=lambda draft: min(map(place, draft.pairs)))
    by_rest = sorted(by_model, key=lambda draft: draft.order[0])
    for some in (by_model, by_rest, drafts):
        if holds([*drops, *(draft.text for draft in some)]):
            return some
    return None


def _fault(drafts: Iterable[Draft], source: Specs, target: Specs) -> str:
    return why_not_reversed(((draft.text, draft.pairs) for draft in drafts), source, target)


def _narrow(found: Sequence[tuple[Match, Sequence[Pair]]]) -> list[Draft]:
    """The drafts of units, with captures for their own numbers alone."""
    return [draft for match, pairs in found for draft in _unit_drafts(match, pairs, ranged=True)]


def _levels(
    found: Sequence[tuple[Match, Sequence[Pair]]], units: list[Draft], source: Specs, kept: set[str], *, merge: bool
) -> Iterator[list[Draft]]:
    """The same in ever more rules; those whose captures have ranges after those without."""

    def in_order(levels: list[list[Draft]], most: int = sys.maxsize) -> Iterator[list[Draft]]:
        costs = [len(drafts) + len(next(_drops(drafts, source, kept), ())) for drafts in levels]
        for cost, at in sorted((cost, at) for at, cost in enumerate(costs)):
            if cost <= most:
                yield levels[at]

    if not merge and len(units) <= _FEW_DOUBTS:
        yield units
        yield _narrow(found)
        return
    drafts = [units]
    levels = _merged(drafts, merge=merge)
    yield from in_order(levels, _FEW)
    drafts.append(_narrow(found))
    if sum(len(draft.pairs) for draft in units) <= _MOST_FOLDED:
        modules = Counter(key.rpartition(".")[0] for key in source)
        ones = [draft for match, pairs in found for draft in _instance_drafts(match, pairs)]
        drafts.append(folded(with_open_ends(ones, modules), source))
    levels = _merged(drafts, merge=merge)
    yield from in_order(levels, _FEW)
    yield from in_order([*levels, *_merged(drafts, merge=merge, generous=True)])


def _merged(several: Iterable[list[Draft]], *, merge: bool, generous: bool = False) -> list[list[Draft]]:
    """The same drafts with choices, and with rests that are carried over."""
    levels = []
    for drafts in several:
        fewer = chosen(drafts, generous=generous)
        rests = [_carried(fewer, numbers=True), _carried(fewer, numbers=False), _carried(drafts, numbers=False)]
        levels += [*(rests if merge else ()), chosen(fewer, generous=generous, same=True), drafts]
    return levels


def _finished(drafts: Iterable[Draft], drops: Iterable[str]) -> list[MatchRule]:
    found = [MatchRule(text, (), (Evidence.NO_COUNTERPART,), Confidence.CERTAIN) for text in drops]
    for draft in drafts:
        confidence = least_sure(pair.confidence for pair in draft.pairs)
        found.append(MatchRule(draft.text, draft.pairs, _reasons(draft.pairs), confidence))
    return found


def _reasons(pairs: Sequence[Pair]) -> tuple[Evidence, ...]:
    """What speaks for pairs, the most telling first: what holds for most of them, and tells most from others."""
    counts = Counter(said for pair in pairs for said in pair.evidence)

    def rank(said: Evidence) -> tuple[bool, float]:
        return 2 * counts[said] < len(pairs), -abs(said.weight)

    return tuple(sorted(counts, key=rank)[:_REASONS])


def _one_by_one(units: Sequence[Draft], source: Specs, target: Specs) -> list[Draft]:
    """The drafts that hold by themselves; the others tensor by tensor, as far as the language has their names."""
    good: list[Draft] = []
    for draft in units:
        singles = [
            Draft(
                tuple(tuple(key.split(".")) for key in pair.sources),
                tuple(tuple(key.split(".")) for key in pair.targets),
                pair.layout,
                (pair,),
            )
            for pair in draft.pairs
        ]
        for one in ([draft], singles):
            drafts = [each for each in one if _holds(each, source, target)]
            if drafts and len(drafts) == len(one):
                good += drafts
                break
    return good


def _holds(draft: Draft, source: Specs, target: Specs) -> bool:
    keys = [key for pair in draft.pairs for key in pair.sources]
    if len(draft.pairs) == 1 and _PLAIN.fullmatch("".join(keys)):  # names themselves, which say nothing of other keys
        source = {key: source[key] for key in keys}
    wanted = {key: (tuple(sorted(pair.sources)), target[key].shape) for pair in draft.pairs for key in pair.targets}
    return _says([draft.text], source, target) == wanted


def _says(
    rules: Sequence[str], source: Specs, target: Specs
) -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]] | None:
    """What rules make, and of what; None if they cannot be read or carried out, or stand in no text of a recipe."""
    if any(not text.isprintable() or "'''" in text for text in rules):
        return None
    try:
        recipe = dropping(parse_recipe(list(rules)))
        found = expand(recipe, source, targets=target)
    except CkptError:
        return None
    if found.problems:
        return None
    return {
        step.target.key: (tuple(sorted({one.key for one in sources_of(step.value)})), step.target.shape)
        for step in found.steps
    }


def _drops(drafts: Sequence[Draft], source: Specs, kept: set[str]) -> Iterator[list[str]]:
    """Rules that drop what rules with a rest would carry over though no pair names it; in short, then longer."""
    heads = [draft.source[0] for draft in drafts if "{m**}" in draft.text]
    caught = [key for key in source if key not in kept and any(_begins(key, head) for head in heads)]
    if len(caught) <= _MOST_DROPS:
        rules = drop_rules(caught, kept) if caught else []
        yield _listed(rules)
        yield _listed(rules, exactly=True)
        yield rules


def _listed(rules: Sequence[str], *, exactly: bool = False) -> list[str]:
    """Rules that differ in numbers only as one with lists: ``blocks.{6-11}.{k**} -> !``.

    Args:
        rules: without lists.
        exactly: the lists mean these numbers together and no others, which may take several rules.
    """
    rows: dict[str, list[tuple[frozenset[int], ...]]] = defaultdict(list)
    for rule in rules:
        numbers = re.findall("[0-9]+", rule)
        rows[re.sub(r"[0-9]+", "#", rule)].append(tuple(frozenset([int(number)]) for number in numbers))
    found = []
    for text, boxes in rows.items():
        if exactly:
            merged = _boxes(boxes)
        else:
            merged = [tuple(frozenset().union(*column) for column in zip(*boxes, strict=True))]
        for box in merged:
            made = text
            for column in box:
                made = made.replace("#", _ranges(sorted(column)), 1)
            found.append(made)
    return found


def _boxes(boxes: Sequence[tuple[frozenset[int], ...]]) -> list[tuple[frozenset[int], ...]]:
    """The same combinations of numbers as fewer rows, joined where all columns but one are equal."""
    found = list(dict.fromkeys(boxes))
    for at in range(len(found[0])):
        joined: dict[tuple[frozenset[int], ...], frozenset[int]] = {}
        for box in found:
            others = box[:at] + box[at + 1 :]
            joined[others] = joined.get(others, frozenset()) | box[at]
        found = [(*others[:at], column, *others[at:]) for others, column in joined.items()]
    return found


def _ranges(numbers: Sequence[int]) -> str:
    """``{6-11}``, ``{1,3}``, or the number alone."""
    if len(numbers) == 1:
        return str(numbers[0])
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return "{" + ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs) + "}"


def _begins(key: str, head: Side) -> bool:
    parts = key.split(".")
    return len(parts) >= len(head) and all(
        "{" in want or want == part for want, part in zip(head[:-1], parts, strict=False)
    )


# ---------------------------------------------------------------------------------------------- drafts


def _unit_drafts(match: Match, pairs: Sequence[Pair], *, ranged: bool = False) -> list[Draft]:
    """One draft for each layout among a unit's pairs; plain ones take all roles together."""
    made = match.source.kind or match.target.kind
    rows: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        rows[pair.layout if made in ("", HALVES) else ""].append(pair)
    found = []
    for layout, row in rows.items():
        sides = (group_sides if made else side_pairs)(match, row, layout, ranged=ranged)
        found += [Draft(one.source, one.target, one.layout, one.pairs) for one in sides]
    return found


def _instance_drafts(match: Match, pairs: Sequence[Pair]) -> list[Draft]:
    """A unit's drafts instance by instance, as they are named; of groups for all together."""
    if match.source.kind or match.target.kind:
        return _unit_drafts(match, pairs)
    rows: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        rows[pair.layout].append(pair)
    return [
        Draft(one.source, one.target, one.layout, one.pairs)
        for layout, row in rows.items()
        for one in instance_sides(match, row, layout)
    ]


def _carried(drafts: Sequence[Draft], *, numbers: bool) -> list[Draft]:
    """Plain drafts of one beginning here and one there, whose ends are equal, as one rule with a rest."""
    groups: dict[tuple[Side, Side], list[Draft]] = defaultdict(list)
    rest: list[Draft] = []
    for draft in drafts:
        if not draft.is_plain:
            rest.append(draft)
            continue
        ours, theirs = draft.source[0], draft.target[0]
        same = 0
        while same < min(len(ours), len(theirs)) and ours[-1 - same] == theirs[-1 - same]:
            if not numbers and _is_numbered(ours[-1 - same]):
                break
            same += 1
        if same == 0:
            rest.append(draft)
            continue
        groups[ours[: len(ours) - same], theirs[: len(theirs) - same]].append(draft)
    for (ours, theirs), row in groups.items():
        if len(row) == 1:
            rest += row
        else:
            pairs = tuple(pair for draft in row for pair in draft.pairs)
            rest.append(Draft(((*ours, "{m**}"),), ((*theirs, "{m**}"),), "", pairs))
    return rest


def _is_numbered(part: str) -> bool:
    return "{" in part and not part.startswith("{p")
