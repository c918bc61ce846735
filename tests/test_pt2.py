"""Archives of torch.export: torch writes them and reads them back; ckptool gives the same weights."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.export import ExportedProgram

import ckptool
from ckptool.cli.app import run
from ckptool.core.errors import CkptError
from ckptool.engine.reading import Reader

pytestmark = pytest.mark.filterwarnings("ignore")


class Net(nn.Module):
    """Tied weights, a view, a transposed buffer, a buffer that is not saved, constants, several dtypes."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 4)
        self.tied = self.fc.weight
        self.emb = nn.Parameter(torch.randn(5, 4).bfloat16())
        self.part = nn.Parameter(torch.randn(10, 4)[2:7])
        self.register_buffer("turned", torch.arange(6).view(2, 3).t())
        self.register_buffer("transient", torch.ones(3), persistent=False)
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("small", torch.randn(4).to(torch.float8_e4m3fn))
        self.constant = torch.ones(2) * 3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        own = self.emb.float().sum() + self.part.sum() + self.turned.sum() + self.transient.sum() + self.tied.sum()
        return (
            self.fc(x)
            + own
            + self.constant.sum()
            + self.mask.sum()
            + self.small.float().sum()
            + torch.tensor([1.0, 2.0]).sum()
        )


def program() -> ExportedProgram:
    torch.manual_seed(0)
    return torch.export.export(Net().eval(), (torch.ones(2, 3),))


def saved(path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program(), path)
    return path


def of_torch_2_7(path: Path) -> Path:
    """As torch.export.save wrote until torch 2.7: a flat archive."""
    from torch._export.serde.schema import SCHEMA_VERSION
    from torch._export.serde.serialize import serialize

    artifact = serialize(program())
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("serialized_exported_program.json", artifact.exported_program)
        archive.writestr("serialized_state_dict.pt", artifact.state_dict)
        archive.writestr("serialized_constants.pt", artifact.constants)
        archive.writestr("serialized_example_inputs.pt", artifact.example_inputs)
        archive.writestr("version", ".".join(map(str, SCHEMA_VERSION)))
    return path


def of_torch_2_8(path: Path) -> Path:
    """As torch 2.8 wrote: the folders of today, and the weights as one torch file."""
    from torch._export.serde.serialize import serialize
    from torch.export.pt2_archive._package import PT2ArchiveWriter

    artifact = serialize(program())
    with PT2ArchiveWriter(str(path)) as writer:
        writer.write_string("models/model.json", artifact.exported_program.decode())
        writer.write_bytes("data/weights/model.pt", artifact.state_dict)
        writer.write_bytes("data/constants/model.pt", artifact.constants)
        writer.write_bytes("data/sample_inputs/model.pt", artifact.example_inputs)
    return path


@pytest.mark.parametrize("write", [saved, of_torch_2_7, of_torch_2_8])
def test_the_weights_that_torch_loads(write: Callable[[Path], Path], tmp_path: Path) -> None:
    path = write(tmp_path / "net.pt2")
    expected = torch.export.load(path).state_dict
    checkpoint = ckptool.open(path)
    assert list(checkpoint) == list(expected)
    assert checkpoint["tied"].storage == checkpoint["fc.weight"].storage
    torch.save(dict(expected), tmp_path / "plain.pth")
    plain = ckptool.open(tmp_path / "plain.pth")
    with Reader([checkpoint, plain]) as reader:
        for key in expected:
            assert checkpoint[key].spec == plain[key].spec
            assert reader.read_bytes(checkpoint[key]) == reader.read_bytes(plain[key]), key
    constants = ckptool.open(path, select="constants")
    assert set(constants) >= {"constant", "transient"}
    assert {f"constants.{key}" for key in constants} == set(checkpoint.other_tensors)


@pytest.mark.parametrize("write", [saved, of_torch_2_7, of_torch_2_8])
def test_as_other_files(write: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, plain, pth = write(tmp_path / "net.pt2"), tmp_path / "net.safetensors", tmp_path / "net.pth"
    expected = torch.export.load(path).state_dict
    assert run(["inspect", str(path)]) == 0
    assert "torch.export program" in capsys.readouterr().out
    assert run(["filter", str(path), "--tied", "clone", "-o", str(plain)]) == 0
    assert run(["filter", str(path), "-o", str(pth)]) == 0
    loaded = torch.load(pth, weights_only=True)
    for key, tensor in expected.items():
        assert torch.equal(load_file(plain)[key].view(torch.uint8), tensor.detach().contiguous().view(torch.uint8))
        assert torch.equal(loaded[key].contiguous().view(torch.uint8), tensor.detach().contiguous().view(torch.uint8))
    assert loaded["tied"].data_ptr() == loaded["fc.weight"].data_ptr()


def test_several_models(tmp_path: Path) -> None:
    from torch.export.pt2_archive._package import package_pt2

    other = torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),))
    path = tmp_path / "two.pt2"
    package_pt2(str(path), exported_programs={"net": program(), "head": other})
    with pytest.raises(CkptError, match=r"2 models: (net, head|head, net)"):
        ckptool.open(path)
    assert list(ckptool.open(path, select="head")) == ["weight", "bias"]
    assert "constant" in ckptool.open(path, select="net.constants")
    assert "fc.weight" in ckptool.open(path, select="net")
    with pytest.raises(CkptError, match="no model body"):
        ckptool.open(path, select="body")


def test_weights_without_values(tmp_path: Path) -> None:
    """A program of fake tensors holds shapes alone."""
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = torch.export.export(nn.Linear(3, 2), (torch.ones(1, 3),))
    torch.export.save(fake, tmp_path / "fake.pt2")
    checkpoint = ckptool.open(tmp_path / "fake.pt2")
    assert {key: (tensor.layout, tensor.shape) for key, tensor in checkpoint.items()} == {
        "weight": ("meta", (2, 3)),
        "bias": ("meta", (2,)),
    }


def changed(path: Path, edit: Callable[[dict[str, object]], object]) -> Path:
    """The archive with another weights config; torch stores its members, and so is this."""
    out = path.with_name("changed.pt2")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            if info.filename.endswith("weights_config.json"):
                made = edit(json.loads(data)["config"])
                data = made if isinstance(made, bytes) else json.dumps({"config": made}).encode()
            new.writestr(info.filename, data)
    return out


def with_meta(**fields: object) -> Callable[[dict[str, object]], object]:
    def edit(config: dict[str, object]) -> object:
        config["fc.bias"]["tensor_meta"].update(fields)  # type: ignore[index]
        return config

    return edit


LIES: dict[str, tuple[Callable[[dict[str, object]], object], str]] = {
    "shape beyond the record": (with_meta(sizes=[{"as_int": 5}]), "reaches to element 4"),
    "stride beyond the record": (with_meta(strides=[{"as_int": 1 << 60}]), "reaches to element"),
    "overflow": (with_meta(sizes=[{"as_int": 1 << 62}] * 9, strides=[{"as_int": 1}] * 9), "more elements than"),
    "negative": (with_meta(storage_offset={"as_int": -1}), "negative"),
    "expression": (with_meta(sizes=[{"as_expr": {"expr_str": "s0"}}]), "not a whole number"),
    "dtype": (with_meta(dtype=99), "dtype that ckptool does not know"),
    "sparse": (with_meta(layout=1), "in a way that torch does not write"),
    "axes": (with_meta(sizes=[{"as_int": 1}] * 99), "99 axes"),
    "record": (lambda config: config | {"x": {"path_name": "weight_77"}}, "lacks data/weights/weight_77"),
    "way out": (lambda config: config | {"x": {"path_name": "../../models/x"}}, "lacks data/weights/../"),
    "no entry": (lambda config: config | {"x": 3}, "an entry that is not an object"),
    "list": (lambda config: [], "JSON object"),
    "twins": (lambda config: json.dumps({"config": config}).encode().replace(b'"tied"', b'"fc.bias"'), "twice"),
    "deep": (lambda config: b'{"config": {"w": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}", "not valid JSON"),
    "no end": (lambda config: b'{"config": {"w', "does not say which tensor is where"),
    "no end of a name": (lambda config: b'{"config": {"w}', "not valid JSON"),
    "something else": (lambda config: b'{"other": {}}', "does not say which tensor is where"),
}  # fmt: skip


@pytest.mark.parametrize("what", LIES)
def test_configs_that_lie(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit, words = LIES[what]
    path = changed(saved(tmp_path / "net.pt2"), edit)
    assert run(["inspect", str(path)]) == 2
    told = capsys.readouterr().err
    assert words in " ".join(told.split())
    assert "Traceback" not in told


def test_a_record_with_another_checksum_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path / "net.pt2")
    data = bytearray(path.read_bytes())
    piece = ckptool.open(path)["emb"].pieces[0]
    data[piece.storage.offset] ^= 1
    path.write_bytes(data)
    assert run(["filter", str(path), "--tied", "clone", "-o", str(tmp_path / "out.safetensors")]) == 2
    assert "damaged" in capsys.readouterr().err


def test_a_compiled_package_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(tmp_path / "package.pt2", "w") as archive:
        archive.writestr("package/data/aotinductor/model/model.so", b"\x7fELF")
        archive.writestr("package/archive_format", b"pt2")
    assert run(["inspect", str(tmp_path / "package.pt2")]) == 2
    assert "AOTInductor" in capsys.readouterr().err
