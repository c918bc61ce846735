"""merge --lora: PEFT adapters onto a base model.

Source: peft 0.21, tuners/lora/layer.py and dora.py. An adapter holds, for a module of the base, `lora_A` [r, in] and
`lora_B` [out, r]; the merged weight is W + scaling * B @ A, with scaling alpha / r (rslora: alpha / sqrt(r)). DoRA
holds a magnitude for each row as well: the merged rows are scaled to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ckptool.checkpoint import Checkpoint
from ckptool.errors import PlanError, UnreadableError, UsageError
from ckptool.spec import TensorSpec
from ckptool.surgery.filter import cast_value, float_dtype
from ckptool.surgery.plan import Apply, Plan, Problem, Run, Source, Step

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

_PREFIX = "base_model.model."
_PART = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(?:\.(?P<adapter>[^.]+))?(?:\.weight)?"
)
_LARGEST_CONFIG = 1 << 20


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """What `adapter_config.json` says.

    Attributes:
        r: rank.
        alpha: numerator of the scaling.
        rslora: divide by the root of the rank.
        dora: rows are scaled to magnitudes.
        transposed: the base's weights are [in, out] (`fan_in_fan_out`).
        ranks: other ranks by module pattern.
        alphas: other alphas by module pattern.
    """

    r: int
    alpha: float
    rslora: bool = False
    dora: bool = False
    transposed: bool = False
    ranks: tuple[tuple[str, float], ...] = ()
    alphas: tuple[tuple[str, float], ...] = ()

    def scaling(self, module: str, scale: float) -> float:
        """The factor before B @ A for one module."""
        r = _by_pattern(self.ranks, module, self.r)
        alpha = _by_pattern(self.alphas, module, self.alpha)
        return scale * alpha / (sqrt(r) if self.rslora else r)


def _by_pattern(patterns: Sequence[tuple[str, float]], module: str, default: float) -> float:
    """As peft matches them: a regex at the end of the module's name, on a whole part."""
    for pattern, value in patterns:
        if re.fullmatch(rf"(?:.*\.)?(?:{pattern})", module):
            return value
    return default


def read_config(adapter: Path) -> AdapterConfig:
    """Read the `adapter_config.json` in an adapter's folder, or beside its file.

    Raises:
        UsageError: there is none, or it is of another kind than LoRA.
        UnreadableError: it is not what it should be.
    """
    path = (adapter if adapter.is_dir() else adapter.parent) / "adapter_config.json"
    if not path.is_file():
        raise UsageError(f"there is no adapter_config.json beside {adapter}", hint="it says alpha and r", path=path)
    if path.stat().st_size > _LARGEST_CONFIG:
        raise UnreadableError(f"{path} is too long for a configuration", path=path)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"{path} is not JSON: {error}", path=path) from None
    if not isinstance(config, dict) or config.get("peft_type", "LORA") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else "unknown"
        raise UsageError(f"the adapter is of kind {kind}; ckptool merges LoRA adapters", path=path)
    r, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(r, int) or isinstance(r, bool) or r < 1 or not isinstance(alpha, (int, float)):
        raise UnreadableError(f"{path} gives no rank r and lora_alpha", path=path)
    return AdapterConfig(
        r,
        float(alpha),
        bool(config.get("use_rslora")),
        bool(config.get("use_dora")),
        bool(config.get("fan_in_fan_out")),
        _patterns(config.get("rank_pattern"), path),
        _patterns(config.get("alpha_pattern"), path),
    )


def _patterns(value: object, path: Path) -> tuple[tuple[str, float], ...]:
    if value in (None, {}):
        return ()
    if not isinstance(value, dict):
        raise UnreadableError(f"{path} has patterns that are not a dict", path=path)
    found: list[tuple[str, float]] = []
    for pattern, number in value.items():
        try:
            re.compile(pattern)
        except re.error as error:
            raise UnreadableError(
                f'{path} has the pattern "{pattern}", which is no regex: {error}', path=path
            ) from None
        if not isinstance(number, (int, float)) or number <= 0:
            raise UnreadableError(f'{path} gives no number for "{pattern}"', path=path)
        found.append((pattern, float(number)))
    return tuple(found)


def plan_lora(
    base: Checkpoint, adapter: Checkpoint, config: AdapterConfig, *, scale: float = 1.0, dtype: str | None = None
) -> Plan:
    """Plan the base with an adapter merged into it.

    Args:
        base: the model's weights.
        adapter: the adapter's tensors.
        config: what `adapter_config.json` says.
        scale: a further factor; 0 gives the base again.
        dtype: a float dtype for the result; by default the base's.

    Returns:
        A plan over (base, adapter); modules that the base does not have are its problems.
    """
    modules, whole = _parts(adapter)
    wanted = float_dtype(dtype)
    steps: list[Step] = []
    for key, tensor in base.tensors.items():
        module = key.removesuffix(".weight")
        value: Source | Apply = Source(0, key)
        spec, why = tensor.spec, "kept"
        if key in whole:
            value, why = Source(1, whole.pop(key)), "trained whole, from the adapter"
            spec = TensorSpec(key, adapter[value.key].dtype, adapter[value.key].shape)
        elif key.endswith(".weight") and module in modules:
            value = _applied(key, module, modules.pop(module), config, scale)
            why = value.op.text
        value, spec = cast_value(value, spec, wanted)
        steps.append(Step(spec, value, why))
    return Plan(
        (base, adapter),
        tuple(steps),
        problems=_left_over([*modules, *whole], base),
        metadata=base.metadata,
        module_versions=base.module_versions,
        request="merge --lora",
    )


def _parts(adapter: Checkpoint) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """The adapter's keys: {module: {part: key}}, and {base key: key} of what it holds whole."""
    modules: dict[str, dict[str, str]] = {}
    whole: dict[str, str] = {}
    for key in adapter:
        name = key.removeprefix(_PREFIX)
        match = _PART.fullmatch(name)
        if match is None:
            whole[re.sub(r"\.modules_to_save\.[^.]+\.", ".", name)] = key
            continue
        parts = modules.setdefault(match["module"], {})
        if match["part"] in parts:
            raise UsageError(
                f"{match['module']} has more than one adapter", hint="save the one you mean by itself", key=key
            )
        parts[match["part"]] = key
    if not modules:
        raise UsageError(f"{adapter.path} holds no lora_A and lora_B", hint=f"ckptool inspect {adapter.path}")
    return modules, whole


def _applied(key: str, module: str, parts: Mapping[str, str], config: AdapterConfig, scale: float) -> Apply:
    embedding = "lora_embedding_A" in parts
    names = ["lora_embedding_A", "lora_embedding_B"] if embedding else ["lora_A", "lora_B"]
    missing = [name for name in names if name not in parts]
    if missing:
        raise UnreadableError(f"the adapter has no {missing[0]} for {module}", key=key)
    if config.dora and "lora_magnitude_vector" not in parts:
        raise UnreadableError(f"the adapter is a DoRA, but has no lora_magnitude_vector for {module}", key=key)
    if "lora_magnitude_vector" in parts:
        names.append("lora_magnitude_vector")
    op = AddLora(config.scaling(module, scale), embedding or config.transposed, len(names) == 3)
    return Apply(op, (Source(0, key), *(Source(1, parts[name]) for name in names)))


def _left_over(names: Sequence[str], base: Checkpoint) -> tuple[Problem, ...]:
    if not names:
        return ()
    return (
        Problem(
            f"the adapter is for {len(names)} modules that {base.path.name} does not have: {names[0]}",
            "rename the base's keys with ckptool remap, so that they are those of the adapted model",
            tuple(names),
        ),
    )


@dataclass(frozen=True, slots=True)
class AddLora:
    """W + scaling * B @ A; the arguments are W, A, B, and the magnitudes for DoRA. In float64, rounded once.

    Attributes:
        scaling: the factor, alpha / r or as the configuration says.
        transposed: W is [in, out], or an embedding.
        dora: rows of the sum are scaled to the magnitudes.
    """

    scaling: float
    transposed: bool = False
    dora: bool = False

    is_elementwise = False

    @property
    def text(self) -> str:
        return f"W + {self.scaling:g} B @ A" + (", rows scaled to DoRA's magnitudes" if self.dora else "")

    def result(self, args: Sequence[TensorSpec]) -> TensorSpec:
        """The base's spec, if the factors fit it."""
        weight, a, b = args[:3]
        out, inner = (weight.shape[0], prod(weight.shape[1:])) if weight.shape else (1, 1)
        if self.transposed:
            out, inner = inner, out
        pointwise = prod(b.shape[2:]) == 1
        if len(a.shape) < 2 or len(b.shape) < 2 or not pointwise:
            raise PlanError(f"{weight.key}: the adapter's factors are {a.short} and {b.short}", key=weight.key)
        if b.shape[0] != out or prod(a.shape[1:]) != inner or b.shape[1] != a.shape[0]:
            raise PlanError(
                f"{weight.key} is {weight.short}; the adapter's {a.short} and {b.short} do not fit it", key=weight.key
            )
        if self.dora and (len(weight.shape) != 2 or self.transposed or prod(args[3].shape) != out):
            raise PlanError(f"{weight.key}: DoRA is merged for linear layers only", key=weight.key)
        return weight

    def runs(self, args: Sequence[TensorSpec]) -> list[Run] | None:
        return None

    def compute(self, args: Sequence[Array]) -> Array:
        import numpy as np

        weight, a, b = (arg.astype(np.float64) for arg in args[:3])
        delta = b.reshape(b.shape[0], b.shape[1]) @ a.reshape(a.shape[0], -1)
        delta *= self.scaling
        merged = weight + (delta.T if self.transposed else delta).reshape(weight.shape)
        if self.dora:
            norms = np.linalg.norm(merged, axis=1, keepdims=True)
            merged *= args[3].astype(np.float64).reshape(-1, 1) / norms
        return merged.astype(args[0].dtype)
