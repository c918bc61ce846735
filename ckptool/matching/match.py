"""The automatic match: from two lists of key, shape and dtype to pairs and rules. Stages, cheap to dear.

0. Layers or experts that are an axis of one tensor here and a list there: all else sees lists (`stacks`). What weights
   and biases are called, if that is unusual (`roles`): all else sees the usual names.
1. The ways to cut the keys into modules and lists (`cuts`), each tried (`attempt`); the one that matches most is taken.
2. Lists that are alike block by block, by the last numbers of their blocks or one after the other (`lists`, `blocks`);
   modules of equal shapes in every block, where words, neighbours, order and what else their lists hold tell them apart
   (`edges`, `signals`, `solve`): the same names, other prefixes, other words, fused tensors, bare
   matrices that became modules.
3. Lists of blocks of different lengths: the blocks that both have (`blocks`), and modules of some of them.
4. Parts that hold the same matrices, in any order (`contents`); files in one order (`sequence`); norms beside matrices
   that are each other's (`instances`). What others contradict is a guess (`doubts`).
5. What one signal alone tells, or only the order: kept as guesses, not applied by default. The same goes for everything
   where the two are of different kinds (`related`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product

from ckptool.core.collector import collector_paused
from ckptool.core.spec import TensorSpec
from ckptool.matching.attempt import Attempt, best_of
from ckptool.matching.copies import one_tower_note, tied_head, told_apart, twin_note, twins_of, with_twins
from ckptool.matching.cuts import cuts_of
from ckptool.matching.explain import Weighed
from ckptool.matching.modules import HUGE
from ckptool.matching.order import has_order
from ckptool.matching.related import related
from ckptool.matching.reshaped import reshaped_matches
from ckptool.matching.result import Confidence, MatchReport
from ckptool.matching.roles import called, called_back, usual_names, without_sums
from ckptool.matching.ruled import with_rules
from ckptool.matching.stacks import restacked, unstacked
from ckptool.matching.unknowable import unknowable

Specs = Mapping[str, TensorSpec]

_PART = 0.5  # of the target's tensors, at least, are in a part of the source that may be all of it
_MOST_PARTS = 6
_WHOLE = 0.6  # of the target is found in one part, and in no other
_BLOCK = re.compile(r"[./_]\d+[./_]")  # in the name of what is in a block
_OTHER = 0.8  # of what the best part has, another may have as well, so that no header tells which is meant


def match(
    source: Specs,
    target: Specs,
    *,
    source_modules: Mapping[str, str] | None = None,
    target_modules: Mapping[str, str] | None = None,
    accept: Confidence = Confidence.ALIGNED,
    beside: Specs | None = None,
) -> MatchReport:
    """Which source tensors belong to which target tensors, from names, shapes and order alone.

    Args:
        source: key -> spec in file order.
        target: the same.
        source_modules: module path -> class name, where there is a model.
        target_modules: the same.
        accept: rules are made of pairs that are as sure as this, or surer; the others get rules of their own.
        beside: further tensors of the source, which are not matched and no rule takes.

    Example:
        >>> old = {key: TensorSpec(key, "float32", (3,)) for key in ("net.ln.gamma", "net.ln.beta")}
        >>> new = {key: TensorSpec(key, "float32", (3,)) for key in ("norm.weight", "norm.bias")}
        >>> [(pair.sources, pair.targets, pair.confidence.value) for pair in match(old, new).pairs]
        [(('net.ln.gamma',), ('norm.weight',), 'unique'), (('net.ln.beta',), ('norm.bias',), 'unique')]
    """
    with collector_paused():
        given = source, target
        ordered = [has_order([*specs]) for specs in given]
        *apart, rounds = unstacked(*given)
        names = usual_names(apart[0]), usual_names(apart[1])
        source, target = (called(specs, side) for specs, side in zip(apart, names, strict=True))
        twins = [row for row in twins_of(target, source) if not told_apart(row, target, source)]
        others = {key for row in twins for word in row.words[1:] for key in row.keys(word)}
        first = {key: spec for key, spec in target.items() if key not in others}

        def matched(part: Specs) -> MatchReport:
            return _matched(part, first, source_modules, target_modules, ordered)

        report = _best_tower(source, first, matched(source), matched)
        if others:
            missing = (*report.unmatched_targets, *(key for key in target if key not in first))
            report = with_twins(replace(report, unmatched_targets=missing), twins, target)
        source, target = given
        report = without_sums(called_back(report, *names), *apart)
        report = restacked(report, rounds, *given)
        report = with_rules(report, {**source, **(beside or {})}, target, accept)
        notes = *twin_note(report, source), *one_tower_note(report, target), *tied_head(report, source, target)
        return replace(report, notes=(*report.notes, *notes))


def _found(report: MatchReport) -> int:
    """How many target tensors have a source."""
    return sum(len(pair.targets) for pair in report.accepted())


def _towers(source: Specs, target: Specs, report: MatchReport) -> list[Specs]:
    """The parts of a source that are large enough for a target of which little is found in the whole."""
    if 2 * _found(report) > len(target) or max(len(source), len(target)) > HUGE:
        return []
    sizes = Counter(
        key[: at + 1] for key in source for at in (key.find("."), key.find(".", key.find(".") + 1)) if at > 0
    )
    names = [name for name, size in sizes.items() if _PART * len(target) <= size < len(source)]
    return [{key: spec for key, spec in source.items() if key.startswith(name)} for name in names[:_MOST_PARTS]]


def _best_tower(
    source: Specs, target: Specs, report: MatchReport, matched: Callable[[Specs], MatchReport]
) -> MatchReport:
    """The report; of the part of the source that alone has nearly all of the target, if there is one."""
    tried = sorted((matched(part) for part in _towers(source, target, report)), key=lambda one: -_found(one))
    counts = [_found(one) for one in (*tried, report)]
    plain = [key for one in tried[:1] for pair in one.accepted() for key in pair.targets if not _BLOCK.search(key)]
    if not any(len(target[key].shape) > 1 for key in plain):
        return report  # only blocks, which are alike in many models
    if not tried or counts[0] < _WHOLE * len(target) or (len(tried) > 1 and counts[1] > _OTHER * counts[0]):
        return report
    used = {key for pair in tried[0].pairs for key in pair.sources}
    return replace(tried[0], unmatched_sources=tuple(key for key in source if key not in used))


def _matched(
    source: Specs,
    target: Specs,
    source_modules: Mapping[str, str] | None,
    target_modules: Mapping[str, str] | None,
    ordered: Sequence[bool],
) -> MatchReport:
    place = {key: at for at, key in enumerate(target)}
    places = {key: at for at, key in enumerate(source)}, place
    cuts = cuts_of(source, source_modules), cuts_of(target, target_modules)
    ways = [*product(*(side[:3] for side in cuts)), *zip(*(side[3:] for side in cuts), strict=False)]
    ways = [*{(id(ours), id(theirs)): (ours, theirs) for ours, theirs in ways}.values()]
    tries = [Attempt(ours, theirs, places, ordered) for ours, theirs in ways]
    for one in tries:
        one.run()
    best = best_of(tries)
    found, notes = related(best, source, target)
    pairs = [pair for _, row in found for pair in row]
    made = {key for pair in pairs for key in pair.targets}
    used = {key for pair in pairs for key in pair.sources}
    free = tuple(key for key in target if key not in made), tuple(key for key in source if key not in used)
    left = ({key: side[key] for key in keys} for side, keys in ((source, free[1]), (target, free[0])))
    is_sure = any(pair.confidence.within(Confidence.ALIGNED) for pair in pairs)
    others = [pair for _, row in reshaped_matches(*left) for pair in row] if is_sure else []
    return MatchReport(
        tuple(sorted(pairs, key=lambda pair: place[pair.targets[0]])),
        *free,
        (*notes, *unknowable(pairs, target)),
        reshaped=tuple(others),
        weighed=Weighed(best.weighed),
    )
