"""Probes of small models: a right mapping agrees, a wrong one differs at the module where it is wrong."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from probe_harness import FUSE, WIDTH, Text, differs, fused, planned, probed, swapped, text
from recipe_harness import structured
from torch import Tensor, nn

import ckptool
from ckptool.commands.probing import probe
from ckptool.commands.transplant.planning import plan_transplant
from ckptool.commands.transplant.result import Asked
from ckptool.core.reasons import SameKey
from ckptool.models import target_of


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
    assert report.first.input_error > 0.01 and dict(report.first.after) == {
        f"blocks.1.attn.{n}": f"blocks.1.attn.{m}" for n, m in zip("qkv", "kqv", strict=True)
    }
    assert report.first.last_agreed == "blocks.1.attn.v"
    assert report.first.origins[0] == ("blocks.1.attn.out.weight", ("blocks.1.attn.out.weight",), SameKey())
    assert "its input differs already" in text(
        report
    ) and "from what agrees: blocks.1.attn.q <- blocks.1.attn.k," in text(report)


def test_swapped_gate_and_up_differ_at_down(tmp_path: Path) -> None:
    differs(
        probed(Text(), Text(), tmp_path, change=swapped(("blocks.2.mlp.w1.", "blocks.2.mlp.w3."))), "blocks.2.mlp.w2"
    )


def test_swapped_norms_stand_in_another_place(tmp_path: Path) -> None:
    report = probed(Text(), Text(), tmp_path, change=swapped(("blocks.1.norm1.", "blocks.1.norm2.")))
    differs(report, "blocks.1.norm1")
    assert report.first.source == "blocks.1.norm2" and report.first.after == (("blocks.0", "blocks.0"),)
    assert "blocks.1.attn" in report.first.source_after
    assert "it stands in another place" in text(report)


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
    assert "qkv.weight <- blocks.0.attn.k.weight, blocks.0.attn.q.weight" in text(report, 160)


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
    report = probe(plan_transplant(old, target_of(Text()), Asked(drop=("head.*",))), target_of(Text()))
    assert done.coverage == 1 and report.is_proof and report.unfilled == ("head.weight", "head.bias")


def test_what_is_behind_an_inserted_block_is_not_judged(tmp_path: Path) -> None:
    report = probed(Text(depth=3), Text(depth=4), tmp_path, ["blocks.2. -> blocks.3."])
    assert report.agree and not report.is_proof and report.first is None
    assert all(key.startswith("blocks.2.") for key in report.unfilled) and len(report.unfilled) > 10
    assert {row.target for row in report.skipped} >= {"blocks.3.norm1", "norm"}
    assert "blocks.2.norm1.weight, which nothing filled" in text(report)
    assert set(report.unproven) == {key for key in Text(4).state_dict() if key.startswith(("blocks.3", "norm", "head"))}
    assert text(report).splitlines()[-1].startswith("? ")


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
    assert probed(Tied(), Text(classes=7), tmp_path).is_proof  # the head is not used, and its tensor is
    wrong = swapped(("blocks.1.mlp.w1.", "blocks.1.mlp.w3."))
    differs(probed(Tied(), Text(classes=7), tmp_path, change=wrong), "blocks.1.mlp.w2")


def test_half_precision_files_run_in_float32(tmp_path: Path) -> None:
    source, target = structured(Text()).to(torch.bfloat16), Text().to(torch.float16)
    report = probe(planned(source, target, tmp_path), target_of(source))
    assert report.is_proof and report.largest == 0
