"""merge: several checkpoints into one, as a union in which later ones win, or by a merge method."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from ckptool.commands.filter import cast_value, float_dtype, module_notes
from ckptool.commands.merging.mixing import Mix, mix, rehearse
from ckptool.commands.merging.notes import (
    Inputs,
    count_of,
    misfit_problem,
    mixing_notes,
    not_taken,
    wrapper_notes,
)
from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.errors import UsageError
from ckptool.core.plan import Apply, Command, Dropped, Plan, Source, Step
from ckptool.core.reasons import (
    FromInput,
    Mixed,
    NotInAll,
    NotTaken,
    ReplacedBy,
    TooFew,
    Unmixable,
    Unmixed,
    WeightsOnly,
)
from ckptool.core.spec import DTYPES, TensorSpec
from ckptool.core.tensor import Tensor
from ckptool.core.ties import with_recorded_ties

Keys = Literal["exact", "intersect", "union"]
_KINDS = {"int": "integers", "uint": "integers", "bool": "booleans", "complex": "complex numbers"}


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
        method: a name of `ckptool.commands.merging.methods.METHODS`; None for the union in which later inputs win.
        weights: a number for each input, 1 by default.
        base: the model that methods on differences start from.
        params: options of the method, by name.
        keys: what to do about keys that not every input has with one shape: "exact" makes them a problem,
            "intersect" leaves them out, "union" merges the inputs that have them.
        dtype: a float dtype for the result; by default each tensor's in the first input that has it.

    Returns:
        A union keeps what the first input holds beside its weights; the output of a method holds weights only.

    Raises:
        UsageError: for an unknown method or option, or a number of inputs or weights that does not fit.

    Example:
        >>> import ckptool
        >>> files = ["fixtures/resnet18.pth", "fixtures/tuned.safetensors"]
        >>> plan = plan_merge([ckptool.open(file) for file in files])
        >>> plan.steps[0].reason
        FromInput(input=1, replaced=((0, None),))
    """
    if not checkpoints:
        raise UsageError("there is nothing to merge", hint="name the checkpoints")
    checkpoints = [with_recorded_ties(checkpoint) for checkpoint in checkpoints]
    base = None if base is None else with_recorded_ties(base)
    wanted = float_dtype(dtype)
    if method is None:
        for name, given in (("--weights", weights), ("--base", base), ("--param", params)):
            if given:
                raise UsageError(
                    f"{name} needs a --method; without one, later files win key by key",
                    hint="add --method linear; all methods: ckptool merge --methods",
                )
        return _union(checkpoints, wanted)
    has_base = base is not None
    op = mix(method, len(checkpoints), weights=weights, has_base=has_base, params=params, dtype=wanted)
    return _mixed(Inputs((*checkpoints, base) if base is not None else tuple(checkpoints), has_base), op, keys)


def last_checkpoints(paths: Sequence[str], count: int) -> list[str]:
    """The last of some paths in natural order ("step-900" before "step-1000").

    Raises:
        UsageError: there are not as many.

    Example:
        >>> last_checkpoints(["s-9.pth", "s-10.pth", "s-8.pth"], 2)
        ['s-9.pth', 's-10.pth']
    """
    from ckptool.core.keys import natural_key

    if not 1 <= count <= len(paths):
        raise UsageError(f"the last {count} of {len(paths)} checkpoints cannot be taken", hint=f"1 to {len(paths)}")
    return sorted(paths, key=natural_key)[-count:]


# ------------------------------------------------------------------------------------------------------- union


def _union(checkpoints: Sequence[Checkpoint], dtype: str | None) -> Plan:
    """Every key of every input, from the last input that has it."""
    holders: dict[str, list[int]] = {}
    for number, checkpoint in enumerate(checkpoints):
        for key in checkpoint:
            holders.setdefault(key, []).append(number)
    steps: list[Step] = []
    dropped: list[Dropped] = []
    reshaped: list[str] = []
    for key, (*earlier, last) in holders.items():
        tensor = checkpoints[last][key]
        if any(checkpoints[number][key].shape != tensor.shape for number in earlier):
            reshaped.append(key)
        replaced = tuple((number, _other_spec(checkpoints[number][key], tensor)) for number in earlier)
        value, spec = cast_value(Source(last, key), tensor, dtype)
        steps.append(Step(spec, value, FromInput(last, replaced)))
        dropped += [Dropped(Source(number, key), ReplacedBy(last)) for number in earlier]
    notes = [*module_notes(checkpoints[0]), *wrapper_notes(checkpoints)]
    if reshaped:
        notes.append(Note(f"{count_of(reshaped, 'key')} replaced by a tensor of another shape", "", tuple(reshaped)))
    return Plan(
        tuple(checkpoints),
        tuple(steps),
        tuple(dropped),
        notes=tuple(notes),
        metadata=_metadata(checkpoints),
        module_versions=_versions(checkpoints),
        beside=tuple(not_taken(checkpoints, NotTaken(), first=1)),
        command=Command("merge"),
    )


def _other_spec(old: Tensor, new: Tensor) -> TensorSpec | None:
    """What a replaced tensor was, where its dtype or shape is another."""
    return None if (old.dtype, old.shape) == (new.dtype, new.shape) else old.spec


# ----------------------------------------------------------------------------------------------------- methods


def _mixed(inputs: Inputs, op: Mix, keys: Keys) -> Plan:
    steps: list[Step] = []
    dropped: list[Dropped] = []
    misfits: list[str] = []
    ties: dict[object, str] = {}
    for key in dict.fromkeys(key for checkpoint in inputs.all for key in checkpoint):
        holders = inputs.holding(key)
        fits = len(holders) == len(inputs.all) and len({inputs.all[number][key].shape for number in holders}) == 1
        if not fits and keys == "exact":
            misfits.append(key)
        elif not fits and keys == "intersect":
            dropped += [Dropped(Source(number, key), NotInAll()) for number in holders]
        else:
            step, unused = _step(key, inputs, holders, op)
            dropped += [Dropped(Source(number, key), Unmixable()) for number in unused]
            steps.append(_tied(step, inputs, ties))
    return Plan(
        inputs.all,
        tuple(steps),
        tuple(dropped),
        misfit_problem(misfits, inputs.all),
        notes=tuple(mixing_notes(steps, inputs)),
        beside=tuple(not_taken(inputs.models, WeightsOnly())),
        frame=None,
        metadata=_metadata(inputs.models),
        module_versions=_versions(inputs.models),
        command=Command("merge", ("--method", op.method)),
    )


def _step(key: str, inputs: Inputs, holders: Sequence[int], op: Mix) -> tuple[Step, list[int]]:
    """One merged tensor, and the inputs that have its key and are not used.

    What cannot be averaged comes from the first input that has it, and so does what too few inputs have.
    """
    first = inputs.all[holders[0]][key]
    kind = DTYPES[first.dtype]
    if kind.kind != "float" or first.layout != "strided" or kind.is_packed:
        what = first.layout if first.layout != "strided" else _KINDS.get(kind.kind, first.dtype)
        return Step(first.spec, Source(holders[0], key), Unmixed(holders[0], what)), []
    alike = [number for number in holders if _is_alike(inputs.all[number][key], first)]
    complete = len(alike) == len(inputs.all)
    chosen = [number for number in alike if number < len(inputs.models)]
    based = not inputs.has_base or (alike[-1] == len(inputs.models) and bool(chosen))
    enough = len(chosen) + inputs.has_base > 1 and op.definition.models in (None, len(chosen))
    if not complete and not (based and enough):
        value, spec = cast_value(Source(holders[0], key), first, op.dtype)
        return Step(spec, value, TooFew(holders[0])), list(holders[1:])
    partial = replace(op, weights=tuple(op.weights[number] for number in chosen), salt=_salt(key))
    if not complete:
        rehearse(partial)
    target = partial.result([inputs.all[number][key].spec for number in alike])
    reason = Mixed(op.text) if complete else Mixed(partial.text, partial=True)
    step = Step(target, Apply(partial, tuple(Source(number, key) for number in alike)), reason)
    return step, [number for number in holders if number not in alike]


def _is_alike(tensor: Tensor, first: Tensor) -> bool:
    """True if a tensor can be mixed with the first one."""
    kind = DTYPES[tensor.dtype]
    return tensor.shape == first.shape and tensor.layout == "strided" and kind.kind == "float" and not kind.is_packed


def _salt(key: str) -> int:
    return zlib.crc32(key.encode("utf-8", "surrogatepass"))


def _tied(step: Step, inputs: Inputs, ties: dict[object, str]) -> Step:
    """The step, tied to an earlier one if the two are one tensor in every input."""
    if isinstance(step.value, Source):
        return step  # the writer sees ties of copies
    places: list[object] = []
    for source in step.value.args:
        assert isinstance(source, Source)
        tensor = inputs.all[source.input][source.key]
        if tensor.storage is None:
            return step
        places.append((source.input, tensor.pieces, tensor.spec.short, tensor.neg))
    earlier = ties.setdefault(tuple(places), step.target.key)
    return step if earlier == step.target.key else replace(step, tied_to=earlier)


def _metadata(checkpoints: Sequence[Checkpoint]) -> dict[str, str]:
    """The safetensors metadata of all inputs, later ones winning."""
    merged: dict[str, str] = {}
    for checkpoint in checkpoints:
        merged.update(checkpoint.metadata)
    return merged


def _versions(checkpoints: Sequence[Checkpoint]) -> dict[str, int] | None:
    """Module versions of all inputs that have any, later ones winning."""
    known = [checkpoint.module_versions for checkpoint in checkpoints if checkpoint.module_versions is not None]
    return {module: version for versions in known for module, version in versions.items()} if known else None
