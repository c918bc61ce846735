"""The files of one DeepSpeed folder, by the numbers in their names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from ckptool.core.bytes import Entry, Folder
from ckptool.core.errors import UnreadableError
from ckptool.formats.ranks.names import MAX_RANKS, entries_in, lacks, listed

OPTIMIZER_FILE = re.compile(r"(?:bf16_|fp16_)?zero_pp_rank_(?P<rank>\d+)_mp_rank_(?P<mp>\d+)_optim_states\.pt")
PARAMETER_FILE = re.compile(r"zero_pp_rank_(?P<rank>\d+)_mp_rank_(?P<mp>\d+)_model_states\.pt")
MODEL_FILE = re.compile(r"mp_rank_(?P<mp>\d+)_model_states\.pt")
LAYER_FILE = re.compile(r"layer_(?P<layer>\d+)(?:-model_(?P<tp>\d+))?-model_states\.pt")
EXPERT_FILE = re.compile(r"layer_(?P<layer>\d+)_expert_(?P<expert>\d+)_mp_rank_(?P<mp>\d+)_model_states\.pt")
UNNAMED_FILE = re.compile(r"expp_rank_\d+_mp_rank_\d+_optim_states\.pt")
PARAMETERS = "zero"
"""The folder of a universal checkpoint that holds a folder for each parameter."""
MASTER_FILE = "fp32"
"""What the file of a parameter's elements is called, without its ending."""

_MOST = 100  # folders that are looked into
_KNOWN = (MODEL_FILE, PARAMETER_FILE, OPTIMIZER_FILE, LAYER_FILE, EXPERT_FILE)
_CUT = "which axis of a tensor was cut is not in the files"
_CONVERT = "convert it with the library that trained the model (Megatron-DeepSpeed)"


def is_deepspeed(names: Sequence[str]) -> bool:
    """True if a folder holds files of DeepSpeed's ranks."""
    return any(pattern.fullmatch(name) for name in names for pattern in _KNOWN)


def holds_parameters(folder: Folder) -> bool:
    """True for a folder that holds folders of parameters."""
    inner = [entry.name for entry in entries_in(folder) if entry.is_folder]
    return any(Entry(f"{MASTER_FILE}.pt", False) in entries_in(folder.folder(name)) for name in inner[:_MOST])


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one DeepSpeed folder, by the numbers in their names.

    Attributes:
        path: the folder.
        models: of the whole 16-bit weights, by stage of the pipeline; nothing in stage 3 of ZeRO.
        parameters: of the ranks' model states in stage 3 of ZeRO, by rank.
        optimizers: of the ranks' optimizer states, by stage of the pipeline and by rank.
        layers: of a pipeline's layers, by number.
        experts: of the experts that are spread over ranks, by number of the layer and of the expert.
        unnamed_states: of the optimizer of a model with experts without ZeRO, which names no parameter.
    """

    path: PurePath
    models: Mapping[int, str]
    parameters: Mapping[int, str]
    optimizers: Mapping[int, Mapping[int, str]]
    layers: Mapping[int, str] = field(default_factory=dict)
    experts: Mapping[tuple[int, int], str] = field(default_factory=dict)
    unnamed_states: tuple[str, ...] = ()

    @property
    def is_partitioned(self) -> bool:
        return bool(self.parameters)

    @property
    def world(self) -> int:
        """How many ranks there are."""
        return sum(map(len, self.optimizers.values())) or len(self.parameters)

    @property
    def names(self) -> list[str]:
        """All of them."""
        optimizers = [name for ranks in self.optimizers.values() for name in ranks.values()]
        model = [*self.parameters.values(), *self.models.values(), *self.layers.values(), *self.experts.values()]
        return [*model, *optimizers]

    def named(self, files: Mapping[int, str]) -> list[tuple[str, str]]:
        """The files by rank, and the ranks in words."""
        return [(f"rank {rank} of {len(files)}", name) for rank, name in files.items()]

    @classmethod
    def of(cls, folder: Folder) -> Files:
        """The files of a folder.

        Raises:
            UnreadableError: they are of two saves; or of tensors that were cut in a way that no file states.
        """
        names = [entry.name for entry in folder.entries() if not entry.is_folder]
        layers = _layers(folder.path, names)
        experts = {
            (int(match["layer"]), int(match["expert"])): match[0]
            for name in names
            if (match := EXPERT_FILE.fullmatch(name)) is not None
        }
        matches = [
            (kind, match)
            for name in names
            for kind, pattern in enumerate((MODEL_FILE, PARAMETER_FILE, OPTIMIZER_FILE))
            if (match := pattern.fullmatch(name)) is not None
        ]
        stages = sorted({int(match["mp"]) for _, match in matches})
        if len(stages) > 1 and not layers:
            raise UnreadableError(
                f"{folder.path} holds the weights of {len(stages)} model-parallel ranks: {_CUT}",
                hint=_CONVERT,
                path=folder.path,
            )
        found: tuple[dict[tuple[int, int], str], ...] = ({}, {}, {})
        for kind, match in matches:
            rank = int(match["rank"]) if kind else 0
            other = found[kind].setdefault((int(match["mp"]), rank), match[0])
            if other != match[0]:
                raise UnreadableError(
                    f"two files are of rank {rank}: {other} and {match[0]}",
                    hint="they are of two saves: remove the older one",
                    path=folder.path,
                )
        models, parameters, optimizers = (dict(sorted(each.items())) for each in found)
        if len(optimizers) + len(parameters) > MAX_RANKS:
            raise UnreadableError(f"{folder.path} holds files of more than {MAX_RANKS:,} ranks", path=folder.path)
        if models and parameters:
            first, second = next(iter(models.values())), next(iter(parameters.values()))
            raise UnreadableError(
                f"{folder.path} holds model states of two kinds: {first} and {second}",
                hint="they are of two saves: remove the older one",
                path=folder.path,
            )
        if not models and not parameters:
            raise UnreadableError(
                f"{folder.path} is a DeepSpeed checkpoint without mp_rank_00_model_states.pt, which names the "
                "parameters; in stage 3 of ZeRO every rank has one: zero_pp_rank_0_mp_rank_00_model_states.pt",
                hint="copy it from where the checkpoint was saved",
                path=folder.path,
            )
        by_stage: dict[int, dict[int, str]] = {}
        for (stage, rank), name in optimizers.items():
            by_stage.setdefault(stage, {})[rank] = name
        return cls(
            folder.path,
            {stage: name for (stage, _), name in models.items()},
            {rank: name for (_, rank), name in parameters.items()},
            by_stage,
            layers,
            dict(sorted(experts.items())),
            tuple(name for name in names if UNNAMED_FILE.fullmatch(name)),
        )


def _layers(path: PurePath, names: Sequence[str]) -> dict[int, str]:
    """The files of a pipeline's layers, in their order."""
    matches = [match for name in names if (match := LAYER_FILE.fullmatch(name)) is not None]
    cut = [match[0] for match in matches if int(match["tp"] or 0)]
    if cut:
        raise UnreadableError(
            f"{path} holds the layers of a pipeline, each cut over model-parallel ranks ({listed(cut, 2)}): {_CUT}",
            hint=_CONVERT,
            path=path,
        )
    return {int(match["layer"]): match[0] for match in sorted(matches, key=lambda match: int(match["layer"]))}


def check_complete(path: PurePath, names: Mapping[int, str], count: int, name_like: str = "") -> None:
    """Refuse files of ranks of which one is missing, or is one too many.

    Args:
        path: the folder.
        names: the files by rank.
        count: how many ranks there are.
        name_like: the name of a rank's file, with ``{}`` for the number; that of `names` if empty.

    Raises:
        UnreadableError: a rank is missing, or there is a further one; the message names the file.
    """
    if not names:
        return
    missing = [rank for rank in range(min(count, MAX_RANKS)) if rank not in names]
    if missing:
        like = name_like or re.sub(r"zero_pp_rank_\d+", "zero_pp_rank_{}", next(iter(names.values())))
        raise lacks(path, missing, count, like)
    beyond = [name for rank, name in names.items() if rank >= count]
    if beyond:
        raise UnreadableError(
            f"{path} was saved by {count:,} ranks, and holds files of further ones: {listed(beyond)}",
            hint="they are of another save, with another number of ranks: remove those",
            path=path / beyond[0],
        )
