"""What a probe found, as values."""

from __future__ import annotations

from dataclasses import dataclass

from ckptool.core.checkpoint import Note
from ckptool.core.plan import Problem
from ckptool.core.reasons import Reason
from ckptool.models.probing.rounding import Precision


@dataclass(frozen=True, slots=True)
class Divergence:
    """A module of the target whose output is not what the source's gives.

    Attributes:
        target: its name; "" is the model itself.
        source: the name of the source's module that has the same tensors.
        classes: class names of both, the target's first.
        error: root mean square of the difference, in standard deviations of the source's output; inf where the shapes
            do not go together or a number is not finite.
        limit: up to which it would be rounding.
        scale: that standard deviation.
        shapes: of both outputs, the target's first.
        input_error: the same measure of what goes in; None where it cannot be compared.
        after: modules that it is computed from, the nearest that were compared, which agree; each with the source's.
        between: modules with weights that lie between those and it, and have no counterpart of their own.
        source_after: the nearest modules that the source's is computed from, under the target's names, where those are
            not the same as in the target: then it stands in another place.
        settings: numbers that the two modules were built with and that differ: (name, target's, source's).
        origins: (key of the target, keys of the source, why) of the tensors of those between and of its own.
    """

    target: str
    source: str
    classes: tuple[str, str]
    error: float
    limit: float
    scale: float
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    input_error: float | None = None
    after: tuple[tuple[str, str], ...] = ()
    between: tuple[str, ...] = ()
    source_after: tuple[str, ...] = ()
    settings: tuple[tuple[str, str, str], ...] = ()
    origins: tuple[tuple[str, tuple[str, ...], Reason], ...] = ()

    @property
    def last_agreed(self) -> str:
        """The last module before it that agreed; "" if there is none."""
        return self.after[-1][0] if self.after else ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A module of the target with weights that could not be compared, and why."""

    target: str
    why: str


@dataclass(frozen=True, slots=True, eq=False)
class ProbeReport:
    """One input through two models.

    Attributes:
        source_model: the model that the source was loaded into.
        target: the model that the plan's result was loaded into.
        inputs: what both saw: ("image 1x3x224x224",).
        seed: of the input.
        precision: of the numbers that both were run with, "float64" or "float32".
        tolerance: no larger error counts as agreement.
        compared: how many module outputs were compared.
        agreeing: how many of them are equal within the tolerance.
        largest: the largest error among those.
        first: the first module, in the order of execution and the innermost, that differs for no reason but the mapping
            or the model's code; None if there is none.
        differing: all such modules that no other of them is a part of, the first one first.
        following: how many more modules differ, which is no wonder: they are computed from those.
        divided: modules that differ while all that is computed from them agrees: the two models only divide the work
            otherwise there (an activation inside a norm, another order of channels within a head).
        skipped: modules with weights that were not compared.
        unfilled: keys of the target that nothing filled and that what differs or was skipped is computed from.
        filled: tensors of the target that the source fills, counters and the like aside.
        unproven: those that no agreeing output is computed from.
        notes: what the user should know.
        seconds: how long it took, all in all.
    """

    source_model: str
    target: str
    inputs: tuple[str, ...]
    seed: int
    precision: Precision
    tolerance: float
    compared: int
    agreeing: int
    largest: float
    differing: tuple[Divergence, ...] = ()
    following: int = 0
    divided: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    unfilled: tuple[str, ...] = ()
    filled: int = 0
    unproven: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()
    seconds: float = 0.0

    @property
    def first(self) -> Divergence | None:
        return self.differing[0] if self.differing else None

    @property
    def agree(self) -> bool:
        """True if something was compared and nothing differs; `unproven` says what that does not speak of."""
        return self.agreeing > 0 and not self.differing

    @property
    def is_proof(self) -> bool:
        """True if nothing differs and every tensor that the source fills has a part in an output that agrees."""
        return self.agree and not self.unproven


def unproven(report: ProbeReport) -> tuple[Problem, ...]:
    """What speaks against a transplant that was to be proven; nothing if the models agree."""
    if report.agree:
        return ()
    if report.first is None:
        return (Problem("the probe could compare nothing", "no module has the same tensors and input in both models"),)
    name = report.first.target or report.target
    hint = "is it meant to compute something else? then leave --probe out"
    return (Problem(f"the probe finds that {name} computes something else than {report.first.source}", hint),)
