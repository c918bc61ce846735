"""Runs both models on one input that both take, in float64 where their code lets it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ckptool.core.errors import CkptError
from ckptool.models import Target
from ckptool.models.probing.building import Loaded
from ckptool.models.probing.inputs import Shown
from ckptool.models.probing.judging import Comparer
from ckptool.models.probing.pairing import pair_modules
from ckptool.models.probing.recording import Call, Run, StoppedError, run
from ckptool.models.probing.rounding import MOST, Precision, Rounding
from ckptool.models.probing.settings import Aligned, align

if TYPE_CHECKING:
    import torch


@dataclass(slots=True, eq=False)
class Side:
    """A model of the probe. It is loaded when it is run, and its weights may be let go after that.

    Attributes:
        name: of the model.
        module: as it was asked for, perhaps without numbers.
        load: gives it with its weights.
    """

    name: str
    module: torch.nn.Module
    load: Callable[[], Loaded]
    _loaded: Loaded | None = None
    _precision: Precision = "float64"

    @property
    def loaded(self) -> Loaded:
        if self._loaded is None:
            self._loaded, self._precision = self.load(), "float64"
        return self._loaded

    def run(
        self,
        arguments: tuple[tuple[Any, ...], dict[str, Any]],
        asked: str,
        seed: int,
        precision: Precision,
        done: Callable[[Call], None] | None = None,
    ) -> Run:
        loaded = self.loaded
        if precision != self._precision:
            loaded.module.float()
            self._precision = precision
        return run(self.name, loaded.module, arguments, asked, seed, loaded.exact, loaded.unfilled, done)

    def release(self) -> Loaded:
        """What is known of it; its weights are let go."""
        light = replace(self.loaded, module=self.module)
        self._loaded = None
        return light


def side_of(target: Target, load: Callable[[], Loaded]) -> Side:
    """One of the models. Raises `CkptError` if there is none to run."""
    if target.module is None:
        raise CkptError(
            f"{target.name} is a checkpoint: there is no model to run",
            hint="name its model: torchvision:NAME, timm:NAME, hf:FOLDER, file.py:CLASS, package.module:FUNCTION",
        )
    return Side(target.name, target.module, load)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, eq=False)
class Both:
    """What came of it.

    Attributes:
        source: what is known of the source, without its numbers.
        target: likewise.
        run: the target's.
        comparer: with the source's run.
        shown: the input.
        aligned: settings of the target's modules that were made the source's.
    """

    source: Loaded
    target: Loaded
    run: Run
    comparer: Comparer
    shown: Shown
    aligned: tuple[Aligned, ...]


def run_both(
    source: Side, target: Side, shown: Callable[[], Iterator[Shown]], seed: int, tolerance: float | None
) -> Both:
    """Both runs on the first input that both take.

    Raises:
        CkptError: a model cannot be loaded, or none of the inputs is taken: what the first of them met.
    """
    refused: CkptError | None = None
    precisions: tuple[Precision, ...] = ("float64", "float32")
    for precision in precisions:
        refused = None  # the last precision is what torch's users mostly have: its message is the plainest
        rule = Rounding(precision, MOST[precision] if tolerance is None else tolerance)
        for one in shown():
            try:
                return _run_both(source, target, one, seed, rule)
            except StoppedError as error:
                refused = refused or error
    assert refused is not None
    raise refused


def _run_both(source: Side, target: Side, shown: Shown, seed: int, rule: Rounding) -> Both:
    asked = " and ".join(shown.texts)
    its = source.run(shown.source, asked, seed, rule.precision)
    other = source.release()  # before the target is loaded: only one of them is in memory
    loaded = target.loaded
    parts = dict(loaded.module.named_modules())
    its_parts = dict(other.module.named_modules())
    pairing = pair_modules(
        loaded.origins, other.origins, list(parts), list(its_parts), (loaded.elements, other.elements)
    )
    owners = frozenset(key.rpartition(".")[0] for key in other.origins)
    around = frozenset(name for name, part in parts.items() if any(part.children()))
    aligned = tuple(
        one
        for name, others in pairing.others.items()
        if name not in around
        for one in align(name, parts[name], its_parts[others[0]])
    )
    comparer = Comparer(pairing, its, owners, around, rule)
    mine = target.run(shown.target, asked, seed, rule.precision, comparer.take)
    return Both(other, target.release(), mine, comparer, shown, aligned)
