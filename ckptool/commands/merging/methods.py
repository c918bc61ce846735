"""Merge methods: pure functions from tensors to a tensor, each with its paper. The signature says all about a method.

A method is called with flat float64 slices of the models' tensors, slice after slice, and its result is rounded once,
to the output's dtype. Its parameters:

    tensors    the slices, one for each model
    base       the slice of a base model: the method works on what each model changed of it ("task vectors")
    weights    a number for each model
    products, kept, draw
               what the method must know of the whole tensors beforehand: see `ckptool.commands.merging.measures`
    others     its options, with their defaults

So memory does not grow with the tensors, whatever the method. To add one: write the function, decorate it. Its
docstring's first line is its help. Where a method is in mergekit too, the results agree with mergekit 0.1.5 up to
rounding (it computes in float32 or in the tensors' dtype), except where a docstring says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np

from ckptool.commands.merging.registry import METHODS as METHODS
from ckptool.commands.merging.registry import Array, method
from ckptool.commands.merging.registry import Method as Method
from ckptool.commands.merging.registry import method_named as method_named
from ckptool.core.errors import UsageError

_TINY = 1e-8  # below it a norm is no direction, and a sum of weights divides nothing (mergekit's eps)
_BITS = 8  # models whose agreement a byte tells
_PARALLEL = 0.9995  # above this cosine two vectors are taken as parallel (mergekit's DOT_THRESHOLD)


# ------------------------------------------------------------------------------------------------- of the models


@method()
def linear(tensors: Sequence[Array], *, weights: Sequence[float], normalize: float = 1.0) -> Array:
    """Weighted mean of the tensors; weights are divided by their sum unless normalize=0.

    Wortsman et al., Model soups, ICML 2022 (arXiv:2203.05482).

    Example:
        >>> linear([np.array([1.0, 2.0]), np.array([3.0, 6.0])], weights=[1, 3]).tolist()
        [2.5, 5.0]
    """
    return _mixed(tensors, weights, normalize)


@method()
def ema(tensors: Sequence[Array], *, decay: float = 0.999) -> Array:
    """Exponential moving average over the models in their order: the first, then each next with weight 1 - decay.

    Polyak and Juditsky, Acceleration of stochastic approximation by averaging, 1992.

    Example:
        >>> ema([np.array([1.0]), np.array([2.0])], decay=0.75).tolist()
        [1.25]
    """
    later = range(1, len(tensors))
    shares = [decay ** len(later), *((1 - decay) * decay ** (len(later) - number) for number in later)]
    return _weighted_sum(tensors, shares)


@method(models=2)
def slerp(tensors: Sequence[Array], *, products: Array, t: float = 0.5) -> Array:
    """Along the great circle from the first tensor (t=0) to the second (t=1).

    Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985. Nearly parallel tensors are mixed linearly; the
    angle to a tensor of zeros counts as 90 degrees. mergekit's first model is its `base_model`; its nuslerp with the
    weights 1 - t and t is the same.

    Example:
        >>> first, second = np.array([1.0, 0.0]), np.array([0.0, 1.0])
        >>> np.round(slerp([first, second], products=np.eye(2)), 3).tolist()
        [0.707, 0.707]
    """
    cosine = _cosines(products)[0, 1]
    if abs(cosine) > _PARALLEL:
        return _weighted_sum(tensors, [1 - t, t])
    angle = np.arccos(cosine)
    return _weighted_sum(tensors, [np.sin((1 - t) * angle), np.sin(t * angle)], np.sin(angle))


@method()
def karcher(tensors: Sequence[Array], *, products: Array, weights: Sequence[float]) -> Array:
    """The mean direction on the sphere (slerp for any number of models), as long as the tensors are on average.

    Karcher, Riemannian center of mass and mollifier smoothing, 1977. The iteration runs on the tensors' inner products
    and stops at 1e-12; mergekit's has no weights and stops at 1e-5 or after 10 rounds.

    Example:
        >>> first, second = np.array([2.0, 0.0]), np.array([0.0, 2.0])
        >>> np.round(karcher([first, second], products=4 * np.eye(2), weights=[1, 1]), 3).tolist()
        [1.414, 1.414]
    """
    norms = np.sqrt(np.diag(products))
    shares = np.asarray(weights) / _total(weights)
    directed = norms > _TINY
    mean = _mean_direction(_cosines(products), np.where(directed, shares, 0.0))
    length = float(shares @ norms)
    return _weighted_sum(tensors, np.where(directed, length * mean / np.where(directed, norms, 1.0), 0.0))


# ---------------------------------------------------------------------------------------- of what models changed


@method()
def task_arithmetic(
    tensors: Sequence[Array], *, base: Array, weights: Sequence[float], scale: float = 1.0, normalize: float = 0.0
) -> Array:
    """The base plus the weighted sum of what each model changed.

    Ilharco et al., Editing models with task arithmetic, ICLR 2023 (arXiv:2212.04089). mergekit's lambda is `scale`.

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
    kept: Sequence[tuple[float, float]],
    weights: Sequence[float],
    density: float = 0.5,
    scale: float = 1.0,
    normalize: float = 1.0,
) -> Array:
    """Keep the largest changes of each model, elect a sign for each element, mix the changes that agree with it.

    Yadav et al., TIES-merging, NeurIPS 2023 (arXiv:2306.01708). The sign is that of the weighted sum. Changes of equal
    magnitude are kept or dropped together, as in the authors' code; mergekit cuts among them by position.
    """
    return base + scale * _agreeing(_trimmed(tensors, base, kept), weights, normalize)


@method()
def dare_linear(
    tensors: Sequence[Array],
    *,
    base: Array,
    draw: Sequence[np.random.Generator],
    weights: Sequence[float],
    density: float = 0.5,
    scale: float = 1.0,
    normalize: float = 0.0,
    seed: float = 0.0,
) -> Array:
    """Drop changes at random, enlarge the others to make up for it, add the weighted sum to the base.

    Yu et al., Language models are super Mario, ICML 2024 (arXiv:2311.03099). Each change stays with probability
    `density` and is divided by it, as in the paper; mergekit draws other elements, and enlarges by the share of the sum
    of magnitudes that was lost.
    """
    return base + scale * _mixed(_drawn(tensors, base, draw, density), weights, normalize)


@method()
def dare_ties(
    tensors: Sequence[Array],
    *,
    base: Array,
    draw: Sequence[np.random.Generator],
    weights: Sequence[float],
    density: float = 0.5,
    scale: float = 1.0,
    normalize: float = 0.0,
    seed: float = 0.0,
) -> Array:
    """As dare-linear, then mix only changes that agree with the elected sign, as ties does.

    Yu et al., Language models are super Mario, ICML 2024 (arXiv:2311.03099).
    """
    return base + scale * _agreeing(_drawn(tensors, base, draw, density), weights, normalize)


@method()
def breadcrumbs(
    tensors: Sequence[Array],
    *,
    base: Array,
    kept: Sequence[tuple[float, float]],
    weights: Sequence[float],
    density: float = 0.9,
    gamma: float = 0.01,
    scale: float = 1.0,
    normalize: float = 0.0,
) -> Array:
    """Leave out the largest share `gamma` of the changes and the smallest, keep the share `density` between.

    Davari and Belilovsky, Model breadcrumbs, ECCV 2024 (arXiv:2312.06795). As in mergekit, fewer of the largest are
    left out where density and gamma exceed 1; otherwise than there, equal magnitudes are kept or dropped together.
    """
    return base + scale * _mixed(_trimmed(tensors, base, kept), weights, normalize)


@method()
def breadcrumbs_ties(
    tensors: Sequence[Array],
    *,
    base: Array,
    kept: Sequence[tuple[float, float]],
    weights: Sequence[float],
    density: float = 0.9,
    gamma: float = 0.01,
    scale: float = 1.0,
    normalize: float = 0.0,
) -> Array:
    """As breadcrumbs, then mix only changes that agree with the elected sign, as ties does.

    Davari and Belilovsky, Model breadcrumbs, ECCV 2024 (arXiv:2312.06795).
    """
    return base + scale * _agreeing(_trimmed(tensors, base, kept), weights, normalize)


@method()
def model_stock(tensors: Sequence[Array], *, base: Array, products: Array) -> Array:
    """Between the base and the models' mean, nearer to the mean the smaller the angles between the models' changes.

    Jang et al., Model Stock, ECCV 2024 (arXiv:2403.19522), with the mean cosine of all pairs, as in mergekit.

    Example:
        >>> models, base = [np.array([1.0, 0.0]), np.array([0.0, 1.0])], np.zeros(2)
        >>> model_stock(models, base=base, products=np.eye(2)).tolist()  # at a right angle nothing is learned
        [0.0, 0.0]
    """
    count = len(tensors)
    cosine = float(np.mean(_cosines(products)[np.triu_indices(count, 1)])) if count > 1 else 1.0
    below = 1 + (count - 1) * cosine
    share = count * cosine / below if abs(below) > _TINY else 0.0
    return base + _weighted_sum([tensor - base for tensor in tensors], [share / count] * count)


@method(models=1)
def nearswap(tensors: Sequence[Array], *, base: Array, t: float = 0.0001) -> Array:
    """The base, moved to the model wherever they are nearer than `t`, and by at most `t` elsewhere.

    By alchemonaut (QuartetAnemoi-70B-t0.0001, 2024).

    Example:
        >>> nearswap([np.array([1.25, 3.0])], base=np.array([1.0, 1.0]), t=0.5).tolist()
        [1.25, 1.5]
    """
    change = tensors[0] - base
    return base + np.clip(change, -t, t)


# -------------------------------------------------------------------------------------------------------- pieces


def _weighted_sum(tensors: Sequence[Array], weights: Sequence[float] | Array, divisor: float = 1.0) -> Array:
    """The sum, in the first tensor; the others are overwritten too."""
    for tensor, weight in zip(tensors, weights, strict=True):
        tensor *= weight / divisor
    result = tensors[0]
    for tensor in tensors[1:]:
        result += tensor
    return result


def _total(weights: Sequence[float]) -> float:
    total = sum(weights)
    if abs(total) < _TINY:
        raise UsageError(
            f"the weights {', '.join(f'{weight:g}' for weight in weights)} sum to 0, and are divided by their sum",
            hint="--param normalize=0 takes them as they are, where the method has it",
        )
    return total


def _mixed(changes: Sequence[Array], weights: Sequence[float], normalize: float) -> Array:
    return _weighted_sum(changes, weights, _total(weights) if normalize else 1.0)


def _agreeing(changes: Sequence[Array], weights: Sequence[float], normalize: float) -> Array:
    """The weighted sum of the changes whose sign is that of the weighted sum of all; normalised by their weights.

    The changes are overwritten.
    """
    for change, weight in zip(changes, weights, strict=True):
        if weight != 1:
            change *= weight
    total = changes[0].copy()
    for change in changes[1:]:
        total += change
    if len(changes) > _BITS or not np.isfinite(total.sum()):
        return _agreeing_apart(changes, total, weights, normalize)
    sign = np.copysign(1.0, total, out=total)
    result, code = changes[0], np.zeros(sign.shape, np.uint8)
    for number, change in enumerate(changes):  # turned so that what agrees is positive
        change *= sign
        np.maximum(change, 0.0, out=change)
        if normalize:
            code += (change > 0).view(np.uint8) * np.uint8(1 << number)
        if number:
            result += change
    if normalize:
        result /= _sums_of(weights).take(code)
    result *= sign
    result += 0.0  # no -0.0
    return result


def _sums_of(weights: Sequence[float]) -> Array:
    """The sum of each choice of weights, by the bits that say which; 1 where it divides nothing."""
    sums = np.zeros(1 << len(weights))
    for number, weight in enumerate(weights):
        sums[np.arange(len(sums)) >> number & 1 == 1] += weight
    return np.where(np.abs(sums) < _TINY, 1.0, sums)


def _agreeing_apart(changes: Sequence[Array], total: Array, weights: Sequence[float], normalize: float) -> Array:
    """The same for what is not finite, and for very many models."""
    is_up = total >= 0
    result, used = np.zeros_like(total), np.zeros_like(total)
    for change, weight in zip(changes, weights, strict=True):
        agrees = (is_up & (change > 0)) | (~is_up & (change < 0))
        change *= agrees  # a product, so that what is not finite stays so
        result += change
        if normalize:
            used += weight * agrees
    if normalize:
        np.putmask(used, np.abs(used) < _TINY, 1.0)
        result /= used
    return result


def _trimmed(tensors: Sequence[Array], base: Array, kept: Sequence[tuple[float, float]]) -> list[Array]:
    """The changes, 0 where their magnitude is outside the range that is kept; NaN stays."""
    trimmed = []
    for tensor, (low, high) in zip(tensors, kept, strict=True):
        change = tensor - base
        size = np.abs(change)
        bits = size.view(np.int64)  # in the order of the magnitudes, NaN above all
        if high < np.inf:
            outside = (size < low) | (size > high)
            # all bits of what is outside are cleared, without a branch for each element
            np.subtract(outside, 1, out=bits, dtype=np.int64)
        else:
            np.subtract(np.float64(low).view(np.int64) - 1, bits, out=bits)
            bits >>= 63  # all bits are set where it is no smaller
        np.bitwise_and(change.view(np.int64), bits, out=change.view(np.int64))
        trimmed.append(change)
    return trimmed


def _drawn(tensors: Sequence[Array], base: Array, draw: Sequence[np.random.Generator], density: float) -> list[Array]:
    """The changes, each 0 or divided by the probability to stay; a product, so that what is not finite stays so."""
    return [
        (tensor - base) * ((generator.random(base.shape) < density) / density)
        for tensor, generator in zip(tensors, draw, strict=True)
    ]


def _cosines(products: Array) -> Array:
    """The cosines of the angles between tensors, 0 for a tensor of zeros."""
    norms = np.sqrt(np.diag(products))
    norms = np.where(norms <= _TINY, np.inf, norms)
    cosines: Array = np.clip(products / np.outer(norms, norms), -1, 1)
    return cosines


def _mean_direction(cosines: Array, shares: Array) -> Array:
    """Coefficients of unit vectors in their Karcher mean: the point that is pulled to all sides alike."""

    def normalised(mean: Array) -> Array | None:
        length = sqrt(max(float(mean @ cosines @ mean), 0.0))
        return mean / length if length > _TINY else None

    mean = normalised(shares)
    if mean is None:  # they cancel; as mergekit, start from one of them
        mean = (np.arange(len(shares)) == int(np.argmax(shares))).astype(float)
    for _ in range(100):
        along = np.clip(cosines @ mean, -1, 1)
        angles = np.arccos(along)
        pull = shares * np.where(angles > _TINY, angles / np.maximum(np.sin(angles), _TINY), 1.0)
        tangent = pull - float(pull @ along) * mean
        step = sqrt(max(float(tangent @ cosines @ tangent), 0.0))
        if not step > 1e-12:
            break
        moved = normalised(np.cos(step) * mean + np.sin(step) / step * tangent)
        if moved is None:
            break
        mean = moved
    return mean
