"""What is taken for an encoding, and what only looks like one; damaged and hostile headers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from encodings_harness import decoded, found_in, reader_of, specs_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptool.core.arrays import numpy_dtype
from ckptool.core.errors import CkptError
from ckptool.core.spec import TensorSpec
from ckptool.encodings.registry import decode, decode_blocks, recognise, row_blocks, settle

if TYPE_CHECKING:
    from ckptool.core.arrays import Array

FP8 = "float8_e4m3fn"
Specs = dict[str, tuple[str, tuple[int, ...]]]


def found(specs: Specs, config: dict[str, Any] | None = None, metadata: dict[str, str] | None = None) -> Any:
    named = {key: TensorSpec(key, dtype, shape) for key, (dtype, shape) in specs.items()}
    return recognise(named, config, metadata or {})


def problems(specs: Specs, config: dict[str, Any] | None = None) -> list[str]:
    return [problem.kind for encoded in found(specs, config) for problem in encoded.problems]


# ------------------------------------------------------------------------------------------------ look-alikes

LOOK_ALIKES: dict[str, Specs] = {
    "plain fp8": {"a.weight": (FP8, (8, 8)), "b.weight": (FP8, (8, 8)), "b.bias": ("bfloat16", (8,))},
    "fp8 and a norm's gain": {"a.weight": (FP8, (64, 8)), "norm.weight": (FP8, (8,)), "norm.scale": ("float32", (8,))},
    "a tensor called scales": {
        "scales": ("float32", (3,)),
        "m.scales": ("float16", (8, 4)),
        "m.weight": ("float32", (8, 4)),
    },
    "int8 table": {"table.weight": ("int8", (8, 4)), "norm.weight": ("float32", (8,))},
    "bool mask": {
        "attn.weight": ("float32", (8, 8)),
        "attn.bias": ("bool", (1, 1, 8, 8)),
        "attn.mask": ("uint8", (8, 8)),
    },
    "integers": {"m.num_batches_tracked": ("int64", ()), "m.relative_position_index": ("int64", (49, 49))},
    "weight_scale beside floats": {"m.weight": ("bfloat16", (8, 8)), "m.weight_scale": ("float32", (8, 1))},
    "codes and codebooks of a VQ model": {
        "q.codes": ("int64", (4, 8)),
        "q.codebooks": ("float32", (4, 8, 8)),
        "q.scales": ("float32", (4,)),
    },
    "KV-cache scales": {"k_proj.weight": ("bfloat16", (8, 8)), "k_proj.k_scale": ("float32", ())},
    "weight norm": {"m.weight_g": ("float32", (8, 1)), "m.weight_v": ("float32", (8, 8)), "m.scale": ("float32", (8,))},
    "uint8 images": {"frames": ("uint8", (4, 3, 8, 8)), "frames_scales": ("float32", (4,))},
    "SSD's priors": {"zero_point": ("float32", (4,)), "absmax": ("float32", (4,)), "m.absmax": ("float32", (4,))},
}


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_look_alikes_are_not_encoded(name: str) -> None:
    assert found(LOOK_ALIKES[name]) == ()


def test_ordinary_models_have_no_encoded_tensors() -> None:
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, device="meta")
    modules: dict[str, torch.nn.Module] = {
        "transformer": torch.nn.TransformerEncoder(layer, 2),
        "convolutions": torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ConvTranspose1d(8, 8, 3)
        ),
        "embedding": torch.nn.ModuleList([torch.nn.Embedding(9, 8), torch.nn.LSTM(8, 8), torch.nn.GRU(8, 8)]),
        "attention": torch.nn.MultiheadAttention(16, 2, add_bias_kv=True, kdim=8, vdim=8),
    }
    for module in modules.values():
        for dtype in ("float32", "bfloat16", FP8):
            specs = {
                key: (dtype if value.is_floating_point() else str(value.dtype)[6:], tuple(value.shape))
                for key, value in module.state_dict().items()
            }
            assert found(specs) == ()


# ------------------------------------------------------------------------------------------------ problems

BLOCKS = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
GPTQ: Specs = {
    "m.qweight": ("int32", (8, 32)),
    "m.qzeros": ("int32", (4, 4)),
    "m.scales": ("float16", (4, 32)),
    "m.g_idx": ("int32", (64,)),
}
NF4: Specs = {
    "m.weight": ("uint8", (32, 1)),
    "m.weight.absmax": ("float32", (1,)),
    "m.weight.quant_map": ("float32", (16,)),
    "m.weight.quant_state.bitsandbytes__nf4": ("uint8", (80,)),
}
PACKED: Specs = {
    "m.weight_packed": ("int32", (8, 8)),
    "m.weight_scale": ("bfloat16", (8, 2)),
    "m.weight_shape": ("int64", (2,)),
}


def without(specs: Specs, *keys: str) -> Specs:
    return {key: spec for key, spec in specs.items() if key not in keys}


SCALED = {"m.weight": (FP8, (8, 8)), "m.weight_scale": ("float32", ())}
PROBLEMS: dict[str, tuple[Specs, dict[str, Any] | None, str]] = {
    "no scale, the config says fp8": ({"m.weight": (FP8, (8, 8))}, BLOCKS, "missing"),
    "no scale, other layers have one": (
        {"a.weight": (FP8, (8, 8)), "a.weight_scale": ("float32", ()), "b.weight": (FP8, (8, 8))},
        None,
        "missing",
    ),
    "a scale too short": (
        {"m.weight": (FP8, (300, 300)), "m.weight_scale_inv": ("float32", (2, 3))},
        BLOCKS,
        "misshapen",
    ),
    "blocks of an unknown size": (
        {"m.weight": (FP8, (300, 300)), "m.weight_scale_inv": ("float32", (4, 4))},
        None,
        "misshapen",
    ),
    "a scale without elements": ({"m.weight": (FP8, (8, 8)), "m.weight_scale": ("float32", (0,))}, None, "misshapen"),
    "a scale of four axes": (
        {"m.weight": (FP8, (8, 8)), "m.weight_scale": ("float32", (2, 2, 2, 2))},
        None,
        "misshapen",
    ),
    "experts of another number": (
        {"e.up_proj": (FP8, (4, 8, 8)), "e.up_proj_scale": ("float32", (3, 8))},
        None,
        "misshapen",
    ),
    "GPTQ without zeros": (without(GPTQ, "m.qzeros"), None, "missing"),
    "GPTQ's zeros too narrow": ({**GPTQ, "m.qzeros": ("int32", (4, 3))}, None, "misshapen"),
    "GPTQ's config of other bits": (GPTQ, {"quantization_config": {"quant_method": "gptq", "bits": 8}}, "config"),
    "GPTQ's group size does not fit": (
        GPTQ,
        {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}},
        "misshapen",
    ),
    "GPTQ in act-order without the order": (
        without(GPTQ, "m.g_idx"),
        {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": True}},
        "missing",
    ),
    "GPTQ of Marlin": (
        GPTQ,
        {"quantization_config": {"quant_method": "gptq", "checkpoint_format": "marlin"}},
        "refused",
    ),
    "AWQ of GEMV": (
        {"m.qweight": ("int32", (64, 4)), "m.qzeros": ("int32", (2, 4)), "m.scales": ("float16", (2, 32))},
        {"quantization_config": {"quant_method": "awq", "version": "gemv"}},
        "refused",
    ),
    "AWQ without zeros": (
        {"m.qweight": ("int32", (64, 4)), "m.scales": ("float16", (2, 32))},
        {"quantization_config": {"quant_method": "awq"}},
        "missing",
    ),
    "nf4 without a state": (without(NF4, "m.weight.quant_state.bitsandbytes__nf4"), None, "missing"),
    "nf4 without absmax": (without(NF4, "m.weight.absmax"), None, "missing"),
    "nf4 with a table of 15": ({**NF4, "m.weight.quant_map": ("float32", (15,))}, None, "misshapen"),
    "packed without a shape": (without(PACKED, "m.weight_shape"), None, "missing"),
    "packed with a shape of three": ({**PACKED, "m.weight_shape": ("int64", (3,))}, None, "misshapen"),
    "packed in act-order without the order": (
        PACKED,
        {"quantization_config": {"config_groups": {"0": {"weights": {"num_bits": 4, "actorder": "group"}}}}},
        "missing",
    ),
    "packed and rotated": (PACKED, {"quantization_config": {"transform_config": {"a": 1}}}, "refused"),
    "fp8 and rotated": (SCALED, {"quantization_config": {"transform_config": {"a": 1}}}, "refused"),
    "fp8 of Quark": (SCALED, {"quantization_config": {"quant_method": "quark"}}, "refused"),
    "int8 of SINQ": (
        {"m.weight": ("int8", (8, 8)), "m.weight_scale": ("float32", (8, 1))},
        {"quantization_config": {"quant_method": "SINQ"}},
        "refused",
    ),
    "nvfp4 of FourOverSix": (
        {"m.weight": ("uint8", (8, 8)), "m.weight_scale": (FP8, (8, 1)), "m.weight_scale_2": ("float32", ())},
        {"quantization_config": {"quant_method": "fouroversix"}},
        "refused",
    ),
    "nvfp4 without a global scale": (
        {"m.weight": ("uint8", (8, 8)), "m.weight_scale": (FP8, (8, 1))},
        None,
        "missing",
    ),
    "nvfp4 with a scale of another shape": (
        {"m.weight": ("uint8", (8, 8)), "m.weight_scale": (FP8, (8, 2)), "m.weight_scale_2": ("float32", ())},
        None,
        "misshapen",
    ),
    "nvfp4 with pre_quant_scale": (
        {
            "m.weight": ("uint8", (8, 8)),
            "m.weight_scale": (FP8, (8, 1)),
            "m.weight_scale_2": ("float32", ()),
            "m.pre_quant_scale": ("float32", (16,)),
        },
        None,
        "refused",
    ),
    "gpt-oss without scales": ({"m.w_blocks": ("uint8", (2, 8, 2, 16))}, None, "missing"),
    "gpt-oss with other scales": (
        {"m.w_blocks": ("uint8", (2, 8, 2, 16)), "m.w_scales": ("uint8", (2, 8, 3))},
        None,
        "misshapen",
    ),
    "MLX of several readings": (
        {"m.weight": ("uint32", (8, 16)), "m.scales": ("float16", (8, 2)), "m.biases": ("float16", (8, 2))},
        None,
        "config",
    ),
    "MLX of no reading": (
        {"m.weight": ("uint32", (8, 16)), "m.scales": ("float16", (8, 5)), "m.biases": ("float16", (8, 5))},
        None,
        "misshapen",
    ),
    "int8 without a scale": (
        {"m.weight": ("int8", (8, 8))},
        {"quantization_config": {"format": "int-quantized"}},
        "missing",
    ),
    "int8 of bitsandbytes without SCB": (
        {"m.weight": ("int8", (8, 8)), "m.weight_format": ("uint8", ())},
        None,
        "missing",
    ),
    "SCB of another length": ({"m.weight": ("int8", (8, 8)), "m.SCB": ("float32", (7,))}, None, "misshapen"),
    "BitNet without a config": ({"m.weight": ("uint8", (8, 8)), "m.weight_scale": ("bfloat16", (1,))}, None, "config"),
    "the plain tensor is there, too": ({**PACKED, "m.weight": ("float32", (8, 64))}, None, "config"),
    "AQLM": (
        {"m.codes": ("int16", (8, 8, 1)), "m.codebooks": ("float16", (1, 16, 1, 8)), "m.scales": ("float16", (8, 1))},
        None,
        "refused",
    ),
    "ExLlamaV3": (
        {"m.trellis": ("int16", (8, 8, 32)), "m.suh": ("float16", (8,)), "m.svh": ("float16", (8,))},
        None,
        "refused",
    ),
    "EETQ": ({"m.weight": ("int8", (8, 8)), "m.weight_scales": ("float16", (8,))}, None, "refused"),
    "SVDQuant": ({"m.qweight": ("int8", (8, 8)), "m.wscales": ("bfloat16", (1, 8))}, None, "refused"),
    "an unknown method": ({"m.weight": ("int8", (8, 8))}, {"quantization_config": {"quant_method": "new"}}, "refused"),
    "unknown members": ({"m.weight": ("int8", (8, 8)), "m.lut_scale": ("float32", (3,))}, None, "refused"),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_what_cannot_be_decoded_says_why(name: str) -> None:
    specs, config, kind = PROBLEMS[name]
    assert kind in problems(specs, config)
    (encoded, *_) = [encoded for encoded in found(specs, config) if encoded.problems]
    with pytest.raises(CkptError, match="cannot be decoded"):
        decode(encoded, lambda role, *box: np.empty(0), 0, 0)


@pytest.mark.parametrize("size", [0, -1, True, "128", None, 2**70, [128], 1.5])
def test_a_group_size_that_is_none_is_not_used(size: object) -> None:
    for config in (
        {"quantization_config": {"quant_method": "gptq", "group_size": size, "bits": size}},
        {"quantization_config": {"quant_method": "awq", "group_size": size}},
        {"quantization_config": {"weight_block_size": [size, size], "group_size": size}},
        {"quantization_config": {"config_groups": {"a": {"weights": {"num_bits": size, "group_size": size}}}}},
        {"quantization_config": size, "quantization": size, "dtype": size, "text_config": size},
    ):
        for specs in (GPTQ, PACKED, NF4, {"m.weight": (FP8, (300, 300)), "m.weight_scale_inv": ("float32", (3, 3))}):
            assert len(found(specs, config)) == 1


# ------------------------------------------------------------------------------------------------ values that lie

RNG = np.random.default_rng(7)


def gptq_arrays() -> dict[str, Array]:
    return {
        "m.qweight": RNG.integers(0, 2**31, (8, 32), dtype=np.int32),
        "m.qzeros": np.full((4, 4), 0x12345612, np.int32),
        "m.scales": np.ones((4, 32), np.float16),
        "m.g_idx": np.arange(64, dtype=np.int32) // 16,
    }


def nf4_arrays(**state: object) -> dict[str, Array]:
    said = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [8, 8], **state}
    return {
        "m.weight": np.zeros((32, 1), np.uint8),
        "m.weight.absmax": np.ones(1, np.float32),
        "m.weight.quant_map": np.linspace(-1, 1, 16, dtype=np.float32),
        "m.weight.quant_state.bitsandbytes__nf4": np.frombuffer(json.dumps(said).encode(), np.uint8),
    }


def test_gptqs_modules_may_have_their_own_numbers() -> None:
    """GPTQModel's `dynamic`: the shapes say what a module has; the general numbers are not held against it."""
    config = {"quant_method": "gptq", "bits": 8, "group_size": 128, "sym": True}
    assert problems(GPTQ, {"quantization_config": config}) == ["config"]
    varied = {"quantization_config": {**config, "dynamic": {"+:m": {"bits": 4, "group_size": 16, "sym": False}}}}
    (encoded,) = found(GPTQ, varied)
    assert not encoded.problems
    assert (encoded.title, encoded.parameters["symmetric"]) == ("GPTQ 4-bit, groups of 16", None)


def test_orders_of_packed_integers_that_need_no_member() -> None:
    for order in ("weight", "static", None, False):
        weights = {"num_bits": 4, "group_size": 32, "actorder": order}
        assert problems(PACKED, {"quantization_config": {"config_groups": {"0": {"weights": weights}}}}) == []


@pytest.mark.parametrize("index", [-1, 4, 2**31 - 1])
def test_groups_out_of_range_are_an_error(index: int) -> None:
    arrays = gptq_arrays()
    arrays["m.g_idx"][5] = index
    with pytest.raises(CkptError, match="g_idx has groups without a scale"):
        decoded(arrays, {"quantization_config": {"quant_method": "gptq", "sym": False}})


@pytest.mark.parametrize(
    ("kind", "data", "changed", "role"),
    [
        ("Int8Tensor", {"block_size": [1, 32]}, {"scale": ("float32", (2, 8))}, "_weight_scale"),
        ("Int8Tensor", {"block_size": [1, 128]}, {"scale": ("float32", (2, 4))}, "_weight_scale"),
        ("Int8Tensor", {"block_size": [1, 32]}, {"zero_point": ("int8", (2, 8))}, "_weight_zero_point"),
        ("NVFP4Tensor", {"block_size": 16}, {"qdata": ("bfloat16", (8, 64))}, "_weight_qdata"),
    ],
)
def test_torchaos_parts_of_other_shapes_are_refused(kind: str, data: dict[str, Any], changed: Specs, role: str) -> None:
    """What the fuzzer found: as many numbers, in another shape; codes that are no bytes."""
    parts: Specs = {"qdata": ("int8", (8, 64)), "scale": ("float32", (8, 2)), "zero_point": ("int8", (8, 2))}
    if kind == "NVFP4Tensor":
        parts = {"qdata": ("uint8", (8, 64)), "scale": (FP8, (8, 8))}
    names = list(parts)
    about = json.dumps({"_type": kind, "_data": data, "_tensor_data_names": names})
    metadata = {"tensor_names": '["m.weight"]', "m.weight": about}
    specs = {f"m._weight_{name}": form for name, form in {**parts, **changed}.items()}
    (encoded,) = found(specs, None, metadata)
    (problem,) = encoded.problems
    assert problem.kind == "misshapen"
    assert role in problem.text


def test_a_divisor_of_zero_is_an_error() -> None:
    """nvfp4 of compressed-tensors and BitNet divide by their scale: infinite weights are not written."""
    packed = np.full((8, 8), 0x22, np.uint8)
    scale = np.ones((8, 1), numpy_dtype(FP8))
    zero = np.zeros(1, np.float32)
    nv = {"m.weight_packed": packed, "m.weight_scale": scale, "m.weight_global_scale": zero}
    bitnet = {"m.weight": packed, "m.weight_scale": zero}
    for arrays, config in ((nv, None), (bitnet, {"quantization_config": {"quant_method": "bitnet"}})):
        with pytest.raises(CkptError, match=r"scale is 0, and it divides"):
            decoded(arrays, config)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scales_that_are_not_finite_are_an_error(value: float) -> None:
    arrays = gptq_arrays()
    arrays["m.scales"][1, 3] = value
    with pytest.raises(CkptError, match=r"m\.scales has values that are not finite"):
        decoded(arrays, {"quantization_config": {"quant_method": "gptq", "sym": False}})
    codes = np.ones((8, 8), numpy_dtype(FP8))
    with pytest.raises(CkptError, match="not finite"):
        decoded({"m.weight": codes, "m.weight_scale": np.array(value, np.float32)})
    with pytest.raises(CkptError, match="not finite"):
        decoded(nf4_arrays() | {"m.weight.absmax": np.array([value], np.float32)})


@pytest.mark.parametrize(
    "state",
    [
        {"shape": [8, 9]},
        {"shape": [2**62, 2**62]},
        {"shape": []},
        {"shape": "8"},
        {"shape": [8, -8]},
        {"shape": None},
        {"blocksize": 0},
        {"blocksize": 32},
        {"blocksize": 2**80},
        {"blocksize": 63},
        {"quant_type": "fp4"},
        {"dtype": "int8"},
        {"dtype": []},
        {"shape": [True, 64]},
    ],
    ids=str,
)
def test_a_state_that_lies_is_a_problem(state: dict[str, object]) -> None:
    (encoded,) = found_in(nf4_arrays(**state)).values()
    assert encoded.problems


@pytest.mark.parametrize("text", [b"", b"[", b"[]", b"{" * 5000, b"\xff\xfe", b"null", b'{"shape": 1e999}'])
def test_a_state_that_is_no_json_is_a_problem(text: bytes) -> None:
    arrays = nf4_arrays()
    arrays["m.weight.quant_state.bitsandbytes__nf4"] = np.frombuffer(text, np.uint8)
    (encoded,) = found_in(arrays).values()
    assert encoded.problems


@pytest.mark.parametrize("shape", [(8, 65), (9, 64), (8, 0), (8, -64), (2**40, 2**40), (8, 128)])
def test_a_packed_shape_that_lies_is_a_problem(shape: tuple[int, int]) -> None:
    arrays: dict[str, Array] = {
        "m.weight_packed": np.zeros((8, 8), np.int32),
        "m.weight_scale": np.ones((8, 2), np.float32),
        "m.weight_shape": np.array(shape, np.int64),
    }
    config = {"quantization_config": {"config_groups": {"a": {"weights": {"num_bits": 4, "group_size": 32}}}}}
    (encoded,) = found_in(arrays, config).values()
    assert encoded.problems


def test_gptq_versions_are_told_by_symmetric_zeros() -> None:
    arrays = gptq_arrays()
    for stored, version in ((0x77777777, 1), (0x88888888, 2)):
        arrays["m.qzeros"][:] = np.array(stored, np.uint32).view(np.int32)
        for said in ("gptq", "gptq_v2"):
            config = {"quantization_config": {"quant_method": "gptq", "sym": True, "checkpoint_format": said}}
            (encoded,) = found_in(arrays, config).values()
            assert encoded.parameters["version"] == version
    arrays["m.qzeros"][0, 0] = 0x12345678
    (encoded,) = found_in(arrays, {"quantization_config": {"quant_method": "gptq", "sym": True}}).values()
    assert encoded.problems[0].kind == "config"


# ------------------------------------------------------------------------------------------------ properties

NAMES = (
    "weight",
    "weight_scale",
    "weight_scale_inv",
    "scale",
    "scales",
    "qweight",
    "qzeros",
    "g_idx",
    "weight_packed",
    "weight_shape",
    "weight_scale_2",
    "weight_global_scale",
    "biases",
    "SCB",
    "W_q",
    "zero",
    "w_blocks",
    "w_scales",
    "weight_zero_point",
    "comfy_quant",
    "codes",
    "weight._data",
    "weight._scale",
    "nbits",
    "group_size",
    "axis",
    "shape",
)
TYPES = ("float32", "bfloat16", "float16", FP8, "float8_e8m0fnu", "uint8", "int8", "int32", "uint32", "int64")
SIZES = st.sampled_from([0, 1, 2, 3, 4, 8, 16, 31, 32, 64, 128, 130])
SHAPES = st.lists(SIZES, max_size=4).map(tuple)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), st.tuples(st.sampled_from(TYPES), SHAPES), max_size=6), st.randoms())
def test_any_headers_give_encodings_that_decode_or_say_why(module: dict[str, Any], random: Any) -> None:
    specs = {f"m.{name}": spec for name, spec in module.items()}
    rng = np.random.default_rng(random.randrange(2**32))
    arrays = {
        key: rng.integers(0, 256, (int(np.prod(shape)) * numpy_dtype(dtype).itemsize,), dtype=np.uint8)
        .view(numpy_dtype(dtype))
        .reshape(shape)
        for key, (dtype, shape) in specs.items()
        if np.prod(shape, dtype=object) < 1 << 22
    }
    for encoded in recognise(specs_of(arrays), None, {}):
        read = reader_of(encoded, arrays)
        final = settle(encoded, read)
        assert final.needs == () or final.problems
        assert set(final.keys) <= set(arrays)
        if final.problems or final.spec.elements > 1 << 22:
            continue
        try:
            values = decode(final, read, 0, final.rows)
        except CkptError:
            continue
        assert values.shape == (final.rows, final.columns)
        assert values.dtype == np.float32


def test_blocks_cover_all_rows_once_and_are_bounded() -> None:
    specs: Specs = {"e.up_proj": (FP8, (6, 300, 700)), "e.up_proj_scale_inv": ("float32", (6, 3, 6))}
    (encoded,) = found(specs)
    rows = [row for start, stop in row_blocks(encoded, 100_000) for row in range(start, stop)]
    assert rows == list(range(1800))
    assert all(
        (stop - start) * 700 <= 100_000 and start % 300 % 128 == 0 for start, stop in row_blocks(encoded, 100_000)
    )


def test_only_the_rows_needed_are_read() -> None:
    codes = np.ones((512, 256), numpy_dtype(FP8))
    arrays = {"m.weight": codes, "m.weight_scale_inv": np.ones((4, 2), np.float32)}
    (encoded,) = found_in(arrays).values()
    seen: list[tuple[str, tuple[int, ...]]] = []

    def read(role: str, /, *box: slice) -> Array:
        array = arrays[encoded.members[role].key][box]
        seen.append((role, array.shape))
        return array

    for _ in decode_blocks(encoded, read, 128 * 256):
        pass
    assert seen == [("codes", (128, 256)), ("scales", (1, 2))] * 4


def test_scales_without_groups_are_no_mlx_scales() -> None:
    (encoded,) = found({"m.weight": ("uint32", (64, 1)), "m.scales": ("uint8", (64, 0))}, {"quantization": {"bits": 4}})
    assert encoded.problems
