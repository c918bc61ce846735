"""The source under the target's names: by a recipe, by rules that are found, or where keys are equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from ckptool.commands.automatic import Automatic, automatic
from ckptool.commands.transplant.fill import fitted
from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.keys import Pattern
from ckptool.core.near_miss import require_match
from ckptool.core.plan import Dropped, Problem, Source, Step, Use
from ckptool.core.reasons import ByOption, LoadHook, SameKey
from ckptool.core.spec import TensorSpec
from ckptool.matching.prefixes import Swap, prefix_swap
from ckptool.matching.result import Confidence
from ckptool.models.own_init import ModelInit
from ckptool.recipes.expand import Expansion, expand
from ckptool.recipes.inputs import numbers_beside
from ckptool.recipes.recipe import Recipe

if TYPE_CHECKING:
    from ckptool.models import Target

Specs = Mapping[str, TensorSpec]


@dataclass(frozen=True, slots=True)
class Mapped:
    """The source under the target's names.

    Attributes:
        steps: each tensor that came of the source, by its key.
        dropped: what rules left out.
        problems: what speaks against the rules.
        uses: what became of each rule.
        notes: what was done without being asked for.
        swap: prefixes that were seen through.
    """

    steps: dict[str, Step]
    dropped: tuple[Dropped, ...] = ()
    problems: tuple[Problem, ...] = ()
    uses: tuple[Use, ...] = ()
    notes: tuple[Note, ...] = ()
    swap: Swap = field(default_factory=Swap)


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
    return automatic(
        rules,
        specs,
        target.specs,
        accept=accept,
        vars=numbers_beside(rules, source.path),
        modules=target.modules or None,
        fit=partial(fitted, initial=initial),
        reshaped=True,
    )


def expanded(rules: Recipe, source: Checkpoint, specs: Specs, target: Target, initial: ModelInit) -> Expansion:
    """What rules make of the source for a target."""
    fit = partial(fitted, initial=initial)
    vars = numbers_beside(rules, source.path)
    return expand(replace(rules, init=()), specs, vars=vars, targets=target.specs, fit=fit)


def under_target_names(source: Checkpoint, specs: Specs, target: Target, rules: Recipe, initial: ModelInit) -> Mapped:
    """What rules make of the source; without rules, equal keys, with a prefix on either side seen through."""
    if not rules.stages:
        return _by_name(specs, target)
    made = expanded(rules, source, specs, target, initial)
    return Mapped({step.target.key: step for step in made.steps}, made.dropped, made.problems, made.uses)


def with_load_hooks(source: Checkpoint, mapped: Mapped, target: Target) -> Mapped:
    """The same, with keys that the model's own load hooks rename where those keys of the model have nothing else."""
    if target.module is None or all(key in mapped.steps for key in target.specs):
        return mapped
    if all(key in target.specs for key in mapped.steps):
        return mapped  # there is nothing that a hook could have taken
    from ckptool.models.strict import renamed_by_hooks

    specs = {key: step.target for key, step in mapped.steps.items()}
    renamed = renamed_by_hooks(target, specs, source.module_versions)
    origins = {key: origin for key, origin in renamed.items() if origin not in target.specs}
    if not origins:
        return mapped
    taken = set(origins.values())
    steps = {key: step for key, step in mapped.steps.items() if key not in taken}
    for key, origin in origins.items():
        step = mapped.steps[origin]
        steps[key] = replace(step, target=replace(step.target, key=key), reason=LoadHook(origin))
    return replace(mapped, steps=steps)


def _by_name(specs: Specs, target: Target) -> Mapped:
    swap = prefix_swap(
        {key: spec.shape for key, spec in specs.items()}, {key: spec.shape for key, spec in target.specs.items()}
    )
    steps: dict[str, Step] = {}
    for key, spec in specs.items():
        new = swap.key(key)
        reason = SameKey() if new == key else SameKey(swap.take, swap.put)
        steps[new] = Step(TensorSpec(new, spec.dtype, spec.shape), Source(0, key), reason)
    note = Note(f"source keys are taken {swap.text}", f'as a rule: -r "{swap.rule}"')
    return Mapped(steps, notes=(note,) if swap else (), swap=swap)
