"""What an expert would say about a checkpoint, from its headers alone.

Each remark is one small function in a list: `naming` looks at keys, `stored` at where the bytes lie, `pair` at what two
checkpoints do not share. A remark says what is true and what to do about it, and nothing where nothing is odd.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.facts import naming, stored
from ckptool.facts.facts import Facts
from ckptool.facts.stored import ties

__all__ = ["explain", "ties"]

_REMARKS: tuple[Callable[[Facts], Iterator[Note]], ...] = (
    stored.empty,
    stored.meta,
    naming.counters,
    naming.layer_gaps,
    stored.large_storages,
    stored.partly_shared,
    stored.mixed_dtypes,
    naming.wrappers,
    naming.averaged,
    naming.lightning,
    naming.adapters,
    naming.quantized,
    naming.reparametrized,
    naming.norm_names,
    naming.dense_names,
    naming.experts,
    stored.optimizer,
    stored.script,
)


def explain(checkpoint: Checkpoint) -> tuple[Note, ...]:
    """What is worth knowing about a checkpoint, warnings first; nothing for a plain one.

    Example:
        >>> from pathlib import Path
        >>> from ckptool.core.checkpoint import Tensor
        >>> from ckptool.core.format import Format
        >>> from ckptool.core.spec import TensorSpec
        >>> keys = ["module.fc.weight", "module.fc.bias"]
        >>> tensors = {key: Tensor(TensorSpec(key, "float32", (4,))) for key in keys}
        >>> [note.text for note in explain(Checkpoint(Path("a.pth"), Format("torch zip"), tensors))]
        ['every key starts with "module.", the mark of DataParallel or DistributedDataParallel']
    """
    facts = Facts.of(checkpoint)
    notes = [note for remark in _REMARKS for note in remark(facts)]
    return tuple(sorted(notes, key=lambda note: note.level != "warning"))
