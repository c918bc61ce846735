"""How small a fault a probe sees, and what it does not take for one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from probe_harness import WIDTH, Block, Text, differs, planned, probed, swapped, text
from recipe_harness import structured
from torch import Tensor, nn

from ckptool.commands.probing import probe
from ckptool.commands.transplant.result import Transplant
from ckptool.models import target_of
from ckptool.models.probing.recording import run
from ckptool.models.probing.rounding import EXACT, ROUNDED, Rounding

Change = Callable[[Transplant], Transplant]


def faint(model: nn.Module, scale: float = 0.02) -> nn.Module:
    """Weights as large models have them when they are new: what an attention does hardly shows behind its residual."""
    torch.manual_seed(0)
    for tensor in model.state_dict().values():
        tensor.normal_(0, scale) if tensor.dim() > 1 else tensor.normal_(1, scale)
    return model


class Scaled(Block):
    """With branches scaled to almost nothing, as CaiT and ConvNeXt begin."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma1, self.gamma2 = (nn.Parameter(torch.rand(WIDTH) * 1e-6) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.gamma1 * self.attn(self.norm1(x))
        return x + self.gamma2 * self.mlp(self.norm2(x))


def scaled() -> Text:
    model = Text()
    model.blocks = nn.Sequential(*(Scaled() for _ in range(3)))
    return model


FAULTS = [
    ("blocks.0.attn.q.", "blocks.0.attn.k."),
    ("blocks.2.attn.q.weight", "blocks.2.attn.k.weight"),
    ("blocks.1.mlp.w1.", "blocks.1.mlp.w3."),
    ("blocks.1.attn.v.", "blocks.1.attn.out."),
    ("blocks.0.norm1.weight", "blocks.0.norm2.weight"),
]


@pytest.mark.parametrize("pair", FAULTS)
@pytest.mark.parametrize("make", [Text, scaled])
def test_a_fault_that_a_residual_hides(make: Callable[[], Text], pair: tuple[str, str], tmp_path: Path) -> None:
    source = faint(make())
    if make is scaled:
        for block in source.blocks:
            block.gamma1.data.copy_(torch.rand(WIDTH) * 1e-6)
            block.gamma2.data.copy_(torch.rand(WIDTH) * 1e-6)
    assert probe(planned(source, make(), tmp_path), target_of(source)).is_proof
    report = probe(swapped(pair)(planned(source, make(), tmp_path)), target_of(source))
    differs(report, report.first.target if report.first else "")
    assert report.first is not None and report.first.target.startswith(pair[0][:9])
    assert not any(module.startswith(pair[0][:9]) for module in report.divided)


def test_casts_to_float32_are_left_out(tmp_path: Path) -> None:
    class Careful(nn.LayerNorm):
        def forward(self, x: Tensor) -> Tensor:
            given = x.dtype
            return super().forward((x.to(torch.float32) * torch.ones(1, dtype=torch.float32)).to(given))

    target = Text()
    target.norm = Careful(WIDTH)
    report = probed(Text(), target, tmp_path)
    assert report.is_proof and report.precision == "float64" and report.largest == 0


class Table(nn.Module):
    """Holds a constant in float32 that is no buffer, so that `module.double()` passes it by."""

    def __init__(self, wobble: float = 0.0, is_product: bool = False) -> None:
        super().__init__()
        self.is_product = is_product
        self.table = torch.eye(WIDTH) * (1 + wobble)
        self.one, self.two = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        return self.two(x @ self.table if self.is_product else x * self.table.diagonal())


def test_a_model_that_does_not_take_float64_runs_in_float32(tmp_path: Path) -> None:
    report = probed(Table(is_product=True), Table(is_product=True), tmp_path)
    assert report.is_proof and report.precision == "float32" and report.tolerance == 1e-4
    assert "input numbers 1x16, float32, seed 0" in text(report)
    wrong = probed(Table(is_product=True), Table(is_product=True), tmp_path, change=swapped(("one.", "two.")))
    differs(wrong, "one")


def test_constants_of_float32_are_a_models_own(tmp_path: Path) -> None:
    """A rotary table is computed by each model in its own way: its last bits are no fault, others are."""
    report = probed(Table(), Table(wobble=2e-7), tmp_path)
    assert report.is_proof and report.precision == "float64" and 1e-8 < report.largest < ROUNDED
    report = probed(Table(), Table(wobble=2e-4), tmp_path)
    differs(report, "two")
    assert report.first.limit == ROUNDED and report.first.after == (("one", "one"),)


def test_what_is_in_the_file_is_not_rounded(tmp_path: Path) -> None:
    """A fault of 1e-9 between two tensors of a float64 file shows."""

    def doubled(model: nn.Module) -> nn.Module:
        return structured(model).double()

    source, other = doubled(Text()), doubled(Text())
    other.blocks[1].mlp.w2.weight.data *= 1 + 1e-9
    state = {"a." + key: tensor for key, tensor in source.state_dict().items()}
    state |= {"b." + key: tensor for key, tensor in other.state_dict().items()}

    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = Text(), Text()

        def forward(self, ids: Tensor) -> Tensor:
            return self.a(ids) - self.b(ids) / 2

    twins = Twins().double()
    twins.load_state_dict(state)
    assert probe(planned(twins, Twins(), tmp_path), target_of(twins)).is_proof
    report = probe(
        swapped(("a.blocks.1.mlp.w2.", "b.blocks.1.mlp.w2."))(planned(twins, Twins(), tmp_path)), target_of(twins)
    )
    assert not report.agree and report.first.target == "a.blocks.2.norm1"
    assert EXACT < report.first.error < 1e-8


def test_another_eps_is_a_note(tmp_path: Path) -> None:
    target = Text()
    for norm in (target.blocks[0].norm1, target.blocks[2].norm2):
        norm.eps = 1e-12
    report = probed(Text(), target, tmp_path)
    assert report.is_proof and report.largest == 0
    assert report.notes[0].text == "eps of 2 modules (blocks.0.norm1, ...) is 1e-12, in the source's 1e-05"
    assert report.notes[0].keys == ("blocks.0.norm1", "blocks.2.norm2") and target.norm.eps == 1e-5
    assert target.blocks[0].norm1.eps == 1e-12, "the model that is asked about stays as it is"


def test_a_scale_inside_another_module_is_no_fault(tmp_path: Path) -> None:
    """The two divide the work otherwise, and nothing behind it differs."""

    class Turned(nn.Module):
        def __init__(self, before: bool) -> None:
            super().__init__()
            self.one, self.two, self.before = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 4), before
            self.one.register_forward_hook(lambda module, given, made: made * 3 if before else made)

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(x)
            return self.two(x if self.before else x * 3)

    report = probed(Turned(True), Turned(False), tmp_path)
    assert report.is_proof and report.divided == ("one",)


def test_a_fault_beside_an_adapter_that_does_nothing_yet(tmp_path: Path) -> None:
    """What nothing filled excuses what is computed from it, but not where it changes nothing: x + 0, x * 1."""

    class Adapted(Text):
        def __init__(self, size: float) -> None:
            super().__init__()
            self.adapter, self.scale = nn.Linear(WIDTH, WIDTH, bias=False), nn.Parameter(torch.ones(WIDTH))
            nn.init.constant_(self.adapter.weight, size)

        def forward(self, ids: Tensor) -> Tensor:
            x = self.embed(ids)
            return self.head(self.norm(self.blocks(x + self.adapter(x)) * self.scale))

    wrong = swapped(("blocks.1.mlp.w1.", "blocks.1.mlp.w3."))
    differs(probed(Text(), Adapted(0), tmp_path, change=wrong), "blocks.1.mlp.w2")
    report = probed(Text(), Adapted(0.1), tmp_path, change=wrong)
    assert report.agree and not report.is_proof and "blocks.1.mlp.w2.weight" in report.unproven
    state = {"scale": torch.full((WIDTH,), 2.0)}
    target = Adapted(0)
    target.load_state_dict(state, strict=False)
    report = probed(Text(), target, tmp_path)
    assert report.agree and set(report.unproven) == {f"{n}.{p}" for n in ("norm", "head") for p in ("weight", "bias")}


def test_an_error_may_grow_and_not_appear() -> None:
    rule = Rounding("float64", 1e-5)
    assert rule.limit(False, 0) == EXACT and rule.limit(False, 1e-10) == pytest.approx(3e-9)
    assert rule.limit(True, 0) == Rounding("float32", 1e-4).limit(False, 0) == ROUNDED
    assert rule.limit(True, 1.0) == 1e-5


# ---------------------------------------------------------------------------------------------- what is kept


def test_what_is_kept_is_as_it_was() -> None:
    """Nothing is copied but what is written to later, by whatever name."""

    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.three = nn.Identity(), nn.Identity(), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(x * 1)
            x[:, 2:] = 7
            x = self.two(x)
            torch.mul(x, 2, out=x)
            torch._foreach_add_([x], 1)
            return self.three(x).relu_() - 1

    given = torch.full((1, 4), 3.0)
    made = {call.module: call for call in run("w", Writes(), ((given,), {}), "", 0, ()).calls}
    wanted = {"one": [3, 3, 3, 3], "two": [3, 3, 7, 7], "three": [7, 7, 15, 15], "": [6, 6, 14, 14]}
    for name, numbers in wanted.items():
        np.testing.assert_array_equal(made[name].output.array, [numbers])
    np.testing.assert_array_equal(made["two"].input.array, [[3, 3, 7, 7]])
    plain = run("p", nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), ((given,), {}), "", 0, ()).calls
    assert plain[0].output.tensor.data_ptr() == plain[1].input.tensor.data_ptr()


# ---------------------------------------------------------------------------------------------- lists of images


def test_a_detection_model_takes_a_list_of_images(tmp_path: Path) -> None:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)

        def forward(
            self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
        ) -> list[dict[str, Tensor]]:
            assert all(image.dim() == 3 for image in images)
            return [{"boxes": made.flatten(1)} for made in self.head(self.body(torch.stack(images)).relu())]

    report = probed(Detector(), Detector(), tmp_path, input_shape=(1, 3, 32, 32))
    assert report.is_proof and report.inputs == ("image 1x3x32x32",) and report.precision == "float64"
