"""``fit rows``, ``fit pad``, ``fit slice``: which rows of a head or an embedding go where, and what fills the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeAlias

from ckptool.core.errors import PlanError, UsageError
from ckptool.core.ops import Normal
from ckptool.core.plan import Run
from ckptool.core.spec import DTYPES, TensorSpec
from ckptool.fits.args import normal_std
from ckptool.fits.base import Fitting, Request, rounded
from ckptool.fits.lists import labels_for, numbers_in

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Rows(Fitting):
    """Rows of the source in the target's order.

    Attributes:
        taken: for each row of the target the source's row, -1 for one to be filled; None for the leading rows of both.
        fill: what the other rows become: ``keep`` (the target's own initial values, the second argument of `compute`),
            ``mean`` (of all rows of the source), ``normal(0.02)``, or a number.
        seed: of the normal numbers.
    """

    taken: tuple[int, ...] | None = None
    fill: str | float = "keep"
    seed: int = 0

    @property
    def filled(self) -> int:
        """How many rows of the target do not come from the source."""
        if self.taken is None:
            return max(0, self.target.shape[0] - self.source[0])
        return self.taken.count(-1)

    @property
    def needs_initial(self) -> bool:
        return self.fill == "keep" and self.filled > 0

    @property
    def covered(self) -> int:
        rows = self.target.shape[0]
        return 0 if not rows else self.target.elements // rows * (rows - self.filled)

    def runs(self, args: Sequence[TensorSpec]) -> list[Run] | None:
        if self.taken is not None or self.filled or DTYPES[args[0].dtype].is_packed:
            return None
        nbytes = TensorSpec("", args[0].dtype, self.target.shape).nbytes
        return [Run(0, 0, nbytes)] if nbytes else []

    def compute(self, args: Sequence[Array]) -> Array:
        import numpy as np

        array = args[0]
        made = np.empty(self.target.shape, array.dtype)
        if self.taken is None:
            there = slice(0, min(self.source[0], self.target.shape[0]))
            made[there] = array[there]
            rest: Any = slice(self.source[0], None)
        else:
            chosen = np.asarray(self.taken, np.int64)
            made[chosen >= 0] = array[chosen[chosen >= 0]]
            rest = chosen < 0
        if self.filled:
            made[rest] = self._filling(args, rest)
        return made

    def _filling(self, args: Sequence[Array], rest: Any) -> Any:
        """What stands in the rows that do not come from the source."""
        import numpy as np

        array = args[0]
        if self.fill == "keep":
            if len(args) < 2:
                raise PlanError(f'"{self.text}" keeps initial values of {self.target.key}, which has none')
            return rounded(args[1][rest], array)
        if self.fill == "mean":
            return rounded(np.asarray(np.mean(array, axis=0, dtype=np.float64)), array)
        if isinstance(self.fill, str):
            std = normal_std(self.fill)
            assert std is not None
            shape = (self.filled, *self.target.shape[1:])
            drawn = Normal(std, "float32", shape, _seed_of(self.target.key, self.seed)).compute([])
            return rounded(drawn, array)
        return self.fill


def _seed_of(key: str, seed: int) -> int:
    digest = sha256(f"{seed} {key}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")


@dataclass(frozen=True, slots=True)
class Slice(Fitting):
    """The leading part along every axis."""

    def runs(self, args: Sequence[TensorSpec]) -> list[Run] | None:
        if self.source[1:] != self.target.shape[1:] or DTYPES[args[0].dtype].is_packed:
            return None
        nbytes = TensorSpec("", args[0].dtype, self.target.shape).nbytes
        return [Run(0, 0, nbytes)] if nbytes else []

    def compute(self, args: Sequence[Array]) -> Array:
        return args[0][tuple(slice(0, length) for length in self.target.shape)]


# ---------------------------------------------------------------------------------------------- making them


def rows(
    request: Request,
    *,
    rows: tuple[int | None, ...] | str | None = None,
    fill: str = "keep",
    labels_source: str | None = None,
    labels_target: str | None = None,
) -> Rows:
    """``fit rows``: a head for other classes.

    By default row i stays row i, as far as both have it. With `rows` row i of the target is the source's row
    ``rows[i]``; None, and what the list does not reach, is filled. With labels it is the row of the same name.
    """
    _check_rows(request)
    source, target, lookup = request.source, request.target, request.lookup
    if (labels_source is None) != (labels_target is None) or (rows is not None and labels_source is not None):
        raise UsageError(f'"{request.text}" needs both labels_source and labels_target, or rows alone')
    taken: tuple[int, ...] | None = None
    if labels_source is not None and labels_target is not None:
        have = labels_for(labels_source, lookup, source, "source")
        taken = _by_label(request.text, have, labels_for(labels_target, lookup, target, "target"))
    elif rows is not None:
        taken = _by_number(numbers_in(rows, lookup) if isinstance(rows, str) else rows, source, target)
    return _filled(request, taken, fill)


def pad(request: Request, *, value: str | float = 0) -> Rows:
    """``fit pad``: an embedding or its output layer for a larger vocabulary. A vocabulary never gets smaller."""
    _check_rows(request)
    if request.target.shape[0] < request.source.shape[0]:
        raise request.misfit("a target with more rows", 'rows are never cut off unasked: "fit rows" does it')
    return _filled(request, None, value)


def leading(request: Request) -> Slice:
    """``fit slice``: the leading part along every axis."""
    have, want = request.source.shape, request.target.shape
    if len(have) != len(want) or any(more > length for more, length in zip(want, have, strict=True)):
        raise request.misfit("a target that is no longer along any axis")
    return Slice(request.text, have, request.target)


def _check_rows(request: Request) -> None:
    have, want = request.source.shape, request.target.shape
    if not have or not want or have[1:] != want[1:]:
        raise request.misfit("tensors that differ along axis 0 only")


def _filled(request: Request, taken: tuple[int, ...] | None, fill: str | float) -> Rows:
    """The op, if the source's dtype can hold what is to fill the other rows."""
    source = request.source
    op = Rows(request.text, source.shape, request.target, taken, 0.0 if fill == "zeros" else fill, request.seed)
    kind = DTYPES[source.dtype].kind
    if not op.filled or op.fill == "keep" or op.fill == 0:
        return op
    if kind != "float" and (isinstance(op.fill, str) or not _holds(source, op.fill)):
        raise PlanError(f'"{op.text}" cannot fill rows of {source.key}, which is {source.dtype}', key=source.key)
    if op.fill == "mean" and not source.shape[0]:
        raise PlanError(f'"{op.text}": {source.key} has no rows', key=source.key)
    return op


def _holds(spec: TensorSpec, value: float) -> bool:
    """True if an integer dtype has this number."""
    bits, kind = DTYPES[spec.dtype].bits, DTYPES[spec.dtype].kind
    low, high = (-(1 << (bits - 1)), 1 << (bits - 1)) if kind == "int" else (0, 1 << bits)
    return kind in ("int", "uint") and float(value).is_integer() and low <= value < high


def _by_number(numbers: Sequence[int | None], source: TensorSpec, target: TensorSpec) -> tuple[int, ...]:
    if len(numbers) > target.shape[0]:
        raise PlanError(
            f"rows names {len(numbers):,} rows, and the target's {target.key} has {target.shape[0]:,}", key=target.key
        )
    highest = max((at for at in numbers if at is not None), default=-1)
    if highest >= source.shape[0]:
        raise PlanError(
            f"rows names row {highest:,}, and {source.key} has {source.shape[0]:,}",
            hint="rows are counted from 0",
            key=source.key,
        )
    given = tuple(-1 if at is None else at for at in numbers)
    return given + (-1,) * (target.shape[0] - len(given))


def _by_label(text: str, have: Sequence[str], want: Sequence[str]) -> tuple[int, ...]:
    """The source's row of each of the target's labels. Two classes of one name must be two on both sides."""
    counted, wanted = Counter(have), Counter(want)
    for label in counted.keys() & wanted.keys():
        if counted[label] != wanted[label]:
            raise PlanError(
                f'"{text}": the label {label} stands {counted[label]} times in the source '
                f"and {wanted[label]} times in the target",
                hint="give the classes names of their own, or say rows=[...]",
            )
    places: dict[str, list[int]] = {}
    for at in reversed(range(len(have))):
        places.setdefault(have[at], []).append(at)
    found = tuple(places[label].pop() if label in places else -1 for label in want)
    if all(at < 0 for at in found):
        raise PlanError(
            f'"{text}": the two lists have no label in common',
            hint=f"the source's begins with {', '.join(have[:3])}, the target's with {', '.join(want[:3])}",
        )
    return found
