from __future__ import annotations

from collections.abc import Iterator

from ckptool.commands.checks import Rule
from ckptool.commands.checks.case import Case, Found
from ckptool.core.arrays import numpy_dtype
from ckptool.core.casting import cast
from ckptool.core.counts import many
from ckptool.core.dtypes import DTYPES
from ckptool.core.tensor import Tensor
from ckptool.engine.reading import Reader
from ckptool.formats.opening import open_checkpoint
from ckptool.formats.ranks.deepspeed_builder import FLOAT32
from ckptool.formats.ranks.deepspeed_states import MODULE
from ckptool.values.shared import divide, label

_BLOCK = 1 << 20  # bytes of float32
_DETAILS = 5


RULE = Rule("ranks", allows=("ranks",), reads=True, shares=True, order=40)


def ranks(case: Case) -> Iterator[Found]:
    """The files that the ranks of a training run wrote are not of one moment.

    Found: 16-bit weights of DeepSpeed ZeRO-1 and -2 that are not the float32 ones of the optimizer, rounded.

    Why: the float32 weights lie in the files of all ranks, the 16-bit ones in one file. Where they disagree, one of the
    files is of another step, and the weights that are joined from them were never those of the model.

    What to do: copy the folder again from where it was saved, all files of it.

    Policy: it always runs on folders of ranks. Keys are excused with

        allow.ranks = ["*.bias"]
    """
    selection = case.checkpoint.selection
    if selection.path != (FLOAT32,) or MODULE not in selection.others:
        return
    rounded = open_checkpoint(case.target.path, MODULE)
    both = [(case.checkpoint[key], rounded[key]) for key in case.checkpoint if key in rounded]
    pairs = [(wide, narrow) for wide, narrow in both if _is_float(wide, narrow)]
    part = divide("ranks", (label(wide) for wide, _ in pairs), (wide.nbytes for wide, _ in pairs))
    agrees = dict(part.known)
    with Reader() as reader:
        for place in part.todo:
            agrees[place] = _agree(reader, *pairs[place])
            part.leave(place, agrees[place])
    wrong = [pairs[place][0].key for place in sorted(agrees) if not agrees[place]]
    wrong = list(case.refused("ranks", wrong))
    if wrong:
        yield Found(
            f"{many(len(wrong), 'tensor')} of the 16-bit weights are not the float32 ones rounded: files of two steps",
            tuple(wrong),
            tuple(wrong[:_DETAILS]),
            "copy the folder again from where it was saved",
            short=f"{len(wrong):,} differ",
        )


def _is_float(wide: Tensor, narrow: Tensor) -> bool:
    kinds = DTYPES[wide.dtype].kind, DTYPES[narrow.dtype].kind
    return kinds == ("float", "float") and wide.shape == narrow.shape and wide.dtype != narrow.dtype


def _agree(reader: Reader, wide: Tensor, narrow: Tensor) -> bool:
    """True if the narrow tensor is the wide one, rounded; NaN is NaN."""
    import numpy as np

    sizes = DTYPES[wide.dtype].block_nbytes, DTYPES[narrow.dtype].block_nbytes
    wide_blocks = reader.blocks(wide, _BLOCK)
    narrow_blocks = reader.blocks(narrow, _BLOCK // sizes[0] * sizes[1])
    for wide_block, narrow_block in zip(wide_blocks, narrow_blocks, strict=True):
        expected = cast(np.frombuffer(wide_block, numpy_dtype(wide.dtype)), narrow.dtype)
        found = np.frombuffer(narrow_block, numpy_dtype(narrow.dtype))
        if not np.array_equal(expected.astype(np.float32), found.astype(np.float32), equal_nan=True):
            return False
    return True
