"""torchao's tensor subclasses in a torch file: the same parts and descriptions as torchao writes into safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.spec import TensorSpec
from ckptool.core.tensor import Tensor
from ckptool.encodings.encoded import Encoded
from ckptool.formats.pickle.objects import Call, Global
from ckptool.formats.torch.storage import named_dtype
from ckptool.formats.torch.tensor import subclass_attributes, subclass_of
from ckptool.formats.torch.view import MAX_AXES

PARTS = "parts"
"""The parameter of an encoded tensor that is one object in the file: for each role, the part of it."""


@dataclass(frozen=True, slots=True)
class Flattened:
    """The parts of tensors of subclasses, as tensors of their own.

    Attributes:
        specs: by the keys that torchao's safetensors have: ``fc._weight_qdata``.
        metadata: their descriptions, as in such a file.
        owners: for each of these keys, the key of the tensor and the name of the part.
    """

    specs: Mapping[str, TensorSpec]
    metadata: Mapping[str, str]
    owners: Mapping[str, tuple[str, str]]

    def stored(self, encoded: Encoded) -> Encoded:
        """The same tensor with members that name the object that they are parts of."""
        if encoded.codes.key not in self.owners:
            return encoded
        parts = {role: self.owners[spec.key][1] for role, spec in encoded.members.items()}
        members = {role: replace(spec, key=self.owners[spec.key][0]) for role, spec in encoded.members.items()}
        return replace(encoded, members=members, parameters={**encoded.parameters, PARTS: parts})


def flattened(checkpoint: Checkpoint) -> Flattened:
    """torchao's tensors of a checkpoint, from headers alone."""
    specs: dict[str, TensorSpec] = {}
    metadata: dict[str, str] = {}
    owners: dict[str, tuple[str, str]] = {}
    if checkpoint.columns is not None:
        return Flattened(specs, metadata, owners)
    for key, tensor in checkpoint.tensors.items():
        cls = subclass_of(tensor.node) or "" if tensor.cls and tensor.layout == "nested" else ""
        if not cls.startswith("torchao.") or key in metadata:
            continue
        module, _, last = key.rpartition(".")
        names = {f"{module}.".lstrip(".") + f"_{last}_{part}": (key, part) for part, _ in tensor.parts}
        if not any(name in checkpoint.tensors or name in specs for name in names):
            specs |= {name: replace(part.spec, key=name) for name, (_, part) in zip(names, tensor.parts, strict=True)}
            owners |= names
            metadata[key] = json.dumps(_description(tensor, cls.rpartition(".")[2]))
    return Flattened(specs, {**metadata, "tensor_names": json.dumps([*metadata])} if metadata else {}, owners)


def part_of(tensor: Tensor, encoded: Encoded, role: str) -> Tensor:
    """The tensor that has a role: itself, or a part of it."""
    name = encoded.parameters.get(PARTS, {}).get(role)
    return tensor if name is None else dict(tensor.parts)[name]


def _description(tensor: Tensor, kind: str) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for name, value in subclass_attributes(tensor.node).items():
        dtype = named_dtype(value)
        if dtype is not None:
            data[name] = _dtype(dtype)
        elif isinstance(value, Call) and isinstance(value.fn, Global):  # a setting of a class, or a choice
            args = list(value.args) if isinstance(value.args, tuple) and all(map(_is_small, value.args)) else []
            data[name] = {"_type": value.fn.name, "_data": args}
        elif isinstance(value, tuple | list) and len(value) <= MAX_AXES and all(map(_is_small, value)):
            data[name] = list(value)
        elif _is_small(value):
            data[name] = value
    data["dtype"] = _dtype(tensor.dtype)
    data["shape"] = list(tensor.shape)
    return {"_type": kind, "_data": data, "_tensor_data_names": [name for name, _ in tensor.parts]}


def _is_small(value: object) -> bool:
    if isinstance(value, int):
        return value.bit_length() <= 64
    return value is None or isinstance(value, float) or (isinstance(value, str) and len(value) <= 256)


def _dtype(name: str) -> dict[str, str]:
    return {"_type": "torch.dtype", "_data": name}
