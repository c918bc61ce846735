"""DeepSpeed's experts that are spread over ranks: their files, and their parts of the partitions.

With ``ep_size`` 2, ranks hold one half of each layer's experts or the other; they number their own from 0. A group of
the optimizer that holds experts, named ``ep_size_2``, is partitioned over the ranks with the same half. Which half a
rank holds follows from its number: the halves alternate, or with ``use_data_before_expert_parallelism`` follow one
another (deepspeed/utils/groups.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ckptool.core.bytes import Folder
from ckptool.core.errors import UnreadableError
from ckptool.core.tensor import Tensor
from ckptool.formats.ranks.deepspeed_files import Files
from ckptool.formats.ranks.deepspeed_layers import Held
from ckptool.formats.ranks.deepspeed_states import ModelStates
from ckptool.formats.ranks.files import read_rank
from ckptool.formats.ranks.names import MAX_RANKS, listed
from ckptool.formats.ranks.zero import Partitions, Shapes
from ckptool.formats.ranks.zero_files import MASTER, Partition

_GROUP = re.compile(r"ep_size_(\d{1,9})")
_LOCAL = re.compile(r"(?P<layer>.*\.deepspeed_experts\.)(?P<number>\d{1,9})(?P<rest>\..+)")


class ExpertPartitions:
    """The parameters of a model with experts; a `ParameterSource`.

    Args:
        ranks: the partitions of all ranks.
        states: the parameters of each group as the first rank names them, and the number of experts.
        by_blocks: ranks with the same experts follow one another.

    Attributes:
        shapes: the parameters of each group, with the numbers that experts have in the whole model.

    Raises:
        UnreadableError: the partitions do not hold the parameters exactly.
    """

    def __init__(self, ranks: Sequence[Partition], states: ModelStates, *, by_blocks: bool) -> None:
        self.stage = ranks[0].stage
        self.options = ranks[0].options
        self.file = ranks[0].file
        self.lacking: list[str] = []
        self.absent: list[str] = []
        shapes_of_all: list[Shapes] = [{} for _ in states.shapes]
        self.shapes: Sequence[Shapes] = shapes_of_all
        self._places: dict[str, tuple[Partitions, str]] = {}
        for number, shapes in enumerate(states.shapes):
            count = _expert_parallel(ranks[0], number)
            share, rest = divmod(len(ranks), count)
            if rest or len(ranks[0].groups) != len(states.shapes):
                raise UnreadableError(
                    f"{ranks[0].path} holds {len(ranks[0].groups)} groups of parameters, experts of group {number} on "
                    f"{count:,} ranks; the model states have {len(states.shapes)} groups, and there are "
                    f"{len(ranks):,} ranks",
                    hint="the files are not of one save: copy the folder again",
                    path=ranks[0].path,
                )
            for part in range(count):
                members = ranks[part * share : (part + 1) * share] if by_blocks else ranks[part::count]
                only = [_only_group(rank, number) for rank in members]
                held = Partitions(states.file.source.path.parent, only, [shapes])
                names = _numbered(shapes, part) if count > 1 else {name: name for name in shapes}
                for local, name in names.items():
                    shapes_of_all[number][name] = shapes[local]
                    self._places[name] = (held, local)

    def names(self) -> Iterator[str]:
        """The parameters, group by group."""
        return iter(self._places)

    def tensor(self, name: str, field: str = MASTER) -> Tensor | None:
        """A parameter, or what the optimizer holds for it under a name; None if it holds nothing."""
        held, local = self._places[name]
        tensor = held.tensor(local, field)
        return tensor and replace(tensor, spec=replace(tensor.spec, key=name))

    def fields(self, name: str) -> list[str]:
        """The names of the optimizer's flat tensors for a parameter."""
        held, local = self._places[name]
        return held.fields(local)

    def scalars(self, name: str) -> Mapping[str, object]:
        """What the optimizer holds for a parameter beside them."""
        held, local = self._places[name]
        return held.scalars(local)


def _expert_parallel(rank: Partition, group: int) -> int:
    """Over how many ranks the experts of a group are spread; 1 for a group without experts."""
    options = rank.options[group] if group < len(rank.options) else {}
    name = options.get("name")
    match = _GROUP.fullmatch(name) if options.get("moe") is True and type(name) is str else None
    return max(1, int(match[1])) if match else 1


def _only_group(rank: Partition, number: int) -> Partition:
    """A rank's part of one group alone."""
    paddings = rank.paddings[number : number + 1]
    return replace(rank, groups=rank.groups[number : number + 1], paddings=paddings, counts=())


def _numbered(shapes: Shapes, part: int) -> dict[str, str]:
    """The names of a rank's experts, and those that they have in the whole model."""
    matches = {name: _LOCAL.fullmatch(name) for name in shapes}
    counts: dict[str, int] = {}
    for match in matches.values():
        if match is not None:
            counts[match["layer"]] = max(counts.get(match["layer"], 0), int(match["number"]) + 1)
    return {
        name: f"{match['layer']}{int(match['number']) + part * counts[match['layer']]}{match['rest']}"
        for name, match in matches.items()
        if match is not None
    }


def read_experts(folder: Folder, files: Files, states: ModelStates) -> Held:
    """The 16-bit weights of experts, whose files name them as the whole model does.

    Raises:
        UnreadableError: the file of an expert is missing.
    """
    counts = states.held.get("num_experts")
    numbers = [count for count in counts if type(count) is int] if type(counts) is list else []
    wanted = {(layer, expert) for layer, count in enumerate(numbers) for expert in range(min(count, MAX_RANKS))}
    layers = {layer for layer, _ in files.experts}
    most = max(expert for _, expert in files.experts)
    wanted |= (
        {(layer, expert) for layer in layers for expert in range(min(most + 1, MAX_RANKS))} if not wanted else set()
    )
    absent = sorted(wanted - set(files.experts))
    if absent:
        names = [f"layer_{layer}_expert_{expert}_mp_rank_00_model_states.pt" for layer, expert in absent]
        raise UnreadableError(
            f"{len(absent):,} of {len(wanted):,} experts {'is' if len(absent) == 1 else 'are'} missing in "
            f"{folder.path}: {listed(names)}",
            hint="copy them from where the checkpoint was saved",
            path=folder.path / names[0],
        )
    held: Held = {}
    for (layer, expert), name in files.experts.items():
        file = read_rank(folder.open(name), f"expert {expert} of layer {layer}")
        states.note(file)
        held.update({key: (file, node) for key, node in file.entries(file.root).items()})
    return held
