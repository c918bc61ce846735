"""Objects in the place of a state dict: a module that was saved whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ckptool.core import observations as seen
from ckptool.core.facts import Fact
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


@finder
def find(headers: Headers) -> Iterator[Fact]:
    for module in headers.observed(seen.WholeModule):
        yield WholeModule(class_name=module.class_name)
