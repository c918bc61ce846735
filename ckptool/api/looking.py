"""The functions that look at checkpoints; each imports what it needs when it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, overload

from ckptool.api.given import checked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Unpack

    import torch

    from ckptool.api.matching import Automatic
    from ckptool.api.options import ReadOptions
    from ckptool.commands.checks.finding import Report as CheckReport
    from ckptool.commands.diff.result import Diff
    from ckptool.core.bytes import PathText
    from ckptool.core.checkpoint import Checkpoint
    from ckptool.models import Target
    from ckptool.recipes.recipe import Recipe
    from ckptool.values.delta import Tolerance
    from ckptool.values.stats import Stats

    Input: TypeAlias = Checkpoint | PathText
    Goal: TypeAlias = PathText | torch.nn.Module | Target | Checkpoint


@checked
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


@checked
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

    return Checkpoint.of(logical(opened(checkpoint), float_dtype(dtype)))


@overload
def compare(
    old: Input,
    new: Input,
    *,
    only: str | Sequence[str] = (),
    tolerance: Tolerance | None = None,
    keys_only: bool = False,
    threads: int = 2,
    recipe: Recipe | str | Sequence[str] | None = None,
) -> Diff: ...
@overload
def compare(
    old: Input,
    new: Input,
    *,
    only: str | Sequence[str] = (),
    tolerance: Tolerance | None = None,
    keys_only: bool = False,
    threads: int = 2,
    recipe: Recipe | str | Sequence[str] | None = None,
    **shared: Unpack[ReadOptions],
) -> Diff | None: ...
@checked
def compare(
    old: Input,
    new: Input,
    *,
    only: str | Sequence[str] = (),
    tolerance: Tolerance | None = None,
    keys_only: bool = False,
    threads: int = 2,
    recipe: Recipe | str | Sequence[str] | None = None,
    **shared: Unpack[ReadOptions],
) -> Diff | None:
    """Compare two checkpoints of any formats: keys, shapes, dtypes, and then values.

    Args:
        old: a path, or what `open` gave.
        new: the other one.
        only: key patterns, as ``"layer4.*"``; if any are given, everything else is left out.
        tolerance: how far values may be apart and still count as same; by default not at all.
        keys_only: compare headers and read no values.
        threads: how many at most read and compute.
        recipe: rules, or a recipe as `match` finds it, through which the old side is seen.
        part: (2, 8) reads the second of eight parts, other processes the others. What all of them found is returned by
            the one that finds all the others' records; the others return None.
        work: the folder in which they meet, on a file system that all of them see.

    Raises:
        CkptError: a file cannot be read, or a pattern or rule matches nothing, or processes ask for different things.

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
    from ckptool.api.parts import in_parts
    from ckptool.api.results import Diff
    from ckptool.commands.automatic import mapped_by
    from ckptool.commands.diff import result as plain
    from ckptool.commands.diff.comparison import compare as compare_checkpoints
    from ckptool.commands.diff.logical import logical_sides
    from ckptool.core.errors import UsageError
    from ckptool.recipes.recipe import recipe_from
    from ckptool.values.delta import Tolerance
    from ckptool.values.shared import agree

    rules = recipe_from(recipe)
    before, after = logical_sides(opened(old), opened(new))
    mapped = mapped_by(rules, before, after) if rules.stages else None
    bounds, chosen = tolerance or Tolerance(), texts_of(only)
    if keys_only and shared.get("part") is not None:
        raise UsageError("part= shares out values, and only headers are read", hint="leave out keys_only")

    def compared() -> plain.Diff:
        said = [[rule.text for rule in stage.rules] for stage in rules.stages]
        agree(("compare", chosen, bounds, said, rules.vars, rules.lists), (before, after))
        return compare_checkpoints(
            before, after, only=chosen, tolerance=bounds, keys_only=keys_only, threads=threads, mapped=mapped
        )

    found = in_parts(compared, shared)
    return None if found is None else Diff.of(found)


@checked
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
    specs = {key: tensor.spec for key, tensor in opened(source).items()}
    model = target_from(target, model_args)
    modules = model.modules or None
    given = Given(recipe_from(recipe))
    return Automatic.of(automatic(given, specs, model.specs, accept=Confidence(accept), modules=modules))


@overload
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
) -> CheckReport: ...
@overload
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
    **shared: Unpack[ReadOptions],
) -> CheckReport | None: ...
@checked
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
    **shared: Unpack[ReadOptions],
) -> CheckReport | None:
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
        part: (2, 8) reads the second of eight parts, other processes the others. What all of them found is returned by
            the one that finds all the others' records; the others return None.
        work: the folder in which they meet, on a file system that all of them see.

    Returns:
        Its `findings`, and `exit_code(level)`. What is wrong with a file is a finding, not an error.

    Raises:
        CkptError: there is nothing to check, or what the policy names cannot be used.

    Example:
        >>> report = ckptool.check("fixtures/tuned.safetensors", into="fixtures/resnet18.pth")
        >>> report.findings[0].rule, report.findings[0].keys, int(report.exit_code("error"))
        ('fits', ('fc.bias', 'fc.weight'), 1)
    """
    from dataclasses import replace

    from ckptool.api.options import texts_of
    from ckptool.api.parts import in_parts
    from ckptool.api.results import CheckReport
    from ckptool.commands.checks.policy import Policy, read_policy
    from ckptool.commands.checks.run import run_checks
    from ckptool.commands.checks.typed import with_base, with_model, without_typed_places
    from ckptool.core.bytes import HasPath
    from ckptool.storage.paths import local_path

    named = [paths] if isinstance(paths, str | HasPath) else list(paths)
    asked = Policy() if policy is None else read_policy(local_path(policy))
    asked = replace(with_base(with_model(asked, into, model_args), complete_with), is_trusted=trust_policy)
    files, chosen = [local_path(path) for path in named], None if rules is None else texts_of(rules)
    found = in_parts(lambda: run_checks(files, asked, rules=chosen, threads=threads), shared)
    return None if found is None else CheckReport.of(without_typed_places(found))


@overload
def stats(checkpoint: Input, *, only: str | Sequence[str] = (), threads: int = 2) -> dict[str, Stats]: ...
@overload
def stats(
    checkpoint: Input, *, only: str | Sequence[str] = (), threads: int = 2, **shared: Unpack[ReadOptions]
) -> dict[str, Stats] | None: ...
@checked
def stats(
    checkpoint: Input, *, only: str | Sequence[str] = (), threads: int = 2, **shared: Unpack[ReadOptions]
) -> dict[str, Stats] | None:
    """Mean, std, extremes, NaN, Inf, zeros and a histogram of each tensor, as ``inspect --stats`` shows them.

    Args:
        checkpoint: a path, or what `open` gave; quantized tensors are decoded by `dequantized`.
        only: key patterns; if any are given, everything else is left out.
        threads: how many at most read and compute.
        part: (2, 8) reads the second of eight parts, other processes the others. What all of them found is returned by
            the one that finds all the others' records; the others return None.
        work: the folder in which they meet, on a file system that all of them see.

    Returns:
        The statistics by key, in the order of the file. Tensors without numbers, as sparse ones, are left out.

    Raises:
        CkptError: a file cannot be read, or a pattern matches nothing.

    Example:
        >>> found = ckptool.stats("fixtures/resnet18.pth", only="fc.*")
        >>> list(found), found["fc.bias"].nan, found["fc.bias"].elements
        (['fc.weight', 'fc.bias'], 0, 100)
    """
    from ckptool.api.options import texts_of
    from ckptool.api.parts import in_parts
    from ckptool.core.near_miss import chosen_keys
    from ckptool.values.shared import agree
    from ckptool.values.stats import all_stats

    given = opened(checkpoint)
    keys = chosen_keys(given.tensors, texts_of(only), "only", given.path)

    def computed() -> dict[str, Stats]:
        agree(("stats", keys), (given,))
        return all_stats(given, keys, threads=threads)

    return in_parts(computed, shared)


def opened(given: Input) -> Checkpoint:
    """What `open` gave, or gives now for a path."""
    from ckptool.core.checkpoint import Checkpoint

    return given if isinstance(given, Checkpoint) else open(given)
