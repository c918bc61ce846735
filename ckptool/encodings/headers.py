"""What schemes look at: specs by the last part of their keys, the quantization config, the metadata."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ckptool.core.format import QUANTIZATION_CONFIGS
from ckptool.core.spec import DTYPES, TensorSpec

INNER_CONFIGS = ("text_config", "llm_config", "thinker_config", "language_config")

FLOATS = frozenset({"float32", "float16", "bfloat16"})
FLOAT8 = frozenset({"float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"})
EXPONENTS = frozenset({"uint8", "float8_e8m0fnu"})

CODE_DTYPES = frozenset(
    name
    for name, dtype in DTYPES.items()
    if dtype.kind in ("quantized", "bits")
    or (dtype.kind in ("int", "uint") and dtype.bits < 64)
    or (dtype.kind == "float" and dtype.bits <= 8)
)
"""Dtypes of which every encoded tensor has at least one member."""

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
        dtypes: for each dtype, the keys that have it.
        dtype: the dtype of decoded weights: what the config says, else bfloat16.
        claimed: keys that schemes before have recognised, and the tensor that each belongs to.
    """

    specs: Mapping[str, TensorSpec]
    config: Mapping[str, Any]
    quantization: Mapping[str, Any]
    metadata: Mapping[str, str]
    modules: Mapping[str, tuple[str, ...]]
    dtypes: Mapping[str, tuple[str, ...]]
    dtype: str = "bfloat16"
    claimed: dict[str, str] = field(default_factory=dict)
    _present: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)  # of names, those that the file has

    @classmethod
    def of(
        cls, specs: Mapping[str, TensorSpec], config: Mapping[str, Any] | None, metadata: Mapping[str, str]
    ) -> Headers:
        """The headers with their index."""
        modules: dict[str, list[str]] = defaultdict(list)
        dtypes: dict[str, list[str]] = defaultdict(list)
        for key, spec in specs.items():
            module, _, last = key.rpartition(".")
            modules[last].append(module)
            dtypes[spec.dtype].append(key)
        config = config if isinstance(config, Mapping) else {}
        found = {last: tuple(keys) for last, keys in modules.items()}
        keys_of = {dtype: tuple(keys) for dtype, keys in dtypes.items()}
        return cls(specs, config, quantization_of(config), metadata, found, keys_of, _dtype_of(config))

    @property
    def method(self) -> str:
        """The config's quantization method in lower case; "" if it names none."""
        method = str(self.quantization.get("quant_method") or "").lower()
        return method or ("modelopt" if "quant_algo" in self.quantization else "")

    def get(self, module: str, last: str) -> TensorSpec | None:
        """The tensor of this name in a module."""
        return self.specs.get(join(module, last))

    def beside(self, module: str, names: Mapping[str, str] | tuple[str, ...]) -> dict[str, TensorSpec]:
        """The members that a module has, by role, of a map from role to name or of names that are their own roles."""
        roles = names if isinstance(names, Mapping) else None
        wanted = names if isinstance(names, tuple) else tuple(names.values())
        present = self._present.get(wanted)
        if present is None:  # most names are nowhere in a file
            present = tuple(name for name in wanted if name.rpartition(".")[2] in self.modules)
            self._present[wanted] = present
        if not present:
            return {}
        pairs = zip(present, present, strict=True) if roles is None else roles.items()
        found = ((role, self.get(module, name)) for role, name in pairs)
        return {role: spec for role, spec in found if spec is not None}

    def payloads(self, dtypes: frozenset[str]) -> Iterator[tuple[str, str, TensorSpec]]:
        """(module, last part, spec) of the tensors of some dtypes that have at least two axes."""
        for dtype in sorted(dtypes & self.dtypes.keys()):
            for key in self.dtypes[dtype]:
                module, _, last = key.rpartition(".")
                if len(self.specs[key].shape) >= 2:
                    yield module, last, self.specs[key]


def join(module: str, last: str) -> str:
    """A key from a module and its last part."""
    return f"{module}.{last}" if module else last


def _dtype_of(config: Mapping[str, Any]) -> str:
    """The dtype of decoded weights: what the config says, else bfloat16."""
    for inner in (config, *(config.get(name) for name in INNER_CONFIGS)):
        if isinstance(inner, Mapping):
            for name in ("dtype", "torch_dtype"):
                text = str(inner.get(name)).removeprefix("torch.")
                if text in DTYPES and DTYPES[text].kind == "float" and DTYPES[text].bits >= 16:
                    return text
    return "bfloat16"


def quantization_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The quantization config in a config.json, wherever it is.

    Example:
        >>> quantization_of({"text_config": {"quantization_config": {"quant_method": "fp8"}}})
        {'quant_method': 'fp8'}
    """
    for outer in (config, *(config.get(name) for name in INNER_CONFIGS)):
        if isinstance(outer, Mapping):
            for name in QUANTIZATION_CONFIGS:
                inner = outer.get(name)
                if isinstance(inner, Mapping) and inner:
                    return inner
    return {}


def integer(value: object, low: int = 1, high: int = 1 << 40) -> int | None:
    """An integer within bounds; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high else None


def json_object(text: str | bytes, limit: int = 1 << 16) -> dict[str, Any] | None:
    """A JSON object of at most `limit` bytes of text; None for anything else."""
    if len(text) > limit:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
