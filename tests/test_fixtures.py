"""The committed files of `fixtures/` are what `fixtures/make.py` writes, and what they claim to be."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import FIXTURES
from safetensors.torch import load_file


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in (".py", ".pyc", ".ipynb")
    }


@pytest.mark.skipif(not torch.__version__.startswith("2.13."), reason="another torch writes other headers")
def test_generator_writes_the_committed_bytes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, FIXTURES / "make.py", tmp_path / "again"], check=True)
    again, committed = files(tmp_path / "again"), files(FIXTURES)
    assert again.keys() == committed.keys()
    assert [name for name in again if again[name] != committed[name]] == []


def test_the_folder_is_tiny() -> None:
    assert sum(map(len, files(FIXTURES).values())) < 1_000_000


def test_keys_are_those_of_torchvision(torchvision: ModuleType) -> None:
    model = torchvision.models.resnet18()
    new = torch.load(FIXTURES / "resnet18.pth", weights_only=True)
    old = torch.load(FIXTURES / "resnet18-102.pth", weights_only=True)
    assert list(new) == list(model.state_dict())
    assert len(new) == 122
    assert set(old) == {key for key in new if not key.endswith("num_batches_tracked")}
    assert len(old) == 102


def test_old_form_is_legacy_and_bare() -> None:
    path = FIXTURES / "resnet18-102.pth"
    assert not zipfile.is_zipfile(path)
    old = torch.load(path, weights_only=True)
    new = torch.load(FIXTURES / "resnet18.pth", weights_only=True)
    assert not hasattr(old, "_metadata")
    assert new._metadata["bn1"] == {"version": 2}
    assert isinstance(old["conv1.weight"], torch.nn.Parameter)
    assert not isinstance(old["bn1.running_mean"], torch.nn.Parameter)
    assert all(torch.equal(old[key], new[key]) for key in old)


def test_training_checkpoint_holds_all_that_training_needs() -> None:
    with torch.serialization.safe_globals([argparse.Namespace]):
        checkpoint = torch.load(FIXTURES / "training.ckpt", weights_only=True)
    weights, average = checkpoint["state_dict"], checkpoint["model_ema"]
    assert [key.removeprefix("module.") for key in weights] == list(average)
    assert checkpoint["args"].lr == 0.125
    assert len(checkpoint["optimizer"]["state"]) == 62
    assert not torch.equal(weights["module.conv1.weight"], average["conv1.weight"])
    assert weights["module.bn1.num_batches_tracked"].item() == 80


def test_tuned_file_changes_more_the_deeper_it_is() -> None:
    old = torch.load(FIXTURES / "resnet18.pth", weights_only=True)
    new = load_file(FIXTURES / "tuned.safetensors")
    assert set(old) == set(new)
    assert torch.equal(old["conv1.weight"], new["conv1.weight"])
    assert new["fc.weight"].shape == (10, 16)

    def moved(layer: str) -> float:
        key = f"{layer}.0.conv1.weight"
        return float((new[key] - old[key]).norm() / old[key].norm())

    assert 0 < moved("layer1") < moved("layer2") < moved("layer3") < moved("layer4") < 0.1


@pytest.mark.parametrize("folder", ["shards", "shards-bin"])
def test_shards_hold_the_whole(folder: str) -> None:
    whole = torch.load(FIXTURES / "resnet18.pth", weights_only=True)
    index = json.loads(next((FIXTURES / folder).glob("*.index.json")).read_text())
    parts: dict[str, torch.Tensor] = {}
    for name in sorted(set(index["weight_map"].values())):
        path = FIXTURES / folder / name
        part = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
        assert {key for key, shard in index["weight_map"].items() if shard == name} == set(part)
        parts |= part
    assert set(parts) == set(whole)
    assert all(torch.equal(parts[key], whole[key]) for key in whole)


@pytest.mark.parametrize("name", ["system.pth", "system-legacy.pth"])
def test_hostile_pickles_are_live(name: str, tmp_path: Path) -> None:
    """Read by torch without its guard, they run: else the tests that ckptool does not run them would prove nothing."""
    code = "import sys, torch; torch.load(sys.argv[1], weights_only=False)"
    subprocess.run([sys.executable, "-c", code, FIXTURES / "hostile" / name], check=True, cwd=tmp_path)
    assert (tmp_path / "payload-ran").exists()


def test_duplicate_record_shows_scanners_another_pickle_than_torch() -> None:
    path = FIXTURES / "hostile" / "duplicate.pth"
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist().count("archive/data.pkl") == 2
        assert b"system" not in archive.read("archive/data.pkl")
    with pytest.raises(Exception, match="system"):
        torch.load(path, weights_only=True)
