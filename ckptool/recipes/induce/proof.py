"""What rules make of actual keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from ckptool.core.errors import CkptError
from ckptool.core.plan import sources_of
from ckptool.core.spec import TensorSpec
from ckptool.recipes.expand import expand
from ckptool.recipes.recipe import Recipe, parse_recipe

Specs: TypeAlias = Mapping[str, TensorSpec]
Made: TypeAlias = dict[str, tuple[tuple[str, ...], tuple[int, ...]]]
"""What rules make: of what, and in which shape."""


def dropping(recipe: Recipe) -> Recipe:
    """The recipe, with keys that no rule names left out."""
    return replace(recipe, stages=tuple(replace(stage, unmatched="drop") for stage in recipe.stages))


def made_by(texts: Sequence[str], source: Specs, target: Specs) -> tuple[Made, bool]:
    """What rules make, and whether all is well with them. Keys that no rule names are left out.

    Example:
        >>> specs = {"a.w": TensorSpec("a.w", "float32", (4,))}
        >>> made_by(["a. -> b."], specs, {})
        ({'b.w': (('a.w',), (4,))}, True)
    """
    if any(not text.isprintable() or "'''" in text for text in texts):
        return {}, False
    try:
        recipe = dropping(parse_recipe([f"?{text}" for text in texts]))  # what matches nothing is seen below
        found = expand(recipe, source, targets=target)
    except CkptError:
        return {}, False
    made = {
        step.target.key: (tuple(sorted({one.key for one in sources_of(step.value)})), step.target.shape)
        for step in found.steps
    }
    return made, not found.problems and all(use.keys or use.shadowed for use in found.uses)
