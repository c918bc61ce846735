"""Probes of real models: a right mapping agrees, a wrong one differs at the module where it is wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from conftest import FIXTURES
from recipe_harness import structured
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

import ckptool
from ckptool.errors import CkptError
from ckptool.models import open_target, target_of
from ckptool.plan import Apply, Value
from ckptool.probing.content import content
from ckptool.probing.measure import difference
from ckptool.probing.pairing import pair_modules
from ckptool.probing.probe import probe
from ckptool.probing.report import ProbeReport
from ckptool.recipes.recipe import recipe_of
from ckptool.render.json_probe import probe_json
from ckptool.render.text import Screen, paint
from ckptool.render.text_probe import probe_lines
from ckptool.spec import TensorSpec
from ckptool.surgery.transplant import Transplant, plan_transplant

Numbers = Mapping[str, float] | None


def planned(
    source: nn.Module, target: nn.Module, folder: Path, rules: Sequence[str] = (), vars: Numbers = None
) -> Transplant:
    """A transplant between two live models, through a file."""
    torch.save({key: tensor.clone() for key, tensor in source.state_dict().items()}, folder / "source.pth")
    old = ckptool.open(folder / "source.pth")
    return plan_transplant(old, target_of(target), recipe=recipe_of(list(rules)) if rules else None, vars=vars)


def probed(
    source: nn.Module,
    target: nn.Module,
    folder: Path,
    rules: Sequence[str] = (),
    change: Callable[[Transplant], Transplant] = lambda done: done,
    vars: Numbers = None,
    **options: Any,
) -> ProbeReport:
    done = change(planned(structured(source), target, folder, rules, vars))
    return probe(done, target_of(source), **options)


def swapped(*pairs: tuple[str, str]) -> Callable[[Transplant], Transplant]:
    """A transplant with tensors of the target exchanged, as a wrong mapping would have it."""

    def change(done: Transplant) -> Transplant:
        values: dict[str, Value] = {step.target.key: step.value for step in done.plan.steps}
        other = {}
        for one, two in pairs:
            names = [key for key in values if key.startswith(one)]
            for key in names:
                there = two + key.removeprefix(one)
                other |= {key: values[there], there: values[key]}
        assert other
        steps = tuple(replace(step, value=other.get(step.target.key, step.value)) for step in done.plan.steps)
        return replace(done, plan=replace(done.plan, steps=steps))

    return change


def differs(report: ProbeReport, target: str) -> None:
    assert not report.agree and not report.is_proof
    assert report.first is not None and report.first.target == target, report.first
    assert report.first.error > 100 * report.tolerance


def text(report: ProbeReport, width: int = 80) -> str:
    screen = Screen(width=width, elide=True)
    return "\n".join(paint(line, screen) for line in probe_lines(report, screen))


# ---------------------------------------------------------------------------------------------- small models

WIDTH, HEADS = 16, 2


class Split(nn.Module):
    """Attention with a layer for each of q, k, v."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (one(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for one in (self.q, self.k, self.v))
        return self.out(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Fused(nn.Module):
    """The same with one layer for the three."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w2, self.w3 = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    def __init__(self, attention: Callable[[], nn.Module] = Split) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2, self.mlp = nn.LayerNorm(WIDTH), attention(), nn.LayerNorm(WIDTH), Gated()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Text(nn.Module):
    """A small transformer over tokens."""

    def __init__(
        self, depth: int = 3, classes: int = 5, vocabulary: int = 50, attention: Callable[[], nn.Module] = Split
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, WIDTH)
        self.blocks = nn.Sequential(*(Block(attention) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, classes)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embed(ids))))


FUSE = [
    "{m**}.q.{p*}, {m**}.k.{p*}, {m**}.v.{p*} -> {m**}.qkv.{p*} | a ..., b ..., c ... -> (a + b + c) ...",
    "{m**}.out.{p*} -> {m**}.proj.{p*}",
]


def fused() -> Text:
    return Text(attention=Fused)


def test_a_right_mapping_agrees(tmp_path: Path) -> None:
    report = probed(Text(), Text(), tmp_path)
    assert report.is_proof and report.first is None and report.largest == 0
    assert (
        report.compared == report.agreeing == 1 + 3 * 12 + 4
    )  # the embedding, blocks, and what is behind and around them
    assert report.inputs == ("ids 1x16",) and not report.skipped and not report.unfilled
    assert report.filled == len(Text().state_dict()) and not report.notes


def test_other_names_agree(tmp_path: Path) -> None:
    holder = nn.Module()
    holder.body = Text()
    holder.forward = holder.body.forward  # type: ignore[method-assign]
    assert probed(Text(), holder, tmp_path, ["{k**} -> body.{k**}"]).is_proof


def test_the_models_stay_as_they_are(tmp_path: Path) -> None:
    source, target = structured(Text()), Text().train()
    before = copy.deepcopy([source.state_dict(), target.state_dict()])
    assert probe(planned(source, target, tmp_path), target_of(source)).is_proof
    after = [source.state_dict(), target.state_dict()]
    assert all(torch.equal(a[key], b[key]) for a, b in zip(before, after, strict=True) for key in a)
    assert target.training and not target.blocks[0]._forward_hooks


def test_swapped_q_and_k_differ_behind_the_attention(tmp_path: Path) -> None:
    report = probed(Text(), Text(), tmp_path, change=swapped(("blocks.1.attn.q.", "blocks.1.attn.k.")))
    differs(report, "blocks.1.attn.out")
    assert report.first.input_error > 0.01 and set(report.first.after) == {f"blocks.1.attn.{n}" for n in "qkv"}
    assert report.first.last_agreed == "blocks.1.attn.v"
    assert report.first.origins[0] == ("blocks.1.attn.out.weight", ("blocks.1.attn.out.weight",), "same key")
    assert "its input differs already" in text(report) and "before it agrees: blocks.1.attn.q" in text(report)


def test_swapped_gate_and_up_differ_at_down(tmp_path: Path) -> None:
    differs(
        probed(Text(), Text(), tmp_path, change=swapped(("blocks.2.mlp.w1.", "blocks.2.mlp.w3."))), "blocks.2.mlp.w2"
    )


def test_swapped_norms_stand_in_another_place(tmp_path: Path) -> None:
    report = probed(Text(), Text(), tmp_path, change=swapped(("blocks.1.norm1.", "blocks.1.norm2.")))
    differs(report, "blocks.1.norm1")
    assert report.first.source == "blocks.1.norm2" and report.first.after == ("blocks.0",)
    assert "blocks.1.attn" in report.first.source_after
    assert "another place in the model" in text(report)


def test_norms_as_they_are_new_are_told_apart(tmp_path: Path) -> None:
    """Ones and zeros everywhere: an exchange would not show if the probe did not vary them, for both models alike."""
    right = probe(planned(Text(), Text(), tmp_path), target_of(Text()))
    assert right.is_proof and "14 source tensors hold one number throughout" in right.notes[0].text
    wrong = swapped(("blocks.1.norm1.", "blocks.1.norm2."))(planned(Text(), Text(), tmp_path))
    differs(probe(wrong, target_of(Text())), "blocks.1.norm1")


def test_swapped_blocks_differ_at_the_first(tmp_path: Path) -> None:
    report = probed(Text(), Text(), tmp_path, change=swapped(("blocks.1.", "blocks.2.")))
    differs(report, "blocks.1.norm1")
    assert report.first.source == "blocks.2.norm1"


def test_fused_qkv_agrees_and_another_order_differs(tmp_path: Path) -> None:
    report = probed(Text(), fused(), tmp_path, FUSE)
    assert report.is_proof
    assert (report.skipped[0].target, report.skipped[0].why) == ("blocks.0.attn.qkv", "it is made of 3 modules")
    wrong = [FUSE[0].replace("{m**}.q.{p*}, {m**}.k.{p*},", "{m**}.k.{p*}, {m**}.q.{p*},"), FUSE[1]]
    report = probed(Text(), fused(), tmp_path, wrong)
    differs(report, "blocks.0.attn.proj")
    assert report.first.between == ("blocks.0.attn.qkv",) and "no counterpart of their own" in text(report)


def test_split_qkv_agrees(tmp_path: Path) -> None:
    rules = [
        "{m**}.qkv.{p*} -> {m**}.q.{p*}, {m**}.k.{p*}, {m**}.v.{p*} | (a + b + c) ... -> a ..., b ..., c ...",
        "{m**}.proj.{p*} -> {m**}.out.{p*}",
    ]
    sizes = {"a": WIDTH, "b": WIDTH, "c": WIDTH}
    assert probed(fused(), Text(), tmp_path, rules, vars=sizes).is_proof


def test_a_square_matrix_that_was_not_transposed(tmp_path: Path) -> None:
    """The target takes x @ w, the source x @ w.T: the file's numbers fit, and are wrong."""

    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.randn(WIDTH, WIDTH)), nn.Parameter(torch.randn(WIDTH))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight + self.bias

    def target() -> Text:
        model = Text()
        for block in model.blocks:
            block.attn.out = Turned()
        return model

    right = probed(Text(), target(), tmp_path, ["{m**}.out.weight -> {m**}.out.weight | o i -> i o"])
    assert right.is_proof and right.largest < 1e-5
    wrong = probed(Text(), target(), tmp_path)
    differs(wrong, "blocks.0.attn.out")
    assert wrong.first.input_error < 1e-6 and wrong.first.classes == ("Turned", "Linear")
    assert "its input agrees" in text(wrong) and "it is Turned, the source's is Linear" in text(wrong)


def test_a_new_head_is_no_divergence(tmp_path: Path) -> None:
    report = probed(Text(classes=5), Text(classes=9), tmp_path)
    assert report.is_proof and report.filled == len(Text().state_dict()) - 2


def test_a_new_head_of_the_same_size_is_none_either(tmp_path: Path) -> None:
    done = planned(structured(Text()), Text(), tmp_path)
    old = ckptool.open(tmp_path / "source.pth")
    report = probe(plan_transplant(old, target_of(Text()), drop=["head.*"]), target_of(Text()))
    assert done.coverage == 1 and report.is_proof and report.unfilled == ("head.weight", "head.bias")


def test_what_is_behind_an_inserted_block_is_not_judged(tmp_path: Path) -> None:
    report = probed(Text(depth=3), Text(depth=4), tmp_path, ["blocks.2. -> blocks.3."])
    assert report.agree and not report.is_proof and report.first is None
    assert all(key.startswith("blocks.2.") for key in report.unfilled) and len(report.unfilled) > 10
    assert {row.target for row in report.skipped} >= {"blocks.3.norm1", "norm"}
    assert "blocks.2.norm1.weight, which nothing filled" in text(report)
    assert set(report.unproven) == {key for key in Text(4).state_dict() if key.startswith(("blocks.3", "norm", "head"))}
    assert text(report).splitlines()[-1].startswith("?  ")


def test_an_inserted_adapter_that_does_nothing_yet_is_seen_through(tmp_path: Path) -> None:
    class Adapted(Text):
        def __init__(self) -> None:
            super().__init__()
            self.adapter = nn.Linear(WIDTH, WIDTH)
            nn.init.zeros_(self.adapter.weight)
            nn.init.zeros_(self.adapter.bias)

        def forward(self, ids: Tensor) -> Tensor:
            x = self.embed(ids)
            return self.head(self.norm(self.blocks(x + self.adapter(x))))

    assert probed(Text(), Adapted(), tmp_path).is_proof


def test_layers_left_out_are_no_divergence(tmp_path: Path) -> None:
    report = probed(Text(depth=3), Text(depth=2), tmp_path)
    assert report.agree and not report.is_proof
    assert "norm.weight" in report.unproven and "what the target has no place for" in text(report, 200)


def test_settings_that_differ_are_named(tmp_path: Path) -> None:
    target = Text()
    target.blocks[1].norm2.eps = 0.1
    report = probed(Text(), target, tmp_path)
    differs(report, "blocks.1.norm2")
    assert report.first.settings == (("eps", "0.1", "1e-05"),) and "eps is 0.1, in the source's 1e-05" in text(report)


def test_an_activation_inside_another_module_is_no_divergence(tmp_path: Path) -> None:
    class NormAct(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).relu_()

    source = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 4, 3))
    target = nn.Sequential(nn.Conv2d(3, 8, 3), NormAct(8), nn.Identity(), nn.Conv2d(8, 4, 3))
    assert probed(source, target, tmp_path).is_proof
    assert probed(target, source, tmp_path).is_proof


# ---------------------------------------------------------------------------------------------- kinds of models


def test_towers_that_are_swapped(tmp_path: Path) -> None:
    class Towers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.passage = Text(2), Text(2)

        def forward(self, query: Tensor, passage: Tensor) -> tuple[Tensor, Tensor]:
            return self.query(query), self.passage(passage)

    report = probed(Towers(), Towers(), tmp_path)
    assert report.is_proof and report.inputs == ("ids 1x16", "ids 1x16")
    wrong = probed(Towers(), Towers(), tmp_path, change=swapped(("query.", "passage.")))
    differs(wrong, "query.embed")


def test_recurrent_layers_with_the_batch_elsewhere(tmp_path: Path) -> None:
    class Recurrent(nn.Module):
        def __init__(self, batch_first: bool) -> None:
            super().__init__()
            self.lstm, self.out = nn.LSTM(6, 8, batch_first=batch_first), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.lstm(x)[0])

    assert probed(Recurrent(True), Recurrent(True), tmp_path).is_proof
    report = probed(Recurrent(False), Recurrent(False), tmp_path)
    assert report.is_proof and report.inputs == ("numbers 16x1x6",)


def test_encoders_of_torch_do_not_take_their_fast_path(tmp_path: Path) -> None:
    def encoder() -> nn.Module:
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    assert probed(encoder(), encoder(), tmp_path, input_shape=(1, 5, 16)).is_proof
    wrong = swapped(("layers.0.norm1.", "layers.0.norm2."))
    differs(probed(encoder(), encoder(), tmp_path, change=wrong, input_shape=(1, 5, 16)), "layers.0.norm1")


def test_a_module_that_is_called_twice(tmp_path: Path) -> None:
    class Again(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.one(self.two(self.one(x)).tanh())

    assert probed(Again(), Again(), tmp_path).is_proof
    differs(probed(Again(), Again(), tmp_path, change=swapped(("one.", "two."))), "one")


def test_tied_tensors(tmp_path: Path) -> None:
    class Tied(Text):
        def __init__(self) -> None:
            super().__init__(classes=50)
            self.head = nn.Linear(WIDTH, 50, bias=False)
            self.head.weight = self.embed.weight

    assert probed(Tied(), Tied(), tmp_path).is_proof


def test_half_precision_files_run_in_float32(tmp_path: Path) -> None:
    source, target = structured(Text()).to(torch.bfloat16), Text().to(torch.float16)
    report = probe(planned(source, target, tmp_path), target_of(source))
    assert report.is_proof and report.largest == 0


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
    assert set(report.first.after) == {f"model.layers.0.self_attn.{x}_proj" for x in "qkv"} and not report.divided
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


# ---------------------------------------------------------------------------------------------- what cannot be run


def test_a_source_that_does_not_fit_its_model(tmp_path: Path) -> None:
    done = planned(Text(), Text(), tmp_path)
    with pytest.raises(CkptError, match=r"does not load strictly into Text: 15 unexpected \(blocks.2.norm1") as found:
        probe(done, target_of(Text(depth=2)))
    assert "the very model" in (found.value.hint or "")
    with pytest.raises(CkptError, match=r"2 of another shape \(head.weight\)"):
        probe(done, target_of(Text(classes=6)))


def test_an_input_of_the_wrong_shape(tmp_path: Path, torchvision: ModuleType) -> None:
    with pytest.raises(CkptError, match=r"stops in conv1 \(Conv2d\) on image 1x4x64x64: RuntimeError") as found:
        model = torchvision.models.resnet18
        probed(model(), model(), tmp_path, input_shape=(1, 4, 64, 64))
    assert "--probe-input" in (found.value.hint or "")


def test_a_forward_that_raises_names_its_module(tmp_path: Path) -> None:
    class Refuses(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("only in training")

    target = Text()
    target.blocks[1].mlp = nn.Sequential(Refuses())
    with pytest.raises(CkptError, match=r"Text stops in blocks.1.mlp.0 \(Refuses\) on ids 1x16: ValueError: only in"):
        probed(Text(), target, tmp_path)
    assert not target.blocks[1]._forward_hooks


def test_a_model_whose_input_nobody_knows(tmp_path: Path) -> None:
    class Nothing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self) -> Tensor:
            return self.layer.weight

    with pytest.raises(CkptError, match="what Nothing takes cannot be worked out"):
        probed(Nothing(), Nothing(), tmp_path)


def test_models_that_take_other_things(tmp_path: Path) -> None:
    holder = nn.Sequential()
    holder.add_module("norm", nn.LayerNorm(WIDTH))
    holder.add_module("head", nn.Linear(WIDTH, 5))
    with pytest.raises(CkptError, match="no one input for both: Text takes ids, Sequential takes numbers"):
        probed(Text(), holder, tmp_path)


def test_a_checkpoint_is_no_model_to_run(tmp_path: Path) -> None:
    done = planned(Text(), Text(), tmp_path)
    with pytest.raises(CkptError, match="is a checkpoint: there is no model to run"):
        probe(done, str(tmp_path / "source.pth"))


# ---------------------------------------------------------------------------------------------- the parts


def test_the_fixture_model_by_name() -> None:
    done = plan_transplant(ckptool.open(FIXTURES / "resnet18-102.pth"), open_target(f"{FIXTURES}/models.py:Backbone"))
    report = probe(done, f"{FIXTURES}/models.py:ResNet18", input_shape=(1, 3, 64, 64))
    assert report.is_proof and report.filled == 75
    again = probe(done, f"{FIXTURES}/models.py:ResNet18", input_shape=(1, 3, 64, 64), seed=1)
    assert again.is_proof and again.seed == 1


def test_a_probe_as_text_and_as_json(tmp_path: Path) -> None:
    right = probed(Text(), Text(), tmp_path)
    assert text(right).splitlines() == [
        "probe  Text against Text, input ids 1x16, seed 0",
        "=  41 of 41 modules agree, largest difference 0, made of all 50 filled tensors",
    ]
    wrong = probed(Text(), Text(), tmp_path, change=swapped(("blocks.1.mlp.w1.", "blocks.1.mlp.w2.")))
    shown = text(wrong)
    assert all(len(line) <= 80 for line in shown.splitlines()) and "blocks.1.mlp.w1 differs first: off by" in shown
    said = json.loads("".join(probe_json(wrong, 1)))
    assert said["schema"] == "ckptool.probe/1" and said["agree"] is False and said["first"] == "blocks.1.mlp.w1"
    assert said["differing"][0]["classes"] == {"target": "Linear", "source": "Linear"}
    assert json.loads("".join(probe_json(right, 0)))["proof"] is True


def test_names_from_a_model_are_escaped(tmp_path: Path) -> None:
    def odd() -> nn.Module:
        model = nn.Sequential()
        model.add_module("a\x1b[31m", nn.Linear(4, 4))
        return model

    target = odd()
    target.get_submodule("a\x1b[31m").register_forward_hook(lambda module, given, made: made + 1)
    report = probed(odd(), target, tmp_path)
    assert not report.agree and "\x1b" not in text(report)


def test_contents_are_seeded_and_have_no_mirror_images() -> None:
    image = content("image", (1, 3, 48, 32), 0, 7)
    assert torch.equal(image, content("image", (1, 3, 48, 32), 0, 7))
    assert not torch.equal(image, content("image", (1, 3, 48, 32), 0, 8))
    for axes in ((1,), (2,), (3,), (2, 3)):
        assert float((image - image.flip(axes)).std() / image.std()) > 0.3
    means = image.mean((0, 2, 3))
    assert float((means[:, None] - means).abs()[~torch.eye(3, dtype=torch.bool)].min()) > 0.05
    smooth = (image[..., 1:] - image[..., :-1]).std() / image.std()
    assert 0.05 < float(smooth) < 0.8
    ids = content("ids", (2, 40), 100, 0)
    assert ids.shape == (2, 40) and int(ids.min()) >= 4 and int(ids.max()) < 100


def test_differences_see_through_the_order_of_axes() -> None:
    image = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    assert difference(image.transpose(0, 2, 3, 1), image, 1e-4) == 0
    assert difference(image.reshape(2, 3, 20).transpose(2, 0, 1), image, 1e-4) == 0
    assert difference(image.transpose(0, 2, 3, 1).reshape(2, 20, 3), image, 1e-4) == 0
    assert difference(image.reshape(2, 20, 3), image, 1e-4) > 0.5
    assert difference(image[:1], image, 1e-4) == float("inf")
    assert difference(np.full_like(image, np.nan), image, 1e-4) == float("inf")
    holes = np.where(image > 1, np.inf, image)
    assert difference(holes, holes, 1e-4) == 0
    assert difference(None, image, 1e-4) is None


def test_modules_are_paired_by_their_tensors() -> None:
    found = pair_modules(
        {"x.w": ["a"], "x.y.w": ["b"], "z.w": ["a", "b"]},
        {"m.w": ["a"], "m.n.w": ["b"], "left.w": ["c"]},
        ["", "x", "x.y", "z"],
        ["", "m", "m.n", "left"],
    )
    assert found.others["x.y"] == ("m.n",) and found.others["x"][0] in {"m", ""} and "z" in found.is_loose
