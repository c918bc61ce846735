"""Rows of an embedding by their tokens, in bounded memory: kept rows are read where they lie, others are the mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

from ckptool.core.ops import Cast
from ckptool.core.plan import Apply, Value
from ckptool.fits.base import Fitting, rounded

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

_ELEMENTS = 1 << 20  # of one block of rows


@dataclass(frozen=True, slots=True)
class TokenRows(Fitting):
    """Rows of a table in the order of another vocabulary.

    Attributes:
        taken: for each row of the result the source's row; -1 for one that is the mean of all rows of the source.
    """

    taken: tuple[int, ...] = ()

    @property
    def new(self) -> int:
        """How many rows are the mean."""
        return self.taken.count(-1)

    @property
    def covered(self) -> int:
        return self._width * (len(self.taken) - self.new)

    @property
    def _width(self) -> int:
        """Elements of one row."""
        return prod(self.source[1:])

    def compute(self, args: Sequence[Array]) -> Array:
        import numpy as np

        (array,) = args
        flat = array.reshape(-1)
        blocks = list(self.gathered(lambda begin, end: flat[begin:end]))
        made = np.concatenate(blocks) if blocks else np.empty(0, array.dtype)
        return made.reshape(self.target.shape)

    def gathered(self, elements: Callable[[int, int], Array]) -> Iterator[Array]:
        """The result's elements in order, in blocks.

        Args:
            elements: gives the source's elements from one number to another, in a flat array.
        """
        import numpy as np

        many, width = max(1, _ELEMENTS // max(1, self._width)), self._width
        if not width:
            return
        mean = self._mean(elements, many) if self.new else None
        taken = np.asarray(self.taken, np.int64)
        for start in range(0, len(taken), many):
            chosen = taken[start : start + many]
            parts = []
            for begin, end in _runs(chosen):
                if chosen[begin] >= 0:
                    parts.append(elements(int(chosen[begin]) * width, (int(chosen[end - 1]) + 1) * width))
                elif mean is not None:
                    parts.append(np.tile(mean, end - begin))
            yield np.concatenate(parts)

    def _mean(self, elements: Callable[[int, int], Array], many: int) -> Array:
        """The mean of all rows, summed in float64 and rounded once."""
        import numpy as np

        total = np.zeros(self._width, np.float64)
        rows = self.source[0]
        for start in range(0, rows, many):
            block = elements(start * self._width, min(rows, start + many) * self._width)
            total += block.reshape(-1, self._width).sum(axis=0, dtype=np.float64)
        return rounded(total / rows, block)


def _runs(chosen: Array) -> Iterator[tuple[int, int]]:
    """Where rows follow one another, or are all new: (first, one behind the last) of each run."""
    import numpy as np

    before, after = chosen[:-1], chosen[1:]
    goes_on = ((before >= 0) & (after == before + 1)) | ((before < 0) & (after < 0))
    ends = [*(np.flatnonzero(~goes_on) + 1).tolist(), len(chosen)]
    yield from zip([0, *ends[:-1]], ends, strict=True)


def moved_ids(values: Iterable[Value]) -> Mapping[int, int] | None:
    """The new id of each old one that is still there; None where no value moves the rows of tokens.

    Args:
        values: what the tensors of an output are made of.
    """
    for value in values:
        while isinstance(value, Apply) and isinstance(value.op, Cast):
            (value,) = value.args
        if isinstance(value, Apply) and isinstance(value.op, TokenRows):
            return {old: new for new, old in enumerate(value.op.taken) if old >= 0}
    return None
