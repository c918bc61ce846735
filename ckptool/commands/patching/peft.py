"""What of a difference fits into a LoRA of PEFT, and the names that its configuration gives to modules.

Source: peft 0.21, tuners/lora/layer.py (shapes of the factors), tuners_utils.py (`check_target_module_exists`),
utils/other.py (`_set_trainable`, `get_pattern_key`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ckptool.core.spec import TensorSpec

Kind: TypeAlias = Literal["linear", "transposed", "embedding", "conv", "experts", "transposed experts"]

KINDS = ("linear", "transposed", "embedding", "conv", "experts", "transposed experts")
FUSED = ("experts", "transposed experts")
"""Kinds of parameters that hold a matrix for each expert, which PEFT adapts as `target_parameters`."""

FUSED_ORDER = ("gate_up_proj", "gate_proj", "up_proj", "down_proj")
"""The order in which modules of experts have their parameters, which their files do not state."""

_TRANSPOSED_EXPERTS = frozenset(("gpt_oss", "aria", "openai_privacy_filter"))
"""Types of models of transformers whose experts say that they are [experts, in, out] (`is_transposed=True`)."""

TIED_BY_PEFT = ("embed_tokens", "lm_head")
"""Last names of the modules for which PEFT knows that a head is the embedding (its EMBEDDING_LAYER_NAMES)."""

_INPUTS = frozenset(("embed_tokens", "wte", "shared", "word_embeddings", "embed_in", "tok_embeddings"))
_TABLES = frozenset(("wte", "wpe", "shared", "relative_attention_bias"))
_LAYERS = frozenset(("out", "proj", "projection", "fc", "linear", "dense"))
_NO_MATRIX = "no matrix of a layer"
_ROUTERS = frozenset(("gate", "router", "wg"))
_TASKS = {"ForCausalLM": "CAUSAL_LM", "LMHeadModel": "CAUSAL_LM"}
"""How classes of transformers end, and PEFT's name of their task. Those with a new head would save it in full."""


@dataclass(frozen=True, slots=True)
class Layers:
    """The modules of a base, by their tensors.

    Attributes:
        specs: by key.
        modules: the names of all modules, those that hold others too.
        transposed: square weights are [in, out], as those are whose bias tells it (Conv1D of transformers).
        model_type: as config.json says; "" without one.
    """

    specs: Mapping[str, TensorSpec]
    modules: frozenset[str]
    transposed: bool
    model_type: str = ""

    @classmethod
    def of(cls, specs: Iterable[TensorSpec], model_type: str = "") -> Layers:
        found = {spec.key: spec for spec in specs}
        modules = {key[:at] for key in found for at in range(len(key)) if key[at] == "."}
        told = {_is_transposed(found, key) for key in found}
        return cls(found, frozenset(modules), True in told and False not in told, model_type)

    def kind(self, key: str) -> Kind | str:
        """How a LoRA adapts a tensor, or in words why none can."""
        spec, (module, _, name) = self.specs[key], key.rpartition(".")
        parent, _, last = module.rpartition(".")
        if len(spec.shape) == 3 and last == "experts" and 0 not in spec.shape:
            return self._kind_of_experts(module)
        if name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            return "a part of MultiheadAttention"
        if name != "weight" or not module or len(spec.shape) < 2 or 0 in spec.shape:
            return _NO_MATRIX
        if f"{parent}.in_proj_weight".lstrip(".") in self.specs:
            return "a part of MultiheadAttention"
        if last in _ROUTERS and any(each.startswith(f"{parent}.experts") for each in self.modules):
            return "a router of experts"
        if len(spec.shape) > 2:
            return self._kind_of_conv(spec, f"{module}.bias")
        words = set(last.split("_"))
        is_table = last in _TABLES or any(word.startswith("emb") for word in words)
        if is_table and not words & _LAYERS and f"{module}.bias" not in self.specs:
            return "embedding"
        told = _is_transposed(self.specs, key)
        return "transposed" if told or (told is None and self._is_square(key) and self.transposed) else "linear"

    def _kind_of_experts(self, module: str) -> Kind | str:
        if self.model_type in _TRANSPOSED_EXPERTS:
            return "transposed experts"
        gate, down = (self.specs.get(f"{module}.{name}") for name in ("gate_up_proj", "down_proj"))
        if not self.model_type and gate and down and gate.shape[2] == 2 * down.shape[1] != gate.shape[1]:
            return "experts as [in, out], without a config.json that says of which model"
        return "experts"

    def _kind_of_conv(self, spec: TensorSpec, bias: str) -> Kind | str:
        out, inner, *kernel = spec.shape
        if len(kernel) > 3:
            return _NO_MATRIX
        if out > 1 and inner == 1 and max(kernel) > 1:
            return "a depthwise convolution"
        if out != inner and bias in self.specs and self.specs[bias].shape == (inner,):
            return "a transposed convolution"
        return "conv"

    def _is_square(self, key: str) -> bool:
        one, other = self.specs[key].shape
        return one == other and f"{key.removesuffix('weight')}bias" in self.specs

    def parts(self, module: str) -> list[str]:
        """The keys of a module's own tensors; none if it holds other modules."""
        head = f"{module}."
        if any(each.startswith(head) for each in self.modules):
            return []
        return [key for key in self.specs if key.startswith(head)]

    def named(self, modules: Collection[str]) -> list[str] | str:
        """The shortest ends of names that mean these modules and no others; a regex where no list can."""
        found: dict[str, None] = {}
        for module in modules:
            end = next((end for end in _ends(module) if self._only(f".{end}", modules)), None)
            if end is None:
                return "|".join(map(re.escape, sorted(modules)))
            found[end] = None
        return sorted(found)

    def pattern(self, modules: Collection[str]) -> list[str]:
        """Such ends as regexes, for `rank_pattern`."""
        named = self.named(modules)
        return [re.escape(end) for end in named] if isinstance(named, list) else [f"^{re.escape(m)}" for m in modules]

    def saved(self, modules: Collection[str]) -> list[str]:
        """The shortest ends for `modules_to_save`, which PEFT looks for at the end of names, within words too."""
        ends = (next((end for end in _ends(module) if self._only(end, modules)), module) for module in modules)
        return sorted(set(ends))

    def _only(self, end: str, modules: Collection[str]) -> bool:
        return all(module in modules for module in self.modules if f".{module}".endswith(end))


def _ends(module: str) -> Iterator[str]:
    """Ends of a name, the shortest first; none begins with a number, for that says too little."""
    parts = module.split(".")
    for at in range(len(parts) - 1, -1, -1):
        if not parts[at].isdecimal() or at == 0:
            yield ".".join(parts[at:])


def _is_transposed(specs: Mapping[str, TensorSpec], key: str) -> bool | None:
    """Whether a matrix is [in, out], as the length of its bias tells."""
    spec = specs[key]
    bias = specs.get(f"{key.removesuffix('weight')}bias")
    if not key.endswith(".weight") or len(spec.shape) != 2 or bias is None or spec.shape[0] == spec.shape[1]:
        return None
    return True if bias.shape == spec.shape[1:] else False if bias.shape == spec.shape[:1] else None


def factor_keys(module: str, kind: str) -> tuple[str, str]:
    """The adapter's keys of A and B.

    Example:
        >>> factor_keys("fc", "linear")
        ('base_model.model.fc.lora_A.weight', 'base_model.model.fc.lora_B.weight')
    """
    head = f"base_model.model.{module}."
    if kind == "embedding":
        return f"{head}lora_embedding_A", f"{head}lora_embedding_B"
    return f"{head}lora_A.weight", f"{head}lora_B.weight"


def task_of(config: Mapping[str, object] | None) -> str | None:
    """PEFT's `task_type` for what a config.json says that the model is."""
    classes = (config or {}).get("architectures")
    first = str(classes[0]) if isinstance(classes, list) and classes else ""
    return next((task for end, task in _TASKS.items() if first.endswith(end)), None)


def fused_keys(module: str, depth: int) -> tuple[str, str]:
    """The adapter's keys of A and B of a parameter of a module, below `depth` wrappers of other parameters.

    PEFT wraps a module once for each parameter, in the order in which the module has them; the last wrapper is the
    outermost.

    Example:
        >>> fused_keys("mlp.experts", 1)[0]
        'base_model.model.mlp.experts.base_layer.lora_A.weight'
    """
    head = f"base_model.model.{module}.{'base_layer.' * depth}"
    return f"{head}lora_A.weight", f"{head}lora_B.weight"


def is_input(module: str) -> bool:
    """Whether a module is called as those are that turn tokens into vectors."""
    return module.rpartition(".")[2] in _INPUTS


def is_tied(config: Mapping[str, object] | None) -> bool:
    """Whether a config.json says that head and embedding are one tensor."""
    return (config or {}).get("tie_word_embeddings") is True
