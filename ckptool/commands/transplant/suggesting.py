"""A built-in recipe that would fill more of a model than the keys do as they are."""

from __future__ import annotations

from dataclasses import dataclass

from ckptool.commands.transplant.names import Specs, under_target_names
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import CkptError
from ckptool.models import Target
from ckptool.models.own_init import ModelInit
from ckptool.recipes.recipe import builtin_recipes, load_recipe

_MANY = 20_000  # keys; for more, eighteen recipes take too long


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A recipe by its name, and how many more tensors of the target it would fill."""

    recipe: str
    more: int


def suggest(source: Checkpoint, specs: Specs, target: Target, initial: ModelInit, filled: int) -> Suggestion | None:
    """The built-in recipe whose preconditions hold and that fills the most; None if none fills more than now.

    Args:
        source: the checkpoint.
        specs: its tensors.
        target: the model.
        initial: the model's own tensors.
        filled: how many tensors of the target are filled without a recipe.
    """
    if len(specs) + len(target.specs) > _MANY:
        return None
    best: Suggestion | None = None
    for name in builtin_recipes():
        try:
            made = under_target_names(source, specs, target, load_recipe(name), initial)
        except CkptError:  # it asks for numbers of files that are not there, or the files say that it does not fit
            continue
        wanted = target.specs
        fitting = sum(key in wanted and wanted[key].shape == step.target.shape for key, step in made.steps.items())
        more = 0 if made.problems else fitting - filled
        if more > (best.more if best else 0):
            best = Suggestion(name, more)
    return best
