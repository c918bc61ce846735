"""How far two outputs are apart, whatever the order of their axes."""

from __future__ import annotations

import math
from itertools import permutations
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import torch

    Array: TypeAlias = np.ndarray[Any, Any]

_MOST_AXES = 5


def array_of(tensor: torch.Tensor) -> Array:
    """A tensor's numbers; not to be written to."""
    import torch

    dense = tensor.detach() if tensor.layout is torch.strided else tensor.detach().to_dense()
    plain = dense.float() if dense.is_floating_point() and dense.dtype != torch.float64 else dense.resolve_conj()
    array: Array = plain.numpy(force=True)
    return array


def difference(mine: Array, other: Array, enough: float) -> float:
    """The root mean square of the difference, in standard deviations of `other`.

    Arrays of other shapes with as many elements are compared after every permutation of axes that gives the shape, axes
    of one aside and joined ones counted as one: (1, C, H, W) with (1, H * W, C), (L, B, C) with (B, L, C).

    Args:
        mine: the target's.
        other: the source's.
        enough: no permutation is tried further once the difference is below, or where none can be.

    Returns:
        inf if the shapes do not go together, or numbers are not finite where the other's are.

    Example:
        >>> import numpy as np
        >>> image = np.arange(24.0).reshape(1, 2, 3, 4)
        >>> difference(image.reshape(1, 2, 12).swapaxes(1, 2), image, 1e-4)
        0.0
        >>> round(difference(image + 1, image, 1e-4), 2), difference(image[..., 1:], image, 1e-4)
        (0.14, inf)
    """
    if mine.size != other.size:
        return math.inf
    if not mine.size:
        return 0.0
    one, two = (array.reshape([size for size in array.shape if size > 1] or [1]) for array in (mine, other))
    if one.shape == two.shape:
        return _apart(one, two)
    best = math.inf
    is_hopeless = _other_numbers(one, two, enough)
    for axes in permutations(range(two.ndim)) if max(one.ndim, two.ndim) <= _MOST_AXES else ():
        moved = two.transpose(axes)
        if _joins(moved.shape, one.shape):
            best = min(best, _apart(one, moved.reshape(one.shape)))
            if best <= enough or is_hopeless:
                break
    return best


def _other_numbers(one: Array, two: Array, enough: float) -> bool:
    """True if no order of the one makes it the other: means of two arrays differ less than the arrays themselves do."""
    apart = abs(complex(one.mean(dtype=_wide(one))) - complex(two.mean(dtype=_wide(two))))
    return apart > 2 * max(enough, 1e-9) * spread(two)


def spread(array: Array) -> float:
    """Its standard deviation; of a constant, its size."""
    import numpy as np

    values = array if np.isfinite(array).all() else array[np.isfinite(array)]
    if not values.size:
        return 0.0
    deviation, largest = float(values.std(dtype=_wide(values))), float(np.abs(values).max())
    return deviation if deviation > 1e-9 * largest else largest


def _apart(one: Array, two: Array) -> float:
    import numpy as np

    finite = np.isfinite(two)
    if not finite.all():
        if not np.array_equal(one[~finite], two[~finite], equal_nan=True):
            return math.inf
        one, two = one[finite], two[finite]
        if not two.size:
            return 0.0
    if not np.isfinite(one).all():
        return math.inf
    away = np.abs(np.subtract(one, two, dtype=_wide(one, two)))
    far = math.sqrt(float(np.square(away, out=away).mean()))
    unit = spread(two)
    return far / unit if unit else far


def _wide(*arrays: Array) -> Any:
    """The dtype to add up in."""
    import numpy as np

    return np.complex128 if any(array.dtype.kind == "c" for array in arrays) else np.float64


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
