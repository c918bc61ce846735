"""A plan as rows of tables: what becomes of each key, rolled up; for a recipe, what each rule does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ckptool.core.beside import Beside
from ckptool.core.beside import Fate as BesideFate
from ckptool.core.counts import many, tallied
from ckptool.core.fold import Group, rollup
from ckptool.core.plan import Copies, Plan, Use, sources_of
from ckptool.core.reasons import (
    ByRules,
    Init,
    NotTaken,
    Reason,
    RecipeTie,
    WeightsOnly,
)
from ckptool.core.spec import dtype_named
from ckptool.engine.decoded import decoded_source
from ckptool.report.cells import Cell, Row
from ckptool.report.plan_fates import SYMBOLS, Fate, KeyFate, fate_dropped, fate_made, key_fates
from ckptool.report.reasons import reason_text

_FEW = 3  # rows that say the same
_MANY_RULES = 60


def key_rows(plan: Plan, each: bool = False) -> list[Row]:
    """The keys of a plan, those that share one fate and reason in one row; `each` makes a row of every tensor."""
    fates = key_fates(plan)
    if each:
        return [_row(key, [fate]) for key, fate in fates.items()]
    # integers that are not cast or mixed do not make rows of their own among floats that are
    changes: Counter[str] = Counter()
    known = tallied(list(fates.values()))
    for fate, times in known:
        if fate.fate in (Fate.CAST, Fate.COMPUTED):
            changes[fate.what] += times
    usual = changes.most_common(1)[0][0] if changes else ""
    said = {id(fate): usual if fate.spared else fate.what for fate, _ in known}
    groups = rollup(dict(zip(fates, map(said.__getitem__, map(id, fates.values())), strict=True)))
    return _rows(groups, fates)


def _rows(groups: Sequence[Group], fates: Mapping[str, KeyFate], rest: str = "*") -> list[Row]:
    """A row for each group, but one for all that most keys have in common, where it would take many: it comes last."""
    sizes: Counter[object] = Counter()
    for group in groups:
        sizes[group.label] += len(group.keys)
    label, size = sizes.most_common(1)[0] if sizes else ("", 0)
    common = [group for group in groups if group.label == label]
    if size * 2 <= len(fates) or len(common) <= _FEW:
        common = []
    others = [group for group in groups if group.label != label] if common else groups
    rows = [_row(group.pattern, [*map(fates.__getitem__, group.keys)]) for group in others]
    if common:
        rows.append(_row("" if rows else rest, [fates[key] for group in common for key in group.keys]))
    return rows


def _row(pattern: str, fates: Sequence[KeyFate]) -> Row:
    """A symbol, a pattern that means the keys, how many, their elements, what happens, bytes before and after."""
    known = tallied(fates)
    spared = sum(times for fate, times in known if fate.spared)
    first = next((fate for fate, _ in known if not fate.spared), fates[0])
    beside = f", {many(spared, 'integer')} copied" if spared and not first.spared else ""
    elements = sum(fate.elements * times for fate, times in known)
    before = None if first.before is None else sum((fate.before or 0) * times for fate, times in known)
    after = None if first.fate is Fate.DROPPED else sum(fate.after * times for fate, times in known)
    nbytes = after if before is None else (before, after)
    cells = (SYMBOLS[first.fate], pattern or "other keys", len(fates), elements, first.what + beside, nbytes)
    return Row(cells, "dim" if first.fate is Fate.COPIED and before is not None else "")


# ---------------------------------------------------------------------------------------------- recipes


def rule_rows(plan: Plan, but: str = "") -> list[Row]:
    """A row for each rule: a symbol, its name, its renaming half, how many keys it decides, what it does, an example.

    Args:
        plan: made of a recipe.
        but: the name of a recipe whose rules are not wanted.
    """
    uses = [use for use in plan.uses if not (but and use.name.recipe == but)]
    shown = [use for use in uses if use.keys or use.shadowed or not use.rule.startswith("?")]
    several = len({(use.name.recipe, use.name.backwards) for use in shown}) > 1
    rows = [_rule_row(use, several) for use in shown[:_MANY_RULES]]
    if more := shown[_MANY_RULES:]:
        rows.append(
            Row((None, None, f"{len(more):,} more rules (all: --json)", sum(use.keys for use in more), None, None))
        )
    if unused := len(uses) - len(shown):
        rows.append(Row((None, None, f"{many(unused, 'optional rule')} without a match", 0, None, None), "dim"))
    return rows


def _rule_row(use: Use, several: bool) -> Row:
    renames, _, computes = use.rule.partition(" | ")
    name = str(use.name) if several else str(use.name.number or use.name)
    if not use.keys:
        what = "earlier rules have taken its keys" if use.shadowed else "matches nothing"
        return Row((Cell("-", "dim"), name, renames, 0, what), "yellow")
    key, became = use.example or ("", "")
    drops = renames.rstrip().endswith("!") and not computes
    fate = Fate.DROPPED if drops else _rule_fate(computes)
    example = Cell(f"{key} → {became}" if use.made else key, "dim")
    return Row((SYMBOLS[fate], Cell(name, "dim"), renames, use.keys, computes or None, example))


def _rule_fate(computes: str) -> Fate:
    if not computes:
        return Fate.RENAMED
    return Fate.CAST if all(map(dtype_named, computes.split(" | "))) else Fate.COMPUTED


def unruled_rows(plan: Plan) -> list[Row]:
    """What no rule decides, in the columns of rules: kept, cast, dropped without being named, added, or tied."""
    found = [(row.cells, row.style) for row in (*_untouched_rows(plan), *_added_rows(plan))]
    return [Row((mark, None, key, keys, what), style) for (mark, key, keys, _, what, _), style in found]


def _untouched_rows(plan: Plan) -> list[Row]:
    """What no rule decides, by the inputs' keys."""
    free = _free_fates(plan)
    if not any(free) and not plan.dropped:
        return []
    gone: dict[tuple[int, str], Reason] = {
        (dropped.source.input, dropped.source.key): dropped.reason
        for dropped in plan.dropped
        if not isinstance(dropped.reason, ByRules)
    }
    fates: dict[str, KeyFate] = {}
    labels: dict[str, str] = {}  # "" where a rule says it: here only to judge the patterns
    for number, checkpoint in enumerate(plan.inputs):
        for key, form in zip(checkpoint, checkpoint.forms(), strict=True):
            if key in labels:
                continue
            reason = gone.get((number, key)) if gone else None
            fate = free[number].get(key) if reason is None else fate_dropped(plan, reason, form)
            labels[key] = "" if fate is None else fate.what
            if fate is not None:
                fates[key] = fate
    if not any(fate.what for fate in fates.values()):
        return []
    groups = [group for group in rollup(labels, together=["", "kept"]) if group.label]
    return _rows(groups, {key: fate for key, fate in fates.items() if fate.what}, rest="")


def _free_fates(plan: Plan) -> list[dict[str, KeyFate]]:
    """For each input, what a recipe makes of its tensors that no rule decides, by key."""
    found: list[dict[str, KeyFate]] = [{} for _ in plan.inputs]
    steps = plan.steps
    if not isinstance(steps, Copies):
        for step in steps:
            if not isinstance(step.reason, _OF_RECIPES):
                fate = _kept(fate_made(plan, step, casts=False))
                for source in sources_of(step.value):
                    found[source.input][source.key] = fate
        return found
    alike: dict[object, KeyFate] = {}
    columns = zip(steps.keys, steps.sources, steps.forms, steps.origins, steps.reasons, strict=True)
    for at, (key, old, form, origin, reason) in enumerate(columns):
        if isinstance(reason, _OF_RECIPES):
            continue
        place = (id(form), id(origin), id(reason)) if key == old else at
        if place not in alike:
            alike[place] = _kept(fate_made(plan, steps[at], False, origin))
        found[steps.input][old] = alike[place]
    return found


_OF_RECIPES = (ByRules, RecipeTie, Init)


def _kept(fate: KeyFate) -> KeyFate:
    what = "kept" if fate.what == "copied" else fate.what
    return KeyFate(fate.fate, what, fate.elements, fate.before, fate.after)


def _added_rows(plan: Plan) -> list[Row]:
    """What a recipe adds beside its rules: tensors from nothing, and ties."""
    reasons = plan.steps.reasons if isinstance(plan.steps, Copies) else [step.reason for step in plan.steps]
    added = [plan.steps[at] for at, reason in enumerate(reasons) if isinstance(reason, RecipeTie | Init)]
    fates = {step.target.key: fate_made(plan, step, casts=False) for step in added}
    groups = rollup({key: (fate.fate, fate.what) for key, fate in fates.items()})
    return [_row(group.pattern, [fates[key] for key in group.keys]) for group in groups]


# ---------------------------------------------------------------------------------------------- sums


def nbytes_before(plan: Plan) -> int:
    """Bytes of all input tensors, tied ones once."""
    total = 0
    for checkpoint in plan.inputs:
        if checkpoint.columns is not None:
            total += checkpoint.columns.stored_nbytes
            continue
        seen: set[object] = set()
        for tensor in checkpoint.tensors.values():
            place = (tensor.storage, tensor.pieces[0].start, tensor.shape) if tensor.storage else tensor.key
            if place not in seen:
                seen.add(place)
                source = decoded_source(tensor)
                total += tensor.nbytes if source is None else source.encoded.nbytes
    return total


def tensors_text(plan: Plan) -> str:
    """How many tensors the output holds."""
    return many(plan.stored, "tensor")


# ---------------------------------------------------------------------------------------------- beside the weights

_TITLES = ("kept beside the weights", "changed with the weights", "left out", "left behind", "not taken")


def beside_facts(plan: Plan) -> list[tuple[str, Sequence[str]]]:
    """(title, names) of what lies beside the weights, those that share fate and reason together."""
    rows: dict[tuple[str, str], list[str]] = {}
    for beside in plan.beside:
        title = _title(beside)
        why = f"   ({reason_text(beside.reason)})" if beside.fate is BesideFate.LOST else ""
        rows.setdefault((title, why), []).append(beside_name(plan, beside))
    found = sorted(rows.items(), key=lambda row: _TITLES.index(row[0][0]))
    return [(title, [*names[:-1], f"{names[-1]}{why}"]) for (title, why), names in found]


def _title(beside: Beside) -> str:
    if isinstance(beside.reason, NotTaken | WeightsOnly):
        return "not taken"
    return dict(zip(BesideFate, _TITLES, strict=False))[beside.fate]


def beside_name(plan: Plan, beside: Beside) -> str:
    """Its name, after that of its file where the plan has several."""
    path = plan.inputs[beside.input].path
    return f"{path.name}: {beside.name}" if isinstance(beside.reason, NotTaken | WeightsOnly) else beside.name
