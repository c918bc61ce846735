"""Tensors made of flat runs, as ZeRO and FSDP's flat parameters cut them, against numpy."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from writing import apply

import ckptool.engine.reading as reading
from ckptool.commands.diff.comparison import compare
from ckptool.commands.filter import plan_filter
from ckptool.core.arrays import numpy_dtype
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.dtypes import DTYPES
from ckptool.core.errors import UnreadableError
from ckptool.core.format import Format
from ckptool.core.spec import TensorSpec
from ckptool.core.tensor import Piece, Storage, Tensor
from ckptool.core.views import is_run
from ckptool.engine.reading import Reader
from ckptool.formats.contents import contents_of
from ckptool.formats.image import Range
from ckptool.formats.opening import open_checkpoint
from ckptool.storage.local import LocalFile
from ckptool.values.comparing import compare_values


def cut(folder: Path, spec: TensorSpec, data: bytes, cuts: list[int], big_endian: bool = False) -> Tensor:
    """A tensor whose packed bytes are cut before these elements; the runs are scattered over two files."""
    dtype = DTYPES[spec.dtype]
    bounds = [0, *sorted(cuts), spec.elements]
    files = [bytearray(b"#" * 5), bytearray(b"#" * 3)]
    places = []
    for number, (low, high) in enumerate(pairwise(bounds)):
        part = data[dtype.nbytes(low) : dtype.nbytes(high)] if high < spec.elements else data[dtype.nbytes(low) :]
        file = files[number % 2]
        ahead = number % 3 * dtype.block_elements  # elements of the storage before the run
        if big_endian:
            width = 1 if dtype.is_packed else dtype.block_nbytes // (2 if dtype.kind == "complex" else 1)
            part = np.frombuffer(part, f"V{width}").view(np.uint8).reshape(-1, width)[:, ::-1].tobytes()
        places.append((number % 2, len(file), ahead, low, high - low, len(part)))
        file += b"#" * dtype.nbytes(ahead) + part
    for number, file in enumerate(files):
        (folder / f"flat{number}").write_bytes(file)
    pieces = [
        Piece.flat(
            Storage(LocalFile.at(folder / f"flat{n}"), offset, dtype.nbytes(ahead) + nbytes, big_endian),
            ahead,
            low,
            count,
        )
        for n, offset, ahead, low, count, nbytes in places
    ]
    return Tensor(spec, tuple(reversed(pieces)))


DTYPES_CUT = ["uint8", "bfloat16", "float32", "float64", "complex64", "complex128", "float4_e2m1fn", "float6_e3m2fn"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_flat_runs_give_the_whole(tmp_path: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(DTYPES_CUT))
    dtype = DTYPES[name]
    shape = tuple(data.draw(st.lists(st.integers(0, 7), max_size=3)))
    spec = TensorSpec("w", name, shape)
    blocks = spec.elements // dtype.block_elements
    cuts = [at * dtype.block_elements for at in data.draw(st.lists(st.integers(0, blocks), max_size=9))]
    packed = np.random.default_rng(blocks).integers(0, 256, spec.nbytes, dtype=np.uint8).tobytes()
    big_endian = data.draw(st.booleans())
    tensor = cut(tmp_path, spec, packed, cuts, big_endian)
    with Reader() as reader:
        assert reader.read_bytes(tensor) == packed
        for nbytes in (48, 96):
            sizes = [len(block) for block in reader.blocks(tensor, nbytes)]
            assert all(size == nbytes for size in sizes[:-1]) and sum(sizes) == len(packed)
        if spec.elements:
            array = reader.array(tensor)
            assert array.shape == shape
            if not dtype.is_packed:
                assert array.tobytes() == np.frombuffer(packed, numpy_dtype(name)).reshape(shape).tobytes()
            plain = tmp_path / "plain"
            plain.write_bytes(packed)
            boxed = Tensor(spec, (Piece(Storage(LocalFile.at(plain), 0, len(packed)), 0, shape),))
            verdicts = compare_values([(tensor, boxed), (boxed, tensor)], reader)
            assert [verdict.same for verdict in verdicts] == [True, True]


@pytest.mark.parametrize("name", ["float32", "complex64", "int16"])
def test_negated_and_conjugated_runs(tmp_path: Path, name: str) -> None:
    array = np.random.default_rng(0).integers(-99, 99, 24).astype(numpy_dtype(name))
    tensor = replace(cut(tmp_path, TensorSpec("w", name, (24,)), array.tobytes(), [3, 10]), neg=True, conj=True)
    with Reader() as reader:
        assert reader.array(tensor).tolist() == np.negative(array.conj()).tolist()


def test_runs_are_longer_than_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BLOCK", 1000)
    data = np.random.default_rng(0).integers(0, 256, 3 * 5000, dtype=np.uint8).tobytes()
    for name, shape in (("float6_e2m3fn", (200, 100)), ("float4_e2m1fn_x2", (15_000,)), ("float32", (30, 125))):
        tensor = cut(tmp_path, TensorSpec("w", name, shape), data, [400, 3000])
        with Reader() as reader:
            assert reader.read_bytes(tensor) == data


WRONG = {
    "a hole": [(0, 0, 4), (5, 5, 5)],
    "an overlap": [(0, 0, 6), (4, 4, 6)],
    "the same run twice": [(0, 0, 5), (0, 0, 5), (5, 5, 5)],
    "too short": [(0, 0, 4)],
    "too long": [(0, 0, 11)],
    "begins late": [(0, 1, 9)],
    "before the tensor": [(0, -1, 11)],
    "before the storage": [(-1, 0, 10)],
    "behind the storage": [(3, 0, 10)],
    "nothing but empty runs": [(0, 0, 0)],
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_runs_are_refused(tmp_path: Path, case: str) -> None:
    (tmp_path / "raw").write_bytes(bytes(48))
    storage = Storage(LocalFile.at(tmp_path / "raw"), 0, 48)
    pieces = tuple(Piece.flat(storage, *run) for run in WRONG[case])
    tensor = Tensor(TensorSpec("w", "float32", (2, 5)), pieces)
    source = Checkpoint(tmp_path / "raw", Format("raw"), {"w": tensor}, (storage.file,), nbytes=48)
    with Reader() as reader, pytest.raises(UnreadableError, match=r"leave a hole or overlap|outside its storage"):
        reader.read_bytes(tensor)
    with pytest.raises(UnreadableError, match=r"leave a hole or overlap|outside its storage"):
        apply(plan_filter(source), tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_boxes_and_flat_runs_do_not_mix(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(40))
    storage = Storage(LocalFile.at(tmp_path / "raw"), 0, 40)
    tensor = Tensor(
        TensorSpec("w", "float32", (2, 5)), (Piece.flat(storage, 0, 0, 5), Piece(storage, 5, (1, 5), at=(1, 0)))
    )
    with Reader() as reader, pytest.raises(UnreadableError, match="made of boxes and of flat runs"):
        reader.read_bytes(tensor)


@pytest.mark.parametrize("runs", [[(0, 0, 3), (3, 3, 7)], [(1, 0, 10)], [(0, 0, 4), (5, 4, 6)]])
def test_numbers_of_4_bits_are_cut_between_bytes_only(tmp_path: Path, runs: list[tuple[int, int, int]]) -> None:
    (tmp_path / "raw").write_bytes(bytes(8))
    storage = Storage(LocalFile.at(tmp_path / "raw"), 0, 8)
    tensor = Tensor(TensorSpec("w", "float4_e2m1fn", (2, 5)), tuple(Piece.flat(storage, *run) for run in runs))
    with Reader() as reader, pytest.raises(UnreadableError, match=r"w is cut inside a block: .* 2 elements in 1 byte"):
        reader.read_bytes(tensor)


def test_one_run_that_covers_the_tensor_is_a_plain_tensor(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(44))
    storage = Storage(LocalFile.at(tmp_path / "raw"), 0, 44)
    spec = TensorSpec("w", "float32", (2, 5))
    assert is_run(Tensor(spec, (Piece.flat(storage, 1, 0, 10),)))
    assert not is_run(Tensor(spec, (Piece.flat(storage, 1, 0, 9),)))


def checkpoint(folder: Path) -> tuple[Checkpoint, dict[str, torch.Tensor]]:
    """A checkpoint of flat runs, and what it holds."""
    torch.manual_seed(0)
    state = {
        "big": torch.randn(300, 200),
        "half": torch.randn(31, 7).half(),
        "bf": torch.randn(64, 64).bfloat16(),
        "scalar": torch.tensor(3.0),
        "n": torch.arange(1000),
        "z": torch.randn(20, dtype=torch.complex64),
        "none": torch.empty(0, 3),
    }
    tensors = {}
    for number, (key, value) in enumerate(state.items()):
        (folder / key).mkdir()
        raw = value.reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
        spec = TensorSpec(key, str(value.dtype).removeprefix("torch."), tuple(value.shape))
        cuts = [value.numel() * k // (number + 2) for k in range(1, number + 2)]
        tensors[key] = cut(folder / key, spec, raw, cuts, big_endian=key in ("bf", "z"))
    files = tuple(dict.fromkeys(piece.storage.file for tensor in tensors.values() for piece in tensor.pieces))
    return Checkpoint(folder, Format("flat"), tensors, files, nbytes=sum(file.size for file in files)), state


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ""])
def test_flat_runs_go_through_filter_and_diff(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "in").mkdir()
    source, state = checkpoint(tmp_path / "in")
    target = tmp_path / f"out{suffix}"
    plan = plan_filter(source)
    assert any(isinstance(content, Range) for content in contents_of(plan, 0))
    assert len(contents_of(plan, 0)) > 1
    apply(plan, target)
    loaded = torch.load(target) if suffix == ".pth" else safetensors.torch.load_file(open_checkpoint(target).files[-1])
    assert set(loaded) == set(state)
    for key, tensor in state.items():
        assert loaded[key].dtype == tensor.dtype
        assert torch.equal(loaded[key], tensor)
    found = compare(source, open_checkpoint(target))
    assert found.is_same
    apply(plan_filter(source, dtype="float64"), tmp_path / "wide.pth")
    wide = torch.load(tmp_path / "wide.pth")
    assert all(torch.equal(wide[key], tensor.double()) for key, tensor in state.items() if tensor.is_floating_point())
    state["big"][7, 3] += 1
    torch.save(state, tmp_path / "other.pth")
    changed = compare(source, open_checkpoint(tmp_path / "other.pth"))
    assert not changed.is_same
