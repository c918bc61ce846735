"""remap: a recipe on a checkpoint, forwards or backwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ckptool.commands.automatic import Automatic, Given, automatic
from ckptool.commands.beside.versions import carried_versions
from ckptool.commands.filter import cast_copies, cast_value, float_dtype, module_notes
from ckptool.commands.llamacpp import known_rules, withheld_keys
from ckptool.core.bytes import PathText
from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.counts import many
from ckptool.core.errors import CkptError
from ckptool.core.keys import Pattern
from ckptool.core.plan import Command, Copies, Plan, Problem, Source, Step, sources_of
from ckptool.core.spec import TensorSpec
from ckptool.core.ties import with_recorded_ties
from ckptool.matching.result import Confidence
from ckptool.recipes.binding import with_numbers
from ckptool.recipes.expand import Expansion, expand
from ckptool.recipes.fitting import EXPERTS, fitting_recipes
from ckptool.recipes.inputs import numbers_beside, source_file_captures
from ckptool.recipes.recipe import Expect, Recipe, builtin_recipes, combine
from ckptool.recipes.reverse import check_reverse, reverse
from ckptool.storage.paths import is_folder

if TYPE_CHECKING:
    from ckptool.commands.vocabulary import Tokenizers

Specs = Mapping[str, TensorSpec]
_MANY = 200_000  # keys that are not led there and back only to say that it works


def plan_remap(
    sources: Checkpoint | Sequence[Checkpoint],
    recipe: Recipe,
    *,
    backwards: bool = False,
    prefixes: Sequence[str] = (),
    vars: Mapping[str, float | str] | None = None,
    like: Checkpoint | None = None,
    dtype: str | None = None,
    tokens: Tokenizers | None = None,
) -> Plan:
    """Plan the output that a recipe makes.

    Args:
        sources: the input, or the files that make one together (see `open_sources`).
        recipe: what to do (see `ckptool.recipes.recipe`).
        backwards: do the reverse of the recipe.
        prefixes: put before the keys of each source.
        vars: numbers that come before those of the recipe, and names of lists for ``{layers#}``.
        like: a checkpoint with the keys and shapes that the output is to have; the recipe's expectations are held
            against it.
        dtype: a float dtype for the output; by default the recipe's, else each tensor's own.
        tokens: a vocabulary whose order the rows of embeddings get, behind the rules.

    Raises:
        UsageError: if vars cannot be found, or the recipe cannot be reversed.

    Example:
        >>> import ckptool
        >>> from ckptool.recipes.recipe import parse_recipe
        >>> plan = plan_remap(ckptool.open("fixtures/resnet18.pth"), parse_recipe(["fc. -> head."]))
        >>> [step.target.key for step in plan.steps][-2:]
        ['head.weight', 'head.bias']
    """
    given = (sources,) if isinstance(sources, Checkpoint) else tuple(sources)
    inputs = tuple(map(with_recorded_ties, given))
    recipe, given_numbers = recipe.naming(vars or {})
    numbers = numbers_beside(recipe, inputs[0].path, given_numbers, inputs[0].metadata)
    recipe = with_numbers(recipe, numbers)
    specs = [checkpoint.specs() for checkpoint in inputs]
    losses: tuple[str, ...] = ()
    running = recipe
    if backwards:
        turned = reverse(recipe)
        running, losses = turned.recipe, turned.losses
        numbers = {**{name: value for name, value in running.vars.items() if not isinstance(value, str)}, **numbers}
    targets = None if like is None else like.specs()
    found = expand(running, specs, prefixes=prefixes, vars=numbers, targets=targets)
    wanted = float_dtype(dtype or (None if backwards else recipe.output_dtype))
    steps = _cast(found.steps, inputs, wanted)
    notes = [*module_notes(inputs[0]), *(Note(loss) for loss in losses)]
    if like is None and recipe.expect != Expect() and not backwards:
        notes.append(Note("the recipe's expectations are not checked", "--like CHECKPOINT gives what to hold them to"))
    if len(inputs) == 1 and steps and not found.problems and tokens is None:
        plain = targets is None and not any(prefixes)
        notes += _reversible(recipe, specs[0], numbers, backwards, found if plain else None)
    plan = Plan(
        inputs,
        steps if isinstance(steps, Copies) else Copies.of(steps, inputs) or steps,
        found.dropped,
        found.problems and _with_others(found.problems, recipe, specs[0]),
        (),
        found.uses,
        tuple(notes),
        metadata=inputs[0].metadata,
        module_versions=_versions(inputs[0], steps),
        command=Command("remap", ("--reverse",) if backwards else ()),
        casts=wanted is not None,
    )
    if tokens is not None and not plan.problems:
        from ckptool.commands.vocabulary import with_tokens

        plan = with_tokens(plan, tokens)
    return plan if backwards else replace(plan, unmet=_unmet(recipe.expect, plan.steps, targets))


def match_remap(
    sources: Sequence[Checkpoint],
    recipe: Recipe,
    like: Checkpoint,
    *,
    prefixes: Sequence[str] = (),
    vars: Mapping[str, float | str] | None = None,
    accept: Confidence = Confidence.ALIGNED,
) -> Automatic:
    """The recipe, and behind it rules that are found for the keys of another checkpoint.

    Args:
        sources: the input, or the files that make one together.
        recipe: rules that come first; it may have none.
        like: has the keys and shapes that are to come out.
        prefixes: put before the keys of each source.
        vars: numbers that come before those of the recipe, and names of lists for ``{layers#}``.
        accept: the least confidence of what is done.
    """
    wanted = dict(like.specs())
    known = Recipe() if recipe.stages or len(sources) > 1 else known_rules(sources[0], wanted, like.metadata)
    recipe = combine([recipe, known]) if known.stages else recipe
    recipe, named = recipe.naming(vars or {})
    numbers = numbers_beside(recipe, sources[0].path, named, sources[0].metadata)
    inputs = map(with_recorded_ties, sources)
    specs = [dict(checkpoint.specs()) for checkpoint in inputs]
    sides, metadata = (sources[0], like), (sources[0].metadata, like.metadata)
    withheld = frozenset[str]() if known.stages else withheld_keys(sides, metadata)
    given = Given(recipe, prefixes, numbers, is_known=bool(known.stages), withheld=withheld)
    return automatic(given, specs, wanted, accept=accept)


def open_sources(path: PathText, recipe: Recipe, select: str | None) -> tuple[tuple[Checkpoint, ...], tuple[str, ...]]:
    """The checkpoints that a recipe's input is made of, and the prefixes of their keys.

    Args:
        path: a checkpoint, or the folder that `source.files` of the recipe speaks of.
        recipe: says `source.files` and `source.select`.
        select: which dict to take, before what the recipe says.
    """
    from ckptool.formats.opening import open_checkpoint

    asked = select if select is not None else recipe.source_select
    chosen = None if asked == "auto" else asked
    if not recipe.source_files or not is_folder(path):
        return (open_checkpoint(path, chosen),), ()
    files = source_file_captures(recipe, path)
    return tuple(open_checkpoint(file, chosen) for _, file in files), tuple(prefix for prefix, _ in files)


def _cast(steps: Sequence[Step], inputs: Sequence[Checkpoint], dtype: str | None) -> Sequence[Step]:
    """The steps with their floats in another dtype."""
    if dtype is None:
        return steps
    if isinstance(steps, Copies):
        return cast_copies(steps, dtype)
    done: list[Step] = []
    for step in steps:
        is_special = isinstance(step.value, Source) and inputs[step.value.input][step.value.key].layout != "strided"
        value, spec = (step.value, step.target) if is_special else cast_value(step.value, step.target, dtype)
        done.append(replace(step, value=value, target=spec))
    return tuple(done)


def _versions(source: Checkpoint, steps: Sequence[Step]) -> dict[str, int] | None:
    if source.module_versions is None:
        return None
    pairs = [(origin.key, step.target.key) for step in steps for origin in sources_of(step.value) if origin.input == 0]
    return carried_versions(source.module_versions, pairs, source)


def _reversible(
    recipe: Recipe, specs: Specs, vars: Mapping[str, float], backwards: bool, there: Expansion | None
) -> list[Note]:
    """What there-and-back does to these very keys."""
    other = "without --reverse" if backwards else "with --reverse"
    if len(specs) > _MANY:
        return [Note(f"whether it is reversible is not tried on {len(specs):,} keys", f"{other}, it says so itself")]
    try:
        trip = check_reverse(recipe, specs, vars=vars, backwards=backwards, there=there)
    except CkptError as error:
        return [Note("reversible: no", error.message)]
    if trip.problems:
        return [] if backwards else [Note("reversible: no", trip.problems[0])]
    back = [("lost", trip.lost), ("changed", trip.changed), ("added", trip.added)]
    faults = [f"{many(len(keys), 'key')} {what} ({keys[0]})" for what, keys in back if keys]
    if faults:
        return [Note("reversible: no", ", ".join(faults))]
    if trip.dropped:
        dropped = many(len(trip.dropped), "dropped key")
        return [Note(f"reversible: {other}, except {dropped}", keys=trip.dropped)]
    return [Note(f"reversible: {other}")]


def _with_others(problems: tuple[Problem, ...], recipe: Recipe, specs: Specs) -> tuple[Problem, ...]:
    """The problems of a built-in recipe for experts; the first names those that do fit, if there are any."""
    if recipe.name not in builtin_recipes() or EXPERTS not in recipe.name or len(specs) > _MANY:
        return problems
    others = ((options, other) for options, other in fitting_recipes(specs) if EXPERTS in options[1])
    names = [" ".join(options) for options, other in others if not expand(other, specs, near=False).problems]
    if not names:
        return problems
    hint = f"{'this fits' if len(names) == 1 else 'these fit'}: {', '.join(names[:3])}"
    return (replace(problems[0], hint=hint), *problems[1:])


def _unmet(expect: Expect, steps: Sequence[Step], targets: Specs | None) -> tuple[Problem, ...]:
    """The recipe's expectations that the output does not meet."""
    if targets is None:
        return ()
    made = {step.target.key: step.target for step in steps}
    missing = _unlisted([key for key in targets if key not in made], expect.missing)
    unexpected = _unlisted([key for key in made if key not in targets], expect.unexpected)
    reshaped = [key for key in made if key in targets and made[key].shape != targets[key].shape]
    unmet = [
        Problem(f"{many(len(keys), 'key is', 'keys are')} {what}: {keys[0]}", hint, tuple(keys))
        for what, hint, keys in (
            ("missing", "a rule that makes them, or expect.missing", missing),
            ("unexpected", "a rule that drops them, or expect.unexpected", unexpected),
            ("of another shape than in the target", "compare with ckptool diff --keys-only", reshaped),
        )
        if keys
    ]
    if expect.coverage is not None:
        filled = sum(targets[key].elements for key in made if key in targets and key not in reshaped)
        whole = sum(spec.elements for spec in targets.values())
        if filled < expect.coverage * whole:
            share = filled / whole if whole else 1.0
            unmet.append(Problem(f"coverage is {share:.2%} of the target's elements, not {expect.coverage:.2%}"))
    return tuple(unmet)


def _unlisted(keys: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Keys that no pattern allows."""
    allowed = {key for text in patterns for key in Pattern.parse(text).select(keys)}
    return [key for key in keys if key not in allowed]
