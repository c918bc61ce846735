"""An automatic match as the Python API gives it: it can be written down."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

from ckptool.commands import automatic as commands
from ckptool.report.match_recipe import match_recipe


@dataclass(frozen=True, slots=True, eq=False)
class Automatic(commands.Automatic):
    """Rules that were found, and why. See `ckptool.commands.automatic.Automatic` for what it holds."""

    @classmethod
    def of(cls, found: commands.Automatic) -> Self:
        """The same, ready to be written down."""
        return cls(**{field.name: getattr(found, field.name) for field in fields(commands.Automatic)})

    @property
    def text(self) -> str:
        """The rules that were found as a recipe: TOML, with the evidence in comments."""
        return match_recipe(self.report, self.accept)
