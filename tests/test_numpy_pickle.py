"""numpy arrays in plain pickles and beside torch's tensors: numpy's own pickler writes them, numpy compares."""

from __future__ import annotations

import pickle
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import ckptool
from ckptool.cli.app import run
from ckptool.core.errors import CkptError
from ckptool.engine.reading import Reader, read_array
from ckptool.formats import characters, numpy_pickle
from ckptool.formats.pickle import skeleton

GENERATOR = np.random.default_rng(16)
ARRAYS: dict[str, np.ndarray[Any, Any]] = {
    "stem.conv1.weight": GENERATOR.standard_normal((4, 3, 3, 3)).astype("f4"),
    "long": GENERATOR.standard_normal((300, 400)).astype("f4"),
    "columns": np.asfortranarray(GENERATOR.standard_normal((3, 30, 40)).astype("f8")),
    "big": GENERATOR.standard_normal((31, 40)).astype(">f4"),
    "big columns": np.asfortranarray(GENERATOR.integers(0, 1 << 60, (31, 40)).astype(">i8")),
    "high bytes": np.full((40, 40), 0xFF, "u1"),
    "zeros": np.zeros(2000, "f2"),
    "none": np.zeros((0, 3), "f2"),
    "scalar": np.array(3.5),
    "mask": np.array([True, False]),
    "u16": GENERATOR.integers(0, 65535, (77, 33)).astype("u2"),
    "complex": (GENERATOR.standard_normal(500) + 1j).astype("c8"),
}

MULTIARRAY = sys.modules[
    np.zeros(0).__reduce__()[0].__module__
]  # numpy._core.multiarray; numpy.core.multiarray of 1.26


def written(path: Path, value: object, protocol: int) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def assert_holds(path: Path, arrays: dict[str, Any], select: str | None = None) -> None:
    """The tensors of a file are these arrays, in their order, bit by bit."""
    checkpoint = ckptool.open(path) if select is None else ckptool.open(path, select=select)
    assert list(checkpoint.tensors) == list(arrays)
    with Reader([checkpoint]) as reader:
        for key, array in arrays.items():
            native = array.astype(array.dtype.newbyteorder("="))
            found = reader.array(checkpoint[key])
            assert found.dtype == native.dtype
            assert found.shape == native.shape
            assert found.tobytes() == np.ascontiguousarray(native).tobytes(), key


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_of_numpys_pickler(protocol: int, tmp_path: Path) -> None:
    zoo = {"model": ARRAYS, "__author__": "zoo", "matching_heuristics": True, "best": np.float64(0.5)}
    path = written(tmp_path / "R-50.pkl", zoo, protocol)
    assert_holds(path, ARRAYS)
    checkpoint = ckptool.open(path)
    assert checkpoint.selection.name == "model"
    texts = {extra.name: extra.text for extra in checkpoint.extras}
    assert texts == {"__author__": "zoo", "matching_heuristics": "True", "best": "0.5"}


def as_numpy_1(data: bytes) -> bytes:
    """The same pickle as numpy 1 writes it: another module name, one byte shorter."""
    return data.replace(b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray").replace(
        b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"
    )


@pytest.mark.parametrize("protocol", [2, 3])
def test_numpy_1(protocol: int, tmp_path: Path) -> None:
    data = as_numpy_1(pickle.dumps(ARRAYS, protocol))
    assert b"numpy.core.multiarray" in data
    (tmp_path / "w.pdparams").write_bytes(data)
    assert_holds(tmp_path / "w.pdparams", ARRAYS)


def python_2(arrays: dict[str, np.ndarray[Any, Any]]) -> bytes:
    """A dict of arrays as Python 2 and numpy 1 write it with protocol 2: names and bytes are its byte strings."""

    def text(value: bytes) -> bytes:
        return (
            b"U" + bytes((len(value),)) + value if len(value) < 256 else b"T" + len(value).to_bytes(4, "little") + value
        )

    out = b"\x80\x02}("
    for key, array in arrays.items():
        shape = b"(" + b"".join(b"J" + size.to_bytes(4, "little") for size in array.shape) + b"t"
        by_columns = array.flags.f_contiguous and not array.flags.c_contiguous
        order = array.dtype.byteorder.replace("=", "<").encode()
        dtype = b"cnumpy\ndtype\n" + text(array.dtype.str[1:].encode()) + b"K\0K\1\x87R(K\3" + text(order)
        dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
        out += text(key.encode()) + b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85" + text(b"b")
        out += b"\x87R(K\1" + shape + dtype + (b"\x88" if by_columns else b"\x89")
        out += text(array.tobytes("F" if by_columns else "C")) + b"tb"
    return out + b"u."


def test_byte_strings_of_python_2(tmp_path: Path) -> None:
    data = python_2(ARRAYS)
    loaded = pickle.loads(data, encoding="latin1")  # the oracle understands what is made here
    assert all(np.array_equal(loaded[key], array) for key, array in ARRAYS.items())
    (tmp_path / "old.pkl").write_bytes(data)
    assert_holds(tmp_path / "old.pkl", ARRAYS)
    small = {key: array.reshape(-1)[:9] for key, array in ARRAYS.items() if array.size}
    (tmp_path / "again.pkl").write_bytes(pickle.dumps(pickle.loads(python_2(small), encoding="latin1"), 2))
    assert_holds(tmp_path / "again.pkl", small)


def test_paddles_parameters(tmp_path: Path) -> None:
    """`paddle.save` of a `state_dict()`: arrays, and the names that the parameters have in its graph."""
    names = {"StructuredToParameterName@@": {"fc.weight": "linear_0.w_0"}}
    path = written(tmp_path / "m.pdparams", {"fc.weight": ARRAYS["long"], "fc.bias": ARRAYS["zeros"], **names}, 4)
    assert_holds(path, {"fc.weight": ARRAYS["long"], "fc.bias": ARRAYS["zeros"]})
    assert run(["filter", str(path), "-o", str(tmp_path / "m.safetensors")]) == 0
    assert torch.equal(load_file(tmp_path / "m.safetensors")["fc.weight"], torch.from_numpy(ARRAYS["long"]))


def paddle_slices(array: np.ndarray[Any, Any], most: int) -> dict[str, object]:
    """A large array as Paddle's `_unpack_saved_dict` cuts it for the protocols 2 and 3."""
    flat = array.flatten()
    parts = {f"w@@.{number}": flat[at : at + most] for number, at in enumerate(range(0, flat.size, most))}
    return {**parts, "UnpackBigParamInfor@@": {"w": {"OriginShape": array.shape, "slices": list(parts)}}}


@pytest.mark.parametrize("protocol", [2, 3])
def test_paddles_slices_are_one_tensor(protocol: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = paddle_slices(ARRAYS["long"], 7000)
    path = written(tmp_path / "m.pdparams", {"fc.bias": ARRAYS["zeros"], **cut}, protocol)
    assert_holds(path, {"fc.bias": ARRAYS["zeros"], "w": ARRAYS["long"]})
    assert run(["filter", str(path), "-o", str(tmp_path / "m.pth")]) == 0
    assert torch.equal(torch.load(tmp_path / "m.pth")["w"], torch.from_numpy(ARRAYS["long"]))
    cut["UnpackBigParamInfor@@"]["w"]["OriginShape"] = (300, 401)  # type: ignore[index]
    assert run(["inspect", str(written(path, {"fc.bias": ARRAYS["zeros"], **cut}, protocol))]) == 2
    assert "120,000 elements for w, and a shape of 120,300" in capsys.readouterr().err


@pytest.mark.parametrize("protocol", range(6))
def test_scalars_beside_arrays_are_tensors_without_axes(protocol: int, tmp_path: Path) -> None:
    weights = {"w": ARRAYS["long"], "beta": np.float32(0.9), "count": np.int64(7)}
    path = written(tmp_path / "a.pkl", {"weights": weights, "epoch": np.int64(3)}, protocol)
    assert_holds(path, {key: np.asarray(value) for key, value in weights.items()})
    assert [extra.text for extra in ckptool.open(path).extras] == ["3"]
    assert run(["filter", str(path), "-o", str(tmp_path / "a.pth")]) == 0
    with torch.serialization.safe_globals([MULTIARRAY.scalar, np.dtype, np.dtypes.Int64DType]):
        loaded = torch.load(tmp_path / "a.pth")
    assert (loaded["epoch"], loaded["weights"]["count"]) == (3, torch.tensor(7))


def test_paddles_tensors_elsewhere(tmp_path: Path) -> None:
    """`paddle.save` of anything else: each tensor becomes its name and its array, as its reducer says."""

    class Tensor:
        def __init__(self, name: str, array: object) -> None:
            self.pair = name, array

        def __reduce__(self) -> tuple[object, ...]:
            return tuple, (self.pair,)

    weights = {key: Tensor(f"linear_{number}.w_0", array) for number, (key, array) in enumerate(ARRAYS.items())}
    for protocol in (2, 4):
        path = written(tmp_path / "all.pdparams", {"epoch": 3, "weights": weights}, protocol)
        assert_holds(path, ARRAYS)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_written_again_and_compared(protocol: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(written(tmp_path / "a.pkl", {"model": ARRAYS, "epoch": 3}, protocol))
    plain, pth = str(tmp_path / "a.safetensors"), str(tmp_path / "a.pth")
    assert run(["filter", path, "--only-weights", "-o", plain]) == 0
    assert run(["diff", path, plain, "--only", "*"]) == 0
    assert run(["remap", path, "-r", "stem. -> backbone.stem.", "-o", pth]) == 0
    loaded = torch.load(pth, weights_only=True)
    assert loaded["epoch"] == 3
    expected = ["backbone.stem.conv1.weight", *list(ARRAYS)[1:]]
    assert list(loaded["model"]) == expected
    for key, array in zip(expected, ARRAYS.values(), strict=True):
        native = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))).reshape(array.shape)
        assert torch.equal(loaded["model"][key], torch.from_numpy(native))


def test_beside_tensors_in_a_torch_file(tmp_path: Path) -> None:
    """A random state made of arrays does not change which dict holds the weights; arrays among them are listed."""
    weights = {"w": torch.ones(3), "mean": ARRAYS["long"]}
    state = ("MT19937", np.arange(624, dtype="u4"), 624, 0, 0.0)
    torch.save({"generator_weights": weights, "numpy_state": state, "history": np.ones(9)}, tmp_path / "a.pth")
    checkpoint = ckptool.open(tmp_path / "a.pth")
    assert checkpoint.selection.name == "generator_weights"
    assert list(checkpoint.tensors) == ["w", "mean"]
    assert list(checkpoint.other_tensors) == ["numpy_state.1", "history"]
    out = tmp_path / "b.pth"
    assert run(["filter", str(tmp_path / "a.pth"), "-o", str(out)]) == 0
    allowed = [np.ndarray, np.dtype, MULTIARRAY._reconstruct, np.dtypes.UInt32DType, np.dtypes.Float64DType]
    with torch.serialization.safe_globals(allowed):
        again = torch.load(out)
    assert np.array_equal(again["numpy_state"][1], state[1])
    assert torch.equal(again["generator_weights"]["mean"], torch.from_numpy(ARRAYS["long"]))


def test_large_arrays_of_another_device_stay_in_the_file(tmp_path: Path) -> None:
    """XLA's tensors are arrays in ``data.pkl``; bfloat16 is written as float32."""
    values = torch.randn(1000, 3000, generator=torch.Generator().manual_seed(0)).bfloat16()

    class Device:
        def __reduce__(self) -> tuple[object, ...]:
            return torch._utils._rebuild_device_tensor_from_numpy, (
                values.float().numpy(),
                torch.bfloat16,
                "xla:0",
                True,
            )

    torch.save({"w": Device(), "v": torch.ones(3)}, tmp_path / "xla.pth", pickle_protocol=2)
    torch.save({"w": Device(), "v": torch.ones(3)}, tmp_path / "xla4.pth", pickle_protocol=4)
    for name in ("xla.pth", "xla4.pth"):
        tracemalloc.start()
        checkpoint = ckptool.open(tmp_path / name)
        with Reader([checkpoint]) as reader:
            blocks = [bytes(block[:2]) for block in reader.blocks(checkpoint["w"])]
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            found = torch.from_numpy(reader.array(checkpoint["w"]).view("i2")).view(torch.bfloat16)
        assert torch.equal(found, values)
        assert list(checkpoint) == ["w", "v"] and blocks
        assert peak < 60_000_000  # the pickle has 18 MB, and a gathered block 16 MB


def test_arrays_of_objects_are_no_tensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(
        tmp_path / "a.pkl", {"w": np.ones(3), "o": np.array([{}, "x"], dtype=object), "t": np.array(["x"])}, 4
    )
    assert list(ckptool.open(path).tensors) == ["w"]
    with pytest.raises(CkptError, match="holds no numpy arrays"):
        ckptool.open(written(tmp_path / "b.pkl", {"o": np.array([{}], dtype=object)}, 4))


class Boom:
    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("raise SystemExit(7)",)


def test_nothing_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "a.pkl", {"w": ARRAYS["long"], "x": Boom()}, 4)
    assert run(["inspect", str(path)]) == 0
    assert "builtins.exec" in capsys.readouterr().out


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_memory_does_not_grow_with_the_arrays(protocol: int, tmp_path: Path) -> None:
    path = written(tmp_path / "a.pkl", {"w": np.ones((3000, 3000), "f4"), "v": np.ones(1_000_000)}, protocol)
    assert path.stat().st_size > 40_000_000
    tracemalloc.start()
    checkpoint = ckptool.open(path)
    with Reader([checkpoint]) as reader:
        nbytes = sum(len(block) for key in checkpoint for block in reader.blocks(checkpoint[key]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert nbytes == 44_000_000
    assert peak < 8_000_000


def lies() -> dict[str, bytes]:
    """Pickles whose sizes do not fit: what they hold, changed at one place."""
    array = np.arange(1000, dtype="<f4")
    three, two = pickle.dumps({"w": array}, 3), pickle.dumps({"w": array}, 2)
    return {
        "shape": three.replace(b"M\xe8\x03\x85", b"M\xe9\x03\x85"),
        "shape of text": two.replace(b"M\xe8\x03\x85", b"M\xff\xff\x85"),
        "huge shape": three.replace(b"M\xe8\x03\x85", b"\x8a\x08" + b"\xff" * 7 + b"\x7f\x85"),
        "negative shape": three.replace(b"M\xe8\x03\x85", b"J\xff\xff\xff\xff\x85"),
        "length beyond the file": three.replace(b"B\xa0\x0f\0\0", b"B\xff\xff\xff\xff"),
        "cut": three[:2000],
        "characters above 255": two.replace(b"\x00\x00\xc2\x80", b"\x00\x00\xc4\x80", 1),
    }


@pytest.mark.parametrize("what", lies())
def test_sizes_that_lie(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lie.pkl"
    path.write_bytes(lies()[what])
    assert path.read_bytes() not in (pickle.dumps({"w": np.arange(1000, dtype="<f4")}, protocol) for protocol in (2, 3))
    out = tmp_path / "out.safetensors"
    assert run(["filter", str(path), "-o", str(out)]) == 2
    assert not out.exists()
    assert "Traceback" not in capsys.readouterr().err


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    forms=st.lists(
        st.tuples(st.sampled_from(["f4", ">f8", "i1", ">i2", "u1", "c8", "?"]), st.lists(st.integers(0, 5), max_size=3))
    ),
    protocol=st.integers(0, 5),
    window=st.integers(1, 64),
    random=st.randoms(use_true_random=False),
)
def test_any_arrays_wherever_windows_end(
    forms: list[tuple[str, list[int]]], protocol: int, window: int, random: Any, tmp_path: Path
) -> None:
    """Small windows and payloads cut everywhere: what is left out is found again."""
    arrays = {}
    for number, (dtype, shape) in enumerate(forms):
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        raw = bytes(random.choice((0, 1)) if dtype == "?" else random.randrange(256) for _ in range(count))
        arrays[f"a{number}"] = np.frombuffer(raw, dtype).reshape(shape)
    path = written(
        tmp_path / "any.pkl", {"x": "y" * 100, "w": arrays, "z": [b"1" * 90, bytearray(b"2" * 80)]}, protocol
    )
    if not arrays:
        with pytest.raises(CkptError):
            ckptool.open(path)
        return
    whole = numpy_pickle.load_from(ckptool.open(path).files[0], 0, path.stat().st_size)
    before = skeleton._LONG, skeleton._WINDOW
    # not 1: texts of one character are one object in CPython, so that a number may share its memo with a byte order
    skeleton._LONG, skeleton._WINDOW = 2, window
    try:
        assert_holds(path, arrays)
        again = numpy_pickle.load_from(ckptool.open(path).files[0], 0, path.stat().st_size)
    finally:
        skeleton._LONG, skeleton._WINDOW = before
    assert again.end == whole.end == path.stat().st_size
    assert again.globals == whole.globals


HUGE = 4 << 30
BEGIN = b"\x80\x04cnumpy._core.multiarray\n_reconstruct\n0"


@pytest.mark.parametrize(
    "opcodes",
    [
        b"\x8d" + HUGE.to_bytes(8, "little"),  # a text
        b"\x8e" + HUGE.to_bytes(8, "little"),  # bytes that are no array's
        b"\x95" + HUGE.to_bytes(8, "little"),  # a frame
        b"V",  # a line that does not end
        b"cnumpy\n",
        b"\x8b" + ((1 << 31) - 1).to_bytes(4, "little"),  # an integer
        b"X" + b"\xff" * 4,
    ],
    ids=["text", "bytes", "frame", "line", "name", "integer", "short text"],
)
def test_four_gigabytes_that_are_no_arrays(opcodes: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "huge.pkl"
    with path.open("wb") as file:
        file.write(BEGIN + opcodes)
        file.truncate(HUGE + 4096)
    tracemalloc.start()
    assert run(["inspect", str(path)]) == 2
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "Traceback" not in capsys.readouterr().err
    assert peak < 400_000_000


def test_far_files_are_read_by_ranges(tmp_path: Path) -> None:
    """The opcodes of a pickle, then the arrays that are asked for."""
    from tests.servers.base import Asked, Handler, serving

    data = pickle.dumps({f"w{number}": np.full(1_000_000, number, "f4") for number in range(4)}, 4)

    def answer(handler: Handler, asked: Asked) -> None:
        handler.say_range(data, asked, ETag='"one"')

    with serving(answer) as (url, log):
        checkpoint = ckptool.open(f"{url}/w.pkl")
        assert [tensor.spec.short for tensor in checkpoint.values()] == ["f32[1000000]"] * 4
        assert sum(stop - start for start, stop in log.ranges()) < len(data) // 2
        with Reader([checkpoint]) as reader:
            assert (reader.array(checkpoint["w2"]) == 2).all()
        assert sum(stop - start for start, stop in log.ranges()) < len(data)


def test_many_small_reads_of_text_decode_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns of an array by columns are read one by one: each part of the text is decoded once a pass."""
    array = np.asfortranarray(GENERATOR.integers(0, 256, (1000, 1000)).astype("u1"))
    checkpoint = ckptool.open(written(tmp_path / "a.pkl", {"w": array}, 2))
    content, decoded = array.tobytes("F"), []
    decode = characters._OpenCharacters._block
    monkeypatch.setattr(characters._OpenCharacters, "_block", lambda *args: decoded.append(args) or decode(*args))
    with checkpoint["w"].pieces[0].storage.file.open() as opened:
        for at in (*range(0, 1_000_000, 1000), 999_990, 5, 400_000):
            assert opened.read(at, 10) == content[at : at + 10]
    assert 5 < len(decoded) < 20


@pytest.mark.parametrize("protocol", range(6))
def test_bytes_of_arrays_of_every_protocol_stay_in_the_file(protocol: int, tmp_path: Path) -> None:
    """Protocol 0 writes them as lines of text, which are read; all others as strings, which are not."""
    array = np.arange(3000, dtype=np.float32)
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"w": array}, protocol=protocol))
    (tensor,) = ckptool.open(path).values()
    assert read_array(tensor).tobytes() == array.tobytes()
    held = type(tensor.pieces[0].storage.file).__name__
    assert (held == "HeldBytes") == (protocol == 0)


def test_a_flipped_byte_in_a_large_pickle_of_a_torch_file_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrays in data.pkl stay in the file; its CRC-32 is compared all the same."""
    path, out = tmp_path / "a.pth", tmp_path / "o.safetensors"
    torch.save({"w": torch.ones(3), "array": np.arange(3_000_000, dtype=np.float32)}, path)
    data = bytearray(path.read_bytes())
    at = next(at for at in range(5_000_000, len(data)) if 0x21 <= data[at] < 0x60 and data[at + 1] < 0x80)
    data[at] ^= 1
    path.write_bytes(data)
    assert run(["filter", str(path), "-o", str(out)]) == 2
    assert "differs from the CRC-32 in the file" in " ".join(capsys.readouterr().err.split())
    assert not out.exists()
    assert run(["check", str(path)]) == 1
    monkeypatch.setattr("ckptool.formats.torch.zip._MAX_SUMMED", 1 << 20)
    capsys.readouterr()
    assert run(["check", str(path)]) == 0
    assert "data.pkl, which holds the arrays, was not compared" in " ".join(capsys.readouterr().out.split())
