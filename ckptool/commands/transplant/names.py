"""The source under the target's names: by a recipe, by rules that are found, or where keys are equal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from ckptool.commands.automatic import Automatic, Given, automatic
from ckptool.commands.llamacpp import known_rules, withheld_keys
from ckptool.commands.transplant.evidence import doubts
from ckptool.commands.transplant.fill import fitted
from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.keys import Pattern
from ckptool.core.near_miss import require_match
from ckptool.core.plan import Apply, Dropped, Problem, Source, Step, Use, Value
from ckptool.core.reasons import ByOption, OtherPlace, SameKey
from ckptool.core.spec import TensorSpec
from ckptool.matching.prefixes import Swap, prefix_swap
from ckptool.matching.result import Confidence
from ckptool.models.own_init import ModelInit
from ckptool.recipes.expand import expand
from ckptool.recipes.inputs import numbers_beside
from ckptool.recipes.recipe import Recipe, combine

if TYPE_CHECKING:
    from ckptool.models import Target

Specs = Mapping[str, TensorSpec]
_DEEPEST = 4


@dataclass(frozen=True, slots=True)
class Mapped:
    """The source under the target's names.

    Attributes:
        steps: each tensor that came of the source, by its key.
        dropped: what rules left out.
        problems: what speaks against the rules.
        uses: what became of each rule.
        notes: what was done without being asked for.
        swap: prefixes that were seen through; with rules, in what they made.
        under: a prefix of the source, with its last dot, under which the rules apply.
        advice: rules that put in its place what names alone put nowhere.
    """

    steps: dict[str, Step]
    dropped: tuple[Dropped, ...] = ()
    problems: tuple[Problem, ...] = ()
    uses: tuple[Use, ...] = ()
    notes: tuple[Note, ...] = ()
    swap: Swap = field(default_factory=Swap)
    under: str = ""
    advice: tuple[str, ...] = ()


def without(source: Checkpoint, drop: Sequence[str]) -> tuple[dict[str, TensorSpec], tuple[Dropped, ...]]:
    """The specs of a source but for those that --drop leaves out, and these."""
    specs = {key: tensor.spec for key, tensor in source.tensors.items()}
    dropped: list[Dropped] = []
    for text in drop:
        found = require_match(Pattern.parse(text), list(source), "--drop", source.path)
        option = ByOption("--drop", text)
        dropped += [Dropped(Source(0, key), option) for key in found if specs.pop(key, None) is not None]
    return specs, tuple(dropped)


def matched(
    source: Checkpoint, specs: Specs, target: Target, rules: Recipe, initial: ModelInit, accept: Confidence
) -> Automatic:
    """The rules, and behind them those that are found for what they make of the source."""
    known = Recipe() if rules.stages else known_rules(source, target.specs)
    rules = combine([rules, known]) if known.stages else rules
    numbers = numbers_beside(rules, source.path, metadata=source.metadata)
    withheld = frozenset[str]() if known.stages else withheld_keys((source,), (source.metadata,))
    fit = partial(fitted, initial=initial)
    given = Given(rules, vars=numbers, fit=fit, is_known=bool(known.stages), withheld=withheld)
    return automatic(given, specs, target.specs, accept=accept, modules=target.modules or None, reshaped=True)


def under_target_names(
    source: Checkpoint,
    specs: Specs,
    target: Target,
    rules: Recipe,
    initial: ModelInit,
    *,
    as_they_are: bool = False,
    near: bool = True,
) -> Mapped:
    """What rules make of the source; without rules, equal keys. A prefix on either side is seen through.

    Args:
        source: the checkpoint.
        specs: its tensors.
        target: the model.
        rules: a recipe; none for equal keys.
        initial: the model's own tensors, for fits.
        as_they_are: the rules name whole keys of both sides, and no prefix is looked for.
        near: hints for rules that match nothing name keys like theirs.
    """
    if not rules.stages:
        return _by_name(specs, target)
    numbers, fit = numbers_beside(rules, source.path, metadata=source.metadata), partial(fitted, initial=initial)

    def mapped(under: str, swap: Swap) -> Mapped:
        bare = _without_prefixes(specs, under) if under else specs
        names = dict(zip(bare, specs, strict=True))
        wanted = {swap.take + key.removeprefix(swap.put): spec for key, spec in target.specs.items()} if swap else {}
        made = expand(
            replace(rules, init=()), bare, vars=numbers, targets={**target.specs, **wanted}, fit=fit, near=near
        )
        steps = (_named(step, swap, names if under else {}) for step in made.steps)
        dropped = tuple(Dropped(_origin(row.source, names), row.reason) for row in made.dropped)
        return Mapped({step.target.key: step for step in steps}, dropped, made.problems, made.uses, (), swap, under)

    plain = mapped("", Swap())
    if as_they_are or (not plain.problems and _meeting(plain, target) == len(plain.steps)):
        return plain
    best = plain
    for under in _prefixes(specs):
        if len({_without_prefix(key, under) for key in specs}) < len(specs):
            continue
        first = mapped(under, Swap()) if under else plain
        swap = prefix_swap(
            {key: step.target.shape for key, step in first.steps.items()},
            {key: spec.shape for key, spec in target.specs.items()},
        )
        found = mapped(under, swap) if swap else first
        if _rank(found, target) > _rank(best, target):
            best = found
    return replace(best, notes=tuple(_prefix_notes(best)))


def _rank(mapped: Mapped, target: Target) -> tuple[bool, int]:
    """What works out comes first, then what fills more."""
    return not mapped.problems, _meeting(mapped, target)


def meeting(specs: Specs, wanted: Specs) -> int:
    """How many tensors are wanted under their key with their shape."""
    return sum(key in wanted and wanted[key].shape == spec.shape for key, spec in specs.items())


def _meeting(mapped: Mapped, target: Target) -> int:
    return meeting({key: step.target for key, step in mapped.steps.items()}, target.specs)


def _prefixes(keys: Collection[str]) -> list[str]:
    """No prefix, then those that more than half of the keys have, the shortest first."""
    counts: Counter[str] = Counter()
    for key in keys:
        parts = key.split(".")
        counts.update(".".join(parts[:depth]) + "." for depth in range(1, min(len(parts), _DEEPEST + 1)))
    return ["", *sorted((prefix for prefix, many in counts.items() if 2 * many > len(keys)), key=len)]


def _without_prefixes(specs: Specs, prefix: str) -> Specs:
    names = (_without_prefix(key, prefix) for key in specs)
    return {name: replace(spec, key=name) for name, spec in zip(names, specs.values(), strict=True)}


def _without_prefix(key: str, prefix: str) -> str:
    return key.removeprefix(prefix) or key


def _origin(source: Source, names: Mapping[str, str]) -> Source:
    return Source(source.input, names.get(source.key, source.key))


def _named(step: Step, swap: Swap, names: Mapping[str, str]) -> Step:
    """A step of rules under its final name, with sources by their names in the file."""
    if not swap and not names:
        return step
    key, tied = swap.key(step.target.key), step.tied_to
    value = _with_sources(step.value, names) if names else step.value
    tied_to = None if tied is None else swap.key(tied)
    return replace(step, target=replace(step.target, key=key), value=value, tied_to=tied_to)


def _with_sources(value: Value, names: Mapping[str, str]) -> Value:
    if isinstance(value, Source):
        return _origin(value, names)
    return Apply(value.op, tuple(_with_sources(arg, names) for arg in value.args))


def _prefix_notes(mapped: Mapped) -> Iterator[Note]:
    if mapped.under:
        yield Note(f'rules apply under "{mapped.under}"', f'as a rule before them: -r "{mapped.under} ->"')
    if mapped.swap:
        yield Note(f"results are put {mapped.swap.text}", f'as a rule behind them: -r "{mapped.swap.rule}"')


def _by_name(specs: Specs, target: Target) -> Mapped:
    source = {key: spec.shape for key, spec in specs.items()}
    wanted = {key: spec.shape for key, spec in target.specs.items()}
    swap = prefix_swap(source, wanted)
    found = doubts(source, wanted, swap)
    doubtful = {key for doubt in found for key in doubt.keys}
    steps: dict[str, Step] = {}
    dropped: list[Dropped] = []
    for key, spec in specs.items():
        new = swap.key(key)
        if new in doubtful:
            dropped.append(Dropped(Source(0, key), OtherPlace()))
            continue
        reason = SameKey() if new == key else SameKey(swap.take, swap.put)
        steps[new] = Step(TensorSpec(new, spec.dtype, spec.shape), Source(0, key), reason)
    notes = [Note(f"source keys are taken {swap.text}", f'as a rule: -r "{swap.rule}"')] if swap else []
    notes += [doubt.note for doubt in found]
    advice = tuple(rule for doubt in found for rule in doubt.rules)
    return Mapped(steps, tuple(dropped), notes=tuple(notes), swap=swap, advice=advice)
