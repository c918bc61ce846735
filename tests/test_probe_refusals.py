"""What a probe says of what it cannot run, how it is shown, and its parts."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import FIXTURES
from json_schemas import validate
from probe_harness import FUSE, WIDTH, Fused, Text, fused, planned, probed, swapped, text
from recipe_harness import structured
from torch import Tensor, nn

import ckptool
from ckptool.commands.probing import probe, probe_plan
from ckptool.commands.remap import plan_remap
from ckptool.commands.transplant.planning import plan_transplant
from ckptool.core.errors import CkptError
from ckptool.models import open_target, target_of
from ckptool.models.probing.content import content
from ckptool.models.probing.measure import difference
from ckptool.models.probing.pairing import pair_modules
from ckptool.recipes.recipe import recipe_of
from ckptool.report.document_probe import probe_document
from ckptool.report.json import encode_document

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


def test_what_a_remap_makes(tmp_path: Path) -> None:
    planned(structured(Text()), fused(), tmp_path)
    old = ckptool.open(tmp_path / "source.pth")
    plan = plan_remap(old, recipe_of(FUSE))
    assert probe_plan(plan, target_of(Text()), target_of(fused())).is_proof
    report = probe_plan(plan, target_of(Text()), target_of(Text(attention=Fused, depth=2)))
    assert report.agree and not report.is_proof and "norm.weight" in report.unproven
    with pytest.raises(CkptError, match=r"does not fit the model: head\.weight has another shape in Text"):
        probe_plan(plan, target_of(Text()), target_of(Text(attention=Fused, classes=9)))
    with pytest.raises(CkptError, match=r"does not fit the model: Linear has no embed\.weight"):
        probe_plan(plan, target_of(Text()), target_of(nn.Linear(2, 2)))


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
    agree = "41 of 41 modules agree within 1e-13, made of all 50 filled tensors"
    assert " ".join(text(right).split()) == (
        f"same outputs: {agree} probe: Text against Text, input ids 1x16, float64, seed 0 = {agree}"
    )
    wrong = probed(Text(), Text(), tmp_path, change=swapped(("blocks.1.mlp.w1.", "blocks.1.mlp.w2.")))
    shown = text(wrong)
    assert all(len(line) <= 80 for line in shown.splitlines()) and "blocks.1.mlp.w1 differs first: off by" in shown
    validate("".join(encode_document(probe_document(wrong, 1))))
    said = json.loads("".join(encode_document(probe_document(wrong, 1))))
    assert said["schema"] == "ckptool.probe/1" and said["agree"] is False and said["first"] == "blocks.1.mlp.w1"
    assert said["differing"][0]["classes"] == {"target": "Linear", "source": "Linear"}
    assert json.loads("".join(encode_document(probe_document(right, 0))))["proof"] is True


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


def test_modules_are_paired_by_their_tensors() -> None:
    found = pair_modules(
        {"x.w": ["a"], "x.y.w": ["b"], "z.w": ["a", "b"]},
        {"m.w": ["a"], "m.n.w": ["b"], "left.w": ["c"]},
        ["", "x", "x.y", "z"],
        ["", "m", "m.n", "left"],
    )
    assert found.others["x.y"] == ("m.n",) and found.others["x"][0] in {"m", ""} and "z" in found.is_loose
