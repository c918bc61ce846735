"""Which built-in recipes are for given keys, and which of them makes the most of what is wanted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from ckptool.core.errors import CkptError, UsageError
from ckptool.core.spec import TensorSpec
from ckptool.recipes.binding import with_numbers
from ckptool.recipes.expand import expand
from ckptool.recipes.matching import match_stage
from ckptool.recipes.recipe import Recipe, builtin_recipes, load_recipe
from ckptool.recipes.reverse import reverse

Specs = Mapping[str, TensorSpec]
EXPERTS = "experts"  # in the names of recipes for them


def fitting_recipes(keys: Iterable[str]) -> Iterator[tuple[tuple[str, ...], Recipe]]:
    """The built-in recipes, forwards and backwards, of which every rule finds a key of the form that it is for.

    Yields:
        The words of a command line that name one, and it.

    Example:
        >>> [options for options, _ in fitting_recipes(["bert.LayerNorm.gamma", "bert.LayerNorm.beta"])]
        [('-r', 'bert-gamma-beta')]
    """
    forms = list({re.sub(r"\d+", "#", key): key for key in keys}.values())
    for name in builtin_recipes():
        if any(rule.lists for rule in load_recipe(name).rules):  # it fits any model, and none without a wish
            continue
        if not _is_whole(load_recipe(name)):
            continue
        found: dict[tuple[str, ...], Recipe] = {("-r", name): load_recipe(name)}
        with suppress(CkptError):  # rules that have no way back
            found["-r", name, "--reverse"] = reverse(load_recipe(name)).recipe
        for options, recipe in found.items():
            for first in recipe.stages[:1]:
                seen = match_stage(first, forms).seen
                if seen and all(rule.optional or number in seen for number, rule in enumerate(first.rules)):
                    yield options, recipe


def _is_whole(recipe: Recipe) -> bool:
    """True if its rules need no numbers but its own."""
    try:
        with_numbers(recipe, {name: value for name, value in recipe.vars.items() if not isinstance(value, str)})
    except UsageError:
        return False
    return True


def expert_layout(specs: Specs, wanted: Specs) -> tuple[tuple[str, ...], dict[str, TensorSpec]]:
    """The recipe for experts that makes the most of what is wanted, and what it makes of it; nothing without experts.

    Args:
        specs: tensors that there are.
        wanted: those that there should be.
    """
    best: tuple[tuple[str, ...], dict[str, TensorSpec]] = ((), {})
    if not any(".experts." in key for key in wanted):
        return best
    experts = [key for key in specs if ".experts." in key]
    module = experts[0].partition("experts.")[0] if experts else ""
    one = {key: spec for key, spec in specs.items() if key.startswith(module)}
    for options, recipe in fitting_recipes(experts) if experts else ():
        if EXPERTS not in options[1]:
            continue
        if len(one) < len(specs) and not _met(recipe, one, wanted):  # one layer tells it at little cost
            continue
        met = _met(recipe, specs, wanted)
        if len(met) > len(best[1]):
            best = options, met
    return best


def _met(recipe: Recipe, specs: Specs, wanted: Specs) -> dict[str, TensorSpec]:
    """What a recipe makes of what is wanted; nothing if it cannot be done."""
    try:
        made = expand(recipe, specs, near=False)
    except CkptError:  # a precondition on a number that is not there
        return {}
    found = {step.target.key: step.target for step in made.steps if step.target.key in wanted}
    return {} if made.problems else {key: one for key, one in found.items() if one.shape == wanted[key].shape}
