"""merge: what comes from where, what does not line up, what is said; written and read by torch and safetensors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FIXTURES
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import ckptool
from ckptool.commands.consult import consulted
from ckptool.commands.merging.merge import last_checkpoints, plan_merge
from ckptool.core.errors import PlanError, UsageError
from ckptool.core.plan import Plan
from ckptool.core.reasons import Mixed, NotTaken, Unmixed
from ckptool.report.reasons import reason_text
from tests.bench.files import write_sparse
from tests.bench.harness import measure
from tests.writing import apply

T = torch.Tensor
MB = 1_000_000


def write(path: Path, state: object) -> Path:
    if path.suffix == ".safetensors":
        assert isinstance(state, dict)
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


def planned(*paths: Path, base: Path | None = None, **options: Any) -> Plan:
    return plan_merge(
        [ckptool.open(path) for path in paths], base=None if base is None else ckptool.open(base), **options
    )


def run(plan: Plan, out: Path) -> dict[str, Any]:
    apply(plan, out, force=True)
    return load_file(out) if out.suffix == ".safetensors" else torch.load(out, weights_only=False)


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))


# ------------------------------------------------------------------------------------------------------- union


def test_union_is_what_update_does(tmp_path: Path) -> None:
    states = [{"a": torch.ones(2), "b": torch.ones(3)}, {"b": torch.zeros(3), "c": torch.ones(4)}, {"b": torch.ones(1)}]
    paths = [write(tmp_path / f"{n}.safetensors", state) for n, state in enumerate(states)]
    plan = planned(*paths)
    expected: dict[str, T] = {}
    for state in states:
        expected.update(state)
    found = run(plan, tmp_path / "out.safetensors")
    assert list(found) == list(expected)
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
    assert [reason_text(step.reason, plan.inputs) for step in plan.steps] == [
        "only in 0.safetensors",
        "from 2.safetensors, replaces 0.safetensors (f32[3]), 1.safetensors (f32[3])",
        "only in 1.safetensors",
    ]
    assert [(item.source.input, item.source.key, reason_text(item.reason, plan.inputs)) for item in plan.dropped] == [
        (0, "b", "replaced by 2.safetensors"),
        (1, "b", "replaced by 2.safetensors"),
    ]
    (note,) = plan.notes
    assert note.text == "1 key replaced by a tensor of another shape"


def test_union_keeps_the_frame_of_the_first_and_says_what_is_left_of_the_others(tmp_path: Path) -> None:
    model, other = net(), net()
    first = write(tmp_path / "a.pth", {"epoch": 3, "state_dict": model.state_dict(), "lr": 0.1})
    second = write(tmp_path / "b.pth", {"state_dict": other.state_dict(), "epoch": 9, "optimizer": {"state": {}}})
    plan = planned(first, second)
    found = run(plan, tmp_path / "out.pth")
    assert list(found) == ["epoch", "state_dict", "lr"]
    assert (found["epoch"], found["lr"]) == (3, 0.1)
    assert found["state_dict"]._metadata["1"] == {"version": 2}
    model.load_state_dict(found["state_dict"])
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in other.state_dict().items())
    assert [beside.name for beside in plan.beside] == ["epoch", "optimizer"]
    assert {(beside.input, beside.reason) for beside in plan.beside} == {(1, NotTaken())}


def test_union_across_formats(tmp_path: Path) -> None:
    states = [{"a": torch.ones(2)}, {"b": torch.zeros(3, dtype=torch.bfloat16)}]
    first, second = write(tmp_path / "a.safetensors", states[0]), write(tmp_path / "b.pth", states[1])
    for out in ("out.safetensors", "out.pth"):
        for paths in ((first, second), (second, first)):
            found = run(planned(*paths), tmp_path / out)
            assert torch.equal(found["a"], states[0]["a"])
            assert torch.equal(found["b"], states[1]["b"])


def test_union_casts_floats_only(tmp_path: Path) -> None:
    first = write(tmp_path / "a.safetensors", {"w": torch.rand(3), "n": torch.arange(3)})
    second = write(tmp_path / "b.safetensors", {"v": torch.rand(3).half()})
    found = run(planned(first, second, dtype="bf16"), tmp_path / "out.safetensors")
    assert {key: tensor.dtype for key, tensor in found.items()} == {
        "w": torch.bfloat16,
        "n": torch.int64,
        "v": torch.bfloat16,
    }


def test_union_with_wrapped_keys_says_how_to_unwrap(tmp_path: Path) -> None:
    first = write(tmp_path / "a.safetensors", {"fc.weight": torch.ones(2)})
    second = write(tmp_path / "b.safetensors", {"module.fc.weight": torch.zeros(2)})
    (note,) = planned(first, second).notes
    assert note.level == "warning"
    assert note.keys == ("module.fc.weight",)
    assert "-r strip-wrappers" in note.hint
    assert not planned(first, first).notes


def test_metadata_of_all_inputs_is_kept(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors", metadata={"format": "pt", "by": "me"})
    save_file({"b": torch.ones(1)}, tmp_path / "b.safetensors", metadata={"by": "you"})
    run(planned(tmp_path / "a.safetensors", tmp_path / "b.safetensors"), tmp_path / "out.safetensors")
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "by": "you"}


def test_inputs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "model.pth", {"w": torch.ones(1)})
    plan = planned(tmp_path / "x/model.pth", tmp_path / "y/model.pth")
    (step,) = plan.steps
    assert reason_text(step.reason, plan.inputs) == f"from {tmp_path}/y/model.pth, replaces {tmp_path}/x/model.pth"


# ----------------------------------------------------------------------------------------------------- methods


def test_mismatched_keys_are_listed(tmp_path: Path) -> None:
    a = write(tmp_path / "a.safetensors", {"same": torch.ones(2), "wide": torch.ones(3), "only": torch.ones(1)})
    b = write(tmp_path / "b.safetensors", {"same": torch.zeros(2), "wide": torch.ones(4)})
    plan = planned(a, b, method="linear")
    (problem,) = plan.problems
    assert problem.message.startswith("2 keys do not line up: ")
    assert set(problem.keys) == {
        "only: a.safetensors f32[1], b.safetensors absent",
        "wide: a.safetensors f32[3], b.safetensors f32[4]",
    }
    assert "--intersect" in problem.hint
    with pytest.raises(PlanError, match="do not line up"):
        apply(plan, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()

    common = planned(a, b, method="linear", keys="intersect")
    assert {key: tensor.tolist() for key, tensor in run(common, tmp_path / "out.safetensors").items()} == {
        "same": [0.5, 0.5]
    }
    dropped = {(item.source.input, item.source.key) for item in common.dropped}
    assert dropped == {(0, "wide"), (1, "wide"), (0, "only")}

    union = planned(a, b, method="linear", keys="union")
    found = run(union, tmp_path / "out.safetensors")
    assert {key: tuple(tensor.shape) for key, tensor in found.items()} == {"same": (2,), "wide": (3,), "only": (1,)}
    assert [(item.source.input, item.source.key) for item in union.dropped] == [(1, "wide")]
    whys = {step.target.key: reason_text(step.reason, union.inputs) for step in union.steps}
    assert whys["only"] == "from a.safetensors (not in every input)"


def test_union_of_three_mixes_those_that_have_a_key(tmp_path: Path) -> None:
    states = [
        {"w": torch.ones(2)},
        {"w": torch.zeros(2), "v": torch.ones(1)},
        {"w": torch.ones(2), "v": torch.zeros(1)},
    ]
    paths = [write(tmp_path / f"{n}.safetensors", state) for n, state in enumerate(states)]
    plan = planned(*paths, method="linear", weights=[1, 2, 6], keys="union")
    found = run(plan, tmp_path / "out.safetensors")
    assert found["v"].tolist() == [0.25]
    assert plan.steps[1].reason == Mixed("linear(2, 6)", partial=True)
    with pytest.raises(UsageError, match="sum to 0"):
        planned(*paths, method="linear", weights=[1, 2, -2], keys="union")


def test_wrapped_keys_get_their_hint(tmp_path: Path) -> None:
    a = write(tmp_path / "a.pth", {"fc.weight": torch.ones(2)})
    b = write(tmp_path / "b.pth", {"module.fc.weight": torch.ones(2)})
    (problem,) = planned(a, b, method="linear").problems
    assert problem.hint == f"ckptool remap {b} -r strip-wrappers -o plain.pth"


def test_base_that_lacks_or_adds_keys(tmp_path: Path) -> None:
    a = write(tmp_path / "a.pth", {"w": torch.tensor([3.0]), "new": torch.tensor([1.0])})
    base = write(tmp_path / "base.pth", {"w": torch.tensor([1.0]), "old": torch.tensor([7.0])})
    (problem,) = planned(a, base=base, method="task-arithmetic").problems
    assert problem.keys == ("new: a.pth f32[1], base.pth absent", "old: a.pth absent, base.pth f32[1]")
    common = run(planned(a, base=base, method="task-arithmetic", keys="intersect"), tmp_path / "out.pth")
    assert set(common) == {"w"}
    union = run(planned(a, base=base, method="task-arithmetic", keys="union"), tmp_path / "out.pth")
    assert {key: tensor.item() for key, tensor in union.items()} == {"w": 3.0, "new": 1.0, "old": 7.0}


def test_integers_come_from_the_first_and_it_is_said_where_they_differ(tmp_path: Path) -> None:
    first, second = net(), net()
    second[1].num_batches_tracked += 5
    paths = [write(tmp_path / f"{n}.pth", model.state_dict()) for n, model in enumerate((first, second))]
    plan = planned(*paths, method="linear")
    found = run(plan, tmp_path / "out.pth")
    assert found["1.num_batches_tracked"].item() == 0
    whys = {step.target.key: reason_text(step.reason, plan.inputs) for step in plan.steps}
    assert whys["1.num_batches_tracked"] == "from 0.pth (integers are never averaged)"
    assert [note.keys for note in plan.notes] == [("1.num_batches_tracked",)]
    (averaged,) = [note for note in consulted(plan).notes if note not in plan.notes]
    assert (averaged.keys, averaged.level) == (("1.running_mean", "1.running_var"), "warning")
    assert "update_bn" in averaged.hint
    assert planned(paths[0], paths[0], method="linear").notes == ()
    net().load_state_dict(found)  # with the module versions that BatchNorm wants


@pytest.mark.parametrize("dtype", [torch.bool, torch.complex64, torch.uint8])
def test_what_has_no_mean_comes_from_the_first(dtype: torch.dtype, tmp_path: Path) -> None:
    states = [{"x": torch.ones(3, dtype=dtype)}, {"x": torch.zeros(3, dtype=dtype)}]
    paths = [write(tmp_path / f"{n}.pth", state) for n, state in enumerate(states)]
    plan = planned(*paths, method="linear")
    assert torch.equal(run(plan, tmp_path / "out.pth")["x"], states[0]["x"])
    assert isinstance(plan.steps[0].reason, Unmixed)
    assert plan.notes[0].keys == ("x",)


def test_sparse_tensors_come_from_the_first(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pth", {"x": torch.eye(3).to_sparse(), "w": torch.ones(2)})
    plan = planned(path, path, method="linear")
    assert plan.steps[0].reason == Unmixed(0, "sparse")
    found = run(plan, tmp_path / "out.pth")
    assert torch.equal(found["x"].to_dense(), torch.eye(3))


def test_dtypes_are_the_first_inputs_and_it_is_said_where_they_differ(tmp_path: Path) -> None:
    first = write(tmp_path / "a.safetensors", {"w": torch.ones(3, dtype=torch.bfloat16), "v": torch.ones(1)})
    second = write(tmp_path / "b.safetensors", {"w": torch.full((3,), 1.01), "v": torch.ones(1)})
    plan = planned(first, second, method="linear")
    found = run(plan, tmp_path / "out.safetensors")
    assert torch.equal(found["w"], ((1 + torch.full((3,), 1.01).double()) / 2).bfloat16())
    (note,) = plan.notes
    assert note.keys == ("w",)
    wide = run(planned(first, second, method="linear", dtype="f64"), tmp_path / "out.safetensors")
    assert torch.equal(wide["w"], (1 + torch.full((3,), 1.01).double()) / 2)


def test_tied_tensors_stay_tied_if_they_are_in_every_input(tmp_path: Path) -> None:
    paths = []
    for number in range(3):
        table, alone = torch.rand(5, 4), torch.rand(5, 4)
        tied = {"embed": table, "head": table, "other": table if number < 2 else alone}
        paths.append(write(tmp_path / f"{number}.pth", tied))
    plan = planned(*paths, method="linear")
    assert [step.tied_to for step in plan.steps] == [None, "embed", None]
    found = run(plan, tmp_path / "out.pth")
    assert found["embed"].data_ptr() == found["head"].data_ptr() != found["other"].data_ptr()
    cloned = run(plan, tmp_path / "out.safetensors")
    assert torch.equal(cloned["embed"], cloned["head"])
    apply(plan, tmp_path / "first.safetensors", tied="keep-first")
    assert set(load_file(tmp_path / "first.safetensors")) == {"embed", "other"}


def test_views_and_transposes_are_read_as_they_mean(tmp_path: Path) -> None:
    storage = torch.rand(6, 8)
    first = write(tmp_path / "a.pth", {"w": storage.T, "v": storage[1:3, ::2]})
    second = write(tmp_path / "b.pth", {"w": torch.ones(8, 6), "v": torch.ones(2, 4)})
    for method in ("linear", "slerp"):
        found = run(planned(first, second, method=method), tmp_path / "out.pth")
        assert found["w"].is_contiguous()
        mean = (storage.T + 1) / 2
        assert torch.allclose(found["w"], mean) is (method == "linear")
        if method == "linear":
            assert torch.allclose(found["v"], (storage[1:3, ::2] + 1) / 2)


def test_what_lies_beside_the_weights_is_left_behind_and_said(tmp_path: Path) -> None:
    states = [{"state_dict": net().state_dict(), "epoch": n, "hparams": {"lr": 0.1}} for n in range(2)]
    paths = [write(tmp_path / f"{n}.ckpt", state) for n, state in enumerate(states)]
    plan = planned(*paths, method="linear")
    assert [(beside.input, beside.name) for beside in plan.beside] == [
        (0, "epoch"),
        (0, "hparams"),
        (1, "epoch"),
        (1, "hparams"),
    ]
    found = run(plan, tmp_path / "out.ckpt")
    assert list(found) == list(net().state_dict())
    assert found._metadata["1"] == {"version": 2}


def test_the_moving_average_that_a_training_loop_would_keep(tmp_path: Path) -> None:
    models = [net() for _ in range(5)]
    average = torch.optim.swa_utils.AveragedModel(
        models[0], multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    )
    paths = []
    for number, model in enumerate(models):
        average.update_parameters(model)
        paths.append(write(tmp_path / f"step-{number}.pth", model.state_dict()))
    found = run(planned(*paths, method="ema", params={"decay": 0.9}), tmp_path / "out.pth")
    for key, tensor in average.module.named_parameters():
        assert torch.allclose(found[key], tensor, atol=1e-6), key


def test_shards_can_be_merged(tmp_path: Path) -> None:
    whole, shards = FIXTURES / "resnet18.pth", FIXTURES / "shards"
    found = run(planned(whole, shards, method="linear"), tmp_path / "out.safetensors")
    expected = torch.load(whole, weights_only=True)
    expected = expected.get("state_dict", expected.get("model", expected))
    assert set(found) == set(expected)
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


def test_last_checkpoints_in_natural_order() -> None:
    paths = [f"run/step-{number}.pth" for number in (1000, 200, 90, 1100)]
    assert last_checkpoints(paths, 2) == ["run/step-1000.pth", "run/step-1100.pth"]
    assert last_checkpoints(paths, 4)[0] == "run/step-90.pth"
    for count in (0, -1, 5):
        with pytest.raises(UsageError, match=f"the last {count} of 4"):
            last_checkpoints(paths, count)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": [1.0]}, "--weights needs a --method"),
        ({"params": {"t": 1.0}}, "--param needs a --method"),
        ({"base": FIXTURES / "resnet18.pth"}, "--base needs a --method"),
        ({"dtype": "int8"}, "not a float dtype"),
        ({"method": "mean"}, "not a merge method"),
    ],
)
def test_requests_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        planned(FIXTURES / "resnet18.pth", FIXTURES / "resnet18.pth", **options)


def test_nothing_to_merge() -> None:
    with pytest.raises(UsageError, match="nothing to merge"):
        plan_merge([])


# ------------------------------------------------------------------------------------------------------- cost

MERGE = """
import sys, ckptool
from ckptool.api.plan import Plan
apply = lambda plan, out, **options: Plan.of(plan).apply(out, **options)
from ckptool.commands.merging.merge import plan_merge
*paths, method, out = sys.argv[1:]
opened = [ckptool.open(path) for path in paths]
base = opened.pop() if method in ("ties", "dare-linear", "model-stock") else None
apply(plan_merge(opened, method=None if method == "union" else method, base=base), out)
assert "torch" not in sys.modules
"""


def test_union_needs_no_numpy(tmp_path: Path) -> None:
    code = MERGE + "assert 'numpy' not in sys.modules"
    path = FIXTURES / "resnet18.pth"
    subprocess.run([sys.executable, "-c", code, path, path, "union", tmp_path / "out.pth"], check=True)


def private_memory(method: str, nbytes: int, folder: Path) -> int:
    """Merge files of one tensor each (holes, so that nothing is on the disk but the output)."""
    paths = [folder / f"{number}.safetensors" for number in range(2 if method in ("linear", "slerp") else 3)]
    for path in paths:
        write_sparse(path, nbytes, tensors=1)
    command = [sys.executable, "-c", MERGE, *map(str, paths), method, str(folder / "out.safetensors")]
    measured = measure(command, poll=True)
    assert measured.code == 0, measured.output
    return measured.peak_private


@pytest.mark.parametrize("method", ["linear", "slerp", "ties", "dare-linear", "model-stock"])
def test_memory_does_not_hold_a_tensor(method: str, tmp_path: Path) -> None:
    assert private_memory(method, 100 * MB, tmp_path) < 100 * MB  # one tensor in float64 would be 400 MB


@pytest.mark.slow
def test_memory_does_not_grow_with_the_tensors(tmp_path: Path) -> None:
    assert private_memory("linear", 500 * MB, tmp_path) < 100 * MB
