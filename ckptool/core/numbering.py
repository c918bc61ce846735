"""Which parameter has which number in an optimizer: the one way that orders and shapes allow.

torch's optimizers number their parameters group by group, each group in the order of the model's parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ckptool.core.dtypes import DTYPES
from ckptool.core.tensor import Tensor

_MAX_WAYS = 256  # unfinished ways to number the parameters that are followed at once
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
Shape = tuple[int, ...]


def may_be_parameter(tensor: Tensor) -> bool:
    """False for what an optimizer never holds: integers, and BatchNorm's statistics."""
    return DTYPES[tensor.dtype].kind in ("float", "complex") and tensor.key.rpartition(".")[2] not in _STATISTICS


def only_order(shapes: Sequence[Shape], groups: Sequence[Sequence[Shape | None]]) -> list[int] | None:
    """The group of each parameter, if one way alone keeps the order within the groups and agrees in shape.

    Args:
        shapes: of the parameters, in the order of the model.
        groups: the shapes of the parameters of each group, in its order; None for one that is not known.

    Example:
        >>> only_order([(4, 3), (4,), (2, 4)], [[(4, 3), (2, 4)], [(4,)]])
        [0, 1, 0]
        >>> only_order([(4,), (4,)], [[(4,)], [(4,)]]) is None
        True
    """
    start = (0,) * len(groups)
    ways: list[dict[Shape, int]] = [{start: 1}]
    for shape in shapes:
        reached: dict[Shape, int] = {}
        for state, many in ways[-1].items():
            for following in _following(state, shape, groups):
                reached[following] = reached.get(following, 0) + many
        if len(reached) > _MAX_WAYS:
            return None
        ways.append(reached)
    end = tuple(map(len, groups))
    if ways[-1].get(end) != 1:
        return None
    order: list[int] = []
    for shape, states in zip(reversed(shapes), reversed(ways[:-1]), strict=True):
        before = next(state for state in states if end in _following(state, shape, groups))
        order.append(next(at for at, (a, b) in enumerate(zip(before, end, strict=True)) if a != b))
        end = before
    return order[::-1]


def _following(state: Shape, shape: Shape, groups: Sequence[Sequence[Shape | None]]) -> Iterator[Shape]:
    """How far the groups are once one of them has taken a parameter of this shape."""
    for at, (done, group) in enumerate(zip(state, groups, strict=True)):
        if done < len(group) and group[done] in (None, shape):
            yield (*state[:at], done + 1, *state[at + 1 :])
