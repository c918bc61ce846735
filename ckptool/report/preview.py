"""A plan and all that is said with it: what every output of filter, remap and merge shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptool.commands.beside.settle import Besides
from ckptool.core.checkpoint import Note
from ckptool.core.plan import Plan

if TYPE_CHECKING:
    from ckptool.commands.automatic import Automatic
    from ckptool.engine.apply import Written


@dataclass(frozen=True, slots=True)
class Preview:
    """A plan and what is said with it.

    Attributes:
        plan: what is to be written.
        names: the inputs as the user wrote them.
        besides: what becomes of everything that is not a tensor.
        notes: all that the user should know.
        match: the rules that were found, if any were looked for.
    """

    plan: Plan
    names: tuple[str, ...]
    besides: Besides
    notes: tuple[Note, ...]
    match: Automatic | None = None

    @property
    def is_recipe(self) -> bool:
        """True for a recipe, which is shown by its rules."""
        return self.plan.command.name == "remap"

    @property
    def is_merge(self) -> bool:
        """True if several inputs may give tensors for one key."""
        return self.plan.command.name == "merge"

    @property
    def facts(self) -> list[tuple[str, Sequence[str], str]]:
        """(title, names, why) of what lies beside the tensors, without the empty ones."""
        besides = self.besides
        facts: list[tuple[str, Sequence[str], str]] = [
            ("kept beside the weights", besides.kept, ""),
            ("left out", besides.dropped, ""),
            ("left behind", besides.lost, besides.why),
            ("not taken", besides.untaken, "only what the first file holds is kept"),
        ]
        return [fact for fact in facts if fact[1]]


def rounding_of(written: Written) -> Mapping[str, float]:
    """How far each cast tensor was rounded, relative to its largest element."""
    found: Mapping[str, float] = getattr(written, "rounding", {})
    return found
