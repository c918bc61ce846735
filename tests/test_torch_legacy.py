"""torch's legacy files: the same keys, shapes, dtypes and bytes as torch.load; damaged ones explained."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from test_torch_zip import DTYPES, Net, changed_at, filled
from torch_oracle import assert_same, bytes_of, opened, read

from ckptool.core.errors import CkptError, UnreadableError
from ckptool.core.observations import TrailingBytes
from ckptool.facts.words import notes_of
from ckptool.formats.torch.legacy import MAGIC, open_legacy
from ckptool.storage.locate import locate_file


def saved(path: Path, value: object, **options: object) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=False, **options)
    return path


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_every_dtype(tmp_path: Path) -> None:
    """torch.load refuses the untyped storages that torch.save writes for newer dtypes: the tensors are the oracle."""
    tensors = {str(dtype): filled(dtype).reshape(3, 2) for dtype in DTYPES}
    found = opened(saved(tmp_path / "a.pth", tensors))
    assert str(found.format) == "torch legacy"
    assert_same(found, tensors)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol(tmp_path: Path, protocol: int) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    value = {
        "base": base,
        "t": base.t(),
        "slice": base[1:3, 2:5],
        "empty": torch.empty(0, 3),
        "n": torch.tensor(3),
        "expanded": torch.ones(1).expand(1000),
        "conj": torch.tensor([1 + 2j]).conj(),
    }
    found = opened(saved(tmp_path / "a.pth", value, pickle_protocol=protocol))
    assert_same(found, torch.load(tmp_path / "a.pth", weights_only=False))
    assert found["base"].storage == found["t"].storage
    assert found.observations == ()


def test_state_dict_and_whole_module(tmp_path: Path) -> None:
    model = Net()
    found = opened(saved(tmp_path / "a.pth", model.state_dict()))
    assert_same(found, torch.load(tmp_path / "a.pth", weights_only=True))
    assert found.module_versions == {
        name: facts["version"] for name, facts in model.state_dict()._metadata.items() if "version" in facts
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.serialization, "get_source_lines_and_file", lambda *_: (["class Net: ..."], 0, "net.py"))
        whole = opened(saved(tmp_path / "b.pth", {"model": model, "epoch": 1}))
    assert_same(whole, model.state_dict())
    assert any("class test_torch_zip.Net" in note.text for note in notes_of(whole))


def written(
    path: Path, value: object, storages: list[tuple[str, int, bytes]], info: dict[str, object] | None = None
) -> Path:
    """A legacy file made by hand: `value` is a pickle, storages are (name, count, bytes)."""
    content = io.BytesIO()
    for part in (MAGIC, 1001, info or {"protocol_version": 1001, "little_endian": True}):
        pickle.dump(part, content, protocol=2)
    content.write(value if isinstance(value, bytes) else pickle.dumps(value, protocol=2))
    pickle.dump([name for name, _, _ in storages], content, protocol=2)
    for _, count, raw in storages:
        content.write(struct.pack("<q", count) + raw)
    path.write_bytes(content.getvalue())
    return path


class Pid:
    """Pickled as a persistent id."""

    def __init__(self, *pid: object) -> None:
        self.pid = pid


class Storing(pickle.Pickler):
    def persistent_id(self, value: object) -> object:
        return value.pid if isinstance(value, Pid) else None


def pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    Storing(buffer, protocol=2).dump(value)
    return buffer.getvalue()


class Rebuilt:
    """Pickled as `torch._utils._rebuild_tensor(storage, offset, size, stride)`."""

    def __init__(self, *args: object) -> None:
        self.args = args

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return torch._utils._rebuild_tensor, self.args


FLOAT = torch.FloatStorage
NUMBERS = struct.pack("<6f", *range(6))


def test_storage_views(tmp_path: Path) -> None:
    """torch before 0.4 wrote views of storages: (name, first element, elements)."""
    root = ("storage", FLOAT, "10", "cpu", 6)
    value = {
        "whole": Rebuilt(Pid(*root, None), 0, (2, 3), (3, 1)),
        "part": Rebuilt(Pid(*root, ("11", 2, 3)), 1, (2,), (1,)),
    }
    path = written(tmp_path / "a.pth", pickled(value), [("10", 6, NUMBERS)])
    loaded = torch.load(path, weights_only=False)
    assert loaded["part"].tolist() == [3.0, 4.0]
    assert_same(opened(path), loaded)
    outside = {"part": Rebuilt(Pid(*root, ("11", 4, 3)), 0, (2,), (1,))}
    with pytest.raises(UnreadableError, match="part of its storage that lies outside"):
        open_legacy(locate_file(written(tmp_path / "b.pth", pickled(outside), [("10", 6, NUMBERS)])))


def test_python_2_dicts_of_pairs(tmp_path: Path) -> None:
    """Python 2 wrote OrderedDict([[key, value], ...]) with byte strings as keys."""
    storage = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x06NtQ"
    tensor = b"ctorch._utils\n_rebuild_tensor\n(" + storage + b"K\x00K\x02K\x03\x86K\x03K\x01\x86tR"
    value = b"\x80\x02ccollections\nOrderedDict\n(](](U\x06weight" + tensor + b"eetR."
    path = written(tmp_path / "a.pth", value, [("0", 6, NUMBERS)])
    loaded = torch.load(path, weights_only=False, encoding="latin1")
    assert_same(opened(path), loaded)


def test_parameters_of_torch_0_3(tmp_path: Path) -> None:
    """There a Parameter was pickled as its class called with the data."""
    tensor = Rebuilt(Pid("storage", FLOAT, "0", "cpu", 6, None), 0, (6,), (1,))

    class Old:
        def __reduce__(self) -> tuple[object, ...]:
            return torch.nn.Parameter, (tensor,)

    path = written(tmp_path / "a.pth", pickled(OrderedDict(weight=Old())), [("0", 6, NUMBERS)])
    assert_same(opened(path), torch.load(path, weights_only=False))


def test_a_lying_file_is_refused(tmp_path: Path) -> None:
    def tensor(
        count: object = 6, name: str = "0", size: object = (6,), stride: object = (1,), offset: object = 0
    ) -> object:
        return {"w": Rebuilt(Pid("storage", FLOAT, name, "cpu", count, None), offset, size, stride)}

    good = [("0", 6, NUMBERS)]
    cases = [
        ("reaches to element 6 of a storage that holds 6", tensor(offset=1), good),
        ("more elements than 64 bits", tensor(size=(1 << 62, 1 << 62), stride=(1, 1)), good),
        ("negative or overflowing", tensor(stride=(-1,)), good),
        ("negative or overflowing", tensor(size=(-6,)), good),
        ("negative or overflowing", tensor(offset=-1), good),
        ("negative or overflowing", tensor(size=(1 << 64,), stride=(0,)), good),
        ("not a whole number", tensor(size=(6.0,)), good),
        ("not a whole number", tensor(size=(True,)), good),
        ("not a tuple of numbers", tensor(size=6), good),
        ("65 axes", tensor(size=(1,) * 65, stride=(1,) * 65), good),
        ("1 axes but 2 strides", tensor(stride=(1, 1)), good),
        ("counts 5 elements, not 24 bytes", tensor(), [("0", 5, NUMBERS)]),
        ("counts -6 elements", tensor(), [("0", -6, NUMBERS)]),
        ("does not fit to its tensors", tensor(), [("1", 6, NUMBERS)]),
        ("does not fit to its tensors", tensor(), [*good, *good]),
        ("its storage 0 is missing", tensor(), []),
        ("cut off: it holds .* tensor w is the first", tensor(), [("0", 6, NUMBERS[:-1])]),
        ("two sizes for storage 0", {"a": tensor(), "b": tensor(5)}, good),
        ("does not write", tensor(count=-1), good),
        ("does not write", tensor(count=1.5), good),
    ]
    for reason, value, storages in cases:
        path = written(tmp_path / "a.pth", pickled(value), storages)
        with pytest.raises(UnreadableError, match=reason) as caught:
            open_legacy(locate_file(path))
        assert caught.value.path == path


def test_an_expanded_view_is_legal(tmp_path: Path) -> None:
    tensor = Rebuilt(Pid("storage", FLOAT, "0", "cpu", 6, None), 5, (1 << 31, 1 << 31), (0, 0))
    found = open_legacy(locate_file(written(tmp_path / "a.pth", pickled({"w": tensor}), [("0", 6, NUMBERS)])))
    assert found["w"].shape == (1 << 31, 1 << 31)


def test_bytes_behind_the_end_are_said(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {"a": torch.ones(3)})
    with path.open("ab") as file:
        file.write(b"more")
    found = open_legacy(locate_file(path))
    assert found.observations == (TrailingBytes(4, "storages"),)
    assert bytes_of(read(found["a"])) == bytes_of(torch.ones(3))


def test_truncation_names_the_first_tensor_that_is_cut(tmp_path: Path) -> None:
    value = {f"layer{i}.weight": torch.arange(20.0) + i for i in range(5)}
    data = saved(tmp_path / "a.pth", value).read_bytes()
    path = tmp_path / "cut.pth"
    for length in range(0, len(data), 17):
        path.write_bytes(data[:length])
        with pytest.raises(CkptError):
            open_legacy(locate_file(path))
    path.write_bytes(data[:-1])
    with pytest.raises(UnreadableError, match=r"the file is cut off: it holds [\d,]+ of [\d,]+ bytes; tensor layer"):
        open_legacy(locate_file(path))


def test_flipped_bytes_never_crash(tmp_path: Path) -> None:
    data = saved(tmp_path / "a.pth", {"state_dict": {"a": torch.arange(5.0), "b": torch.ones(3)}}).read_bytes()
    path = tmp_path / "flipped.pth"
    refused = 0
    for at in range(0, len(data), 2):
        path.write_bytes(changed_at(data, at, bytes([data[at] ^ 0x2A])))
        try:
            open_legacy(locate_file(path))
        except CkptError:
            refused += 1
    assert refused > 50


def test_the_header_may_be_larger_than_the_first_read(tmp_path: Path) -> None:
    value = {"w": torch.arange(5.0), "note": "x" * (3 << 20)}
    assert_same(opened(saved(tmp_path / "a.pth", value)), {"w": value["w"]})


def test_tar_files_and_other_pickles_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(UnreadableError, match=r"torch wrote before 0\.1\.10") as caught:
        open_legacy(locate_file(path))
    assert caught.value.hint
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(UnreadableError, match=r"not one that torch\.save wrote"):
        open_legacy(locate_file(path))
