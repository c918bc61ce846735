"""What a plan does to the facts of its inputs: the problems and notes that follow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.errors import PlanError, UsageError
from ckptool.core.facts import FINE, Answer, Fact, Fine, Operation, Refuse, Say, Use
from ckptool.core.ops import Cast
from ckptool.core.plan import Apply, Copies, Plan, Problem, Source, sources_of
from ckptool.core.reasons import ByOption, ByRules, Unmixed
from ckptool.facts.registry import allowed_words, facts_of, names
from ckptool.facts.words import with_file

_P = TypeVar("_P", bound=Plan)
_ORDER = (
    Operation.LOAD, Operation.COMPUTE, Operation.CAST, Operation.DROP, Operation.COPY, Operation.RENAME,
)  # fmt: skip


@dataclass(slots=True)
class _Touched:
    """What a plan does to one input: the keys of each operation.

    Attributes:
        keys: by operation.
        mixed: keys that are mixed with those of other inputs.
        changed: keys whose numbers are computed with, and not only moved.
        spared: for CAST and COMPUTE, keys that are copied where others are cast or mixed.
    """

    keys: dict[Operation, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))
    mixed: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    spared: dict[Operation, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))

    def uses(self, key: str) -> bool:
        """True if any operation takes the key."""
        return any(key in keys for keys in self.keys.values())


def consulted(plan: _P, allow: Collection[str] = (), *, loads: bool = False) -> _P:
    """The plan with what the facts of its inputs have to say, each once.

    Args:
        plan: what is to be written.
        allow: names of facts that the user insists on.
        loads: the tensors of the first input go into a model (transplant, load_into).

    Raises:
        UsageError: `allow` names no fact.
    """
    problems, notes = answers(plan, allow, loads=loads)
    known = {note.text for note in plan.notes} | {problem.message for problem in plan.problems}
    return replace(
        plan,
        problems=(*plan.problems, *(problem for problem in problems if problem.message not in known)),
        notes=(*plan.notes, *(note for note in notes if note.text not in known)),
    )


def answers(
    plan: Plan, allow: Collection[str] = (), *, loads: bool = False
) -> tuple[tuple[Problem, ...], tuple[Note, ...]]:
    """What the facts of a plan's inputs answer to what the plan does: (refusals, what the user is told).

    A plan's `steps`, `inputs` and nothing else are looked at. See `consulted` for the arguments.
    """
    _require_known(allow)
    problems: list[Problem] = []
    notes: list[Note] = []
    if isinstance(plan.steps, Copies):
        facts_of(plan.inputs[plan.steps.input])  # known from now on: what they need is gone when all keys are listed
    touched = _touched(plan)
    for number, checkpoint in enumerate(plan.inputs):
        done = touched[number]
        if not any(done.keys.values()):
            continue
        if loads and number == 0:
            done.keys[Operation.LOAD] = {key: None for keys in done.keys.values() for key in keys}
        facts = facts_of(checkpoint)
        has_groups = any(fact.groups for fact in facts) and done.keys.get(Operation.RENAME)
        renamed = _targets(plan, number) if has_groups else {}
        wanted = _wanted(plan, done) if loads and number == 0 else None
        for fact in facts:
            missed = fact.missed(*wanted) if wanted is not None else FINE
            found = [] if isinstance(missed, Fine) else [(missed, Use(Operation.LOAD))]
            for answer, use in [*_answers(fact, done, len(plan.inputs), renamed), *found]:
                prefix = "" if use.mixed or len(plan.inputs) == 1 else f"{checkpoint.path.name}: "
                if isinstance(answer, Say):
                    notes.append(Note(prefix + answer.text, with_file(answer.hint, checkpoint), use.keys, answer.level))
                elif fact.name in allow and answer.may_insist:
                    notes.append(Note(prefix + answer.why, f"allowed: --allow {fact.name}", use.keys, "warning"))
                else:
                    problems.append(_problem(fact, answer, use, prefix, checkpoint))
    return _once(problems), _once(notes)


def comparison_notes(old: Checkpoint, new: Checkpoint) -> tuple[Note, ...]:
    """What the facts of two compared checkpoints explain: those of one side only, and those that make numbers codes."""
    notes: list[Note] = []
    sides = (old, new)
    for side, checkpoint in enumerate(sides):
        others = {fact.name for fact in facts_of(sides[1 - side])}
        for fact in facts_of(checkpoint):
            if fact.name not in others and fact.tells:
                name = checkpoint.path.name if old.path.name != new.path.name else str(checkpoint.path)
                notes.append(Note(f"only {name}: {fact.text}", "", fact.keys, "warning"))
            answer = fact.answer(Use(Operation.COMPARE, fact.keys))
            if isinstance(answer, Say):
                notes.append(Note(answer.text, with_file(answer.hint, checkpoint), fact.keys, answer.level))
    return _once(notes)


def _require_known(allow: Collection[str]) -> None:
    for name in allow:
        if name not in names():
            from difflib import get_close_matches

            known = allowed_words()
            close = get_close_matches(name.lower(), known, n=1)
            every = f"facts that may be allowed: {', '.join(sorted(set(known.values())))}"
            hint = f'did you mean "{known[close[0]]}"?   {every}' if close else every
            raise UsageError(f'--allow "{name}": there is no such fact', hint=hint)


def _problem(fact: Fact, answer: Refuse, use: Use, prefix: str, checkpoint: Checkpoint) -> Problem:
    insist = f"   continue anyway: --allow {fact.name}" if answer.may_insist else ""
    return Problem(prefix + answer.why, with_file(answer.instead, checkpoint) + insist, answer.keys or use.keys)


_T = TypeVar("_T", Problem, Note)


def _once(items: Sequence[_T]) -> tuple[_T, ...]:
    return tuple({(item.message if isinstance(item, Problem) else item.text): item for item in items}.values())


def _targets(plan: Plan, number: int) -> dict[str, tuple[str, ...]]:
    """The names of the copied tensors of an input in the output."""
    found: dict[str, tuple[str, ...]] = {}
    for step in plan.steps:
        if isinstance(step.value, Source) and step.value.input == number:
            found[step.value.key] = (*found.get(step.value.key, ()), step.target.key)
    return found


def _wanted(plan: Plan, done: _Touched) -> tuple[set[str], set[str]]:
    """The keys of the output; and those of the first input that it is made of, or that the user left out."""
    left = {dropped.source.key for dropped in plan.dropped if isinstance(dropped.reason, ByOption | ByRules)}
    used = {key for keys in done.keys.values() for key in keys}
    return {step.target.key for step in plan.steps}, used | left


def _answers(
    fact: Fact, done: _Touched, inputs: int, targets: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[Say | Refuse, Use]]:
    """The answers of one fact: its first refusal, or everything that it has to say."""
    found: list[tuple[Answer, Use]] = []
    for operation in _ORDER:
        use = _use(fact, operation, done, inputs)
        if use is not None:
            use = replace(use, targets=targets) if operation is Operation.RENAME else use
            found.append((fact.answer(use), use))
    refused = [(answer, use) for answer, use in found if isinstance(answer, Refuse)]
    if refused:
        final = [pair for pair in refused if not pair[0].may_insist]
        yield (final or refused)[0]
    else:
        yield from ((answer, use) for answer, use in found if isinstance(answer, Say))


def _use(fact: Fact, operation: Operation, done: _Touched, inputs: int) -> Use | None:
    """What an operation does to a fact's keys; None if it does not touch it."""
    if operation is Operation.DROP:
        parted = [group for group in fact.groups if 0 < sum(map(done.uses, group)) < len(group)]
        keys = tuple(key for group in parted for key in group if not done.uses(key))
        return Use(operation, keys, inputs=inputs) if keys else None
    if fact.groups and operation in done.spared and not any(key in done.keys[operation] for key in fact.keys):
        keys = tuple(key for key in fact.keys if key in done.spared[operation])
        return Use(operation, keys, inputs=inputs, spared=True) if keys else None
    touched = done.keys.get(operation)
    if not touched:
        return None
    keys = tuple(key for key in fact.keys if key in touched)
    if fact.keys and not keys:
        return None
    mixed = moves = False
    if operation is Operation.COMPUTE:
        every = keys or tuple(touched)
        mixed = any(key in done.mixed for key in every)
        moves = not any(key in done.changed for key in every)
    if mixed:
        keys = tuple(key for key in keys if key in done.mixed)
    return Use(operation, keys, mixed, moves, inputs)


def _touched(plan: Plan) -> list[_Touched]:
    """What the plan does to each input."""
    touched = [_Touched() for _ in plan.inputs]
    if isinstance(plan.steps, Copies):
        _touch_columns(touched[plan.steps.input], plan.steps)
    else:
        _touch_steps(touched, plan)
    for done in touched if plan.casts else ():
        done.spared[Operation.CAST] = done.keys[Operation.COPY]
    return touched


def _touch_steps(touched: list[_Touched], plan: Plan) -> None:
    """The same of each step."""
    for step in plan.steps:
        value = step.value
        if isinstance(value, Source):
            done = touched[value.input]
            done.keys[Operation.COPY][value.key] = None
            if isinstance(step.reason, Unmixed):
                done.spared[Operation.COMPUTE][value.key] = None
            if value.key != step.target.key:
                done.keys[Operation.RENAME][value.key] = None
            continue
        sources = list(sources_of(value))
        operation = Operation.CAST if _is_cast(value) else Operation.COMPUTE
        several = len({source.input for source in sources}) > 1 and len({source.key for source in sources}) == 1
        moves = operation is Operation.COMPUTE and _moves(value, plan)
        for source in sources:
            done = touched[source.input]
            if operation is Operation.CAST and not _changes(value, plan.inputs[source.input], source):
                done.keys[Operation.COPY][source.key] = None
            else:
                done.keys[operation][source.key] = None
            if several:
                done.mixed.add(source.key)
            if not moves:
                done.changed.add(source.key)


def _touch_columns(done: _Touched, steps: Copies) -> None:
    """What copies and casts in columns do to their input."""
    done.keys[Operation.CAST] = cast = dict.fromkeys(steps.sources_cast)
    copied = [key for key in steps.sources if key not in cast] if cast else steps.sources
    done.keys[Operation.COPY] = every = dict.fromkeys(copied)
    renamed = steps.renamed
    done.keys[Operation.RENAME] = every if len(renamed) == len(every) else dict.fromkeys(renamed)


def _is_cast(value: Apply) -> bool:
    """True for casts of one source and nothing else."""
    inner: Source | Apply = value
    while isinstance(inner, Apply):
        if not isinstance(inner.op, Cast):
            return False
        (inner,) = inner.args
    return True


def _changes(value: Apply, checkpoint: Checkpoint, source: Source) -> bool:
    assert isinstance(value.op, Cast)
    return value.op.changes(checkpoint.form(source.key).dtype)


def _moves(value: Apply, plan: Plan) -> bool:
    """True if the op only puts runs of its arguments' bytes in another order."""
    args = [arg for arg in value.args if isinstance(arg, Source)]
    if not args or len(args) < len(value.args):
        return False
    try:
        return value.op.runs([plan.inputs[arg.input].spec(arg.key) for arg in args]) is not None
    except PlanError:  # shapes that do not fit are a problem of the plan by themselves
        return False
