"""The table of dtypes, its names, and every dtype through every container that can hold it."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from writing import apply

from ckptool.commands.filter import float_dtype, plan_filter
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.dtypes import DTYPES, DType, dtype_named, dtypes_meant
from ckptool.core.errors import OutputError, UnreadableError, UsageError
from ckptool.core.format import Format
from ckptool.core.ops import parse_cast
from ckptool.core.spec import TensorSpec, packed_nbytes
from ckptool.core.tensor import Piece, Storage, Tensor
from ckptool.engine.reading import Reader
from ckptool.formats.opening import open_checkpoint
from ckptool.formats.safetensors_header import DTYPE_NAMES, from_header, to_header
from ckptool.formats.torch.storage import STORAGE_CLASSES
from ckptool.recipes.recipe import parse_recipe
from ckptool.storage.local import LocalFile

TORCHS = {str(value).removeprefix("torch."): value for value in vars(torch).values() if isinstance(value, torch.dtype)}


def test_every_dtype_of_torch_is_there_with_its_size() -> None:
    assert set(TORCHS) <= set(DTYPES)
    for name, dtype in TORCHS.items():
        assert DTYPES[name].nbytes(1) == dtype.itemsize
        assert DTYPES[name].is_packed == (name in ("quint4x2", "quint2x4"))
        alias = DTYPES[name].alias
        assert not alias or getattr(torch, alias) is dtype


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_storage_classes_are_torchs() -> None:
    for name, storage_class in STORAGE_CLASSES.items():
        found = getattr(torch, storage_class)
        assert found().dtype is TORCHS[name]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        *((dtype.name, dtype.name) for dtype in DTYPES.values()),
        *((dtype.short, dtype.name) for dtype in DTYPES.values()),
        *((dtype.name.upper(), dtype.name) for dtype in DTYPES.values()),
        *((f"torch.{name}", name) for name in TORCHS),
        *((name, dtype) for name, dtype in DTYPE_NAMES.items() if name != "F4"),
        *(("fp16", "float16"), ("fp32", "float32"), ("fp64", "float64"), ("half", "float16"), ("float", "float32")),
        *(
            ("double", "float64"),
            ("BFloat16", "bfloat16"),
            ("long", "int64"),
            ("byte", "uint8"),
            ("cfloat", "complex64"),
        ),
        *(("f8_e4m3", "float8_e4m3fn"), ("fp8_e4m3", "float8_e4m3fn"), ("fp8_e4m3fn", "float8_e4m3fn")),
        *(
            ("e4m3fn", "float8_e4m3fn"),
            ("e5m2", "float8_e5m2"),
            ("fp8_e5m2", "float8_e5m2"),
            ("e8m0", "float8_e8m0fnu"),
        ),
    ],
)
def test_names_that_people_type(text: str, name: str) -> None:
    dtype = dtype_named(text)
    assert dtype is not None
    assert dtype.name == name


@pytest.mark.parametrize("text", ["fp8", "F8", "float8"])
def test_ambiguous_names_list_their_meanings(text: str) -> None:
    floats = ["f8_e4m3fn", "f8_e4m3fnuz", "f8_e5m2", "f8_e5m2fnuz", "f8_e8m0fnu"]
    assert dtype_named(text) is None
    assert [dtype.short for dtype in dtypes_meant(text)] == floats
    with pytest.raises(UsageError, match="means several dtypes") as error:
        float_dtype(text)
    assert error.value.hint == f"one of {', '.join(floats)}"
    with pytest.raises(UsageError, match="several dtypes") as error:
        parse_recipe([f"a -> b | {text}"])
    assert error.value.hint == f"one of {', '.join(floats)}"
    with pytest.raises(UsageError, match=f"{text} means several dtypes"):
        parse_recipe([f"a -> b | = {text}($1)"])


@pytest.mark.parametrize("text", ["", "fp", "f33", "nf4", "fp4", "f6", "int8", "c64", "bool", "float8_e4m3x", "_"])
def test_what_is_no_float_dtype(text: str) -> None:
    with pytest.raises(UsageError, match="is not a float dtype") as error:
        float_dtype(text)
    assert "f32" in str(error.value.hint)


@pytest.mark.parametrize("name", DTYPES)
def test_casts_exist_where_torch_converts(name: str) -> None:
    try:
        torch.ones(2).to(TORCHS[name])
        converts = True
    except (KeyError, RuntimeError, NotImplementedError, UserWarning):
        converts = name == "complex32"  # with a warning
    assert (parse_cast(name) is not None) == converts


def test_a_block_of_many_elements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GGUF's Q4_0: 32 elements in 18 bytes. A row of the table is all that sizes and reading need."""
    monkeypatch.setitem(DTYPES, "q4_0", DType("q4_0", "q4_0", "quantized", 18, 32))
    monkeypatch.setitem(DTYPES, "q8_0", DType("q8_0", "q8_0", "quantized", 34, 32))
    spec = TensorSpec("w", "q4_0", (3, 64))
    assert (spec.elements, spec.nbytes, spec.short) == (192, 108, "q4_0[3,64]")
    assert packed_nbytes("q8_0", (4096, 4096)) == 4096 * 4096 // 32 * 34
    assert packed_nbytes("q4_0", (33,)) == 36
    data = bytes(i % 251 for i in range(18 * 10_000))
    (tmp_path / "raw").write_bytes(b"##" + data)
    storage = Storage(LocalFile.at(tmp_path / "raw"), 2, len(data))
    tensor = Tensor(TensorSpec("w", "q4_0", (9_990, 32)), (Piece(storage, 320, (9_990, 32)),))
    with Reader() as reader:
        blocks = [bytes(block) for block in reader.blocks(tensor, 1000)]
        assert b"".join(blocks) == data[180:]
        assert {len(block) % 18 for block in blocks} == {0}
        cut = Tensor(TensorSpec("w", "q4_0", (32,)), (Piece(storage, 5, (32,)),))
        with pytest.raises(UnreadableError, match="cut inside a block: q4_0 stores 32 elements in 18 bytes"):
            reader.read_bytes(cut)


@given(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 6), max_size=3))
def test_headers_forwards_and_backwards(dtype: str, shape: list[int]) -> None:
    named = to_header(dtype, tuple(shape))
    if named is not None:
        assert from_header(*named) == (dtype, tuple(shape))
        elements = torch.Size(named[1]).numel()
        nbytes = DTYPES[DTYPE_NAMES[named[0]]].nbytes(elements)
        assert nbytes == packed_nbytes(dtype, tuple(shape))
        assert safetensors.deserialize(safetensors_file(named[0], named[1], bytes(nbytes)))[0][1]["shape"] == [
            *named[1]
        ]


@given(st.sampled_from(sorted(DTYPE_NAMES)), st.lists(st.integers(0, 6), max_size=3))
def test_the_reference_loads_what_is_read_and_can_be_written(name: str, shape: list[int]) -> None:
    elements = torch.Size(shape).numel()
    dtype = DTYPES[DTYPE_NAMES[name]]
    try:
        safetensors.deserialize(safetensors_file(name, shape, bytes(dtype.nbytes(elements))))
    except SafetensorError:
        assert elements % dtype.block_elements
        return
    found = from_header(name, tuple(shape))
    assert found is not None
    assert to_header(*found) == (name, tuple(shape))


def safetensors_file(dtype: str, shape: list[int] | tuple[int, ...], data: bytes) -> bytes:
    header = json.dumps({"w": {"dtype": dtype, "shape": [*shape], "data_offsets": [0, len(data)]}}).encode()
    return struct.pack("<Q", len(header)) + header + data


# --- through filter


def converted(source: Path, target: Path) -> Checkpoint:
    apply(plan_filter(open_checkpoint(source)), target)
    return open_checkpoint(target)


def bytes_of(checkpoint: Checkpoint) -> dict[str, tuple[TensorSpec, bytes]]:
    with Reader() as reader:
        return {key: (tensor.spec, reader.read_bytes(tensor)) for key, tensor in checkpoint.items()}


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        *((name, (6, 4)) for name in sorted(DTYPE_NAMES)),
        *(("F4", shape) for shape in ((2, 3), (4, 1), (2,), (0,), (3, 0), (3, 2))),
        *(("F6_E2M3", shape) for shape in ((4,), (2, 2), (0,), (4, 3))),
        *((name, ()) for name in sorted(DTYPE_NAMES) if name not in ("F4", "F6_E2M3", "F6_E3M2")),
    ],
)
def test_every_dtype_of_safetensors_goes_through(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    name, _ = from_header(dtype, shape) or pytest.fail("a dtype of the format")
    count = DTYPES[DTYPE_NAMES[dtype]].nbytes(torch.Size(shape).numel())
    data = bytes(i % 2 if dtype == "BOOL" else (7 * i + 3) % 256 for i in range(count))
    source = tmp_path / "in.safetensors"
    source.write_bytes(safetensors_file(dtype, shape, data))
    for target in (tmp_path / "out.safetensors", tmp_path / "out"):
        found = converted(source, target)
        assert bytes_of(found) == bytes_of(open_checkpoint(source))
        file = found.files[0]
        assert safetensors.deserialize(Path(file.path).read_bytes()) == [
            ("w", {"dtype": dtype, "shape": [*shape], "data": bytearray(data)})
        ]
    if DTYPES[name].is_packed:
        with pytest.raises(OutputError, match=r"torch has no dtype for 1 tensor: w is float[46]"):
            converted(source, tmp_path / "out.pth")
        assert not (tmp_path / "out.pth").exists()
        return
    found = converted(source, tmp_path / "out.pth")
    loaded = torch.load(tmp_path / "out.pth")["w"]
    assert loaded.dtype is TORCHS[name]
    assert bytes(loaded.untyped_storage().tolist())[: len(data)] == data
    back = converted(tmp_path / "out.pth", tmp_path / "back.safetensors")
    assert bytes_of(back) == bytes_of(open_checkpoint(source))


SAVED = [name for name in TORCHS if not name.startswith(("q", "int1", "int2", "int3", "int4", "int5", "int6", "int7"))]
SAVED = [name for name in SAVED if DTYPES[name].is_castable or DTYPES[name].kind == "bits"] + ["int16"]


@pytest.mark.filterwarnings("ignore:ComplexHalf support")
@pytest.mark.parametrize("name", sorted({*SAVED, "int32", "int64"}))
@pytest.mark.parametrize("shape", [(3, 16), (), (0,), (5,)])
def test_every_dtype_of_torch_goes_through(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    elements = torch.Size(shape).numel()
    raw = (torch.arange(elements * TORCHS[name].itemsize) % (2 if name == "bool" else 256)).to(torch.uint8)
    strides = torch.empty(shape, device="meta").stride()
    tensor = torch.empty(0, dtype=TORCHS[name]).set_(raw.untyped_storage(), 0, shape, strides)
    torch.save({"w": tensor}, tmp_path / "in.pth")
    converted(tmp_path / "in.pth", tmp_path / "out.pth")
    loaded = torch.load(tmp_path / "out.pth")["w"]
    assert (loaded.dtype, loaded.shape) == (tensor.dtype, tensor.shape)
    assert loaded.untyped_storage().tolist() == raw.tolist()
    if to_header(name, shape) is None:
        with pytest.raises(OutputError, match="safetensors cannot hold 1 of 1 tensor: w is") as error:
            converted(tmp_path / "in.pth", tmp_path / "out.safetensors")
        assert error.value.hint
        assert not (tmp_path / "out.safetensors").exists()
        return
    converted(tmp_path / "in.pth", tmp_path / "out.safetensors")
    found = safetensors.torch.load_file(tmp_path / "out.safetensors")["w"]
    assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
    back = converted(tmp_path / "out.safetensors", tmp_path / "back.pth")
    assert bytes_of(back) == bytes_of(open_checkpoint(tmp_path / "in.pth"))


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("name", ["qint8", "quint8", "qint32", "quint4x2", "quint2x4"])
def test_quantized_tensors_go_through(tmp_path: Path, name: str) -> None:
    channels = (torch.ones(3), torch.zeros(3))
    numbers = torch.arange(15.0).reshape(3, 5)
    if name == "qint32":  # quantize_per_channel needs instructions that not every processor has
        tensor = torch.quantize_per_tensor(numbers, 0.5, 1, torch.qint32)
    else:
        tensor = torch.quantize_per_channel(numbers, *channels, 0, TORCHS[name])
    torch.save({"w": tensor}, tmp_path / "in.pth")
    converted(tmp_path / "in.pth", tmp_path / "out.pth")
    loaded = torch.load(tmp_path / "out.pth")["w"]
    assert loaded.dtype is TORCHS[name]
    assert loaded.dequantize().tolist() == tensor.dequantize().tolist()
    before, after = (open_checkpoint(tmp_path / side)["w"].nbytes for side in ("in.pth", "out.pth"))
    assert before == after
    with pytest.raises(OutputError, match="cannot hold 1 of 1 tensor: w is quantized"):
        converted(tmp_path / "in.pth", tmp_path / "out.safetensors")


@pytest.mark.parametrize("bits", range(1, 8))
@pytest.mark.parametrize("sign", ["", "u"])
def test_integers_of_less_than_a_byte(tmp_path: Path, sign: str, bits: int) -> None:
    """torch views such tensors but saves none: they stand for checkpoints that other versions will write."""
    name = f"{sign}int{bits}"
    (tmp_path / "raw").write_bytes(bytes(range(6)))
    file = LocalFile.at(tmp_path / "raw")
    tensor = Tensor(TensorSpec("w", name, (2, 3)), (Piece(Storage(file, 0, 6), 0, (2, 3)),))
    source = Checkpoint(file.path, Format("raw"), {"w": tensor}, (file,), nbytes=6)
    apply(plan_filter(source, dtype="bf16"), tmp_path / "out.pth")
    assert bytes_of(open_checkpoint(tmp_path / "out.pth")) == {"w": (tensor.spec, bytes(range(6)))}
    loaded = torch.load(tmp_path / "out.pth")["w"]
    assert loaded.dtype is TORCHS[name]
    assert loaded.view(torch.uint8).tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(OutputError, match=f"w is {name}"):
        apply(plan_filter(source), tmp_path / "out.safetensors")
