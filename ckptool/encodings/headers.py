"""What schemes look at: specs by the last part of their keys, the quantization config, the metadata."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, overload

from ckptool.core.columns import ColumnSpecs
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
        keys: of the tensors.
        rows: the number of each key.
        modules: for each last part of a key, the modules that have it.
        dtypes: for each dtype, the keys that have it.
        dtype: the dtype of decoded weights: what the config says, else bfloat16.
    """

    specs: Mapping[str, TensorSpec]
    config: Mapping[str, Any]
    quantization: Mapping[str, Any]
    metadata: Mapping[str, str]
    keys: Sequence[str]
    rows: Mapping[str, int]
    modules: Mapping[str, Sequence[str]]
    dtypes: Mapping[str, Sequence[str]]
    dtype: str = "bfloat16"
    _claimed: bytearray = field(default_factory=bytearray)  # for each row: a scheme before has recognised it
    _present: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)  # of names, those that the file has

    @classmethod
    def of(
        cls, specs: Mapping[str, TensorSpec], config: Mapping[str, Any] | None, metadata: Mapping[str, str]
    ) -> Headers:
        """The headers with their index."""
        keys: Sequence[str]
        if isinstance(specs, ColumnSpecs):
            specs = specs.sorted()
            keys, rows = specs.names, specs.rows
            dtypes_in_order = (form.dtype for form in specs.forms)
        else:
            keys = list(specs)
            rows = dict(zip(keys, count(), strict=False))
            dtypes_in_order = (spec.dtype for spec in specs.values())
        modules: dict[str, array[int]] = {}
        dtypes: dict[str, array[int]] = {}
        for row, (key, dtype) in enumerate(zip(keys, dtypes_in_order, strict=True)):
            for found, name in ((modules, key.rpartition(".")[2]), (dtypes, dtype)):
                if name not in found:
                    found[name] = array("I")
                found[name].append(row)
        config = config if isinstance(config, Mapping) else {}
        return cls(
            specs,
            config,
            quantization_of(config),
            metadata,
            keys,
            rows,
            {last: _Cut(keys, places, len(last) + 1) for last, places in modules.items()},
            {dtype: _Cut(keys, places) for dtype, places in dtypes.items()},
            _dtype_of(config),
            bytearray(len(keys)),
        )

    def claim(self, keys: Iterable[str]) -> bool:
        """Say that these tensors belong together; False if one of them belongs to others already."""
        places = [self.rows[key] for key in keys]
        if any(map(self._claimed.__getitem__, places)):
            return False
        for place in places:
            self._claimed[place] = True
        return True

    def is_claimed(self, key: str) -> bool:
        """True for a tensor that a scheme before has recognised."""
        return bool(self._claimed[self.rows[key]])

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


class _Cut(Sequence[str]):
    """Keys at some places, without so many letters at their ends; each is made when it is asked for."""

    __slots__ = ("_keys", "_letters", "_places")

    def __init__(self, keys: Sequence[str], places: array[int], letters: int = 0) -> None:
        self._keys = keys
        self._places = places
        self._letters = letters

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[str]: ...
    def __getitem__(self, at: int | slice) -> str | Sequence[str]:
        if isinstance(at, slice):
            return _Cut(self._keys, self._places[at], self._letters)
        key = self._keys[self._places[at]]
        return key[: max(0, len(key) - self._letters)]

    def __len__(self) -> int:
        return len(self._places)


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
