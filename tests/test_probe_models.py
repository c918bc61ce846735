"""Probes of models of torchvision, timm and transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from probe_harness import differs, probed, swapped
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from ckptool.commands.transplant.result import Transplant
from ckptool.core.plan import Apply
from ckptool.core.spec import TensorSpec


@dataclass(frozen=True)
class Flip:
    """The channels of a stem the other way round: what a model that takes BGR has."""

    text = "flip"
    is_elementwise = False

    def result(self, args: Sequence[TensorSpec]) -> TensorSpec:
        return args[0]

    def runs(self, args: Sequence[TensorSpec]) -> None:
        return None

    def compute(self, args: Sequence[Any]) -> Any:
        return args[0][:, ::-1]


def test_torchvision_resnet18_and_its_stem(tmp_path: Path, torchvision: ModuleType) -> None:
    def blue_first(done: Transplant) -> Transplant:
        first, *rest = done.plan.steps
        return replace(
            done, plan=replace(done.plan, steps=(replace(first, value=Apply(Flip(), (first.value,))), *rest))
        )

    model = torchvision.models.resnet18
    small = {"input_shape": (1, 3, 64, 64)}
    assert probed(model(), model(num_classes=7), tmp_path, **small).is_proof
    wrong = probed(model(), model(), tmp_path, change=blue_first, **small)
    differs(wrong, "conv1")
    assert wrong.first.input_error == 0 and not wrong.first.settings and wrong.following > 50


def vit(torchvision: ModuleType) -> nn.Module:
    made: nn.Module = torchvision.models.VisionTransformer(32, 16, 2, 2, 16, 32, num_classes=6)
    return made


VIT = ["torchvision-vit-to-timm"]


def test_torchvision_vit_to_timm(tmp_path: Path, torchvision: ModuleType) -> None:
    timm = pytest.importorskip("timm")

    def other() -> nn.Module:
        sizes = {"embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2, "num_classes": 6}
        made: nn.Module = timm.models.VisionTransformer(32, 16, **sizes)
        return made

    report = probed(vit(torchvision), other(), tmp_path, VIT)
    assert report.is_proof and report.inputs == ("image 1x3x32x32",)
    norms, projections = ("blocks.1.norm1.", "blocks.1.norm2."), ("blocks.0.attn.proj.", "blocks.1.attn.proj.")
    differs(probed(vit(torchvision), other(), tmp_path, VIT, swapped(norms)), "blocks.1.norm1")
    wrong = probed(vit(torchvision), other(), tmp_path, VIT, swapped(projections))
    differs(wrong, "blocks.0.norm2")
    assert wrong.first.between[-2:] == ("blocks.0.attn.qkv", "blocks.0.attn.proj")


# ---------------------------------------------------------------------------------------------- transformers


def llama() -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, rms_norm_eps=1e-6, max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


class Rms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(32))

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * self.weight


class MetaAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wq, self.wk, self.wv, self.wo = (nn.Linear(32, size, bias=False) for size in (32, 16, 16, 32))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (one(x).unflatten(-1, (-1, 8)) for one in (self.wq, self.wk, self.wv))
        angles = torch.outer(torch.arange(x.shape[1]), 1.0 / 10000 ** (torch.arange(0, 8, 2) / 8))
        turn = torch.polar(torch.ones(1), angles)[None, :, None]
        q, k = (torch.view_as_real(torch.view_as_complex(h.unflatten(-1, (-1, 2))) * turn).flatten(-2) for h in (q, k))
        k, v = (h.repeat_interleave(2, 2) for h in (k, v))
        q, k, v = (h.transpose(1, 2) for h in (q, k, v))
        return self.wo(scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class MetaLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.attention_norm, self.ffn_norm = MetaAttention(), Rms(), Rms()
        self.feed_forward = nn.Module()
        self.feed_forward.w1, self.feed_forward.w3 = nn.Linear(32, 48, bias=False), nn.Linear(32, 48, bias=False)
        self.feed_forward.w2 = nn.Linear(48, 32, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x, f = x + self.attention(self.attention_norm(x)), self.feed_forward
        h = self.ffn_norm(x)
        return x + f.w2(silu(f.w1(h)) * f.w3(h))


class MetaLlama(nn.Module):
    """Llama as Meta wrote it: neighbouring numbers of a head are turned together."""

    def __init__(self) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(40, 32)
        self.layers = nn.ModuleList(MetaLayer() for _ in range(2))
        self.norm, self.output = Rms(), nn.Linear(32, 40, bias=False)

    def forward(self, tokens: Tensor, start_pos: int = 0) -> Tensor:
        h = self.tok_embeddings(tokens)
        for layer in self.layers:
            h = layer(h)
        return self.output(self.norm(h))


META = [
    "layers.{l}.attention.wq.weight -> model.layers.{l}.self_attn.q_proj.weight | (h d two) i -> (h two d) i",
    "layers.{l}.attention.wk.weight -> model.layers.{l}.self_attn.k_proj.weight | (kv d two) i -> (kv two d) i",
    "layers.{l}.attention.w{x=v|o}.weight -> model.layers.{l}.self_attn.{x}_proj.weight",
    "layers.{l}.feed_forward.w{n=1|2|3}.weight -> model.layers.{l}.mlp.{n=gate|down|up}_proj.weight",
    "layers.{l}.attention_norm.weight -> model.layers.{l}.input_layernorm.weight",
    "layers.{l}.ffn_norm.weight -> model.layers.{l}.post_attention_layernorm.weight",
    "tok_embeddings.weight -> model.embed_tokens.weight",
    "norm.weight -> model.norm.weight",
    "output.weight -> lm_head.weight",
]


def test_meta_llama_to_hugging_face_and_its_rotary_layout(tmp_path: Path) -> None:
    report = probed(MetaLlama(), llama(), tmp_path, META, vars={"h": 4, "kv": 2, "two": 2})
    assert report.is_proof and report.inputs == ("ids 1x16",) and 0 < report.largest < 1e-5
    assert set(report.divided) == {f"model.layers.{n}.self_attn.{x}_proj" for n in (0, 1) for x in "qk"}
    plain = [rule.partition(" | ")[0] for rule in META]
    report = probed(MetaLlama(), llama(), tmp_path, plain)
    differs(report, "model.layers.0.self_attn.o_proj")
    assert {mine for mine, _ in report.first.after} == {
        f"model.layers.0.self_attn.{x}_proj" for x in "qkv"
    } and not report.divided
    turned = [rule.replace("{n=gate|down|up}", "{n=up|down|gate}") for rule in META]
    differs(
        probed(MetaLlama(), llama(), tmp_path, turned, vars={"h": 4, "kv": 2, "two": 2}), "model.layers.0.mlp.down_proj"
    )


def test_clip_takes_two_inputs_and_gives_two_outputs(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={**tower, "vocab_size": 60, "max_position_embeddings": 16},
        vision_config={**tower, "image_size": 32, "patch_size": 16},
    )
    make = transformers.CLIPModel
    report = probed(make(config), make(config), tmp_path)
    assert report.is_proof and report.inputs == ("ids 1x16", "image 1x3x32x32")
    towers = ("text_model.encoder.layers.0.", "vision_model.encoder.layers.0.")
    wrong = probed(make(config), make(config), tmp_path, change=swapped(towers))
    assert {row.target.split(".")[0] for row in wrong.differing} == {"text_model", "vision_model"}
