"""ckptool: surgery on model checkpoints, from Python.

    import ckptool

    checkpoint = ckptool.open("model.pth")      # headers only: a mapping from key to Tensor

Nothing of a file is ever run, and importing this package imports neither numpy nor torch. What is wrong with a file is
raised as a `CkptError`, with the message that the command line prints and a `hint`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from ckptool.checkpoint import Checkpoint as Checkpoint
    from ckptool.checkpoint import Tensor as Tensor
    from ckptool.errors import CkptError as CkptError
    from ckptool.reading import Reader as Reader
    from ckptool.spec import TensorSpec as TensorSpec

__version__ = "0.1.0"

# where the names above live; they are imported when first asked for (PEP 562)
_HOMES = {
    "Checkpoint": "checkpoint",
    "CkptError": "errors",
    "Reader": "reading",
    "Tensor": "checkpoint",
    "TensorSpec": "spec",
}

__all__ = ["Checkpoint", "CkptError", "Reader", "Tensor", "TensorSpec", "open"]


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
        >>> print(checkpoint["module.fc.weight"].spec)
        f32[100,16]
        >>> [extra.name for extra in checkpoint.extras]
        ['epoch', 'arch', 'best_acc1', 'args', 'model_ema', 'optimizer', 'lr_scheduler']

        The same file's moving average:

        >>> len(ckptool.open("fixtures/training.ckpt", select="model_ema"))
        122
    """
    from pathlib import Path

    from ckptool.formats import open_checkpoint

    return open_checkpoint(Path(path), select=select)
