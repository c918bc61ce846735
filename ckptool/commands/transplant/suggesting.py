"""A built-in recipe that would fill more of a model than the keys do as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ckptool.commands.transplant.prefixes import Specs, meeting, with_prefixes
from ckptool.core.errors import CkptError
from ckptool.recipes.expand import Expansion
from ckptool.recipes.recipe import Recipe, builtin_recipes, load_recipe

_MANY = 20_000  # keys; for more, eighteen recipes take too long


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A recipe by its name, and how many more tensors of the target it would fill."""

    recipe: str
    more: int


def suggest(specs: Specs, targets: Specs, filled: int, expanded: Callable[[Recipe], Expansion]) -> Suggestion | None:
    """The built-in recipe whose preconditions hold and that fills the most; None if none fills more than now.

    Args:
        specs: the source.
        targets: the model.
        filled: how many tensors of the target are filled without a recipe.
        expanded: what a recipe makes of the source.
    """
    if len(specs) + len(targets) > _MANY:
        return None
    best: Suggestion | None = None
    for name in builtin_recipes():
        try:
            recipe, _ = with_prefixes(load_recipe(name), specs, targets, expanded)
            made = expanded(recipe)
        except CkptError:  # it asks for numbers of files that are not there, or the files say that it does not fit
            continue
        more = 0 if made.problems else meeting(made, targets) - filled
        if more > (best.more if best else 0):
            best = Suggestion(name, more)
    return best
