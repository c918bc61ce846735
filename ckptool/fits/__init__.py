"""``fit METHOD(args)``: a tensor of the source made to fit a target of another shape.

| method | what it fits | as |
|---|---|---|
| rows | class heads: rows by number, by a list, by shared labels | timm's label offsets, reid's heads |
| pad | vocabularies that grow | transformers' `resize_token_embeddings` (without its noise) |
| slice | the leading part along every axis | |
| channels | the first convolution | timm `adapt_input_conv` |
| patch | patch embeddings of another patch size | timm `resample_patch_embed` |
| grid | absolute position embeddings | timm `resample_abs_pos_embed` |
| table | relative position biases | timm `resize_rel_pos_bias_table`, `..._simple`, `..._levit` |

Numbers are computed in float32 and rounded once to the source's dtype. ``rows(fill=keep)`` and ``pad(value=keep)``
keep initial values of the target where no row of the source goes: such an op says `needs_initial`, and `compute` wants
the target's own tensor as a second argument.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import isqrt, prod
from typing import TypeAlias

from ckptool.core.errors import CkptError
from ckptool.core.spec import DTYPES, TensorSpec
from ckptool.fits import conv, grid, rows
from ckptool.fits.args import Fit
from ckptool.fits.base import Fitting, Request
from ckptool.fits.lists import Lookup, beside

__all__ = ["Fitting", "Lookup", "beside", "default_fit", "fit_op", "is_head"]

_Maker: TypeAlias = Callable[..., Fitting]

_MAKERS: Mapping[str, _Maker] = {
    "rows": rows.rows,
    "pad": rows.pad,
    "slice": rows.leading,
    "channels": conv.channels,
    "patch": conv.patch,
    "grid": grid.grid,
    "table": grid.table,
}


def fit_op(fit: Fit, source: TensorSpec, target: TensorSpec, *, lookup: Lookup | None = None, seed: int = 0) -> Fitting:
    """The op that fits a tensor to a target.

    Args:
        fit: the method and its arguments.
        source: what is there.
        target: what is wanted; the result has its shape, and the source's dtype.
        lookup: gives the text of files that the fit names; by default they lie in the working directory.
        seed: of ``fill=normal(...)``; the same seed and key give the same numbers.

    Raises:
        UsageError: there is no such method or argument, or a file that it names is not a list.
        PlanError: the method does not fit the two shapes.

    Example:
        >>> spec, target = (TensorSpec("pos_embed", "float32", (1, length, 8)) for length in (197, 577))
        >>> op = fit_op(Fit("grid"), spec, target)
        >>> op.result([spec]).short, op.prefix, op.grid, op.new_grid
        ('f32[1,577,8]', 1, (14, 14), (24, 24))
    """
    options = fit.options
    return _MAKERS[fit.method](Request(fit, source, target, lookup or beside(), seed), **options)


# ---------------------------------------------------------------------------------------------- --mismatch fit

_POSITIONS = re.compile(r"(?:.*_)?(?:pos_embed|pos_embedding|position_embeddings?|positional_embedding)")
_SEEING = re.compile(r"(?:^|[._])(?:vision|visual|image|img|patch|vit)")
_STEM = re.compile(
    r"(?:^|\.)(?:conv1|conv_?stem|stem|conv_proj|patch_?embed\w*|conv_in|first_conv|features\.0)(?:\.|$)"
)
_HEADS = {
    "fc", "head", "heads", "head_dist", "classifier", "aux_classifier", "linear", "last_linear", "logits", "score",
    "cls_score", "cls_head", "fc_cls", "bbox_pred", "class_embed", "AuxLogits", "qa_outputs", "output_layer",
}  # fmt: skip
_HEAD_PARTS = _HEADS | {"out_proj", "l", "proj", "module", "linear", "predictor", "output", "conv_seg"}
_VOCABULARY = re.compile(
    r"(?:.*[._])?(?:embed_tokens|tok_embeddings|token_embeddings?|word_embeddings|wte|lm_head|embed_out|shared|predictions|predictions\.decoder)"
)


def default_fit(key: str, source: TensorSpec, target: TensorSpec, grids: Sequence[tuple[int, int]] = ()) -> Fit | None:
    """How ``--mismatch fit`` fits a tensor whose shape is not the target's: by its name and both shapes, or not at all.

    Args:
        key: the target's key.
        source: what is there.
        target: what is wanted.
        grids: (rows, columns) of patches that layers of the target's model state.

    Returns:
        A fit that `fit_op` accepts for these two; None where no method is meant for such a tensor.

    Example:
        >>> def fit(key, *shapes):
        ...     return str(default_fit(key, *(TensorSpec(key, "float32", shape) for shape in shapes)))
        >>> fit("pos_embed", (1, 197, 8), (1, 577, 8))
        "fit grid(prefix=1, mode='bicubic', antialias=True)"
        >>> fit("layer1.0.conv1.weight", (64, 64, 3, 3), (64, 32, 3, 3))
        'None'
    """
    if DTYPES[source.dtype].kind != "float" or len(source.shape) != len(target.shape) or source.shape == target.shape:
        return None
    for guess in (partial(_position_fit, grids=grids), _stem_fit, _row_fit):
        fit = guess(key, source, target)
        if fit is None:
            continue
        try:
            fit_op(fit, source, target)
        except CkptError:
            return None  # named like such a tensor, and shaped otherwise
        return fit
    return None


def _position_fit(key: str, source: TensorSpec, target: TensorSpec, grids: Sequence[tuple[int, int]]) -> Fit | None:
    name = key.removesuffix(".weight").rpartition(".")[2]
    if name == "relative_position_bias_table":
        return Fit("table", "mode='bicubic'")
    is_image = len(source.shape) > 2 or _SEEING.search(key)  # [n, d] may as well be positions in a text
    if not is_image or not _POSITIONS.fullmatch(name):
        return None
    how = "mode='bicubic', antialias=True"
    if is_on_odd_grid(key, source, target):
        positions = range(max(1, target.shape[-2] - 2), target.shape[-2] + 1)  # up to two tokens before them
        stated = [grid for grid in grids if prod(grid) in positions]
        how = f"target_grid={stated[0]}, {how}" if len(stated) == 1 else how
    try:
        op = fit_op(Fit("grid", how), source, target)
    except CkptError:
        return None
    assert isinstance(op, grid.Grid)
    same = op.prefix == op.new_prefix and op.layout == "nlc"
    return Fit("grid", f"prefix={op.prefix}, {how}" if same else how)


def named_grid(key: str, source: TensorSpec, target: TensorSpec) -> str:
    """What to type where no fit is usual: the option with the grids that are not square, or with any method.

    Example:
        >>> source, target = (TensorSpec("pos_embed", "float32", (1, length, 8)) for length in (197, 129))
        >>> named_grid("pos_embed", source, target)
        '--fit "pos_embed=grid(target_grid=(HEIGHT, WIDTH))" names the grid, which is not square'
    """
    name = key.removesuffix(".weight").rpartition(".")[2]
    same = len(source.shape) == len(target.shape) in (2, 3) and source.shape[-1] == target.shape[-1]
    odd = [side for side, spec in (("source", source), ("target", target)) if same and not _has_square(spec.shape[-2])]
    if not odd or not _POSITIONS.fullmatch(name):
        return '--fit "PATTERN=METHOD(...)" says how to fit it'
    grids = ", ".join(f"{side}_grid=(HEIGHT, WIDTH)" for side in odd)
    return f'--fit "{key}=grid({grids})" names the grid, which is not square'


def is_on_odd_grid(key: str, source: TensorSpec, target: TensorSpec) -> bool:
    """True for positions of which the target's, and only these, stand on a grid that is not square.

    Example:
        >>> square, odd = (TensorSpec("pos_embed", "float32", (1, length, 8)) for length in (197, 129))
        >>> is_on_odd_grid("pos_embed", square, odd), is_on_odd_grid("pos_embed", odd, square)
        (True, False)
    """
    name = key.removesuffix(".weight").rpartition(".")[2]
    same = len(source.shape) == len(target.shape) in (2, 3) and source.shape[-1] == target.shape[-1]
    is_odd = same and _has_square(source.shape[-2]) and not _has_square(target.shape[-2])
    return is_odd and _POSITIONS.fullmatch(name) is not None


def _has_square(positions: int) -> bool:
    """True if so many positions are a square, behind 0 to 2 tokens."""
    return any(isqrt(rest) ** 2 == rest for rest in range(max(0, positions - 2), positions + 1))


def _stem_fit(key: str, source: TensorSpec, target: TensorSpec) -> Fit | None:
    have, want = source.shape, target.shape
    if len(have) != 4 or not key.endswith("weight"):
        return None
    if have[:2] == want[:2] and re.search(r"patch_?embed", key):
        return Fit("patch", "mode='bicubic', antialias=True")
    # one input channel is also what every depthwise convolution has
    colours = have[1] == 3 or (have[1] == 1 and have[0] > 1 and _STEM.search(key))
    return Fit("channels") if colours and have[:1] + have[2:] == want[:1] + want[2:] else None


def _row_fit(key: str, source: TensorSpec, target: TensorSpec) -> Fit | None:
    have, want = source.shape, target.shape
    *module, name = key.split(".")
    if len(have) not in (1, 2) or have[1:] != want[1:] or name not in ("weight", "bias"):
        return None
    is_vocabulary = _VOCABULARY.fullmatch(".".join(module)) is not None
    return Fit("pad", "value='mean'") if is_vocabulary and want[0] > have[0] else None


def is_head(key: str, source: TensorSpec, target: TensorSpec, *, is_last: bool = False) -> bool:
    """True for a classifier of another number of classes: its rows mean other classes, so none of them is taken.

    Args:
        key: the target's key.
        source: what is there.
        target: what is wanted.
        is_last: it belongs to the last layer of the target.

    Example:
        >>> def head(key, *shapes, **more):
        ...     return is_head(key, *(TensorSpec(key, "float32", shape) for shape in shapes), **more)
        >>> head("head.fc.weight", (21843, 8), (10, 8)), head("layer1.0.se.fc.weight", (4, 8), (2, 8))
        (True, False)
        >>> head("segment.weight", (21, 8, 1, 1), (2, 8, 1, 1), is_last=True), head("lm_head.weight", (9, 8), (7, 8))
        (True, False)
    """
    have, want = source.shape, target.shape
    *module, name = key.split(".")
    if not have or len(have) != len(want) or have[1:] != want[1:] or have == want or name not in ("weight", "bias"):
        return False
    if _VOCABULARY.fullmatch(".".join(module)):
        return False
    first = next((at for at, part in enumerate(module) if part in _HEADS), None)
    if first is None or any(part.isdecimal() for part in module[:first]):
        return is_last  # layer1.0.se.fc is not a head
    return is_last or all(part in _HEAD_PARTS or part.isdecimal() for part in module[first + 1 :])
