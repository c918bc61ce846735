"""The functions that plan a checkpoint out of others, and the one that makes a patch of two."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptool.api.given import checked
from ckptool.api.looking import opened

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ckptool.api.looking import Input
    from ckptool.api.plan import Plan
    from ckptool.api.results import Extracted, ExtractedLora
    from ckptool.commands.merging.merge import Keys
    from ckptool.core import plan as core
    from ckptool.core.bytes import PathText
    from ckptool.core.checkpoint import Checkpoint
    from ckptool.recipes.recipe import Recipe


@checked
def plan_filter(
    checkpoint: Input,
    choices: Sequence[tuple[str, str]] = (),
    *,
    dtype: str | None = None,
    only_weights: bool = False,
) -> Plan:
    """Plan an output that holds some of a checkpoint's tensors; `Plan.apply` writes it, in any format.

    Args:
        checkpoint: a path, or what `open` gave.
        choices: ("keep" or "drop", key pattern) in order, the later wins. If the first is a keep, all else is dropped.
        dtype: a float dtype that floats are cast to, as "bf16"; integers are never cast.
        only_weights: leave everything but the weights behind.

    Raises:
        CkptError: a pattern matches nothing, or there is no such dtype.

    Example:
        >>> plan = ckptool.plan_filter("fixtures/resnet18.pth", [("drop", "fc.*")], dtype="bf16")
        >>> plan.steps[0].target.short, plan.steps[0].reason, plan.nbytes
        ('bf16[2,3,7,7]', ByOption(option='--dtype', value='bfloat16'), 23740)
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = plan.apply(f"{folder}/body.safetensors")
        ...     len(ckptool.open(written.path))
        120
    """
    from ckptool.api.plan import Plan
    from ckptool.commands.filter import plan_filter as plan

    return Plan.of(plan(opened(checkpoint), tuple(choices), dtype=dtype, only_weights=only_weights))


@checked
def plan_remap(
    checkpoint: Input,
    recipe: Recipe | str | Sequence[str],
    *,
    reverse: bool = False,
    vars: Mapping[str, float | str] | None = None,
    like: Input | None = None,
    dtype: str | None = None,
    select: str | None = None,
    tokenizers: tuple[PathText, PathText] | None = None,
) -> Plan:
    """Plan what a recipe makes of a checkpoint.

    Args:
        checkpoint: a path, or what `open` gave.
        recipe: rules ``"FROM -> TO"``, names of recipe files and of built-in recipes, in order.
        reverse: do it backwards.
        vars: numbers that come before those of the recipe, and the names of lists of modules.
        like: a checkpoint with the keys and shapes that are to come out; the plan's `unmet` says what does not fit.
        dtype: a float dtype that floats are cast to.
        select: which dict of a file to take.
        tokenizers: that of the checkpoint and a new one, files or folders, whose tokens the rows of embeddings follow;
            the rows of new tokens are the mean of all rows.

    Returns:
        A plan; where its `problems` say that keys clash or rules match nothing, it cannot be applied.

    Raises:
        CkptError: a rule is malformed, or cannot be reversed.

    Example:
        >>> plan = ckptool.plan_remap("fixtures/training.ckpt", ["strip-wrappers", "fc. -> head."])
        >>> [step.target.key for step in plan.steps][-2:]
        ['head.weight', 'head.bias']
        >>> ckptool.plan_remap("fixtures/resnet18.pth", ["head. -> fc."]).problems[0].message
        'rule 1 "head. -> fc." matches none of the 122 keys'
    """
    from ckptool.api.plan import Plan
    from ckptool.commands.remap import open_sources
    from ckptool.commands.remap import plan_remap as plan
    from ckptool.core.checkpoint import Checkpoint
    from ckptool.recipes.recipe import recipe_from

    parsed = recipe_from(recipe)
    sources, prefixes = (
        ((checkpoint,), ()) if isinstance(checkpoint, Checkpoint) else open_sources(checkpoint, parsed, select)
    )
    target = None if like is None else opened(like)
    tokens = None
    if tokenizers is not None:
        from ckptool.commands.vocabulary import tokenizers as both

        old, new = tokenizers
        tokens = both(new, old)
    wanted = plan(
        sources, parsed, backwards=reverse, prefixes=prefixes, vars=vars, like=target, dtype=dtype, tokens=tokens
    )
    return Plan.of(wanted)


@checked
def plan_merge(
    checkpoints: Input | Sequence[Input],
    *,
    method: str | None = None,
    weights: Sequence[float] | None = None,
    base: Input | None = None,
    params: Mapping[str, float] | None = None,
    keys: Keys = "exact",
    dtype: str | None = None,
    lora: Input | None = None,
) -> Plan:
    """Plan one checkpoint out of several: the union in which later ones win, a mix by a merge method, or an adapter.

    Args:
        checkpoints: paths, or what `open` gave, in the order that counts; one is enough for an adapter.
        method: "linear", "slerp", "ties", ...; ``ckptool merge --methods`` lists them. None for the union.
        weights: a number for each input.
        base: the model that methods on differences start from.
        params: options of the method, by name; for an adapter "scale", a further factor.
        keys: what to do about keys that not every input has with one shape: "exact", "intersect" or "union".
        dtype: a float dtype for the result.
        lora: an adapter to merge into the one input.

    Raises:
        CkptError: there is no such method or option, or it does not fit the inputs.

    Example:
        >>> plan = ckptool.plan_merge(["fixtures/resnet18.pth", "fixtures/shards"], method="linear", weights=[3, 1])
        >>> plan.steps[0].reason
        Mixed(notation='linear(3, 1)', partial=False)
        >>> union = ckptool.plan_merge(["fixtures/resnet18.pth", "fixtures/tuned.safetensors"])
        >>> union.steps[0].reason
        FromInput(input=1, replaced=((0, None),))
    """
    from ckptool.api.plan import Plan
    from ckptool.commands.merging.merge import plan_merge as plan
    from ckptool.core.bytes import HasPath
    from ckptool.core.checkpoint import Checkpoint

    several = [checkpoints] if isinstance(checkpoints, str | HasPath | Checkpoint) else checkpoints
    inputs = [opened(checkpoint) for checkpoint in several]
    if lora is not None:
        return Plan.of(_with_adapter(inputs, opened(lora), params or {}, dtype, bool(method or weights or base)))
    start = None if base is None else opened(base)
    return Plan.of(plan(inputs, method=method, weights=weights, base=start, params=params, keys=keys, dtype=dtype))


def _with_adapter(
    inputs: Sequence[Checkpoint], adapter: Checkpoint, params: Mapping[str, float], dtype: str | None, is_mix: bool
) -> core.Plan:
    from ckptool.commands.merging.lora import plan_adapter
    from ckptool.core.errors import UsageError

    if len(inputs) != 1 or is_mix or params.keys() - {"scale"}:
        raise UsageError(
            "an adapter goes into one base model, without a method", hint="plan_merge([BASE], lora=ADAPTER)"
        )
    return plan_adapter(inputs[0], adapter, scale=params.get("scale", 1.0), dtype=dtype)


@checked
def extract(
    base: Input, tuned: Input, out: PathText | None = None, *, force: bool = False, threads: int = 2
) -> Extracted:
    """Make a patch that turns one checkpoint into another, bit by bit; without `out` it is only measured.

    Args:
        base: a path, or what `open` gave: what the patch will be applied to.
        tuned: what comes out then.
        out: a safetensors file.
        force: replace an existing file.
        threads: that deflate.

    Raises:
        CkptError: a file cannot be read, a tensor cannot stand in a patch, or the output cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     out = f"{folder}/p.safetensors"
        ...     patch = ckptool.extract("fixtures/resnet18.pth", "fixtures/tuned.safetensors", out)
        ...     plan = ckptool.plan_patch("fixtures/resnet18.pth", out)
        ...     written = plan.apply(f"{folder}/tuned2.safetensors")
        ...     ckptool.compare(written.path, "fixtures/tuned.safetensors").is_same, patch.manifest.counts["changed"]
        (True, 114)
    """
    from ckptool.api.results import Extracted
    from ckptool.commands.patching.extract import extract as run
    from ckptool.storage.staging import staged_file

    before, after = opened(base), opened(tuned)
    if out is None:
        return Extracted.of(run(before, after, threads=threads))
    with staged_file(out, force=force) as sink:
        return Extracted.of(run(before, after, sink, threads=threads))


@checked
def extract_lora(
    base: Input,
    tuned: Input,
    out: PathText | None = None,
    *,
    rank: int,
    dtype: str | None = None,
    modules_to_save: bool = False,
    force: bool = False,
) -> ExtractedLora:
    """Make a LoRA adapter of what tuning changed, in PEFT's format; without `out` it is only planned.

    Args:
        base: a path, or what `open` gave: what the adapter is for.
        tuned: what it comes close to.
        out: a folder.
        rank: the largest of a layer's change.
        dtype: a float dtype for the factors; by default float32.
        modules_to_save: True to save other modules that changed (norms) in full.
        force: replace an existing adapter.

    Raises:
        CkptError: a file cannot be read, nothing changed that an adapter holds, or the output cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     adapter = ckptool.extract_lora("fixtures/resnet18.pth", "fixtures/tuned.safetensors", folder, rank=4)
        ...     plan = ckptool.plan_merge("fixtures/resnet18.pth", lora=folder)
        >>> len(adapter.with_fate("adapted")), round(adapter.kept, 2)
        (19, 0.45)
    """
    from ckptool.api.results import ExtractedLora
    from ckptool.commands.patching.lora import base_name, replaceable, stage_name
    from ckptool.commands.patching.lora import extract_lora as run
    from ckptool.commands.patching.lora_result import LoraOptions
    from ckptool.storage.staging import staged_folder
    from ckptool.storage.targets import check_target

    options = LoraOptions(rank, dtype or "float32", modules_to_save)
    before, after = opened(base), opened(tuned)
    if out is None:
        return ExtractedLora.of(run(before, after, options))
    check_target(out, [*before.paths, *after.paths], replaceable, force=force)
    with staged_folder(out, stage_name(before, after, options), replaceable, force=force) as stage:
        return ExtractedLora.of(run(before, after, options, stage, name=base_name(before.path)))


@checked
def plan_patch(base: Input, *patches: Input) -> Plan:
    """Plan what patches make of their base, one after the other. Digests are compared at once, which reads the base.

    Args:
        base: a path, or what `open` gave.
        patches: those that `extract` wrote, in the order in which they apply.

    Raises:
        CkptError: a patch is for another base, is damaged, or is none.
    """
    from ckptool.api.plan import Plan
    from ckptool.commands.patching.apply import plan_patches

    return Plan.of(plan_patches(opened(base), [opened(patch) for patch in patches]))
