"""An automatic match as the Python API gives it: it can be written down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptool.api.shown import Shown
from ckptool.commands import automatic as commands
from ckptool.report.match_recipe import match_recipe

if TYPE_CHECKING:
    from ckptool.report.document import Document


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Automatic(Shown, commands.Automatic):
    """Rules that were found, and why. See `ckptool.commands.automatic.Automatic` for what it holds."""

    def _document(self) -> Document:
        from ckptool.report.document_match import match_document

        return match_document(self)

    @property
    def text(self) -> str:
        """The rules that were found as a recipe: TOML, with the evidence in comments."""
        return match_recipe(self.report, self.accept)
