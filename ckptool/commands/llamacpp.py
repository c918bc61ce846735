"""GGUF files in a match: llama.cpp has its own names, and built-in recipes that know them come before what is found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import CkptError
from ckptool.core.spec import TensorSpec
from ckptool.recipes.expand import expand
from ckptool.recipes.inputs import numbers_beside
from ckptool.recipes.recipe import Recipe, load_recipe
from ckptool.recipes.reverse import reverse

_ARCHITECTURE = "general.architecture"
RECIPES = {
    "llama": "llamacpp-llama-to-hf",
    **dict.fromkeys(("qwen2", "qwen2moe", "qwen2vl", "qwen3", "qwen3moe"), "llamacpp-qwen-to-hf"),
    **dict.fromkeys(("command-r", "cohere2"), "llamacpp-qwen-to-hf"),
    "gemma": "llamacpp-gemma-to-hf",
    **dict.fromkeys(("gemma2", "gemma3"), "llamacpp-gemma2-to-hf"),
    "phi2": "llamacpp-phi2-to-hf",
    "phi3": "llamacpp-phi3-to-hf",
}
"""GGUF's architectures, and the built-in recipe from their names to Hugging Face's."""


def known_rules(
    source: Checkpoint, target: Mapping[str, TensorSpec], target_metadata: Mapping[str, str] | None = None
) -> Recipe:
    """The built-in rules from one side to the other where exactly one of them is a GGUF file.

    Args:
        source: what the rules are for.
        target: what is to come out.
        target_metadata: the other side's, where it is a checkpoint.

    Returns:
        A recipe with its numbers, that makes at least one tensor of the target; an empty one where there is none.
    """
    metadata = target_metadata or {}
    architectures = [each.get(_ARCHITECTURE) for each in (source.metadata, metadata)]
    names = [RECIPES.get(architecture or "") for architecture in architectures]
    if (names[0] is None) == (names[1] is None) or None not in architectures:
        return Recipe()
    try:
        recipe = load_recipe(names[0] or names[1] or "")
        numbers = numbers_beside(recipe, source.path, metadata=source.metadata if names[0] else metadata)
        name = recipe.name if names[0] else f"{recipe.name} (backwards)"
        recipe = replace(recipe if names[0] else reverse(recipe).recipe, name=name, vars=numbers)
        made = expand(recipe, source.specs(), vars=numbers, targets=target)
    except CkptError:  # another layout under that name
        return Recipe()
    meets = any(step.target.key in target for step in made.steps)
    return recipe if meets and not made.problems else Recipe()
