"""The functions whose target is a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptool.api.given import checked
from ckptool.api.looking import open

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Unpack

    import torch

    from ckptool.api.loading import Report
    from ckptool.api.looking import Goal, Input
    from ckptool.api.options import LoadOptions, TransplantOptions
    from ckptool.commands.transplant.result import Transplant
    from ckptool.models.probing.report import ProbeReport


@checked
def plan_transplant(
    source: Input,
    target: Goal,
    *,
    model_args: Mapping[str, object] | None = None,
    select: str | None = None,
    allow: str | Sequence[str] = (),
    **options: Unpack[TransplantOptions],
) -> Transplant:
    """Plan a model's state dict out of another model's weights; `plan.apply` of what comes back writes it.

    Args:
        source: a path, or what `open` gave.
        target: "torchvision:resnet50", "timm:...", "hf:FOLDER", "net.py:Net", "package.module:function", the path of a
            checkpoint, or a live `torch.nn.Module`.
        model_args: arguments for the model, if `target` names one.
        recipe: a recipe, or what `-r` takes: a rule, a file, a built-in name, or several of them. By default keys that
            are equal meet, and a wrapper or submodule prefix is seen through.
        drop: key patterns of source tensors to leave out, as ``["fc.*"]``.
        mismatch: for tensors of another shape, "skip" keeps the model's own, "error" is a problem of the plan, "fit"
            makes them fit in the way that is usual for such a tensor.
        fits: {key pattern of the model: "grid(prefix=1)"}, before `mismatch`.
        init: {key pattern of the model: "normal(0.001)"} for what nothing fills.
        vars: numbers for the recipe, and names of lists of modules.
        new: key patterns of the model's tensors that are meant to start anew, as ``["classifier.*"]``: `strict` and
            `min_coverage` do not count them.
        seed: of the model's own init.
        only_loaded: the output holds only what came from the source.
        wrap: the output nests the weights under this key.
        strict: what torch would not load strictly stands in the plan's `unmet`.
        min_coverage: so does filling less than this share of the model's elements, 0 to 1.
        select: which dict of a file to take.
        allow: facts of the source to go on with although they refuse, such as "adapter"; the refusal names them.

    Raises:
        CkptError: a file or model cannot be opened, a pattern matches nothing, or nothing would be loaded.

    Example:
        >>> done = ckptool.plan_transplant("fixtures/tuned.safetensors", "fixtures/models.py:ResNet18")
        >>> done.tensors, done.elements, [entry.key for entry in done.entries if not entry.is_filled]
        ((120, 122), (11810, 13510), ['fc.weight', 'fc.bias'])
        >>> done.as_it_is.strict, done.as_it_is.mismatched
        (False, ('fc.weight', 'fc.bias'))
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     done.plan.apply(f"{folder}/resnet18.pth").tensors
        122
    """
    from dataclasses import replace

    from ckptool.api.options import asked_by, texts_of
    from ckptool.api.plan import Plan
    from ckptool.api.results import Transplant
    from ckptool.commands.consult import consulted
    from ckptool.commands.transplant.advice import with_python_suggestions
    from ckptool.commands.transplant.gates import loads, require_loaded
    from ckptool.commands.transplant.planning import plan_transplant as plan
    from ckptool.core.checkpoint import Checkpoint
    from ckptool.models import target_from

    asked = asked_by(options)
    checkpoint = source if isinstance(source, Checkpoint) else open(source, select or asked.recipe.asks_for)
    done = plan(checkpoint, target_from(target, model_args), asked)
    require_loaded(done if loads(done) else with_python_suggestions(done))
    return Transplant.of(replace(done, plan=Plan.of(consulted(done.plan, texts_of(allow), loads=True))))


@checked
def probe(
    transplant: Transplant,
    source_model: Goal,
    *,
    model_args: Mapping[str, object] | None = None,
    input_shape: Sequence[int] | None = None,
    seed: int = 0,
) -> ProbeReport:
    """Run one input through the source's model and the new one, and compare what their modules give.

    Args:
        transplant: what `plan_transplant` gave.
        source_model: the model that the source was saved from, live or named.
        model_args: arguments for it, if it is named.
        input_shape: of the input, as (1, 3, 224, 224), where it cannot be worked out.
        seed: of the input.

    Returns:
        What it found: `agree`, `is_proof`, and `first`, the first module whose output differs.

    Raises:
        CkptError: the source does not load strictly into its model, or a model stops on the input.

    Example:
        >>> rules = ckptool.match("fixtures/vit-hf.safetensors", "fixtures/models.py:ViT").recipe
        >>> done = ckptool.plan_transplant("fixtures/vit-hf.safetensors", "fixtures/models.py:ViT", recipe=rules)
        >>> found = ckptool.probe(done, "fixtures/models.py:SplitViT")
        >>> found.is_proof, found.first, len(found.unproven)
        (True, None, 0)
    """
    from ckptool.api.results import ProbeReport
    from ckptool.commands.probing import probe as run
    from ckptool.models import target_from

    return ProbeReport.of(run(transplant, target_from(source_model, model_args), input_shape=input_shape, seed=seed))


@checked
def load_into(
    model: torch.nn.Module, source: Input, *, select: str | None = None, **options: Unpack[LoadOptions]
) -> Report:
    """Load a checkpoint's weights into a live model, in place. Only the bytes that are needed are read.

    Args:
        model: a `torch.nn.Module` on any device; its dtypes stay.
        source: a path, or what `open` gave.
        drop: key patterns of source tensors to leave out, as ``["fc.*"]``.
        recipe: a recipe, or what `-r` takes: a rule, a file, a built-in name, or several of them.
        select: which dict of the file holds the weights.
        mismatch: for tensors of another shape, "skip" leaves the model's own, "error" refuses, "fit" makes them fit.
        fits: {key pattern of the model: "grid(prefix=1)"}, before `mismatch`.
        vars: numbers for the recipe, and names of lists of modules.
        new: key patterns of the model's tensors that are meant to start anew: `strict` and `min_coverage` do not count
            them.
        strict: refuse what torch would not load strictly.
        min_coverage: refuse if less than this share of the model's elements would be loaded.

    Returns:
        What was loaded and what was not; `print` it. Its `freeze` stops the training of what was loaded.

    Raises:
        PlanError: what was asked for cannot be done or is not met; the model is as it was.
        CkptError: the file cannot be read, or nothing would be loaded.
        PartlyLoadedError: reading failed after tensors were written to, for instance because the file changed; its
            `overwritten` has their keys.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential()
        >>> model.add_module("head", torch.nn.Linear(16, 100))
        >>> report = ckptool.load_into(model, "fixtures/resnet18.pth", recipe="fc. -> head.")
        >>> report.loaded, report.coverage, len(report.unexpected)
        (('head.weight', 'head.bias'), 1.0, 120)
        >>> report.freeze(model), model.head.weight.requires_grad
        (2, False)
    """
    from ckptool.api.loading import load_into as load

    return load(model, source, select, options)
