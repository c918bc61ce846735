"""What a checkpoint is stored in, as a value: the words are made here, and nothing else is told from them."""

from __future__ import annotations

from dataclasses import dataclass

QUANTIZATION_CONFIGS = ("quantization_config", "compression_config", "quantization")
"""Where a config.json says how the weights beside it are quantized."""
QUANTIZATION_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
"""Files beside the weights that say how they are quantized, where config.json does not."""


@dataclass(frozen=True, slots=True)
class Format:
    """The container of a checkpoint.

    Attributes:
        name: of the container, "torch zip".
        shards: how many files of that container hold it together; 0 if it is not sharded.
        is_pickle: loading it elsewhere runs a pickle.
        is_program: it holds code that some loaders run (TorchScript).
        has_versions: it has a place for torch's module versions.
        has_metadata: it has a place for named texts.
        has_checksums: it states a CRC-32 for the bytes of every tensor.
        ranks: how many ranks of a training run hold it together; 0 if no run wrote it in parts.

    Example:
        >>> str(Format("safetensors")), str(Format("safetensors", shards=2)), str(Format("torch zip", shards=1))
        ('safetensors', 'safetensors, 2 shards', 'torch zip, 1 shard')
        >>> str(Format("DeepSpeed ZeRO-3", ranks=8))
        'DeepSpeed ZeRO-3, 8 ranks'
    """

    name: str
    shards: int = 0
    is_pickle: bool = False
    is_program: bool = False
    has_versions: bool = False
    has_metadata: bool = False
    has_checksums: bool = False
    ranks: int = 0

    def __str__(self) -> str:
        shards = f", {self.shards} shard{'s' * (self.shards != 1)}" if self.shards else ""
        ranks = f", {self.ranks} rank{'s' * (self.ranks != 1)}" if self.ranks else ""
        return f"{self.name}{shards}{ranks}"
