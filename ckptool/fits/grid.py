"""``fit grid`` and ``fit table``: position embeddings and relative position biases of another resolution.

Each does what its reference does, to the last bit: timm's `resample_abs_pos_embed` and `resample_abs_pos_embed_nhwc`
(layers/pos_embed.py), `resize_rel_pos_bias_table_simple`, `..._levit` and `resize_rel_pos_bias_table`
(layers/pos_embed_rel.py), as of timm 1.0.31. `antialias=False` is what DeiT and Swin do in their own code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING, Any, TypeAlias

from ckptool.fits.base import Fitting, Request, float32, resized, rounded

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

Size: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Grid(Fitting):
    """Position embeddings on another grid.

    Attributes:
        grid, new_grid: rows and columns of the source's and the target's positions.
        prefix, new_prefix: how many tokens (class, distillation) stand before the positions. They are copied.
        layout: where the channels are: ``nlc`` ([1, n, channels] and [n, channels] too), ``nchw`` or ``nhwc``.
        mode: ``bicubic`` or ``bilinear``.
        antialias: filter before shrinking; with bicubic it also changes the kernel, so it matters when growing too.
    """

    grid: Size
    new_grid: Size
    prefix: int = 0
    new_prefix: int = 0
    layout: str = "nlc"
    mode: str = "bicubic"
    antialias: bool = True

    def compute(self, args: Sequence[Array]) -> Array:
        import numpy as np

        array = args[0]
        if self.layout == "nchw":
            return rounded(self._resized(float32(array)), array)
        if self.layout == "nhwc":
            return rounded(self._resized(float32(array).transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1), array)
        tokens = array.reshape(-1, array.shape[-1])
        # the strides are the reference's (channels last), because the kernel chosen by them decides the last bit
        planes = float32(tokens[self.prefix :]).reshape(1, *self.grid, -1).transpose(0, 3, 1, 2)
        made = self._resized(planes).transpose(0, 2, 3, 1).reshape(-1, tokens.shape[-1])
        return np.concatenate([tokens[: self.new_prefix], rounded(made, array)]).reshape(self.target.shape)

    def _resized(self, planes: Array) -> Array:
        if self.grid == self.new_grid:
            return planes
        return resized(planes, self.new_grid, self.mode, antialias=self.antialias, align_corners=None)


def grid(
    request: Request,
    *,
    prefix: int | None = None,
    mode: str = "bicubic",
    antialias: bool = True,
    source_grid: Size | None = None,
    target_grid: Size | None = None,
    layout: str | None = None,
) -> Grid:
    """``fit grid``: position embeddings [1, n, d], [n, d], [1, d, h, w] or [1, h, w, d].

    Grids are square unless they are named. The number of prefix tokens is 0, 1 or 2, whichever leaves a grid; of a
    class and a distillation token the target may have the first only (a distilled DeiT into a plain one).
    """
    request.require_numbers()
    request.require_torch()
    have, want = request.source.shape, request.target.shape
    if len(have) == len(want) == 4:
        layout = layout or _layout(request)
        channels, height = (1, 2) if layout == "nchw" else (3, 1)
        if have[0] != want[0] or have[channels] != want[channels] or 0 in want or 0 in have:
            raise request.misfit(f"equal channels along axis {channels}")
        grids = (have[height], have[height + 1]), (want[height], want[height + 1])
        return Grid(request.text, have, request.target, *grids, 0, 0, layout, mode, antialias)
    if len(have) != len(want) or len(have) not in (2, 3) or have[-1] != want[-1] or have[:-2] not in ((), (1,)):
        raise request.misfit("position embeddings [1, n, d], [n, d] or [1, d, h, w] of equal width")
    if have[:-2] != want[:-2] or not have[-1]:
        raise request.misfit("position embeddings of equal width")
    before, old = _grid_of(request, have[-2], prefix, source_grid, "source")
    new_before, new = _grid_of(request, want[-2], prefix, target_grid, "target")
    if before != new_before and (before, new_before) != (2, 1):
        raise request.misfit(
            f"as many prefix tokens on both sides, not {before} and {new_before}",
            "cut them off first: | b (1 + n) d -> b n d | fit grid(prefix=0)" if before > new_before else None,
        )
    return Grid(request.text, have, request.target, old, new, before, new_before, "nlc", mode, antialias)


def _layout(request: Request) -> str:
    """Where the channels of four axes are: on the axis that stays, if only one can be it."""
    have, want = request.source.shape, request.target.shape
    first, last = have[:2] == want[:2], have[3] == want[3] and have[0] == want[0]
    if first == last:
        raise request.misfit("equal channels along axis 1 or axis 3", "say which: layout='nchw' or layout='nhwc'")
    return "nchw" if first else "nhwc"


def _grid_of(request: Request, positions: int, prefix: int | None, size: Size | None, side: str) -> tuple[int, Size]:
    """Prefix tokens and grid of so many positions. No two squares are 1 or 2 apart: there is one answer at most."""
    rows, columns = size or (0, 0)
    candidates = range(3) if prefix is None else [prefix]
    if size:
        candidates = [positions - rows * columns] if prefix is None else candidates
        if positions - rows * columns in candidates and positions >= rows * columns:
            return positions - rows * columns, (rows, columns)
        after = "" if prefix is None else f" after {prefix} prefix tokens"
        raise request.misfit(f"a {side}_grid of {rows} x {columns} positions{after}, and the {side} has {positions:,}")
    for before in candidates:
        length = isqrt(max(0, positions - before))
        if length and length * length == positions - before:
            return before, (length, length)
    after = "0 to 2 prefix tokens" if prefix is None else f"{prefix} prefix tokens"
    raise request.misfit(
        f"a square grid, and the {side}'s {positions:,} positions after {after} do not make one",
        f"name the grid: {side}_grid=(height, width)",
    )


# ---------------------------------------------------------------------------------------------- relative positions


@dataclass(frozen=True, slots=True)
class Table(Fitting):
    """Biases by relative position, for windows of another size.

    Attributes:
        size, new_size: of the table as an image, 2 * window - 1 along each axis.
        extra: rows after the image, for the class token (BEiT has 3). They are copied.
        mode: ``bicubic`` or ``bilinear`` over the image; ``geometric`` keeps near positions near, as BEiT does: linear
            between places whose distances grow as a geometric progression.
        antialias: filter before shrinking, as LeViT and TinyViT do.
    """

    size: Size
    new_size: Size
    extra: int = 0
    mode: str = "bicubic"
    antialias: bool = False

    def compute(self, args: Sequence[Array]) -> Array:
        import numpy as np

        array = args[0]
        numbers = array.astype(np.float64) if array.dtype.name == "float64" else float32(array)
        if self.mode == "geometric":
            numbers = float32(numbers)
        if len(self.source) == 3:
            return rounded(self._resized(numbers), array)
        end = self.source[0] - self.extra
        heads = self.source[1]
        planes = np.ascontiguousarray(numbers[:end].T).reshape(heads, *self.size)
        flat = rounded(self._resized(planes).reshape(heads, -1).T, array)
        return np.concatenate([flat, array[end:]])

    def _resized(self, planes: Array) -> Array:
        """Images [heads, h, w]."""
        if self.size == self.new_size:
            return planes
        if self.mode == "geometric":
            return _geometric(planes, self.new_size)
        images = resized(planes[None], self.new_size, self.mode, antialias=self.antialias, align_corners=False)
        return images.reshape(-1, *self.new_size)


def table(
    request: Request,
    *,
    mode: str = "bicubic",
    antialias: bool = False,
    source_window: Size | None = None,
    target_window: Size | None = None,
) -> Table:
    """``fit table``: relative position biases [(2h-1)*(2w-1) + extra, heads], or [heads, 2h-1, 2w-1].

    Windows are square unless they are named; then extra rows are none, or 3 as in BEiT.
    """
    request.require_numbers()
    if mode != "geometric":
        request.require_torch()
    have, want = request.source.shape, request.target.shape
    if len(have) == len(want) == 3 and have[0] == want[0] and 0 not in have + want:
        return Table(request.text, have, request.target, (have[1], have[2]), (want[1], want[2]), 0, mode, antialias)
    if len(have) != 2 or len(want) != 2 or have[1] != want[1] or not have[1]:
        raise request.misfit("tables [(2h-1)*(2w-1), heads] of equal heads")
    extra, old = _window_of(request, have[0], source_window, "source")
    new_extra, new = _window_of(request, want[0], target_window, "target")
    if extra != new_extra:
        raise request.misfit(f"as many extra rows on both sides, not {extra} and {new_extra}")
    return Table(request.text, have, request.target, old, new, extra, mode, antialias)


def _window_of(request: Request, rows: int, window: Size | None, side: str) -> tuple[int, Size]:
    """Extra rows and image of a table. Two odd squares are never 3 apart, so there is one answer at most."""
    if window:
        size = (2 * window[0] - 1, 2 * window[1] - 1)
        if rows >= size[0] * size[1]:
            return rows - size[0] * size[1], size
        raise request.misfit(f"a {side}_window for which {rows:,} rows are enough, not {window[0]} x {window[1]}")
    for extra in (0, 3):
        length = isqrt(max(0, rows - extra))
        if length % 2 and length * length == rows - extra:
            return extra, (length, length)
    raise request.misfit(
        f"a square window, and the {side}'s {rows:,} rows do not make one", f"name it: {side}_window=(height, width)"
    )


def _geometric(planes: Array, size: Size) -> Array:
    """Images [n, h, w] between places that grow as a geometric progression: timm's, after BEiT's.

    Source: resize_rel_pos_bias_table in timm/layers/pos_embed_rel.py, with the linear interpolator of
    timm/layers/interpolate.py (github.com/sbarratt/torch_interpolations), all Apache-2.0. In float32, in its order.
    """
    import numpy as np

    axes = [_neighbours(old, new) for old, new in zip(planes.shape[1:], size, strict=True)]
    (rows, to_row), (columns, to_column) = axes
    total = np.zeros((len(planes), *size), np.float32)
    for row in (0, 1):
        for column in (0, 1):
            values = planes[:, rows[row][:, None], columns[column][None, :]]
            total += values * (to_row[1 - row][:, None] * to_column[1 - column][None, :])
    spread = (to_row[0] + to_row[1])[:, None] * (to_column[0] + to_column[1])[None, :]
    found: Array = total / spread
    return found


def _neighbours(old: int, new: int) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """For each new place the old ones left and right of it, and its distances from them."""
    import numpy as np

    places = np.array(_places(old, new), np.float32)
    wanted = np.arange(-(new // 2), new // 2 + 1, dtype=np.float32)
    right = np.minimum(np.searchsorted(places, wanted, side="left"), old - 1)
    left = np.maximum(right - 1, 0)
    from_left = np.maximum(wanted - places[left], np.float32(0))
    from_right = np.maximum(places[right] - wanted, np.float32(0))
    both = (from_left == 0) & (from_right == 0)
    from_left[both] = from_right[both] = 1
    return (left, right), (from_left, from_right)


def _places(old: int, new: int) -> list[float]:
    """Where the old positions lie among the new ones: 0, ±1, and then ever further apart, so that the last one fits."""
    low, high = 1.01, 1.5
    ratio = high
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (1 - ratio ** (old // 2)) / (1 - ratio) > new // 2:
            high = ratio
        else:
            low = ratio
    distances: list[float] = []
    reached: float = 1
    for step in range(old // 2):
        distances.append(reached)
        reached += ratio ** (step + 1)
    return [-distance for distance in reversed(distances)] + [0] + distances
