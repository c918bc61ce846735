"""What a report is about, in a line."""

from __future__ import annotations

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.counts import many
from ckptool.report.blocks import Side, Sides
from ckptool.report.inspection import format_text
from ckptool.report.symbols import STYLES
from ckptool.report.units import size_short


def side_of(checkpoint: Checkpoint, name: str, mark: str = "") -> Side:
    """A checkpoint in one line: how many tensors, bytes, the container, and which dict of it."""
    kind = format_text(checkpoint)
    if checkpoint.selection.path:
        kind += f', weights under "{checkpoint.selection.name}"'
    facts = (many(len(checkpoint), "tensor"), size_short(checkpoint.nbytes), kind)
    return Side(name, facts, mark, STYLES.get(mark, "bold"))


def one_side(checkpoint: Checkpoint, name: str) -> Sides:
    """``resnet18.pth   torch zip, 46.8 MB, weights under "model"``"""
    under = (f'weights under "{checkpoint.selection.name}"',) if checkpoint.selection.path else ()
    return Sides((Side(name, (format_text(checkpoint), size_short(checkpoint.nbytes), *under)),))
