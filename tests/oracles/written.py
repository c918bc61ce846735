"""Files that the libraries themselves write, and their own numbers: ``python tests/oracles/written.py OUT [NAME ...]``.

Each writer quantizes a tiny Llama with its library, saves it as that library does, and gives the weights as the library
decodes them. OUT gets ``NAME.zip`` of both, for `tests/test_encodings_written.py`. Needs torch and the libraries (see
`WRITERS`); each is skipped where its library is absent. The writers of torchao09 need torchao 0.9 on PYTHONPATH.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

State = dict[str, torch.Tensor]
KEPT = (".safetensors", ".json", ".pth", ".pt")


def tiny(folder: Path) -> Path:
    """A tiny Llama, saved; linear layers of 64x64."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def loaded(folder: Path, **options: Any) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, **options)


def digest(tensor: torch.Tensor) -> str:
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(data.numpy().tobytes()).hexdigest()


# ------------------------------------------------------------------------- quantized by transformers, and torch files


def _bitsandbytes(kind: dict[str, Any]) -> Callable[[Path, Path], State]:
    def write(source: Path, out: Path) -> State:
        config = transformers.BitsAndBytesConfig(**kind)
        model = loaded(source, quantization_config=config, dtype=torch.bfloat16, device_map="cpu")
        model.save_pretrained(out)
        quantized = {name: weight for name, weight in model.named_parameters() if hasattr(weight, "quant_state")}
        quantized = {name: (weight.data, weight.quant_state) for name, weight in quantized.items()}
        found = dict(model.dequantize(dtype=torch.bfloat16).state_dict())
        if "load_in_4bit" in kind:
            found |= {name: fallback_4bit(weight) for name, weight in quantized.items()}
        return found

    return write


def fallback_4bit(stored: tuple[torch.Tensor, Any]) -> torch.Tensor:
    """bitsandbytes' decoder in torch: that of its CPU backend takes another table for fp4 than the file has."""
    from bitsandbytes import functional
    from bitsandbytes.backends.default import ops

    codes, state = stored
    absmax = state.absmax
    if state.nested:
        absmax = functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
    flat = codes.view(torch.uint8).reshape(-1)
    decoded = ops._dequantize_4bit_compute(flat, absmax, state.code, state.blocksize, state.shape, torch.float32)
    return decoded.reshape(state.shape).bfloat16()


def _torchao(make: str, **options: Any) -> Callable[[Path, Path], State]:
    def write(source: Path, out: Path) -> State:
        from torchao import quantization

        config = getattr(quantization, make)(**options)
        model = loaded(source, quantization_config=transformers.TorchAoConfig(config), dtype=torch.bfloat16)
        model.save_pretrained(out)
        return {key: plain(tensor) for key, tensor in model.state_dict().items()}

    return write


def _torchao_pickled(make: str, **options: Any) -> Callable[[Path, Path], State]:
    """A state dict of tensor subclasses, saved by torch.save."""

    def write(source: Path, out: Path) -> State:
        from torchao import quantization

        config = getattr(quantization, make)
        model = loaded(source, dtype=torch.bfloat16).model.layers[0].mlp
        quantization.quantize_(model, config(**options))
        out.mkdir()
        torch.save(model.state_dict(), out / "model.pth")
        return {key: plain(tensor) for key, tensor in model.state_dict().items()}

    return write


def plain(tensor: Any) -> torch.Tensor:
    """A torchao tensor as it decodes itself."""
    tensor = getattr(tensor, "original_weight_tensor", tensor)
    return tensor.dequantize() if type(tensor) not in (torch.Tensor, torch.nn.Parameter) else tensor


def _quanto(kind: str, dtype: torch.dtype = torch.bfloat16) -> Callable[[Path, Path], State]:
    def write(source: Path, out: Path) -> State:
        from optimum.quanto import QuantizedModelForCausalLM, qtypes

        model = loaded(source, dtype=dtype)
        quantized = QuantizedModelForCausalLM.quantize(model, weights=qtypes[kind], exclude="lm_head")
        quantized.save_pretrained(out)
        state = quantized._wrapped.state_dict()
        weights = {
            name: module.weight for name, module in quantized._wrapped.named_modules() if hasattr(module, "qweight")
        }
        found = {key: tensor for key, tensor in state.items() if key in loaded(source).state_dict()}
        return found | {f"{name}.weight": weight.dequantize() for name, weight in weights.items()}

    return write


def _hqq(bits: int, *, pickled: bool = False) -> Callable[[Path, Path], State]:
    def write(source: Path, out: Path) -> State:
        from hqq.core.quantize import BaseQuantizeConfig, HQQLinear
        from hqq.models.hf.base import AutoHQQHFModel

        model = loaded(source, dtype=torch.float32)  # in other dtypes hqq rounds on the way
        kind = BaseQuantizeConfig(nbits=bits, group_size=32, axis=1)
        AutoHQQHFModel.quantize_model(model, quant_config=kind, compute_dtype=torch.float32, device="cpu")
        if pickled:
            AutoHQQHFModel.save_quantized(model, str(out))
        else:
            AutoHQQHFModel.save_to_safetensors(model, str(out))
        found = dict(loaded(source, dtype=torch.float32).state_dict())
        for name, module in model.named_modules():
            if isinstance(module, HQQLinear):
                found[f"{name}.weight"] = module.dequantize()
        return found

    return write


# ----------------------------------------------------------------------------------------------------- other libraries


def _mlx(**kind: Any) -> Callable[[Path, Path], State]:
    def write(source: Path, out: Path) -> State:
        import mlx.core as mx
        import numpy as np
        from mlx.utils import tree_flatten
        from mlx_lm.utils import dequantize_model, load_model, quantize_model, save_config, save_model

        model, config = load_model(source)
        model, config = quantize_model(model, config, **kind)
        out.mkdir()
        save_model(out, model, donate_model=False)
        save_config(config, out / "config.json")
        for _, module in model.named_modules():  # decoding is in the dtype of the scales
            for name in ("scales", "biases"):
                if kind.get("mode", "affine") == "affine" and name in module:
                    module[name] = module[name].astype(mx.float32)
        state = tree_flatten(dequantize_model(model).parameters())
        return {key: torch.from_numpy(np.array(value.astype(mx.float32))).bfloat16() for key, value in state}

    return write


def _compressed(format_: str, **kind: Any) -> Callable[[Path, Path], State]:
    def write(source: Path, out: Path) -> State:
        from compressed_tensors.compressors import ModelCompressor
        from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme, apply_quantization_config
        from compressed_tensors.quantization.quant_args import QuantizationArgs
        from compressed_tensors.quantization.utils import calculate_qparams

        model = loaded(source, dtype=torch.bfloat16)
        args = QuantizationArgs(**kind)
        scheme = QuantizationScheme(targets=["Linear"], weights=args, format=format_)
        config = QuantizationConfig(config_groups={"group_0": scheme}, ignore=["lm_head"], format=format_)
        apply_quantization_config(model, config)
        for module in model.modules():
            if not hasattr(module, "weight_scale"):
                continue
            weight, rows = module.weight.data, module.weight.shape[0]
            if kind["strategy"] == "channel":
                grid = weight.reshape(rows, 1, -1)
            else:
                grid = weight.reshape(rows, -1, kind["group_size"])
            factor = {}
            if hasattr(module, "weight_global_scale"):
                module.weight_global_scale.data = (448 * 6 / weight.abs().max().float()).reshape(1)
                factor = {"global_scale": module.weight_global_scale.data}
            scale, zero = calculate_qparams(grid.amin(2), grid.amax(2), args, **factor)
            module.weight_scale.data = scale.to(module.weight_scale.dtype)
            if hasattr(module, "weight_zero_point"):
                module.weight_zero_point.data = zero.to(module.weight_zero_point.dtype)
        compressor = ModelCompressor.from_pretrained_model(model)
        compressor.compress_model(model)
        model.save_pretrained(out)
        compressor.update_config(out)
        compressor.decompress_model(model)
        wanted = loaded(source).state_dict()
        return {key: tensor for key, tensor in model.state_dict().items() if key in wanted}

    return write


def _modelopt(name: str) -> Callable[[Path, Path], State]:
    def write(source: Path, out: Path) -> State:
        import modelopt.torch.quantization as mtq
        from modelopt.torch.export import export_hf_checkpoint
        from modelopt.torch.quantization.qtensor import FP8QTensor, NVFP4QTensor
        from safetensors.torch import load_file

        model = loaded(source, dtype=torch.bfloat16)
        tokens = torch.arange(64)[None]
        mtq.quantize(model, getattr(mtq, name), lambda model: model(tokens))
        export_hf_checkpoint(model, export_dir=out)
        stored = {key: tensor for path in out.glob("*.safetensors") for key, tensor in load_file(path).items()}
        found = dict(loaded(source, dtype=torch.bfloat16).state_dict())
        for key, codes in stored.items():
            scale, factor = stored.get(f"{key}_scale"), stored.get(f"{key}_scale_2")
            if factor is not None:
                quantized = NVFP4QTensor(found[key].shape, torch.bfloat16, codes)
                found[key] = quantized.dequantize(scale=scale, double_scale=factor, block_sizes={-1: 16}) + 0
            elif scale is not None:
                quantized = FP8QTensor(found[key].shape, torch.float32, codes)  # in bfloat16 it rounds the scale
                found[key] = quantized.dequantize(scale=scale).bfloat16() + 0
        return found  # their zeros are positive: the table of ModelOpt has no -0

    return write


def _gptq(**kind: Any) -> Callable[[Path, Path], State]:
    def write(source: Path, out: Path) -> State:
        from tokenizers import Tokenizer
        from tokenizers.models import WordLevel

        words = Tokenizer(WordLevel({str(number): number for number in range(64)}, unk_token="0"))
        transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="0", eos_token="1").save_pretrained(
            source
        )
        os.cpu_count = lambda: 8  # its pools of threads want more than two
        from gptqmodel import BACKEND, GPTQModel, QuantizeConfig

        model = GPTQModel.load(str(source), QuantizeConfig(**kind), backend=BACKEND.TORCH, device="cpu")
        generator = torch.Generator().manual_seed(0)
        rows = [torch.randint(0, 64, (1, 48), generator=generator) for _ in range(8)]
        model.quantize([{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in rows], batch_size=1)
        model.save(str(out))
        again = GPTQModel.load(str(out), backend=BACKEND.TORCH, device="cpu", dtype=torch.float16)
        found = dict(loaded(source, dtype=torch.bfloat16).state_dict())
        for name, module in again.model.named_modules():
            if hasattr(module, "qweight"):
                module.scales.data = module.scales.data.float()  # in float16 the product is rounded, too
                found[f"{name}.weight"] = module.dequantize_weight().T.to(torch.bfloat16)
        return found

    return write


WRITERS: dict[str, Callable[[Path, Path], State]] = {
    "bitsandbytes_int8": _bitsandbytes({"load_in_8bit": True}),
    "bitsandbytes_nf4_nested": _bitsandbytes(
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    ),
    "bitsandbytes_fp4_nested": _bitsandbytes(
        {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": True}
    ),
    "bitsandbytes_nf4_bf16": _bitsandbytes(
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_quant_storage": torch.bfloat16}
    ),
    "torchao_int8": _torchao("Int8WeightOnlyConfig"),
    "torchao_float8": _torchao("Float8WeightOnlyConfig"),
    "torchao_intx": _torchao("IntxWeightOnlyConfig"),
    "torchao_pickled_int8": _torchao_pickled("Int8WeightOnlyConfig"),
    "torchao_pickled_float8": _torchao_pickled("Float8WeightOnlyConfig"),
    "torchao09_int8": _torchao_pickled("int8_weight_only"),
    "torchao09_float8": _torchao_pickled("float8_weight_only"),
    "torchao09_dynamic": _torchao_pickled("int8_dynamic_activation_int8_weight"),
    "torchao09_uintx": _torchao_pickled("uintx_weight_only", dtype=torch.uint4),
    "quanto_int8": _quanto("qint8"),
    "quanto_int4": _quanto("qint4", torch.float32),  # in bfloat16 it rounds twice
    "hqq_4": _hqq(4),
    "hqq_3": _hqq(3),
    "hqq_pickled": _hqq(4, pickled=True),
    "mlx_4": _mlx(group_size=32, bits=4, mode="affine"),
    "mlx_6": _mlx(group_size=64, bits=6, mode="affine"),
    "mlx_mxfp4": _mlx(group_size=32, bits=4, mode="mxfp4"),
    "mlx_nvfp4": _mlx(group_size=16, bits=4, mode="nvfp4"),
    "compressed_nvfp4": _compressed(
        "nvfp4-pack-quantized",
        num_bits=4,
        type="float",
        strategy="tensor_group",
        group_size=16,
        scale_dtype=torch.float8_e4m3fn,
        zp_dtype=torch.float8_e4m3fn,
    ),
    "compressed_int4": _compressed(
        "pack-quantized", num_bits=4, type="int", strategy="group", group_size=32, symmetric=False
    ),
    "compressed_int8": _compressed("int-quantized", num_bits=8, type="int", strategy="channel", symmetric=True),
    "compressed_fp8": _compressed("float-quantized", num_bits=8, type="float", strategy="channel", symmetric=True),
    "modelopt_nvfp4": _modelopt("NVFP4_DEFAULT_CFG"),
    "modelopt_fp8": _modelopt("FP8_DEFAULT_CFG"),
    "gptq_v1": _gptq(bits=4, group_size=32, sym=False, desc_act=True),
    "gptq_v2": _gptq(bits=4, group_size=32, sym=False, desc_act=False, format="gptq_v2"),
    "gptq_8": _gptq(bits=8, group_size=32),
}


def main(out: Path, names: list[str]) -> int:
    failed = 0
    for name in names or list(WRITERS):
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            try:
                state = WRITERS[name](tiny(work / "plain"), work / "out")
                expected = {key: [str(each.dtype), list(each.shape), digest(each)] for key, each in state.items()}
                with zipfile.ZipFile(out / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                    for path in sorted((work / "out").iterdir()):
                        if path.suffix in KEPT and "tokenizer" not in path.name:
                            archive.write(path, path.name)
                    archive.writestr("expected.json", json.dumps(expected))
                print(f"{name}: {len(state)} tensors, {(out / f'{name}.zip').stat().st_size:,} bytes", flush=True)
            except Exception as error:
                failed += 1
                print(
                    f"{name}: not written: {type(error).__name__}: {str(error)[:300]}\n{traceback.format_exc(limit=-3)}"
                )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
