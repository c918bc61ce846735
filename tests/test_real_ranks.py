"""Folders that the ranks of real training runs wrote: FSDP2, FSDP1, hybrid, tensor-parallel and replicated modules.

torch's own ways to put the parts together are the oracle: full_tensor, FULL_STATE_DICT, and dcp_to_torch_save.
"""

from __future__ import annotations

from pathlib import Path

import gloo_ranks
import pytest
import torch
from console import Run, runner
from safetensors.torch import load_file
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from ckptool.engine.reading import Reader
from ckptool.formats.opening import open_checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks") / "runs"
    gloo_ranks.save_all(folder)
    return folder


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(tmp_path, monkeypatch, capsys)


def raw(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).numpy()) if tensor.numel() else b""


def read(path: Path) -> dict[str, tuple[tuple[int, ...], bytes]]:
    with Reader() as reader:
        return {key: (tensor.shape, reader.read_bytes(tensor)) for key, tensor in open_checkpoint(path).items()}


@pytest.mark.parametrize("kind", gloo_ranks.KINDS)
def test_whole_tensors(saved: Path, kind: str, tmp_path: Path) -> None:
    whole = load_file(saved / f"{kind}.safetensors")
    found = read(saved / kind)
    assert found == {key: (tuple(value.shape), raw(value)) for key, value in whole.items()}
    if "-dcp" in kind:
        dcp_to_torch_save(saved / kind, tmp_path / "theirs.pt")
        theirs = torch.load(tmp_path / "theirs.pt", weights_only=False)
        theirs = theirs.get("model", theirs)
        assert {key: raw(value) for key, value in theirs.items()} == {key: each for key, (_, each) in found.items()}
    if "uneven" not in kind and "safetensors" not in kind:
        keys = [key.removeprefix("module.") for key in found]
        assert keys == list(gloo_ranks.Net(norm="tensor_parallel" not in kind).state_dict())


@pytest.mark.parametrize("kind", [kind for kind in gloo_ranks.KINDS if "safe" not in kind and "uneven" not in kind])
def test_training_goes_on(saved: Path, kind: str, cli: Run) -> None:
    """One more step in plain torch from a .pth output equals one more step of the run."""
    layout = kind.partition("-")[0]
    code, text, error = cli("filter", str(saved / kind), "-o", "out.pth")
    assert code == 0, text + error
    state = torch.load("out.pth", weights_only=True)
    model = gloo_ranks.Net(norm=layout != "tensor_parallel")
    model.load_state_dict({key.removeprefix("module."): value for key, value in state["model"].items()}, strict=True)
    optimizer = gloo_ranks.optimizer_of(model, two_groups=layout == "ddp")
    held = state["optimizer"] if "optimizer" in state else state["optim"]
    names = [name for group in held["param_groups"] for name in group.get("param_names", group["params"])]
    assert {str(name).removeprefix("module.") for name in names} == {name for name, _ in model.named_parameters()}
    optimizer.load_state_dict(held)
    gloo_ranks.train(model, optimizer, (3,))
    expected = load_file(saved / f"{layout}.next.safetensors")
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["fsdp2-dcp", "fsdp2-dcp_names", "fsdp2-dcp_flat", "fsdp2-files", "ddp-dcp"])
def test_a_dropped_module_takes_its_state_along(saved: Path, kind: str, cli: Run) -> None:
    prefix = "module." if kind.startswith("ddp") else ""
    renamed = f"{prefix}up. -> wide."
    code, text, error = cli("remap", str(saved / kind), "-r", renamed, "-r", "*gate -> !", "-o", "out.pth")
    assert code == 0, text + error
    state = torch.load("out.pth", weights_only=True)["optimizer"]
    names = [name for group in state["param_groups"] for name in group.get("param_names", group["params"])]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    assert "wide.weight" in names
    assert not any("gate" in name for name in names)
    whole = torch.load("out.pth", weights_only=True)["model"]
    for name, number in zip(names, numbers, strict=True):
        assert state["state"][number]["exp_avg"].shape == whole[name].shape
    assert len(state["state"]) == len(names) == 8
