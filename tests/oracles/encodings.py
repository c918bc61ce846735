"""The libraries' own decoders against ckptool's: ``python tests/oracles/encodings.py [NAME ...]``.

Needs torch and the libraries (compressed-tensors, transformers, bitsandbytes, hqq, mlx[cpu], torchao, optimum-quanto,
nvidia-modelopt, comfy-kitchen, gguf; AutoAWQ's ``packing_utils.py`` by the variable AWQ_PACKING_UTILS). Each oracle
quantizes random weights with the library where it can, and decodes with it; both results must agree in every bit.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from encodings_harness import decoded, same_bits

from ckptool.core.arrays import numpy_dtype

if TYPE_CHECKING:
    from ckptool.core.arrays import Array

Case = tuple[str, "dict[str, Array]", "dict[str, Any] | None", "dict[str, str]", "torch.Tensor"]


def array_of(tensor: torch.Tensor) -> Array:
    """A numpy array of any dtype of torch."""
    name = str(tensor.dtype).removeprefix("torch.")
    dtype = numpy_dtype(name)
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().view(dtype).reshape(tensor.shape)


def arrays_of(tensors: dict[str, torch.Tensor], module: str = "m.") -> dict[str, Array]:
    return {module + key: array_of(tensor) for key, tensor in tensors.items()}


def random_weight(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))) * 0.05


def compressed_tensors() -> Iterator[Case]:
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams

    def weights(shape: tuple[int, int], args: QuantizationArgs, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        weight = random_weight(*shape).to(dtype)
        rows, columns = shape
        strategy = str(args.strategy)
        if strategy == "tensor":
            grid = weight.reshape(1, 1, -1)
        elif strategy == "channel":
            grid = weight.reshape(rows, 1, columns)
        elif strategy == "block":
            down, across = args.block_structure
            padded = torch.nn.functional.pad(weight, (0, -columns % across, 0, -rows % down))
            blocks = padded.reshape(padded.shape[0] // down, down, padded.shape[1] // across, across)
            grid = blocks.transpose(1, 2).flatten(2)
        else:
            grid = weight.reshape(rows, columns // args.group_size, args.group_size)
        scale, zero = calculate_qparams(grid.amin(2).float(), grid.amax(2).float(), args)
        scale = scale.reshape(1) if strategy == "tensor" else scale
        found = {"weight": weight, "weight_scale": scale.to(dtype)}
        if not args.symmetric:
            found["weight_zero_point"] = zero.reshape(scale.shape)
        return found

    def case(name: str, format_: str, shape: tuple[int, int], dtype: torch.dtype = torch.bfloat16, **kind: Any) -> Case:
        args = QuantizationArgs(**kind)
        scheme = QuantizationScheme(targets=["Linear"], weights=args)
        compressor = BaseCompressor.get_value_from_registry(format_)
        state = weights(shape, args, dtype)
        if format_ == "nvfp4-pack-quantized":
            largest = state["weight"].abs().max().float()
            state["weight_global_scale"] = (448 * 6 / largest).reshape(1)
            amax = state["weight"].float().reshape(shape[0], -1, 16).abs().amax(2)
            scale = (amax / 6 * state["weight_global_scale"]).to(torch.float8_e4m3fn)
            state["weight_scale"] = scale.float()
        elif format_.startswith("mxfp"):
            amax = state["weight"].float().reshape(shape[0], -1, 32).abs().amax(2)
            state["weight_scale"] = torch.exp2(torch.floor(torch.log2(amax)) - 2)
        packed = compressor.compress(state, scheme)
        expected = compressor.decompress(packed, scheme)["weight"]
        config = {
            "quantization_config": {
                "quant_method": "compressed-tensors",
                "format": format_,
                "config_groups": {"group_0": {"weights": json.loads(args.model_dump_json()), "targets": ["Linear"]}},
            }
        }
        return name, arrays_of(packed), config, {}, expected

    fp8 = {"num_bits": 8, "type": "float", "symmetric": True}
    for dtype in (torch.bfloat16, torch.float32):
        yield case(f"fp8 tensor {dtype}", "float-quantized", (70, 96), dtype, strategy="tensor", **fp8)
        yield case(f"fp8 channel {dtype}", "float-quantized", (70, 96), dtype, strategy="channel", **fp8)
        yield case(f"fp8 group {dtype}", "float-quantized", (70, 96), dtype, strategy="group", group_size=32, **fp8)
        yield case(
            f"fp8 block {dtype}",
            "float-quantized",
            (256, 384),
            dtype,
            strategy="block",
            block_structure=[128, 128],
            **fp8,
        )
    for symmetric in (True, False):
        for strategy, extra in (("channel", {}), ("tensor", {})):
            kind = {"num_bits": 8, "type": "int", "symmetric": symmetric, "strategy": strategy, **extra}
            yield case(f"int8 {strategy} {symmetric}", "int-quantized", (70, 96), **kind)
        for bits in range(2, 9):
            for strategy, extra in (("channel", {}), ("group", {"group_size": 32})):
                kind = {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": strategy, **extra}
                yield case(f"pack {bits} {strategy} {symmetric}", "pack-quantized", (70, 96), **kind)
    yield case("mxfp4", "mxfp4-pack-quantized", (70, 96), num_bits=4, type="float", strategy="group", group_size=32)
    yield case(
        "mxfp8",
        "mxfp8-quantized",
        (70, 96),
        num_bits=8,
        type="float",
        strategy="group",
        group_size=32,
        scale_dtype=torch.uint8,
    )
    yield case(
        "nvfp4", "nvfp4-pack-quantized", (70, 96), num_bits=4, type="float", strategy="tensor_group", group_size=16
    )


def ragged_blocks() -> Iterator[Case]:
    """compressed-tensors' converter pads ragged fp8 blocks."""
    from compressed_tensors.entrypoints.convert.converters.fp8block_dequantizer import FP8BlockDequantizer

    for shape in ((130, 140), (300, 129), (1, 128), (257, 64)):
        weight = random_weight(*shape).mul(8).to(torch.float8_e4m3fn)
        scale = random_weight(-(-shape[0] // 128), -(-shape[1] // 128)).abs()
        converter = FP8BlockDequantizer(targets=["re:.*m$"], weight_block_size=(128, 128), dtype=torch.float32)
        state = {"m.weight": weight, "m.weight_scale_inv": scale}
        expected = converter.process(dict(state))["m.weight"]
        config = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
        yield f"DeepSeek {shape}", arrays_of(state, ""), config, {}, expected


def transformers() -> Iterator[Case]:
    from transformers.integrations.bitnet import unpack_weights
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    one = Fp8Dequantize.__new__(Fp8Dequantize)
    generator = torch.Generator().manual_seed(1)
    bytes_ = torch.randint(0, 256, (64, 128), generator=generator, dtype=torch.uint8)
    exponents = torch.randint(100, 140, (64, 8), generator=generator, dtype=torch.uint8).view(torch.float8_e8m0fnu)
    expected = one._dequantize_one(bytes_.view(torch.int8), exponents, torch.float32)
    yield "V4 fp4", arrays_of({"weight": bytes_.view(torch.int8), "scale": exponents}), None, {}, expected
    dense = bytes_[:, :].repeat(4, 2).clamp(0, 126).view(torch.float8_e4m3fn)
    grid = exponents[:2, :2].contiguous()
    expected = one._dequantize_one(dense, grid, torch.float32)
    yield "V4 fp8", arrays_of({"weight": dense, "scale": grid}), None, {}, expected
    stacked = dense.reshape(2, 128, 256)
    grids = torch.rand(2, 1, 2, generator=generator)
    expected = one._dequantize_one(stacked, grids, torch.float32)
    yield "fused", arrays_of({"gate_up_proj": stacked, "gate_up_proj_scale_inv": grids}), None, {}, expected
    codes = torch.randint(0, 256, (40, 32), generator=generator, dtype=torch.uint8) & 0b10101010
    scale = torch.tensor([3.7], dtype=torch.bfloat16)
    config = {"quantization_config": {"quant_method": "bitnet", "linear_class": "bitlinear"}}
    expected = unpack_weights(codes, torch.float32) / scale.float()
    yield "BitNet", arrays_of({"weight": codes, "weight_scale": scale}), config, {}, expected
    blocks = torch.randint(0, 256, (3, 64, 5, 16), generator=generator, dtype=torch.uint8)
    scales = torch.randint(110, 130, (3, 64, 5), generator=generator, dtype=torch.uint8)
    expected = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    yield "gpt-oss", arrays_of({"down_proj_blocks": blocks, "down_proj_scales": scales}), None, {}, expected


def bitsandbytes() -> Iterator[Case]:
    from bitsandbytes import functional
    from bitsandbytes.backends.default import ops

    for kind in ("nf4", "fp4"):
        for shape in ((33, 27), (64, 64), (5, 7), (300, 129)):
            for nested in (False, True):
                for storage in (torch.uint8, torch.bfloat16):
                    if storage != torch.uint8 and shape != (64, 64):
                        continue
                    weight = random_weight(*shape)
                    packed, state = functional.quantize_4bit(
                        weight, quant_type=kind, compress_statistics=nested, blocksize=64, quant_storage=storage
                    )
                    absmax = state.absmax
                    if nested:
                        absmax = functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
                    flat = packed.view(torch.uint8).reshape(-1)
                    expected = ops._dequantize_4bit_compute(flat, absmax, state.code, 64, shape, torch.float32)
                    state.dtype = torch.float32
                    members = {f"weight.{key}": value for key, value in state.as_dict(packed=True).items()}
                    arrays = arrays_of({"weight": packed, **members})
                    yield f"{kind} {shape} nested {nested} {storage}", arrays, None, {}, expected.reshape(shape)
    weight = random_weight(70, 96)
    codes, scales, _ = functional.int8_vectorwise_quant(weight.half())
    expected = functional.int8_vectorwise_dequant(codes, scales)
    layout = torch.zeros((), dtype=torch.uint8)
    yield "int8", arrays_of({"weight": codes, "SCB": scales, "weight_format": layout}), None, {}, expected


def hqq() -> Iterator[Case]:
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    for bits in (8, 4, 3, 2, 1):
        for axis in (0, 1):
            for as_float in (False, True):
                if as_float and bits == 3:
                    continue
                linear = torch.nn.Linear(96, 80, bias=False)
                linear.weight.data = random_weight(80, 96)
                kind = BaseQuantizeConfig(nbits=bits, group_size=32, axis=axis, view_as_float=as_float)
                layer = HQQLinear(linear, kind, compute_dtype=torch.float32, device="cpu")
                expected = layer.dequantize()
                state = {key: value for key, value in layer.state_dict().items() if isinstance(value, torch.Tensor)}
                yield f"{bits} axis {axis} float {as_float}", arrays_of(state), None, {}, expected


def mlx() -> Iterator[Case]:
    import mlx.core as mx

    def case(name: str, mode: str, bits: int, size: int) -> Case:
        weight = mx.array(random_weight(64, 256).numpy())
        parts = mx.quantize(weight, group_size=size, bits=bits, mode=mode)
        members = dict(zip(("weight", "scales", "biases"), parts, strict=False))
        expected = mx.dequantize(*parts, group_size=size, bits=bits, mode=mode, dtype=mx.float32)
        config = {"quantization": {"group_size": size, "bits": bits, "mode": mode}}
        arrays = {f"m.{key}": np.array(part) for key, part in members.items()}
        return name, arrays, config, {"format": "mlx"}, torch.from_numpy(np.array(expected))

    for bits in (2, 3, 4, 5, 6, 8):
        for size in (32, 64, 128):
            yield case(f"affine {bits} {size}", "affine", bits, size)
    yield case("mxfp4", "mxfp4", 4, 32)
    yield case("mxfp8", "mxfp8", 8, 32)
    yield case("nvfp4", "nvfp4", 4, 16)


def torchao() -> Iterator[Case]:
    from torchao.prototype.mx_formats.mx_tensor import MXTensor
    from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
    from torchao.quantization import Float8Tensor, Int8Tensor, IntxUnpackedToInt8Tensor, PerRow, PerTensor
    from torchao.quantization.granularity import PerGroup

    weight = random_weight(128, 256).bfloat16()
    made = {
        "float8 rows": lambda: Float8Tensor.from_hp(weight, granularity=PerRow()),
        "float8 tensor": lambda: Float8Tensor.from_hp(weight, granularity=PerTensor()),
        "int8 rows": lambda: Int8Tensor.from_hp(weight, granularity=PerRow()),
        "intx": lambda: IntxUnpackedToInt8Tensor.from_hp(weight, (1, 32), torch.int4),
        "mxfp8": lambda: MXTensor.to_mx(weight, torch.float8_e4m3fn, 32),
        "mxfp4": lambda: MXTensor.to_mx(weight, torch.float4_e2m1fn_x2, 32),
        "mxfp8 tiled": lambda: MXTensor.to_mx(weight[:100], torch.float8_e4m3fn, 32, is_swizzled_scales=True),
        "nvfp4": lambda: NVFP4Tensor.to_nvfp4(weight, per_tensor_scale=torch.tensor(0.013)),
        "nvfp4 tiled": lambda: NVFP4Tensor.to_nvfp4(weight, is_swizzled_scales=True),
    }
    assert PerGroup
    for name, make in made.items():
        tensor = make()
        flat, metadata = flatten_tensor_state_dict({"m.weight": tensor})
        yield name, arrays_of(flat, ""), None, metadata, tensor.dequantize()


def quanto() -> Iterator[Case]:
    from optimum.quanto import MaxOptimizer, SymmetricOptimizer, qfloat8, qint2, qint4, qint8, quantize_weight

    assert SymmetricOptimizer
    weight = random_weight(64, 96)
    from optimum.quanto import AbsmaxOptimizer

    for kind in (qint8, qfloat8):
        scale = AbsmaxOptimizer()(weight, kind, axis=0)
        quantized = quantize_weight(weight, kind, axis=0, scale=scale)
        yield kind.name, _quanto_state(quantized), None, {}, quantized.dequantize()
    for kind in (qint4, qint2):
        scale, shift = MaxOptimizer()(weight, kind, axis=0)
        quantized = quantize_weight(weight, kind, axis=0, scale=scale, shift=shift, optimized=False)
        yield kind.name, _quanto_state(quantized), None, {}, quantized.dequantize()


def _quanto_state(quantized: Any) -> dict[str, Array]:
    found: dict[str, torch.Tensor] = {}
    quantized.save_to_state_dict(found, "weight.", False)
    return arrays_of(found)


def modelopt() -> Iterator[Case]:
    from modelopt.torch.quantization.qtensor.nvfp4_tensor import NVFP4QTensor

    weight = random_weight(70, 96)
    quantized, scale, factor = NVFP4QTensor.quantize(weight, 16)
    expected = quantized.dequantize(dtype=torch.float32, scale=scale, double_scale=factor, block_sizes={-1: 16})
    state = {"weight": quantized._quantized_data, "weight_scale": scale, "weight_scale_2": factor}
    # ModelOpt's table has +0 for code 8; every other has -0, which ckptool keeps
    yield "NVFP4", arrays_of(state), {"quantization_config": {"quant_algo": "NVFP4"}}, {"zeros": "any"}, expected


def comfy() -> Iterator[Case]:
    from comfy_kitchen.backends.eager import quantization as eager

    for shape in ((128, 256), (144, 96), (32, 512)):
        weight = random_weight(*shape)
        factor = weight.abs().max() / (448 * 6)
        codes, scale = eager.quantize_nvfp4(weight, factor)
        expected = eager.dequantize_nvfp4(codes, factor, scale, torch.float32)
        state = {"weight": codes, "weight_scale": scale, "weight_scale_2": factor.reshape(())}
        yield f"nvfp4 {shape}", {**arrays_of(state), "m.comfy_quant": _json("nvfp4")}, None, {}, expected
        codes, scale = eager.quantize_mxfp8(weight)
        expected = eager.dequantize_mxfp8(codes, scale, torch.float32)
        state = {"weight": codes, "weight_scale": scale}
        yield f"mxfp8 {shape}", {**arrays_of(state), "m.comfy_quant": _json("mxfp8")}, None, {}, expected
    codes = random_weight(16, 32).mul(100).to(torch.float8_e4m3fn)
    scale = torch.tensor(0.37)
    expected = eager.dequantize_per_tensor_fp8(codes, scale, torch.float32)
    state = {"weight": codes, "weight_scale": scale}
    yield "fp8", {**arrays_of(state), "m.comfy_quant": _json("float8_e4m3fn")}, None, {}, expected


def _json(name: str) -> Array:
    return np.frombuffer(json.dumps({"format": name}).encode(), np.uint8)


def gptq() -> Iterator[Case]:
    """GPTQModel's formula in torch."""
    generator = torch.Generator().manual_seed(3)
    for bits in (2, 3, 4, 8):
        for version in (1, 2):
            for order in ("plain", "permuted"):
                columns, rows, size = 128, 96, 32
                codes = torch.randint(0, 1 << bits, (columns, rows), generator=generator)
                zeros = torch.randint(1, (1 << bits) - 1, (columns // size, rows), generator=generator)
                scales = torch.rand(columns // size, rows, generator=generator).half()
                groups = torch.arange(columns) // size
                if order == "permuted":
                    groups = groups[torch.randperm(columns, generator=generator)]
                state = {
                    "qweight": _packed(codes.T, bits).T.contiguous(),
                    "qzeros": _packed(zeros - (1 if version == 1 else 0), bits),
                    "scales": scales,
                    "g_idx": groups.int(),
                }
                expected = (scales[groups] * (codes - zeros[groups])).T
                format_ = "gptq" if version == 1 else "gptq_v2"
                config = {
                    "quantization_config": {
                        "quant_method": "gptq",
                        "bits": bits,
                        "group_size": size,
                        "sym": False,
                        "checkpoint_format": format_,
                    }
                }
                yield f"{bits} v{version} {order}", arrays_of(state), config, {}, expected


def _packed(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Integers [rows, n] as a stream of little-endian 32-bit words, built with Python's integers."""
    words = []
    for row in codes.tolist():
        number = sum(code << (bits * place) for place, code in enumerate(row))
        words.append(np.frombuffer(number.to_bytes(len(row) * bits // 8, "little"), "<i4"))
    return torch.from_numpy(np.stack(words).copy())


def awq() -> Iterator[Case]:
    path = os.environ.get("AWQ_PACKING_UTILS", "")
    spec = importlib.util.spec_from_file_location("packing_utils", path)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError("AWQ_PACKING_UTILS")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    generator = torch.Generator().manual_seed(4)
    for size in (32, 64, 128):
        columns, rows = 128, 96
        state = {
            "qweight": torch.randint(-(2**31), 2**31, (columns, rows // 8), generator=generator).int(),
            "qzeros": torch.randint(-(2**31), 2**31, (columns // size, rows // 8), generator=generator).int(),
            "scales": torch.rand(columns // size, rows, generator=generator).half(),
        }
        expected = module.dequantize_gemm(state["qweight"], state["qzeros"], state["scales"], 4, size).T
        config = {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": size, "version": "gemm"}}
        yield f"group {size}", arrays_of(state), config, {}, expected


ORACLES: dict[str, Callable[[], Iterator[Case]]] = {
    function.__name__: function
    for function in (
        *(compressed_tensors, ragged_blocks, transformers, bitsandbytes, hqq, mlx, torchao, quanto, modelopt, comfy),
        *(gptq, awq),
    )
}


def gguf_types() -> list[str]:
    """Every block type on random bytes, against gguf-py."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

    from ckptool.core.dtypes import GGUF_DTYPES
    from ckptool.encodings.gguf import BLOCK_TYPES, decode_type

    lines = []
    for name, block_type in BLOCK_TYPES.items():
        raw = np.random.default_rng(5).integers(0, 256, (2000, block_type.nbytes), dtype=np.uint8)
        try:
            kind = GGMLQuantizationType[name.upper()]
            assert GGML_QUANT_SIZES[kind] == (block_type.elements, block_type.nbytes)
            assert GGUF_DTYPES[int(kind)] == f"gguf_{name}"
            with np.errstate(all="ignore"):
                expected = quants.dequantize(raw, kind)
        except (KeyError, NotImplementedError):
            lines.append(f"gguf {name}: gguf-py has no decoder")
            continue
        same_bits(decode_type(block_type, raw), expected)
        lines.append(f"gguf {name}: equal, {expected.size:,} elements")
    return lines


def compare(oracle: str, case: Case) -> str:
    name, arrays, config, metadata, expected = case
    anyzero = metadata.pop("zeros", "") == "any"
    ((_, values),) = decoded(arrays, config, metadata).items()
    reference = array_of(expected)
    rounded = values.astype(reference.dtype)
    if anyzero:
        rounded, reference = rounded + 0, reference + 0
    same_bits(rounded, reference)
    return f"{oracle} {name}: equal, {values.size:,} elements, {reference.dtype}"


RECORDED = (
    *("fp8 tensor torch.bfloat16", "fp8 channel torch.float32", "fp8 group torch.bfloat16", "int8 channel False"),
    *("pack 2 group True", "pack 3 group False", "pack 4 group False", "pack 5 channel True", "pack 8 channel False"),
    *("mxfp4", "mxfp8", "nvfp4", "V4 fp4", "fused", "BitNet", "gpt-oss", "int8", "qint8", "qint4"),
    *("DeepSeek (130, 140)", "nf4 (5, 7) nested True torch.uint8", "fp4 (33, 27) nested False torch.uint8"),
    *("nf4 (64, 64) nested True torch.bfloat16", "4 axis 0 float False", "3 axis 1 float False", "2 axis 1 float True"),
    *(
        "affine 3 32",
        "affine 4 64",
        "affine 6 64",
        "float8 rows",
        "intx",
        "mxfp8 tiled",
        "nvfp4 tiled",
        "nvfp4 (144, 96)",
    ),
    *("4 v1 permuted", "3 v2 plain", "group 32"),
)
"""Cases that `--record` writes, for the tests that run without the libraries."""


def record(oracle: str, case: Case) -> str:
    """A case as a line of JSON: its members, and the SHA-256 of the library's result."""
    name, arrays, config, metadata, expected = case
    reference = array_of(expected)
    members = {
        key: [array.dtype.name, array.shape, base64.b85encode(zlib.compress(array.tobytes(), 9)).decode()]
        for key, array in arrays.items()
    }
    return json.dumps(
        {
            "case": f"{oracle} {name}",
            "arrays": members,
            "config": config,
            "metadata": {key: value for key, value in metadata.items() if key != "zeros"},
            "dtype": reference.dtype.name,
            "sha256": hashlib.sha256(reference.tobytes()).hexdigest(),
        }
    )


def main(names: list[str]) -> int:
    failed = 0
    recorded = names[0].removeprefix("--record=") if names and names[0].startswith("--record=") else None
    names = names[1:] if recorded else names
    lines: list[str] = []
    for oracle, cases in ORACLES.items():
        if names and oracle not in names:
            continue
        try:
            for case in cases():
                try:
                    line = record(oracle, case) if case[0] in RECORDED else ""
                    print(compare(oracle, case), flush=True)
                    lines += [line] if line else []
                except Exception:
                    failed += 1
                    print(f"{oracle} {case[0]}: DIFFERS\n{traceback.format_exc(limit=-2)}")
        except Exception as error:
            failed += 1
            print(f"{oracle}: not run: {type(error).__name__}: {error}\n{traceback.format_exc(limit=-2)}")
    if not names or "gguf" in names:
        print("\n".join(gguf_types()))
    if recorded:
        Path(recorded).write_text("\n".join(lines) + "\n", encoding="ascii")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
