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

    recipes: Mapping[str, tuple[str, ...]]
    plain: frozenset[str]
    sections: frozenset[str]
    changed: frozenset[str]


@cache
def known() -> Known:
    """What ckptool knows of llama.cpp's architectures."""
    text = (files("ckptool.commands") / "llamacpp.toml").read_text(encoding="utf-8")
    said = tomllib.loads(text)
    recipes: dict[str, tuple[str, ...]] = {}
    for recipe, names in said["recipes"].items():
        recipes |= {name: (*recipes.get(name, ()), recipe) for name in names}
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
    theirs, ours = (known().recipes.get(architecture or "", ()) for architecture in architectures)
    if bool(theirs) == bool(ours) or None not in architectures:
        return Recipe()
    found = [_rules(name, source, target, metadata, bool(ours)) for name in theirs or ours]
    return max(found, key=lambda each: each[0], default=(0, Recipe()))[1]


def _rules(
    name: str, source: Checkpoint, target: Mapping[str, TensorSpec], metadata: Mapping[str, str], backwards: bool
) -> tuple[int, Recipe]:
    """How many tensors of the target a built-in recipe makes, and the recipe; 0 if the source has another layout."""
    try:
        recipe = load_recipe(name)
        prefix = _prefix(source.specs() if backwards else target)
        recipe = combine([recipe, parse_recipe([f"model. -> {prefix}"])]) if prefix else recipe
        numbers = dict(numbers_beside(recipe, source.path, metadata=metadata if backwards else source.metadata))
        numbers |= _sizes_of_heads(target) if backwards else {}
        title = f"{recipe.name} (backwards)" if backwards else recipe.name
        recipe = replace(reverse(recipe).recipe if backwards else recipe, name=title, vars=numbers)
        made = expand(recipe, source.specs(), vars=numbers, targets=target, near=False)
    except CkptError:
        return 0, Recipe()
    meets = sum(step.target.key in target for step in made.steps)
    return (meets, recipe) if meets and not made.problems else (0, Recipe())


def _sizes_of_heads(specs: Mapping[str, TensorSpec]) -> dict[str, int]:
    """Heads, keys and values of a head, where llama.cpp has them apart: a recipe backwards must cut `kv_b_proj`."""
    for key, spec in specs.items():
        values = specs.get(key.replace(".attn_k_b.", ".attn_v_b."))
        if ".attn_k_b." in key and values is not None and len(spec.shape) == len(values.shape) == 3:
            return {"h": spec.shape[0], "k": spec.shape[2], "v": values.shape[1]}
    return {}


def _prefix(keys: Iterable[str]) -> str:
    """What a model's keys have in place of ``model.``: ``model.language_model.`` where there is a vision tower."""
    found = [key for key in keys if key == _EMBEDDING or key.endswith(f".{_EMBEDDING}")]
    prefix = found[0].removesuffix(_EMBEDDING) if len(found) == 1 else ""
    return "" if prefix == "model." else prefix
