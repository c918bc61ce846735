"""load_into: a checkpoint's weights into a live model, and what was loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from ckptool.api.given import checked
from ckptool.api.options import LoadOptions, asked_by
from ckptool.api.shown import Shown
from ckptool.commands.consult import consulted
from ckptool.commands.transplant.advice import with_python_suggestions
from ckptool.commands.transplant.gates import loads, require_loaded
from ckptool.commands.transplant.planning import plan_transplant
from ckptool.commands.transplant.result import Transplant
from ckptool.core.bytes import PathText
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import PlanError, UsageError
from ckptool.models.entries import Filled
from ckptool.models.loading import fill_model

if TYPE_CHECKING:
    import torch

    from ckptool.report.document import Document


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Report(Shown):
    """What was loaded into a model, and what was not. `print(report)` is the table of `ckptool transplant`.

    Attributes:
        transplant: the decision, entry by entry.
    """

    transplant: Transplant

    def _document(self) -> Document:
        from ckptool.report.document_transplant import transplant_document

        done = with_python_suggestions(self.transplant)
        return transplant_document(done, str(done.source.path), "write")

    @property
    def loaded(self) -> tuple[str, ...]:
        """Keys of the model whose elements came from the checkpoint."""
        return tuple(entry.key for entry in self.transplant.filled)

    @property
    def missing(self) -> tuple[str, ...]:
        """Keys of the model that the checkpoint does not have; they are as they were."""
        return tuple(entry.key for entry in self.transplant.having(Filled.MISSING))

    @property
    def mismatched(self) -> tuple[str, ...]:
        """Keys whose tensors have another shape in the checkpoint; they are as they were."""
        return tuple(entry.key for entry in self.transplant.having(Filled.MISMATCHED))

    @property
    def unexpected(self) -> tuple[str, ...]:
        """Keys of the checkpoint, as the rules made them, that the model does not have."""
        return tuple(spec.key for spec in self.transplant.unexpected)

    @property
    def coverage(self) -> float:
        """Share of the model's elements that came from the checkpoint, 0 to 1."""
        return self.transplant.coverage

    @checked
    def freeze(self, model: torch.nn.Module, *, eval_batchnorm: bool = True) -> int:
        """Set `requires_grad_(False)` on the parameters that were loaded whole; on those that the recipe freezes.

        Args:
            model: the model that was loaded into.
            eval_batchnorm: also keep BatchNorms whose parameters are frozen in eval, through every later
                `model.train()` too, so that their running statistics stay; so do copies of the model, and those that
                `torch.save` wrote whole. `del norm.train` ends it.

        Returns:
            How many parameters are frozen.
        """
        parameters = dict(model.named_parameters(remove_duplicate=False))
        frozen = [key for key in self.transplant.freeze if key in parameters]
        for key in frozen:
            parameters[key].requires_grad_(False)
        for name in self.transplant.batchnorms if eval_batchnorm else ():
            norm = model.get_submodule(name).eval()
            norm.train = partial(stay_in_eval, norm)  # type: ignore[method-assign]
        return len(frozen)


def stay_in_eval(norm: torch.nn.Module, mode: bool = True) -> torch.nn.Module:
    """What frozen norms have in place of `Module.train`; a function with a name, which copies and pickles."""
    return norm


def load_into(
    model: torch.nn.Module, source: Checkpoint | PathText, select: str | None, options: LoadOptions
) -> Report:
    """Load a checkpoint's weights into a model, in place. See `ckptool.load_into`."""
    from ckptool.formats.opening import open_checkpoint
    from ckptool.models import target_of

    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise UsageError(
            "the model is on the meta device: it has no memory to load into", hint='model.to_empty(device="cpu")'
        )
    asked = replace(asked_by(options), only_loaded=True, live=True)
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source, select or asked.recipe.asks_for)
    transplant = plan_transplant(checkpoint, target_of(model), asked)
    require_loaded(transplant if loads(transplant) else with_python_suggestions(transplant))
    plan = consulted(transplant.plan, loads=True)
    for problem in (*plan.problems, *plan.unmet):
        raise PlanError(problem.message, hint=problem.hint or None, path=checkpoint.path)
    fill_model(model, transplant.plan)
    return Report(transplant)
