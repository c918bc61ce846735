"""The functions of the Python API. Each imports what it needs when it is called: importing this costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Unpack

    import torch

    from ckptool.api.loading import Report
    from ckptool.api.matching import Automatic
    from ckptool.api.options import LoadOptions, TransplantOptions
    from ckptool.api.plan import Plan
    from ckptool.api.results import Extracted
    from ckptool.commands.checks.finding import Report as CheckReport
    from ckptool.commands.diff.result import Diff
    from ckptool.commands.merging.merge import Keys
    from ckptool.commands.transplant.result import Transplant
    from ckptool.core import plan as core
    from ckptool.core.bytes import PathText
    from ckptool.core.checkpoint import Checkpoint
    from ckptool.models import Target
    from ckptool.models.probing.report import ProbeReport
    from ckptool.recipes.recipe import Recipe
    from ckptool.values.delta import Tolerance

    Input: TypeAlias = Checkpoint | PathText
    Goal: TypeAlias = PathText | torch.nn.Module | Target | Checkpoint


def open(path: PathText, select: str | None = None) -> Checkpoint:
    """Open a checkpoint of any format, told by its content. Reads headers only; holds no file open.

    Args:
        path: a file, or a folder of shards; or an address, ``hf://OWNER/NAME[@REVISION][/FILE]``, ``https://HOST/FILE``,
            ``s3://BUCKET/KEY``, of which ranges are read. A branch is looked up anew at each call.
        select: dotted path of the dict that holds the weights, as "model_ema"; by default the one that is meant.

    Raises:
        CkptError: it is not a checkpoint, is damaged, or has no such dict.

    Example:
        >>> checkpoint = ckptool.open("fixtures/training.ckpt")
        >>> str(checkpoint.format), len(checkpoint), checkpoint.selection.name
        ('torch zip', 122, 'state_dict')
        >>> [extra.name for extra in checkpoint.extras]
        ['epoch', 'arch', 'best_acc1', 'args', 'model_ema', 'optimizer', 'lr_scheduler']

        The same file's moving average, and one of its tensors as a numpy array:

        >>> average = ckptool.open("fixtures/training.ckpt", select="model_ema")
        >>> with ckptool.Reader() as reader:
        ...     reader.array(average["fc.weight"]).shape
        (100, 16)
    """
    from ckptool.api.shown import Checkpoint
    from ckptool.formats.opening import open_checkpoint

    return Checkpoint.of(open_checkpoint(path, select=select))


def compare(
    old: Input,
    new: Input,
    *,
    only: str | Sequence[str] = (),
    tolerance: Tolerance | None = None,
    keys_only: bool = False,
    threads: int = 2,
    recipe: Recipe | str | Sequence[str] | None = None,
) -> Diff:
    """Compare two checkpoints of any formats: keys, shapes, dtypes, and then values.

    Args:
        old: a path, or what `open` gave.
        new: the other one.
        only: key patterns, as ``"layer4.*"``; if any are given, everything else is left out.
        tolerance: how far values may be apart and still count as same; by default not at all.
        keys_only: compare headers and read no values.
        threads: how many at most read and compute.
        recipe: rules, or a recipe as `match` finds it, through which the old side is seen.

    Raises:
        CkptError: a file cannot be read, or a pattern or rule matches nothing.

    Example:
        >>> diff = ckptool.compare("fixtures/resnet18.pth", "fixtures/tuned.safetensors")
        >>> diff.count(ckptool.Status.SAME), diff.count(ckptool.Status.CHANGED), diff.count(ckptool.Status.RESHAPED)
        (6, 114, 2)
        >>> sorted(change.key for change in diff.changes if change.status is ckptool.Status.RESHAPED)
        ['fc.bias', 'fc.weight']
        >>> loose = ckptool.Tolerance(rel=1e-3)
        >>> ckptool.compare(diff.old, diff.new, only=["layer1.*.weight"], tolerance=loose).is_same
        True
    """
    from ckptool.api.options import texts_of
    from ckptool.api.results import Diff
    from ckptool.commands.automatic import mapped_by
    from ckptool.commands.diff.comparison import compare as compare_checkpoints
    from ckptool.commands.diff.logical import logical_sides
    from ckptool.recipes.recipe import recipe_from
    from ckptool.values.delta import Tolerance

    rules = recipe_from(recipe)
    before, after = logical_sides(_opened(old), _opened(new))
    diff = compare_checkpoints(
        before,
        after,
        only=texts_of(only),
        tolerance=tolerance or Tolerance(),
        keys_only=keys_only,
        threads=threads,
        mapped=mapped_by(rules, before, after) if rules.stages else None,
    )
    return Diff.of(diff)


def dequantized(checkpoint: Input, dtype: str | None = None) -> Checkpoint:
    """A checkpoint with decoded tensors in place of its quantized ones: what ``--dequantize`` makes of it.

    Everything that takes a checkpoint takes it: `plan_filter`, `plan_remap`, `plan_merge`, `plan_transplant`,
    `load_into`, `compare`, `Reader`. Nothing is decoded before it is read, and then in blocks.

    Args:
        checkpoint: a path, or what `open` gave.
        dtype: of the decoded tensors, as "f32"; by default what the file or its config names, else bfloat16.

    Raises:
        CkptError: a quantized tensor cannot be decoded, or there is no such dtype.

    Example:
        >>> stored = ckptool.open("fixtures/fp8")
        >>> key = "model.layers.0.mlp.up_proj.weight"
        >>> stored[key].spec.short, ckptool.dequantized(stored)[key].spec.short
        ('f8_e4m3fn[40,32]', 'bf16[40,32]')
        >>> len(stored), len(ckptool.dequantized(stored))
        (10, 6)
    """
    from ckptool.api.shown import Checkpoint
    from ckptool.commands.filter import float_dtype
    from ckptool.engine.dequantize import dequantized as logical

    return Checkpoint.of(logical(_opened(checkpoint), float_dtype(dtype)))


def match(
    source: Input,
    target: Goal,
    *,
    recipe: Recipe | str | Sequence[str] | None = None,
    accept: str = "aligned",
    model_args: Mapping[str, object] | None = None,
) -> Automatic:
    """Which tensor of one side belongs to which of the other, from names, shapes and order; headers only.

    Args:
        source: a path, or what `open` gave.
        target: a checkpoint, a live `torch.nn.Module`, or a model as `plan_transplant` takes it.
        recipe: rules that come first; what they make is matched.
        accept: the least confidence: "certain", "unique", "aligned", "guess" or "interchangeable".
        model_args: arguments for the model, if `target` names one.

    Returns:
        Its `recipe` goes into `plan_remap`, `plan_transplant`, `load_into` and `compare`; its `text` is what was found
        as TOML, with the evidence; its `report` has the pairs.

    Raises:
        CkptError: a file or model cannot be opened, or there is no such confidence.

    Example:
        >>> found = ckptool.match("fixtures/deit.pth", "fixtures/vit-hf.safetensors")
        >>> len(found.report.pairs), len(found.recipe.rules), found.report.unmatched_targets
        (32, 8, ())
        >>> found.report.pairs[0].evidence[-1].name
        'WORDS_AGREE'
        >>> ckptool.compare("fixtures/deit.pth", "fixtures/vit-hf.safetensors", recipe=found.recipe).count("changed")
        0
    """
    from ckptool.api.matching import Automatic
    from ckptool.commands.automatic import Given, automatic
    from ckptool.core.errors import UsageError
    from ckptool.matching.result import Confidence
    from ckptool.models import target_from
    from ckptool.recipes.recipe import recipe_from

    if accept not in {one.value for one in Confidence}:
        raise UsageError(f'accept = "{accept}"', hint=f"it is one of {', '.join(one.value for one in Confidence)}")
    specs = {key: tensor.spec for key, tensor in _opened(source).items()}
    model = target_from(target, model_args)
    modules = model.modules or None
    given = Given(recipe_from(recipe))
    return Automatic.of(automatic(given, specs, model.specs, accept=Confidence(accept), modules=modules))


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

    return Plan.of(plan(_opened(checkpoint), choices, dtype=dtype, only_weights=only_weights))


def plan_remap(
    checkpoint: Input,
    recipe: Recipe | str | Sequence[str],
    *,
    reverse: bool = False,
    vars: Mapping[str, float] | None = None,
    like: Input | None = None,
    dtype: str | None = None,
    select: str | None = None,
) -> Plan:
    """Plan what a recipe makes of a checkpoint.

    Args:
        checkpoint: a path, or what `open` gave.
        recipe: rules ``"FROM -> TO"``, names of recipe files and of built-in recipes, in order.
        reverse: do it backwards.
        vars: numbers that come before those of the recipe.
        like: a checkpoint with the keys and shapes that are to come out; the plan's `unmet` says what does not fit.
        dtype: a float dtype that floats are cast to.
        select: which dict of a file to take.

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
    target = None if like is None else _opened(like)
    return Plan.of(plan(sources, parsed, backwards=reverse, prefixes=prefixes, vars=vars, like=target, dtype=dtype))


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
    from collections.abc import Sequence

    from ckptool.api.plan import Plan
    from ckptool.commands.merging.merge import plan_merge as plan

    several = checkpoints if isinstance(checkpoints, Sequence) and not isinstance(checkpoints, str) else [checkpoints]
    inputs = [_opened(checkpoint) for checkpoint in several]
    if lora is not None:
        return Plan.of(_with_adapter(inputs, _opened(lora), params or {}, dtype, bool(method or weights or base)))
    start = None if base is None else _opened(base)
    return Plan.of(plan(inputs, method=method, weights=weights, base=start, params=params, keys=keys, dtype=dtype))


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
        vars: numbers for the recipe.
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
    from ckptool.commands.transplant.gates import require_loaded
    from ckptool.commands.transplant.planning import plan_transplant as plan
    from ckptool.core.checkpoint import Checkpoint
    from ckptool.models import target_from

    asked = asked_by(options)
    checkpoint = source if isinstance(source, Checkpoint) else open(source, select or asked.recipe.asks_for)
    done = plan(checkpoint, target_from(target, model_args), asked)
    require_loaded(done)
    return Transplant.of(replace(done, plan=Plan.of(consulted(done.plan, texts_of(allow), loads=True))))


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
        vars: numbers for the recipe.
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


def check(
    paths: Sequence[PathText] | PathText,
    *,
    policy: PathText | None = None,
    into: str | None = None,
    model_args: Mapping[str, object] | None = None,
    complete_with: PathText | None = None,
    rules: str | Sequence[str] | None = None,
    trust_policy: bool = False,
    threads: int = 2,
) -> CheckReport:
    """Check checkpoints: readable, safe, finite, and as a policy requires.

    Args:
        paths: files and folders; folders are searched through.
        policy: a policy file. By default there is none, wherever this is called: only the rules that always hold.
        into: what all of them must fit: "torchvision:resnet18", "net.py:Net", or the path of a checkpoint.
        model_args: arguments for that model.
        complete_with: a checkpoint whose tensors all of them must have.
        rules: only these; ``ckptool check --rules`` lists them.
        trust_policy: the policy may run the code of models and name files outside its folder.
        threads: how many at most read and compute.

    Returns:
        Its `findings`, and `exit_code(level)`. What is wrong with a file is a finding, not an error.

    Raises:
        CkptError: there is nothing to check, or what the policy names cannot be used.

    Example:
        >>> report = ckptool.check("fixtures/tuned.safetensors", into="fixtures/resnet18.pth")
        >>> report.findings[0].rule, report.findings[0].keys, int(report.exit_code("error"))
        ('fits', ('fc.bias', 'fc.weight'), 1)
    """
    from collections.abc import Sequence
    from dataclasses import replace

    from ckptool.api.options import texts_of
    from ckptool.api.results import CheckReport
    from ckptool.commands.checks.policy import Policy, read_policy
    from ckptool.commands.checks.run import run_checks
    from ckptool.commands.checks.typed import with_base, with_model, without_typed_places
    from ckptool.storage.paths import local_path

    named = list(paths) if isinstance(paths, Sequence) and not isinstance(paths, str) else [paths]
    asked = Policy() if policy is None else read_policy(local_path(policy))
    asked = replace(with_base(with_model(asked, into, model_args), complete_with), is_trusted=trust_policy)
    found = run_checks(
        [local_path(path) for path in named], asked, rules=None if rules is None else texts_of(rules), threads=threads
    )
    return CheckReport.of(without_typed_places(found))


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

    before, after = _opened(base), _opened(tuned)
    if out is None:
        return Extracted.of(run(before, after, threads=threads))
    with staged_file(out, force=force) as sink:
        return Extracted.of(run(before, after, sink, threads=threads))


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

    return Plan.of(plan_patches(_opened(base), [_opened(patch) for patch in patches]))


def _opened(given: Input) -> Checkpoint:
    from ckptool.core.checkpoint import Checkpoint

    return given if isinstance(given, Checkpoint) else open(given)
