"""A plan as the rows of a table: what becomes of each key, rolled up; for a recipe, what each rule does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.fold import Group, rollup
from ckptool.core.ops import Cast
from ckptool.core.plan import Plan, Source, Step, Use, Value, sources_of
from ckptool.core.reasons import (
    ByOption,
    ByRules,
    Decoded,
    Init,
    Kept,
    Reason,
    RecipeTie,
    RuleName,
    TrainedWhole,
    Unmixed,
)
from ckptool.core.spec import DTYPES, Form, dtype_named
from ckptool.engine.decoded import decoded_source
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
SYMBOLS = {
    Fate.COPIED: "=",
    Fate.RENAMED: ">",
    Fate.CAST: "~",
    Fate.DEQUANTIZED: "~",
    Fate.COMPUTED: "*",
    Fate.DROPPED: "-",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a plan's table.

    Attributes:
        fate: what happens to all of its tensors.
        key: a pattern that means them among all keys; "" for those that no other row means; not escaped.
        tensors: how many they are.
        elements: their elements.
        before: bytes of the source tensors.
        after: bytes in the output; None if they are not in it.
        what: what happens, in words; not escaped.
    """

    fate: Fate
    key: str
    tensors: int
    elements: int
    before: int
    after: int | None
    what: str


@dataclass(frozen=True, slots=True)
class RuleRow:
    """One rule of a recipe and what it does.

    Attributes:
        fate: what happens to its tensors; None if it decides none.
        name: which it is.
        rule: its renaming half, as it is written.
        computes: its computing half, "(h d two) i -> (h two d) i | bf16".
        keys: how many keys it decides.
        what: an example, or why it decides none.
    """

    fate: Fate | None
    name: RuleName
    rule: str
    computes: str
    keys: int
    what: str


@dataclass(frozen=True, slots=True)
class _Fact:
    """What a plan does with one key.

    Attributes:
        fate: it in a word.
        what: it in words; keys of one row have equal words.
        elements: its elements.
        before: bytes of its sources.
        after: bytes in the output.
        spared: it is copied where others are cast or mixed, since its elements are integers.
    """

    fate: Fate
    what: str
    elements: int
    before: int
    after: int
    spared: bool = False


def fate_of(step: Step) -> Fate:
    """What a step does with its source."""
    value = step.value
    if isinstance(step.reason, Decoded):
        return Fate.DEQUANTIZED
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


def plan_rows(plan: Plan, each: bool = False) -> list[Row]:
    """The keys of a plan, those that share one fate and reason in one row; `each` makes a row of every tensor."""
    facts = _facts(plan)
    if each:
        return [_row(key, [fact]) for key, fact in facts.items()]
    # integers that are not cast or mixed do not make rows of their own among floats that are
    changes = Counter(fact.what for fact in facts.values() if fact.fate in (Fate.CAST, Fate.COMPUTED))
    usual = changes.most_common(1)[0][0] if changes else ""
    groups = rollup((key, usual if fact.spared else fact.what) for key, fact in facts.items())
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
    spared = sum(fact.spared for fact in facts)
    first = next((fact for fact in facts if not fact.spared), facts[0])
    beside = f", {number_of(spared, 'integer')} copied" if spared and not first.spared else ""
    return Row(
        first.fate,
        pattern,
        len(facts),
        sum(fact.elements for fact in facts),
        sum(fact.before for fact in facts),
        None if first.fate is Fate.DROPPED else sum(fact.after for fact in facts),
        first.what + beside,
    )


def _facts(plan: Plan) -> dict[str, _Fact]:
    """Each key of the output, and of the inputs what is left out, in the order of the inputs."""
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


def _is_only_kept(step: Step, number: int) -> bool:
    """True if nothing but its form tells what is said of a step."""
    value = step.value
    is_same = isinstance(value, Source) and value.key == step.target.key and value.input == number
    return is_same and step.tied_to is None and isinstance(step.reason, Kept)


def _dropped(plan: Plan, reason: Reason | None, form: Form) -> _Fact:
    assert reason is not None
    return _Fact(Fate.DROPPED, dropped_text(reason, plan.inputs), form.elements, form.nbytes, 0)


def _made(plan: Plan, step: Step, casts: bool) -> _Fact:
    sources = (step.value,) if isinstance(step.value, Source) else set(sources_of(step.value))
    before = sum(plan.inputs[source.input].form(source.key).nbytes for source in sources)
    before = step.reason.nbytes if isinstance(step.reason, Decoded) else before
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


def rule_rows(plan: Plan) -> list[RuleRow]:
    """A row for each rule that decides keys, and for each that other rules leave nothing to."""
    return [_rule_row(use) for use in plan.uses if use.keys or use.shadowed or not use.rule.startswith("?")]


def unused_rules(plan: Plan) -> int:
    """How many optional rules matched nothing."""
    return len(plan.uses) - len(rule_rows(plan))


def _rule_row(use: Use) -> RuleRow:
    renames, _, computes = use.rule.partition(" | ")
    if use.keys:
        key, became = use.example or ("", "")
        drops = renames.rstrip().endswith("!") and not computes
        fate = Fate.DROPPED if drops else _rule_fate(computes)
        return RuleRow(fate, use.name, renames, computes, use.keys, f"{key} → {became}" if use.made else key)
    what = "earlier rules have taken its keys" if use.shadowed else "matches nothing"
    return RuleRow(None, use.name, renames, computes, 0, what)


def _rule_fate(computes: str) -> Fate:
    if not computes:
        return Fate.RENAMED
    return Fate.CAST if all(map(dtype_named, computes.split(" | "))) else Fate.COMPUTED


def untouched_rows(plan: Plan) -> list[Row]:
    """What no rule decides, by the inputs' keys: kept, cast, or dropped without being named."""
    facts: dict[str, _Fact] = {}
    free = [step for step in plan.steps if not isinstance(step.reason, ByRules | RecipeTie | Init)]
    by_source = {(source.input, source.key): step for step in free for source in sources_of(step.value)}
    gone = {(dropped.source.input, dropped.source.key): dropped.reason for dropped in plan.dropped}
    ruled = _Fact(Fate.RENAMED, "", 0, 0, 0)  # in the rules' rows; here only to judge the patterns
    for number, checkpoint in enumerate(plan.inputs):
        for key, form in zip(checkpoint, checkpoint.forms(), strict=True):
            step, reason = by_source.get((number, key)), gone.get((number, key))
            if key in facts:
                continue
            if reason is not None and not isinstance(reason, ByRules):
                facts[key] = _dropped(plan, reason, form)
            elif step is not None:
                fact = _made(plan, step, casts=False)
                what = "kept" if fact.what == "copied" else fact.what
                facts[key] = _Fact(fact.fate, what, fact.elements, fact.before, fact.after)
            else:
                facts[key] = ruled
    if not any(fact.what for fact in facts.values()):
        return []
    labels = [(key, fact.what) for key, fact in facts.items()]
    groups = [group for group in rollup(labels, together=["", "kept"]) if group.label]
    return _rows(groups, {key: fact for key, fact in facts.items() if fact.what}, rest="")


def added_rows(plan: Plan) -> list[Row]:
    """What a recipe adds beside its rules: tensors from nothing, and ties."""
    steps = [step for step in plan.steps if isinstance(step.reason, RecipeTie | Init)]
    facts = {step.target.key: _made(plan, step, casts=False) for step in steps}
    groups = rollup([(key, (fact.fate, fact.what)) for key, fact in facts.items()])
    return [_row(group.pattern, [facts[key] for key in group.keys]) for group in groups]


# ---------------------------------------------------------------------------------------------- sums


def counts(plan: Plan) -> Iterator[str]:
    """``- 2 dropped``, ``~ 100 cast``, ``= 20 copied``: how many keys have which fate."""
    found = Counter(fate_of(step) for step in plan.steps if step.stored)
    kept = {step.target.key for step in plan.steps}
    by_key = plan.command.name == "merge"  # elsewhere equal keys of several inputs are different tensors
    found[Fate.DROPPED] = len(
        {(0 if by_key else d.source.input, d.source.key) for d in plan.dropped if d.source.key not in kept}
    )
    for fate in Fate:
        if found[fate]:
            yield f"{SYMBOLS[fate]} {found[fate]:,} {fate.value}"


def nbytes_before(plan: Plan) -> int:
    """Bytes of all input tensors, tied ones once."""
    total = 0
    for checkpoint in plan.inputs:
        if checkpoint.columns is not None:
            total += sum(form.nbytes for form in checkpoint.forms())
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
    return number_of(sum(step.stored for step in plan.steps), "tensor")
