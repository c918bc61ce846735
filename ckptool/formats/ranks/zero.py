"""DeepSpeed ZeRO's arithmetic: where in the flat partitions of the ranks each parameter lies.

Stages 1 and 2 lay the parameters of a group one behind the other and cut this line into one partition for each rank.
Stage 3 cuts every parameter into as many equal parts as there are ranks, the last one padded, and each rank lays its
parts one behind the other. Optimizer state is as flat as the parameters, and cut alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import PurePath
from typing import Protocol

from ckptool.core.errors import UnreadableError
from ckptool.core.tensor import Tensor
from ckptool.formats.ranks.files import RankFile
from ckptool.formats.ranks.runs import Line, whole_tensor
from ckptool.formats.ranks.zero_files import MASTER, Partition

Shapes = dict[str, tuple[int, ...]]
"""The shape of each parameter of a group, in the order in which they lie."""


class ParameterSource(Protocol):
    """Where the float32 parameters and the optimizer's state of a checkpoint come from.

    Attributes:
        stage: of ZeRO.
        shapes: the parameters of each group.
    """

    stage: int
    shapes: Sequence[Shapes]

    @property
    def options(self) -> tuple[Mapping[str, object], ...]:
        """The entries of each of the optimizer's groups, in the objects of `file`."""

    @property
    def file(self) -> RankFile | None:
        """The file of the options; None without an optimizer."""

    @property
    def lacking(self) -> list[str]:
        """Parameters for which the optimizer's state is not all there."""

    @property
    def absent(self) -> list[str]:
        """The files of the optimizer that are missing."""

    def names(self) -> Iterator[str]:
        """The parameters."""

    def tensor(self, name: str, field: str = MASTER) -> Tensor | None:
        """A parameter, or what the optimizer holds for it under a name; None if it holds nothing."""

    def fields(self, name: str) -> list[str]:
        """The names of the optimizer's tensors for a parameter."""

    def scalars(self, name: str) -> Mapping[str, object]:
        """What the optimizer holds for a parameter beside them."""


class Partitions:
    """The partitions of all ranks, and where each parameter lies in them.

    Args:
        path: the folder.
        ranks: the partitions, by rank.
        shapes: the parameters of each group.

    Raises:
        UnreadableError: the partitions do not hold the parameters exactly, or are not of one moment.
    """

    def __init__(self, path: PurePath, ranks: Sequence[Partition], shapes: Sequence[Shapes]) -> None:
        self.path = path
        self.ranks = ranks
        self.shapes = shapes
        self.stage = ranks[0].stage
        self._places: dict[str, tuple[int, int]] = {}  # group, first element in the group's line
        first, groups = ranks[0], 1 if self.stage == 3 else len(shapes)
        if len(first.groups) != groups:
            raise UnreadableError(
                f"{first.path} holds {len(first.groups)} groups of parameters, the model files name {groups}",
                hint="they are not of one save: copy the folder again",
                path=first.path,
            )
        self._lines: dict[tuple[int, str], Line] = {}
        if self.stage == 3:
            self._place_parts()
        else:
            for number, group in enumerate(shapes):
                self._place_group(number, group)

    @property
    def options(self) -> tuple[Mapping[str, object], ...]:
        """The entries of each of the optimizer's groups, in the objects of `file`."""
        return self.ranks[0].options

    @property
    def file(self) -> RankFile | None:
        """The first rank's optimizer file."""
        return self.ranks[0].file

    @property
    def lacking(self) -> list[str]:
        """Parameters for which the optimizer's state is not all there."""
        return []

    @property
    def absent(self) -> list[str]:
        """The files of the optimizer that are missing."""
        return []

    def names(self) -> Iterator[str]:
        """The parameters."""
        return iter(self._places)

    def tensor(self, name: str, field: str = MASTER) -> Tensor | None:
        """A parameter, or what the optimizer holds for it under a name; None if it holds nothing."""
        group, start = self._places[name]
        shape = self.shapes[group][name]
        count = prod(shape)
        if self.stage == 3:
            share, runs = -(-count // len(self.ranks)), []
            for number, rank in enumerate(self.ranks):
                line = rank.groups[0].lines.get(field)
                if line is None:
                    return None
                runs += line.cut(start, min(share, max(0, count - number * share)))
        else:
            joined = self._line(group, field)
            if joined is None:
                return None
            runs = joined.cut(start, count)
        dtype = runs[0].dtype if runs else "float32"
        if sum(run.count for run in runs) != count or any(run.dtype != dtype for run in runs):
            raise UnreadableError(
                f"the ranks hold {field or 'parameters'} of several lengths or dtypes: {name}", path=self.path, key=name
            )
        return whole_tensor(name, dtype, shape, runs)

    def fields(self, name: str) -> list[str]:
        """The names of the optimizer's flat tensors for a parameter."""
        group, _ = self._places[name]
        number = 0 if self.stage == 3 else group
        first, *others = (rank.groups[number].lines for rank in self.ranks)
        return [field for field in first if field != MASTER and all(field in other for other in others)]

    def scalars(self, name: str) -> Mapping[str, object]:
        """What the optimizer holds for a parameter beside them."""
        group, _ = self._places[name]
        return self.ranks[0].groups[0 if self.stage == 3 else group].scalars

    def _line(self, group: int, field: str) -> Line | None:
        if (group, field) not in self._lines:
            lines = [rank.groups[group].lines.get(field) for rank in self.ranks]
            if any(line is None for line in lines):
                return None
            self._lines[group, field] = Line(run for line in lines if line is not None for run in line.runs)
        return self._lines[group, field]

    def _place_group(self, number: int, shapes: Shapes) -> None:
        """Stages 1 and 2: parameters one behind the other, cut anywhere."""
        line = self._line(number, MASTER)
        assert line is not None  # every group has its parameters
        paddings = self.ranks[0].paddings[number] if number < len(self.ranks[0].paddings) else ()
        start = 0
        for index, (name, shape) in enumerate(shapes.items()):
            count = prod(shape)
            if start + count > line.count:
                raise self._short(name, number, start + count, line.count)
            self._add(name, number, start)
            start += count + (paddings[index] if index < len(paddings) else 0)
        unit = 2 * len(self.ranks)
        if -(-start // unit) != -(-line.count // unit):
            raise self._surplus(number, line.count, start)
        self._check_slices(number, shapes)

    def _check_slices(self, number: int, shapes: Shapes) -> None:
        """Where the files state where a parameter lies, it lies there."""
        begin = 0
        for rank in self.ranks:
            end = begin + rank.groups[number].lines[MASTER].count
            for name, (count, at) in rank.groups[number].slices.items():
                if name not in shapes:
                    continue
                start = self._places[name][1]
                low, high = max(start, begin), min(start + prod(shapes[name]), end)
                if (at, count) != (low - begin, high - low):
                    raise UnreadableError(
                        f"rank {rank.rank}: {rank.path} states that {name} begins at element {at:,} of its partition, "
                        f"by the order of the parameters it begins at {low - begin:,}",
                        hint="the files are not of one save: copy the folder again",
                        path=rank.path,
                        key=name,
                    )
            begin = end

    def _place_parts(self) -> None:
        """Stage 3: of every parameter one part on each rank."""
        held = min(rank.groups[0].lines[MASTER].count for rank in self.ranks)
        start = 0
        for number, shapes in enumerate(self.shapes):
            for name, shape in shapes.items():
                share = -(-prod(shape) // len(self.ranks))
                if start + share > held:
                    raise self._short(name, 0, start + share, held)
                self._add(name, number, start)
                start += share
        for rank in self.ranks:
            if rank.groups[0].lines[MASTER].count != start:
                raise self._surplus(0, rank.groups[0].lines[MASTER].count, start, rank)

    def _add(self, name: str, group: int, start: int) -> None:
        if name in self._places:
            raise UnreadableError(f"param_shapes names {name} twice", path=self.path, key=name)
        self._places[name] = (group, start)

    def _short(self, name: str, group: int, needed: int, held: int) -> UnreadableError:
        counts = [rank.groups[group].lines[MASTER].count for rank in self.ranks]
        shortest = self.ranks[counts.index(min(counts))]
        where = f"; rank {shortest.rank} ({shortest.path.name}) holds the fewest, {min(counts):,}"
        return UnreadableError(
            f"{name} needs element {needed - 1:,} of the partitions, which hold {held:,}"
            f"{where if len(set(counts)) > 1 else ''}",
            hint="a file is of another save, or was cut short: copy the folder again",
            path=shortest.path,
            key=name,
        )

    def _surplus(self, group: int, held: int, used: int, rank: Partition | None = None) -> UnreadableError:
        who = f"rank {rank.rank} ({rank.path.name})" if rank else f"the partitions of group {group}"
        return UnreadableError(
            f"{who} {'holds' if rank else 'hold'} {held:,} elements, the parameters take {used:,}",
            hint="the files are not of one save: copy the folder again",
            path=rank.path if rank else self.path,
        )
