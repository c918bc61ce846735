"""Encoded and decoded tensors in columns are those that plain objects are; fp8 is decoded as plain arithmetic does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptool
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.columns import Columns
from ckptool.core.spec import TensorSpec
from ckptool.encodings.encoded import CODES, Encoded
from ckptool.encodings.groups import Groups
from ckptool.engine import decoded as decoded_module
from ckptool.engine.decoded_columns import DecodedColumns, decoded_tensors, infinite_of
from ckptool.engine.dequantize import dequantized, encoded_of
from ckptool.engine.reading import Reader

WORDS = st.sampled_from(["a", "b.0", "b.1", "layers.3.up"])
LASTS = st.sampled_from(["weight", "qweight", "weight_packed", "w"])
FORMS = st.sampled_from([("int8", (4, 2)), ("uint8", (8,)), ("float8_e4m3fn", (4, 2))])


@st.composite
def encoded_tensors(draw: st.DrawFn) -> list[Encoded]:
    """Encoded tensors of different modules, whose keys and forms may be alike or not."""
    found = []
    for module in draw(st.lists(WORDS, unique=True)):
        last, logical = draw(LASTS), draw(LASTS)
        members = {CODES: TensorSpec(f"{module}.{last}", *draw(FORMS))}
        for role in draw(st.lists(st.sampled_from(["scales", "zeros", "input_scale"]), unique=True)):
            members[role] = TensorSpec(f"{module}.{last}_{role}", *draw(FORMS))
        encoded = Encoded(
            draw(st.sampled_from(["fp8", "int8"])),
            TensorSpec(f"{module}.{logical}", "bfloat16", (4, 2)),
            members,
            {"block": draw(st.sampled_from([(1, 2), (4, 2)]))},
            needs=draw(st.sampled_from([(), ("scales",)])),
            detail=draw(st.sampled_from(["", "groups of 2"])),
        )
        found.append(encoded.with_problem("refused", f"{module} is odd") if draw(st.booleans()) else encoded)
    return found


@given(found=encoded_tensors(), data=st.data())
def test_groups_give_back_what_was_put_in(found: list[Encoded], data: st.DataObject) -> None:
    keys = data.draw(st.permutations([key for encoded in found for key in encoded.keys]))
    expected = sorted(found, key=lambda encoded: keys.index(encoded.codes.key))
    groups = Groups.of(found, keys)
    assert list(groups) == expected
    assert list(groups.keys()) == [encoded.key for encoded in expected]
    assert list(groups.member_keys()) == [encoded.keys for encoded in expected]
    for alike, encoded in zip(groups.alike(), expected, strict=True):
        assert (alike.scheme, alike.nbytes, alike.problems) == (encoded.scheme, encoded.nbytes, encoded.problems)
    odd = range(1, len(expected), 2)
    assert list(groups.subset(odd)) == expected[1::2]
    assert dict(groups.by_codes()) == {encoded.codes.key: encoded for encoded in expected}


NAMES = {"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float32": "F32", "bfloat16": "BF16"}


def write(path: Path, arrays: dict[str, np.ndarray], config: dict[str, object]) -> Checkpoint:
    """A folder with these arrays; numpy's safetensors knows no fp8."""
    header, end = {}, 0
    for key, array in arrays.items():
        offsets = [end, end + array.nbytes]
        header[key] = {"dtype": NAMES[array.dtype.name], "shape": list(array.shape), "data_offsets": offsets}
        end += array.nbytes
    text = json.dumps(header).encode()
    path.mkdir(exist_ok=True)
    data = b"".join(array.tobytes() for array in arrays.values())
    (path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    (path / "config.json").write_text(json.dumps({"quantization_config": config}))
    return ckptool.open(path)


def plain(checkpoint: Checkpoint) -> Checkpoint:
    """The same with its tensors as plain objects."""
    return replace(checkpoint, tensors=dict(checkpoint.tensors))


def bits_of(checkpoint: Checkpoint) -> dict[str, bytes]:
    with Reader() as reader:
        return {key: reader.read_bytes(tensor) for key, tensor in checkpoint.items()}


@pytest.mark.parametrize("dtype", [None, "float32", "float16"])
def test_columns_hold_what_plain_objects_hold(dtype: str | None, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {"a.norm": np.ones(3, np.float32)}
    for module, rows in [("b", 4), ("c", 6), ("d", 4)]:
        codes = rng.integers(0, 256, (rows, 4), dtype=np.uint8).view(ml_dtypes.float8_e4m3fn)
        arrays |= {f"{module}.weight_scale": np.full((rows, 1), 1e38, np.float32), f"{module}.weight": codes}
        arrays |= {f"{module}.input_scale": np.ones((), np.float32), f"{module}.bias": np.ones(rows, np.float32)}
    checkpoint = write(tmp_path / "in", arrays, {"quant_method": "fp8"})
    assert isinstance(checkpoint.tensors, Columns)
    lean, full = dequantized(checkpoint, dtype), dequantized(plain(checkpoint), dtype)
    assert isinstance(lean.tensors, DecodedColumns)
    assert not isinstance(full.tensors, Columns)
    assert list(lean) == list(full)
    assert [tensor.spec for tensor in lean.values()] == [tensor.spec for tensor in full.values()]
    assert list(lean.forms()) == list(full.forms())
    assert bits_of(lean) == bits_of(full)
    assert infinite_of(lean) == infinite_of(full)
    assert bool(infinite_of(lean)) == (dtype == "float16")
    for left, right in zip(decoded_tensors(lean), decoded_tensors(full), strict=True):
        assert (left.key, left.members, left.dtype) == (right.key, right.members, right.dtype)
    assert lean["b.weight"].pieces == lean["b.weight"].pieces  # equal, though each is made anew
    assert lean["b.weight"].pieces != lean["d.weight"].pieces


@given(
    shape=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    kind=st.sampled_from(["tensor", "rows", "blocks"]),
    dtype=st.sampled_from(["float8_e4m3fn", "float8_e5m2"]),
    wanted=st.sampled_from(["bfloat16", "float16", "float32"]),
    scales=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=9),
    seed=st.integers(0, 1 << 32),
)
def test_fp8_is_a_product_in_float32_rounded_once(
    shape: tuple[int, int],
    kind: str,
    dtype: str,
    wanted: str,
    scales: list[float],
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Every code, NaN and subnormal ones too; scales of any size, so that products overflow or are subnormal."""
    rows, columns = shape
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 256, shape, dtype=np.uint8).view(getattr(ml_dtypes, dtype))
    block = {"tensor": (rows, columns), "rows": (1, columns), "blocks": (128, 128)}[kind]
    grid = -(-rows // block[0]), -(-columns // block[1])
    scale = np.resize(np.array(scales, np.float32), grid)
    stored = scale.reshape(()) if kind == "tensor" else scale
    config: dict[str, object] = {"quant_method": "fp8", "weight_block_size": [128, 128] if kind == "blocks" else None}
    folder = tmp_path_factory.mktemp("fp8")
    checkpoint = dequantized(write(folder, {"m.weight": codes, "m.weight_scale_inv": stored}, config), wanted)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(decoded_module, "ELEMENTS", 1 << 12)  # several blocks
        with Reader() as reader:
            found = reader.array(checkpoint["m.weight"])
    with np.errstate(all="ignore"):
        wide = np.repeat(np.repeat(scale, block[0], 0), block[1], 1)[:rows, :columns]
        number = ml_dtypes.bfloat16 if wanted == "bfloat16" else wanted
        product = codes.astype(np.float32) * wide
        expected = product.astype(number)
    bits = np.uint32 if wanted == "float32" else np.uint16
    is_nan = np.isnan(expected)
    assert (np.isnan(found) == is_nan).all()
    assert (found.view(bits)[~is_nan] == expected.view(bits)[~is_nan]).all()
    lost = int((np.isinf(expected) & np.isfinite(product)).sum())
    assert sum(infinite_of(checkpoint).values()) == (0 if wanted == "float32" else lost)


def test_recognised_tensors_are_columns(tmp_path: Path) -> None:
    codes = np.zeros((2, 2), np.uint8).view(ml_dtypes.float8_e4m3fn)
    arrays = {"m.weight": codes, "m.weight_scale": np.ones((), np.float32)}
    checkpoint = write(tmp_path / "in", arrays, {"quant_method": "fp8"})
    found = encoded_of(checkpoint)
    assert isinstance(found, Groups)
    assert list(found) == list(encoded_of(plain(checkpoint)))
