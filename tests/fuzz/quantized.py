"""Quantized checkpoints that are nearly right: stored by libraries, then a shape, dtype, bytes or config changed."""

from __future__ import annotations

import base64
import json
import math
import zlib
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from ckptool.core.dtypes import DTYPES

_RECORDED = Path(__file__).parents[1] / "data" / "encodings" / "recorded.jsonl"
_CODES = (
    *("float32", "bfloat16", "float16", "uint8", "int8", "int32", "uint32", "int64"),
    *("float8_e4m3fn", "float8_e8m0fnu"),
)
_ODD = (None, 0, -1, 1, 3, 1 << 40, "x", [], {}, True, [0, 0], 2.5)
_MOST = 1 << 20  # bytes of one tensor

Tensors = dict[str, tuple[str, list[int], bytes]]


@cache
def cases() -> list[dict[str, Any]]:
    """What `tests/oracles/encodings.py` recorded of the libraries."""
    return [json.loads(line) for line in _RECORDED.read_text(encoding="ascii").splitlines()]


def stored(case: dict[str, Any]) -> Tensors:
    """Dtype, shape and bytes of each tensor."""
    return {
        key: (dtype, list(shape), zlib.decompress(base64.b85decode(text)))
        for key, (dtype, shape, text) in case["arrays"].items()
    }


def damage(tensors: Tensors, config: dict[str, Any], random: Random) -> None:
    """One change of a shape, a dtype, some bytes or the config."""
    key = random.choice(list(tensors))
    dtype, shape, raw = tensors[key]
    match random.randrange(6):
        case 0 if len(tensors) > 1:
            del tensors[key]
        case 1 if shape:
            axis = random.randrange(len(shape))
            changed = random.choice([0, 1, shape[axis] + 1, max(0, shape[axis] - 1), shape[axis] * 2])
            tensors[key] = dtype, [*shape[:axis], changed, *shape[axis + 1 :]], raw
        case 2:
            tensors[key] = random.choice(_CODES), shape, raw
        case 3:
            tensors[key] = dtype, random.choice([shape[::-1], [*shape, 1], shape[1:]]), raw
        case 4 if raw:
            noise = bytearray(raw)
            for _ in range(8):
                noise[random.randrange(len(noise))] = random.randrange(256)
            tensors[key] = dtype, shape, bytes(noise)
        case _:
            inner: Any = config
            while isinstance(inner, dict) and inner:
                name = random.choice(list(inner))
                if not isinstance(inner[name], dict) or random.random() < 0.3:
                    inner[name] = random.choice(_ODD)
                    break
                inner = inner[name]


def folder_of(tensors: Tensors, config: dict[str, Any], metadata: dict[str, str]) -> dict[str, bytes]:
    """The files of a folder; none where a tensor is too large for a test."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for key, (dtype, shape, raw) in tensors.items():
        nbytes = DTYPES[dtype].nbytes(math.prod(shape))
        if nbytes > _MOST:
            return {}
        content = (raw * (nbytes // max(1, len(raw)) + 1))[:nbytes]
        offsets = [len(data), len(data) + nbytes]
        header[key] = {"dtype": DTYPES[dtype].safetensors, "shape": shape, "data_offsets": offsets}
        data += content
    text = json.dumps(header).encode()
    return {
        "model.safetensors": len(text).to_bytes(8, "little") + text + data,
        "config.json": json.dumps(config).encode(),
    }


def quantized(random: Random) -> dict[str, bytes]:
    """A folder of one quantized tensor."""
    case = random.choice(cases())
    tensors, config = stored(case), json.loads(json.dumps(case["config"] or {}))
    for _ in range(random.randint(0, 3)):
        damage(tensors, config, random)
    return {".": b"", **folder_of(tensors, config, case["metadata"] or {})}
