"""merge --lora: PEFT adapters onto a base model.

Source: peft 0.21, tuners/lora/layer.py and dora.py. An adapter holds, for a module of the base, `lora_A` [r, in] and
`lora_B` [out, r]; the merged weight is W + scaling * B @ A, with scaling alpha / r (rslora: alpha / sqrt(r)). DoRA
holds a magnitude for each output as well, to which the merged weights of that output are scaled.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath

from ckptool.commands.filter import cast_value, float_dtype
from ckptool.commands.merging.adapter import AdapterConfig as AdapterConfig
from ckptool.commands.merging.adapter import family_of, has_config, require_peft
from ckptool.commands.merging.adapter import read_config as read_config
from ckptool.commands.merging.fused import AddFused, Factors, fused_factors
from ckptool.commands.merging.lora_ops import AddBias, AddLora
from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.counts import many
from ckptool.core.errors import PlanError, UnreadableError, UsageError
from ckptool.core.plan import Apply, Command, Plan, Problem, Source, Step, Value
from ckptool.core.reasons import Adapted, ByOption, Kept, Reason, Tie, TrainedWhole
from ckptool.core.shell import shell_quote
from ckptool.core.spec import TensorSpec
from ckptool.core.tensor import Tensor
from ckptool.core.ties import with_recorded_ties
from ckptool.encodings.encoded import Encoded
from ckptool.engine.dequantize import encoded_of

_PREFIX = "base_model.model."
_PART = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_embedding_A|lora_embedding_B|lora_magnitude_vector|lora_mid|lora_A|lora_B)"
    r"(?:\.(?P<adapter>(?!weight$|bias$)[^.]+))?(?P<bias>\.bias)?(?:\.weight)?",
    re.DOTALL,
)
_SAVED = re.compile(r"\.modules_to_save\.[^.]+\.|\.base_layer\.")  # what peft puts into the names of whole tensors


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
        A plan over (base, adapter); what of the adapter does not fit the base is its problems.

    Raises:
        UsageError: the file is not a LoRA adapter, or holds several.
        UnreadableError: a part of a module's adapter is missing.
    """
    base, parts = with_recorded_ties(base), _parts(adapter)
    wanted = float_dtype(dtype)
    fused = fused_factors(base, adapter, config.parameters, parts.modules) if config.parameters else {}
    making = _Making(base, adapter, config, scale, wanted, fused)
    steps = [making.step(key, tensor, parts) for key, tensor in base.tensors.items()]
    left = [*parts.modules, *parts.biases, *parts.whole]
    return Plan(
        (base, adapter),
        tuple(_tied(steps, base)),
        problems=(*making.problems, *_left_over(left, base)),
        notes=tuple(making.notes()),
        metadata=base.metadata,
        module_versions=base.module_versions,
        command=Command("merge", ("--lora",)),
    )


def plan_adapter(base: Checkpoint, adapter: Checkpoint, *, scale: float = 1.0, dtype: str | None = None) -> Plan:
    """`plan_lora` with the configuration that lies beside the adapter, or that is in it (kohya, diffusers).

    Raises:
        UsageError: it is not a LoRA adapter of a known format.
    """
    family = family_of(adapter)
    if family in ("kohya", "diffusers") or (family == "PEFT" and _is_of_diffusers(adapter)):
        from ckptool.commands.merging.foreign import as_peft

        seen = as_peft(adapter, base)
        if not seen.adapter.tensors:
            raise UsageError(
                f"{base.path.name} has none of the modules that the adapter is for: {next(iter(adapter))}",
                hint="is it the adapter of this base?",
                path=adapter.path,
            )
        plan = plan_lora(base, seen.adapter, seen.config, scale=scale, dtype=dtype)
        return replace(plan, notes=(*seen.notes, *plan.notes))
    require_peft(adapter)
    return plan_lora(base, adapter, read_config(adapter.path), scale=scale, dtype=dtype)


def _is_of_diffusers(adapter: Checkpoint) -> bool:
    """PEFT's names behind those of a pipeline's models, without a configuration: `transformer.x.lora_A.weight`."""
    return not any(key.startswith(_PREFIX) for key in adapter) and not has_config(adapter.path)


@dataclass(frozen=True, slots=True)
class _Parts:
    """The adapter's keys; what a step takes is taken out.

    Attributes:
        modules: {module: {part: key}}.
        biases: {module: key} of biases that come with lora_B.
        whole: {key of the base: key} of tensors that were trained whole.
    """

    modules: dict[str, dict[str, str]]
    biases: dict[str, str]
    whole: dict[str, str]


def _parts(adapter: Checkpoint) -> _Parts:
    parts = _Parts({}, {}, {})
    adapters: dict[str, str] = {}
    for key in adapter:
        name = key.removeprefix(_PREFIX)
        match = _PART.fullmatch(name)
        if match is None:
            parts.whole[_SAVED.sub(".", name)] = key
            continue
        adapters.setdefault(match["adapter"] or "", key)
        if match["bias"]:
            parts.biases[match["module"]] = key
        else:
            parts.modules.setdefault(match["module"], {})[match["part"]] = key
    if not parts.modules:
        raise UsageError(
            f"{adapter.path} holds no lora_A and lora_B",
            hint=f"ckptool inspect {shell_quote(adapter.path)}",
            path=adapter.path,
        )
    if len(adapters) > 1:
        names = ", ".join(adapters)
        raise UsageError(f"the file holds several adapters: {names}", hint="save the one you mean", path=adapter.path)
    return parts


@dataclass(slots=True)
class _Making:
    """Makes the steps of a plan, and notes what does not fit."""

    base: Checkpoint
    adapter: Checkpoint
    config: AdapterConfig
    scale: float
    dtype: str | None
    fused: Mapping[str, Factors] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)
    square: list[str] = field(default_factory=list)
    turned: set[bool] = field(default_factory=set)

    def step(self, key: str, tensor: Tensor, parts: _Parts) -> Step:
        """The step of one tensor of the base."""
        source, whole = Source(0, key), False
        if key in parts.whole:
            source, whole = Source(1, parts.whole.pop(key)), True
            tensor = replace(self.adapter[source.key], spec=replace(self.adapter[source.key].spec, key=key))
            self.replaced.append(key)
            if tensor.shape != self.base[key].shape:
                self.reshaped.append(key)
        module, _, name = key.rpartition(".")
        op: AddLora | AddBias | AddFused
        if key in self.fused:
            op, sources = self._fused(key)
        elif name == "weight" and module in parts.modules:
            op, sources = self._lora(tensor.spec, module, parts.modules.pop(module))
        elif name == "bias" and module in parts.biases:
            op, sources = AddBias(self.config.scaling(module, self.scale), self.dtype), [parts.biases.pop(module)]
        else:
            value, spec = cast_value(source, tensor, self.dtype)
            return Step(spec, value, _reason(whole, None if value is source else self.dtype))
        try:
            target = op.result([tensor.spec, *(self.adapter[other].spec for other in sources)])
        except PlanError as error:
            self.problems.append(Problem(error.message, error.hint or "is it the adapter of this base?", (key,)))
            target = tensor.spec
        return Step(target, Apply(op, (source, *(Source(1, other) for other in sources))), Adapted(op.text))

    def _lora(self, weight: TensorSpec, module: str, parts: Mapping[str, str]) -> tuple[AddLora, list[str]]:
        embedding = "lora_embedding_A" in parts
        names = ["lora_embedding_A", "lora_embedding_B"] if embedding else ["lora_A", "lora_B"]
        if self.config.dora or "lora_magnitude_vector" in parts:
            names.append("lora_magnitude_vector")
        dora, tucker = len(names) == 3, "lora_mid" in parts
        if tucker:
            names.append("lora_mid")
        if missing := [name for name in names if name not in parts]:
            raise UnreadableError(f"the adapter has no {missing[0]} for {module}", path=self.adapter.path)
        sources = [parts[name] for name in names]
        a, b = (self.adapter[key].spec for key in sources[:2])
        transposed = embedding or self._is_transposed(weight, a, b)
        scaling = self.config.scaling(module, self.scale)
        self._check_rank(a, 1, module)
        return AddLora(scaling, transposed, dora, self.dtype, tucker), sources

    def _fused(self, key: str) -> tuple[AddFused, list[str]]:
        factors = self.fused[key]
        self._check_rank(self.adapter[factors.a].spec, self.base[key].shape[0], key)
        op = AddFused(self.config.scaling(key, self.scale), factors.transposed, self.dtype)
        return op, [factors.a, factors.b]

    def _check_rank(self, a: TensorSpec, experts: int, name: str) -> None:
        rank = self.config.rank(name)
        if a.shape and a.shape[0] != experts * rank:
            self.problems.append(
                Problem(
                    f"{a.key} is {a.short}, but adapter_config.json says that its rank is {rank}",
                    "the file and the configuration are of different adapters",
                    (a.key,),
                )
            )

    def _is_transposed(self, weight: TensorSpec, a: TensorSpec, b: TensorSpec) -> bool:
        """Whether a weight is [in, out]: its shape says, or if it is square the configuration does."""
        if len(weight.shape) != 2 or len(a.shape) != 2 or len(b.shape) != 2:
            return False
        out, inner = b.shape[0], a.shape[1]
        if out == inner:
            self.square.append(weight.key)
            return self.config.transposed
        transposed = weight.shape == (inner, out)
        self.turned.add(transposed)
        return transposed

    def notes(self) -> Iterator[Note]:
        if self.replaced:
            yield Note(
                f"{many(len(self.replaced), 'tensor')} replaced by the adapter's copy (modules_to_save)",
                "--scale does not change them" if self.scale != 1 else "",
                tuple(self.replaced),
            )
        if self.reshaped:
            yield Note(
                f"{many(len(self.reshaped), 'of them has', 'of them have')} another shape than the base's",
                "",
                tuple(self.reshaped),
            )
        if self.square and (not self.config.transposed) in self.turned:
            layout = "[in, out]" if self.config.transposed else "[out, in]"
            yield Note(
                f"{len(self.square)} square weights are taken as {layout}, as adapter_config.json says, "
                "though the shapes of others say the opposite",
                "if they are Conv1D of transformers, set fan_in_fan_out to true; if they are Linear, to false",
                tuple(self.square),
                "warning",
            )


def _tied(steps: Sequence[Step], base: Checkpoint) -> Iterator[Step]:
    """The steps; where tensors of the base are one and only one of them is adapted, the others follow it."""

    def place(step: Step) -> object:
        tensor = base[step.target.key]
        return None if tensor.storage is None else (tensor.pieces, tensor.spec.short)

    adapted: dict[object, list[Step]] = {}
    for step in steps:
        if isinstance(step.value, Apply) and isinstance(step.value.op, AddLora) and place(step) is not None:
            adapted.setdefault(place(step), []).append(step)
    first: dict[object, str] = {}
    for step in steps:
        group = adapted.get(place(step), [])
        if len(group) != 1 or (step is not group[0] and not _is_base(step.value)):
            yield step
            continue
        (leader,) = group
        spec = replace(leader.target, key=step.target.key)
        earlier = first.setdefault(place(step), step.target.key)
        reason = leader.reason if step is leader else Tie(leader.target.key, leader.reason)
        yield Step(spec, leader.value, reason, None if earlier == step.target.key else earlier)


def _reason(is_whole: bool, dtype: str | None) -> Reason:
    """Why a tensor is copied: of the base, or of the adapter that was trained whole; with the cast."""
    cast = None if dtype is None else ByOption("--dtype", dtype)
    return TrainedWhole(1, cast) if is_whole else cast or Kept()


def _is_base(value: Value) -> bool:
    return isinstance(value, Source) and value.input == 0


def _left_over(names: Sequence[str], base: Checkpoint) -> tuple[Problem, ...]:
    """The problem of an adapter for modules that the base does not have."""
    if not names:
        return ()
    encoded = {each.key.removesuffix(".weight"): each for each in encoded_of(base)}
    if stored := [encoded[name] for name in names if name in encoded]:
        text = f"the adapter is for quantized weights ({stored[0].title}), whose codes have no sum: {_few(stored)}"
        return (Problem(text, "decode them: --dequantize", tuple(names)),)
    what = f"{len(names)} modules" if len(names) > 1 else "a module"
    hint = "is it the adapter of this base? other names: ckptool remap"
    if any(key.startswith(f"{names[0]}.0.") for key in base):
        fusing = f"ckptool remap {shell_quote(base.path)} -r fuse-experts -o fused"
        hint = f"the base has a tensor for each expert: {fusing}"
    ends = {key.removesuffix(".weight") for key in base}
    parts = names[0].split(".")
    for at in range(1, len(parts)):
        if ".".join(parts[at:]) in ends:
            head = ".".join(parts[:at])
            hint = _renaming(base.path, f"{{k**}} -> {head}.{{k**}}")
    if longer := next((end for end in ends if end.endswith(f".{names[0]}")), None):
        hint = _renaming(base.path, f"{longer.removesuffix(names[0])} ->")
    return (Problem(f"the adapter is for {what} that {base.path.name} does not have: {names[0]}", hint, tuple(names)),)


def _few(encoded: Sequence[Encoded]) -> str:
    return ", ".join(each.key for each in encoded[:3]) + (", ..." if len(encoded) > 3 else "")


def _renaming(path: PurePath, rule: str) -> str:
    return f"ckptool remap {shell_quote(path)} -r {shell_quote(rule)} -o {shell_quote('renamed' + path.suffix)}"
