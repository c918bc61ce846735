"""The safetensors reader, held against the reference implementation."""

from __future__ import annotations

import json
import random
import re
import struct
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from ckptool.cli.app import run
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import UnreadableError, UsageError
from ckptool.core.observations import UnknownFields
from ckptool.core.spec import DTYPES
from ckptool.facts.words import notes_of
from ckptool.formats.opening import open_checkpoint
from ckptool.formats.safetensors import MAX_HEADER, open_safetensors
from ckptool.formats.safetensors_header import DTYPE_NAMES
from ckptool.storage.locate import locate_file


def entry(dtype: str, shape: list[int], start: int, stop: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def file_bytes(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file of a header: a dict, or the text itself."""
    text = header if isinstance(header, bytes) else header.encode() if isinstance(header, str) else None
    if text is None:
        text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def opened(folder: Path, content: bytes) -> Checkpoint:
    path = folder / "x.safetensors"
    path.write_bytes(content)
    return open_safetensors(locate_file(path))


def reference_accepts(folder: Path, content: bytes) -> bool:
    path = folder / "reference.safetensors"
    path.write_bytes(content)
    try:
        with safe_open(path, "pt"):
            return True
    except SafetensorError:
        return False


def refusal(folder: Path, content: bytes) -> str | None:
    try:
        opened(folder, content)
    except UnreadableError as error:
        return error.message
    return None


def stored(checkpoint: Checkpoint, key: str) -> bytes:
    source, offset, nbytes = checkpoint[key].run
    with Path(source.path).open("rb") as file:
        file.seek(offset)
        return file.read(nbytes)


TORCH_DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.uint64,
    torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.float8_e4m3fn,
    torch.float8_e5m2, torch.float8_e8m0fnu, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float4_e2m1fn_x2,
]  # fmt: skip


def test_every_dtype_as_the_reference_loads_it(tmp_path: Path) -> None:
    tensors = {}
    for number, dtype in enumerate(TORCH_DTYPES):
        raw = torch.arange(24, dtype=torch.uint8) % 2 if dtype is torch.bool else torch.arange(24, dtype=torch.uint8)
        tensors[f"t{number}"] = raw.view(dtype).reshape(1, -1)
        tensors[f"e{number}"] = torch.empty(0, dtype=torch.uint8).view(dtype).reshape(0, 4)
        if dtype is not torch.float4_e2m1fn_x2:  # a 0-dim one would be half a byte
            tensors[f"s{number}"] = raw.view(dtype)[0].clone()
    path = tmp_path / "all.safetensors"
    save_file(tensors, path, metadata={"format": "pt", "ü": "\n"})
    checkpoint = open_safetensors(locate_file(path))
    loaded = load_file(path)
    assert set(checkpoint) == set(loaded) == set(tensors)
    for key, tensor in loaded.items():
        assert checkpoint[key].dtype == str(tensor.dtype).removeprefix("torch.")
        assert checkpoint[key].shape == tuple(tensor.shape)
        assert stored(checkpoint, key) == bytes(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    assert checkpoint.metadata == {"format": "pt", "ü": "\n"}
    assert (str(checkpoint.format), checkpoint.files, checkpoint.nbytes) == (
        "safetensors", (locate_file(path),), path.stat().st_size,
    )  # fmt: skip
    assert checkpoint.observations == ()


def test_the_six_bit_types_and_odd_four_bit_ones_that_torch_cannot_name(tmp_path: Path) -> None:
    header = {"a": entry("F6_E2M3", [4], 0, 3), "b": entry("F6_E3M2", [2, 4], 3, 9), "c": entry("F4", [2, 3], 9, 12)}
    checkpoint = opened(tmp_path, file_bytes(header, bytes(12)))
    assert [tensor.spec.short for tensor in checkpoint.values()] == [
        "f6_e2m3fn[4]", "f6_e3m2fn[2,4]", "f4_e2m1fn[2,3]",
    ]  # fmt: skip
    assert [tensor.nbytes for tensor in checkpoint.values()] == [3, 6, 3]


def test_what_no_dtype_of_torch_stands_for_is_copied_and_not_cast(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = {"a": entry("F6_E2M3", [4], 0, 3), "b": entry("F4", [2, 3], 3, 6), "c": entry("F32", [1], 6, 10)}
    path, out = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    path.write_bytes(file_bytes(header, bytes(range(10))))
    assert run(["filter", str(path), "-o", str(out)]) == 0
    kept = open_checkpoint(out)
    assert {key: stored(kept, key) for key in "ab"} == {"a": bytes([0, 1, 2]), "b": bytes([3, 4, 5])}
    capsys.readouterr()
    assert run(["filter", str(path), "--dtype", "bf16"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "warning: 2 tensors not cast: f4_e2m1fn, f6_e2m3fn can be copied only" in said
    assert run(["filter", str(path), "--drop", "a", "-o", str(tmp_path / "out.pth")]) == 2
    assert "torch has no dtype for 1 tensor: b is float4_e2m1fn" in " ".join(capsys.readouterr().err.split())


def test_a_packed_number_without_axes_is_copied_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """torch has a 0-dim float4_e2m1fn_x2, two numbers in a byte; safetensors has no shape for it."""
    path, out = tmp_path / "a.pth", tmp_path / "out.pth"
    torch.save({"s": torch.tensor(3, dtype=torch.uint8).view(torch.float4_e2m1fn_x2), "w": torch.ones(2)}, path)
    for command in (["inspect", "--stats"], ["diff", str(path)], ["check"], ["filter", "-o", str(out)]):
        assert run([command[0], str(path), *command[1:]]) == 0
    kept = torch.load(out, weights_only=True)["s"]
    assert (kept.dtype, kept.shape, kept.view(torch.uint8).item()) == (torch.float4_e2m1fn_x2, (), 3)
    capsys.readouterr()
    assert run(["filter", str(path), "-o", str(tmp_path / "o.safetensors")]) == 2
    assert "safetensors cannot hold 1 of 2 tensors: s is f4x2_e2m1fn[]" in " ".join(capsys.readouterr().err.split())


def test_dtype_names_are_the_references() -> None:
    with pytest.raises(SafetensorError) as refused:
        from safetensors import deserialize

        deserialize(file_bytes({"a": entry("F3", [1], 0, 1)}, b"1"))
    names = set(re.findall(r"`([A-Z0-9_]+)`", str(refused.value))) - {"F3"}
    assert names == set(DTYPE_NAMES)
    assert set(DTYPE_NAMES.values()) <= set(DTYPES)


def test_tensors_come_in_the_order_of_their_data(tmp_path: Path) -> None:
    header = {"b": entry("U8", [2], 1, 3), "z": entry("U8", [0], 1, 1), "a": entry("U8", [1], 0, 1)}
    assert list(opened(tmp_path, file_bytes(header, b"123"))) == ["a", "z", "b"]


GOOD = {"b": entry("F32", [2, 3], 8, 32), "a": entry("I64", [], 0, 8), "e": entry("U8", [0], 8, 8)}

REFUSED = {
    "twice": ('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":'
              '[1,2]}}', b"12", 'names "a" twice'),
    "twice, escaped": ('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\\u0061":{"dtype":"U8","shape":[1],'
                       '"data_offsets":[1,2]}}', b"12", 'names "a" twice'),
    "field twice": ('{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}', b"1", "field twice"),
    "metadata twice": ('{"__metadata__":{"a":"1","a":"2"}}', b"", "twice in __metadata__"),
    "two metadata": ('{"__metadata__":{},"\\u005f_metadata__":{}}', b"", "twice"),
    "hole": ({"a": entry("U8", [1], 1, 2)}, b"12", "leaves 1 byte before"),
    "overlap": ({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 1, 3)}, b"123", 'lets "a" and "b" overlap'),
    "backwards": ({"a": entry("U8", [0], 1, 0)}, b"1", "gives"),
    "trailing": ({"a": entry("U8", [1], 0, 1)}, b"12", "goes on for 1 byte after"),
    "size": ({"a": entry("F32", [2], 0, 4)}, b"1234", "4 bytes where its dtype and shape need 8"),
    "dtype": ({"a": entry("F128", [1], 0, 16)}, bytes(16), 'the dtype "F128"'),
    "metadata number": ({"__metadata__": {"a": 1}}, b"", 'entry "a" of __metadata__ that is not text'),
    "metadata list": ({"__metadata__": ["a"]}, b"", "not an object"),
    "metadata as a tensor": ({"__metadata__": entry("U8", [1], 0, 1)}, b"1", '"shape" of __metadata__'),
    "overflow": ({"a": entry("U8", [2**63, 4, 0], 0, 0)}, b"", "too large"),
    "overflow in bits": ({"a": entry("F64", [2**62], 0, 2**65)}, b"", "too large"),
    "wraps to 0": ({"a": entry("F64", [2**61], 0, 0)}, b"", "too large"),
    "dimension torch has not": ({"a": entry("U8", [0, 2**63], 0, 0)}, b"", "too large"),
    "negative": ({"a": entry("U8", [-1], 0, 1)}, b"1", "natural numbers"),
    "minus zero": ('{"a":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}', b"", "natural numbers"),
    "float": ('{"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}', b"1", "natural numbers"),
    "true": ('{"a":{"dtype":"U8","shape":[true],"data_offsets":[0,1]}}', b"1", "natural numbers"),
    "leading zero": ('{"a":{"dtype":"U8","shape":[01],"data_offsets":[0,1]}}', b"1", "not valid JSON"),
    "arabic digit": ('{"a":{"dtype":"U8","shape":[\u0661],"data_offsets":[0,1]}}', b"1", "not valid JSON"),
    "nan": ('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":NaN}}', b"1", "has NaN"),
    "infinite": ('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1e999}}', b"1", "out of range"),
    "huge": ('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":' + "9" * 400 + "}}", b"1", "out of range"),
    "million digits": ('{"a":{"dtype":"U8","shape":[' + "9" * 10**6 + '],"data_offsets":[0,1]}}', b"1", "out of range"),
    "deep": ('{"a":{"dtype":"U8","shape":' + "[" * 30000 + "]" * 30000 + ',"data_offsets":[0,1]}}', b"1", "not valid"),
    "deeper": ('{"a":' + "[" * 10**6 + "]" * 10**6 + "}", b"", "not valid JSON"),
    "half a surrogate pair": ('{"\\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"1", "Unicode"),
    "not UTF-8": (b'{"\xff":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"1", "Unicode"),
    "no header": (b"", b"", "not a JSON object"),
    "list": (b"[]", b"", "not a JSON object"),
    "padding of zeros": (b"{}\0\0", b"", "goes on after its end"),
    "open": (b'{"a"', b"", "not valid JSON"),
    "comma at the end": (b'{"__metadata__":{},}', b"", "not valid JSON"),
    "comma in an entry": ('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],}}', b"1", "not valid JSON"),
    "no shape": ({"a": {"dtype": "U8", "data_offsets": [0, 1]}}, b"1", "has no shape"),
    "three offsets": ({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1, 1]}}, b"1", "natural numbers"),
    "a number as entry": ({"a": 7}, b"", "not an object"),
    "half a byte": ({"a": entry("F4", [3], 0, 2)}, b"12", "do not fill whole bytes"),
    "six bits": ({"a": entry("F6_E3M2", [2], 0, 2)}, b"12", "do not fill whole bytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_reason(tmp_path: Path, case: str) -> None:
    header, data, reason = REFUSED[case]
    message = refusal(tmp_path, file_bytes(header, data))
    assert message is not None
    assert reason in message
    assert "\n" not in message


def test_lengths_of_the_header(tmp_path: Path) -> None:
    assert "ends inside the length" in str(refusal(tmp_path, b"\x02\0\0"))
    assert "ends early, inside its header" in str(refusal(tmp_path, file_bytes(b"{}", length=3)))
    assert "claims a header of" in str(refusal(tmp_path, file_bytes(b"{}", length=MAX_HEADER + 1)))
    assert "claims a header of" in str(refusal(tmp_path, file_bytes(b"{}", length=2**64 - 1)))


def test_a_truncated_file_names_the_first_damaged_tensor(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    save_file({"a": torch.zeros(4), "b": torch.ones(4), "c": torch.ones(4)}, path)
    whole = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UnreadableError, match="first damaged tensor is b") as refused:
        open_safetensors(locate_file(path))
    assert f"header promises {whole:,} bytes, file has {whole - 20:,}" in refused.value.message
    assert refused.value.key == "b"


@pytest.mark.parametrize(
    "header",
    [
        " \n\t" + json.dumps(GOOD),
        json.dumps(GOOD, indent=3),
        json.dumps({key: dict(reversed(value.items())) for key, value in GOOD.items()}) + "   ",
        json.dumps({"__metadata__": None, **GOOD}),
        json.dumps({key.replace("a", "ä\u2028\0"): value for key, value in GOOD.items()}),
        json.dumps({key.replace("a", "\U0001f600"): value for key, value in GOOD.items()}, ensure_ascii=False),
    ],
)
def test_unusual_headers_that_the_reference_reads(tmp_path: Path, header: str) -> None:
    content = file_bytes(header, bytes(range(32)))
    assert reference_accepts(tmp_path, content)
    checkpoint = opened(tmp_path, content)
    with safe_open(tmp_path / "x.safetensors", "pt") as reference:
        assert set(checkpoint) == set(reference.keys())
    assert stored(checkpoint, "b") == bytes(range(8, 32))


def test_unknown_fields_are_noted(tmp_path: Path) -> None:
    content = file_bytes({"a": {**entry("U8", [1], 0, 1), "note": "ü", "n": -1.5}}, b"1")
    assert reference_accepts(tmp_path, content)
    checkpoint = opened(tmp_path, content)
    assert checkpoint.observations == (UnknownFields(("a",)),)


def test_a_part_of_a_distributed_checkpoint_says_so(tmp_path: Path) -> None:
    content = file_bytes({"__metadata__": {"DCP_SHARDING_INFO": "{}"}, "a": entry("U8", [1], 0, 1)}, b"1")
    assert "one rank's part" in notes_of(opened(tmp_path, content))[0].text


def test_select_does_not_apply(tmp_path: Path) -> None:
    opened(tmp_path, file_bytes({}))
    with pytest.raises(UsageError, match="nothing to select"):
        open_safetensors(locate_file(tmp_path / "x.safetensors"), "model")


# --- differential: whatever the reference refuses is refused -------------------------------------------------------

SIZES = {name: DTYPES[torch_name].bits for name, torch_name in DTYPE_NAMES.items()}
NAMES = st.one_of(st.text(max_size=6), st.sampled_from(["a", "b.weight", "__metadata__", '"', "\\"]))


@st.composite
def good_files(draw: st.DrawFn) -> tuple[str, bytes]:
    """The header and the data of a file that is right, written in a style of its own."""
    header: dict[str, object] = {}
    offset = 0
    rows = draw(st.lists(st.tuples(NAMES, st.sampled_from(sorted(SIZES)), st.lists(st.integers(0, 4), max_size=3)),
                         max_size=5, unique_by=lambda row: row[0]))  # fmt: skip
    for name, dtype, shape in rows:
        elements = 1
        for dimension in shape:
            elements *= dimension
        if elements * SIZES[dtype] % 8 or name == "__metadata__":
            continue
        nbytes = elements * SIZES[dtype] // 8
        fields = list(entry(dtype, shape, offset, offset + nbytes).items())
        header[name] = dict(draw(st.permutations(fields)))
        offset += nbytes
    items = list(header.items())
    if draw(st.booleans()):
        items.append(("__metadata__", draw(st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2))))
    header = dict(draw(st.permutations(items)))
    text = json.dumps(header, indent=draw(st.sampled_from([None, 1])), ensure_ascii=draw(st.booleans()))
    return text + " " * draw(st.integers(0, 2)), bytes(offset)


@given(good_files())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_reads_what_the_reference_reads(tmp_path: Path, file: tuple[str, bytes]) -> None:
    content = file_bytes(file[0], file[1])
    assert reference_accepts(tmp_path, content)
    checkpoint = opened(tmp_path, content)
    with safe_open(tmp_path / "x.safetensors", "pt") as reference:
        assert set(checkpoint) == set(reference.keys())
        assert checkpoint.metadata == (reference.metadata() or {})
        for key, tensor in checkpoint.items():
            if tensor.dtype not in ("float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn"):
                loaded = reference.get_tensor(key)
                assert (tensor.dtype, tensor.shape) == (str(loaded.dtype)[6:], tuple(loaded.shape))


FRAGMENTS = [
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"0", b"1", b"-0", b"1e3", b"9" * 21, b"null", b"true", b"NaN",
    b" ", b"\n", b"\x0b", b"\0", b"\xff", b"\xc3\xa9", b"\\ud800", b"\\u0061", b'"a"', b'"shape"', b'"dtype"', b'"F4"',
    b'"U8"', b'"x":1,', b'"__metadata__":{},', b'"__metadata__":null,', b"[[]]", b"{}", b"//",
]  # fmt: skip


@st.composite
def spoiled_files(draw: st.DrawFn) -> bytes:
    """A right file with a few bytes of its header or its length changed."""
    header, data = draw(good_files())
    text = bytearray(header.encode())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        text[at : at + draw(st.integers(0, 4))] = draw(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=2)))
    data = data[draw(st.integers(0, 1)) :] + b"1" * draw(st.integers(0, 1))
    length = draw(st.sampled_from([None, None, None, len(text) + 1, max(len(text) - 1, 0)]))
    return file_bytes(bytes(text), data, length)


def check_at_least_as_strict(folder: Path, content: bytes) -> None:
    message = refusal(folder, content)
    accepted = reference_accepts(folder, content)
    assert accepted or message is not None, content
    if accepted and message is not None:  # only for what is refused on purpose
        purposes = ("twice", "that is not an object", "that the format does not have", "is not text", "too large")
        assert any(purpose in message for purpose in purposes), (message, content)


@given(spoiled_files())
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_refuses_what_the_reference_refuses(tmp_path: Path, content: bytes) -> None:
    check_at_least_as_strict(tmp_path, content)


@pytest.mark.slow
def test_refuses_what_the_reference_refuses_at_length(tmp_path: Path) -> None:
    random.seed(7)
    base = json.dumps({"__metadata__": {"a": "b"}, **GOOD}).encode()
    for _ in range(6_000):
        text = bytearray(base)
        for _ in range(random.randint(1, 3)):
            at = random.randrange(len(text) + 1)
            text[at : at + random.randint(0, 6)] = random.choice(FRAGMENTS)
        check_at_least_as_strict(tmp_path, file_bytes(bytes(text), bytes(32)))


# --- size and time --------------------------------------------------------------------------------------------------


def test_a_terabyte_opens_as_a_small_file(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    shape = [1 << 20, 1 << 18]
    path.write_bytes(file_bytes({"a": entry("F32", shape, 0, 1 << 40)}))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + (1 << 40))
    start = time.perf_counter()
    assert open_safetensors(locate_file(path))["a"].nbytes == 1 << 40
    assert time.perf_counter() - start < 0.5


def test_a_hundred_thousand_keys(tmp_path: Path) -> None:
    header = {f"layers.{i}.weight": entry("U8", [2, 2], 4 * i, 4 * i + 4) for i in range(100_000)}
    content = file_bytes(header, bytes(400_000))
    start = time.process_time()
    assert len(opened(tmp_path, content)) == 100_000
    assert time.process_time() - start < 4  # 0.7 s on an idle machine


@pytest.mark.parametrize("bomb", ['{"a":[%s]}', '{"__metadata__":{"a":[%s]}}', '{"a":{"x":[%s]}}'])
def test_a_header_that_would_unfold_is_refused_before_it_does(tmp_path: Path, bomb: str) -> None:
    import tracemalloc

    content = file_bytes(bomb % ("[]," * 2_000_000 + "1"))
    tracemalloc.start()
    message = refusal(tmp_path, content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert message is not None
    assert peak < 2 * len(content) + 20_000_000  # unfolded: 128 MB


@pytest.mark.parametrize("text", ['{"a":{"shape":[' + "1," * 10**6, '{"a"' + " " * 10**6, '{"' + "\\u0061" * 10**6])
def test_time_is_linear_in_a_broken_header(tmp_path: Path, text: str) -> None:
    start = time.process_time()
    assert refusal(tmp_path, file_bytes(text)) is not None
    assert time.process_time() - start < 2


def test_recursion_limit_is_never_met(tmp_path: Path) -> None:
    nested = '{"x":' * (sys.getrecursionlimit() * 4)
    assert "not valid JSON" in str(refusal(tmp_path, file_bytes('{"a":' + nested)))
