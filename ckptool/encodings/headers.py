"""What schemes look at: specs by the last part of their keys, the quantization config, the metadata."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ckptool.core.spec import DTYPES, TensorSpec

_CONFIGS = ("quantization_config", "compression_config", "quantization")
_INNER = ("text_config", "llm_config", "thinker_config", "language_config")

FLOATS = frozenset({"float32", "float16", "bfloat16"})
FLOAT8 = frozenset({"float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"})
EXPONENTS = frozenset({"uint8", "float8_e8m0fnu"})

ACTIVATION = (
    *("input_scale", "activation_scale", "input_global_scale", "scale_input", "output_scale", "qscale_act"),
    *("input_zero_point", "output_zero_point", "k_scale", "v_scale", "q_scale", "input_amax", "output_amax"),
)
"""Names of members that belong to the layer's activations. Decoding the weight does not need them."""


@dataclass(frozen=True, slots=True)
class Headers:
    """A file's headers.

    Attributes:
        specs: the tensors.
        config: config.json; empty if there is none.
        quantization: its quantization config; empty if there is none.
        metadata: the file's metadata.
        modules: for each last part of a key, the modules that have it.
    """

    specs: Mapping[str, TensorSpec]
    config: Mapping[str, Any]
    quantization: Mapping[str, Any]
    metadata: Mapping[str, str]
    modules: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(
        cls, specs: Mapping[str, TensorSpec], config: Mapping[str, Any] | None, metadata: Mapping[str, str]
    ) -> Headers:
        """The headers with their index."""
        modules: dict[str, list[str]] = defaultdict(list)
        for key in specs:
            module, _, last = key.rpartition(".")
            modules[last].append(module)
        config = config if isinstance(config, Mapping) else {}
        found = {last: tuple(keys) for last, keys in modules.items()}
        return cls(specs, config, quantization_of(config), metadata, found)

    @property
    def method(self) -> str:
        """The config's quantization method in lower case; "" if it names none."""
        method = str(self.quantization.get("quant_method") or "").lower()
        return method or ("modelopt" if "quant_algo" in self.quantization else "")

    @property
    def dtype(self) -> str:
        """The dtype of decoded weights: what the config says, else bfloat16."""
        for config in (self.config, *(self.config.get(name) for name in _INNER)):
            if isinstance(config, Mapping):
                for name in ("dtype", "torch_dtype"):
                    text = str(config.get(name)).removeprefix("torch.")
                    if text in DTYPES and DTYPES[text].kind == "float" and DTYPES[text].bits >= 16:
                        return text
        return "bfloat16"

    def get(self, module: str, last: str) -> TensorSpec | None:
        """The tensor of this name in a module."""
        return self.specs.get(join(module, last))

    def beside(self, module: str, names: Mapping[str, str] | tuple[str, ...]) -> dict[str, TensorSpec]:
        """The members that a module has, by role, of a map from role to name or of names that are their own roles."""
        pairs = names.items() if isinstance(names, Mapping) else zip(names, names, strict=True)
        found = ((role, self.get(module, name)) for role, name in pairs)
        return {role: spec for role, spec in found if spec is not None}

    def payloads(self, dtypes: frozenset[str]) -> Iterator[tuple[str, str, TensorSpec]]:
        """(module, last part, spec) of the tensors of some dtypes that have at least two axes."""
        for key, spec in self.specs.items():
            if spec.dtype in dtypes and len(spec.shape) >= 2:
                module, _, last = key.rpartition(".")
                yield module, last, spec


def join(module: str, last: str) -> str:
    """A key from a module and its last part."""
    return f"{module}.{last}" if module else last


def quantization_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The quantization config in a config.json, wherever it is.

    Example:
        >>> quantization_of({"text_config": {"quantization_config": {"quant_method": "fp8"}}})
        {'quant_method': 'fp8'}
    """
    for outer in (config, *(config.get(name) for name in _INNER)):
        if isinstance(outer, Mapping):
            for name in _CONFIGS:
                inner = outer.get(name)
                if isinstance(inner, Mapping) and inner:
                    return inner
    return {}


def integer(value: object, low: int = 1, high: int = 1 << 40) -> int | None:
    """An integer within bounds; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high else None


def json_object(text: str | bytes) -> dict[str, Any] | None:
    """A JSON object of at most 64 kB of text; None for anything else."""
    if len(text) > 1 << 16:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
