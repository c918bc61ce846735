"""What a file's metadata says of its encoded tensors: entries that name them follow them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ckptool.core.format import QUANTIZATION_CONFIGS
from ckptool.encodings.comfy import METADATA, PREFIXES
from ckptool.encodings.headers import INNER_CONFIGS, json_object
from ckptool.formats.gguf import ORIGINAL_SHAPE

_NAMES = "tensor_names"
_FORMAT = "format"
_MOST = 1 << 24


def has_descriptions(metadata: Mapping[str, str]) -> bool:
    """True if the metadata names encoded tensors."""
    return METADATA in metadata or _NAMES in metadata


def without_descriptions(metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata of a file whose encoded tensors are all decoded.

    Example:
        >>> without_descriptions({"format": "mlx", "tensor_names": '["w"]', "w": '{"_type": "Int8Tensor"}', "by": "me"})
        {'format': 'pt', 'by': 'me'}
    """
    left = {
        name: text
        for name, text in metadata.items()
        if name not in (METADATA, _NAMES) and not name.startswith(ORIGINAL_SHAPE)
    }
    for name in _torchao_names(metadata):
        left.pop(name, None)
    if left.get(_FORMAT) == "mlx":
        left[_FORMAT] = "pt"
    return left


def moved_key(key: str, member: str, target: str) -> str | None:
    """The logical key of an encoded tensor whose member gets another name; None if that does not say it.

    Example:
        >>> moved_key("fc.weight", "fc._weight_qdata", "head.fc._weight_qdata")
        'head.fc.weight'
        >>> moved_key("fc.weight", "fc._weight_qdata", "fc.q")
    """
    old, new = member.split("."), target.split(".")
    while old and new and old[-1] == new[-1]:
        old, new = old[:-1], new[:-1]
    parts = key.split(".")
    if parts[: len(old)] != old or len(old) == len(member.split(".")):
        return key if member == target else None
    return ".".join((*new, *parts[len(old) :]))


def renamed_descriptions(metadata: Mapping[str, str], keys: Mapping[str, str | None]) -> dict[str, str]:
    """The metadata with the names that encoded tensors get.

    Args:
        metadata: of the file.
        keys: the new logical key of each encoded tensor; None for one that is left out.

    Example:
        >>> metadata = {"tensor_names": '["a.weight"]', "a.weight": '{"_type": "Int8Tensor"}'}
        >>> renamed_descriptions(metadata, {"a.weight": "b.weight"})
        {'tensor_names': '["b.weight"]', 'b.weight': '{"_type": "Int8Tensor"}'}
    """
    found = dict(metadata)
    for key, target in keys.items():
        shape = found.pop(f"{ORIGINAL_SHAPE}{key}", None)
        if shape is not None and target is not None:
            found[f"{ORIGINAL_SHAPE}{target}"] = shape
    names = _torchao_names(metadata)
    if names:
        texts = {name: found.pop(name) for name in names if name in found}
        new = {name: keys.get(name, name) for name in names}
        found |= {target: texts[name] for name, target in new.items() if target is not None and name in texts}
        found[_NAMES] = json.dumps([target for target in new.values() if target is not None])
    layers = (json_object(metadata.get(METADATA, ""), _MOST) or {}).get("layers")
    if isinstance(layers, Mapping):
        found[METADATA] = json.dumps({**json.loads(metadata[METADATA]), "layers": _layers(layers, keys)})
    return found


def renamed_config(config: Mapping[str, Any], pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """config.json whose quantization config names modules as their tensors are named now.

    Args:
        config: the whole of it.
        pairs: (old key, new key) of tensors.

    Example:
        >>> config = {"quantization_config": {"modules_to_not_convert": ["lm_head", "model.norm"]}}
        >>> renamed_config(config, [("lm_head.weight", "head.weight"), ("model.norm.weight", "model.norm.weight")])
        {'quantization_config': {'modules_to_not_convert': ['head', 'model.norm']}}
    """
    named = {name for said in _quantizations(config) for name in _names(said)}
    if not named:
        return dict(config)
    modules: dict[str, str | None] = {}
    for old, new in pairs:
        for name in _ancestors(old):
            if name in named:
                moved = moved_key(name, old, new)
                modules[name] = moved if modules.get(name, moved) == moved else None  # None: it went to several places
    changed = {name: new for name, new in modules.items() if new is not None and new != name}
    return {name: _renamed_in(name, value, changed) for name, value in config.items()} if changed else dict(config)


def _quantizations(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for outer in (config, *(config.get(name) for name in INNER_CONFIGS)):
        if isinstance(outer, Mapping):
            yield from (said for name in QUANTIZATION_CONFIGS if isinstance(said := outer.get(name), Mapping))


def _names(said: Any) -> Iterator[str]:
    """Everything in a quantization config that may be a module's name."""
    if isinstance(said, Mapping):
        for name, value in said.items():
            yield name
            yield from _names(value)
    elif isinstance(said, list):
        yield from (name for name in said if isinstance(name, str))


def _ancestors(key: str) -> Iterator[str]:
    """``a``, ``a.b`` and ``a.b.c`` of ``a.b.c``."""
    at = key.find(".")
    while at >= 0:
        yield key[:at]
        at = key.find(".", at + 1)
    yield key


def _renamed_in(name: str, value: Any, modules: Mapping[str, str]) -> Any:
    """A part of the config: what is in its quantization configs is renamed."""
    if name in QUANTIZATION_CONFIGS:
        return _with_names(value, modules)
    if name in INNER_CONFIGS and isinstance(value, Mapping):
        return {inner: _renamed_in(inner, part, modules) for inner, part in value.items()}
    return value


def _with_names(value: Any, modules: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [modules.get(item, item) if isinstance(item, str) else item for item in value]
    if not isinstance(value, Mapping):
        return value
    # a module's entry is a table, or false; other names are settings
    return {
        modules.get(name, name) if isinstance(part, Mapping | bool) else name: _with_names(part, modules)
        for name, part in value.items()
    }


def _torchao_names(metadata: Mapping[str, str]) -> list[str]:
    try:
        names = json.loads(metadata.get(_NAMES, "[]"))
    except (ValueError, RecursionError):
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _layers(layers: Mapping[str, Any], keys: Mapping[str, str | None]) -> dict[str, Any]:
    """ComfyUI's layers by the new names of their modules; both may lack the model's prefix."""
    modules = {key.removesuffix(".weight"): new for key, new in keys.items()}
    found: dict[str, Any] = {}
    for layer, value in layers.items():
        prefix = next((prefix for prefix in PREFIXES if prefix + layer in modules), None)
        if prefix is None:
            found[layer] = value
        elif (new := modules[prefix + layer]) is not None:
            found[new.removesuffix(".weight").removeprefix(prefix)] = value
    return found
