"""Runs recipes on arrays in memory, and fills models with weights that show a mistake."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ckptool.core.plan import Source, sources_of
from ckptool.core.spec import TensorSpec
from ckptool.engine.evaluate import compute
from ckptool.recipes.expand import Expansion, expand
from ckptool.recipes.recipe import Recipe, parse_recipe
from ckptool.recipes.reverse import reverse

Arrays = Mapping[str, np.ndarray[Any, Any]]


def specs_of(**shapes: tuple[int, ...]) -> dict[str, TensorSpec]:
    """float32 specs by key; ``__`` in a name stands for a dot."""
    return specs([(key.replace("__", "."), shape) for key, shape in shapes.items()])


def specs(rows: list[tuple[str, tuple[int, ...]]]) -> dict[str, TensorSpec]:
    return {key: TensorSpec(key, "float32", shape) for key, shape in rows}


def names(rules: list[str], keys: list[str], **kwargs: Any) -> list[str]:
    """The keys that rules make of 0-dim tensors; there must be no problems."""
    found = expand(parse_recipe(rules), specs([(key, ()) for key in keys]), **kwargs)
    assert not found.problems, found.problems
    return [step.target.key for step in found.steps]


def problems(rules: list[str], source: Mapping[str, TensorSpec], **kwargs: Any) -> list[str]:
    return [problem.message for problem in expand(parse_recipe(rules), source, **kwargs).problems]


def run(expansion: Expansion, *inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays that an expansion's steps make; each must come out as its step says."""
    assert not expansion.problems, expansion.problems
    made = {}
    for step in expansion.steps:
        sources: dict[Source, Any] = {source: inputs[source.input][source.key] for source in sources_of(step.value)}
        array = compute(step.value, sources)
        assert (array.dtype.name, array.shape) == (step.target.dtype, step.target.shape), step
        made[step.target.key] = array
    return made


def remap(recipe: Recipe, arrays: Arrays, **kwargs: Any) -> dict[str, np.ndarray[Any, Any]]:
    """A recipe on arrays."""
    return run(expand(recipe, array_specs(arrays), **kwargs), arrays)


def array_specs(arrays: Arrays) -> dict[str, TensorSpec]:
    return {key: TensorSpec(key, array.dtype.name, array.shape) for key, array in arrays.items()}


def remap_torch(recipe: Recipe, state: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
    """A recipe on torch tensors (of dtypes that numpy has)."""
    import torch

    made = remap(recipe, {key: tensor.numpy() for key, tensor in state.items()}, **kwargs)
    return {key: torch.from_numpy(np.array(array)) for key, array in made.items()}


def assert_comes_back(recipe: Recipe, state: Mapping[str, Any], lost: int = 0, **kwargs: Any) -> None:
    """The recipe and then its reverse give every tensor back, bit for bit, but for `lost` ones."""
    there = remap_torch(recipe, state, **kwargs)
    again = remap_torch(reverse(recipe).recipe, there, **kwargs)
    assert set(again) <= set(state)
    assert len(state) - len(again) == lost
    for key, tensor in again.items():
        assert tensor.dtype == state[key].dtype and tensor.shape == state[key].shape, key
        assert tensor.numpy().tobytes() == state[key].contiguous().numpy().tobytes(), key


def structured(model: Any, seed: int = 0) -> Any:
    """The model in eval mode, with weights that make every mix-up show: no zeros, no ones, no two norms alike."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict(keep_vars=True).items():
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.dim() < 2 and not name.endswith(("bias", "running_mean")):
                tensor.uniform_(0.75, 1.25, generator=generator)
            else:
                # the input must still show after many layers of ReLU: biases must not drown it
                fan_in = max(1, tensor[0].numel()) if tensor.dim() > 1 else 200
                tensor.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
    return model.eval()


def assert_close(a: Any, b: Any, rel: float = 1e-5) -> None:
    """Equal up to the rounding of another order of summation."""
    a, b = a.detach(), b.detach()
    assert a.shape == b.shape
    assert float((a - b).abs().max()) <= rel * float(a.abs().max())
    assert float((a[0] - a[1]).abs().max()) > 0.01 * float(a.abs().max())  # the output depends on the input
