"""What the writers lay out, filled by hand and read by torch and safetensors."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path

import pytest
import safetensors.torch
import torch

from ckptool.core.dtypes import DTYPES
from ckptool.core.errors import OutputError
from ckptool.core.spec import TensorSpec
from ckptool.formats.image import PAGE, Image, Range
from ckptool.formats.safetensors_write import safetensors_image
from ckptool.formats.torch.zip_write import ALIGNMENT, Record, zip_image
from ckptool.storage.locate import locate_file


def fill(image: Image, path: Path) -> None:
    """Write an image the plain way: the oracle for the engine, too."""
    data = bytearray(image.size)
    crcs = {}
    for offset, literal in image.literals:
        data[offset : offset + len(literal)] = literal
    for slot in image.slots:
        content = b"".join(
            Path(part.file.path).read_bytes()[part.offset : part.offset + part.nbytes]
            for part in slot.contents
            if isinstance(part, Range)
        )
        assert len(content) == slot.nbytes
        data[slot.offset : slot.offset + slot.nbytes] = content
        crcs[slot.name] = zlib.crc32(content)
    for offset, literal in image.finish(crcs) if image.finish else ():
        data[offset : offset + len(literal)] = literal
    assert len(data) == image.size
    path.write_bytes(data)


def saved(path: Path, value: object) -> tuple[bytes, list[Record]]:
    """data.pkl and the storages of a file that torch wrote."""
    torch.save(value, path)
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].split("/")[0]
        names = [name for name in archive.namelist() if name.startswith(f"{root}/data/")]
        raw = path.read_bytes()
        records = []
        for name in sorted(names, key=lambda name: int(name.rsplit("/", 1)[1])):
            info = archive.getinfo(name)
            name_and_extra = int.from_bytes(raw[info.header_offset + 26 : info.header_offset + 28], "little")
            name_and_extra += int.from_bytes(raw[info.header_offset + 28 : info.header_offset + 30], "little")
            start = info.header_offset + 30 + name_and_extra
            records.append(Record(info.file_size, (Range(locate_file(path), start, info.file_size),)))
        return archive.read(f"{root}/data.pkl"), records


def test_torch_reads_the_archive_in_every_way(tmp_path: Path) -> None:
    value = {"w": torch.randn(64, 3), "b": torch.zeros(0), "f8": torch.ones(5).to(torch.float8_e4m3fn), "epoch": 9}
    data_pkl, records = saved(tmp_path / "in.pth", value)
    fill(zip_image(data_pkl, records), tmp_path / "out.pth")
    for options in ({"weights_only": True}, {"weights_only": True, "mmap": True}, {"weights_only": False}):
        loaded = torch.load(tmp_path / "out.pth", **options)
        assert list(loaded) == list(value)
        assert torch.equal(loaded["w"], value["w"])
        assert loaded["f8"].dtype == torch.float8_e4m3fn
        assert torch.equal(loaded["f8"].float(), value["f8"].float())
        assert loaded["b"].shape == (0,)


def test_archive_is_a_sound_zip_with_aligned_records(tmp_path: Path) -> None:
    data_pkl, records = saved(tmp_path / "in.pth", {str(i): torch.randn(i + 1) for i in range(20)})
    image = zip_image(data_pkl, records)
    fill(image, tmp_path / "out.pth")
    assert all(slot.offset % ALIGNMENT == 0 for slot in image.slots)
    with zipfile.ZipFile(tmp_path / "out.pth") as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == 20 + 6


def test_same_input_same_bytes(tmp_path: Path) -> None:
    data_pkl, records = saved(tmp_path / "in.pth", {"w": torch.arange(10.0)})
    fill(zip_image(data_pkl, records), tmp_path / "a.pth")
    fill(zip_image(data_pkl, records), tmp_path / "b.pth")
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()


def test_big_ranges_stand_to_a_page_as_in_the_source(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.touch()
    parts = tuple(Range(locate_file(source), 64 * (i + 1) + (i << 21), 1 << 20) for i in range(3))
    image = zip_image(b"\x80\x02N.", [Record(1 << 20, (part,)) for part in parts])
    for slot, part in zip(image.slots, parts, strict=True):
        assert slot.offset % PAGE == part.offset % PAGE


def test_sizes_beyond_32_bits_are_laid_out_in_zip64(tmp_path: Path) -> None:
    huge = 5 << 30
    (tmp_path / "x").touch()
    image = zip_image(b"\x80\x02N.", [Record(huge, (Range(locate_file(tmp_path / "x"), 0, huge),)), Record(8, ())])
    path = tmp_path / "sparse.pth"
    with path.open("wb") as file:
        file.truncate(image.size)
        assert image.finish is not None
        for offset, literal in (*image.literals, *image.finish({"archive/data/0": 1, "archive/data/1": 2})):
            file.seek(offset)
            file.write(literal)
    with zipfile.ZipFile(path) as archive:
        first, second = archive.getinfo("archive/data/0"), archive.getinfo("archive/data/1")
    assert first.file_size == huge
    assert second.file_size == 8
    assert second.header_offset > huge
    assert torch._C.PyTorchFileReader(str(path)).has_record("data/1")


def test_safetensors_reads_every_dtype(tmp_path: Path) -> None:
    tensors = {}
    for name, dtype in DTYPES.items():
        if dtype.safetensors and dtype.is_castable:
            tensors[name] = torch.ones(3, 4).to(getattr(torch, name))
    raw = tmp_path / "raw"
    raw.touch()
    data, specs, ranges = io.BytesIO(), [], []
    for name, tensor in tensors.items():
        content = tensor.view(torch.uint8).numpy().tobytes()
        specs.append(TensorSpec(name, name, (3, 4)))
        ranges.append((data.tell(), len(content)))
        data.write(content)
    raw.write_bytes(data.getvalue())
    source = locate_file(raw)
    image = safetensors_image(specs, lambda at: (Range(source, *ranges[at]),), {"format": "pt"})
    fill(image, tmp_path / "out.safetensors")
    loaded = safetensors.torch.load_file(tmp_path / "out.safetensors")
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name].view(torch.uint8), tensor.view(torch.uint8))
    with safetensors.safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_key_that_utf8_cannot_hold_is_refused() -> None:
    with pytest.raises(OutputError, match="UTF-8"):
        safetensors_image([TensorSpec("\ud800", "uint8", (0,))], lambda _: (), {})
