"""Anything -> safetensors, one file or shards; and from there back to torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp
from torch import nn

from ckptool.commands.beside.choices import Choices
from ckptool.commands.beside.complete import complete
from ckptool.commands.filter import plan_filter
from ckptool.core.dtypes import DTYPES
from ckptool.core.errors import OutputError
from ckptool.core.ties import TIED_KEY
from ckptool.engine.apply import Written
from ckptool.engine.filling import write_image
from ckptool.formats.image import Image
from ckptool.formats.opening import open_checkpoint
from ckptool.storage.sink import ByteSink
from tests.deep_equal import bits
from tests.writing import apply


def convert(source: Path, target: Path, *choices: tuple[str, str], **options: Any) -> Written:
    return apply(plan_filter(open_checkpoint(source), choices), target, force=True, **options)


def assert_same(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """The same keys, specs and bytes; safetensors keeps no order of keys."""
    assert set(found) == set(expected)
    for key, tensor in expected.items():
        assert (found[key].dtype, found[key].shape) == (tensor.dtype, tensor.shape), key
        assert bits(found[key]) == bits(tensor), key


def metadata_of(path: Path) -> dict[str, str]:
    with safetensors.safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def load_folder(folder: Path) -> dict[str, torch.Tensor]:
    """As transformers reads it: the index says which shard holds which key."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    found = {}
    for name in sorted(set(index["weight_map"].values())):
        with safetensors.safe_open(folder / name, "pt") as file:
            assert file.metadata()["format"] == "pt"
            for key in file.keys():  # noqa: SIM118 (it is not a dict)
                assert index["weight_map"][key] == name
                found[key] = file.get_tensor(key)
    assert set(found) == set(index["weight_map"])
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in found.values())
    return found


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "embed.weight": torch.randn(300, 40),
        "scale": torch.tensor(2.0),
        "empty": torch.zeros(0, 3),
        "half": torch.randn(7).half(),
        "layer.weight": torch.randn(40, 30).t(),
        "layer.bias": torch.randn(60)[::2],
        "flags": torch.tensor([True, False, True]),
        "counter": torch.tensor(5),
        "ключ.weight": torch.randn(3).bfloat16(),
    }


@pytest.fixture(params=["zip", "legacy", "safetensors", "bin shards", "safetensors shards", "dcp"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The same weights in every format."""
    folder = tmp_path / "in"
    folder.mkdir()
    value = weights()
    if request.param in ("zip", "legacy"):
        torch.save(value, folder / "in.pth", _use_new_zipfile_serialization=request.param == "zip")
        return folder / "in.pth"
    plain = {key: tensor.contiguous() for key, tensor in value.items()}
    if request.param == "safetensors":
        safetensors.torch.save_file(plain, folder / "in.safetensors", {"format": "pt", "author": "me"})
        return folder / "in.safetensors"
    if request.param == "dcp":
        dcp.save(plain, checkpoint_id=folder, no_dist=True)
        return folder
    kind = request.param.split()[0]
    name, suffix = ("pytorch_model", "bin") if kind == "bin" else ("model", "safetensors")
    weight_map = {}
    keys = list(plain)
    for number, part in enumerate([keys[:4], keys[4:]], 1):
        shard = f"{name}-{number:05d}-of-00002.{suffix}"
        held = {key: plain[key] for key in part}
        if kind == "bin":
            torch.save(held, folder / shard)
        else:
            safetensors.torch.save_file(held, folder / shard, {"format": "pt"})
        weight_map |= dict.fromkeys(part, shard)
    (folder / f"{name}.{suffix}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


@pytest.mark.filterwarnings("ignore:.*")
def test_every_format_to_one_file_and_back(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.safetensors"
    written = convert(source, target)
    assert (written.tensors, written.nbytes, written.files) == (len(weights()), target.stat().st_size, (target,))
    assert_same(safetensors.torch.load_file(target), weights())
    assert metadata_of(target)["format"] == "pt"
    convert(target, tmp_path / "back.pth")
    assert_same(torch.load(tmp_path / "back.pth", weights_only=True, mmap=True), weights())
    convert(source, tmp_path / "direct.bin")
    assert_same(torch.load(tmp_path / "direct.bin", weights_only=True), weights())


@pytest.mark.filterwarnings("ignore:.*")
def test_every_format_to_shards_and_back(source: Path, tmp_path: Path) -> None:
    written = convert(source, tmp_path / "out", max_shard=10_000)
    names = [path.name for path in written.files]
    assert names[-1] == "model.safetensors.index.json"
    assert sorted(names) == sorted(path.name for path in (tmp_path / "out").iterdir())
    assert_same(load_folder(tmp_path / "out"), weights())
    convert(tmp_path / "out", tmp_path / "joined.safetensors")
    assert_same(safetensors.torch.load_file(tmp_path / "joined.safetensors"), weights())
    convert(tmp_path / "out", tmp_path / "joined.pth", ("drop", "embed.weight"))
    rest = {key: tensor for key, tensor in weights().items() if key != "embed.weight"}
    assert_same(torch.load(tmp_path / "joined.pth", weights_only=True), rest)


def test_metadata_is_kept(tmp_path: Path) -> None:
    said = {"format": "pt", "training": '{"lr": 0.1}', "": "empty name", "ключ": "\u202e\n"}
    safetensors.torch.save_file({"a": torch.ones(2), "b": torch.ones(3)}, tmp_path / "in.safetensors", said)
    convert(tmp_path / "in.safetensors", tmp_path / "out.safetensors", ("drop", "a"))
    assert metadata_of(tmp_path / "out.safetensors") == said
    convert(tmp_path / "in.safetensors", tmp_path / "out", max_shard=8)
    for shard in (tmp_path / "out").glob("*.safetensors"):
        assert metadata_of(shard) == said


def test_file_without_metadata_stays_without(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / "in.safetensors")
    convert(tmp_path / "in.safetensors", tmp_path / "out.safetensors")
    with safetensors.safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert file.metadata() is None


def test_data_is_aligned_and_widest_first(tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "in.pth")
    convert(tmp_path / "in.pth", tmp_path / "out.safetensors")
    raw = (tmp_path / "out.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    assert (8 + length) % 8 == 0
    rows = sorted((row["data_offsets"], key) for key, row in header.items() if key != "__metadata__")
    for (start, stop), key in rows:
        width = weights()[key].element_size()
        assert (8 + length + start) % width == 0 or start == stop
    widths = [weights()[key].element_size() for _, key in rows]
    assert widths == sorted(widths, reverse=True)


def test_same_input_same_bytes(tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "in.pth")
    for name in ("a", "b"):
        convert(tmp_path / "in.pth", tmp_path / f"{name}.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


HELD = [
    d.name for d in DTYPES.values() if d.safetensors and not d.is_packed and d.name not in ("float4_e2m1fn_x2", "bool")
]


@pytest.mark.parametrize("dtype", HELD)
def test_every_dtype(tmp_path: Path, dtype: str) -> None:
    value = {"a": torch.randint(0, 2, (3, 16), dtype=torch.uint8).view(getattr(torch, dtype))}
    torch.save(value, tmp_path / "in.pth")
    convert(tmp_path / "in.pth", tmp_path / "out.safetensors")
    assert_same(safetensors.torch.load_file(tmp_path / "out.safetensors"), value)


def test_packed_four_bit_floats(tmp_path: Path) -> None:
    packed = torch.arange(24, dtype=torch.uint8).reshape(4, 6).view(torch.float4_e2m1fn_x2)
    torch.save({"a": packed}, tmp_path / "in.pth")
    convert(tmp_path / "in.pth", tmp_path / "out.safetensors")
    found = safetensors.torch.load_file(tmp_path / "out.safetensors")["a"]
    assert found.dtype == packed.dtype
    assert found.view(torch.uint8).tolist() == packed.view(torch.uint8).tolist()
    convert(tmp_path / "out.safetensors", tmp_path / "back.pth")
    assert torch.load(tmp_path / "back.pth")["a"].view(torch.uint8).tolist() == packed.view(torch.uint8).tolist()


@pytest.mark.filterwarnings("ignore:.*")
def test_what_it_cannot_hold_is_refused_with_a_count(tmp_path: Path) -> None:
    value = {
        "a": torch.ones(2),
        "quantized": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "sparse": torch.eye(3).to_sparse(),
        "meta": torch.empty(3, device="meta"),
        "z": torch.ones(2, dtype=torch.complex128),
    }
    torch.save(value, tmp_path / "in.pth")
    for target in (tmp_path / "out.safetensors", tmp_path / "out"):
        with pytest.raises(OutputError, match="cannot hold 4 of 5 tensors: quantized is quantized") as error:
            convert(tmp_path / "in.pth", target)
        assert error.value.hint == "write a .pth file, or --drop them"
        assert not target.exists()
    drops = [("drop", key) for key in value if key != "a"]
    convert(tmp_path / "in.pth", tmp_path / "out.safetensors", *drops)
    assert set(safetensors.torch.load_file(tmp_path / "out.safetensors")) == {"a"}


@pytest.mark.parametrize("key", ["__metadata__", "\ud800"])
def test_keys_that_it_cannot_hold(tmp_path: Path, key: str) -> None:
    torch.save({key: torch.ones(2), "a": torch.ones(1)}, tmp_path / "in.pth")
    with pytest.raises(OutputError, match=r"is called __metadata__|UTF-8") as error:
        convert(tmp_path / "in.pth", tmp_path / "out.safetensors")
    assert "ckptool remap" in str(error.value.hint)
    assert [path.name for path in tmp_path.iterdir()] == ["in.pth"]


def test_odd_keys_survive(tmp_path: Path) -> None:
    value = {
        key: torch.full((2,), float(i)) for i, key in enumerate(["", " ", "a/b", '"', "\n", "a\0b", "é", "e\u0301"])
    }
    torch.save(value, tmp_path / "in.pth")
    convert(tmp_path / "in.pth", tmp_path / "out.safetensors")
    assert_same(safetensors.torch.load_file(tmp_path / "out.safetensors"), value)


# --- tied tensors


def tied(folder: Path) -> Path:
    embed = torch.randn(6, 4)
    torch.save(
        {"embed": embed, "head": embed, "rows": embed[:2], "b": torch.ones(1), "again": embed}, folder / "in.pth"
    )
    return folder / "in.pth"


def test_tied_tensors_are_cloned(tmp_path: Path) -> None:
    source, target = tied(tmp_path), tmp_path / "out.safetensors"
    value = torch.load(source)
    convert(source, target)
    assert_same(safetensors.torch.load_file(target), value)
    assert json.loads(metadata_of(target)[TIED_KEY]) == {"head": "embed", "again": "embed"}
    note, apart = complete(plan_filter(open_checkpoint(source)), "safetensors").notes
    assert set(apart.keys) == {"embed", "rows"}
    assert note.text == "2 tied tensors are written as copies"
    assert note.keys == ("head", "again")


def test_first_of_tied_tensors_is_kept(tmp_path: Path) -> None:
    source = tied(tmp_path)
    value = torch.load(source)
    for target in (tmp_path / "out.safetensors", tmp_path / "out"):
        assert convert(source, target, tied="keep-first").tensors == 3
        file = target if target.is_file() else target / "model.safetensors"
        assert_same(safetensors.torch.load_file(file), {key: value[key] for key in ("embed", "rows", "b")})
        assert json.loads(metadata_of(file)[TIED_KEY]) == {"head": "embed", "again": "embed"}
        container = "safetensors" if target.suffix else "folder"
        plan = complete(plan_filter(open_checkpoint(source)), container, Choices(tied="keep-first"))
        assert "left out" in plan.notes[0].text
        assert [step.target.key for step in plan.steps if not step.stored] == ["head", "again"]


def test_tied_module_loads_from_what_is_kept(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
            self.head.weight = self.embed.weight

    model = Tied()
    torch.save(model.state_dict(), tmp_path / "in.pth")
    convert(tmp_path / "in.pth", tmp_path / "out.safetensors", tied="keep-first")
    other = Tied()
    safetensors.torch.load_model(other, tmp_path / "out.safetensors")
    assert torch.equal(other.head.weight, model.embed.weight)


# --- shards


def test_shards_are_no_larger_than_asked(tmp_path: Path) -> None:
    value = {f"{i}": torch.randn(100 + i) for i in range(40)}
    value["large"] = torch.randn(3000)  # has a shard of its own
    torch.save(value, tmp_path / "in.pth")
    convert(tmp_path / "in.pth", tmp_path / "out", max_shard=4000)
    assert_same(load_folder(tmp_path / "out"), value)
    for shard in (tmp_path / "out").glob("*.safetensors"):
        held = safetensors.torch.load_file(shard)
        assert sum(tensor.nbytes for tensor in held.values()) <= 4000 or list(held) == ["large"]
    names = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert names == [f"model-{n:05d}-of-{len(names):05d}.safetensors" for n in range(1, len(names) + 1)]


def test_one_shard_is_a_plain_file(tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "in.pth")
    convert(tmp_path / "in.pth", tmp_path / "llama-3.1")
    assert [path.name for path in (tmp_path / "llama-3.1").iterdir()] == ["model.safetensors"]
    assert_same(safetensors.torch.load_file(tmp_path / "llama-3.1" / "model.safetensors"), weights())


def test_shard_size_of_a_file_is_refused(tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "in.pth")
    with pytest.raises(OutputError, match="is one file"):
        convert(tmp_path / "in.pth", tmp_path / "out.safetensors", max_shard=100)


# --- other sources


def test_weights_of_a_training_checkpoint_load_into_the_model(tmp_path: Path, torchvision: ModuleType) -> None:
    model = torchvision.models.resnet18()
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, tmp_path / "in.ckpt")
    convert(tmp_path / "in.ckpt", tmp_path / "out.safetensors")
    fresh = torchvision.models.resnet18()
    fresh.load_state_dict(safetensors.torch.load_file(tmp_path / "out.safetensors"), strict=True)


@pytest.mark.filterwarnings("ignore:.*")
def test_training_state_of_torch_distributed(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    value = {"model": model.state_dict(), "epoch": 3}
    dcp.save(value, checkpoint_id=tmp_path / "dcp", no_dist=True)
    convert(tmp_path / "dcp", tmp_path / "out.pth")
    found = torch.load(tmp_path / "out.pth", weights_only=True)
    assert_same(found["model"], model.state_dict())
    assert found["epoch"] == 3
    convert(tmp_path / "dcp", tmp_path / "out.safetensors")
    assert_same(safetensors.torch.load_file(tmp_path / "out.safetensors"), model.state_dict())


@pytest.mark.parametrize(
    ("out", "planned", "written", "message"),
    [
        ("out.safetensors", b'"a.weight"', b'"z.weight"', "does not hold a.weight as planned"),
        ("out.safetensors", b'"shape":[4]', b'"shape":[5]', "could not be read again"),
        ("out.safetensors", b"[0,16]", b"[4,20]", "could not be read again"),
        ("out.safetensors", b'"b.weight"', b'"a.weight"', 'could not be read again.*names "a.weight" twice'),
        ("out", b'"b.weight"', b'"z.weight"', 'could not be read again.*puts "b.weight" into'),
        ("out", b'"weight_map"', b'"weight_mop"', "the written index is not as planned"),
    ],
)
def test_a_header_that_came_out_otherwise_is_found(
    out: str, planned: bytes, written: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage(sink: ByteSink, image: Image, *others: Any) -> None:
        write_image(sink, image, *others)
        for at, text in image.literals:
            if planned in text and (b"weight_map" in text) == (b"weight_map" in planned):
                sink.write(written, at + text.index(planned))

    source = tmp_path / "in.safetensors"
    safetensors.torch.save_file({"a.weight": torch.ones(4), "b.weight": torch.ones(4)}, source)
    monkeypatch.setattr("ckptool.engine.apply.write_image", damage)
    with pytest.raises(OutputError, match=message):
        convert(source, tmp_path / out, **({} if "." in out else {"max_shard": 16}))
    assert list(tmp_path.iterdir()) == [source]
