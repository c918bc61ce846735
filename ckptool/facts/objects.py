"""Objects in the place of a state dict or of its tensors: a module that was saved whole, arrays of another device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ckptool.core import observations as seen
from ckptool.core.counts import listed, many
from ckptool.core.facts import FINE, TAKES_VALUES, Answer, Fact, Say, Use
from ckptool.facts.headers import Headers
from ckptool.facts.registry import finder


@dataclass(frozen=True, slots=True)
class WholeModule(Fact):
    """A module that was pickled whole: ``torch.save(model)``."""

    class_name: str = ""

    name = "whole-module"
    grade = "note"
    rank = -1

    @property
    def text(self) -> str:
        of = f" of class {self.class_name}" if self.class_name else ""
        return f"the file holds a whole module{of}, not a state_dict"

    @property
    def hint(self) -> str:
        return "its weights are listed as state_dict() gives them; loading the file with torch runs code"


@dataclass(frozen=True, slots=True)
class NumpyBacked(Fact):
    """Tensors of another device, which torch writes as numpy arrays into the pickle."""

    entries: tuple[str, ...] = ()

    name = "numpy-backed"
    tells = True
    level = "warning"
    grade = "warning"
    rank = -1

    @property
    def text(self) -> str:
        are = many(len(self.entries), "tensor of another device is", "tensors of other devices are")
        return f"{are} stored as numpy arrays, and listed as entries, not as tensors: {listed(self.entries)}"

    @property
    def hint(self) -> str:
        return "move them to the CPU before saving"

    def answer(self, use: Use) -> Answer:
        return Say(self.text, self.hint) if use.operation in TAKES_VALUES else FINE


@finder
def find(headers: Headers) -> Iterator[Fact]:
    for module in headers.observed(seen.WholeModule):
        yield WholeModule(class_name=module.class_name)
    for arrays in headers.observed(seen.NumpyBacked):
        yield NumpyBacked(entries=arrays.entries)
