"""What a plan does with each key: its fate, it in words, its elements and bytes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from operator import is_

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.counts import tallied
from ckptool.core.ops import Cast
from ckptool.core.plan import Copies, Plan, Source, Step, Value, sources_of
from ckptool.core.reasons import (
    ByOption,
    ByPatch,
    ByRules,
    Decoded,
    Kept,
    Reason,
    TrainedWhole,
    Unmixed,
)
from ckptool.core.spec import DTYPES, Form
from ckptool.report.reasons import dropped_text, reason_text


class Fate(StrEnum):
    """What a plan does with a tensor."""

    DROPPED = "dropped"
    RENAMED = "renamed"
    CAST = "cast"
    DEQUANTIZED = "dequantized"
    COMPUTED = "computed"
    COPIED = "copied"


_AT_ONCE = 4096  # keys
_SPARED = "copied (integers are not cast)"
SYMBOLS = {
    Fate.COPIED: "=",
    Fate.RENAMED: ">",
    Fate.CAST: "~",
    Fate.DEQUANTIZED: "~",
    Fate.COMPUTED: "*",
    Fate.DROPPED: "-",
}


@dataclass(frozen=True, slots=True)
class KeyFate:
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


def key_fates(plan: Plan) -> dict[str, KeyFate]:
    """Each key of the output, and of the inputs what is left out, in the order of the inputs."""
    copies = plan.steps if isinstance(plan.steps, Copies) and len(plan.inputs) == 1 else None
    if copies is not None and copies.keys is copies.sources:
        return _fates_of_copies(plan, copies)
    steps = {step.target.key: step for step in plan.steps}
    fates: dict[str, KeyFate] = {}
    casts = any(fate_of(step) is Fate.CAST for step in plan.steps)
    gone = {(dropped.source.input, dropped.source.key): dropped.reason for dropped in plan.dropped}
    alike: dict[object, KeyFate] = {}  # most tensors are only kept, or left out for one reason
    for number, checkpoint in enumerate(plan.inputs):
        for key, form in zip(checkpoint, checkpoint.forms(), strict=True):
            if key in fates:
                continue
            step, reason = steps.get(key), gone.get((number, key))
            if step is not None and not _is_only_kept(step, number):
                fates[key] = fate_made(plan, step, casts)
            elif step is not None or reason is not None:
                place = (form, step.stored if step else reason)
                if place not in alike:
                    alike[place] = fate_made(plan, step, casts) if step else fate_dropped(plan, reason, form)
                fates[key] = alike[place]
    fates |= {key: fate_made(plan, step, casts) for key, step in steps.items() if key not in fates}
    return fates


def _fates_of_copies(plan: Plan, steps: Copies) -> dict[str, KeyFate]:
    """The same where nothing is renamed: keys of one form have few fates, one for each reason."""
    source = plan.inputs[steps.input]
    keys, forms = list(source), list(source.forms())
    gone = {dropped.source.key: dropped.reason for dropped in plan.dropped}
    position: Mapping[str, int] | None = None  # None where every row is a step
    reasons = steps.reasons
    if gone or not all(map(is_, keys, steps.sources)):
        position = dict(zip(steps.sources, range(len(steps)), strict=True))
        kept = dict(zip(steps.sources, steps.reasons, strict=True))
        reasons = [kept[key] if key in kept else gone[key] for key in keys]
    alike: dict[tuple[int, int], KeyFate] = {}
    found: dict[str, KeyFate] = {}
    for begin in range(0, len(keys), _AT_ONCE):
        some = slice(begin, begin + _AT_ONCE)
        places = list(zip(map(id, forms[some]), map(id, reasons[some]), strict=True))
        for row, place in enumerate(places, begin) if not alike.keys() >= set(places) else ():
            if place in alike:
                continue
            at = row if position is None else position.get(keys[row])
            if at is None:
                alike[place] = fate_dropped(plan, reasons[row], forms[row])
            else:
                alike[place] = fate_made(plan, steps[at], steps.cast is not None, forms[row])
        found.update(zip(keys[some], map(alike.__getitem__, places), strict=True))
    return found


def _is_only_kept(step: Step, number: int) -> bool:
    """True if nothing but its form tells what is said of a step."""
    value = step.value
    is_same = isinstance(value, Source) and value.key == step.target.key and value.input == number
    return is_same and step.tied_to is None and isinstance(step.reason, Kept)


def fate_dropped(plan: Plan, reason: Reason | None, form: Form) -> KeyFate:
    """What is said of a key of this form that is left out."""
    assert reason is not None
    before = None if plan.command.name == "merge" else form.nbytes
    return KeyFate(Fate.DROPPED, dropped_text(reason, plan.inputs), form.elements, before, 0)


def fate_made(plan: Plan, step: Step, casts: bool, origin: Form | None = None) -> KeyFate:
    """What is said of a key that a step makes.

    Args:
        plan: the step is one of its.
        step: it.
        casts: others are cast.
        origin: of a copy or a cast in columns, the form in the input.
    """
    after = plan.nbytes_of(step) if origin is None else step.target.nbytes
    if origin is not None:
        nbytes = origin.nbytes
    else:
        sources = (step.value,) if isinstance(step.value, Source) else set(sources_of(step.value))
        nbytes = sum(plan.inputs[source.input].form(source.key).nbytes for source in sources)
    nbytes = step.reason.nbytes if isinstance(step.reason, Decoded) else nbytes
    before = None if plan.command.name == "merge" else nbytes
    spared = step.is_copy and step.tied_to is None and DTYPES[step.target.dtype].kind in ("int", "uint", "bool")
    spared = spared and (casts or isinstance(step.reason, Unmixed))
    return KeyFate(fate_of(step), _said(plan, step, casts, origin), step.target.elements, before, after, spared)


def _said(plan: Plan, step: Step, casts: bool, origin: Form | None = None) -> str:
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
        origin = origin or plan.inputs[source.input].form(source.key)
        cast = f"{DTYPES[origin.dtype].short} → {DTYPES[step.target.dtype].short}"
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


def _counts_of_copies(steps: Copies) -> Counter[Fate]:
    decoded = sum(number for reason, number in tallied(steps.reasons) if isinstance(reason, Decoded))
    if decoded:
        columns = zip(steps.keys, steps.sources, steps.forms, steps.origins, steps.reasons, strict=True)
        rest = [row[:4] for row in columns if not isinstance(row[4], Decoded)]
        cast = sum(form is not origin for _, _, form, origin in rest)
        renamed = sum(key != source and form is origin for key, source, form, origin in rest)
    else:
        renamed, cast = len(steps.renamed), len(steps.sources_cast)
    copied = len(steps) - renamed - cast - decoded
    return Counter({Fate.RENAMED: renamed, Fate.CAST: cast, Fate.COPIED: copied, Fate.DEQUANTIZED: decoded})


def counts(plan: Plan) -> Iterator[str]:
    """``- 2 dropped``, ``~ 100 cast``, ``= 20 copied``: how many keys have which fate."""
    if isinstance(plan.steps, Copies):
        found = _counts_of_copies(plan.steps)
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
