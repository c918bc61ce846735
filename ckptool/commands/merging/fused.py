"""PEFT's `target_parameters`: factors for a parameter that holds the matrices of all experts.

Source: peft 0.21, tuners/lora/layer.py, `ParamWrapper`. A parameter [experts, x, y] has `lora_A` [experts * r, in], the
experts one after the other, and `lora_B` [out, r * experts], in which the expert changes fastest. Where the parameters
are [experts, out, in] the product is added as it is; where they are [experts, in, out] (`is_transposed`, and for every
model before peft 0.19) transposed. Several parameters of a module are adapted by wrappers in each other, whose names
(`base_layer`) do not say which is for which: both follow from the shapes, or it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import TYPE_CHECKING, Any, TypeAlias

from ckptool.commands.merging.lora_ops import check_float
from ckptool.core.arrays import dtype_of, numpy_dtype
from ckptool.core.casting import cast
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import PlanError, UnreadableError, UsageError
from ckptool.core.plan import Run
from ckptool.core.spec import TensorSpec

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

_INNER = ".base_layer"
_BY_PEFT = "merge it with peft (merge_and_unload)"


@dataclass(frozen=True, slots=True)
class Factors:
    """What an adapter holds for one parameter.

    Attributes:
        a, b: the adapter's keys.
        transposed: the parameter is [experts, in, out].
    """

    a: str
    b: str
    transposed: bool


@dataclass(frozen=True, slots=True)
class AddFused:
    """W + scaling * B @ A for each expert; the arguments are W [experts, x, y], A, B. In float64, rounded once."""

    scaling: float
    transposed: bool
    dtype: str | None = None

    is_elementwise = False

    @property
    def text(self) -> str:
        return f"W + {self.scaling:g} B @ A, for each expert"

    def result(self, args: Sequence[TensorSpec]) -> TensorSpec:
        weight, a, b = args
        check_float(weight)
        if not fits(weight.shape, a.shape, b.shape, self.transposed):
            raise PlanError(
                f"{weight.key} is {weight.short}; the adapter's {a.short} and {b.short} do not fit it", key=weight.key
            )
        return TensorSpec(weight.key, self.dtype or weight.dtype, weight.shape)

    def runs(self, args: Sequence[TensorSpec]) -> list[Run] | None:
        return None

    def compute(self, args: Sequence[Array]) -> Array:
        import numpy as np

        weight, a, b = args
        experts = weight.shape[0]
        down = cast(a, "float64").reshape(experts, -1, a.shape[1])
        up = cast(b, "float64").reshape(b.shape[0], -1, experts) * self.scaling
        dtype = self.dtype or dtype_of(weight)
        merged = np.empty(weight.shape, numpy_dtype(dtype))
        with np.errstate(all="ignore"):
            for expert in range(experts):
                change = up[:, :, expert] @ down[expert]
                change = change.T if self.transposed else change
                merged[expert] = cast(cast(weight[expert], "float64") + change, dtype)
        return merged


def fits(weight: Sequence[int], a: Sequence[int], b: Sequence[int], transposed: bool) -> bool:
    """Whether factors are for a parameter, if it is [experts, out, in], or transposed.

    Example:
        >>> fits((4, 6, 5), (8, 5), (6, 8), False), fits((4, 6, 5), (8, 5), (6, 8), True)
        (True, False)
    """
    if len(weight) != 3 or len(a) != 2 or len(b) != 2 or not weight[0]:
        return False
    experts, out, inner = weight
    if transposed:
        out, inner = inner, out
    return (a[1], b[0]) == (inner, out) and a[0] == b[1] and a[0] % experts == 0


def fused_factors(
    base: Checkpoint, adapter: Checkpoint, targets: Sequence[str], modules: dict[str, dict[str, str]]
) -> dict[str, Factors]:
    """The factors of each parameter with three dimensions that an adapter targets; they are taken out of `modules`.

    Args:
        base: the model.
        adapter: the adapter.
        targets: `target_parameters`.
        modules: {module: {part: key}} of the adapter.

    Raises:
        UsageError: the shapes do not say which factors are for which parameter, or how it is laid out.
        UnreadableError: a factor is missing.
    """
    wanted: dict[str, list[str]] = {}
    for key, tensor in base.items():
        if len(tensor.shape) == 3 and any(key == target or key.endswith(f".{target}") for target in targets):
            wanted.setdefault(key.rpartition(".")[0], []).append(key)
    found = {}
    for module, keys in wanted.items():
        pairs = _taken(module, modules, adapter)
        if len(pairs) != len(keys):
            raise UsageError(
                f"the adapter has factors for {len(pairs)} of the {len(keys)} parameters of {module} that it targets",
                hint="is it the adapter of this base?",
                path=adapter.path,
            )
        found[module] = _possible(keys, pairs, base, adapter)
        if not found[module]:
            raise _refusal(module, keys, False, base, adapter)
    layouts = set.intersection(*({each for each, _ in possible} for possible in found.values())) if found else set()
    if len(layouts) > 1:
        layouts &= _of_base(base, wanted)
    chosen: dict[str, Factors] = {}
    for module, possible in found.items():
        fitting = [pairing for layout, pairing in possible if layout in layouts]
        if len(fitting) != 1:
            raise _refusal(module, wanted[module], True, base, adapter)
        chosen.update(fitting[0])
    return chosen


def _taken(module: str, modules: dict[str, dict[str, str]], adapter: Checkpoint) -> list[tuple[str, str]]:
    """The keys of A and B of a module's wrappers."""
    pairs = []
    while module in modules:
        parts = modules.pop(module)
        if missing := [name for name in ("lora_A", "lora_B") if name not in parts]:
            raise UnreadableError(f"the adapter has no {missing[0]} for {module}", path=adapter.path)
        pairs.append((parts["lora_A"], parts["lora_B"]))
        module += _INNER
    return pairs


def _possible(
    keys: Sequence[str], pairs: Sequence[tuple[str, str]], base: Checkpoint, adapter: Checkpoint
) -> list[tuple[bool, dict[str, Factors]]]:
    """(transposed, the factors of each parameter) for all ways in which the shapes fit."""
    found = []
    for transposed, order in product((False, True), permutations(pairs)):
        each = zip(keys, order, strict=True)
        if all(fits(base[key].shape, adapter[a].shape, adapter[b].shape, transposed) for key, (a, b) in each):
            chosen = {key: Factors(a, b, transposed) for key, (a, b) in zip(keys, order, strict=True)}
            found.append((transposed, chosen))
    return found


def _of_base(base: Checkpoint, wanted: Mapping[str, Sequence[str]]) -> set[bool]:
    """Whether the experts are [in, out], where it follows from the side of gate_up_proj that is twice down_proj's.

    Of [out, in] nothing follows: peft added transposed products there before 0.19, and adds them as they are since.
    """
    told = set()
    for module in wanted:
        gate, down = f"{module}.gate_up_proj", f"{module}.down_proj"
        if gate not in base or down not in base or len(base[gate].shape) != 3 or len(base[down].shape) != 3:
            continue
        (_, rows, columns), (_, first, last) = base[gate].shape, base[down].shape
        told.add((columns == 2 * first and rows == last) and not (rows == 2 * last and columns == first))
    return {True} if told == {True} else {False, True}


def _refusal(module: str, keys: Sequence[str], fit: bool, base: Checkpoint, adapter: Checkpoint) -> UsageError:
    shapes = ", ".join(f"{key} {base[key].spec.short}" for key in keys)
    if not fit:
        return UsageError(
            f"the adapter's factors for {module} do not fit {shapes}",
            hint="is it the adapter of this base?",
            path=adapter.path,
            key=keys[0],
        )
    return UsageError(
        f"the shapes of the adapter's factors for {module} do not tell how they are added to {shapes}",
        hint=_BY_PEFT,
        path=adapter.path,
        key=keys[0],
    )
