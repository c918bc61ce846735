"""merge: several checkpoints into one, as a union in which later ones win, or by a merge method."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ckptool.checkpoint import Checkpoint, Note
from ckptool.errors import PlanError, UsageError
from ckptool.spec import DTYPES, TensorSpec
from ckptool.surgery.filter import cast_value, float_dtype
from ckptool.surgery.plan import Apply, Dropped, Plan, Problem, Run, Source, Step

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

Keys = Literal["exact", "intersect", "union"]
_STATISTICS = (".running_mean", ".running_var")


def plan_merge(
    checkpoints: Sequence[Checkpoint],
    *,
    method: str | None = None,
    weights: Sequence[float] | None = None,
    base: Checkpoint | None = None,
    params: Mapping[str, float] | None = None,
    keys: Keys = "exact",
    dtype: str | None = None,
) -> Plan:
    """Plan one checkpoint out of several.

    Args:
        checkpoints: the inputs, in the order that counts.
        method: a name of `ckptool.surgery.methods.METHODS`; None for the union in which later inputs win.
        weights: a number for each input, 1 by default.
        base: the model that methods on differences start from.
        params: options of the method, by name.
        keys: what to do about keys that not every input has with one shape: "exact" makes them a problem,
            "intersect" leaves them out, "union" merges the inputs that have them.
        dtype: a float dtype for the result; by default each tensor's in the first input that has it.

    Raises:
        UsageError: for an unknown method or option, or a number of inputs or weights that does not fit.

    Example:
        >>> import ckptool
        >>> files = ["fixtures/resnet18.pth", "fixtures/tuned.safetensors"]
        >>> plan = plan_merge([ckptool.open(file) for file in files])
        >>> plan.steps[0].why
        'from tuned.safetensors, replaces resnet18.pth'
    """
    if method is None:
        for name, given in (("--weights", weights), ("--base", base), ("--param", params)):
            if given:
                raise UsageError(f"{name} needs a --method; without one, later files win key by key")
        return _union(checkpoints, float_dtype(dtype))
    op = _merged(method, len(checkpoints), weights, base, params or {})
    return _by_method(checkpoints, base, op, keys, float_dtype(dtype))


def _union(checkpoints: Sequence[Checkpoint], dtype: str | None) -> Plan:
    """Every key of every input, from the last input that has it."""
    names = [checkpoint.path.name for checkpoint in checkpoints]
    holders: dict[str, list[int]] = {}
    for number, checkpoint in enumerate(checkpoints):
        for key in checkpoint:
            holders.setdefault(key, []).append(number)
    steps: list[Step] = []
    dropped: list[Dropped] = []
    for key, numbers in holders.items():
        last = numbers[-1]
        tensor = checkpoints[last][key]
        before = ", ".join(names[number] for number in numbers[:-1])
        why = f"from {names[last]}, replaces {before}" if before else f"only in {names[last]}"
        value, spec = cast_value(Source(last, key), tensor, dtype)
        steps.append(Step(spec, value, why))
        dropped += [Dropped(Source(number, key), f"replaced by {names[last]}") for number in numbers[:-1]]
    return Plan(
        tuple(checkpoints),
        tuple(steps),
        tuple(dropped),
        metadata=_metadata(checkpoints),
        module_versions=_versions(checkpoints),
        request="merge",
    )


@dataclass(frozen=True, slots=True)
class Merged:
    """A merge method as an op: its arguments are the models' tensors, then the base's if it needs one.

    Attributes:
        method: its name in `ckptool.surgery.methods.METHODS`.
        weights: a number for each model.
        options: its options by name.
        has_base: the last argument is the base's tensor.
        is_elementwise: see `Method`.
    """

    method: str
    weights: tuple[float, ...]
    options: tuple[tuple[str, float], ...] = ()
    has_base: bool = False
    is_elementwise: bool = False

    @property
    def text(self) -> str:
        weights = ", ".join(f"{weight:g}" for weight in self.weights)
        options = "".join(f", {name}={value:g}" for name, value in self.options)
        return f"{self.method}({weights}{options})"

    def result(self, args: Sequence[TensorSpec]) -> TensorSpec:
        """In the first model's dtype."""
        if len({arg.shape for arg in args}) > 1:
            raise PlanError(f"{args[0].key} has not one shape: {', '.join(arg.short for arg in args)}", key=args[0].key)
        return args[0]

    def runs(self, args: Sequence[TensorSpec]) -> list[Run] | None:
        return None

    def compute(self, args: Sequence[Array]) -> Array:
        """In float64, rounded once."""
        import numpy as np

        from ckptool.surgery.methods import METHODS

        dtype = args[0].dtype
        tensors = [arg.astype(np.float64) for arg in args]
        keywords: dict[str, Any] = dict(self.options)
        if self.has_base:
            keywords["base"] = tensors.pop()
        with np.errstate(over="ignore", invalid="ignore"):  # NaN and Inf in, NaN and Inf out
            return METHODS[self.method].function(tensors, weights=self.weights, **keywords).astype(dtype)


def _merged(
    name: str, count: int, weights: Sequence[float] | None, base: Checkpoint | None, params: Mapping[str, float]
) -> Merged:
    from ckptool.surgery.methods import METHODS

    if name not in METHODS:
        raise UsageError(f'"{name}" is not a merge method', hint=f"one of {', '.join(METHODS)}")
    method = METHODS[name]
    unknown = [param for param in params if param not in method.options]
    if unknown:
        known = ", ".join(f"{option}={value:g}" for option, value in method.options.items()) or "no options"
        raise UsageError(f'{name} has no option "{unknown[0]}"', hint=f"it takes {known}")
    if method.needs_base and base is None:
        raise UsageError(f"{name} works on differences from a base model", hint="give it: --base base.safetensors")
    if base is not None and not method.needs_base:
        raise UsageError(f"{name} takes no base", hint="leave --base out, or name it as an input")
    if method.models is not None and count != method.models:
        raise UsageError(f"{name} takes {method.models} models, not {count}")
    if weights is not None and len(weights) != count:
        raise UsageError(f"{len(weights)} weights for {count} inputs", hint="one number for each input, in their order")
    given = tuple(1.0 for _ in range(count)) if weights is None else tuple(float(weight) for weight in weights)
    return Merged(name, given, tuple(params.items()), base is not None, method.is_elementwise)


def _by_method(
    checkpoints: Sequence[Checkpoint], base: Checkpoint | None, op: Merged, keys: Keys, dtype: str | None
) -> Plan:
    inputs = (*checkpoints, *([base] if base else []))
    steps: list[Step] = []
    dropped: list[Dropped] = []
    misfits: list[str] = []
    for key in dict.fromkeys(key for checkpoint in checkpoints for key in checkpoint):
        holders = [number for number, checkpoint in enumerate(inputs) if key in checkpoint]
        tensors = [inputs[number][key] for number in holders]
        fits = len(holders) == len(inputs) and len({tensor.shape for tensor in tensors}) == 1
        if not fits and keys == "exact":
            misfits.append(f"{key}: " + ", ".join(_held(checkpoint, key) for checkpoint in inputs))
        elif not fits and keys == "intersect":
            dropped += [Dropped(Source(number, key), "not in every input with one shape") for number in holders]
        else:
            steps.append(_step(key, inputs, holders, op, dtype))
    problems = (_misfit_problem(misfits),) if misfits else ()
    notes = _averaging_notes(steps)
    return Plan(
        inputs,
        tuple(steps),
        tuple(dropped),
        problems,
        notes=notes,
        frame=None,
        metadata=_metadata(checkpoints),
        module_versions=_versions(checkpoints),
        request=f"merge --method {op.method}",
    )


def _held(checkpoint: Checkpoint, key: str) -> str:
    return checkpoint[key].spec.short if key in checkpoint else "absent"


def _misfit_problem(misfits: Sequence[str]) -> Problem:
    count = len(misfits)
    return Problem(
        f"{count} key{'s do' if count > 1 else ' does'} not line up: {misfits[0]}",
        "--intersect leaves them out, --union merges the inputs that have them; other names: ckptool remap",
        tuple(misfits),
    )


def _step(key: str, inputs: Sequence[Checkpoint], holders: Sequence[int], op: Merged, dtype: str | None) -> Step:
    """One merged tensor; what cannot be averaged comes from the first input."""
    first = inputs[holders[0]][key]
    source = Source(holders[0], key)
    name = inputs[holders[0]].path.name
    if DTYPES[first.dtype].kind != "float" or first.layout != "strided" or DTYPES[first.dtype].bits < 8:
        what = {"int": "integers", "uint": "integers", "bool": "flags"}.get(DTYPES[first.dtype].kind, first.dtype)
        return Step(first.spec, source, f"from {name} ({what} are never averaged)")
    models = len(op.weights)
    alike = [number for number in holders if inputs[number][key].shape == first.shape]
    partial = replace(op, weights=tuple(op.weights[number] for number in alike if number < models))
    complete = len(alike) == len(inputs)
    if not complete and (len(partial.weights) < 2 or op.has_base or op.method != "linear"):
        value, spec = cast_value(source, first, dtype)
        return Step(spec, value, f"from {name} (not in every input)")
    chosen = op if complete else partial
    chosen = _seeded(chosen, key)
    value, spec = cast_value(Apply(chosen, tuple(Source(number, key) for number in alike)), first.spec, dtype)
    return Step(spec, value, op.text if complete else f"{partial.text} of those that have it")


def _seeded(op: Merged, key: str) -> Merged:
    """Methods that draw at random draw anew for each tensor, the same on every run."""
    from ckptool.surgery.methods import METHODS

    if "seed" not in METHODS[op.method].options:
        return op
    options = dict(op.options)
    options["seed"] = float(zlib.crc32(key.encode("utf-8", "surrogatepass")) + int(options.get("seed", 0)))
    return replace(op, options=tuple(options.items()))


def _averaging_notes(steps: Sequence[Step]) -> tuple[Note, ...]:
    averaged = tuple(step.target.key for step in steps if not step.is_copy and step.target.key.endswith(_STATISTICS))
    if not averaged:
        return ()
    return (
        Note(
            f"{len(averaged)} BatchNorm statistics are averaged, which does not give the merged model's statistics",
            "recompute them with a forward pass over training data (torch.optim.swa_utils.update_bn)",
            averaged,
            "warning",
        ),
    )


def _metadata(checkpoints: Sequence[Checkpoint]) -> dict[str, str]:
    """safetensors metadata that the inputs agree on, and what only one of them says."""
    merged: dict[str, str] = {}
    for checkpoint in checkpoints:
        merged.update(checkpoint.metadata)
    return merged


def _versions(checkpoints: Sequence[Checkpoint]) -> dict[str, int] | None:
    """Module versions of all inputs that have any, later ones winning."""
    known = [checkpoint.module_versions for checkpoint in checkpoints if checkpoint.module_versions is not None]
    return {module: version for versions in known for module, version in versions.items()} if known else None


def last_checkpoints(paths: Sequence[str], count: int) -> list[str]:
    """The last of some paths in natural order ("step-900" before "step-1000").

    Example:
        >>> last_checkpoints(["s-9.pth", "s-10.pth", "s-8.pth"], 2)
        ['s-9.pth', 's-10.pth']
    """
    from ckptool.keys import natural_key

    return sorted(paths, key=natural_key)[-count:]
