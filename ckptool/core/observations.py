"""What a reader notices while it opens a file, as values: `ckptool.facts` says what each means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Observation:
    """One thing that only the reader of a format sees. A kind is a subclass, a frozen dataclass of what was seen."""


@dataclass(frozen=True, slots=True)
class NoIndex(Observation):
    """Shards were taken by their names: no index lists them."""


@dataclass(frozen=True, slots=True)
class Decoded(Observation):
    """Logical tensors stand in place of encoded ones: ``--dequantize`` made this checkpoint."""


@dataclass(frozen=True, slots=True)
class Patched(Observation):
    """A patch was applied, of this name."""

    name: str


@dataclass(frozen=True, slots=True)
class MetadataDiffers(Observation):
    """Entries of `__metadata__` with different texts in different shards; those of the first shard were taken."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NotInIndex(Observation):
    """Tensors of the shards that the index does not list; they were left out."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WrongTotalSize(Observation):
    """The index states another size than its tensors have, both in bytes."""

    stated: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class UnusedFiles(Observation):
    """Files of a torch.distributed folder that its `.metadata` does not name."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrailingBytes(Observation):
    """Bytes that no loader reads, and what they follow."""

    nbytes: int
    after: Literal["pickle", "storages"]


@dataclass(frozen=True, slots=True)
class UnknownFields(Observation):
    """Tensors whose entry in a safetensors header has fields that the format does not have."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WholeModule(Observation):
    """The pickle holds a module object; `class_name` is "" where the file does not say it."""

    class_name: str = ""


@dataclass(frozen=True, slots=True)
class ChecksumDiffers(Observation):
    """A record that was read on opening does not have the CRC-32 that its archive states."""

    record: str


@dataclass(frozen=True, slots=True)
class ChecksumNotCompared(Observation):
    """A record is too large for its CRC-32 to be compared on opening."""

    record: str
    nbytes: int


@dataclass(frozen=True, slots=True)
class NotInOptimizer(Observation):
    """Tensors that DeepSpeed's optimizer does not hold in float32; they were taken from the 16-bit weights."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IncompleteOptimizer(Observation):
    """Files of the optimizer's state are missing, and with them that of some parameters; all of it was left out."""

    keys: tuple[str, ...]
    absent: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NumberedOptimizer(Observation):
    """An optimizer whose parameters have numbers, where the ranks' files do not tell which number is which key."""

    name: str


@dataclass(frozen=True, slots=True)
class OptimizerLeftOut(Observation):
    """The optimizer's state was not read: its parameters are spread over "experts", "fused experts" or "stages"."""

    over: str


@dataclass(frozen=True, slots=True)
class PiecesDiffer(Observation):
    """Tensors that are not what the pieces in `folder` say, of which the files that were opened were made."""

    keys: tuple[str, ...]
    folder: str


@dataclass(frozen=True, slots=True)
class ReplicasDiffer(Observation):
    """Tensors of which ranks hold different copies; that of rank `taken` was taken."""

    keys: tuple[str, ...]
    taken: int


@dataclass(frozen=True, slots=True)
class RunBeside(Observation):
    """A folder with what the ranks of a training run saved, beside whole weights that were taken."""

    folder: str


@dataclass(frozen=True, slots=True)
class StackedLayers(Observation):
    """Weights of Megatron-core that hold all layers in one tensor, along a first axis."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RanksNotStated(Observation):
    """The files of ranks do not state how many ranks there were; so many were found."""

    found: int


@dataclass(frozen=True, slots=True)
class MissingReplicas(Observation):
    """Ranks whose files are missing, and hold nothing that another rank's do not hold too."""

    ranks: tuple[int, ...]
