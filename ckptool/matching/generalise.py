"""From matched units to rules: one line for what many pairs have in common, checked against every pair.

A unit is one rule already: the families around it are captures, its roles a capture or a choice. Rules that share their
beginnings become one that carries the rest over (``{m**}``), those that differ in one part become a choice. What comes
out is expanded on the actual keys; where it does not say exactly what the pairs say, the plainer rules are taken.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from ckptool.compare.rules import drop_rules
from ckptool.errors import CkptError
from ckptool.matching.assign import Match
from ckptool.matching.captures import Side, side_pairs
from ckptool.matching.result import Confidence, MatchRule, Pair, least_sure
from ckptool.matching.reversal import dropping, why_not_reversed
from ckptool.plan import sources_of
from ckptool.recipes.expand import expand
from ckptool.recipes.recipe import parse_recipe
from ckptool.spec import TensorSpec

Specs = Mapping[str, TensorSpec]

_Mask = tuple[Side, Side, Side, Side, str, int, int]
_PLAIN = re.compile(r"[\w.]*")
_MOST_DROPS = 2000  # keys; with more of them no rule carries a rest over


@dataclass(frozen=True, slots=True)
class Draft:
    """A rule being made: the parts of both sides, what is done with the axes, the pairs it stands for."""

    source: tuple[Side, ...]
    target: tuple[Side, ...]
    layout: str
    pairs: tuple[Pair, ...]

    @property
    def text(self) -> str:
        """It in the recipe language."""
        left, right = (", ".join(".".join(side) for side in sides) for sides in (self.source, self.target))
        return f"{left} -> {right}" + (f" | {self.layout}" if self.layout else "")

    @property
    def is_plain(self) -> bool:
        """One tensor becomes one, as it is."""
        return len(self.source) == len(self.target) == 1 and not self.layout

    @property
    def order(self) -> tuple[bool, int, str]:
        """Rules that carry a rest over come last, those that say least at the very end."""
        return "{m**}" in self.text, -sum(len(part) for part in self.source[0] if "{" not in part), self.text


def rules_of(
    found: Sequence[tuple[Match, Sequence[Pair]]], source: Specs, target: Specs, *, merge: bool = True
) -> tuple[MatchRule, ...]:
    """Rules that say exactly what the pairs say, together with drops of what they would carry over by mistake.

    Of rules that say it the shortest that reverse; the shortest of all where the plainest do not either.

    Args:
        found: matches of one level of confidence, each with its pairs.
        source: the source's specs.
        target: the target's.
        merge: make one rule of several where that says the same.
    """
    if not found:
        return ()
    units = [draft for match, pairs in found for draft in _unit_drafts(match, pairs)]
    pairs = [pair for draft in units for pair in draft.pairs]
    wanted = {key: (tuple(sorted(pair.sources)), target[key].shape) for pair in pairs for key in pair.targets}
    kept = {key for pair in pairs for key in pair.sources}
    shortest: tuple[MatchRule, ...] = ()
    for drafts in _levels(units) if merge else [units]:
        drafts = sorted(drafts, key=lambda draft: draft.order)
        for drops in _drops(drafts, source, kept):
            if _says([*drops, *(draft.text for draft in drafts)], source, target) == wanted:
                rules = tuple(_finished(drafts, drops))
                if not merge or not _fault(drafts, source, target) or (not shortest and _fault(units, source, target)):
                    return rules
                shortest = shortest or rules
                break
    return shortest or tuple(_finished(_one_by_one(units, source, target), []))


def _fault(drafts: Iterable[Draft], source: Specs, target: Specs) -> str:
    return why_not_reversed(((draft.text, draft.pairs) for draft in drafts), source, target)


def _levels(units: list[Draft]) -> Iterator[list[Draft]]:
    """The same in ever plainer rules, the shortest first."""
    chosen = _chosen(units)
    yield _carried(chosen, numbers=True)
    yield _carried(chosen, numbers=False)
    yield _carried(units, numbers=False)
    yield units


def _finished(drafts: Iterable[Draft], drops: Iterable[str]) -> list[MatchRule]:
    found = [MatchRule(text, (), ("nothing in the target is like it",), Confidence.CERTAIN) for text in drops]
    for draft in drafts:
        evidence = tuple(dict.fromkeys(text for pair in draft.pairs for text in pair.evidence))
        found.append(MatchRule(draft.text, draft.pairs, evidence, least_sure(pair.confidence for pair in draft.pairs)))
    return found


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
    """What rules make, and of what; None if they cannot be read or carried out."""
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
    """Rules that drop what rules with a rest would carry over though no pair names it; in short, then at length."""
    heads = [draft.source[0] for draft in drafts if "{m**}" in draft.text]
    caught = [key for key in source if key not in kept and any(_begins(key, head) for head in heads)]
    if len(caught) <= _MOST_DROPS:
        rules = drop_rules(caught, kept) if caught else []
        yield _listed(rules)
        yield rules


def _listed(rules: Sequence[str]) -> list[str]:
    """Rules that differ in numbers only as one with lists: ``blocks.{6-11}.{k**} -> !``."""
    rows: dict[str, list[list[str]]] = defaultdict(list)
    for rule in rules:
        rows[re.sub(r"[0-9]+", "#", rule)].append(re.findall("[0-9]+", rule))
    found = []
    for text, numbers in rows.items():
        for column in zip(*numbers, strict=True):
            text = text.replace("#", _ranges(sorted({int(one) for one in column})), 1)
        found.append(text)
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


def _unit_drafts(match: Match, pairs: Sequence[Pair]) -> list[Draft]:
    """One draft for each layout among a unit's pairs; plain ones take all roles together."""
    rows: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        rows[pair.layout].append(pair)
    found = []
    for layout, row in rows.items():
        sides = side_pairs(match, row, layout)
        found += [Draft(one.source, one.target, one.layout, one.pairs) for one in sides]
    return found


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


def _chosen(drafts: Sequence[Draft]) -> list[Draft]:
    """Drafts that differ in one part of each side only as one rule with a choice, the largest groups first."""
    kept = dict(enumerate(drafts))
    groups: dict[_Mask, dict[int, Draft]] = defaultdict(dict)
    queue: list[tuple[int, int, _Mask]] = []
    order: dict[_Mask, int] = {}

    def add(number: int) -> None:
        for mask in _masks(kept[number]):
            groups[mask][number] = kept[number]
            if len(groups[mask]) > 1:
                heappush(queue, (-len(groups[mask]), order.setdefault(mask, len(order)), mask))

    for number in range(len(drafts)):
        add(number)
    while queue:
        size, _, mask = heappop(queue)
        row = groups[mask]
        if -size == len(row) > 1 and (made := _choice([*row.values()], mask)):
            for number in [*row]:
                for other in _masks(kept.pop(number)):
                    del groups[other][number]
                    if len(groups[other]) > 1:
                        heappush(queue, (-len(groups[other]), order[other], other))
            kept[max(kept, default=0) + len(drafts)] = made
    return [*kept.values()]


def _masks(draft: Draft) -> Iterator[_Mask]:
    """The draft without one part of each side, in every way that makes sense; none if it has a choice already."""
    if len(draft.source) > 1 or len(draft.target) > 1 or "{n" in draft.text:
        return
    ours, theirs = draft.source[0], draft.target[0]
    for at, part in enumerate(ours):
        for to, other in enumerate(theirs):
            if "{" not in part and "{" not in other and (part != other or len(ours) - at == len(theirs) - to):
                yield ours[:at], ours[at + 1 :], theirs[:to], theirs[to + 1 :], draft.layout, at, to


def _choice(row: Sequence[Draft], mask: _Mask) -> Draft | None:
    first, at, to = row[0], mask[-2], mask[-1]
    ours, theirs = [draft.source[0][at] for draft in row], [draft.target[0][to] for draft in row]
    if len(set(ours)) < len(ours) or len(set(theirs)) < len(theirs) or ours == theirs:
        return None
    left, right = (f"{{n={'|'.join(parts)}}}" for parts in (ours, theirs))
    source = (*first.source[0][:at], left, *first.source[0][at + 1 :])
    target = (*first.target[0][:to], right, *first.target[0][to + 1 :])
    return Draft((source,), (target,), first.layout, tuple(pair for draft in row for pair in draft.pairs))
