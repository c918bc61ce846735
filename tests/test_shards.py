"""Folders of training ranks: examples that the frameworks themselves wrote, with the whole tensors that they hold.

The examples are DeepSpeed's, torch's, Accelerate's and Megatron's own files; see the README of `data`.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT
from console import Run, runner

from ckptool.core.errors import CkptError
from ckptool.engine.reading import Reader
from ckptool.formats.opening import open_checkpoint

ARCHIVE = ROOT / "tests" / "data" / "shards.zip"
with zipfile.ZipFile(ARCHIVE) as archive:
    CASES = sorted(
        {name.partition("/")[0] for name in archive.namelist() if name.endswith("case.json") and name.startswith("ds")}
    )


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("shards")
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(target)
    return target


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(tmp_path, monkeypatch, capsys)


def values_of(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    checkpoint = open_checkpoint(path)
    with Reader() as reader:
        return {key: (t.dtype, t.shape, reader.read_bytes(t)) for key, t in checkpoint.items()}


@pytest.mark.parametrize("case", CASES)
def test_what_the_frameworks_wrote(case: str, examples: Path) -> None:
    folder = examples / case
    said = json.loads((folder / "case.json").read_text())
    if said["expect"] == "refuse":
        with pytest.raises(CkptError) as refused:
            open_checkpoint(folder / said["open"])
        text = f"{refused.value.message} {refused.value.hint}"
        assert all(word in text for word in said["must_name"])
        return
    found = values_of(folder / said["open"])
    expected = values_of(folder / "expected.safetensors")
    optional = values_of(folder / "optional.safetensors") if (folder / "optional.safetensors").exists() else {}
    assert {key: found.get(key) for key in expected} == expected
    for key in found.keys() - expected.keys():
        assert found[key][1:] == optional[key][1:]


@pytest.mark.parametrize("case", [case for case in CASES if case != "fsdp2_one_rank_alone_2"])
def test_every_command(case: str, examples: Path, cli: Run, tmp_path: Path) -> None:
    folder = examples / case
    said = json.loads((folder / "case.json").read_text())
    source = str(folder / said["open"])
    refused = said["expect"] == "refuse"
    out = tmp_path / "out.safetensors"
    for arguments in (
        ["inspect", source],
        ["check", source],
        ["filter", source, "-o", str(out)],
        ["remap", source, "-r", "gate -> gates", "-o", str(tmp_path / "r.pth")],
    ):
        code, text, error = cli(*arguments)
        assert code == (2 if refused else 0) or (arguments[0] == "check" and code == 1), (arguments, text, error)
        assert not refused or all(word in error for word in said["must_name"])
    if refused:
        assert not list(tmp_path.iterdir())
        return
    code, text, _ = cli("diff", source, str(out))
    assert code in (0, 1)
    assert f"= {len(open_checkpoint(out))} identical   + 0 added   - 0 removed" in text
    assert values_of(out) == values_of(Path(source))
