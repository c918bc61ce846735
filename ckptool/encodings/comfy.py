"""ComfyUI's descriptions of encoded layers: a `comfy_quant` tensor of JSON bytes, or entries in the metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from ckptool.encodings.encoded import Encoded, Read
from ckptool.encodings.headers import Headers, json_object

DESCRIPTION = "comfy_quant"
METADATA = "_quantization_metadata"
PREFIXES = ("", "model.diffusion_model.", "diffusion_model.")


def marker_keys(headers: Headers) -> tuple[str, ...]:
    """The keys of ComfyUI's markers for the whole file."""
    found = (f"{module}.scaled_fp8" if module else "scaled_fp8" for module in headers.modules.get("scaled_fp8", ()))
    return tuple(key for key in found if headers.specs[key].elements <= 2)


def description_of(headers: Headers, module: str) -> Mapping[str, Any]:
    """What the metadata says of a module; empty if nothing. Its names may lack the model's prefix."""
    layers = _layers(headers.metadata.get(METADATA, "")) if METADATA in headers.metadata else {}
    for prefix in PREFIXES if layers else ():
        found = layers.get(module.removeprefix(prefix)) if module.startswith(prefix) else None
        if isinstance(found, Mapping):
            return found
    return {}


@lru_cache(maxsize=1)
def _layers(text: str) -> Mapping[str, Any]:
    """The layers that the metadata describes; read once for a file."""
    layers = (json_object(text, 1 << 24) or {}).get("layers")
    return layers if isinstance(layers, Mapping) else {}


def settle_description(encoded: Encoded, read: Read, formats: set[str]) -> tuple[Encoded, str]:
    """The tensor after its description was read, and the format that it names; another format is a problem."""
    encoded = replace(encoded, needs=())
    if encoded.members[DESCRIPTION].nbytes > 1 << 16:
        return encoded.with_problem("values", f"{encoded.members[DESCRIPTION].key} is too long"), ""
    description = json_object(read(DESCRIPTION).tobytes())
    if description is None:
        return encoded.with_problem("values", f"{encoded.members[DESCRIPTION].key} is not a JSON object"), ""
    format_ = str(description.get("format"))
    if description.get("convrot"):
        return encoded.with_problem("refused", "its weights are rotated (convrot), which ckptool does not undo"), ""
    if format_ not in formats:
        return encoded.with_problem("refused", f"ComfyUI's format {format_[:40]!r} is not decoded"), ""
    return encoded, format_
