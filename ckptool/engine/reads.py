"""What a plan will read of files where reading costs much, known before it runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ckptool.core.bytes import ByteSource
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.plan import Plan, sources_of
from ckptool.engine.ranges import ranges_of, reads_cheaply


@dataclass(frozen=True, slots=True)
class Reads:
    """What will be read of far files.

    Attributes:
        nbytes: bytes, those between two ranges that are read over included.
        of: size of the files.
        ranges: how many ranges will be asked for.
    """

    nbytes: int
    of: int
    ranges: int


def reads_of(plan: Plan) -> Reads | None:
    """What a plan will read of far files; None if it has none.

    Example:
        >>> import ckptool
        >>> reads_of(ckptool.plan_filter("fixtures/resnet18.pth")) is None
        True
    """
    far = far_files(plan.inputs)
    if not far:
        return None
    wanted: dict[ByteSource, dict[tuple[int, int], None]] = {}
    sources = plan.sources
    for step in (*(step for step in plan.steps if step.stored), *(moved.step for moved in plan.moved)):
        for source in sources_of(step.value):
            tensor = sources[source.input][source.key]
            if not reads_cheaply(tensor):
                for file, offset, nbytes in ranges_of(tensor):
                    wanted.setdefault(file, {})[offset, nbytes] = None
    costs = [file.cost(list(ranges)) for file, ranges in wanted.items()]
    return Reads(
        sum(cost.nbytes for cost in costs), sum(file.size for file in far), sum(cost.requests for cost in costs)
    )


def far_files(checkpoints: Iterable[Checkpoint]) -> list[ByteSource]:
    """The files of checkpoints where reading costs much, each once."""
    files = dict.fromkeys(file for checkpoint in checkpoints for file in checkpoint.files)
    return [file for file in files if not file.reads_cheaply]
