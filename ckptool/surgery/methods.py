"""Merge methods: pure functions from tensors to a tensor, each with its paper. The signature is the list of options.

A method takes the models' tensors as a list of float64 arrays of one shape, and keyword options. The first of them,
`weights`, has one number for each model. A method with a `base` parameter works on the differences from a base model
("task vectors"). The result is rounded once, to the output's dtype.

To add a method: write the function, decorate it. Its docstring's first line is its help.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[np.float64]"
_TINY = 1e-8  # below this norm a vector has no direction (mergekit's eps)
_PARALLEL = 0.9995  # above this cosine two vectors are taken as parallel (mergekit's DOT_THRESHOLD)


@dataclass(frozen=True, slots=True)
class Method:
    """A merge method as it is found by its name.

    Attributes:
        name: "task-arithmetic".
        function: called with (tensors, weights=..., [base=...], **options).
        about: the first line of its docstring.
        needs_base: it works on differences from a base model.
        is_elementwise: element i of the result needs only element i of each tensor.
        options: its further options and their defaults.
        models: exactly how many models it takes; None for any number.
    """

    name: str
    function: Callable[..., Array]
    about: str
    needs_base: bool
    is_elementwise: bool
    options: Mapping[str, float]
    models: int | None


METHODS: dict[str, Method] = {}


def method(
    *, elementwise: bool = False, models: int | None = None
) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """Make a function a merge method under its own name (``_`` becomes ``-``)."""

    def register(function: Callable[..., Array]) -> Callable[..., Array]:
        parameters = inspect.signature(function).parameters
        options = {
            name: float(parameter.default)
            for name, parameter in parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }
        about = (inspect.getdoc(function) or "").partition("\n")[0]
        name = function.__name__.replace("_", "-")
        METHODS[name] = Method(name, function, about, "base" in parameters, elementwise, options, models)
        return function

    return register


@method(elementwise=True)
def linear(tensors: Sequence[Array], *, weights: Sequence[float], normalize: float = 1.0) -> Array:
    """Weighted mean of the tensors; weights are divided by their sum unless normalize=0.

    Wortsman et al., Model soups, ICML 2022 (arXiv:2203.05482).

    Example:
        >>> linear([np.array([1.0, 2.0]), np.array([3.0, 6.0])], weights=[1, 3]).tolist()
        [2.5, 5.0]
    """
    total = sum(weights) if normalize else 1.0
    result = tensors[0] * (weights[0] / total)
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        result += tensor * (weight / total)
    return result


@method(elementwise=True)
def ema(tensors: Sequence[Array], *, weights: Sequence[float], decay: float = 0.999) -> Array:
    """Exponential moving average over the models in their order: the first, then each next with weight 1 - decay.

    Polyak and Juditsky, Acceleration of stochastic approximation by averaging, 1992. Weights are not used.

    Example:
        >>> ema([np.array([1.0]), np.array([2.0])], weights=[1, 1], decay=0.75).tolist()
        [1.25]
    """
    result = tensors[0].copy()
    for tensor in tensors[1:]:
        result *= decay
        result += tensor * (1 - decay)
    return result


@method(models=2)
def slerp(tensors: Sequence[Array], *, weights: Sequence[float], t: float = 0.5) -> Array:
    """Along the great circle from the first tensor (t=0) to the second (t=1).

    Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985. Nearly parallel tensors are mixed linearly.

    Example:
        >>> np.round(slerp([np.array([1.0, 0.0]), np.array([0.0, 1.0])], weights=[1, 1]), 3).tolist()
        [0.707, 0.707]
    """
    first, second = tensors
    norms = np.linalg.norm(first), np.linalg.norm(second)
    if min(norms) <= _TINY:
        return first * (1 - t) + second * t
    cosine = float(np.sum(first * second) / (norms[0] * norms[1]))
    if abs(cosine) > _PARALLEL:
        return first * (1 - t) + second * t
    angle = np.arccos(cosine)
    result: Array = (np.sin((1 - t) * angle) * first + np.sin(t * angle) * second) / np.sin(angle)
    return result


@method(elementwise=True)
def task_arithmetic(
    tensors: Sequence[Array], *, base: Array, weights: Sequence[float], scale: float = 1.0, normalize: float = 0.0
) -> Array:
    """The base plus the weighted sum of what each model changed.

    Ilharco et al., Editing models with task arithmetic, ICLR 2023 (arXiv:2212.04089).

    Example:
        >>> task_arithmetic([np.array([3.0]), np.array([1.5])], base=np.array([1.0]), weights=[1, -1]).tolist()
        [2.5]
    """
    return base + scale * _mixed([tensor - base for tensor in tensors], weights, normalize)


@method()
def ties(
    tensors: Sequence[Array],
    *,
    base: Array,
    weights: Sequence[float],
    density: float = 0.5,
    scale: float = 1.0,
    normalize: float = 1.0,
) -> Array:
    """Keep the largest changes of each model, elect a sign for each element, mix the changes that agree with it.

    Yadav et al., TIES-merging, NeurIPS 2023 (arXiv:2306.01708).
    """
    deltas = [_largest(tensor - base, density) for tensor in tensors]
    return base + scale * _agreeing(deltas, weights, normalize)


@method()
def dare_linear(
    tensors: Sequence[Array],
    *,
    base: Array,
    weights: Sequence[float],
    density: float = 0.5,
    scale: float = 1.0,
    normalize: float = 0.0,
    seed: float = 0.0,
) -> Array:
    """Drop changes at random, enlarge the others to make up for it, add the weighted sum to the base.

    Yu et al., Language models are super Mario, ICML 2024 (arXiv:2311.03099).
    """
    deltas = _random([tensor - base for tensor in tensors], density, seed)
    return base + scale * _mixed(deltas, weights, normalize)


@method()
def dare_ties(
    tensors: Sequence[Array],
    *,
    base: Array,
    weights: Sequence[float],
    density: float = 0.5,
    scale: float = 1.0,
    normalize: float = 0.0,
    seed: float = 0.0,
) -> Array:
    """As dare-linear, then mix only changes that agree with the elected sign, as ties does.

    Yu et al., Language models are super Mario, ICML 2024 (arXiv:2311.03099).
    """
    deltas = _random([tensor - base for tensor in tensors], density, seed)
    return base + scale * _agreeing(deltas, weights, normalize)


@method()
def breadcrumbs(
    tensors: Sequence[Array],
    *,
    base: Array,
    weights: Sequence[float],
    density: float = 0.9,
    gamma: float = 0.01,
    scale: float = 1.0,
    normalize: float = 0.0,
) -> Array:
    """Leave out the largest share `gamma` of the changes and the smallest, keep the share `density` between.

    Davari and Belilovsky, Model breadcrumbs, ECCV 2024 (arXiv:2312.06795).
    """
    deltas = [_between(tensor - base, density, gamma) for tensor in tensors]
    return base + scale * _mixed(deltas, weights, normalize)


@method()
def model_stock(tensors: Sequence[Array], *, base: Array, weights: Sequence[float]) -> Array:
    """Between the base and the models' mean, nearer to the mean the smaller the angles between the models' changes.

    Jang et al., Model Stock, ECCV 2024 (arXiv:2403.19522). At least two models; weights are not used.
    """
    deltas = [tensor - base for tensor in tensors]
    cosines = [_cosine(first, second) for index, first in enumerate(deltas) for second in deltas[index + 1 :]]
    cosine = float(np.mean(cosines)) if cosines else 1.0
    count = len(deltas)
    share = count * cosine / (1 + (count - 1) * cosine)
    mean: Array = sum(tensors[1:], tensors[0]) / count
    return share * mean + (1 - share) * base


def _mixed(deltas: Sequence[Array], weights: Sequence[float], normalize: float) -> Array:
    total = _divisor(sum(weights)) if normalize else 1.0
    result = deltas[0] * (weights[0] / total)
    for delta, weight in zip(deltas[1:], weights[1:], strict=True):
        result += delta * (weight / total)
    return result


def _agreeing(deltas: Sequence[Array], weights: Sequence[float], normalize: float) -> Array:
    """The weighted sum of the changes whose sign is that of the weighted sum of all; normalised by their weights."""
    weighted = [delta * weight for delta, weight in zip(deltas, weights, strict=True)]
    elected = np.where(sum(weighted[1:], weighted[0]) >= 0, 1.0, -1.0)
    agree = [np.sign(delta) == elected for delta in weighted]
    result = sum((delta * mask for delta, mask in zip(weighted, agree, strict=True)), np.zeros_like(elected))
    if normalize:
        used = sum((weight * mask for weight, mask in zip(weights, agree, strict=True)), np.zeros_like(elected))
        result /= np.where(np.abs(used) < _TINY, 1.0, used)
    return result


def _divisor(total: float) -> float:
    return 1.0 if abs(total) < _TINY else total


def _largest(delta: Array, density: float) -> Array:
    """The share `density` of the elements with the largest magnitude, the others 0."""
    keep = int(density * delta.size)
    if density >= 1 or delta.size == 0:
        return delta
    if keep == 0:
        return np.zeros_like(delta)
    chosen = np.argpartition(np.abs(delta).reshape(-1), delta.size - keep)[delta.size - keep :]
    return _only(delta, chosen)


def _between(delta: Array, density: float, gamma: float) -> Array:
    """Without the share `gamma` of the largest and what is smaller than the share `density` below them."""
    top = int(gamma * delta.size)
    keep = int(density * delta.size)
    if top + keep > delta.size:  # as mergekit: fewer of the largest are left out
        top = delta.size - keep
    order = np.argsort(np.abs(delta).reshape(-1), kind="stable")[::-1]
    return _only(delta, order[top : top + keep])


def _only(delta: Array, chosen: Any) -> Array:
    result = np.zeros_like(delta)
    result.reshape(-1)[chosen] = delta.reshape(-1)[chosen]
    return result


def _random(deltas: Sequence[Array], density: float, seed: float) -> list[Array]:
    """Each element kept with probability `density` and divided by it; the same elements for the same seed."""
    draw = np.random.Generator(np.random.PCG64(int(seed)))
    return [np.where(draw.random(delta.shape) < density, delta / density, 0.0) for delta in deltas]


def _cosine(first: Array, second: Array) -> float:
    norms = float(np.linalg.norm(first) * np.linalg.norm(second))
    return 1.0 if norms <= _TINY else float(np.sum(first * second)) / norms
