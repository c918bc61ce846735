"""GGUF files in a match: llama.cpp has its own names, and built-in recipes that know them come before what is found."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import CkptError
from ckptool.core.spec import TensorSpec
from ckptool.recipes.expand import expand
from ckptool.recipes.inputs import numbers_beside
from ckptool.recipes.recipe import Recipe, combine, load_recipe, parse_recipe
from ckptool.recipes.reverse import reverse

_ARCHITECTURE = "general.architecture"
_EMBEDDING = "embed_tokens.weight"


@dataclass(frozen=True, slots=True)
class Known:
    """``llamacpp.toml``, which says what each field means."""

    recipes: Mapping[str, str]
    plain: frozenset[str]
    sections: frozenset[str]
    changed: frozenset[str]


@cache
def known() -> Known:
    """What ckptool knows of llama.cpp's architectures."""
    text = (files("ckptool.commands") / "llamacpp.toml").read_text(encoding="utf-8")
    said = tomllib.loads(text)
    recipes = {name: recipe for recipe, names in said["recipes"].items() for name in names}
    return Known(recipes, *(frozenset(said[name]) for name in ("plain", "sections", "changed")))


def withheld_keys(checkpoints: Iterable[Mapping[str, object]], metadata: Iterable[Mapping[str, str]]) -> frozenset[str]:
    """Keys of GGUF files that no match may take by their names: llama.cpp may have changed their values.

    Args:
        checkpoints: the tensors of each side by key.
        metadata: of each side.

    Example:
        >>> keys = {"blk.0.attn_q.weight": None, "blk.0.attn_v.weight": None}
        >>> sorted(withheld_keys([keys], [{"general.architecture": "grok"}]))
        ['blk.0.attn_q.weight']
    """
    architectures = [_architecture(each) for each in metadata]
    if len([name for name in architectures if name]) != 1:  # two files of llama.cpp have the same values
        return frozenset()
    keys: set[str] = set()
    for side, name in zip(checkpoints, architectures, strict=True):
        if name and name not in known().plain:
            keys.update(key for key in side if _part(key) in known().changed)
    return frozenset(keys)


def _architecture(metadata: Mapping[str, str]) -> str | None:
    """The architecture; as a name of its own where another kind of rotary positions goes with other values."""
    name = metadata.get(_ARCHITECTURE)
    if name in known().sections and f"{name}.rope.dimension_sections" in metadata:
        return f"{name} with sections"
    return name


def _part(key: str) -> str:
    """``attn_q`` of ``blk.0.attn_q.weight``."""
    parts = key.split(".")
    return parts[-2] if len(parts) > 1 else key


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
    architectures = [_architecture(each) for each in (source.metadata, metadata)]
    names = [known().recipes.get(architecture or "") for architecture in architectures]
    if (names[0] is None) == (names[1] is None) or None not in architectures:
        return Recipe()
    try:
        recipe = load_recipe(names[0] or names[1] or "")
        prefix = _prefix(target if names[0] else source.specs())
        recipe = combine([recipe, parse_recipe([f"model. -> {prefix}"])]) if prefix else recipe
        numbers = numbers_beside(recipe, source.path, metadata=source.metadata if names[0] else metadata)
        name = recipe.name if names[0] else f"{recipe.name} (backwards)"
        recipe = replace(recipe if names[0] else reverse(recipe).recipe, name=name, vars=numbers)
        made = expand(recipe, source.specs(), vars=numbers, targets=target, near=False)
    except CkptError:  # another layout under that name
        return Recipe()
    meets = any(step.target.key in target for step in made.steps)
    return recipe if meets and not made.problems else Recipe()


def _prefix(keys: Iterable[str]) -> str:
    """What a model's keys have in place of ``model.``: ``model.language_model.`` where there is a vision tower."""
    found = [key for key in keys if key == _EMBEDDING or key.endswith(f".{_EMBEDDING}")]
    prefix = found[0].removesuffix(_EMBEDDING) if len(found) == 1 else ""
    return "" if prefix == "model." else prefix
