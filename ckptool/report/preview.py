"""A plan and all that is said with it: what every output of filter, remap and merge shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptool.core.checkpoint import Note
from ckptool.core.plan import Beside, Fate, Plan
from ckptool.core.reasons import NotTaken, WeightsOnly
from ckptool.report.reasons import reason_text

if TYPE_CHECKING:
    from ckptool.commands.automatic import Automatic
    from ckptool.engine.apply import Written


@dataclass(frozen=True, slots=True)
class Preview:
    """A plan and what is said with it.

    Attributes:
        plan: what is to be written.
        names: the inputs as the user wrote them.
        notes: all that the user should know.
        match: the rules that were found, if any were looked for.
    """

    plan: Plan
    names: tuple[str, ...]
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
        return beside_facts(self.plan)


def beside_facts(plan: Plan) -> list[tuple[str, Sequence[str], str]]:
    """(title, names, why) of what lies beside the weights, those that share fate and reason together."""
    rows: dict[tuple[str, str], list[str]] = {}
    for beside in plan.beside:
        title, why = _title(beside), reason_text(beside.reason) if beside.fate is Fate.LOST else ""
        rows.setdefault((title, why), []).append(beside_name(plan, beside))
    order = list(_TITLES)
    return [(title, names, why) for (title, why), names in sorted(rows.items(), key=lambda row: order.index(row[0][0]))]


_TITLES = ("kept beside the weights", "changed with the weights", "left out", "left behind", "not taken")


def _title(beside: Beside) -> str:
    if isinstance(beside.reason, NotTaken | WeightsOnly):
        return "not taken"
    return dict(zip(Fate, _TITLES, strict=False))[beside.fate]


def beside_name(plan: Plan, beside: Beside) -> str:
    """Its name, after that of its file where the plan has several."""
    path = plan.inputs[beside.input].path
    return f"{path.name}: {beside.name}" if isinstance(beside.reason, NotTaken | WeightsOnly) else beside.name


def rounding_of(written: Written) -> Mapping[str, float]:
    """How far each cast tensor was rounded, relative to its largest element."""
    found: Mapping[str, float] = getattr(written, "rounding", {})
    return found
