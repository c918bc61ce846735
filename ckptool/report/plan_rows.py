"""A plan as rows of tables: what becomes of each key, rolled up; for a recipe, what each rule does."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.counts import tallied
from ckptool.core.fold import Group, rollup
from ckptool.core.ops import Cast
from ckptool.core.plan import Beside, Copies, Plan, Source, Step, Use, Value, sources_of
from ckptool.core.plan import Fate as BesideFate
from ckptool.core.reasons import (
    ByOption,
    ByPatch,
    ByRules,
    Decoded,
    Init,
    Kept,
    NotTaken,
    Reason,
    RecipeTie,
    TrainedWhole,
    Unmixed,
    WeightsOnly,
)
from ckptool.core.spec import DTYPES, Form, TensorSpec, dtype_named
from ckptool.engine.decoded import decoded_source
from ckptool.report.cells import Cell, Row
from ckptool.report.reasons import dropped_text, reason_text
from ckptool.report.units import number_of


class Fate(StrEnum):
    """What a plan does with a tensor."""

    DROPPED = "dropped"
    RENAMED = "renamed"
    CAST = "cast"
    DEQUANTIZED = "dequantized"
    COMPUTED = "computed"
    COPIED = "copied"


_SPARED = "copied (integers are not cast)"
_FEW = 3  # rows that say the same
_MANY_RULES = 60
SYMBOLS = {
    Fate.COPIED: "=",
    Fate.RENAMED: ">",
    Fate.CAST: "~",
    Fate.DEQUANTIZED: "~",
    Fate.COMPUTED: "*",
    Fate.DROPPED: "-",
}


@dataclass(frozen=True, slots=True)
class _Fact:
    """What a plan does with one key.

    Attributes:
        fate: it in a word.
        what: it in words; keys of one row have equal words.
        elements: its elements.
        before: bytes of its sources; None where several inputs are mixed.
        after: bytes in the output.
        spared: it is copied where others are cast or mixed, since its elements are integers.
    """

    fate: Fate
    what: str
    elements: int
    before: int | None
    after: int
    spared: bool = False


def fate_of(step: Step) -> Fate:
    """What a step does with its source."""
    value = step.value
    if isinstance(step.reason, Decoded):
        return Fate.DEQUANTIZED
    if isinstance(step.reason, ByPatch):
        return Fate.COMPUTED
    if isinstance(value, Source):
        return Fate.COPIED if value.key == step.target.key else Fate.RENAMED
    return Fate.CAST if _cast_source(value) else Fate.COMPUTED


def _cast_source(value: Value) -> Source | None:
    """The source of a value that is only cast."""
    casts = 0
    while not isinstance(value, Source):
        if not isinstance(value.op, Cast):
            return None
        value, casts = value.args[0], casts + 1
    return value if casts else None


def key_rows(plan: Plan, each: bool = False) -> list[Row]:
    """The keys of a plan, those that share one fate and reason in one row; `each` makes a row of every tensor."""
    facts = _facts(plan)
    if each:
        return [_row(key, [fact]) for key, fact in facts.items()]
    # integers that are not cast or mixed do not make rows of their own among floats that are
    changes: Counter[str] = Counter()
    for fact, many in tallied(list(facts.values())):
        if fact.fate in (Fate.CAST, Fate.COMPUTED):
            changes[fact.what] += many
    usual = changes.most_common(1)[0][0] if changes else ""
    groups = rollup({key: usual if fact.spared else fact.what for key, fact in facts.items()})
    return _rows(groups, facts)


def _rows(groups: Sequence[Group], facts: Mapping[str, _Fact], rest: str = "*") -> list[Row]:
    """A row for each group, but one for all that most keys have in common, where it would take many: it comes last."""
    sizes: Counter[object] = Counter()
    for group in groups:
        sizes[group.label] += len(group.keys)
    label, size = sizes.most_common(1)[0] if sizes else ("", 0)
    common = [group for group in groups if group.label == label]
    if size * 2 <= len(facts) or len(common) <= _FEW:
        common = []
    rows = [_row(group.pattern, [facts[key] for key in group.keys]) for group in groups if group not in common]
    if common:
        rows.append(_row("" if rows else rest, [facts[key] for group in common for key in group.keys]))
    return rows


def _row(pattern: str, facts: Sequence[_Fact]) -> Row:
    """A symbol, a pattern that means the keys, how many, their elements, what happens, bytes before and after."""
    known = tallied(facts)
    spared = sum(many for fact, many in known if fact.spared)
    first = next((fact for fact, _ in known if not fact.spared), facts[0])
    beside = f", {number_of(spared, 'integer')} copied" if spared and not first.spared else ""
    elements = sum(fact.elements * many for fact, many in known)
    before = None if first.before is None else sum((fact.before or 0) * many for fact, many in known)
    after = None if first.fate is Fate.DROPPED else sum(fact.after * many for fact, many in known)
    nbytes = after if before is None else (before, after)
    cells = (SYMBOLS[first.fate], pattern or "other keys", len(facts), elements, first.what + beside, nbytes)
    return Row(cells, "dim" if first.fate is Fate.COPIED and before is not None else "")


def _facts(plan: Plan) -> dict[str, _Fact]:
    """Each key of the output, and of the inputs what is left out, in the order of the inputs."""
    copies = plan.steps if isinstance(plan.steps, Copies) and len(plan.inputs) == 1 else None
    if copies is not None and copies.keys is copies.sources and len(tallied(copies.reasons)) == 1:
        return _facts_of_copies(plan, copies)
    steps = {step.target.key: step for step in plan.steps}
    facts: dict[str, _Fact] = {}
    casts = any(fate_of(step) is Fate.CAST for step in plan.steps)
    gone = {(dropped.source.input, dropped.source.key): dropped.reason for dropped in plan.dropped}
    alike: dict[object, _Fact] = {}  # most tensors are only kept, or left out for one reason
    for number, checkpoint in enumerate(plan.inputs):
        for key, form in zip(checkpoint, checkpoint.forms(), strict=True):
            if key in facts:
                continue
            step, reason = steps.get(key), gone.get((number, key))
            if step is not None and not _is_only_kept(step, number):
                facts[key] = _made(plan, step, casts)
            elif step is not None or reason is not None:
                place = (form, step.stored if step else reason)
                if place not in alike:
                    alike[place] = _made(plan, step, casts) if step else _dropped(plan, reason, form)
                facts[key] = alike[place]
    facts |= {key: _made(plan, step, casts) for key, step in steps.items() if key not in facts}
    return facts


def _facts_of_copies(plan: Plan, steps: Copies) -> dict[str, _Fact]:
    """The same for a plan that keeps some tensors for one reason, and leaves out others: few facts are true of all."""
    source = plan.inputs[steps.input]
    gone = {dropped.source.key: dropped.reason for dropped in plan.dropped}
    forms, reasons = list(source.forms()), list(map(gone.get, source))  # no reason for those that are kept
    alike: dict[tuple[int, int], _Fact] = {}
    kinds = dict(zip(zip(map(id, forms), map(id, reasons), strict=True), zip(forms, reasons, strict=True), strict=True))
    for place, (form, reason) in kinds.items():
        if reason is None:
            kept = Step(TensorSpec("", form.dtype, form.shape), Source(steps.input, ""), steps.reasons[0])
            alike[place] = _made(plan, kept, False, form.nbytes)
        else:
            alike[place] = _dropped(plan, reason, form)
    places = zip(map(id, forms), map(id, reasons), strict=True)
    return dict(zip(source, map(alike.__getitem__, places), strict=True))


def _is_only_kept(step: Step, number: int) -> bool:
    """True if nothing but its form tells what is said of a step."""
    value = step.value
    is_same = isinstance(value, Source) and value.key == step.target.key and value.input == number
    return is_same and step.tied_to is None and isinstance(step.reason, Kept)


def _dropped(plan: Plan, reason: Reason | None, form: Form) -> _Fact:
    assert reason is not None
    before = None if plan.command.name == "merge" else form.nbytes
    return _Fact(Fate.DROPPED, dropped_text(reason, plan.inputs), form.elements, before, 0)


def _made(plan: Plan, step: Step, casts: bool, nbytes: int | None = None) -> _Fact:
    """What a step does; `nbytes` are those of its sources, where they are known."""
    if nbytes is None:
        sources = (step.value,) if isinstance(step.value, Source) else set(sources_of(step.value))
        nbytes = sum(plan.inputs[source.input].form(source.key).nbytes for source in sources)
    nbytes = step.reason.nbytes if isinstance(step.reason, Decoded) else nbytes
    before = None if plan.command.name == "merge" else nbytes
    after = plan.nbytes_of(step)
    spared = step.is_copy and step.tied_to is None and DTYPES[step.target.dtype].kind in ("int", "uint", "bool")
    spared = spared and (casts or isinstance(step.reason, Unmixed))
    return _Fact(fate_of(step), _said(plan, step, casts), step.target.elements, before, after, spared)


def _said(plan: Plan, step: Step, casts: bool) -> str:
    """What a step does, and which option or rule said so."""
    reason = _notable(step.reason, plan.inputs)
    value = step.value
    if step.tied_to is not None:
        return f"tied to {step.tied_to}"
    if isinstance(value, Source):
        if value.key != step.target.key:
            return f"from {value.key}" + (f", {reason}" if reason else "")
        return reason or _copied(step.target.dtype, casts)
    if source := _cast_source(value):
        old = DTYPES[plan.inputs[source.input].form(source.key).dtype].short
        cast = f"{old} → {DTYPES[step.target.dtype].short}"
        renamed = "" if source.key == step.target.key else f"from {source.key}, "
        return f"{renamed}{cast}" + (f", {reason}" if reason else "")
    says_it = reason and not isinstance(step.reason, ByRules)
    return reason if says_it else f"{value.op.text}, {reason}".removesuffix(", ")


def _notable(reason: Reason, inputs: Sequence[Checkpoint]) -> str:
    """A reason in words; "" where what the step does says it: nothing, or a cast."""
    if isinstance(reason, TrainedWhole):
        reason = replace(reason, cast=None)
    is_cast = isinstance(reason, ByOption) and reason.option == "--dtype"
    return "" if is_cast or isinstance(reason, Kept) else reason_text(reason, inputs)


def _copied(dtype: str, casts: bool) -> str:
    if not casts:
        return "copied"
    return _SPARED if DTYPES[dtype].kind in ("int", "uint", "bool") else f"copied (is {DTYPES[dtype].short})"


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
        rows.append(Row((None, None, f"{number_of(unused, 'optional rule')} without a match", 0, None, None), "dim"))
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
    return [Row((mark, None, key, many, what), style) for (mark, key, many, _, what, _), style in found]


def _untouched_rows(plan: Plan) -> list[Row]:
    """What no rule decides, by the inputs' keys."""
    free = _free_facts(plan)
    if not any(free) and not plan.dropped:
        return []
    gone: dict[tuple[int, str], Reason] = {
        (dropped.source.input, dropped.source.key): dropped.reason
        for dropped in plan.dropped
        if not isinstance(dropped.reason, ByRules)
    }
    facts: dict[str, _Fact] = {}
    labels: dict[str, str] = {}  # "" where a rule says it: here only to judge the patterns
    for number, checkpoint in enumerate(plan.inputs):
        for key, form in zip(checkpoint, checkpoint.forms(), strict=True):
            if key in labels:
                continue
            reason = gone.get((number, key)) if gone else None
            fact = free[number].get(key) if reason is None else _dropped(plan, reason, form)
            labels[key] = "" if fact is None else fact.what
            if fact is not None:
                facts[key] = fact
    if not any(fact.what for fact in facts.values()):
        return []
    groups = [group for group in rollup(labels, together=["", "kept"]) if group.label]
    return _rows(groups, {key: fact for key, fact in facts.items() if fact.what}, rest="")


def _free_facts(plan: Plan) -> list[dict[str, _Fact]]:
    """For each input, what a recipe makes of its tensors that no rule decides, by key."""
    found: list[dict[str, _Fact]] = [{} for _ in plan.inputs]
    steps = plan.steps
    if not isinstance(steps, Copies):
        for step in steps:
            if not isinstance(step.reason, _OF_RECIPES):
                fact = _kept(_made(plan, step, casts=False))
                for source in sources_of(step.value):
                    found[source.input][source.key] = fact
        return found
    alike: dict[object, _Fact] = {}
    for at, (key, source_key, form, reason) in enumerate(
        zip(steps.keys, steps.sources, steps.forms, steps.reasons, strict=True)
    ):
        if isinstance(reason, _OF_RECIPES):
            continue
        place = (id(form), id(reason)) if key == source_key else at
        if place not in alike:
            alike[place] = _kept(_made(plan, steps[at], False, form.nbytes))
        found[steps.input][source_key] = alike[place]
    return found


_OF_RECIPES = (ByRules, RecipeTie, Init)


def _kept(fact: _Fact) -> _Fact:
    what = "kept" if fact.what == "copied" else fact.what
    return _Fact(fact.fate, what, fact.elements, fact.before, fact.after)


def _added_rows(plan: Plan) -> list[Row]:
    """What a recipe adds beside its rules: tensors from nothing, and ties."""
    reasons = plan.steps.reasons if isinstance(plan.steps, Copies) else (step.reason for step in plan.steps)
    added = [at for at, reason in enumerate(reasons) if isinstance(reason, RecipeTie | Init)]
    facts = {plan.steps[at].target.key: _made(plan, plan.steps[at], casts=False) for at in added}
    groups = rollup({key: (fact.fate, fact.what) for key, fact in facts.items()})
    return [_row(group.pattern, [facts[key] for key in group.keys]) for group in groups]


# ---------------------------------------------------------------------------------------------- sums


def counts(plan: Plan) -> Iterator[str]:
    """``- 2 dropped``, ``~ 100 cast``, ``= 20 copied``: how many keys have which fate."""
    if isinstance(plan.steps, Copies):
        renamed = len(plan.steps.renamed)
        found = Counter({Fate.RENAMED: renamed, Fate.COPIED: len(plan.steps) - renamed})
        kept = set(plan.steps.keys) if plan.dropped else set()
    else:
        found = Counter(fate_of(step) for step in plan.steps if step.stored)
        kept = {step.target.key for step in plan.steps}
    by_key = plan.command.name == "merge"  # elsewhere equal keys of several inputs are different tensors
    left: dict[int, set[str]] = defaultdict(set)
    for dropped in plan.dropped:
        if dropped.source.key not in kept:
            left[0 if by_key else dropped.source.input].add(dropped.source.key)
    found[Fate.DROPPED] = sum(map(len, left.values()))
    for fate in Fate:
        if found[fate]:
            yield f"{SYMBOLS[fate]} {found[fate]:,} {fate.value}"


def nbytes_before(plan: Plan) -> int:
    """Bytes of all input tensors, tied ones once."""
    total = 0
    for checkpoint in plan.inputs:
        if checkpoint.columns is not None:
            total += sum(form.nbytes * many for form, many in checkpoint.form_counts().items())
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
    return number_of(plan.stored, "tensor")


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
