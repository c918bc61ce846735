"""DeepSpeed's ZeRO: partitions of ranks become whole parameters, and training goes on from them in plain torch."""

from __future__ import annotations

import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from console import Run, runner
from hypothesis import given
from hypothesis import strategies as st
from ranks_harness import Tiny, optimizer_of, partition, save_zero, train, trained
from torch import nn

import ckptool
from ckptool.core.errors import CkptError
from ckptool.engine.reading import Reader, read_array
from ckptool.facts.storages import ties
from ckptool.formats.opening import open_checkpoint
from ckptool.formats.ranks.files import RankFile, read_rank
from ckptool.formats.ranks.zero import Partitions
from ckptool.formats.ranks.zero_files import read_partition
from ckptool.storage.locate import locate_file

STAGES = (1, 2, 3)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(tmp_path, monkeypatch, capsys)


def weights(path: Path, select: str | None = None) -> dict[str, torch.Tensor]:
    arrays = {key: read_array(tensor) for key, tensor in open_checkpoint(path, select).items()}
    return {key: torch.from_numpy(a.astype("f4") if str(a.dtype) == "bfloat16" else a) for key, a in arrays.items()}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("world", [1, 2, 3, 7, 11])
def test_whole_parameters(stage: int, world: int, tmp_path: Path) -> None:
    model, optimizer = trained()
    folder = save_zero(tmp_path / "global_step3", model, optimizer, stage=stage, world=world)
    found = weights(folder)
    expected = model.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    checkpoint = open_checkpoint(folder)
    assert ties(checkpoint) == (("embed.weight", "out.weight"),)
    assert checkpoint.ranks is not None
    assert (checkpoint.ranks.count, checkpoint.ranks.step) == (world, 3)
    assert str(checkpoint.format) == f"DeepSpeed ZeRO-{stage}, {world} rank{'s' * (world > 1)}"


@pytest.mark.parametrize("stage", STAGES)
def test_training_goes_on(stage: int, tmp_path: Path, cli: Run) -> None:
    model, optimizer = trained()
    save_zero(tmp_path / "run" / "global_step3", model, optimizer, stage=stage, world=3)
    (tmp_path / "run" / "latest").write_text("global_step3\n")
    assert cli("filter", "run", "-o", "out.pth")[0] == 0
    saved = torch.load("out.pth", weights_only=True)
    assert list(saved["optimizer"]["state"]) == [
        name for group in saved["optimizer"]["param_groups"] for name in group["params"]
    ]
    assert saved["epoch"] == 5
    resumed = Tiny()
    resumed.load_state_dict(saved["fp32"], strict=True)
    its_optimizer = optimizer_of(resumed)
    its_optimizer.load_state_dict(saved["optimizer"])
    train(model, optimizer, 2, seed=9)
    train(resumed, its_optimizer, 2, seed=9)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), resumed.parameters(), strict=True))
    # tied parameters stay one tensor
    assert saved["fp32"]["out.weight"].data_ptr() == saved["fp32"]["embed.weight"].data_ptr()


@pytest.mark.parametrize("stage", STAGES)
def test_into_a_live_model(stage: int, tmp_path: Path, cli: Run) -> None:
    model, optimizer = trained()
    folder = save_zero(tmp_path / "run", model, optimizer, stage=stage, world=3)
    live = Tiny()
    report = ckptool.load_into(live, str(folder))
    assert (report.missing, report.unexpected) == ((), ())
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), live.state_dict().values(), strict=True))
    torch.save(Tiny().state_dict(), "target.pth")
    assert cli("transplant", "run", "--into", "target.pth", "-o", "out.pth")[0] == 0
    assert torch.equal(torch.load("out.pth")["embed.weight"], model.embed.weight)
    assert cli("merge", "run", "run", "--method", "linear", "-o", "mean.safetensors")[0] == 0
    assert torch.equal(weights(Path("mean.safetensors"))["embed.weight"], model.embed.weight)


def test_the_optimizer_follows_its_parameters(tmp_path: Path, cli: Run) -> None:
    model, optimizer = trained()
    save_zero(tmp_path / "run", model, optimizer, stage=2, world=2)
    assert cli("remap", "run", "-r", "body. -> backbone.", "-r", "scale -> !", "-o", "out.pth")[0] == 0
    state = torch.load("out.pth", weights_only=True)["optimizer"]["state"]
    assert "scale" not in state
    name = "body.0.weight"
    own = dict(model.named_parameters())[name]
    assert torch.equal(state["backbone.0.weight"]["exp_avg"], optimizer.state[own]["exp_avg"])


@pytest.mark.parametrize("stage", STAGES)
def test_frozen_parameters(stage: int, tmp_path: Path) -> None:
    model, optimizer = trained(frozen=True)
    folder = save_zero(tmp_path / "a", model, optimizer, stage=stage, world=2)
    found, expected = weights(folder), model.state_dict()["body.0.weight"]
    if stage != 3:
        expected = expected.bfloat16()
        assert open_checkpoint(folder)["body.0.weight"].dtype == "bfloat16"
        assert torch.equal(found["body.0.weight"], expected.float())
    else:
        assert torch.equal(found["body.0.weight"], expected)


def test_the_sixteen_bit_weights(tmp_path: Path) -> None:
    model, optimizer = trained()
    folder = save_zero(tmp_path / "a", model, optimizer, stage=2, world=2)
    checkpoint = open_checkpoint(folder, "module")
    assert checkpoint["embed.weight"].dtype == "bfloat16"
    assert "module" in open_checkpoint(folder).selection.others
    for path in folder.glob("*optim*"):
        path.unlink()
    assert open_checkpoint(folder)["embed.weight"].dtype == "bfloat16"


# ------------------------------------------------------------------------------------------------- what is refused


def refused(path: Path) -> CkptError:
    with pytest.raises(CkptError) as found:
        open_checkpoint(path)
    assert "\n" not in found.value.message
    return found.value


def rank_file(folder: Path, rank: int, kind: str = "optim") -> Path:
    (path,) = folder.glob(f"*zero_pp_rank_{rank}_*{kind}_states.pt")
    return path


def edit(path: Path, change: Any) -> None:
    held = torch.load(path, weights_only=False)
    change(held)
    torch.save(held, path)


@pytest.fixture(params=STAGES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    model, optimizer = trained()
    return save_zero(tmp_path / "tag", model, optimizer, stage=request.param, world=4)


def is_three(folder: Path) -> bool:
    return bool([*folder.glob("zero_pp_rank_0_*model*")])


def test_a_missing_rank(folder: Path, cli: Run) -> None:
    for rank in (0, 2, 3):
        path = rank_file(folder, rank)
        path.rename(folder.parent / "kept")
        error = refused(folder)
        assert f"rank {rank} of 4 is missing" in error.message
        assert path.name in error.message
        code, _, said = cli("filter", str(folder), "-o", "out.pth")
        assert code == 2
        assert path.name in said
        assert not Path("out.pth").exists()
        (folder.parent / "kept").rename(path)
    if is_three(folder):
        rank_file(folder, 3, "model").unlink()
        assert "zero_pp_rank_3_mp_rank_00_model_states.pt" in refused(folder).message


def test_ranks_of_different_steps(folder: Path) -> None:
    def later(held: Any) -> None:
        state = held["optimizer_state_dict"]
        base = state.get("optimizer_state_dict") or state["base_optimizer_state"]
        for each in base["state"].values():
            each["step"] += 1

    edit(rank_file(folder, 1), later)
    error = refused(folder)
    assert "step" in error.message
    assert "has 3" in error.message
    assert "has 4" in error.message
    assert rank_file(folder, 1).name in error.message


def test_ranks_of_different_learning_rates(folder: Path) -> None:
    def other(held: Any) -> None:
        state = held["optimizer_state_dict"]
        base = state.get("optimizer_state_dict") or state["base_optimizer_state"]
        base["param_groups"][0]["lr"] = 0.5

    edit(rank_file(folder, 2), other)
    assert "lr" in refused(folder).message


def test_ranks_of_different_worlds(folder: Path, tmp_path: Path) -> None:
    model, optimizer = trained()
    stage = 3 if is_three(folder) else 1
    other = save_zero(tmp_path / "other", model, optimizer, stage=stage, world=5)
    shutil.copy(rank_file(other, 4), folder)
    error = refused(folder)
    assert "number of partitions" in error.message or "4 ranks" in error.message or "rank 4" in error.message
    rank_file(folder, 4).unlink()
    shutil.copy(rank_file(other, 1), rank_file(folder, 1))
    assert rank_file(folder, 1).name in refused(folder).message


def test_a_truncated_file(folder: Path) -> None:
    path = rank_file(folder, 1)
    data = path.read_bytes()
    for size in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        error = refused(folder)
        assert path.name in error.message
        assert "rank 1" in error.message


def test_a_short_partition(folder: Path) -> None:
    def cut(held: Any) -> None:
        state = held["optimizer_state_dict"]
        name = "fp32_flat_groups" if "fp32_flat_groups" in state else "single_partition_of_fp32_groups"
        state[name][0] = state[name][0][:-5].clone()

    edit(rank_file(folder, 1), cut)
    error = refused(folder)
    assert rank_file(folder, 1).name in error.message or "elements" in error.message


def test_a_shape_beyond_everything(folder: Path) -> None:
    def claim(held: Any) -> None:
        held["param_shapes"][0]["body.0.weight"] = torch.Size((2**30, 2**30))

    for path in folder.glob("*model_states.pt"):
        edit(path, claim)
    error = refused(folder)
    assert error.key == "body.0.weight"


def test_surplus(folder: Path) -> None:
    def forget(held: Any) -> None:
        del held["param_shapes"][0]["embed.weight"]

    for path in folder.glob("*model_states.pt"):
        edit(path, forget)
    assert "elements" in refused(folder).message


def test_parameters_in_another_order(folder: Path) -> None:
    def turn(held: Any) -> None:
        first = held["param_shapes"][0]
        held["param_shapes"][0] = OrderedDict(reversed(first.items()))

    if is_three(folder):
        edit(rank_file(folder, 2, "model"), turn)
        assert "other parameters" in refused(folder).message


def test_what_latest_names(folder: Path, tmp_path: Path) -> None:
    latest = tmp_path / "latest"
    latest.write_text("tag")
    assert len(open_checkpoint(tmp_path)) == len(open_checkpoint(folder))
    for text in ("../tag", "", ".", "a/b", "nowhere"):
        latest.write_text(text)
        assert "latest" in refused(tmp_path).message
    latest.unlink()
    shutil.copytree(folder, tmp_path / "global_step9")
    (tmp_path / "zero_to_fp32.py").write_text("raise SystemExit(1)")
    assert "global_step9" in refused(tmp_path).message


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("mp_rank_01_model_states.pt", "model-parallel"),
        ("layer_0_expert_3_mp_rank_00_model_states.pt", "experts"),
        ("layer_01-model_00-model_states.pt", "pipeline"),
    ],
)
def test_more_than_data_parallel(name: str, word: str, tmp_path: Path) -> None:
    model, optimizer = trained()
    folder = save_zero(tmp_path / "tag", model, optimizer, stage=1, world=2)
    shutil.copy(folder / "mp_rank_00_model_states.pt", folder / name)
    assert word in refused(folder).message


def test_a_placeholder_leads_to_the_values(tmp_path: Path, cli: Run) -> None:
    model, optimizer = trained()
    run = tmp_path / "checkpoint-3"
    save_zero(run / "global_step3", model, optimizer, stage=3, world=2)
    (run / "latest").write_text("global_step3")
    torch.save({key: torch.empty(0) for key in model.state_dict()}, run / "pytorch_model.bin")
    for source in ("checkpoint-3", "checkpoint-3/global_step3/zero_pp_rank_1_mp_rank_00_model_states.pt"):
        code, _, said = cli("filter", source, "-o", "out.safetensors")
        assert code == 2
        assert "checkpoint-3/global_step3" in said
        assert not Path("out.safetensors").exists()
    (run / "pytorch_model.bin").unlink()
    assert cli("filter", "checkpoint-3", "-o", "out.safetensors")[0] == 0


def test_whole_weights_come_first(tmp_path: Path, cli: Run) -> None:
    model, optimizer = trained()
    run = tmp_path / "checkpoint-3"
    save_zero(run / "global_step3", model, optimizer, stage=2, world=2)
    (run / "latest").write_text("global_step3")
    torch.save(model.state_dict(), run / "pytorch_model.bin")
    code, text, _ = cli("inspect", "checkpoint-3")
    assert code == 0
    assert "global_step3" in text
    assert open_checkpoint(run).ranks is None


def test_check_holds_both_weights_against_each_other(tmp_path: Path, cli: Run) -> None:
    model, optimizer = trained()
    folder = save_zero(tmp_path / "tag", model, optimizer, stage=2, world=2)
    assert cli("check", str(folder), "--rule", "ranks")[0] == 0
    train(model, optimizer, 1, seed=4)
    other = save_zero(tmp_path / "other", model, optimizer, stage=2, world=2)
    shutil.copy(other / "mp_rank_00_model_states.pt", folder)
    code, text, _ = cli("check", str(folder), "--rule", "ranks")
    assert code == 1
    assert "embed.weight" in text


def test_older_files(tmp_path: Path) -> None:
    """One dict of shapes, numbers where later versions have lists, a class for the stage, padding at the end."""
    model, optimizer = trained()
    folder = save_zero(tmp_path / "tag", model, optimizer, stage=2, world=3, prefix="")

    def older(held: Any) -> None:
        held["param_shapes"] = held["param_shapes"][0]
        for key in ("dp_world_size", "ds_version", "frozen_param_shapes", "frozen_param_fragments"):
            del held[key]

    def padded(held: Any) -> None:
        state = held["optimizer_state_dict"]
        base = state["base_optimizer_state"]
        flat = state["single_partition_of_fp32_groups"][0]
        size = base["state"][0]["exp_avg"].numel()
        state["single_partition_of_fp32_groups"] = [torch.cat([flat, flat.new_zeros(size - flat.numel())])]
        base["state"] = {0: base["state"][0]}
        base["param_groups"] = base["param_groups"][:1]
        state["partition_count"] = 3

    edit(folder / "mp_rank_00_model_states.pt", older)
    for rank in range(3):
        edit(rank_file(folder, rank), padded)
    found = weights(folder)
    decayed = [name for name, p in model.named_parameters() if p.dim() > 1]
    assert all(torch.equal(found[name], model.state_dict()[name]) for name in decayed)


# ------------------------------------------------------------------------------------------------- any sizes


@given(
    shapes=st.lists(st.lists(st.integers(0, 7), max_size=3), min_size=1, max_size=9),
    world=st.integers(1, 9),
    stage=st.sampled_from(STAGES),
)
def test_any_shapes(shapes: list[list[int]], world: int, stage: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    parameters = {
        f"p{n}": nn.Parameter(torch.randn(*shape) if shape else torch.randn(())) for n, shape in enumerate(shapes)
    }
    optimizer = torch.optim.AdamW(parameters.values())
    for p in parameters.values():
        p.grad = torch.ones_like(p)
    optimizer.step()
    folder = tmp_path_factory.mktemp("any")
    ranks = []
    for rank in range(world):
        torch.save({"optimizer_state_dict": partition([parameters], optimizer, stage, rank, world)}, folder / str(rank))
        file: RankFile = read_rank(locate_file(folder / str(rank)), f"rank {rank}")
        ranks.append(read_partition(file, rank))
    whole = Partitions(folder, ranks, [{name: tuple(p.shape) for name, p in parameters.items()}])
    with Reader() as reader:
        for name, p in parameters.items():
            for field, expected in (("", p.detach()), ("exp_avg_sq", optimizer.state[p]["exp_avg_sq"])):
                tensor = whole.tensor(name, field)
                assert tensor is not None
                assert tensor.shape == tuple(p.shape)
                assert reader.read_bytes(tensor) == expected.numpy().tobytes()
