"""probe: one input through the source's model and the model that a plan fills, and where their outputs part."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ckptool.commands.transplant.planning import plan_transplant
from ckptool.commands.transplant.result import Asked, Transplant
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import CkptError
from ckptool.core.plan import Plan
from ckptool.models import Target, open_target
from ckptool.models.entries import Filled
from ckptool.models.probing.building import Loaded, check_plan, load_filled, load_plan
from ckptool.models.probing.probe import probe_models
from ckptool.models.probing.report import ProbeReport


def probe(
    done: Transplant,
    source_model: Target | str,
    *,
    input_shape: Sequence[int] | None = None,
    seed: int = 0,
    tolerance: float | None = None,
) -> ProbeReport:
    """Run one input through both models and compare what their modules make of it.

    Both models run on the CPU, in eval mode and float64; in float32 where their code does not take that. Modules are
    compared if they have the same tensors, as the plan has it. Source tensors that hold one number throughout (zero
    biases, the ones of new norms) are varied, and tiny ones (layer scales) enlarged, the same way for both models: an
    exchange would not show otherwise.

    Args:
        done: the transplant; its plan is run in memory.
        source_model: the model that the source was saved from: a target, or its name as for ``--into``.
        input_shape: of the input, where it cannot be worked out or should be another.
        seed: of the input, and of whatever the models draw.
        tolerance: the largest difference that may be rounding, in standard deviations of an output; see `rounding`.

    Raises:
        CkptError: the source does not load strictly into its model, a model cannot be built or stops on the input, or
            the input cannot be worked out.

    Example:
        >>> import ckptool
        >>> from ckptool.commands.transplant.planning import plan_transplant
        >>> old = ckptool.open("fixtures/resnet18-102.pth")
        >>> done = plan_transplant(old, open_target("fixtures/models.py:Baseline"), Asked(drop=("fc.*",)))
        >>> found = probe(done, "fixtures/models.py:ResNet18", input_shape=(1, 3, 64, 64))
        >>> found.agree, found.first.target, found.first.settings[0]
        (False, 'base.layer4.0.downsample.0', ('stride', '(1, 1)', '(2, 2)'))
    """
    return _probe(done.source, source_model, done.target, lambda: _load(done, seed), (input_shape, seed, tolerance))


def probe_plan(
    plan: Plan,
    source_model: Target | str,
    target_model: Target | str,
    *,
    input_shape: Sequence[int] | None = None,
    seed: int = 0,
    tolerance: float | None = None,
) -> ProbeReport:
    """The same for what a remap makes; its keys are those of `target_model`. See `probe`.

    Raises:
        CkptError: besides, the plan joins several files, or makes what the target's model does not have.
    """
    if len(plan.inputs) != 1:
        raise CkptError(
            "the probe loads one file into the source's model, and here are several", hint="join them first"
        )
    target = open_target(target_model) if isinstance(target_model, str) else target_model
    check_plan(plan, target)
    numbers = (input_shape, seed, tolerance)
    return _probe(plan.inputs[0], source_model, target, lambda: load_plan(plan, target, seed), numbers)


def _probe(
    checkpoint: Checkpoint,
    source_model: Target | str,
    target: Target,
    load_target: Callable[[], Loaded],
    numbers: tuple[Sequence[int] | None, int, float | None],
) -> ProbeReport:
    model = open_target(source_model) if isinstance(source_model, str) else source_model
    return probe_models(model, target, lambda: _load_source(checkpoint, model, numbers[1]), load_target, numbers)


def _load_source(source: Checkpoint, target: Target, seed: int) -> Loaded:
    """The source in the model that it was saved from; a prefix that a wrapper left is seen through.

    Raises:
        CkptError: it does not load strictly.
    """
    done = plan_transplant(source, target, Asked(seed=seed, only_loaded=True))
    left = [entry for entry in done.entries if not entry.is_filled and not entry.is_harmless]
    shapes = [entry.key for entry in left if entry.status is Filled.MISMATCHED]
    missing = [entry.key for entry in left if entry.status is not Filled.MISMATCHED]
    counts = (("missing", missing), ("of another shape", shapes), ("unexpected", [s.key for s in done.unexpected]))
    wrong = [f"{len(keys):,} {what} ({keys[0]})" for what, keys in counts if keys]
    if wrong or done.plan.problems:
        said = ", ".join(wrong) or done.plan.problems[0].message
        raise CkptError(
            f"{source.path.name} does not load strictly into {target.name}: {said}",
            hint="the probe needs the very model that the file was saved from, with its --model-arg",
            path=source.path,
        )
    return _load(done, seed)


def _load(done: Transplant, seed: int) -> Loaded:
    return load_filled(done.plan, done.target, done.entries, (done.asked.seed, seed))
