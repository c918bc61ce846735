"""Files of a folder that belong to its checkpoint and are not weights: config.json, the tokenizer's, code."""

from __future__ import annotations

from fnmatch import fnmatchcase

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.format import QUANTIZATION_FILES

_OF_MODEL = (
    "config.json",
    "adapter_config.json",
    *QUANTIZATION_FILES,
    "model_index.json",
    "modules.json",
    "modeling_*.py",
    "configuration_*.py",
)
_OF_TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "vocab.*",
    "merges.txt",
    "*.model",
    "tokenization_*.py",
)
_OTHERS = ("generation_config.json", "preprocessor_config.json", "processor_config.json")

_ALONE = ("model", "pytorch_model", "adapter_model", "diffusion_pytorch_model")
"""Names of the one file of a folder that loaders take by the folder's name."""


def companions(checkpoint: Checkpoint) -> list[str]:
    """The names of the files that loaders of a folder read beside its weights, in order.

    Example:
        >>> import ckptool
        >>> companions(ckptool.open("fixtures/shards"))
        []
    """
    if not checkpoint.files or not (is_folder(checkpoint) or checkpoint.path.stem in _ALONE):
        return []
    names = [entry.name for entry in checkpoint.files[0].folder.entries() if not entry.is_folder]
    return [name for name in names if _is_one_of(name, (*_OF_MODEL, *_OF_TOKENIZER, *_OTHERS))]


def describes_model(name: str) -> bool:
    """True for a file that says which keys and shapes the weights have."""
    return _is_one_of(name, _OF_MODEL)


def is_of_tokenizer(name: str) -> bool:
    """True for the files of a tokenizer, which belong together."""
    return _is_one_of(name, _OF_TOKENIZER)


def _is_one_of(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def is_folder(checkpoint: Checkpoint) -> bool:
    """True if a checkpoint was opened by the name of its folder."""
    return bool(checkpoint.files) and checkpoint.path == checkpoint.files[0].folder.path
