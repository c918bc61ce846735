"""Encoded tensors of every decoded scheme, and the torch script that its users have: what `bench_encodings` races.

A script has whole tensors in memory, scales repeated; that of a GGUF type is the gguf package's own decoder.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import torch

from ckptool.core.arrays import numpy_dtype
from ckptool.encodings.gguf import BLOCK_TYPES
from ckptool.encodings.kernels import E2M1

if TYPE_CHECKING:
    from ckptool.core.arrays import Array

ROWS, COLUMNS = 8192, 8192
GROUPS = COLUMNS // 128

State = dict[str, torch.Tensor]
Script = Callable[[State], torch.Tensor]


@dataclass(frozen=True)
class Stored:
    """The stored tensors of one encoded tensor.

    Attributes:
        arrays: by key; the module is `m`.
        config: its `quantization_config`.
        metadata: of its file.
        dtypes: ckptool's names of those that numpy has no dtype for.
    """

    arrays: dict[str, Array]
    config: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    dtypes: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)


SCHEMES: dict[str, tuple[Callable[[], Stored], Script]] = {}
_RANDOM = np.random.default_rng(0)


def scheme(name: str, script: Script) -> Callable[[Callable[[], Stored]], Callable[[], Stored]]:
    """A decorator: the function makes the stored tensors of a scheme, which the script decodes."""

    def add(make: Callable[[], Stored]) -> Callable[[], Stored]:
        SCHEMES[name] = make, script
        return make

    return add


def octets(*shape: int, most: int = 256) -> Array:
    return _RANDOM.integers(0, most, shape, dtype=np.uint8)


def words(*shape: int) -> Array:
    return octets(*shape[:-1], shape[-1] * 4).view("<i4")


def halves(*shape: int) -> Array:
    return _RANDOM.random(shape, np.float32).astype(np.float16)


def singles(*shape: int) -> Array:
    return _RANDOM.random(shape, np.float32)


def eights(*shape: int) -> Array:
    return octets(*shape, most=127).view(numpy_dtype("float8_e4m3fn"))


def signed(*shape: int) -> Array:
    return octets(*shape).view(np.int8)


def repeated(scale: torch.Tensor, columns: int, rows: int = 1) -> torch.Tensor:
    scale = scale.float().repeat_interleave(columns, 1)
    return scale.repeat_interleave(rows, 0) if rows > 1 else scale


def nibbles(packed: torch.Tensor, high_first: bool = False) -> torch.Tensor:
    both = (packed >> 4, packed & 15) if high_first else (packed & 15, packed >> 4)
    return torch.stack(both, dim=-1).flatten(-2)


def fp4(packed: torch.Tensor, high_first: bool = False) -> torch.Tensor:
    return torch.tensor(E2M1)[nibbles(packed, high_first).int()]


def exponents(stored: torch.Tensor) -> torch.Tensor:
    return torch.exp2(stored.float() - 127)


# ---------------------------------------------------------------------------------------------- 8 bits

_scaled: Script = lambda state: state["m.weight"].float() * state["m.weight_scale"]  # noqa: E731


@scheme("fp8 blocks", lambda state: state["m.weight"].float() * repeated(state["m.weight_scale_inv"], 128, 128))
def fp8_blocks() -> Stored:
    config = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    return Stored({"m.weight": eights(ROWS, COLUMNS), "m.weight_scale_inv": singles(ROWS // 128, GROUPS)}, config)


@scheme("fp8 channels", _scaled)
def fp8_channels() -> Stored:
    return Stored({"m.weight": eights(ROWS, COLUMNS), "m.weight_scale": singles(ROWS, 1)})


@scheme("mxfp8", lambda state: state["m.weight"].float() * repeated(exponents(state["m.weight_scale"]), 32))
def mxfp8() -> Stored:
    return Stored({"m.weight": eights(ROWS, COLUMNS), "m.weight_scale": octets(ROWS, COLUMNS // 32, most=250)})


@scheme("int8", _scaled)
def int8() -> Stored:
    return Stored({"m.weight": signed(ROWS, COLUMNS), "m.weight_scale": singles(ROWS, 1)})


@scheme("bnb int8", lambda state: state["m.weight"].float() * state["m.SCB"][:, None] * (1 / 127))
def bnb_int8() -> Stored:
    return Stored({"m.weight": signed(ROWS, COLUMNS), "m.SCB": singles(ROWS)})


@scheme("quanto int8", lambda state: state["m.weight._data"].float() * state["m.weight._scale"])
def quanto_int8() -> Stored:
    return Stored({"m.weight._data": signed(ROWS, COLUMNS), "m.weight._scale": singles(ROWS, 1)})


@scheme("torchao int8", lambda state: state["m._weight_qdata"].float() * state["m._weight_scale"])
def torchao_int8() -> Stored:
    about = {
        "_type": "Int8Tensor",
        "_data": {"block_size": [1, COLUMNS], "dtype": {"_type": "torch.dtype", "_data": "bfloat16"}},
        "_tensor_data_names": ["qdata", "scale"],
    }
    metadata = {"tensor_names": '["m.weight"]', "m.weight": json.dumps(about)}
    arrays = {"m._weight_qdata": signed(ROWS, COLUMNS), "m._weight_scale": singles(ROWS, 1)}
    return Stored(arrays, metadata=metadata)


# ---------------------------------------------------------------------------------------------- 4-bit floats


@scheme("mxfp4", lambda state: fp4(state["m.weight_packed"]) * repeated(exponents(state["m.weight_scale"]), 32))
def mxfp4() -> Stored:
    scale = octets(ROWS, COLUMNS // 32, most=250)
    return Stored({"m.weight_packed": octets(ROWS, COLUMNS // 2), "m.weight_scale": scale})


@scheme(
    "nvfp4",
    lambda state: fp4(state["m.weight"]) * repeated(state["m.weight_scale"].float() * state["m.weight_scale_2"], 16),
)
def nvfp4() -> Stored:
    factor = np.array(0.01, np.float32)
    scale = eights(ROWS, COLUMNS // 16)
    return Stored({"m.weight": octets(ROWS, COLUMNS // 2), "m.weight_scale": scale, "m.weight_scale_2": factor})


def _nvfp4_tiled(state: State) -> torch.Tensor:
    tiles = state["m.weight_scale"].float().view(ROWS // 128, COLUMNS // 64, 32, 4, 4)
    scale = tiles.permute(0, 3, 2, 1, 4).reshape(ROWS, COLUMNS // 16) * state["m.weight_scale_2"]
    return fp4(state["m.weight"], True) * repeated(scale, 16)


@scheme("nvfp4 tiled", _nvfp4_tiled)
def nvfp4_tiled() -> Stored:
    described = np.frombuffer(b'{"format": "nvfp4"}', np.uint8)
    return Stored({**nvfp4().arrays, "m.comfy_quant": described})


@scheme(
    "gpt-oss",
    lambda state: (
        torch.ldexp(fp4(state["m.w_blocks"]), state["m.w_scales"].int()[..., None] - 127).flatten(2).transpose(1, 2)
    ),
)
def gpt_oss() -> Stored:
    shape = (4, 2048, COLUMNS // 32)
    return Stored({"m.w_blocks": octets(*shape, 16), "m.w_scales": octets(*shape, most=250)})


def _nf4(state: State) -> torch.Tensor:
    values = state["m.weight.quant_map"][nibbles(state["m.weight"].flatten(), True).int()]
    scale = state["m.weight.absmax"]
    if "m.weight.nested_absmax" in state:
        scale = state["m.weight.nested_quant_map"][scale.int()].view(-1, 256)
        scale = (scale * state["m.weight.nested_absmax"][:, None]).flatten() + 0.5
    return (values.view(-1, 64) * scale.view(-1, 1)).view(ROWS, COLUMNS)


@scheme("nf4", _nf4)
def nf4(**more: object) -> Stored:
    about = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [ROWS, COLUMNS], **more}
    key, elements = "m.weight", ROWS * COLUMNS
    arrays = {
        key: octets(elements // 2, 1),
        f"{key}.absmax": singles(elements // 64),
        f"{key}.quant_map": np.linspace(-1, 1, 16, dtype=np.float32),
        f"{key}.quant_state.bitsandbytes__nf4": np.frombuffer(json.dumps(about).encode(), np.uint8),
    }
    return Stored(arrays)


@scheme("nf4 nested", _nf4)
def nf4_nested() -> Stored:
    blocks = ROWS * COLUMNS // 64
    nested = {
        "m.weight.absmax": octets(blocks),
        "m.weight.nested_absmax": singles(blocks // 256),
        "m.weight.nested_quant_map": np.linspace(-1, 1, 256, dtype=np.float32),
    }
    return Stored({**nf4(nested_blocksize=256, nested_offset=0.5).arrays, **nested})


# ---------------------------------------------------------------------------------------------- packed integers


@scheme(
    "packed int4",
    lambda state: (
        (nibbles(state["m.weight_packed"].view(torch.uint8)).to(torch.int8) - 8)
        * repeated(state["m.weight_scale"], 128)
    ),
)
def packed_int4() -> Stored:
    shape = np.array([ROWS, COLUMNS], np.int64)
    packed, scale = words(ROWS, COLUMNS // 8), halves(ROWS, GROUPS)
    return Stored({"m.weight_packed": packed, "m.weight_scale": scale, "m.weight_shape": shape})


def _gptq(state: State) -> torch.Tensor:
    shifts = torch.arange(0, 32, 4, dtype=torch.int32)
    codes = ((state["m.qweight"].unsqueeze(1) >> shifts[None, :, None]) & 15).to(torch.int8).flatten(0, 1)
    zeros = ((state["m.qzeros"].unsqueeze(2) >> shifts) & 15).to(torch.int8).flatten(1) + 1
    groups = state["m.g_idx"].long()
    return ((codes - zeros[groups]) * state["m.scales"].float()[groups]).T


@scheme("GPTQ", _gptq)
def gptq() -> Stored:
    arrays = {
        "m.qweight": words(COLUMNS // 8, ROWS),
        "m.qzeros": np.full((GROUPS, ROWS // 8), 0x66666666, np.int32),
        "m.scales": halves(GROUPS, ROWS),
        "m.g_idx": np.arange(COLUMNS, dtype=np.int32) // 128,
    }
    return Stored(arrays, {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": False})


@scheme("GPTQ act-order", _gptq)
def gptq_ordered() -> Stored:
    plain = gptq()
    return Stored({**plain.arrays, "m.g_idx": _RANDOM.permutation(plain.arrays["m.g_idx"])}, plain.config)


def _awq(state: State) -> torch.Tensor:
    shifts = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7], dtype=torch.int32) * 4
    codes = ((state["m.qweight"].unsqueeze(2) >> shifts) & 15).to(torch.int8).flatten(1)
    zeros = ((state["m.qzeros"].unsqueeze(2) >> shifts) & 15).to(torch.int8).flatten(1)
    zeros, scales = zeros.repeat_interleave(128, 0), state["m.scales"].float().repeat_interleave(128, 0)
    return ((codes - zeros) * scales).T


@scheme("AWQ", _awq)
def awq() -> Stored:
    arrays = {
        "m.qweight": words(COLUMNS, ROWS // 8),
        "m.qzeros": words(GROUPS, ROWS // 8),
        "m.scales": halves(GROUPS, ROWS),
    }
    return Stored(arrays, {"quant_method": "awq", "bits": 4, "group_size": 128})


def _hqq(state: State) -> torch.Tensor:
    packed = state["m.W_q"]
    codes = torch.cat([packed >> 4, packed & 15]).float()
    return ((codes - state["m.zero"].float()) * state["m.scale"].float()).view(ROWS, COLUMNS)


@scheme("HQQ", _hqq)
def hqq() -> Stored:
    groups = ROWS * COLUMNS // 64
    numbers = {"nbits": 4, "group_size": 64, "axis": 1, "shape": [ROWS, COLUMNS]}
    arrays = {
        "m.W_q": octets(groups // 2, 64),
        "m.scale": halves(groups, 1),
        "m.zero": halves(groups, 1),
        **{f"m.{name}": np.array(value, np.int64) for name, value in numbers.items()},
    }
    return Stored(arrays)


def _mlx(state: State) -> torch.Tensor:
    codes = nibbles(state["m.weight"].view(torch.uint8)).float().view(ROWS, -1, 64)
    return (codes * state["m.scales"].float().unsqueeze(-1) + state["m.biases"].float().unsqueeze(-1)).flatten(1)


@scheme("MLX", _mlx)
def mlx() -> Stored:
    scales = halves(ROWS, COLUMNS // 64)
    packed = words(ROWS, COLUMNS // 8).view("<u4")
    return Stored({"m.weight": packed, "m.scales": scales, "m.biases": scales}, {"group_size": 64, "bits": 4})


def _mlx3(state: State) -> torch.Tensor:
    stored = state["m.weight"].view(torch.uint8).view(ROWS, -1, 3).int()
    joined = stored[..., 0] | (stored[..., 1] << 8) | (stored[..., 2] << 16)
    codes = ((joined[..., None] >> torch.arange(0, 24, 3, dtype=torch.int32)) & 7).float().view(ROWS, -1, 64)
    return (codes * state["m.scales"].float().unsqueeze(-1) + state["m.biases"].float().unsqueeze(-1)).flatten(1)


@scheme("MLX 3-bit", _mlx3)
def mlx3() -> Stored:
    scales = halves(ROWS, COLUMNS // 64)
    packed = words(ROWS, COLUMNS * 3 // 32).view("<u4")
    return Stored({"m.weight": packed, "m.scales": scales, "m.biases": scales}, {"group_size": 64, "bits": 3})


def _two_rows(state: State) -> torch.Tensor:
    packed = state["m.weight"].view(torch.int8)
    codes = torch.stack([(packed << 4) >> 4, packed >> 4], dim=1).flatten(0, 1)
    return codes * repeated(state["m.weight_scale"], 128)


@scheme("ModelOpt int4", _two_rows)
def modelopt_int4() -> Stored:
    return Stored({"m.weight": octets(ROWS // 2, COLUMNS), "m.weight_scale": halves(ROWS, GROUPS)})


def _slabs(state: State) -> torch.Tensor:
    packed = state["m.weight._data._data"]
    codes = torch.cat([packed & 15, packed >> 4])
    return state["m.weight._scale"] * codes - state["m.weight._shift"]


@scheme("quanto int4", _slabs)
def quanto_int4() -> Stored:
    scales = {"m.weight._scale": singles(ROWS, 1), "m.weight._shift": singles(ROWS, 1)}
    return Stored({"m.weight._data._data": octets(ROWS // 2, COLUMNS), **scales})


@scheme(
    "BitNet",
    lambda state: (
        (torch.cat([(state["m.weight"] >> shift) & 3 for shift in (0, 2, 4, 6)]).float() - 1) / state["m.weight_scale"]
    ),
)
def bitnet() -> Stored:
    codes = octets(ROWS // 4, COLUMNS)
    return Stored({"m.weight": codes, "m.weight_scale": singles(1)}, {"quant_method": "bitnet"})


# ---------------------------------------------------------------------------------------------- GGUF


def gguf_type(stem: str) -> gguf.GGMLQuantizationType | None:
    """The gguf package's type; None where it has no decoder."""
    try:
        kind = gguf.GGMLQuantizationType[stem.upper()]
        gguf.quants.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except (KeyError, NotImplementedError):
        return None
    return kind


def _add_gguf(stem: str, kind: gguf.GGMLQuantizationType) -> None:
    block_type = BLOCK_TYPES[stem]

    def make() -> Stored:
        stored = octets(ROWS, COLUMNS // block_type.elements * block_type.nbytes, most=60)  # halves are finite
        return Stored({"m.weight": stored}, dtypes={"m.weight": (f"gguf_{stem}", (ROWS, COLUMNS))})

    def script(state: State) -> torch.Tensor:
        return torch.from_numpy(gguf.quants.dequantize(state["m.weight"].numpy(), kind))

    scheme(f"GGUF {stem.upper()}", script)(make)


for _stem in BLOCK_TYPES:
    if (_kind := gguf_type(_stem)) is not None:
        _add_gguf(_stem, _kind)
