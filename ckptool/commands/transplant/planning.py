"""transplant: a checkpoint's weights into a model of another make, and the whole truth about what went where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ckptool.commands.beside.companions import is_folder
from ckptool.commands.transplant.advice import average_note
from ckptool.commands.transplant.fill import fill
from ckptool.commands.transplant.gates import frozen, loaded_though_new, unmet
from ckptool.commands.transplant.hooked import through_hooks
from ckptool.commands.transplant.names import matched, under_target_names, without
from ckptool.commands.transplant.result import Asked, Transplant
from ckptool.commands.transplant.shares import statistics_notes, uneven_notes
from ckptool.core.beside import Beside, Fate
from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.errors import UsageError
from ckptool.core.keys import Pattern
from ckptool.core.near_miss import require_match
from ckptool.core.plan import Command, Dropped, Plan, Source, Step, sources_of
from ckptool.core.reasons import DoesNotFit, NoSuchKey, Reason, WeightsOnly
from ckptool.core.ties import with_recorded_ties
from ckptool.facts.entries import entries_of
from ckptool.fits.args import Fit, parse_fit
from ckptool.models import Target
from ckptool.models.own_init import ModelInit
from ckptool.recipes.inputs import require_used
from ckptool.recipes.recipe import Recipe

_NOTHING = Asked()


def plan_transplant(source: Checkpoint, target: Target, asked: Asked = _NOTHING) -> Transplant:
    """Plan a target's state dict out of a source's weights.

    Args:
        source: the checkpoint.
        target: the model, from `ckptool.models.open_target` or `target_of`.
        asked: what is to be done; by default a wrapper or submodule prefix is seen through.

    Returns:
        The decision. Where its plan has `problems` or `unmet` expectations, it is not written.

    Raises:
        UsageError: a pattern matches nothing, or a rule cannot be understood.

    Example:
        >>> import ckptool
        >>> from ckptool.models import open_target
        >>> from ckptool.models.entries import Filled
        >>> old = ckptool.open("fixtures/resnet18-102.pth")
        >>> done = plan_transplant(old, open_target("fixtures/resnet18.pth"))
        >>> done.tensors, len(done.having(Filled.MISSING)), done.coverage
        ((102, 122), 20, 1.0)
    """
    source = with_recorded_ties(source)
    rules, numbers = asked.recipe.naming(asked.vars or {})
    require_used(rules, numbers)
    rules = replace(rules, vars={**rules.vars, **numbers})
    initial = ModelInit(target, asked.seed)
    specs, left_out = without(source, asked.drop)
    found = None if asked.match is None else matched(source, specs, target, rules, initial, asked.match)
    rules = rules if found is None else found.recipe
    asked = replace(asked, recipe=rules)
    chosen = [(Pattern.parse(pattern), _fit_named(text)) for pattern, text in asked.fits]
    for option, texts in (("--fit", dict(asked.fits)), ("--init", dict(asked.init)), ("--new", asked.new)):
        for text in texts:
            require_match(Pattern.parse(text), target.specs, option)
    mapped = under_target_names(source, specs, target, rules, initial, as_they_are=found is not None)
    entries = () if rules.stages else entries_of(source)
    taken = through_hooks(mapped, source, target, entries, renamed=bool(mapped.swap or rules.stages), live=asked.live)
    mapped = taken.mapped
    inits = (*asked.init, *rules.init)
    filling = fill(
        source, target, mapped.steps, asked.mismatch, chosen, inits, initial, is_complete=not asked.only_loaded
    )
    steps = filling.steps
    names = {key: step.target for key, step in mapped.steps.items()}
    own = target.checkpoint
    if own is not None and not (is_folder(own) or any(origin.input for origin in _origins(steps))):
        own = None
    transplant = Transplant(
        Plan(
            (source,) if own is None else (source, own),
            steps,
            (*left_out, *mapped.dropped, *_not_used(mapped.steps, steps, target)),
            (*mapped.problems, *filling.problems, *loaded_though_new(filling.entries, asked.new)),
            uses=mapped.uses,
            notes=(
                *filter(None, [average_note(source)]),
                *target.notes,
                *mapped.notes,
                *filling.notes,
                *_recipe_notes(rules),
                *uneven_notes(filling.entries, target, asked.new),
                *statistics_notes(filling.entries, names, target),
            ),
            frame=None,
            beside=tuple(Beside(extra.name, Fate.LOST, WeightsOnly()) for extra in source.extras),
            module_versions=target.versions,
            wrap=asked.wrap,
            command=Command("transplant", ("--into", target.name)),
        ),
        target,
        filling.entries,
        tuple(spec for key, spec in names.items() if key not in target.specs),
        {**names, **{step.target.key: step.target for step in filling.loaded}},
        mapped.swap,
        frozen(filling.entries, rules),
        asked,
        found,
        taken.lost,
        mapped.under,
        mapped.advice,
    )
    return replace(transplant, plan=replace(transplant.plan, unmet=unmet(transplant, asked.strict, asked.min_coverage)))


def _fit_named(text: str) -> Fit:
    fit = parse_fit(text)
    if fit is None:
        raise UsageError(f'unknown fit "{text}"', hint='as in --fit "pos_embed=grid(prefix=1)"')
    return fit


def _origins(steps: Iterable[Step]) -> set[Source]:
    return {origin for step in steps for origin in sources_of(step.value)}


def _not_used(mapped: Mapping[str, Step], steps: Iterable[Step], target: Target) -> list[Dropped]:
    """Source tensors that the output does not hold though no rule dropped them."""
    used = _origins(steps)
    left: dict[Source, Reason] = {}
    for key, step in mapped.items():
        reason = DoesNotFit() if key in target.specs else NoSuchKey()
        left |= {origin: reason for origin in sources_of(step.value) if origin not in used}
    return [Dropped(origin, reason) for origin, reason in left.items()]


def _recipe_notes(rules: Recipe) -> tuple[Note, ...]:
    if rules.output_dtype is None:
        return ()
    return (Note(f'output.dtype = "{rules.output_dtype}" of the recipe is not used', "the model's dtypes are kept"),)
