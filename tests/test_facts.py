"""Facts: the table of what each operation does to each kind, every cell on a real file."""

from __future__ import annotations

import argparse
import inspect
import json
import re
import shlex
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn
from torch._weights_only_unpickler import _get_allowed_globals
from torch.nn.utils import prune

from ckptool.cli.app import run
from ckptool.commands.consult import consulted
from ckptool.commands.filter import plan_filter
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import UsageError
from ckptool.core.facts import FINE, Answer, Fact, Operation, Refuse, Say, Use
from ckptool.core.initial import INITIAL_KEY
from ckptool.engine.reading import Reader
from ckptool.facts import registry
from ckptool.facts.averages import averaged
from ckptool.facts.headers import Headers
from ckptool.facts.registry import facts_of, finder, kinds
from ckptool.facts.reparametrised import WeightNorm
from ckptool.facts.tied import recorded_ties
from ckptool.facts.torch_refuses import is_allowed
from ckptool.facts.words import note_of
from ckptool.formats.opening import open_checkpoint

Make = Callable[[Path], Path]

# ---------------------------------------------------------------------------------------------- real files


def quantized_fp8(folder: Path) -> Path:
    """fp8 codes with an inverse scale for each block of 128 x 128."""
    weight = torch.randn(256, 128).to(torch.float8_e4m3fn)
    key = "model.layers.0.mlp.up_proj.weight"
    state = {key: weight, f"{key}_scale_inv": torch.ones(2, 1), "model.norm.weight": torch.ones(4)}
    save_file(state, folder / "fp8.safetensors")
    return folder / "fp8.safetensors"


def plain_fp8(folder: Path) -> Path:
    """fp8 numbers without scales, as image models are published."""
    state = {"a.weight": torch.randn(8, 4).to(torch.float8_e4m3fn), "a.bias": torch.ones(8)}
    save_file(state, folder / "plain_fp8.safetensors")
    return folder / "plain_fp8.safetensors"


def gptq(folder: Path) -> Path:
    state = {
        "l.qweight": torch.zeros(4, 8, dtype=torch.int32),
        "l.qzeros": torch.zeros(1, 1, dtype=torch.int32),
        "l.scales": torch.ones(1, 8, dtype=torch.float16),
        "l.g_idx": torch.zeros(32, dtype=torch.int32),
        "norm.weight": torch.ones(4),
    }
    save_file(state, folder / "gptq.safetensors")
    return folder / "gptq.safetensors"


def meta(folder: Path) -> Path:
    torch.save({"a.weight": torch.ones(2), "b.weight": torch.empty(3, device="meta")}, folder / "meta.pth")
    return folder / "meta.pth"


def zero3(folder: Path) -> Path:
    state = {f"blocks.{n}.weight": torch.empty(0, dtype=torch.bfloat16) for n in range(3)}
    torch.save({**state, "blocks.0.bias": torch.ones(4)}, folder / "zero3.bin")
    return folder / "zero3.bin"


def one_rank(folder: Path) -> Path:
    for number in range(2):
        torch.save({"w.weight": torch.ones(4, 2)}, folder / f"consolidated.0{number}.pth")
    return folder / "consolidated.00.pth"


def rank_in_a_folder(folder: Path) -> Path:
    for number in range(2):
        (folder / f"mp_rank_0{number}").mkdir()
        torch.save({"w.weight": torch.ones(4, 2)}, folder / f"mp_rank_0{number}" / "model_optim_rng.pt")
    return folder / "mp_rank_00" / "model_optim_rng.pt"


def ranks(folder: Path) -> Path:
    (folder / "llama").mkdir()
    for part in "ab":
        torch.save({"w.weight": torch.ones(4, 2)}, folder / "llama" / f"weights.{part}.pth")
    return folder / "llama"


def one_shard(folder: Path) -> Path:
    save_file({"w.weight": torch.ones(2)}, folder / "model-00001-of-00002.safetensors")
    return folder / "model-00001-of-00002.safetensors"


def dcp_part(folder: Path) -> Path:
    metadata = {"DCP_SHARDING_INFO": json.dumps({"w.weight": {"saved_offsets": [0, 0]}})}
    save_file({"w.weight": torch.ones(2, 2)}, folder / "part.safetensors", metadata)
    return folder / "part.safetensors"


def weight_norm(folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = nn.utils.weight_norm(nn.Linear(3, 2))
    torch.save(net.state_dict(), folder / "norm.pth")
    return folder / "norm.pth"


def spectral_norm(folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = nn.utils.spectral_norm(nn.Linear(3, 2))
    torch.save(net.state_dict(), folder / "spectral.pth")
    return folder / "spectral.pth"


def new_spectral_norm(folder: Path) -> Path:
    net = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2))
    torch.save(net.state_dict(), folder / "spectral2.pth")
    return folder / "spectral2.pth"


def pruned(folder: Path) -> Path:
    torch.save(prune.random_unstructured(nn.Linear(4, 4), "weight", 0.5).state_dict(), folder / "pruned.pth")
    return folder / "pruned.pth"


def batchnorm(folder: Path) -> Path:
    torch.save(nn.BatchNorm1d(3).state_dict(), folder / "bn.pth")
    return folder / "bn.pth"


def swa(folder: Path) -> Path:
    torch.save(torch.optim.swa_utils.AveragedModel(nn.Linear(2, 2)).state_dict(), folder / "swa.pth")
    return folder / "swa.pth"


def extra_state(folder: Path) -> Path:
    torch.save({"weight": torch.ones(2, 2), "bias": torch.ones(2), "mlp._extra_state": None}, folder / "extra.pth")
    return folder / "extra.pth"


def peft_adapter(folder: Path) -> Path:
    key = "base_model.model.q_proj.lora_{}.weight"
    save_file({key.format("A"): torch.ones(2, 4), key.format("B"): torch.ones(4, 2)}, folder / "lora.safetensors")
    return folder / "lora.safetensors"


def kohya_adapter(folder: Path) -> Path:
    key = "lora_unet_mid_to_v."
    state = {f"{key}lora_down.weight": torch.ones(2, 4), f"{key}lora_up.weight": torch.ones(4, 2)}
    save_file({**state, f"{key}alpha": torch.tensor(1.0)}, folder / "style.safetensors")
    return folder / "style.safetensors"


def namespace(folder: Path) -> Path:
    torch.save({"model": {"w": torch.ones(2)}, "args": argparse.Namespace(lr=1)}, folder / "args.pth")
    return folder / "args.pth"


def dtensor(folder: Path) -> Path:
    import torch.distributed as dist
    from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        torch.save({"fc.weight": distribute_tensor(torch.ones(4, 3), mesh, [Shard(0)])}, folder / "fsdp2.pth")
    finally:
        dist.destroy_process_group()
    return folder / "fsdp2.pth"


def sharded_tensor(folder: Path) -> Path:
    import torch.distributed as dist
    from torch.distributed._shard import sharded_tensor as sharded
    from torch.distributed._shard.sharding_spec import ChunkShardingSpec

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = sharded.ones(ChunkShardingSpec(dim=0, placements=["rank:0/cpu"]), 4, 3)
            torch.save({"fc.weight": value, "fc.bias": torch.ones(4)}, folder / "fsdp1.pth")
    finally:
        dist.destroy_process_group()
    return folder / "fsdp1.pth"


def noted_tie(folder: Path) -> Path:
    model = nn.ModuleDict({"wte": nn.Embedding(9, 4), "lm_head": nn.Linear(4, 9, bias=False)})
    model["lm_head"].weight = model["wte"].weight
    save_model(model, str(folder / "tied.safetensors"))
    return folder / "tied.safetensors"


def no_index(folder: Path) -> Path:
    (folder / "split").mkdir()
    for number in (1, 2):
        save_file({f"w{number}": torch.ones(2)}, folder / "split" / f"model-0000{number}-of-00002.safetensors")
    return folder / "split"


def other_metadata(folder: Path) -> Path:
    place = no_index(folder)
    save_file({"w2": torch.ones(2)}, place / "model-00002-of-00002.safetensors", {"run": "2"})
    save_file({"w1": torch.ones(2)}, place / "model-00001-of-00002.safetensors", {"run": "1"})
    return place


def indexed(folder: Path, **metadata: int) -> Path:
    place = no_index(folder)
    save_file({"w2": torch.ones(2), "old": torch.ones(3)}, place / "model-00002-of-00002.safetensors")
    shards = {f"w{number}": f"model-0000{number}-of-00002.safetensors" for number in (1, 2)}
    (place / "model.safetensors.index.json").write_text(json.dumps({"metadata": metadata, "weight_map": shards}))
    return place


def wrong_size(folder: Path) -> Path:
    return indexed(folder, total_size=7)


def rewritten(path: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """A torch zip whose members were changed, with the CRC-32 of what they are now."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, change(name, data))
    return path


def behind_the_pickle(folder: Path) -> Path:
    torch.save({"w": torch.ones(2)}, folder / "more.pth")
    return rewritten(folder / "more.pth", lambda name, data: data + b"more" * name.endswith("data.pkl"))


def behind_the_storages(folder: Path) -> Path:
    torch.save({"w": torch.ones(2)}, folder / "old.pth", _use_new_zipfile_serialization=False)
    (folder / "old.pth").write_bytes((folder / "old.pth").read_bytes() + b"m")
    return folder / "old.pth"


def left_distcp(folder: Path) -> Path:
    from torch.distributed.checkpoint import FileSystemWriter, save

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save({"w": torch.ones(3)}, storage_writer=FileSystemWriter(folder / "dcp"))
    (folder / "dcp" / "__7_0.distcp").write_bytes(b"x")
    return folder / "dcp"


def odd_fields(folder: Path) -> Path:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], "scale": 2}}).encode()
    (folder / "odd.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    return folder / "odd.safetensors"


def whole_module(folder: Path) -> Path:
    torch.save(nn.Linear(2, 2), folder / "module.pth")
    return folder / "module.pth"


def damaged_pickle(folder: Path) -> Path:
    torch.save({"layer.weight": torch.ones(2, 2)}, folder / "flipped.pth")
    data = (folder / "flipped.pth").read_bytes()
    (folder / "flipped.pth").write_bytes(data.replace(b"layer.weight", b"layer.weighu"))
    return folder / "flipped.pth"


def damaged_values(folder: Path) -> Path:
    """One bit of an integer tensor, and one of a tensor that shares its record with another."""
    both = torch.arange(6.0)
    torch.save({"n": torch.arange(9), "a": both[:3], "b": both[3:], "w": torch.arange(4.0)}, folder / "rot.pth")
    data = bytearray((folder / "rot.pth").read_bytes())
    for values, at in ((torch.arange(9).numpy().tobytes(), 8), (both.numpy().tobytes(), 21)):
        data[bytes(data).index(values) + at] ^= 4
    (folder / "rot.pth").write_bytes(data)
    return folder / "rot.pth"


def unchecked(folder: Path) -> Path:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.ones(2)}, folder / "fast.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    return folder / "fast.pth"


def initial(folder: Path) -> Path:
    save_file(
        {"weight": torch.ones(2, 2), "bias": torch.ones(2)}, folder / "new.safetensors", {INITIAL_KEY: '["bias"]'}
    )
    return folder / "new.safetensors"


def moco(folder: Path) -> Path:
    """Two encoders and a queue, with as much of a ResNet as makes one."""
    shapes = {"conv1": (4, 3, 7, 7), "layer1.0.conv1": (4, 4, 1, 1), "layer1.0.conv2": (4, 4, 3, 3)}
    shapes |= {"bn1": (4,), "layer2.0.downsample.0": (8, 4, 1, 1)}
    state = {f"encoder_{side}.{name}.weight": torch.ones(shape) for side in "qk" for name, shape in shapes.items()}
    torch.save({**state, "queue": torch.ones(4, 16)}, folder / "moco.pth")
    return folder / "moco.pth"


def flat(text: str) -> str:
    """A screen as one line: where it wraps depends on the length of the folder's name."""
    return " ".join(text.split())


# ---------------------------------------------------------------------------------------------- the table

DONE, SAID, NO = "done", "said", "refused"
CAST = ("--dtype", "bf16")


def one_expert(folder: Path) -> Path:
    """DeepSpeed's file of one expert, with another one beside it."""
    for number in range(2):
        state = {f"moe.experts.{number}.w": torch.ones(4, 2), f"moe.experts.{number}.b": torch.ones(2)}
        torch.save(state, folder / f"layer_0_expert_{number}_mp_rank_00_model_states.pt")
    return folder / "layer_0_expert_1_mp_rank_00_model_states.pt"


TABLE: list[tuple[Make, str, dict[str, str]]] = [
    (quantized_fp8, "encoded", {"copy": DONE, "rename": DONE, "drop": NO, "cast": NO, "compute": NO, "merge": NO}),
    (plain_fp8, "plain-fp8", {"copy": DONE, "rename": DONE, "cast": DONE, "compute": DONE, "merge": DONE}),
    (gptq, "encoded", {"copy": DONE, "rename": DONE, "drop": NO, "cast": NO, "compute": NO}),
    (meta, "meta", {"copy": SAID, "cast": SAID}),
    (zero3, "placeholders", {"copy": NO, "cast": NO, "merge": NO}),
    (one_rank, "rank", {"copy": NO, "cast": NO, "merge": NO}),
    (rank_in_a_folder, "rank", {"copy": NO, "cast": NO, "load": NO}),
    (one_expert, "layer-file", {"copy": NO, "cast": NO, "merge": NO, "load": NO}),
    (ranks, "several", {"copy": NO, "cast": NO}),
    (one_shard, "shard", {"copy": SAID, "cast": SAID}),
    (dcp_part, "pieces", {"copy": NO, "cast": NO, "merge": NO}),
    (weight_norm, "weight-norm", {"copy": DONE, "cast": DONE, "drop": SAID, "merge": SAID}),
    (spectral_norm, "spectral-norm", {"copy": DONE, "cast": DONE, "drop": SAID, "merge": SAID}),
    (new_spectral_norm, "spectral-norm", {"copy": DONE, "cast": DONE, "merge": SAID}),
    (pruned, "pruning-mask", {"copy": DONE, "merge": SAID}),
    (batchnorm, "statistics", {"copy": DONE, "cast": DONE, "merge": SAID}),
    (swa, "average", {"copy": DONE, "cast": DONE}),
    (extra_state, "entries", {"copy": DONE, "load": SAID}),
    (peft_adapter, "adapter", {"copy": DONE, "rename": DONE, "cast": DONE, "merge": SAID, "load": NO}),
    (kohya_adapter, "adapter", {"copy": DONE, "load": NO}),
    (namespace, "weights-only", {"copy": DONE}),
    (sharded_tensor, "tensor-class", {"copy": NO, "cast": NO}),
    (noted_tie, "tied", {"copy": DONE}),
    (no_index, "no-index", {"copy": DONE, "cast": DONE}),
    (other_metadata, "metadata-differs", {"copy": SAID}),
    (indexed, "unlisted", {"copy": SAID, "cast": SAID, "merge": SAID}),
    (wrong_size, "total-size", {"copy": SAID}),
    (behind_the_pickle, "trailing-bytes", {"copy": SAID, "cast": DONE}),
    (behind_the_storages, "trailing-bytes", {"copy": SAID}),
    (left_distcp, "unused-files", {"copy": DONE}),
    (odd_fields, "unknown-fields", {"copy": SAID, "cast": DONE}),
    (whole_module, "whole-module", {"copy": DONE}),
    (damaged_pickle, "checksum", {"copy": NO, "cast": NO, "merge": NO, "load": NO}),
    (unchecked, "no-checksums", {"copy": DONE}),
    (initial, "initial", {"copy": DONE, "cast": DONE, "rename": DONE, "merge": SAID, "load": SAID}),
    (moco, "architecture", {"copy": DONE, "cast": DONE}),
    (moco, "training", {"copy": DONE, "cast": DONE}),
]
CELLS = [(make, name, operation, want) for make, name, cells in TABLE for operation, want in cells.items()]


def arguments(operation: str, path: Path, checkpoint: Checkpoint, folder: Path) -> list[str]:
    """The command line that does an operation to the fact's first key."""
    fact_keys = [key for fact in facts_of(checkpoint) for group in fact.groups for key in group] or list(checkpoint)
    match operation:
        case "copy":
            return ["filter", str(path)]
        case "cast":
            return ["filter", str(path), *CAST]
        case "drop":
            return ["filter", str(path), "--drop", fact_keys[-1]]
        case "rename":
            return ["remap", str(path), "-r", "{k**} -> model.{k}"]
        case "compute":
            return ["remap", str(path), "-r", f"{fact_keys[-1]} -> {fact_keys[-1]} | = $1 * 2"]
        case "merge":
            return ["merge", str(path), str(path), "--method", "linear"]
        case "load":
            (folder / "net.py").write_text("from torch import nn\ndef net():\n    return nn.Linear(2, 2)\n")
            return ["transplant", str(path), "--into", f"{folder / 'net.py'}:net"]
    raise AssertionError(operation)


@pytest.mark.parametrize(
    ("make", "name", "operation", "want"), CELLS, ids=[f"{n}-{o}-{m.__name__}" for m, n, o, _ in CELLS]
)
def test_each_operation_on_each_fact(
    make: Make, name: str, operation: str, want: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make(tmp_path)
    checkpoint = open_checkpoint(path)
    assert name in {fact.name for fact in facts_of(checkpoint)}
    out = tmp_path / "result.pth"
    code = run([*arguments(operation, path, checkpoint, tmp_path), "-o", str(out)])
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    assert (code, out.exists()) == ((2, False) if want == NO else (0, True)), told.err + told.out
    if want == NO:
        assert "help: " in told.err
    else:
        assert ("warning: " in told.out) == (want == SAID), told.out


@pytest.mark.parametrize(
    ("make", "name", "level"),
    [(meta, "meta", "error"), (zero3, "placeholders", "error"), (one_rank, "rank", "error"),
     (dcp_part, "pieces", "error"), (damaged_pickle, "checksum", "error"), (damaged_values, "checksum", "error"),
     (behind_the_pickle, "trailing-bytes", "warning"), (odd_fields, "unknown-fields", "warning"),
     (peft_adapter, "adapter", "note"), (namespace, "weights-only", "warning"),
     (dtensor, "tensor-class", "warning")],
)  # fmt: skip
def test_check_grades_facts(
    make: Make, name: str, level: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(["check", str(make(tmp_path)), "--json"])
    found = [each for each in json.loads(capsys.readouterr().out)["findings"] if each["rule"] == "facts"]
    assert level in [each["level"] for each in found]
    assert code == (1 if level == "error" else 0)


INSISTED = [(zero3, "placeholders"), (ranks, "several"), (dcp_part, "pieces"), (damaged_pickle, "checksum")]


@pytest.mark.parametrize(("make", "name"), INSISTED)
def test_a_user_may_insist(make: Make, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "result.pth"
    assert run(["filter", str(make(tmp_path)), "-o", str(out), "--allow", name]) == 0
    assert f"--allow {name}" in flat(capsys.readouterr().out)
    assert out.exists()


def test_numbers_that_would_be_nonsense_cannot_be_insisted_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = quantized_fp8(tmp_path)
    assert run(["filter", str(path), *CAST, "-o", str(tmp_path / "x.pth"), "--allow", "encoded"]) == 2
    assert run(["filter", str(path), "-o", str(tmp_path / "x.pth"), "--allow", "encodet"]) == 2
    assert 'did you mean "encoded"?' in flat(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (behind_the_pickle, "4 bytes follow the pickle in data.pkl"),
        (indexed, "1 tensor of the shards is not in the index: old"),
        (damaged_pickle, "the file is damaged"),
    ],
)
def test_diff_says_what_is_true_of_one_side_only(
    make: Make, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "plain.pth")
    run(["diff", str(tmp_path / "plain.pth"), str(make(tmp_path))])
    told = flat(capsys.readouterr().out)
    assert words in told and "only " in told


def test_the_preview_refuses_as_the_run_does(tmp_path: Path) -> None:
    path = quantized_fp8(tmp_path)
    assert run(["filter", str(path), *CAST]) == run(["filter", str(path), *CAST, "-o", str(tmp_path / "x.pth")]) == 2


# ---------------------------------------------------------------------------------------------- a new kind


def test_a_new_fact_is_true_in_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_FINDERS", list(registry._FINDERS))

    @dataclass(frozen=True, slots=True)
    class Cursed(Fact):
        name = "cursed"
        level = "warning"
        grade = "error"
        tells = True

        @property
        def text(self) -> str:
            return f"{self.keys[0]} is cursed"

        def answer(self, use: Use) -> Answer:
            if use.operation is Operation.CAST:
                return Refuse("a cast angers it", "leave it alone", may_insist=True)
            return Say("handle with care") if use.operation is Operation.COPY else FINE

    @finder
    def find(headers: Headers) -> Iterator[Cursed]:
        keys = tuple(key for key in headers.keys if "cursed" in key)
        if keys:
            yield Cursed(keys)

    torch.save({"cursed.weight": torch.ones(2)}, tmp_path / "a.pth")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "b.pth")
    path, out = str(tmp_path / "a.pth"), str(tmp_path / "out.pth")
    assert run(["inspect", path]) == 0
    assert "warning: cursed.weight is cursed" in flat(capsys.readouterr().out)
    assert run(["check", path]) == 1
    assert "error[facts]: cursed.weight is cursed" in flat(capsys.readouterr().out)
    assert run(["filter", path, "--dtype", "bf16", "-o", out]) == 2
    assert "--allow cursed" in flat(capsys.readouterr().err)
    assert run(["filter", path, "--dtype", "bf16", "-o", out, "--allow", "cursed"]) == 0
    assert run(["remap", path, "-r", "cursed. -> x.", "-o", str(tmp_path / "r.pth")]) == 0
    assert "warning: handle with care" in flat(capsys.readouterr().out)
    assert run(["diff", path, str(tmp_path / "b.pth")]) == 1
    assert "only a.pth: cursed.weight is cursed" in flat(capsys.readouterr().out)


# ---------------------------------------------------------------------------------------------- kinds


def fact_of(path: Path, name: str) -> Any:
    return next(fact for fact in facts_of(open_checkpoint(path)) if fact.name == name)


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
@pytest.mark.parametrize("new", [False, True])
def test_the_dim_of_a_weight_norm_is_read_from_its_shapes(dim: int, new: bool, tmp_path: Path) -> None:
    conv = nn.Conv1d(6, 4, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: Any = nn.utils.parametrizations if new else nn.utils
        torch.save(module.weight_norm(conv, dim=None if dim == -1 else dim).state_dict(), tmp_path / "a.pth")
    found = fact_of(tmp_path / "a.pth", "weight-norm")
    assert isinstance(found, WeightNorm)
    assert (found.dim, found.new) == (dim, new)


@pytest.mark.parametrize(
    "state",
    [
        {"fc.weight": torch.ones(8, 8).to(torch.float8_e4m3fn)},
        {"scales": torch.ones(4), "fc.weight": torch.ones(4, 4)},
        {"embedding.weight": torch.ones(8, 8, dtype=torch.int8)},
        {"mask": torch.ones(8, 8, dtype=torch.bool), "mask_scale": torch.ones(8)},
        {"norm.weight": torch.ones(8), "norm.scale": torch.ones(8)},
        {"l.qweight": torch.ones(4), "l.qzeros": torch.ones(4), "l.scales": torch.ones(4)},
    ],
)
def test_look_alikes_are_no_encoded_weights(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "a.safetensors")
    assert not {"encoded", "encoded-incomplete"} & {
        fact.name for fact in facts_of(open_checkpoint(tmp_path / "a.safetensors"))
    }


@pytest.mark.parametrize(
    "state",
    [
        lambda net: {f"model.{k}": v for k, v in net.items()} | {f"ema_model.{k}": v + 1 for k, v in net.items()},
        lambda net: (
            {f"online_model.{k}": v for k, v in net.items()}
            | {f"ema_model.{k}": v + 1 for k, v in net.items()}
            | {"initted": torch.tensor(True), "step": torch.tensor(3)}
        ),
        lambda net: net | {f"ema_{k.replace('.', '_')}": v + 1 for k, v in net.items()},
        lambda net: net | {f"model_ema.module.{k}": v + 1 for k, v in net.items()},
        lambda net: (
            {f"net.{k}": v for k, v in net.items()} | {f"averaged_model.module.{k}": v + 1 for k, v in net.items()}
        ),
    ],
)
def test_averages_under_the_names_of_several_libraries(state: Any, tmp_path: Path) -> None:
    net = dict(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).state_dict())
    torch.save(state(net), tmp_path / "a.pth")
    assert "average" in {fact.name for fact in facts_of(open_checkpoint(tmp_path / "a.pth"))}
    assert run(["filter", str(tmp_path / "a.pth"), "--ema", "-o", str(tmp_path / "o.pth")]) == 0
    found = torch.load(tmp_path / "o.pth")
    assert len(found) == len(net)
    for key, value in net.items():
        (mine,) = [name for name in found if name.endswith(key)]
        assert torch.equal(found[mine], value + 1)


@pytest.mark.parametrize("name", ["state_dict_ema", "model_ema", "ema"])
def test_averages_beside_the_weights(name: str, tmp_path: Path) -> None:
    net = nn.Linear(3, 2)
    average = torch.optim.swa_utils.AveragedModel(net).state_dict()
    torch.save({"model": net.state_dict(), name: average}, tmp_path / "a.pth")
    found = averaged(open_checkpoint(tmp_path / "a.pth"), lambda place: open_checkpoint(tmp_path / "a.pth", place))
    assert list(found) == ["weight", "bias"]


def test_a_model_with_two_networks_has_no_average(tmp_path: Path) -> None:
    state = {"ema_gate.weight": torch.ones(2), "body.weight": torch.ones(3), "ema.alpha": torch.ones(1)}
    torch.save(state, tmp_path / "a.pth")
    assert "average" not in {fact.name for fact in facts_of(open_checkpoint(tmp_path / "a.pth"))}


def test_ties_of_the_metadata(tmp_path: Path) -> None:
    found = recorded_ties(open_checkpoint(noted_tie(tmp_path)))
    assert {*found.items()} in ({("wte.weight", "lm_head.weight")}, {("lm_head.weight", "wte.weight")})


def test_what_torch_allows_by_default() -> None:
    allowed = set(_get_allowed_globals())
    assert {name for name in allowed if not is_allowed(name)} == set()
    names = ["argparse.Namespace", "pathlib.PosixPath", "datetime.datetime", "collections.defaultdict", "torch.load"]
    names += ["numpy.core.multiarray.scalar", "torch._utils._rebuild_xla_tensor", "torch.float", "torch.nn.Linear"]
    assert [name for name in names if is_allowed(name)] == [name for name in names if name in allowed]


@pytest.mark.parametrize(
    "content",
    [
        {"w": torch.ones(1), "x": argparse.Namespace(a=1)},
        {"w": torch.ones(1), "x": Path("a")},
        {"w": torch.ones(1), "x": OrderedDict(a=1), "y": {1, 2}, "z": torch.float16, "s": torch.Size([1]), "b": b"a"},
        {"w": torch.ones(1), "x": slice(1, 2)},
        {"w": nn.Parameter(torch.ones(1)), "c": 1j, "d": torch.device("cpu"), "e": bytearray(b"x")},
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [True, False])
def test_the_verdict_on_weights_only_is_torchs(content: object, protocol: int, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    said = any(fact.name == "weights-only" for fact in facts_of(open_checkpoint(path)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.load(path, weights_only=True)
    except Exception:
        assert said
    else:
        assert not said


def test_the_classes_to_allow_are_all_listed(tmp_path: Path) -> None:
    """What the hint names, and no less, makes torch.load take the file."""
    import datetime
    import uuid
    from importlib import import_module

    import numpy as np

    beside = [np.float64(1), Path("x"), datetime.timedelta(1), datetime.date(2026, 1, 1), argparse.Namespace(x=1)]
    torch.save({"model": {"w": torch.ones(2)}, "beside": [*beside, uuid.UUID(int=1)]}, tmp_path / "a.pth")
    (fact,) = (fact for fact in facts_of(open_checkpoint(tmp_path / "a.pth")) if fact.name == "weights-only")
    listed = fact.hint.partition("([")[2].partition("])")[0].split(", ")
    assert len(listed) > 5 and "..." not in listed
    classes = []
    for name in listed:
        module, _, last = name.rpartition(".")
        classes.append(getattr(import_module(module), last))
    with torch.serialization.safe_globals([*classes, type(np.dtype("float64"))]):  # numpy's own, made by a call
        torch.load(tmp_path / "a.pth", weights_only=True)


def test_pickles_that_torch_refuses_always(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A torch file whose pickle sets an item on a tensor: GLOBAL ... REDUCE, then a key, a value, SETITEM."""
    import zipfile

    torch.save({"w": torch.ones(2)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = next(name for name in members if name.endswith("data.pkl"))
    pickle = members[name]
    assert pickle.endswith(b"s.")  # SETITEM of the dict, STOP
    members[name] = pickle[:-2] + b"X\x01\x00\x00\x00kK\x01ss."
    with zipfile.ZipFile(tmp_path / "bad.pth", "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    for weights_only in (True, False):
        with pytest.raises(Exception, match=r".+"):
            torch.load(tmp_path / "bad.pth", weights_only=weights_only)
    assert "unloadable" in {fact.name for fact in facts_of(open_checkpoint(tmp_path / "bad.pth"))}
    assert run(["check", str(tmp_path / "bad.pth")]) == 1
    assert "items are set on a tensor" in flat(capsys.readouterr().out)


def test_a_payload_beside_the_weights_is_a_difference(tmp_path: Path, fixtures: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            import os

            return os.system, ("true",)

    torch.save({"w": torch.ones(2)}, tmp_path / "clean.pth")
    torch.save({"w": torch.ones(2), "note": Payload()}, tmp_path / "bad.pth")
    assert run(["diff", str(tmp_path / "clean.pth"), str(tmp_path / "bad.pth")]) == 1
    assert run(["diff", str(tmp_path / "clean.pth"), str(tmp_path / "bad.pth"), "--only", "w"]) == 0


def test_extra_state_is_unexpected_for_a_model_without(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Linear):\n    def __init__(self):\n        super().__init__(2, 2)\n\n\n"
        "class WithState(Net):\n    def get_extra_state(self):\n        return 1\n\n"
        "    def set_extra_state(self, state):\n        raise RuntimeError('it is not called')\n"
    )
    state = nn.Linear(2, 2).state_dict()
    torch.save({**state, "_extra_state": BytesIO(b"x")}, tmp_path / "a.pth")
    into = ["--into", f"{tmp_path / 'net.py'}:Net"]
    assert run(["check", str(tmp_path / "a.pth"), *into]) == 1
    assert run(["transplant", str(tmp_path / "a.pth"), *into, "--strict"]) == 1
    into = ["--into", f"{tmp_path / 'net.py'}:WithState"]
    assert run(["transplant", str(tmp_path / "a.pth"), *into, "--strict"]) == 0
    assert run(["transplant", str(tmp_path / "plain.pth"), *into, "--strict"]) == 2
    torch.save(state, tmp_path / "plain.pth")
    assert run(["transplant", str(tmp_path / "plain.pth"), *into, "--strict"]) == 1


COMMANDS = ["filter -o {out}.pth", "filter -o {out}.safetensors", "filter --dtype bf16 -o {out}.pth", "inspect --stats"]


@pytest.mark.parametrize("where", ["first", "last"])
@pytest.mark.parametrize("command", COMMANDS)
def test_bit_rot_is_found_wherever_values_are_read(
    where: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weight = torch.randn(300, 700)
    torch.save({"fc.weight": weight}, tmp_path / "a.pth")
    data = bytearray((tmp_path / "a.pth").read_bytes())
    start = bytes(data).index(weight.numpy().tobytes())
    data[start + (5 if where == "first" else weight.nbytes - 3)] ^= 4
    (tmp_path / "a.pth").write_bytes(data)
    name, *options = [part.format(out=tmp_path / "out") for part in command.split()]
    assert run([name, str(tmp_path / "a.pth"), *options]) == 2
    assert "differ from the CRC-32 in the file" in flat(capsys.readouterr().err)
    assert not [*tmp_path.glob("out*")]
    assert run(["check", str(tmp_path / "a.pth")]) == 1


@pytest.mark.parametrize("command", [*COMMANDS, "diff {path}"])
@pytest.mark.parametrize("layout", ["transposed", "chunks"])
def test_bit_rot_is_found_in_other_layouts(
    layout: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors whose elements do not follow one another in the file: a transposed view, chunks of torch.distributed."""
    weight, path = torch.randn(300, 70), tmp_path / "a.pth"
    torch.save({"fc.weight": weight.t()}, path)
    if layout == "chunks":
        path = chunks(weight, tmp_path)
    (file,) = [path] if path.is_file() else path.glob("*.distcp")
    data = bytearray(file.read_bytes())
    half = weight[200, :35].contiguous()  # in either layout
    data[bytes(data).index(half.numpy().tobytes()) + 3] ^= 4
    file.write_bytes(data)
    torch.save(
        {"fc.weight": torch.zeros(70, 300) if layout == "transposed" else torch.zeros(300, 70)}, tmp_path / "b.pth"
    )
    name, *options = [part.format(out=tmp_path / "out", path=tmp_path / "b.pth") for part in command.split()]
    assert run([name, str(path), *options]) == 2
    assert "differ from the CRC-32 in the file" in flat(capsys.readouterr().err)
    assert run(["check", str(path)]) == 1


def chunks(weight: torch.Tensor, folder: Path) -> Path:
    """A checkpoint of torch.distributed in which a tensor is two chunks, by columns."""
    import torch.distributed as dist
    from torch.distributed._shard import sharded_tensor as sharded
    from torch.distributed._shard.sharding_spec import EnumerableShardingSpec, ShardMetadata
    from torch.distributed.checkpoint import FileSystemWriter, save

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        half, (rows, columns) = weight.shape[1] // 2, weight.shape
        parts = [ShardMetadata([0, at], [rows, half], "rank:0/cpu") for at in (0, half)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = sharded.empty(EnumerableShardingSpec(parts), rows, columns)
            for number, shard in enumerate(value.local_shards()):
                shard.tensor.copy_(weight[:, number * half : (number + 1) * half])
            save({"fc.weight": value}, storage_writer=FileSystemWriter(folder / "dcp"))
    finally:
        dist.destroy_process_group()
    return folder / "dcp"


def test_check_compares_every_checksum_of_the_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Integers, and records that no tensor covers, too; a file that is whole has no finding."""
    assert run(["check", str(damaged_values(tmp_path)), "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)["findings"]
    assert (found["rule"], found["level"], found["keys"]) == ("facts", "error", ["n", "a", "b"])
    assert "differ from the CRC-32 in the file" in found["message"]
    (tmp_path / "p.toml").write_text('allow.facts = ["checksum"]\n')
    assert run(["check", str(tmp_path / "rot.pth"), "--policy", str(tmp_path / "p.toml")]) == 0
    for name in ("no_index", "unchecked"):
        (tmp_path / name).mkdir()
    assert run(["check", str(no_index(tmp_path / "no_index")), str(unchecked(tmp_path / "unchecked"))]) == 0


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_user_may_insist_on_damaged_values(ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = str(damaged_values(tmp_path)), tmp_path / f"out.{ending}"
    assert run(["filter", path, "-o", str(out)]) == 2
    told = flat(capsys.readouterr().err)
    assert "of the tensor n at" in told and "--allow checksum writes it as it is" in told
    assert run(["filter", path, "-o", str(out), "--allow", "checksum"]) == 0
    told = flat(capsys.readouterr().err)
    assert "of the tensor n at" in told and "written as it is" in told
    told_of: list[Exception] = []
    with Reader(on_damage=told_of.append) as reader:
        kept = reader.array(open_checkpoint(out)["n"])
    assert len(told_of) == (ending == "pth")  # a torch file keeps the checksum that differs
    assert kept.tolist() == torch.load(path)["n"].tolist() != list(range(9))
    assert run(["check", str(out)]) == (1 if ending == "pth" else 0)
    assert run(["filter", path, "--drop", "[!w]", "-o", str(tmp_path / "rest.pth")]) == 0


def test_folders_that_need_another_tool_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import zipfile

    torch.save({"w": torch.ones(2)}, tmp_path / "weights.pth")
    with zipfile.ZipFile(tmp_path / "weights.pth") as archive:
        archive.extractall(tmp_path)
    assert run(["inspect", str(tmp_path / "weights")]) == 2
    assert "unpacked" in flat(capsys.readouterr().err)
    folder = tmp_path / "global_step10"
    folder.mkdir()
    for rank in range(2):
        torch.save({"x": torch.ones(2)}, folder / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    assert run(["inspect", str(folder)]) == 2
    assert "DeepSpeed" in flat(capsys.readouterr().err)


def test_adapters_are_merged_with_lora_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"q_proj.weight": torch.ones(4, 4)}, tmp_path / "base.safetensors")
    base, out = str(tmp_path / "base.safetensors"), str(tmp_path / "o.safetensors")
    for make in (peft_adapter, kohya_adapter):
        assert run(["merge", base, str(make(tmp_path)), "-o", out]) == 2
        assert "adapter, not a model" in flat(capsys.readouterr().err)
    assert run(["merge", base, "--lora", str(kohya_adapter(tmp_path)), "-o", out]) == 2
    assert "none of the modules that the adapter is for" in flat(capsys.readouterr().err)


def test_numpy_arrays_among_the_weights_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np

    torch.save({"fc.weight": torch.ones(2), "mean": np.ones(3)}, tmp_path / "a.pth")
    assert run(["inspect", str(tmp_path / "a.pth")]) == 0
    told = flat(capsys.readouterr().out)
    assert "1 entry is a numpy array, not a torch tensor: mean load_state_dict refuses arrays" in told
    loaded = torch.load(tmp_path / "a.pth", weights_only=False)
    with pytest.raises(RuntimeError, match="numpy"):
        nn.ParameterDict({"mean": torch.ones(3)}).load_state_dict({"mean": loaded["mean"]})
    assert run(["filter", str(tmp_path / "a.pth"), "-o", str(tmp_path / "b.pth")]) == 0
    capsys.readouterr()
    assert run(["inspect", str(tmp_path / "b.pth")]) == 0
    assert "numpy array" not in capsys.readouterr().out


def test_numpy_arrays_of_objects_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np

    texts = np.array([{}, 1], dtype=object)
    torch.save({"model": {"a.weight": texts, "a.bias": texts.copy()}}, tmp_path / "a.pth")
    assert run(["inspect", str(tmp_path / "a.pth")]) == 0
    assert "2 entries are numpy arrays of objects, not torch tensors: model.a.weight, model.a.bias" in flat(
        capsys.readouterr().out
    )
    assert run(["check", str(tmp_path / "a.pth")]) == 0
    assert "numpy arrays" in flat(capsys.readouterr().out)


def test_other_kinds_of_tensors_are_called_by_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for make, words in [
        (sharded_tensor, "1 tensor is of class torch.distributed._shard.sharded_tensor.api.ShardedTensor: fc.weight"),
    ]:
        assert run(["inspect", str(make(tmp_path))]) == 0
        told = flat(capsys.readouterr().out)
        assert words in told and "] meta" not in told and "on the meta device" not in told and "nested" not in told


def test_a_dtensor_is_called_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = dtensor(tmp_path)
    assert run(["inspect", str(path)]) == 0
    told = flat(capsys.readouterr().out)
    assert "1 tensor is of class torch.distributed.tensor.DTensor: fc.weight" in told
    assert "f32[4,3] DTensor" in told and "nested" not in told
    assert run(["filter", str(path), "-o", str(tmp_path / "o.safetensors")]) == 2
    assert "fc.weight is torch.distributed.tensor.DTensor" in flat(capsys.readouterr().err)


def test_facts_are_found_once(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(batchnorm(tmp_path))
    assert facts_of(checkpoint) is facts_of(checkpoint)


def test_an_unknown_fact_is_refused_in_the_api(tmp_path: Path) -> None:
    from ckptool.commands.filter import plan_filter

    with pytest.raises(UsageError, match="there is no such fact"):
        consulted(plan_filter(open_checkpoint(batchnorm(tmp_path))), ["nothing"])


def test_plain_models_have_no_facts_that_act(torchvision: ModuleType, tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "a.pth")
    assert {fact.name for fact in facts_of(open_checkpoint(tmp_path / "a.pth"))} == {"architecture", "statistics"}


HINTED: list[tuple[str, dict[str, tuple[int, ...]], list[str]]] = [
    (
        "counters",
        {"bn.weight": (3,), "bn.bias": (3,), "bn.running_mean": (3,), "bn.running_var": (3,)},
        ["bn.num_batches_tracked"],
    ),
    (
        "densenet-names",
        {
            **{f"features.denseblock1.denselayer1.norm.{n}.{k}": (4,) for n in (1, 2) for k in ("weight", "bias")},
            **{f"features.denseblock1.denselayer1.conv.{n}.weight": (4, 4, 1, 1) for n in (1, 2)},
        },
        ["features.denseblock1.denselayer1.norm1.weight", "features.denseblock1.denselayer1.conv2.weight"],
    ),
    (
        "tensorflow-norms",
        {"encoder.LayerNorm.gamma": (4,), "encoder.LayerNorm.beta": (4,), "encoder.dense.weight": (4, 4)},
        ["encoder.LayerNorm.weight", "encoder.LayerNorm.bias"],
    ),
    ("wrapper", {"module.a.weight": (2,), "module.b.weight": (2,)}, ["a.weight", "b.weight"]),
]


@pytest.mark.parametrize(("name", "shapes", "made"), HINTED, ids=[name for name, *_ in HINTED])
def test_the_command_that_a_fact_names_does_what_it_says(
    name: str, shapes: dict[str, tuple[int, ...]], made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`inspect` suggests a recipe only where the headers prove that it applies: the command runs as it is printed."""
    monkeypatch.chdir(tmp_path)
    torch.save({key: torch.ones(shape) for key, shape in shapes.items()}, "a.pth")
    checkpoint = open_checkpoint("a.pth")
    (fact,) = (fact for fact in facts_of(checkpoint) if fact.name == name)
    command = shlex.split(note_of(fact, checkpoint).hint.partition("ckptool ")[2])
    assert run([*command[:-1], "out.pth"]) == 0
    assert set(made) <= set(torch.load("out.pth"))


def test_allow_leads_to_facts_that_may_be_allowed(fixtures: Path) -> None:
    plan = plan_filter(open_checkpoint(fixtures / "resnet18.pth"))
    for kind in (kind for kind in kinds() if kind.__module__.startswith("ckptool.")):  # not those of other tests
        own = inspect.getsource(kind)
        inherited = any(getattr(base, "may_be_allowed", False) for base in kind.__bases__)
        assert kind.may_be_allowed == ("may_insist" in own or inherited), kind
    for typed, meant in [("quantized", "encoded"), ("quantised", "encoded"), ("lora", "adapter"), ("ranks_", "rank")]:
        with pytest.raises(UsageError) as caught:
            consulted(plan, (typed,))
        assert (caught.value.hint or "").startswith(f'did you mean "{meant}"?')
    with pytest.raises(UsageError) as caught:
        consulted(plan, ("zzz",))
    assert (caught.value.hint or "").startswith("facts that may be allowed: adapter, checksum, encoded")


def half_of_a_model(folder: Path) -> Path:
    """One rank's file, with layers of two dtypes and objects that torch.load refuses; the next rank's beside it."""
    for rank in range(2):
        state = {f"layers.{i}.w": torch.ones(4, 2, dtype=(torch.float32, torch.float16)[i % 2]) for i in range(4)}
        saved = {"model": state, "args": argparse.Namespace(rank=rank)}
        torch.save(saved, folder / f"consolidated.{rank:02d}.pth")
    (folder / "params.json").write_text('{"dim": 8, "n_heads": 2}')
    return folder / "consolidated.00.pth"


MAKERS = list(dict.fromkeys([half_of_a_model, *(make for make, _, _ in TABLE)]))


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_what_inspect_suggests_is_not_refused(make: Make, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(make(tmp_path))
    notes = [note_of(fact, checkpoint) for fact in facts_of(checkpoint) if fact.is_listed]
    commands = [word for note in notes for word in re.findall(r"ckptool ((?:filter|remap) .*? -o) OUT", note.hint)]
    for number, command in enumerate(commands):
        assert run([*shlex.split(command), str(tmp_path / f"out{number}.pth")]) == 0, command
    assert not commands or make is not half_of_a_model
    assert commands or make not in (namespace, extra_state)


def test_a_tensor_without_values_has_no_bytes_before_or_after(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(meta(tmp_path))
    plan = plan_filter(checkpoint)
    assert (
        plan.nbytes
        == sum(tensor.nbytes for tensor in checkpoint.values())
        < sum(step.target.nbytes for step in plan.steps)
    )
