"""The two models of a probe, on the CPU in float64: the source in its own, the plan's result in the target."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeAlias

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import CkptError
from ckptool.core.ops import Cast
from ckptool.core.plan import Apply, Plan, Source, Step, Value, sources_of
from ckptool.core.spec import DTYPES
from ckptool.engine.evaluate import compute
from ckptool.engine.reading import Reader
from ckptool.models import Target
from ckptool.models.entries import Entry, Filled
from ckptool.models.own_init import Initial

if TYPE_CHECKING:
    import numpy as np
    import torch

    Array: TypeAlias = np.ndarray[Any, Any]

_SHAKE = 0.1
_FAINT = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A model with its weights.

    Attributes:
        name: of the model.
        module: it, in eval mode.
        origins: for each key that the source fills, the keys of the source; without counters and the model's buffers.
        unfilled: keys that are not the source's, or not wholly, and that matter.
        steps: by key, for what is said of them.
        varied: keys of source tensors that got other numbers.
        exact: keys that hold the source's numbers as they are, or computed in float64.
    """

    name: str
    module: torch.nn.Module
    origins: dict[str, tuple[str, ...]]
    unfilled: frozenset[str]
    steps: dict[str, Step]
    varied: frozenset[str]
    exact: frozenset[str]

    @property
    def elements(self) -> dict[str, tuple[str, int]]:
        """For each filled tensor the key whose storage it shares, or its own, and how many elements it has."""
        steps = {key: self.steps[key] for key in self.origins}
        return {key: (step.tied_to or key, step.target.elements) for key, step in steps.items()}


def load_filled(plan: Plan, target: Target, entries: Sequence[Entry], seeds: tuple[int, int]) -> Loaded:
    """A transplant's target with what its plan makes; what nothing fills keeps the model's own init.

    Args:
        plan: the transplant's.
        target: its model.
        entries: what becomes of each tensor of the model.
        seeds: of the model's own init, and of the numbers that vary constant tensors.
    """
    filled = frozenset(entry.key for entry in entries if entry.is_filled and not entry.is_harmless)
    unfilled = frozenset(
        entry.key
        for entry in entries
        if not entry.is_harmless
        and (not entry.is_filled or entry.status is Filled.FITTED or entry.covered < entry.spec.elements)
    )
    loaded = _loaded(target, plan, filled, unfilled, seeds)
    tied = {key for group in target.ties for key in group} & loaded.origins.keys()
    own = {entry.key: entry.sources for entry in entries if entry.key in tied and entry.sources}
    return replace(loaded, origins={**loaded.origins, **own})  # each has the source's key for it, not that of the last


def check_plan(plan: Plan, target: Target) -> None:
    """See that what a remap's plan makes fits a target.

    Raises:
        CkptError: the plan makes nothing that the model has, or tensors of another shape.
    """
    made = {step.target.key: step.target for step in plan.steps}
    wrong = [key for key, spec in target.specs.items() if key in made and made[key].shape != spec.shape]
    if wrong or not made.keys() & target.specs.keys():
        key = wrong[0] if wrong else next(iter(made), "")
        said = f"{key} has another shape in {target.name}" if wrong else f"{target.name} has no {key}"
        raise CkptError(
            f"what is made does not fit the model: {said}", hint="name the model that --like is of", key=key
        )


def load_plan(plan: Plan, target: Target, seed: int) -> Loaded:
    """A target with what a remap's plan makes; see `check_plan`."""
    made = {step.target.key for step in plan.steps}
    entries = [Entry(spec, Filled.MISSING, kind=target.kinds.get(key, "")) for key, spec in target.specs.items()]
    matter = frozenset(entry.key for entry in entries if not entry.is_harmless)
    kept = tuple(step for step in plan.steps if step.target.key in target.specs)
    return _loaded(target, replace(plan, steps=kept), matter & made, matter - made, (0, seed))


def _loaded(
    target: Target, plan: Plan, filled: frozenset[str], unfilled: frozenset[str], seeds: tuple[int, int]
) -> Loaded:
    """The model built under the first seed; the second one varies what the source has that is constant."""
    module = _module(target, seeds[0])
    varied, exact = _fill(module, [step for step in plan.steps if not _is_own(step)], plan.inputs, seeds[1])
    steps = {step.target.key: step for step in plan.steps}
    origins = {
        key: tuple(dict.fromkeys(origin.key for origin in sources_of(steps[key].value)))
        for key in target.specs
        if key in filled and key in steps
    }
    return Loaded(target.name, module, origins, unfilled, steps, varied, exact)


def _is_own(step: Step) -> bool:
    """True if it gives what the model has under the same seed anyway."""
    return isinstance(step.value, Apply) and isinstance(step.value.op, Initial)


def _module(target: Target, seed: int) -> torch.nn.Module:
    """The model for real: built under a seed, or a copy of one that is live."""
    if target.build is not None:
        module = target.build(seed)
        if module is target.module:  # a file's own object: it stays as it is
            module = _copied(target)
    else:
        module = _copied(target)
    stuck = next((name for name, tensor in _tensors(module) if tensor.is_meta), None)
    if stuck is not None:
        raise CkptError(f"{stuck} of {target.name} has no data: it is on the meta device", key=stuck)
    return module.cpu().double().eval().requires_grad_(False)


def _copied(target: Target) -> torch.nn.Module:
    """A live model stays as it is."""
    try:
        module: torch.nn.Module = copy.deepcopy(target.module)  # type: ignore[assignment]
    except Exception as error:  # its own __deepcopy__ may raise anything
        raise CkptError(
            f"{target.name} cannot be copied, and a live model is not written to: {error}",
            hint="name a function that builds it: package.module:FUNCTION",
        ) from error
    return module


def _tensors(module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def _fill(
    module: torch.nn.Module, steps: Sequence[Step], inputs: Sequence[Checkpoint], seed: int
) -> tuple[frozenset[str], frozenset[str]]:
    """Put the steps' tensors into the module.

    Gives the keys of the source tensors that were varied for it, and of the steps that no op rounded to float32.
    """
    import numpy as np
    import torch

    state = module.state_dict()
    varied: set[str] = set()
    exact: set[str] = set()
    with torch.no_grad(), Reader() as reader:
        for step in steps:
            if step.tied_to is not None:
                exact.update([step.target.key] if step.tied_to in exact else [])
                continue
            value = _without_cast(step.value)
            arrays = {}
            for source in dict.fromkeys(sources_of(value)):
                array = _array(inputs[source.input], source, reader)
                shaken = _shaken(array, f"{seed}:{source.key}")
                if shaken is not array:
                    varied.add(source.key)
                arrays[source] = shaken
            computed = compute(value, arrays)
            if computed.dtype == np.float64:
                exact.add(step.target.key)
            kind = np.float64 if DTYPES[step.target.dtype].kind == "float" else None
            made = np.array(computed, kind, order="C", copy=None if computed.flags.writeable else True)
            state[step.target.key].copy_(torch.from_numpy(made).reshape(step.target.shape))
    return frozenset(varied), frozenset(exact)


def _without_cast(value: Value) -> Value:
    """The value before it is rounded to the model's dtype: both models run in another."""
    while isinstance(value, Apply) and isinstance(value.op, Cast) and DTYPES[value.op.dtype].kind == "float":
        value = value.args[0]
    return value


def _array(checkpoint: Checkpoint, source: Source, reader: Reader) -> Array:
    """A source tensor, floats as float64."""
    import numpy as np

    tensor = checkpoint[source.key]
    kind, bits = DTYPES[tensor.dtype].kind, DTYPES[tensor.dtype].bits
    if tensor.layout != "strided" or bits < 8 or kind not in ("float", "int", "uint", "bool", "complex"):
        what = tensor.layout if tensor.layout != "strided" else tensor.dtype
        raise CkptError(f"{source.key} is {what}: the probe runs plain tensors only", key=source.key)
    array = reader.array(tensor)
    return array.astype(np.float64) if kind == "float" and array.dtype != np.float64 else array


def _shaken(array: Array, name: str) -> Array:
    """Floats that are all the same number, varied: else an exchange of zero biases or of new norms would not show.

    Those that are next to nothing, enlarged: what lies before a layer scale of 1e-6 would not show behind it. A number
    stays on its side of zero, for a variance may not be negative. Equal names give equal numbers.
    """
    import numpy as np

    if array.dtype != np.float64 or not array.size:
        return array
    if (array != array.flat[0]).any():
        size = float(np.sqrt(np.square(array).mean()))
        return array * (_SHAKE / size) if 0 < size < _FAINT else array
    seed = int.from_bytes(sha256(name.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    drawn = np.random.Generator(np.random.PCG64(seed)).standard_normal(array.shape, dtype=np.float32)
    noise: Array = np.asarray(drawn, np.float64).clip(-3, 3) * _SHAKE
    sign = np.sign(array)
    varied: Array = array + np.where(sign == 0, noise, sign * np.abs(noise))
    return varied
