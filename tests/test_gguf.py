"""GGUF files: what the `gguf` package writes is read, its decoders are the oracle, and a hostile file is an error."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFEndian, GGUFWriter
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_encodings_recorded import DATA

import ckptool
from ckptool.cli.app import run
from ckptool.core.dtypes import DTYPES, GGUF_DTYPES
from ckptool.core.errors import CkptError, UnreadableError
from ckptool.engine.dequantize import dequantized
from ckptool.engine.reading import read_array

BLOCKS = {
    kind: (elements, nbytes)
    for kind, (elements, nbytes) in gguf.GGML_QUANT_SIZES.items()
    if elements > 1 and int(kind) in GGUF_DTYPES
}


def written(path: Path, tensors: dict[str, Any], pairs: dict[str, Any] | None = None, **options: Any) -> Path:
    """A file as the package writes it; a tensor is an array, or (bytes of rows, type)."""
    writer = GGUFWriter(path, "llama", **options)
    for name, value in (pairs or {}).items():
        writer.add_key_value(name, *value)
    for name, value in tensors.items():
        array, kind = value if isinstance(value, tuple) else (value, None)
        writer.add_tensor(name, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def random_rows(kind: GGMLQuantizationType, rows: int = 3, blocks: int = 2) -> np.ndarray[Any, Any]:
    """Bytes of rows whose halves are finite."""
    _, nbytes = BLOCKS[kind]
    return np.random.default_rng(int(kind)).integers(0, 59, (rows, blocks * nbytes), dtype=np.uint8)


def test_sizes_of_all_types_are_those_of_the_package() -> None:
    for kind, (elements, nbytes) in BLOCKS.items():
        dtype = DTYPES[GGUF_DTYPES[int(kind)]]
        assert (dtype.block_elements, dtype.block_nbytes) == (elements, nbytes)
    named = {dtype.short.upper() for dtype in DTYPES.values() if dtype.name.startswith("gguf_")}
    assert named == {"Q2_0", *(kind.name for kind in BLOCKS)}  # the package has no Q2_0, ggml has


def test_a_file_of_plain_tensors(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "a": rng.standard_normal((2, 3, 4)).astype(np.float32),
        "b": rng.standard_normal(5).astype(np.float16),
        "c": np.arange(6, dtype=np.int32).reshape(2, 3),
    }
    for endian in GGUFEndian:
        path = written(tmp_path / f"{endian.name}.gguf", dict(arrays), endianess=endian)
        checkpoint = ckptool.open(path)
        assert {key: tensor.shape for key, tensor in checkpoint.items()} == {k: v.shape for k, v in arrays.items()}
        for key, array in arrays.items():
            assert read_array(checkpoint[key]).tobytes() == array.tobytes()
        out = tmp_path / f"{endian.name}.safetensors"
        ckptool.plan_filter(path).apply(out)
        state = load_file(out)
        assert all(np.array_equal(state[key].numpy(), array) for key, array in arrays.items())


@pytest.mark.parametrize("kind", BLOCKS, ids=lambda kind: kind.name)
def test_every_block_type_is_decoded_as_the_package_does(kind: GGMLQuantizationType, tmp_path: Path) -> None:
    rows = random_rows(kind)
    path = written(tmp_path / "a.gguf", {"w": (rows, kind), "stacked": (np.stack([rows, rows + 1]), kind)})
    checkpoint = ckptool.open(path)
    assert checkpoint["w"].shape == (3, 2 * BLOCKS[kind][0])
    try:
        expected = gguf.quants.dequantize(rows, kind)
    except NotImplementedError:
        assert kind.name == "Q1_0"
        return
    values = read_array(dequantized(checkpoint, "float32")["w"])
    assert values.tobytes() == expected.astype(np.float32).tobytes()
    stacked = read_array(dequantized(checkpoint, "float32")["stacked"])
    assert stacked[0].tobytes() == values.tobytes()


def test_big_endian_blocks(tmp_path: Path) -> None:
    """Halves in blocks are swapped; of other types the reader says that it does not decode them."""
    q8 = random_rows(GGMLQuantizationType.Q8_0)
    swapped = q8.reshape(-1, 34).copy()
    swapped[:, :2] = swapped[:, 1::-1]
    tensors = {"w": (swapped.reshape(q8.shape), GGMLQuantizationType.Q8_0)}
    path = written(tmp_path / "a.gguf", tensors, endianess=GGUFEndian.BIG)
    expected = gguf.quants.dequantize(q8, GGMLQuantizationType.Q8_0)
    assert read_array(dequantized(ckptool.open(path), "float32")["w"]).tobytes() == expected.tobytes()
    other = {"w": (random_rows(GGMLQuantizationType.Q5_K), GGMLQuantizationType.Q5_K)}
    path = written(tmp_path / "b.gguf", other, endianess=GGUFEndian.BIG)
    with pytest.raises(CkptError, match="Q5_K in a big-endian file is not decoded"):
        dequantized(ckptool.open(path))


def test_the_example_has_the_expected_values() -> None:
    logical = dequantized(ckptool.open(DATA / "gguf_mixed" / "mixed.gguf"))
    expected = ckptool.open(DATA / "gguf_mixed.expected.safetensors")
    for key, tensor in expected.items():
        assert logical[key].dtype == tensor.dtype
        assert read_array(logical[key]).tobytes() == read_array(tensor).tobytes()


def test_nvfp4_takes_the_scale_beside_it(tmp_path: Path) -> None:
    kind = GGMLQuantizationType.NVFP4
    rows = random_rows(kind)
    tensors = {"m.weight": (rows, kind), "m.scale": np.array([0.5], np.float32)}
    logical = dequantized(ckptool.open(written(tmp_path / "a.gguf", tensors)), "float32")
    assert list(logical) == ["m.weight"]
    expected = gguf.quants.dequantize(rows, kind) * np.float32(0.5)
    assert read_array(logical["m.weight"]).tobytes() == expected.astype(np.float32).tobytes()


@pytest.mark.parametrize("kind", [GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q6_K, GGMLQuantizationType.NVFP4])
def test_a_vector_of_blocks(kind: GGMLQuantizationType, tmp_path: Path) -> None:
    row = random_rows(kind, 1, 5)[0]
    tensors: dict[str, Any] = {"m.weight": (row, kind)}
    if kind.name == "NVFP4":
        tensors["m.scale"] = np.array([0.5], np.float32)
    logical = dequantized(ckptool.open(written(tmp_path / "a.gguf", tensors)), "float32")["m.weight"]
    expected = gguf.quants.dequantize(row[None], kind)[0].astype(np.float32) * np.float32(len(tensors) * -0.5 + 1.5)
    assert logical.shape == expected.shape
    assert read_array(logical).tobytes() == expected.tobytes()
    with ckptool.Reader() as reader:
        assert reader.array(logical)[37:77].tobytes() == expected[37:77].tobytes()


def test_pairs_are_metadata_and_vocabularies_are_counted(tmp_path: Path) -> None:
    kinds = gguf.GGUFValueType
    pairs = {
        "x.u8": (7, kinds.UINT8),
        "x.f32": (0.5, kinds.FLOAT32),
        "x.yes": (True, kinds.BOOL),
        "x.text": ("a\nb", kinds.STRING),
        "x.long": ("z" * 10_000, kinds.STRING),
        "x.few": ([1, 2, 3], kinds.ARRAY),
        "tokenizer.ggml.tokens": ([f"t{number}" for number in range(1000)], kinds.ARRAY),
        "x.many": (list(range(1000)), kinds.ARRAY),
    }
    checkpoint = ckptool.open(written(tmp_path / "a.gguf", {"w": np.zeros(4, np.float32)}, pairs))
    found = checkpoint.metadata
    assert {key: found[key] for key in ("x.u8", "x.f32", "x.yes", "x.text", "x.few", "general.architecture")} == {
        "x.u8": "7",
        "x.f32": "0.5",
        "x.yes": "true",
        "x.text": "a\nb",
        "x.few": "[1, 2, 3]",
        "general.architecture": "llama",
    }
    assert found["x.long"].endswith("… (10,000 bytes)")
    assert {extra.name: extra.text for extra in checkpoint.extras} == {
        "tokenizer.ggml.tokens": "1,000 × string",
        "x.many": "1,000 × i32",
    }


def test_a_split_model_is_one_checkpoint(tmp_path: Path) -> None:
    for number in (1, 2):
        written(tmp_path / f"m-0000{number}-of-00002.gguf", {f"w{number}": np.full(4, number, np.float32)})
    checkpoint = ckptool.open(tmp_path)
    assert list(checkpoint) == ["w1", "w2"]
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    with pytest.raises(UnreadableError, match="lacks 1 of 2 shards"):
        ckptool.open(tmp_path)


def good(tmp_path: Path) -> bytes:
    tensors = {"w": (random_rows(GGMLQuantizationType.Q8_0), GGMLQuantizationType.Q8_0), "v": np.ones(9, np.float32)}
    pairs = {"t": ([f"t{number}" for number in range(40)], gguf.GGUFValueType.ARRAY)}
    return written(tmp_path / "good.gguf", tensors, pairs).read_bytes()


def test_every_truncation_is_an_error(tmp_path: Path) -> None:
    data = good(tmp_path)
    path = tmp_path / "cut.gguf"
    padding = 28  # after the last tensor, which may be missing
    for length in range(0, len(data) - padding, 7):
        path.write_bytes(data[:length])
        with pytest.raises(UnreadableError):
            ckptool.open(path)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_changed_bytes_are_read_or_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("g")
    raw = bytearray(good(folder))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(4, 1500))
        raw[at : at + 8] = data.draw(
            st.sampled_from([b"\xff" * 8, bytes(8), struct.pack("<Q", 1 << 62), struct.pack("<Q", len(raw)), b"\1" * 8])
        )
    path = folder / "bad.gguf"
    path.write_bytes(bytes(raw))
    try:
        checkpoint = ckptool.open(path)
    except CkptError as error:
        assert error.hint
        return
    for tensor in checkpoint.values():
        assert tensor.pieces[0].storage.offset + tensor.nbytes <= len(raw)


def header(tensors: int, pairs: int, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header(0, 0, 1), "version 1"),
        (header(0, 0, 9), "version 9"),
        (header(1 << 60, 0) + bytes(100), "claims 1,152,921,504,606,846,976 tensors"),
        (header(0, 1) + struct.pack("<Q", 1 << 40) + bytes(99), "for a key"),
        (header(0, 1) + text(b"k") + struct.pack("<IIQ", 9, 8, 1 << 50) + bytes(99), "more than the file has"),
        (header(0, 1) + text(b"k") + struct.pack("<IIQ", 9, 0, 1 << 50) + bytes(99), "more than the file has"),
        (header(0, 1) + text(b"k") + struct.pack("<IIQ", 9, 9, 3) + bytes(99), "an array of arrays"),
        (header(0, 1) + text(b"k") + struct.pack("<I", 99) + bytes(99), "a value of type 99"),
        (header(0, 1) + text(b"k") + struct.pack("<IB", 7, 2) + bytes(99), "the boolean 2"),
        (header(0, 2) + 2 * (text(b"k") + struct.pack("<IB", 0, 2)) + bytes(99), 'the key "k" twice'),
        (header(0, 1) + text(b"general.alignment") + struct.pack("<II", 4, 3) + bytes(99), "no power of two"),
        (header(1, 0) + text(b"w") + struct.pack("<IQIQ", 1, 32, 9, 0) + bytes(99), "Q8_1, which is for act"),
        (header(1, 0) + text(b"w") + struct.pack("<IQIQ", 1, 32, 137, 0) + bytes(99), "number 137"),
        (header(1, 0) + text(b"w") + struct.pack("<IQIQ", 1, 33, 8, 0) + bytes(99), "rows of 33 elements"),
        (header(1, 0) + text(b"w") + struct.pack("<IQIQ", 1, 1 << 40, 0, 0) + bytes(99), "ends early"),
        (header(1, 0) + text(b"w") + struct.pack("<IQQIQ", 2, 1 << 40, 1 << 40, 0, 0) + bytes(99), "too large"),
        (header(1, 0) + text(b"w") + struct.pack("<IQIQ", 1, 4, 0, 5) + bytes(99), "no multiple of 32"),
        (header(2, 0) + 2 * (text(b"w") + struct.pack("<IQIQ", 1, 4, 0, 0)) + bytes(99), 'two tensors named "w"'),
        (
            header(2, 0) + text(b"w") + struct.pack("<IQIQ", 1, 16, 0, 0)
            + text(b"v") + struct.pack("<IQIQ", 1, 4, 0, 32) + bytes(199),
            "overlap",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_true_is_one_error(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(UnreadableError, match=message):
        ckptool.open(path)


def test_blocks_are_compared_as_numbers(tmp_path: Path) -> None:
    kind = GGMLQuantizationType.Q8_0
    rows = random_rows(kind)
    other = rows.copy()
    other[0, 5] ^= 1
    old, new = (
        written(tmp_path / f"{number}.gguf", {"w": (array, kind)}) for number, array in enumerate((rows, other))
    )
    (change,) = ckptool.compare(old, new).changes
    before, after = (gguf.quants.dequantize(array, kind).astype(np.float64) for array in (rows, other))
    assert change.status is ckptool.Status.CHANGED
    assert change.delta is not None
    assert change.delta.differing == 1
    assert change.delta.max_abs == pytest.approx(np.abs(before - after).max(), rel=1e-6)
    out = tmp_path / "plain.safetensors"
    with pytest.raises(CkptError) as caught:
        ckptool.plan_filter(old).apply(out)
    assert caught.value.hint == "decode them: --dequantize"
    assert ckptool.compare(old, old).is_same


def original_shapes(**shapes: list[int]) -> dict[str, Any]:
    """The pairs that ComfyUI-GGUF writes beside tensors whose shape it changed."""
    array, kind = gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.INT32
    return {f"comfy.gguf.orig_shape.{key}": (shape, array, kind) for key, shape in shapes.items()}


@pytest.mark.parametrize("kind", [GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q8_0], ids=lambda kind: kind.name)
@pytest.mark.parametrize("shape", [[16, 4, 3, 8], [1, 1, 1536], [1536], [96, 16], [2, 2, 2, 3, 64], [3, 512]])
def test_the_shape_that_comfyui_notes_is_restored(
    kind: GGMLQuantizationType, shape: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Blocks of 256 do not fit most convolutions: elements are laid out in rows of 256, and the shape is noted."""
    rows = np.random.default_rng(2).integers(0, 59, (6, 256 // BLOCKS[kind][0] * BLOCKS[kind][1]), dtype=np.uint8)
    plain = np.arange(1536, dtype=np.float16).reshape(6, 256)
    pairs = original_shapes(w=shape, n=shape)
    path = written(tmp_path / "a.gguf", {"w": (rows, kind), "n": plain, "b": plain[0]}, pairs)
    expected = gguf.quants.dequantize(rows, kind).reshape(shape)
    assert ckptool.open(path)["n"].shape == tuple(shape)
    out = tmp_path / "o.safetensors"
    assert run(["filter", str(path), "--dequantize", "--dtype", "f32", "-o", str(out)]) == 0
    state = load_file(out)
    assert state["w"].numpy().tobytes() == expected.tobytes() and list(state["w"].shape) == shape
    assert np.array_equal(state["n"].numpy(), plain.reshape(shape).astype(np.float32))
    assert not any("orig_shape" in name for name in ckptool.open(out).metadata)
    capsys.readouterr()
    assert run(["diff", str(path), str(out)]) == 1
    assert "~ 2 cast   = 1 identical" in capsys.readouterr().out
    logical = dequantized(ckptool.open(path), "float32")["w"]
    step = [slice(None)] * (len(shape) - 1) + [slice(1, 2)]
    assert read_array(logical)[tuple(step)].tobytes() == expected[tuple(step)].tobytes()


@pytest.mark.parametrize("said", [[6, 255], [], [0], list(range(1, 10))])
def test_an_original_shape_of_other_size_is_an_error(said: list[int], tmp_path: Path) -> None:
    plain = np.zeros((6, 256), np.float32)
    pairs = original_shapes(n=said) if said else {"comfy.gguf.orig_shape.n": ("6,256", gguf.GGUFValueType.STRING)}
    with pytest.raises(UnreadableError, match=r'the tensor "n", of shape|9 dimensions'):
        ckptool.open(written(tmp_path / "a.gguf", {"n": plain}, pairs))
