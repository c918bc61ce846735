"""Entries of the dict of weights that are not tensors: torch's load_state_dict meets them too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.counts import many
from ckptool.core.facts import FINE, Answer, Fact, Operation, Say, Use
from ckptool.facts.headers import Headers
from ckptool.facts.registry import finder
from ckptool.formats.torch.frame import Frame
from ckptool.formats.torch.tensor import is_tensor


@dataclass(frozen=True, slots=True)
class NotTensors(Fact):
    """Entries like ``_extra_state``, or the epoch in a bare state dict; `entries` are their names."""

    entries: tuple[str, ...] = ()

    name = "entries"
    rank = 18

    @property
    def text(self) -> str:
        is_no = "is not a tensor" if len(self.entries) == 1 else "are not tensors"
        listed = ", ".join(self.entries[:3]) + (", ..." if len(self.entries) > 3 else "")
        return f"{many(len(self.entries), 'entry', 'entries')} among the weights {is_no}: {listed}"

    @property
    def hint(self) -> str:
        return "load_state_dict(strict=True) takes each for an unexpected key"

    @property
    def remedy(self) -> str:
        return "without them: ckptool filter {file} --only-weights -o OUT"

    def answer(self, use: Use) -> Answer:
        return Say(self.text, "they are not loaded") if use.operation is Operation.LOAD else FINE


def entries_of(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The names of entries among the weights that are not tensors, as torch's load_state_dict would get them.

    Where the weights lie nested, torch gets the outer names; these are not listed here.
    """
    tree = checkpoint.tree
    if not isinstance(tree, Frame) or not tree.is_flat:
        return ()
    return tuple(key for key, node in tree.entries if isinstance(key, str) and not is_tensor(node))


@finder
def find(headers: Headers) -> Iterator[NotTensors]:
    entries = entries_of(headers.checkpoint)
    if entries:
        yield NotTensors(entries=entries)
