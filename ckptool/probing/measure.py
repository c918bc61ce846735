"""How far two outputs are apart, whatever the order of their axes."""

from __future__ import annotations

import math
from itertools import permutations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_MOST_AXES = 5


def difference(mine: torch.Tensor | None, other: torch.Tensor | None, enough: float) -> float | None:
    """The root mean square of the difference, in standard deviations of `other`.

    Tensors of other shapes with as many elements are compared after every permutation of axes that gives the shape,
    axes of one aside and joined ones counted as one: (1, C, H, W) with (1, H * W, C), (L, B, C) with (B, L, C).

    Args:
        mine: the target's.
        other: the source's.
        enough: no permutation is tried further once the difference is below.

    Returns:
        None if there are no two tensors to compare; inf if the shapes do not go together, or numbers are not finite
        where the other's are.

    Example:
        >>> import torch
        >>> image = torch.arange(24.0).reshape(1, 2, 3, 4)
        >>> difference(image.flatten(2).transpose(1, 2), image, 1e-4)
        0.0
        >>> round(difference(image + 1, image, 1e-4), 2), difference(image[..., 1:], image, 1e-4)
        (0.14, inf)
    """
    if mine is None or other is None:
        return None
    if mine.numel() != other.numel():
        return math.inf
    if not mine.numel():
        return 0.0
    one, two = _plain(mine).squeeze(), _plain(other).squeeze()
    if one.shape == two.shape:
        return _apart(one, two)
    best = math.inf
    for axes in permutations(range(two.ndim)) if max(one.ndim, two.ndim) <= _MOST_AXES else ():
        moved = two.permute(axes)
        if _joins(tuple(moved.shape), tuple(one.shape)):
            best = min(best, _apart(one, moved.reshape(one.shape)))
            if best <= enough:
                break
    return best


def spread(tensor: torch.Tensor) -> float:
    """Its standard deviation; of a constant, its size."""
    values = _plain(tensor)
    values = values[values.isfinite()]
    if not values.numel():
        return 0.0
    deviation = float(values.std(correction=0))
    return deviation if deviation > 1e-9 * float(values.abs().max()) else float(values.abs().max())


def _apart(one: torch.Tensor, two: torch.Tensor) -> float:
    finite = two.isfinite()
    if not bool(finite.all()):
        if not bool((one[~finite].nan_to_num(nan=0.0) == two[~finite].nan_to_num(nan=0.0)).all()):
            return math.inf
        one, two = one[finite], two[finite]
        if not two.numel():
            return 0.0
    if not bool(one.isfinite().all()):
        return math.inf
    far = math.sqrt(float((one - two).square().mean()))
    unit = spread(two)
    return far / unit if unit else far


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    import torch

    dense = tensor.to_dense() if tensor.layout is not torch.strided else tensor
    return torch.view_as_real(dense).double() if dense.is_complex() else dense.double()


def _joins(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """True if the one becomes the other by joining or parting neighbouring axes, none of which straddle.

    Example:
        >>> _joins((14, 14, 8), (196, 8)), _joins((8, 14, 14), (196, 8))
        (True, False)
    """
    short, long = sorted((shape, wanted), key=len)
    at = 0
    for size in short:
        product = 1
        while product < size and at < len(long):
            product *= long[at]
            at += 1
        if product != size:
            return False
    return at == len(long)
