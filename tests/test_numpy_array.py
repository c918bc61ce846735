"""numpy's files: what numpy writes is read with equal values, what it refuses is an error, nothing in them is run."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import ckptool
from ckptool.core.errors import CkptError, UnreadableError
from ckptool.engine.reading import read_array

ARRAYS: dict[str, Any] = {
    "float": np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4),
    "half": np.arange(5, dtype=np.float16),
    "double": np.arange(6, dtype=np.float64).reshape(1, 2, 3),
    "complex": np.array([1 + 2j, 3], np.complex64),
    "big": np.arange(7, dtype=">i4"),
    "columns": np.asfortranarray(np.arange(24, dtype=np.int16).reshape(2, 3, 4)),
    "one": np.array(3.5),
    "none": np.zeros((0, 3), np.float32),
    "bool": np.array([True, False]),
    "bytes": np.arange(4, dtype=np.uint8),
    "unsigned": np.arange(3, dtype=np.uint64),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_of_arrays(save: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save(path, **ARRAYS)
    checkpoint = ckptool.open(path)
    assert list(checkpoint) == list(ARRAYS)
    for key, array in ARRAYS.items():
        found = read_array(checkpoint[key])
        assert found.dtype == array.dtype.newbyteorder("=")
        assert np.array_equal(found, array)
    out = tmp_path / "a.pth"
    ckptool.plan_filter(path).apply(out)
    state = torch.load(out, weights_only=True)
    assert all(np.array_equal(state[key].numpy(), array) for key, array in ARRAYS.items())


def test_a_packed_member_is_read_at_any_offset(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 9, 300_000, np.uint8)
    path = tmp_path / "a.npz"
    np.savez_compressed(path, values=values)
    storage = ckptool.open(path)["values"].pieces[0].storage
    source, start, data = storage.file, storage.offset, values.tobytes()
    buffer = np.empty(50_000, "<u4")
    with source.open() as file:
        for offset in (200_000, 3, 299_999, 0):
            assert file.read(start + offset, 300_000 - offset) == data[offset:]
        file.read_into(start + 7, buffer.data)
        assert buffer.tobytes() == data[7:200_007]
        for offset, nbytes in ((start, 300_001), (-1, 1), (source.size + 1, 0)):
            with pytest.raises(UnreadableError, match=r"^values\.npy of .*a\.npz ends before byte"):
                file.read(offset, nbytes)
        with pytest.raises(UnreadableError, match="ends before byte"):
            file.read_into(start + 300_000 - 10, buffer.data)


@pytest.mark.parametrize("key", ARRAYS)
def test_a_single_array(key: str, tmp_path: Path) -> None:
    path = tmp_path / f"{key}.npy"
    np.save(path, ARRAYS[key])
    (tensor,) = ckptool.open(path).values()
    assert tensor.key == key
    assert np.array_equal(read_array(tensor), ARRAYS[key])


def test_a_large_deflated_member_is_streamed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {"a": rng.integers(0, 9, (1000, 999), np.int32), "b": rng.standard_normal(200_000).astype(np.float32)}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    out = tmp_path / "out.safetensors"
    ckptool.plan_filter(tmp_path / "a.npz").apply(out)
    assert all(np.array_equal(value.numpy(), arrays[key]) for key, value in load_file(out).items())
    assert ckptool.compare(tmp_path / "a.npz", out).is_same


def test_arrays_of_objects_are_listed_and_left_alone(tmp_path: Path) -> None:
    ran: list[str] = []

    class Payload:
        def __reduce__(self) -> Any:
            return ran.append, ("ran",)

    objects = np.array([Payload()], dtype=object)
    np.savez(tmp_path / "a.npz", w=np.ones(3), evil=objects, text=np.array(["a"]))
    ran.clear()
    checkpoint = ckptool.open(tmp_path / "a.npz")
    assert list(checkpoint) == ["w"]
    assert {extra.name: extra.text for extra in checkpoint.extras} == {
        "evil": "an array of objects, which are a pickle",
        "text": "an array of <U1",
    }
    np.save(tmp_path / "b.npy", objects, allow_pickle=True)
    ran.clear()
    with pytest.raises(UnreadableError, match="no numbers"):
        ckptool.open(tmp_path / "b.npy")
    assert not ran


def header(text: str, version: int = 1, length: int | None = None) -> bytes:
    raw = text.encode("latin-1")
    size = len(raw) if length is None else length
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", size) + raw


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (2L,)}\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header(GOOD) + bytes(7), "promises"),
        (header(GOOD) + bytes(9), "promises"),
        (header(GOOD, length=60_000) + bytes(8), "claims a header"),
        (header(GOOD, 2, 1 << 31) + bytes(8), "claims a header"),
        (header(GOOD, 9) + bytes(8), "version 9"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}"), "not one that numpy writes"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (1 << 70,)}"), "not one that numpy writes"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999, 9999999999)}"), "not one that"),
        (header("{'descr': '<f4', 'fortran_order': 0, 'shape': (2,)}"), "not one that numpy writes"),
        (header("{'descr': '<f4', 'shape': (2,)}"), "not one that numpy writes"),
        (header("__import__('os').system('true')"), "not one that numpy writes"),
        (header("(" * 50_000), "not one that numpy writes"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000,)}"), "ends early"),
        (header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}") + bytes(4), "no numbers"),
        (header("{'descr': '<f3', 'fortran_order': False, 'shape': (1,)}") + bytes(3), "no numbers"),
    ],
)
def test_what_cannot_be_true_is_one_error(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.npy"
    path.write_bytes(data)
    with pytest.raises(UnreadableError, match=message):
        ckptool.open(path)


def test_a_header_of_python_2_is_read(tmp_path: Path) -> None:
    (tmp_path / "old.npy").write_bytes(header(GOOD) + struct.pack("<2f", 1, 2))
    assert read_array(ckptool.open(tmp_path / "old.npy")["old"]).tolist() == [1, 2]


def test_a_member_that_unpacks_to_more_or_less_than_it_says_is_an_error(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(100_000, np.float32))
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.npy", buffer.getvalue())
    raw = bytearray(path.read_bytes())
    at = raw.index(b"PK\x01\x02")
    middle = len(b"PK\x03\x04") + 26 + 5 + 60
    raw[middle : middle + 40] = bytes(range(40))
    path.write_bytes(bytes(raw))
    assert at > middle
    with pytest.raises(CkptError):
        read_array(ckptool.open(path)["w"])


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_changed_bytes_are_read_or_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("n") / "a.npz"
    (np.savez if data.draw(st.booleans()) else np.savez_compressed)(path, a=np.arange(9.0), b=np.ones((2, 3)))
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(raw))
    try:
        for tensor in ckptool.open(path).values():
            read_array(tensor)
    except CkptError as error:
        assert str(error)
