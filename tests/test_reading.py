"""Every layout against torch: the same view of the same bytes."""

from __future__ import annotations

import hashlib
import os
import threading
import tracemalloc
import zlib
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ckptool.engine.reading as reading
from ckptool.core.arrays import numpy_dtype
from ckptool.core.errors import CkptError, DamagedError, UnreadableError
from ckptool.core.spec import DTYPES, TensorSpec, packed_nbytes
from ckptool.core.tensor import Piece, Storage, Tensor
from ckptool.engine.reading import Reader, read_array
from ckptool.storage.locate import locate_file

TORCH_DTYPES = [name for name in DTYPES if hasattr(torch, name) and DTYPES[name].kind not in ("quantized", "bits")]


def raw(path: Path, data: bytes, ahead: int = 5) -> Storage:
    path.write_bytes(b"#" * ahead + data + b"#" * 3)
    return Storage(locate_file(path), ahead, len(data))


def torch_bytes(tensor: torch.Tensor) -> bytes:
    dense = tensor.resolve_conj().resolve_neg().contiguous()
    return dense.flatten().view(torch.uint8).numpy().tobytes() if dense.numel() else b""


@pytest.mark.parametrize("dtype", [d for d in TORCH_DTYPES if DTYPES[d].bits >= 8])
def test_bytes_and_arrays_of_every_dtype(tmp_path: Path, dtype: str) -> None:
    data = os.urandom(packed_nbytes(dtype, (60,)))
    storage = raw(tmp_path / "x", data)
    tensor = Tensor(TensorSpec("w", dtype, (3, 4, 5)), (Piece(storage, 0, (3, 4, 5)),))
    with Reader() as reader:
        assert reader.read_bytes(tensor) == data
        assert reader.sha256(tensor) == hashlib.sha256(data).hexdigest()
        array = reader.array(tensor)
    assert array.shape == (3, 4, 5) and array.dtype == numpy_dtype(dtype) and array.tobytes() == data


VIEWS = {
    "transposed": lambda t: t.reshape(6, 10).t(),
    "columns": lambda t: t.reshape(6, 10)[:, 3:5],
    "every second": lambda t: t[1::2],
    "expanded": lambda t: t[4:7].expand(4, 3),
    "expanded inside": lambda t: t[:6].reshape(2, 1, 3).expand(2, 5, 3),
    "channels last": lambda t: t.reshape(2, 3, 2, 5).permute(0, 2, 3, 1),
    "permuted": lambda t: t.reshape(3, 4, 5).permute(2, 0, 1),
    "unfolded": lambda t: t.unfold(0, 7, 3),
    "one element": lambda t: t[17:18].reshape(1, 1, 1),
    "0-dim": lambda t: t[3],
    "empty": lambda t: t[:0].reshape(0, 3),
    "said with strides": lambda t: t[6:].reshape(9, 1, 6),
}


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("dtype", ["uint8", "bfloat16", "float32", "float64", "complex128", "complex32"])
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("box", [48, reading._SCATTERED])
def test_views_equal_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, dtype: str, big_endian: bool, box: int
) -> None:
    monkeypatch.setattr(reading, "_SCATTERED", box)
    monkeypatch.setattr(reading, "_PAGE", 8)  # so that small views are read in scattered parts
    data = os.urandom(packed_nbytes(dtype, (60,)))
    base = torch.frombuffer(bytearray(data), dtype=getattr(torch, dtype))
    view = VIEWS[name](base)
    part = packed_nbytes(dtype, (1,)) // (2 if dtype.startswith("complex") else 1)
    stored = np.frombuffer(data, f"V{part}").tobytes()
    if big_endian:
        stored = np.frombuffer(data, np.uint8).reshape(-1, part)[:, ::-1].tobytes()
    storage = raw(tmp_path / "x", stored)
    storage = Storage(storage.file, storage.offset, storage.nbytes, big_endian)
    piece = Piece(storage, view.storage_offset(), tuple(view.shape), tuple(view.stride()))
    tensor = Tensor(TensorSpec("w", dtype, tuple(view.shape)), (piece,))
    with Reader() as reader:
        assert reader.read_bytes(tensor) == torch_bytes(view)
        assert reader.array(tensor).tobytes() == torch_bytes(view)
        for nbytes in (48, 64, 1000):
            sizes = [len(block) for block in reader.blocks(tensor, nbytes)]
            assert all(size == nbytes - nbytes % 16 for size in sizes[:-1]) and sum(sizes) == tensor.nbytes


@pytest.mark.parametrize(("dtype", "conj", "neg"), [("complex64", 1, 0), ("complex128", 1, 1), ("float32", 0, 1)])
def test_conj_and_neg_bits(tmp_path: Path, dtype: str, conj: int, neg: int) -> None:
    base = torch.randn(4, 5, dtype=getattr(torch, dtype))
    view = base.t()
    view = torch.conj(view) if conj else view
    view = torch._neg_view(view) if neg else view
    assert view.is_conj() == bool(conj) and view.is_neg() == bool(neg)
    piece = Piece(raw(tmp_path / "x", torch_bytes(base)), 0, (5, 4), (1, 5))
    tensor = Tensor(TensorSpec("w", dtype, (5, 4)), (piece,), conj=bool(conj), neg=bool(neg))
    with Reader() as reader:
        assert reader.read_bytes(tensor) == torch_bytes(view)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_chunks_give_the_whole(tmp_path: Path, data: st.DataObject) -> None:
    """A tensor cut along every axis into pieces stored anywhere reads as the whole."""
    shape = tuple(data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=3)))
    whole = torch.arange(int(np.prod(shape)), dtype=torch.int32).reshape(shape)
    cuts = [sorted({0, n, *data.draw(st.lists(st.integers(0, n), max_size=2))}) for n in shape]
    pieces = []
    for index in np.ndindex(*[len(cut) - 1 for cut in cuts]):
        low = tuple(cut[i] for cut, i in zip(cuts, index, strict=True))
        high = tuple(cut[i + 1] for cut, i in zip(cuts, index, strict=True))
        box = whole[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        storage = raw(tmp_path / f"chunk{len(pieces)}", torch_bytes(box))
        pieces.append(Piece(storage, 0, tuple(box.shape), at=low))
    tensor = Tensor(TensorSpec("w", "int32", shape), tuple(data.draw(st.permutations(pieces))))
    scattered = reading._SCATTERED
    try:
        reading._SCATTERED = data.draw(st.sampled_from([16, 64, scattered]))
        with Reader() as reader:
            assert reader.read_bytes(tensor) == torch_bytes(whole)
    finally:
        reading._SCATTERED = scattered


def test_chunks_that_leave_a_hole_are_an_error(tmp_path: Path) -> None:
    storage = raw(tmp_path / "x", bytes(8))
    pieces = (Piece(storage, 0, (4,), at=(0,)), Piece(storage, 4, (3,), at=(5,)))
    with pytest.raises(UnreadableError, match="hole"), Reader() as reader:
        reader.read_bytes(Tensor(TensorSpec("w", "uint8", (8,)), pieces))


@pytest.mark.parametrize("box", [48, 640, reading._SCATTERED])
def test_chunks_that_are_read_in_parts_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, box: int) -> None:
    """Columns of two files, each with its CRC-32: a byte that was changed anywhere is found."""
    monkeypatch.setattr(reading, "_SCATTERED", box)
    whole = torch.arange(200, dtype=torch.int32).reshape(20, 10)
    parts = [whole[:, :7].contiguous(), whole[:, 7:].contiguous()]
    storages = [raw(tmp_path / f"part{number}", torch_bytes(part)) for number, part in enumerate(parts)]

    def tensor() -> Tensor:
        places = zip(storages, parts, (0, 7), strict=True)
        pieces = [
            Piece(
                Storage(locate_file(storage.file.path), 5, storage.nbytes, crc=zlib.crc32(torch_bytes(part))),
                0,
                tuple(part.shape),
                at=(0, at),
            )
            for storage, part, at in places
        ]
        return Tensor(TensorSpec("w", "int32", (20, 10)), tuple(pieces))

    with Reader() as reader:
        assert reader.read_bytes(tensor()) == torch_bytes(whole)
    for number, storage in enumerate(storages):
        path = tmp_path / f"part{number}"
        kept = path.read_bytes()
        for at in (0, storage.nbytes // 2, storage.nbytes - 1):
            path.write_bytes(kept[: 5 + at] + bytes([kept[5 + at] ^ 1]) + kept[6 + at :])
            with pytest.raises(DamagedError, match=path.name), Reader() as reader:
                reader.read_bytes(tensor())
        path.write_bytes(kept)


def test_sub_byte_floats_are_unpacked(tmp_path: Path) -> None:
    four = np.arange(16, dtype=np.uint8)
    packed = (four[0::2] | four[1::2] << 4).tobytes()
    tensor = Tensor(TensorSpec("w", "float4_e2m1fn", (4, 4)), (Piece(raw(tmp_path / "x", packed), 0, (4, 4)),))
    expected = four.view(ml_dtypes.float4_e2m1fn).astype(np.float32).reshape(4, 4)
    assert np.array_equal(read_array(tensor).astype(np.float32), expected)

    six = np.arange(64, dtype=np.uint64)
    packed = b"".join(
        sum(int(v) << (6 * i) for i, v in enumerate(six[at : at + 4])).to_bytes(3, "little") for at in range(0, 64, 4)
    )
    tensor = Tensor(TensorSpec("w", "float6_e3m2fn", (64,)), (Piece(raw(tmp_path / "y", packed), 0, (64,)),))
    expected = six.astype(np.uint8).view(ml_dtypes.float6_e3m2fn).astype(np.float32)
    assert np.array_equal(read_array(tensor).astype(np.float32), expected)


def test_special_layouts_give_the_bytes_of_their_parts(tmp_path: Path) -> None:
    storage = raw(tmp_path / "x", bytes(range(24)))
    part = Tensor(TensorSpec("w.indices", "int64", (1,)), (Piece(storage, 0, (1,)),))
    values = Tensor(TensorSpec("w.values", "float32", (4,)), (Piece(storage, 2, (4,)),))
    sparse = Tensor(TensorSpec("w", "float32", (9,)), layout="sparse", parts=(("indices", part), ("values", values)))
    meta = Tensor(TensorSpec("m", "float32", (9,)), layout="meta")
    quantized = Tensor(TensorSpec("q", "quint4x2", (6,)), (Piece(Storage(storage.file, 5, 3), 0, (6,)),), "quantized")
    with Reader() as reader:
        assert reader.read_bytes(sparse) == bytes(range(24))
        assert reader.read_bytes(meta) == b""
        assert reader.read_bytes(quantized) == bytes(range(3))
        with pytest.raises(CkptError, match="sparse"):
            reader.array(sparse)


def test_a_short_file_is_an_error_not_zeros(tmp_path: Path) -> None:
    source = raw(tmp_path / "x", bytes(100)).file
    storage = Storage(source, 8, 101)
    run = Tensor(TensorSpec("w", "uint8", (101,)), (Piece(storage, 0, (101,)),))
    strided = Tensor(TensorSpec("w", "uint8", (10, 10)), (Piece(storage, 1, (10, 10), (1, 10)),))
    with Reader() as reader:
        for tensor in (run, strided):
            with pytest.raises(UnreadableError, match=r"x ends early: 109 bytes are needed, the file has 108"):
                reader.read_bytes(tensor)


def test_a_file_cut_short_meanwhile_has_changed(tmp_path: Path) -> None:
    storage = raw(tmp_path / "x", bytes(100))
    tensor = Tensor(TensorSpec("w", "uint8", (100,)), (Piece(storage, 0, (100,)),))
    with pytest.raises(UnreadableError, match="x changed after it was opened"), Reader() as reader:
        assert reader.read_bytes(tensor) == bytes(100)
        os.truncate(tmp_path / "x", 50)
        with pytest.raises(UnreadableError, match="x changed after it was opened"):
            reader.read_bytes(tensor)


def test_views_outside_their_storage_are_errors(tmp_path: Path) -> None:
    storage = raw(tmp_path / "x", bytes(16))
    for piece, shape in [
        (Piece(storage, 1, (4,)), (4,)),
        (Piece(storage, 0, (2, 4), (1, 2)), (2, 4)),
        (Piece(storage, -1, (2,), (2,)), (2,)),
    ]:
        with pytest.raises(UnreadableError, match="outside its storage"), Reader() as reader:
            reader.read_bytes(Tensor(TensorSpec("w", "float32", shape), (piece,)))


def test_an_endless_view_is_refused_and_a_large_one_streams(tmp_path: Path) -> None:
    storage = raw(tmp_path / "x", bytes(16))
    endless = Tensor(TensorSpec("w", "float32", (2**60, 2)), (Piece(storage, 0, (2**60, 2), (0, 1)),))
    with pytest.raises(UnreadableError, match="over few bytes"), Reader() as reader:
        next(iter(reader.blocks(endless)))
    large = Tensor(TensorSpec("w", "float32", (2**26, 2)), (Piece(storage, 0, (2**26, 2), (0, 1)),))
    tracemalloc.start()
    with Reader() as reader:
        total = sum(len(block) for block in reader.blocks(large))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 2**29 and peak < 60 << 20


def test_a_transposed_tensor_streams_in_bounded_memory(tmp_path: Path) -> None:
    base = np.arange(1024 * 5000, dtype=np.float32).reshape(1024, 5000)  # 20 MB
    storage = raw(tmp_path / "x", base.tobytes())
    tensor = Tensor(TensorSpec("w", "float32", (5000, 1024)), (Piece(storage, 0, (5000, 1024), (1, 5000)),))
    expected = hashlib.sha256(np.ascontiguousarray(base.T)).hexdigest()
    tracemalloc.start()
    with Reader() as reader:
        assert reader.sha256(tensor) == expected
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    (tmp_path / "x").unlink()
    assert peak < 12 << 20


def test_many_files_few_descriptors_many_threads(tmp_path: Path) -> None:
    tensors = []
    for i in range(40):
        storage = raw(tmp_path / f"{i}", bytes([i]) * 1000)
        tensors.append(Tensor(TensorSpec(str(i), "uint8", (1000,)), (Piece(storage, 0, (1000,)),)))
    wrong: list[int] = []

    def work() -> None:
        for _ in range(5):
            for i, tensor in enumerate(tensors):
                if reader.read_bytes(tensor) != bytes([i]) * 1000:
                    wrong.append(i)

    before = open_files()
    with Reader() as reader:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert open_files() - before <= 12 + 4
    assert not wrong and open_files() == before


def test_a_fifo_in_the_place_of_a_file_and_a_missing_file_are_refused_at_once(tmp_path: Path) -> None:
    for name, message in (("fifo", "changed after it was opened"), ("nothing", "is not there any more")):
        storage = raw(tmp_path / name, b"x")
        (tmp_path / name).unlink()
        if name == "fifo":
            os.mkfifo(tmp_path / name)
        tensor = Tensor(TensorSpec("w", "uint8", (1,)), (Piece(storage, 0, (1,)),))
        with pytest.raises(UnreadableError, match=message), Reader() as reader:
            reader.read_bytes(tensor)


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
