"""Files of single ranks: DTensors by placements, Meta's and Megatron's files by names, torchsnapshot's by offsets."""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import re
import shutil
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from console import Run, runner
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.distributed.tensor.placement_types import _StridedShard
from torch.testing._internal.distributed.fake_pg import FakeStore

from ckptool.core.errors import CkptError
from ckptool.engine.reading import Reader
from ckptool.facts.registry import facts_of
from ckptool.formats.opening import open_checkpoint

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(tmp_path, monkeypatch, capsys)


@contextmanager
def as_rank(rank: int, world: int) -> Iterator[None]:
    """One rank of a group whose other ranks do not exist."""
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world)
    try:
        yield
    finally:
        dist.destroy_process_group()


def distributed(whole: torch.Tensor, mesh: Any, placements: Sequence[Placement]) -> DTensor:
    """The rank's DTensor of a tensor; torch itself says which part it has."""
    shape, offset = compute_local_shape_and_global_offset(whole.shape, mesh, list(placements))
    place = tuple(slice(at, at + size) for at, size in zip(offset, shape, strict=True))
    return DTensor.from_local(
        whole[place].clone(), mesh, list(placements), run_check=False, shape=whole.shape, stride=whole.stride()
    )


State = Callable[[Any, int], object]


def save_ranks(folder: Path, mesh_shape: tuple[int, ...], state: State, name: str = "model_rank_{}.pt") -> Path:
    """What every rank of a mesh saves."""
    folder.mkdir(exist_ok=True)
    world = 1
    for size in mesh_shape:
        world *= size
    for rank in range(world):
        with as_rank(rank, world):
            names = ("dp", "tp", "pp")[: len(mesh_shape)]
            mesh = init_device_mesh("cpu", mesh_shape, mesh_dim_names=names)
            torch.save(state(mesh, rank), folder / name.format(rank))
    return folder


def read(path: Path) -> dict[str, bytes]:
    with Reader() as reader:
        return {key: reader.read_bytes(tensor) for key, tensor in open_checkpoint(path).items()}


def raw(tensors: dict[str, torch.Tensor]) -> dict[str, bytes]:
    return {key: bytes(value.contiguous().reshape(-1).view(torch.uint8).numpy()) for key, value in tensors.items()}


def refused(path: Path) -> CkptError:
    with pytest.raises(CkptError) as found:
        open_checkpoint(path)
    assert "\n" not in found.value.message
    return found.value


# ------------------------------------------------------------------------------------------------- DTensors

WHOLE = {
    "a": torch.arange(55.0).reshape(11, 5),
    "b": torch.arange(7, dtype=torch.bfloat16),
    "c": torch.arange(48).reshape(2, 6, 4),
    "d": torch.arange(3.0).reshape(1, 3),
}
LAYOUTS: list[tuple[tuple[int, ...], tuple[Placement, ...]]] = [
    ((1,), (Shard(0),)),
    ((3,), (Shard(0),)),
    ((5,), (Shard(0),)),
    ((4,), (Replicate(),)),
    ((2, 3), (Replicate(), Shard(0))),
    ((3, 2), (Shard(0), Replicate())),
    ((2, 3), (Shard(0), Shard(0))),
    ((3, 2), (Shard(0), Shard(0))),
    ((2, 2, 2), (Shard(0), Replicate(), Shard(0))),
]


@pytest.mark.parametrize(("shape", "placements"), LAYOUTS)
def test_whole_tensors(shape: tuple[int, ...], placements: tuple[Placement, ...], tmp_path: Path) -> None:
    folder = save_ranks(
        tmp_path / "run", shape, lambda mesh, _: {key: distributed(w, mesh, placements) for key, w in WHOLE.items()}
    )
    assert read(folder) == raw(WHOLE)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.ranks is not None
    world = len([*folder.iterdir()])
    assert checkpoint.ranks.count == world
    assert [size for _, size in checkpoint.ranks.mesh] == list(shape)


@pytest.mark.parametrize("axes", [(1, 0), (1, 1), (2, 1), (0, 2)])
def test_two_axes(axes: tuple[int, int], tmp_path: Path) -> None:
    whole = torch.arange(5 * 7 * 6.0).reshape(5, 7, 6)
    folder = save_ranks(
        tmp_path / "run", (2, 3), lambda mesh, _: {"w": distributed(whole, mesh, [Shard(axis) for axis in axes])}
    )
    assert read(folder) == raw({"w": whole})


def test_strided_shards(tmp_path: Path) -> None:
    whole = torch.arange(48.0).reshape(12, 4)

    def state(mesh: Any, rank: int) -> object:
        dp, tp = divmod(rank, 3)
        local = whole.chunk(3)[tp].chunk(2)[dp].clone()  # cut by tp first
        placements = [_StridedShard(0, split_factor=3), Shard(0)]
        return {"w": DTensor.from_local(local, mesh, placements, run_check=False, shape=(12, 4), stride=(4, 1))}

    folder = save_ranks(tmp_path / "run", (2, 3), state)
    assert read(folder) == raw({"w": whole})

    def wrong(mesh: Any, rank: int) -> object:
        dp, tp = divmod(rank, 3)
        placements = [_StridedShard(0, split_factor=2), Shard(0)]
        local = whole.chunk(3)[tp].chunk(2)[dp].clone()
        return {"w": DTensor.from_local(local, mesh, placements, run_check=False, shape=(12, 4), stride=(4, 1))}

    assert "split factor of 2" in refused(save_ranks(tmp_path / "wrong", (2, 3), wrong)).message


def rows(mesh: Any, rank: int) -> dict[str, object]:
    return {"w": distributed(WHOLE["a"], mesh, [Shard(0)]), "scale": torch.tensor(2.0)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_ranks(tmp_path / "run", (4,), rows)


def test_a_missing_rank(folder: Path, cli: Run) -> None:
    for rank in range(4):
        path = folder / f"model_rank_{rank}.pt"
        path.rename(folder.parent / "kept")
        error = refused(folder)
        assert f"rank {rank} of 4 is missing" in error.message
        assert path.name in error.message
        assert error.key == "w"
        assert cli("filter", str(folder), "-o", "out.pth")[0] == 2
        assert not Path("out.pth").exists()
        (folder.parent / "kept").rename(path)
    for rank in (1, 2):
        (folder / f"model_rank_{rank}.pt").unlink()
    assert "ranks 1, 2 of 4 are missing" in refused(folder).message


def test_names_that_count_from_one(tmp_path: Path) -> None:
    folder = save_ranks(tmp_path / "run", (3,), rows)
    for rank in (2, 1, 0):
        (folder / f"model_rank_{rank}.pt").rename(folder / f"model_rank_{rank + 1}.pt")
    assert read(folder)["w"] == raw(WHOLE)["a"]
    (folder / "model_rank_2.pt").unlink()
    assert "model_rank_2.pt" in refused(folder).message


def test_a_missing_copy_is_no_loss(tmp_path: Path) -> None:
    folder = save_ranks(
        tmp_path / "run", (2, 2), lambda mesh, _: {"w": distributed(WHOLE["a"], mesh, [Replicate(), Shard(0)])}
    )
    for rank in (0, 3):
        (folder / f"model_rank_{rank}.pt").unlink()
    assert read(folder) == raw({"w": WHOLE["a"]})
    assert "missing-replicas" in {fact.name for fact in facts_of(open_checkpoint(folder))}
    (folder / "model_rank_1.pt").unlink()
    assert "rank 0 of 4" in refused(folder).message or "ranks 0" in refused(folder).message


def test_copies_that_differ_are_said(tmp_path: Path, cli: Run) -> None:
    def state(mesh: Any, rank: int) -> object:
        return {"w": distributed(WHOLE["a"], mesh, [Shard(0)]), "running_mean": torch.full((3,), float(rank))}

    folder = save_ranks(tmp_path / "run", (2,), state)
    assert read(folder)["running_mean"] == raw({"m": torch.zeros(3)})["m"]
    _, text, _ = cli("filter", str(folder), "-o", "out.pth")
    assert "different copies" in text
    assert torch.load("out.pth", weights_only=True)["running_mean"].tolist() == [0, 0, 0]


def test_files_that_do_not_belong_together(folder: Path, tmp_path: Path) -> None:
    first, second = folder / "model_rank_0.pt", folder / "model_rank_1.pt"
    kept = second.read_bytes()
    shutil.copy(first, second)
    assert "two files are of rank 0" in refused(folder).message
    for shape, change, word in (
        ((5,), rows, "numbers of ranks"),
        ((4,), lambda mesh, rank: {**rows(mesh, rank), "w": distributed(WHOLE["c"], mesh, [Shard(0)])}, "differ in w"),
        ((4,), lambda mesh, rank: {**rows(mesh, rank), "v": distributed(WHOLE["c"], mesh, [Shard(0)])}, "only one of"),
    ):
        other = save_ranks(tmp_path / "other", shape, change)
        shutil.copy(other / "model_rank_1.pt", second)
        error = refused(folder)
        assert word in error.message
        assert second.name in error.message
        shutil.rmtree(other)
    for size in (0, 100, len(kept) - 1):
        second.write_bytes(kept[:size])
        error = refused(folder)
        assert second.name in error.message
        assert "rank 1" in error.message


def test_two_sets_in_one_folder(tmp_path: Path) -> None:
    folder = save_ranks(tmp_path / "run", (2,), rows, "{{a}}_3_rank_{}.pt")
    assert read(folder)["w"] == raw(WHOLE)["a"]
    save_ranks(folder, (2,), rows, "{{a}}_4_rank_{}.pt")
    assert "sets of ranks' files" in refused(folder).message
    for path in folder.glob("*_4_*"):
        path.unlink()
    (folder / "{a}_3_rank_1.pt").unlink()
    assert "rank 1" in refused(folder).message


def test_ranks_of_different_steps(tmp_path: Path) -> None:
    folder = save_ranks(tmp_path / "run", (2,), lambda mesh, rank: {"model": rows(mesh, rank), "step": 7})
    checkpoint = open_checkpoint(folder)
    assert checkpoint.ranks is not None
    assert checkpoint.ranks.step == 7
    other = save_ranks(tmp_path / "other", (2,), lambda mesh, rank: {"model": rows(mesh, rank), "step": 8})
    shutil.copy(other / "model_rank_1.pt", folder)
    error = refused(folder)
    assert "has 7" in error.message
    assert "has 8" in error.message


def test_summands_are_no_values(tmp_path: Path) -> None:
    def state(mesh: Any, rank: int) -> object:
        return {"w": DTensor.from_local(torch.ones(2), mesh, [Partial("sum")], run_check=False)}

    assert "Partial(sum)" in refused(save_ranks(tmp_path / "run", (2,), state)).message


def stage(mesh: Any, rank: int) -> dict[str, object]:
    """Two stages of a pipeline, each of two ranks: further keys, and a buffer, in the second."""
    part = mesh["tp"]
    if rank < 2:
        return {"model": {"embed": distributed(WHOLE["a"], part, [Shard(0)]), "scale": torch.tensor(2.0)}, "step": 4}
    later = {"layers.1.w": distributed(WHOLE["c"], part, [Shard(1)]), "layers.1.mean": torch.arange(3.0)}
    return {"model": {**later, "scale": torch.tensor(2.0)}, "step": 4}


def test_stages_of_a_pipeline(tmp_path: Path, cli: Run) -> None:
    folder = save_ranks(tmp_path / "run", (2, 2), stage)
    whole = {
        "embed": WHOLE["a"],
        "scale": torch.tensor(2.0),
        "layers.1.w": WHOLE["c"],
        "layers.1.mean": torch.arange(3.0),
    }
    assert read(folder) == raw(whole)
    assert cli("filter", str(folder), "-o", "out.pth")[0] == 0
    saved = torch.load("out.pth", weights_only=True)
    assert saved["step"] == 4
    assert {key: value.tolist() for key, value in saved["model"].items()} == {k: v.tolist() for k, v in whole.items()}
    for ranks in ((3,), (2, 3), (0,), (0, 1)):
        for rank in ranks:
            (folder / f"model_rank_{rank}.pt").rename(folder.parent / f"kept{rank}")
        error = refused(folder)
        assert all(f"model_rank_{rank}.pt" in error.message for rank in ranks)
        for rank in ranks:
            (folder.parent / f"kept{rank}").rename(folder / f"model_rank_{rank}.pt")


def test_stages_that_number_their_layers_anew(tmp_path: Path) -> None:
    def state(mesh: Any, rank: int) -> object:
        return {"layers.0.w": distributed(WHOLE["a"] + rank // 2, mesh["tp"], [Shard(0)])}

    error = refused(save_ranks(tmp_path / "run", (2, 2), state))
    assert error.key == "layers.0.w"
    assert "not say that they are copies" in error.message


def test_copies_on_a_part_of_the_mesh(tmp_path: Path) -> None:
    """Tensors that lie on one axis of the mesh alone: the ranks along the other one hold copies."""
    folder = save_ranks(
        tmp_path / "run", (2, 2), lambda mesh, _: {"w": distributed(WHOLE["a"], mesh["tp"], [Shard(0)])}
    )
    assert read(folder) == raw({"w": WHOLE["a"]})
    (folder / "model_rank_3.pt").unlink()
    assert read(folder) == raw({"w": WHOLE["a"]})
    (folder / "model_rank_2.pt").unlink()
    assert "ranks 2, 3 of 4" in refused(folder).message  # they may hold other layers


@pytest.mark.parametrize("lost", ["model", "optim", "extra_state"])
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("size", [None, 50])
def test_a_lost_file_of_several_for_each_rank(tmp_path: Path, lost: str, rank: int, size: int | None, cli: Run) -> None:
    """verl's names: what is left of the others is not taken for the model."""
    folder = save_ranks(tmp_path / "run", (2,), rows, "model_world_size_2_rank_{}.pt")

    def state(mesh: Any, rank: int) -> object:
        group = {"lr": 0.1, "params": [0]}
        return {"state": {0: {"exp_avg": distributed(WHOLE["a"], mesh, [Shard(0)])}}, "param_groups": [group]}

    save_ranks(folder, (2,), state, "optim_world_size_2_rank_{}.pt")
    save_ranks(folder, (2,), lambda mesh, rank: {"epoch": 3}, "extra_state_world_size_2_rank_{}.pt")
    path = folder / f"{lost}_world_size_2_rank_{rank}.pt"
    data = path.read_bytes()
    path.unlink()
    if size is not None:
        path.write_bytes(data[:size])
    if lost == "extra_state" and size is None:  # every rank has the same
        assert {extra.name for extra in open_checkpoint(folder).extras} == {"optimizer", "extra_state"}
        return
    error = refused(folder)
    assert path.name in error.message
    assert cli("filter", str(folder), "-o", "out.pth")[0] == 2
    assert not Path("out.pth").exists()


def test_one_file_alone(folder: Path, cli: Run, tmp_path: Path) -> None:
    one = folder / "model_rank_2.pt"
    code, text, _ = cli("inspect", str(one))
    assert code == 0
    assert "parts" in text
    for command in (["filter"], ["remap", "-r", "w -> v"]):
        code, _, error = cli(command[0], str(one), *command[1:], "-o", "out.pth")
        assert code == 2
        assert str(folder) in " ".join(error.split())
        assert not Path("out.pth").exists()
    (tmp_path / "alone").mkdir()
    shutil.copy(one, tmp_path / "alone" / "model.pt")
    assert "rank 2 of 4; also needed: ranks 0, 1, 3" in refused(tmp_path / "alone").message
    whole = save_ranks(tmp_path / "whole", (1,), rows, "model.pt")
    assert read(whole)["w"] == raw(WHOLE)["a"]


def test_training_goes_on(tmp_path: Path, cli: Run) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)

    def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(torch.arange(12.0).reshape(4, 3)).square().mean().backward()
        optimizer.step()

    step(model, optimizer)

    def state(mesh: Any, rank: int) -> object:
        def spread(value: Any) -> Any:
            return distributed(value.detach(), mesh, [Shard(0)]) if torch.is_tensor(value) and value.dim() else value

        held = optimizer.state_dict()
        held["state"] = {n: {k: spread(v) for k, v in entry.items()} for n, entry in held["state"].items()}
        return {"model": {k: spread(v) for k, v in model.state_dict().items()}, "optimizer": held}

    save_ranks(tmp_path / "run", (3,), state, "ckpt_{}.pt")
    assert cli("filter", "run", "-o", "out.pth")[0] == 0
    saved = torch.load("out.pth", weights_only=True)
    resumed = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2))
    resumed.load_state_dict(saved["model"], strict=True)
    other = torch.optim.AdamW(resumed.parameters(), lr=0.1)
    other.load_state_dict(saved["optimizer"])
    step(model, optimizer)
    step(resumed, other)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), resumed.parameters(), strict=True))


def test_dtensors_of_older_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes where torch 2.0 to 2.4 had them, and a mesh with its ranks in a tensor."""
    import sys
    import types

    def named(module: str, name: str, base: type = object) -> type:
        made = type(name, (base,), {"__module__": module})
        holder = types.ModuleType(module)
        for known, value in vars(sys.modules.get(module, holder)).items():
            setattr(holder, known, value)
        setattr(holder, name, made)
        monkeypatch.setitem(sys.modules, module, holder)
        return made

    module = "torch.distributed._tensor.api"
    tensor_class = named(module, "DTensor")
    spec_class = named("torch.distributed._tensor.placement_types", "DTensorSpec")
    shard_class = named("torch.distributed._tensor.placement_types", "Shard")
    mesh_class = named("torch.distributed._tensor.device_mesh", "DeviceMesh")
    whole = torch.arange(35.0).reshape(7, 5)

    class Old:
        """Pickles as torch's DTensor of then."""

        def __init__(self, rank: int) -> None:
            mesh, spec, shard = mesh_class(), spec_class(), shard_class()
            shard.__dict__.update(dim=0)
            mesh.__dict__.update(
                device_type="cuda", mesh=torch.tensor([4, 5, 6]), mesh_dim_names=None, _coordinate_on_dim=[rank],
                _dim_group_infos=[("", [4, 5, 6])], _flatten_mesh_list=(4, 5, 6),
            )  # fmt: skip
            spec.__dict__.update(mesh=mesh, placements=(shard,), tensor_meta=None)
            self.state = {"_local_tensor": whole.chunk(3)[rank].clone(), "_spec": spec}

        def __reduce__(self) -> tuple[Any, ...]:
            layout, device = torch.serialization._get_layout("torch.strided"), torch.device("cpu")
            args = (tensor_class, torch.float32, (7, 5), (5, 1), 0, layout, device, False)
            rebuild = torch._utils._rebuild_wrapper_subclass
            return torch._tensor._rebuild_from_type_v2, (rebuild, tensor_class, args, (None, self.state))

    folder = tmp_path / "run"
    folder.mkdir()
    for rank in range(3):
        torch.save({"w": Old(rank)}, folder / f"rank{rank}.pt")
    assert read(folder) == raw({"w": whole})
    assert "missing-replicas" not in {fact.name for fact in facts_of(open_checkpoint(folder))}
    (folder / "rank2.pt").unlink()
    error = refused(folder)
    assert error.key == "w"
    assert "rank2.pt" in error.message


# ------------------------------------------------------------------------------------------------- Meta

LLAMA = {
    "tok_embeddings.weight": torch.arange(32.0).reshape(8, 4),
    "layers.0.attention.wq.weight": torch.arange(16.0).reshape(4, 4),
    "layers.0.attention.wo.weight": torch.arange(16.0).reshape(4, 4) + 100,
    "layers.0.feed_forward.w1.weight": torch.arange(24.0).reshape(6, 4),
    "layers.0.feed_forward.w2.weight": torch.arange(24.0).reshape(4, 6),
    "layers.0.attention_norm.weight": torch.arange(4.0),
    "norm.weight": torch.arange(4.0),
    "output.weight": torch.arange(32.0).reshape(8, 4) + 7,
    "rope.freqs": torch.arange(2.0),
}


def save_meta(folder: Path, embedding_axis: int, world: int = 2) -> Path:
    folder.mkdir()
    axes = {"wo": 1, "w2": 1, "tok_embeddings": embedding_axis, "wq": 0, "w1": 0, "output": 0}
    for rank in range(world):
        held = {}
        for key, whole in LLAMA.items():
            axis = axes.get(key.split(".")[-2])
            held[key] = whole if axis is None else whole.chunk(world, axis)[rank].clone()
        torch.save(held, folder / f"consolidated.{rank:02}.pth")
    (folder / "params.json").write_text(json.dumps({"dim": 4, "vocab_size": -1 if embedding_axis else 8}))
    return folder


@pytest.mark.parametrize("axis", [0, 1])
def test_metas_files(axis: int, tmp_path: Path) -> None:
    folder = save_meta(tmp_path / "llama", axis)
    assert read(folder) == raw(LLAMA)
    (folder / "params.json").unlink()
    assert "tok_embeddings" in refused(folder).message
    (folder / "params.json").write_text('{"dim": 4}')
    torch.save(
        {**torch.load(folder / "consolidated.01.pth"), "odd.weight": torch.ones(2)}, folder / "consolidated.01.pth"
    )
    assert "odd.weight" in refused(folder).message
    torch.save(
        {**torch.load(folder / "consolidated.00.pth"), "odd.weight": torch.zeros(2)}, folder / "consolidated.00.pth"
    )
    assert "odd.weight differs" in refused(folder).message
    (folder / "consolidated.00.pth").rename(folder / "consolidated.02.pth")
    assert "consolidated.00.pth" in refused(folder).message


# ------------------------------------------------------------------------------------------------- Megatron

HIDDEN, FFN, VOCABULARY, LAYERS = 4, 6, 8, 4


def megatron() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    model = {"embedding.word_embeddings.weight": torch.randn(VOCABULARY, HIDDEN)}
    for n in range(LAYERS):
        layer = f"decoder.layers.{n}."
        model |= {
            f"{layer}self_attention.linear_proj.weight": torch.randn(HIDDEN, HIDDEN),
            f"{layer}self_attention.linear_proj.bias": torch.randn(HIDDEN),
            f"{layer}self_attention.linear_qkv.layer_norm_weight": torch.randn(HIDDEN),
            f"{layer}self_attention.linear_qkv.weight": torch.randn(3 * HIDDEN, HIDDEN),
            f"{layer}self_attention.linear_qkv.bias": torch.randn(3 * HIDDEN),
            f"{layer}mlp.linear_fc1.weight": torch.randn(2 * FFN, HIDDEN),
            f"{layer}mlp.linear_fc2.weight": torch.randn(HIDDEN, FFN),
        }
    return model | {
        "decoder.final_layernorm.weight": torch.randn(HIDDEN),
        "output_layer.weight": torch.randn(VOCABULARY, HIDDEN),
    }


def save_megatron(folder: Path, tp: int, pp: int, *, swiglu: bool = True, chunks: int = 1) -> dict[str, torch.Tensor]:
    model = megatron()
    args = argparse.Namespace(
        tensor_model_parallel_size=tp, pipeline_model_parallel_size=pp, num_layers=LAYERS, swiglu=swiglu,
        untie_embeddings_and_output_weights=True,
    )  # fmt: skip
    here = LAYERS // (pp * chunks)
    for stage in range(pp):
        for rank in range(tp):
            held: dict[str, Any] = {"iteration": 10, "args": args, "checkpoint_version": 3.0}
            for chunk in range(chunks):
                first = (chunk * pp + stage) * here
                part = OrderedDict()
                for key, whole in model.items():
                    layer = int(key.split(".")[2]) if ".layers." in key else None
                    ends = {"embedding": (0, 0), "output_layer": (pp - 1, chunks - 1), "decoder": (pp - 1, chunks - 1)}
                    if layer is None and ends[key.split(".")[0]] != (stage, chunk):
                        continue
                    if layer is not None and not first <= layer < first + here:
                        continue
                    name = key if layer is None else key.replace(f"layers.{layer}.", f"layers.{layer - first}.")
                    part[name] = shard_of(key, whole, rank, tp, swiglu)
                part["decoder._extra_state"] = None
                held[f"model{chunk}" if chunks > 1 else "model"] = part
            name = f"mp_rank_{rank:02}" + (f"_{stage:03}" if pp > 1 else "")
            (folder / name).mkdir(parents=True)
            torch.save(held, folder / name / "model_optim_rng.pt")
    return model


def shard_of(key: str, whole: torch.Tensor, rank: int, tp: int, swiglu: bool) -> torch.Tensor:
    if "layer_norm" in key or "layernorm" in key or key.endswith("linear_proj.bias"):
        return whole
    if key.endswith(("linear_proj.weight", "linear_fc2.weight")):
        return whole.chunk(tp, 1)[rank].clone()
    if "linear_fc1" in key and swiglu:
        return torch.cat([half.chunk(tp)[rank] for half in whole.chunk(2)])
    return whole.chunk(tp)[rank].clone()


@pytest.mark.parametrize(("tp", "pp", "chunks"), [(1, 2, 1), (2, 1, 1), (2, 2, 1), (2, 2, 2), (1, 1, 1)])
@pytest.mark.parametrize("swiglu", [True, False])
def test_megatrons_files(tp: int, pp: int, chunks: int, swiglu: bool, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    model = save_megatron(folder / "iter_0000010", tp, pp, swiglu=swiglu, chunks=chunks)
    (folder / "latest_checkpointed_iteration.txt").write_text("10")
    assert read(folder) == raw(model)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.ranks is not None
    assert (checkpoint.ranks.mesh, checkpoint.ranks.step) == ((("tp", tp), ("pp", pp)), 10)


EXPERTS = 6


def save_experts(folder: Path, tp: int, pp: int, ep: int, *, grouped: bool) -> dict[str, torch.Tensor]:
    """Two layers with a router and experts; Megatron's SequentialMLP, or its TEGroupedMLP."""
    torch.manual_seed(4)
    args = argparse.Namespace(
        tensor_model_parallel_size=tp, pipeline_model_parallel_size=pp, expert_model_parallel_size=ep, num_layers=2,
        swiglu=True, num_experts=EXPERTS, expert_tensor_parallel_size=tp, untie_embeddings_and_output_weights=True,
    )  # fmt: skip
    names = "experts.linear_fc{}.weight{}" if grouped else "experts.local_experts.{1}.linear_fc{0}.weight"
    model: dict[str, torch.Tensor] = {}
    for layer in range(2):
        mlp = f"decoder.layers.{layer}.mlp."
        model[f"{mlp}router.weight"] = torch.randn(EXPERTS, HIDDEN)
        experts = {(fc, n): torch.randn(*size) for n in range(EXPERTS) for fc, size in
                   ((1, (2 * FFN, HIDDEN)), (2, (HIDDEN, FFN)))}  # fmt: skip
        model |= {mlp + names.format(*place): value for place, value in experts.items()}
    here, local = 2 // pp, EXPERTS // ep
    for tensor, stage, expert in itertools.product(range(tp), range(pp), range(ep)):
        part = {}
        for key, whole in model.items():
            layer = int(key.split(".")[2])
            number = re.search(r"local_experts\.(\d+)|weight(\d+)", key)
            if layer // here != stage or (number and int(number[1] or number[2]) // local != expert):
                continue
            name = key.replace(f"layers.{layer}.", f"layers.{layer - stage * here}.")
            if number:
                global_number = int(number[1] or number[2])
                name = name.replace(number[0], number[0].replace(str(global_number), str(global_number % local)))
            if "router" in key:
                part[name] = whole
            elif "linear_fc2" in key:
                part[name] = whole.chunk(tp, 1)[tensor].clone()
            else:
                part[name] = torch.cat([half.chunk(tp)[tensor] for half in whole.chunk(2)])
        at = f"mp_rank_{tensor:02}" + (f"_{stage:03}" if pp > 1 else "") + (f"_{expert:03}" if ep > 1 else "")
        (folder / at).mkdir(parents=True)
        torch.save({"iteration": 10, "args": args, "model": part}, folder / at / "model_optim_rng.pt")
    return model


@pytest.mark.parametrize(
    ("tp", "pp", "ep"), [(1, 1, 2), (1, 1, 3), (1, 2, 2), (2, 1, 3), (2, 2, 2), (1, 2, 1), (2, 1, 1)]
)
@pytest.mark.parametrize("grouped", [True, False])
def test_megatrons_experts(tp: int, pp: int, ep: int, grouped: bool, tmp_path: Path) -> None:
    """Without stages of a pipeline, the second number of a folder's name is that of the expert-parallel rank."""
    folder = tmp_path / "iter_0000010"
    model = save_experts(folder, tp, pp, ep, grouped=grouped)
    assert read(folder) == raw(model)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.ranks is not None
    assert checkpoint.ranks.mesh == (("tp", tp), ("pp", pp), *((("ep", ep),) if ep > 1 else ()))
    last = sorted(path.name for path in folder.iterdir())[-1]
    shutil.move(folder / last, tmp_path / "kept")
    assert last in refused(folder).message


def test_experts_that_nothing_joins(tmp_path: Path) -> None:
    folder = tmp_path / "iter_0000010"
    save_experts(folder, 1, 1, 2, grouped=False)

    def change(number: int, edit: Callable[[dict[str, Any]], None]) -> None:
        file = folder / f"mp_rank_00_{number:03}" / "model_optim_rng.pt"
        held = torch.load(file, weights_only=False)
        edit(held)
        torch.save(held, file)

    for number in range(2):
        change(number, lambda held: setattr(held["args"], "num_experts", 8))
    assert "8 in all" in refused(folder).message
    change(0, lambda held: setattr(held["args"], "expert_tensor_parallel_size", 2))
    assert "cut over 2 ranks" in refused(folder).message
    change(0, lambda held: setattr(held["args"], "expert_tensor_parallel_size", 1))
    for number in range(2):
        change(number, lambda held: held["model"].update({"decoder.layers.0.mlp.experts.weight1": torch.ones(2, 3)}))
    assert "decoder.layers.0.mlp.experts.weight1" in refused(folder).message


def test_what_megatrons_files_do_not_tell(tmp_path: Path) -> None:
    folder = tmp_path / "iter_0000010"
    save_megatron(folder, 2, 2)
    path = folder / "mp_rank_01_001"
    path.rename(tmp_path / "kept")
    assert "mp_rank_01_001" in refused(folder).message
    (tmp_path / "kept").rename(path)
    file = path / "model_optim_rng.pt"
    held = torch.load(file, weights_only=False)
    torch.save({**held, "iteration": 11}, file)
    assert "iteration" in refused(folder).message
    odd = "decoder.layers.0.mixer.in_proj.weight"
    for rank in range(2):
        each = folder / f"mp_rank_0{rank}_000" / "model_optim_rng.pt"
        inside = torch.load(each, weights_only=False)
        inside["model"][odd] = torch.full((4,), float(rank))
        torch.save(inside, each)
    assert odd in refused(folder).message
    shutil.rmtree(folder / "mp_rank_01_000")
    shutil.rmtree(folder / "mp_rank_01_001")
    assert "mp_rank_01" in refused(folder).message


# ------------------------------------------------------------------------------------------------- torchsnapshot


def entry(location: str, value: torch.Tensor, **more: object) -> dict[str, object]:
    dtype = str(value.dtype)
    return {
        "type": "Tensor", "location": location, "serializer": "buffer_protocol", "dtype": dtype,
        "shape": list(value.shape), "replicated": False, "byte_range": None, **more,
    }  # fmt: skip


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """As torchsnapshot 0.1 lays it out: two ranks, a sharded tensor, a batched file, objects."""
    folder = tmp_path / "snapshot"
    (folder / "0" / "app").mkdir(parents=True)
    (folder / "sharded").mkdir()
    w, bias, whole = torch.arange(6.0).reshape(2, 3), torch.arange(3, dtype=torch.bfloat16), WHOLE["a"]
    batch = w.numpy().tobytes() + bias.view(torch.int16).numpy().tobytes()
    (folder / "0" / "batch").write_bytes(batch)
    shards = []
    for number, (low, high) in enumerate(((0, 6), (6, 11))):
        part = whole[low:high].clone()
        (folder / "sharded" / f"emb_{number}").write_bytes(part.numpy().tobytes())
        held = entry(f"sharded/emb_{number}", part)
        shards.append({"offsets": [low, 0], "sizes": [high - low, 5], "tensor": held})
    torch.save({"a": 1, "b": torch.ones(2)}, folder / "0" / "app" / "object")
    torch.save(torch.arange(4), folder / "0" / "app" / "saved")
    manifest = {
        "0/app": {"type": "dict", "keys": ["model", "lr", "step", "object", "groups"]},
        "0/app/model": {"type": "OrderedDict", "keys": ["fc.weight", "fc.bias", "emb", "saved"]},
        "0/app/model/fc.weight": entry("0/batch", w, byte_range=[0, 24]),
        "0/app/model/fc.bias": entry("0/batch", bias, byte_range=[24, 30]),
        "0/app/model/emb": {"type": "ShardedTensor", "shards": shards[:1]},
        "1/app/model/emb": {"type": "ShardedTensor", "shards": shards[1:]},
        "0/app/model/saved": entry("0/app/saved", torch.arange(4), serializer="torch_save"),
        "0/app/lr": {
            "type": "float",
            "serialized_value": base64.b64encode(struct.pack("d", 0.5)).decode(),
            "readable": "0.5",
        },
        "0/app/step": {"type": "int", "serialized_value": "12", "readable": None, "replicated": False},
        "0/app/object": {"type": "object", "location": "0/app/object", "serializer": "torch_save", "obj_type": "dict"},
        "0/app/groups": {"type": "list"},
        "0/app/groups/0": {"type": "str", "serialized_value": "x%2Fy"},
    }
    text = {"version": "0.1.0", "world_size": 2, "manifest": manifest}
    (folder / ".snapshot_metadata").write_text(json.dumps(text))
    return folder


def test_a_snapshot(snapshot: Path, cli: Run) -> None:
    checkpoint = open_checkpoint(snapshot)
    assert checkpoint.selection.path == ("app", "model")
    found = read(snapshot)
    assert found["emb"] == raw(WHOLE)["a"]
    assert found["fc.bias"] == raw({"b": torch.arange(3, dtype=torch.bfloat16)})["b"]
    assert found["saved"] == raw({"s": torch.arange(4)})["s"]
    assert {extra.name: extra.text for extra in checkpoint.extras}["app.lr"] == "0.5"
    assert cli("filter", str(snapshot), "-o", "out.pth")[0] == 0
    saved = torch.load("out.pth", weights_only=True)["app"]
    assert torch.equal(saved["model"]["emb"], WHOLE["a"])
    assert torch.equal(saved["object"]["b"], torch.ones(2))
    assert (saved["step"], saved["groups"]) == (12, ["x%2Fy"])


def test_a_damaged_snapshot(snapshot: Path) -> None:
    metadata = snapshot / ".snapshot_metadata"
    text = metadata.read_text()
    for old, new, word in (
        ('"1/app/model/emb"', '"1/app/model/other"', "elements"),
        ("sharded/emb_1", "../../emb", "not a file of this folder"),
        ("sharded/emb_1", "sharded/emb_9", "emb_9"),
        ('"offsets": [6, 0]', '"offsets": [5, 0]', "overlap"),
        ("[24, 30]", "[24, 31]", "ends early"),
        ("[24, 30]", "[24, 28]", "takes"),
        ("torch.bfloat16", "torch.nothing", "fc.bias"),
    ):
        assert old in text
        metadata.write_text(text.replace(old, new))
        assert word in refused(snapshot).message
    metadata.write_text(text[:200])
    assert "cut short" in refused(snapshot).message


# ------------------------------------------------------------------------------------------------- DCP as safetensors


def save_pieces(folder: Path, world: int = 3) -> dict[str, torch.Tensor]:
    """As torch's HuggingFaceStorageWriter lays them out: two files of each rank, one for each index."""
    from safetensors.torch import save_file

    folder.mkdir()
    tensors = {"a": WHOLE["a"], "n": WHOLE["c"], "zero": torch.tensor(1.5)}
    for rank in range(world):
        for index, keys in ((1, ["a"]), (2, ["n", "zero"])):
            held, places = {}, {}
            for key in keys:
                axis = {"a": 0, "n": 1}.get(key)
                if axis is None:
                    if rank == 1:
                        held[key], places[key] = tensors[key], {"saved_offsets": []}
                    continue
                parts = tensors[key].chunk(world, axis)
                offset = [0] * tensors[key].dim()
                offset[axis] = sum(part.shape[axis] for part in parts[:rank])
                held[key], places[key] = parts[rank].clone(), {"saved_offsets": offset}
            metadata = {"format": "pt", "DCP_VERSION": "1.0", "DCP_SHARDING_INFO": json.dumps(places)}
            name = f"shard-{rank + 1:05}-model-{index:05}-of-00002.safetensors"
            save_file(held, folder / name, metadata)
    return tensors


def test_pieces_in_safetensors(tmp_path: Path, cli: Run) -> None:
    folder = tmp_path / "run"
    tensors = save_pieces(folder)
    assert read(folder) == raw(tensors)
    assert "ranks-not-stated" in {fact.name for fact in facts_of(open_checkpoint(folder))}
    one = folder / "shard-00002-model-00001-of-00002.safetensors"
    code, _, error = cli("filter", str(one), "-o", "out.safetensors")
    assert code == 2
    assert str(folder) in " ".join(error.split())
    assert cli("filter", str(folder), "-o", "out.safetensors")[0] == 0


def test_whole_files_that_are_not_their_pieces(tmp_path: Path, cli: Run) -> None:
    """torch joins the pieces itself, and loses tensors without dimensions."""
    import torch.distributed.checkpoint as dcp

    folder = tmp_path / "run"
    state = {"w": torch.randn(4, 3), "scale": torch.tensor(1.5), "none": torch.tensor(0.0)}
    numbers = {"w": 1, "scale": 1, "none": 2}
    writer = dcp.HuggingFaceStorageWriter(
        str(folder), save_distributed=True, enable_consolidation=True, fqn_to_index_mapping=numbers
    )
    dcp.save(dict(state), storage_writer=writer, no_dist=True)
    assert read(folder)["scale"] == raw({"s": torch.tensor(0.0)})["s"]  # torch 2.13
    facts = {fact.name: fact for fact in facts_of(open_checkpoint(folder))}
    assert facts["pieces-differ"].keys == ("scale",)
    assert read(folder / "sharded") == raw(state)
    code, text, error = cli("filter", str(folder), "-o", "out.safetensors")
    assert code == 0
    assert "not as in the pieces" in " ".join((text + error).split())
    assert cli("check", str(folder))[0] == 1


def test_pieces_that_do_not_fit(tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "run"
    save_pieces(folder)
    first, second = (folder / f"shard-0000{rank}-model-00001-of-00002.safetensors" for rank in (1, 2))
    second.rename(tmp_path / "kept")
    assert second.name in refused(folder).message
    other = folder / "shard-00002-model-00002-of-00002.safetensors"
    other.rename(tmp_path / "other")
    assert "rank 2 of 3 is missing" in refused(folder).message
    (tmp_path / "other").rename(other)
    (tmp_path / "kept").rename(second)

    def moved(offset: list[int] | None) -> None:
        with safe_open(second, "pt") as file:
            metadata = dict(file.metadata())
        metadata["DCP_SHARDING_INFO"] = json.dumps({"a": {"saved_offsets": offset}} if offset else {})
        save_file(load_file(second), second, metadata)

    for offset, word in (([3, 0], "overlap"), ([9, 0], "overlap"), ([12, 0], "elements of a"), (None, "belongs")):
        moved(offset)
        error = refused(folder)
        assert word in error.message
        assert error.key == "a"
    data = first.read_bytes()
    first.write_bytes(data[:-3])
    assert first.name in refused(folder).message
