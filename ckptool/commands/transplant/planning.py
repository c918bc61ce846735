"""transplant: a checkpoint's weights into a model of another make, and the whole truth about what went where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ckptool.commands.transplant.fill import fill
from ckptool.commands.transplant.gates import frozen, unmet
from ckptool.commands.transplant.hooked import through_hooks
from ckptool.commands.transplant.names import matched, under_target_names, without
from ckptool.commands.transplant.result import Asked, Transplant
from ckptool.commands.transplant.shares import uneven_notes
from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.errors import UsageError
from ckptool.core.keys import Pattern
from ckptool.core.near_miss import require_match
from ckptool.core.plan import Beside, Command, Dropped, Fate, Plan, Source, Step, sources_of
from ckptool.core.reasons import DoesNotFit, NoSuchKey, Reason, WeightsOnly
from ckptool.core.ties import with_recorded_ties
from ckptool.facts.entries import entries_of
from ckptool.fits.args import Fit, parse_fit
from ckptool.matching.result import Confidence
from ckptool.models import Target
from ckptool.models.entries import Mismatch
from ckptool.models.own_init import ModelInit
from ckptool.recipes.inputs import require_used
from ckptool.recipes.recipe import Recipe


def plan_transplant(
    source: Checkpoint,
    target: Target,
    *,
    recipe: Recipe | None = None,
    drop: Sequence[str] = (),
    mismatch: Mismatch = "skip",
    fits: Iterable[tuple[str, str]] = (),
    init: Iterable[tuple[str, str]] = (),
    vars: Mapping[str, float] | None = None,
    seed: int = 0,
    only_loaded: bool = False,
    wrap: str | None = None,
    strict: bool = False,
    min_coverage: float | None = None,
    match: Confidence | None = None,
    live: bool = False,
) -> Transplant:
    """Plan a target's state dict out of a source's weights.

    Args:
        source: the checkpoint.
        target: the model, from `ckptool.models.open_target` or `target_of`.
        recipe: how source keys become the target's; by default a wrapper or submodule prefix is seen through.
        drop: key patterns of source tensors to leave out.
        mismatch: what to do about tensors of another shape: leave the model's own, make it a problem, or make them fit
            by the method that is usual for such a tensor.
        fits: (key pattern of the target, "grid(prefix=1)"), which come before `mismatch`.
        init: (key pattern of the target, "normal(0.001)") for tensors that nothing fills, before the recipe's.
        vars: numbers for the recipe.
        seed: of the model's own init, where nothing fills a tensor.
        only_loaded: the output holds only what came from the source.
        wrap: the output nests the state dict under this key.
        strict: what torch would not load strictly is unmet.
        min_coverage: the least share of the target's elements, 0 to 1; less is unmet.
        match: find rules from names, shapes and order, and take those that are as sure as this, or surer.

        live: the tensors go into the module itself, and not into a file that torch loads.

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
    source, rules = with_recorded_ties(source), recipe or Recipe()
    require_used(rules, vars or {})
    rules = replace(rules, vars={**rules.vars, **(vars or {})})
    initial = ModelInit(target, seed)
    specs, left_out = without(source, drop)
    found = None if match is None else matched(source, specs, target, rules, initial, match)
    rules = rules if found is None else found.recipe
    asked = Asked(rules, tuple(drop), mismatch, tuple(fits), tuple(init), seed, only_loaded)
    chosen = [(Pattern.parse(pattern), _fit_named(text)) for pattern, text in asked.fits]
    for option, patterns in (("--fit", asked.fits), ("--init", asked.init)):
        for text, _ in patterns:
            require_match(Pattern.parse(text), target.specs, option)
    mapped = under_target_names(source, specs, target, rules, initial, as_they_are=found is not None)
    entries = () if rules.stages else entries_of(source)
    taken = through_hooks(mapped, source, target, entries, renamed=bool(mapped.swap or rules.stages), live=live)
    mapped = taken.mapped
    inits = (*asked.init, *rules.init)
    filling = fill(source, target, mapped.steps, mismatch, chosen, inits, initial, is_complete=not only_loaded)
    steps = filling.steps
    names = {key: step.target for key, step in mapped.steps.items()}
    uses_own = target.checkpoint is not None and any(origin.input for origin in _origins(steps))
    transplant = Transplant(
        Plan(
            (source, target.checkpoint) if uses_own and target.checkpoint is not None else (source,),
            steps,
            (*left_out, *mapped.dropped, *_not_used(mapped.steps, steps, target)),
            (*mapped.problems, *filling.problems),
            uses=mapped.uses,
            notes=(
                *_target_notes(target),
                *mapped.notes,
                *filling.notes,
                *_recipe_notes(rules),
                *uneven_notes(filling.entries, target),
            ),
            frame=None,
            beside=tuple(Beside(extra.name, Fate.LOST, WeightsOnly()) for extra in source.extras),
            module_versions=target.versions,
            wrap=wrap,
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
    return replace(transplant, plan=replace(transplant.plan, unmet=unmet(transplant, strict, min_coverage)))


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


def _target_notes(target: Target) -> tuple[Note, ...]:
    """What was noticed while the model was built; of a checkpoint that is one, only what warns."""
    return tuple(note for note in target.notes if target.checkpoint is None or note.level == "warning")


def _recipe_notes(rules: Recipe) -> tuple[Note, ...]:
    if rules.output_dtype is None:
        return ()
    return (Note(f'output.dtype = "{rules.output_dtype}" of the recipe is not used', "the model's dtypes are kept"),)
