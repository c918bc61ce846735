"""ckptool: surgery on model checkpoints, from Python.

Example:
    >>> import ckptool
    >>> checkpoint = ckptool.open("fixtures/resnet18.pth")  # headers only: a mapping from key to Tensor
    >>> checkpoint["conv1.weight"].spec.short
    'f32[2,3,7,7]'
    >>> ckptool.compare(checkpoint, "fixtures/shards").is_same
    True

Nothing of a file is ever run, and importing this package imports neither numpy nor torch. What is wrong with a file is
raised as a `CkptError`, with the message that the command line prints and a `hint`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import ckptool.compare  # noqa: F401  (now: a later import would put the folder in the function's place)

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from ckptool.checkpoint import Checkpoint as Checkpoint
    from ckptool.checkpoint import Tensor as Tensor
    from ckptool.compare.result import Change as Change
    from ckptool.compare.result import Diff as Diff
    from ckptool.compare.result import Status as Status
    from ckptool.compare.result import Tolerance as Tolerance
    from ckptool.errors import CkptError as CkptError
    from ckptool.reading import Reader as Reader
    from ckptool.spec import TensorSpec as TensorSpec

__version__ = "0.1.0"

# where the classes live; each is imported when first asked for (PEP 562)
_HOMES = {
    "Change": "compare.result",
    "Checkpoint": "checkpoint",
    "CkptError": "errors",
    "Diff": "compare.result",
    "Reader": "reading",
    "Status": "compare.result",
    "Tensor": "checkpoint",
    "TensorSpec": "spec",
    "Tolerance": "compare.result",
}

__all__ = [
    "Change",
    "Checkpoint",
    "CkptError",
    "Diff",
    "Reader",
    "Status",
    "Tensor",
    "TensorSpec",
    "Tolerance",
    "compare",
    "open",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


def open(path: str | os.PathLike[str], select: str | None = None) -> Checkpoint:
    """Open a checkpoint of any format, told by its content. Reads headers only; holds no file open.

    Args:
        path: a file, or a folder of shards.
        select: dotted path of the dict that holds the weights, as "model_ema"; by default the one that is meant.

    Raises:
        CkptError: it is no checkpoint, is damaged, or has no such dict.

    Example:
        >>> checkpoint = ckptool.open("fixtures/training.ckpt")
        >>> checkpoint.format, len(checkpoint), checkpoint.selection.name
        ('torch zip', 122, 'state_dict')
        >>> [extra.name for extra in checkpoint.extras]
        ['epoch', 'arch', 'best_acc1', 'args', 'model_ema', 'optimizer', 'lr_scheduler']

        The same file's moving average, and one of its tensors as a numpy array:

        >>> average = ckptool.open("fixtures/training.ckpt", select="model_ema")
        >>> with ckptool.Reader() as reader:
        ...     reader.array(average["fc.weight"]).shape
        (100, 16)
    """
    from ckptool.formats import open_checkpoint

    return open_checkpoint(path, select=select)


def compare(
    old: Checkpoint | str | os.PathLike[str],
    new: Checkpoint | str | os.PathLike[str],
    *,
    only: Sequence[str] = (),
    tolerance: Tolerance | None = None,
    keys_only: bool = False,
    threads: int = 2,
) -> Diff:
    """Compare two checkpoints of any formats: keys, shapes, dtypes, and then values.

    Args:
        old: a path, or what `open` gave.
        new: the other one.
        only: key patterns, as ``"layer4.*"``; if any are given, everything else is left out.
        tolerance: how far values may be apart and still count as same; by default not at all.
        keys_only: compare headers and read no values.
        threads: how many at most read and compute.

    Raises:
        CkptError: a file cannot be read, or a pattern matches nothing.

    Example:
        >>> diff = ckptool.compare("fixtures/resnet18.pth", "fixtures/tuned.safetensors")
        >>> diff.count(ckptool.Status.SAME), diff.count(ckptool.Status.CHANGED), diff.count(ckptool.Status.RESHAPED)
        (6, 114, 2)
        >>> sorted(change.key for change in diff.changes if change.status is ckptool.Status.RESHAPED)
        ['fc.bias', 'fc.weight']
        >>> loose = ckptool.Tolerance(rel=1e-3)
        >>> ckptool.compare(diff.old, diff.new, only=["layer1.*.weight"], tolerance=loose).is_same
        True
    """
    from ckptool.checkpoint import Checkpoint
    from ckptool.compare.diff import compare as compare_checkpoints
    from ckptool.compare.result import Tolerance

    first, second = (side if isinstance(side, Checkpoint) else open(side) for side in (old, new))
    return compare_checkpoints(
        first, second, only=only, tolerance=tolerance or Tolerance(), keys_only=keys_only, threads=threads
    )
