"""The closest matrix of a given rank.

Source: N. Halko, P. G. Martinsson, J. A. Tropp, "Finding structure with randomness", SIAM Review 53 (2011): algorithm
4.4 (subspace iteration with orthonormal bases) and 5.1. The seed is fixed, so equal inputs give equal factors.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

_EXACT = 256  # the shorter side of a matrix whose full decomposition costs little
_EXTRA = 16  # columns of the basis beyond the rank
_ITERATIONS = 4
_BLOCK = 1 << 20  # numbers that are compared at once


def low_rank(matrix: Array, rank: int) -> tuple[Array, Array, Array]:
    """(U [m, k], singular values [k], V [k, n]) of a float matrix [m, n], the largest first; k is at most `rank`.

    Small matrices are decomposed in full, in float64. Of a larger one the range of the k largest is found with random
    vectors, five times refined: memory for it is m + n times `rank` + 16 numbers.

    Example:
        >>> import numpy as np
        >>> column = np.arange(4.0)[:, None]
        >>> u, values, v = low_rank(column @ column.T, 2)
        >>> values.round(6).tolist(), bool(np.allclose(u * values @ v, column @ column.T))
        ([14.0, 0.0], True)
    """
    import numpy as np

    shorter = min(matrix.shape)
    rank = min(rank, shorter)
    if shorter <= _EXACT or 2 * (rank + _EXTRA) >= shorter:
        u, values, v = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
        return u[:, :rank], values[:rank], v[:rank]
    if matrix.shape[0] < matrix.shape[1]:
        u, values, v = low_rank(matrix.T, rank)
        return v.T, values, u.T
    basis = _range(matrix, rank + _EXTRA)
    inner, values, v = np.linalg.svd((basis.T @ matrix).astype(np.float64), full_matrices=False)
    return basis @ inner[:, :rank], values[:rank], v[:rank]


def _range(matrix: Array, count: int) -> Array:
    """An orthonormal basis [m, count] of nearly what `matrix` does most."""
    import numpy as np

    kind = matrix.dtype
    start = np.random.default_rng(0).standard_normal((matrix.shape[1], count)).astype(kind)
    basis = _orthonormal(matrix @ start, kind)
    for _ in range(_ITERATIONS):
        basis = _orthonormal(matrix @ _orthonormal(matrix.T @ basis, kind), kind)
    return basis


def _orthonormal(columns: Array, kind: np.dtype[Any]) -> Array:
    import numpy as np

    basis, _ = np.linalg.qr(columns.astype(np.float64))
    return basis.astype(kind)


def distance(matrix: Array, left: Array, right: Array) -> float:
    """The Frobenius norm of matrix - left @ right, in float64.

    Example:
        >>> import numpy as np
        >>> distance(np.eye(2), np.array([[1.0], [0.0]]), np.array([[1.0, 0.0]]))
        1.0
    """
    import numpy as np

    rows, total = max(1, _BLOCK // max(1, matrix.shape[1])), 0.0
    left, right = left.astype(np.float64), right.astype(np.float64)
    for start in range(0, len(matrix), rows):
        block = matrix[start : start + rows].astype(np.float64)
        block -= left[start : start + rows] @ right
        total += float(np.vdot(block, block))
    return sqrt(total)
