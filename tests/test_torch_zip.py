"""torch zip and TorchScript files: the same keys, shapes, dtypes and bytes as torch.load; hostile ones refused."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.serialization import set_crc32_options
from torch_oracle import assert_same, opened

from ckptool.core.errors import CkptError, UnreadableError
from ckptool.core.observations import WholeModule
from ckptool.formats.torch.tree import tensor_of
from ckptool.formats.torch.zip import open_zip, read_embedded
from ckptool.storage.locate import locate_file

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128, torch.complex32),
    *(torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.bool, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
    *(torch.float8_e8m0fnu, torch.float4_e2m1fn_x2, torch.bits8, torch.bits16, torch.bits1x8, torch.bits2x4),
]


def filled(dtype: torch.dtype, count: int = 6) -> torch.Tensor:
    """A tensor of any dtype with bytes that tell elements apart."""
    nbytes = count * torch.empty(0, dtype=dtype).element_size()
    raw = torch.arange(1, nbytes + 1, dtype=torch.uint8)
    if dtype is torch.bool:
        raw = raw % 2
    return torch.empty(0, dtype=dtype).set_(raw.untyped_storage(), 0, (count,), (1,))


def saved(path: Path, value: object, **options: object) -> Path:
    torch.save(value, path, **options)
    return path


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_every_dtype(tmp_path: Path) -> None:
    tensors = {str(dtype): filled(dtype).reshape(2, 3) for dtype in DTYPES}
    found = opened(saved(tmp_path / "a.pt", tensors))
    assert str(found.format) == "torch zip"
    assert_same(found, torch.load(tmp_path / "a.pt", weights_only=False))
    assert {f"torch.{tensor.dtype}" for tensor in found.values()} == {str(dtype) for dtype in DTYPES}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol(tmp_path: Path, protocol: int) -> None:
    value = {"a": torch.arange(5.0), "é" * 100: torch.ones(2, 2), "n": torch.tensor(3)}
    assert_same(opened(saved(tmp_path / "a.pt", value, pickle_protocol=protocol)), value)


def test_views_ties_empty_expanded_and_lazy(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    complex_ = torch.arange(4).to(torch.complex64) * (1 + 2j)
    value = {
        "base": base,
        "transposed": base.t(),
        "slice": base[1:3, 2:5],
        "tied": base,
        "expanded": torch.tensor([1.0, 2.0])[:, None].expand(2, 1_000),
        "huge": torch.ones(1).expand(1 << 20, 1 << 12),
        "scalar": torch.tensor(7),
        "empty": torch.empty(0, 3),
        "conj": complex_.conj(),
        "neg": torch._neg_view(torch.arange(3.0)),
        "permuted": torch.arange(24).reshape(2, 3, 4).permute(2, 0, 1),
        "ones": torch.arange(3.0).reshape(1, 3, 1).transpose(0, 2),
    }
    found = opened(saved(tmp_path / "a.pt", value))
    loaded = torch.load(tmp_path / "a.pt")
    assert found["huge"].pieces[0].strides == (0, 0)
    assert found["huge"].spec.nbytes == 1 << 34
    assert_same(
        {key: tensor for key, tensor in found.items() if key != "huge"},
        {key: tensor for key, tensor in loaded.items() if key != "huge"},
    )
    assert found["tied"].storage == found["base"].storage == found["transposed"].storage
    assert found["transposed"].pieces[0].strides == (1, 6)
    assert found["ones"].pieces[0].strides is None
    assert found["conj"].conj and found["neg"].neg
    assert found["empty"].storage is None


def test_alignment_byte_order_crc_and_holes(tmp_path: Path) -> None:
    from torch.utils.serialization import config

    value = {"a": torch.arange(5.0), "b": torch.ones(3, dtype=torch.int64)}
    before = config.save.storage_alignment
    try:
        config.save.storage_alignment = 4096
        found = opened(saved(tmp_path / "aligned.pt", value))
    finally:
        config.save.storage_alignment = before
    assert found["a"].run[1] % 4096 == 0
    assert_same(found, value)
    set_crc32_options(False)
    try:
        unchecked = opened(saved(tmp_path / "crc.pt", value))
    finally:
        set_crc32_options(True)
    assert_same(unchecked, value)
    assert unchecked["a"].pieces[0].storage.crc is None
    assert opened(saved(tmp_path / "sum.pt", value))["a"].pieces[0].storage.crc
    with torch.serialization.skip_data():
        torch.save(value, tmp_path / "holes.pt")
    assert {key: tensor.spec.short for key, tensor in opened(tmp_path / "holes.pt").items()} == {
        "a": "f32[5]",
        "b": "i64[3]",
    }


def rezipped(
    source: Path,
    target: Path,
    change: Callable[[str, bytes], tuple[str, bytes] | None] = lambda name, data: (name, data),
    **options: int,
) -> Path:
    """The members of one archive written again by Python's zipfile."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", **options) as new:
        for name in old.namelist():
            changed = change(name, old.read(name))
            if changed is not None:
                new.writestr(*changed)
    return target


def test_big_endian_is_said(tmp_path: Path) -> None:
    source = saved(tmp_path / "a.pt", {"a": torch.arange(5.0)})
    swapped = torch.arange(5.0).numpy().astype(">f4").tobytes()
    contents = {"a/byteorder": b"big", "a/data/0": swapped}
    path = rezipped(source, tmp_path / "b.pt", lambda name, data: (name, contents.get(name, data)))
    assert torch.equal(torch.load(path)["a"], torch.arange(5.0))
    assert open_zip(locate_file(path))["a"].pieces[0].storage.big_endian


def test_rezipped_by_hand(tmp_path: Path) -> None:
    value = {"a": torch.arange(500.0), "b": torch.ones(3)}
    source = saved(tmp_path / "a.pt", value)
    assert_same(opened(rezipped(source, tmp_path / "stored.pt")), value)
    only_pickle = tmp_path / "deflated-pickle.pt"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(only_pickle, "w") as new:
        new.comment = b"packed by hand"
        for name in reversed(old.namelist()):
            new.writestr(name, old.read(name), zipfile.ZIP_DEFLATED if name.endswith(".pkl") else zipfile.ZIP_STORED)
    found = opened(only_pickle)
    assert_same(found, value)
    assert torch.equal(torch.load(only_pickle)["a"], value["a"])
    with pytest.raises(UnreadableError, match=r"tensor a: its record a/data/0 is compressed") as caught:
        opened(rezipped(source, tmp_path / "deflated.pt", compression=zipfile.ZIP_DEFLATED))
    assert caught.value.hint and caught.value.key == "a" and caught.value.path == tmp_path / "deflated.pt"


def test_streamed_zip_with_data_descriptors(tmp_path: Path) -> None:
    class Pipe(io.RawIOBase):
        """Not seekable, so zipfile writes sizes behind the data."""

        def __init__(self) -> None:
            self.content = b""

        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:  # type: ignore[override]
            self.content += bytes(data)
            return len(data)

    value = {"a": torch.arange(5.0)}
    pipe = Pipe()
    with zipfile.ZipFile(saved(tmp_path / "a.pt", value)) as old, zipfile.ZipFile(pipe, "w") as new:
        for name in old.namelist():
            with new.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
                member.write(old.read(name))
    (tmp_path / "streamed.pt").write_bytes(pipe.content)
    assert_same(opened(tmp_path / "streamed.pt"), value)


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.bn = torch.nn.BatchNorm2d(4)
        self.register_buffer("kept", torch.arange(3))
        self.register_buffer("transient", torch.zeros(9), persistent=False)
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 2)])
        self.blocks[1].again = self.blocks[0]
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.constant = torch.ones(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks[1](self.blocks[0](self.bn(self.conv(x)).mean((2, 3)))) * self.scale


def test_whole_module_lists_as_its_state_dict(tmp_path: Path) -> None:
    model = Net()
    found = opened(saved(tmp_path / "a.pt", model))
    assert_same(found, model.state_dict())
    assert found["blocks.1.again.weight"].storage == found["blocks.0.weight"].storage
    assert found.selection.why == "a whole module"
    assert found.observations == (WholeModule("test_torch_zip.Net"),)
    wrapped = opened(saved(tmp_path / "b.pt", {"model": torch.nn.DataParallel(model), "epoch": 3}))
    assert list(wrapped) == [f"module.{key}" for key in model.state_dict()]
    assert wrapped.selection.path == ("model",)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_lists_as_its_state_dict(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(Net().eval(), torch.zeros(1, 3, 8, 8)), tmp_path / "a.pt")
    expected = torch.jit.load(tmp_path / "a.pt").state_dict()
    found = opened(tmp_path / "a.pt")
    assert str(found.format) == "TorchScript"
    assert found.module_versions is None
    assert_same(found, expected)


def test_torchvision_resnet18(tmp_path: Path, torchvision: object) -> None:
    model = torchvision.models.resnet18(weights=None, width_per_group=64)  # type: ignore[attr-defined]
    state = model.state_dict()
    found = opened(saved(tmp_path / "a.pth", state))
    assert_same(found, state)
    assert found.module_versions == {
        name: facts["version"] for name, facts in state._metadata.items() if "version" in facts
    }
    assert found.module_versions["bn1"] == 2


def test_embedded_archive(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(torch.arange(12.0).reshape(3, 4)[1:], buffer)
    path = tmp_path / "a.distcp"
    path.write_bytes(b"x" * 1000 + buffer.getvalue() + b"tail")
    archive = read_embedded(locate_file(path), 1000, len(buffer.getvalue()))
    tensor = tensor_of(archive.loaded.value, archive.storage_of, "w")
    assert tensor is not None
    assert_same({"w": tensor}, {"w": torch.arange(12.0).reshape(3, 4)[1:]})
    with pytest.raises(CkptError):
        read_embedded(locate_file(path), 999, len(buffer.getvalue()))


def changed_at(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def central(data: bytes, name: bytes) -> int:
    """Where the directory's entry of a member begins."""
    at = data.index(b"PK\x01\x02")
    while data[at + 46 : at + 46 + len(name)] != name:
        at = data.index(b"PK\x01\x02", at + 4)
    return at


def hostile(data: bytes) -> dict[str, tuple[bytes, str]]:
    """Damaged and ambiguous variants of one archive, each with a part of the reason."""
    pickle, record = central(data, b"a/data.pkl"), central(data, b"a/data/0")
    local = data.index(b"PK\x03\x04")
    end = data.rindex(b"PK\x05\x06")
    renamed = changed_at(data, record + 46, b"a/DATA.PKL"[: len(b"a/data/0")])
    size = struct.pack("<2L", 12, 12)
    return {
        "prefixed": (b"#!/bin/sh\n" + data, "before"),
        "appended": (data + b"\0", "behind"),
        "twice": (data + data, "before"),
        "comment": (data[:-2] + b"\5\0hello" + b"?", "behind"),
        "encrypted": (changed_at(data, pickle + 8, b"\x01"), "encrypted"),
        "locally encrypted": (changed_at(data, local + 6, b"\x61"), "headers of a/data.pkl disagree"),
        "local name": (changed_at(data, local + 30, b"b"), "another member"),
        "local method": (changed_at(data, local + 8, b"\x08"), "disagree"),
        "offset elsewhere": (changed_at(data, record + 42, struct.pack("<L", 40)), "overlaps|another"),
        "offset outside": (changed_at(data, record + 42, struct.pack("<L", len(data) + 5)), "overlaps"),
        "same offset": (changed_at(data, record + 42, data[pickle + 42 : pickle + 46]), "overlaps"),
        "short record": (changed_at(data, record + 20, size), "holds 12 bytes, not 20"),
        "two sizes": (changed_at(data, record + 20, size[:4]), "two sizes"),
        "long record": (changed_at(data, record + 20, struct.pack("<2L", 9000, 9000)), "overlaps"),
        "symlink": (changed_at(data, record + 38, struct.pack("<L", 0o120777 << 16)), "symbolic link"),
        "folder with content": (changed_at(data, record + 38, b"\x10"), "marked as a folder"),
        "renamed record": (renamed, "another member"),
        "members": (changed_at(data, end + 8, struct.pack("<2H", 3, 3)), "disagree"),
        "split": (changed_at(data, end + 4, struct.pack("<H", 1)), "disagree"),
        "method": (changed_at(changed_at(data, pickle + 10, b"\x0c"), local + 8, b"\x0c"), "method 12"),
        "directory": (changed_at(data, pickle, b"PK\x01\x03"), "ends early"),
    }


def test_hostile_archives_are_refused_with_the_reason(tmp_path: Path) -> None:
    data = saved(tmp_path / "a.pt", {"w": torch.arange(5.0)}).read_bytes()
    for name, (content, reason) in hostile(data).items():
        path = tmp_path / "hostile.pt"
        path.write_bytes(content)
        with pytest.raises(UnreadableError, match=reason) as caught:
            open_zip(locate_file(path))
        assert caught.value.path == path, name


def zipped(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_ambiguous_names_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(saved(tmp_path / "a.pt", {"w": torch.arange(5.0)})) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    pickle = dict(members)["a/data.pkl"]
    cases = {
        "two members named": [*members, ("a/data.pkl", pickle)],
        "two members named a/DATA": [*members, ("a/DATA.pkl", pickle)],
        "more than one root": [*members, ("b/data.pkl", pickle)],
        "more than one root folder": [*members, ("b/other", b"")],
        "names its pickle": [(name.replace("data.pkl", "Data.pkl"), content) for name, content in members],
        "its record a/data/0 is missing": [pair for pair in members if pair[0] != "a/data/0"],
        "without its root folder": [(name[2:], content) for name, content in members],
        "byte order": [*[pair for pair in members if pair[0] != "a/byteorder"], ("a/byteorder", b"pdp")],
    }
    for reason, case in cases.items():
        with pytest.raises(UnreadableError, match=reason):
            open_zip(locate_file(zipped(tmp_path / "case.pt", case)))


def test_other_zips_are_named(tmp_path: Path) -> None:
    cases = {
        "office document": [("[Content_Types].xml", b""), ("word/document.xml", b"")],
        "Keras": [("model.weights.h5", b""), ("config.json", b"{}")],
        "checkpoints in it": [("folder/model.pth", b"")],
        "empty zip": [],
        "without a data.pkl": [("readme.txt", b"")],
    }
    for reason, members in cases.items():
        with pytest.raises(UnreadableError, match=reason):
            open_zip(locate_file(zipped(tmp_path / "case.zip", members)))


def test_deflated_bomb_is_not_inflated(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a/data.pkl", "w") as member:
        for _ in range(300):
            member.write(b"\0" * (1 << 20))
    with pytest.raises(UnreadableError, match="more than the limit"):
        open_zip(locate_file(path))
    data = path.read_bytes()
    lying = changed_at(data, central(data, b"a/data.pkl") + 24, struct.pack("<L", 100))
    lying = changed_at(lying, 22, struct.pack("<L", 100))
    path.write_bytes(lying)
    with pytest.raises(UnreadableError, match="does not unpack to the 100 bytes"):
        open_zip(locate_file(path))


def test_truncation_is_always_one_clear_error(tmp_path: Path) -> None:
    value = {"state_dict": {"a": torch.arange(50.0), "b": torch.ones(3)}, "epoch": 3}
    data = saved(tmp_path / "a.pt", value).read_bytes()
    path = tmp_path / "cut.pt"
    for length in range(0, len(data), 47):
        path.write_bytes(data[:length])
        with pytest.raises(CkptError):
            open_zip(locate_file(path))


def test_flipped_bytes_never_crash(tmp_path: Path) -> None:
    data = saved(tmp_path / "a.pt", {"state_dict": {"a": torch.arange(5.0), "b": torch.ones(3)}}).read_bytes()
    path = tmp_path / "flipped.pt"
    refused = 0
    for at in range(0, len(data), 3):
        path.write_bytes(changed_at(data, at, bytes([data[at] ^ 0x55])))
        try:
            open_zip(locate_file(path))
        except CkptError:
            refused += 1
    assert refused > 50


def test_not_a_regular_file(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    cases = {"pipe": "named pipe", "loop": "loop of symbolic links", "absent": "does not exist", ".": "a folder"}
    for name, reason in cases.items():
        with pytest.raises(UnreadableError, match=reason):
            open_zip(locate_file(tmp_path / name))
    with pytest.raises(UnreadableError, match="a device"):
        open_zip(locate_file(Path("/dev/zero")))
