"""Inputs that are nearly right: one generator for each kind, from a seeded source of randomness."""

from __future__ import annotations

import io
import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from random import Random

import numpy as np
import torch

from tests.fuzz.quantized import quantized

Files = Mapping[str, bytes]
"""The files of one input by name; the first is the one that is opened, "." the folder."""

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.float8_e4m3fn)
_ST_DTYPES = ("F32", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "F8_E8M0", "F4", "X9", "", "f32")
_SIZES = (0, 1, 2, 3, 4, 7, 8, 16, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64, -1, 10**30)
_NAMES = ("w", "a.w", "layer.0.w", "", ".", "é", "a" * 300, "\0", "../x", "__metadata__", "\u202e", "1", "\ud83d")
_GLOBALS = (
    ("posix", "system"), ("torch._utils", "_rebuild_tensor_v2"), ("torch", "FloatStorage"), ("torch", "HalfStorage"),
    ("collections", "OrderedDict"), ("builtins", "eval"), ("torch._utils", "_rebuild_parameter"), ("a", "b.c"),
    ("torch.storage", "UntypedStorage"), ("_codecs", "encode"), ("torch", "Size"), ("numpy.core.multiarray", "scalar"),
)  # fmt: skip


def damaged(random: Random, data: bytes) -> bytes:
    """The bytes with some of them changed, inserted, doubled or cut off."""
    out = bytearray(data)
    for _ in range(random.choice((0, 1, 1, 1, 2, 5))):
        at = random.randrange(len(out) + 1)
        match random.randrange(6):
            case 0 if at < len(out):
                out[at] ^= 1 << random.randrange(8)
            case 1:
                out[at:at] = random.randbytes(random.randrange(1, 9))
            case 2:
                del out[at : at + random.randrange(1, 9)]
            case 3:
                out[at:at] = out[max(0, at - random.randrange(1, 64)) : at]
            case 4:
                out[at : at + 4] = struct.pack("<I", random.choice(_SIZES) & 0xFFFFFFFF)
            case _:
                del out[at:]
    return bytes(out)


def _state(random: Random) -> dict[str, object]:
    state: dict[str, object] = {}
    for number in range(random.randrange(4)):
        shape = [random.randrange(4) for _ in range(random.randrange(3))]
        tensor = torch.zeros(shape, dtype=random.choice(_DTYPES))
        state[random.choice(_NAMES[:9]).encode("utf-8", "replace").decode() + str(number)] = tensor
        if random.random() < 0.2:
            state[f"tied{number}"] = tensor
    return state


@lru_cache(maxsize=64)
def _saved(seed: int, legacy: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(_state(Random(seed)), buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def _members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# ---------------------------------------------------------------------------------------------- pickles


def random_pickle(random: Random) -> bytes:
    """Opcodes that mostly find on the stack what they need."""
    out, depth, marks, memo = bytearray(b"\x80" + bytes((random.choice((2, 2, 2, 3, 4, 5)),))), 0, 0, 0
    for _ in range(random.randrange(1, 60)):
        kind = random.randrange(20)
        if kind < 4 or depth == 0:
            text = random.choice(_NAMES[:10]).encode("utf-8", "surrogatepass")
            module, name = random.choice(_GLOBALS)
            out += random.choice((
                b"N", b"K" + random.randbytes(1), b"]", b"}", b")", b"\x88", b"J" + random.randbytes(4),
                b"X" + struct.pack("<I", len(text)) + text, f"c{module}\n{name}\n".encode(), b"G" + random.randbytes(8),
                b"\x8a" + bytes((9,)) + random.randbytes(9), b"I%d\n" % random.choice(_SIZES), b"\x8f",
            ))  # fmt: skip
            depth += 1
        elif kind < 6:
            out += b"("
            marks, depth = marks + 1, depth + 1
        elif kind < 9 and marks:
            out += random.choice((b"t", b"l", b"d", b"e", b"u", b"\x91", b"1", b"o"))
            marks -= 1
        elif kind < 11 and depth > 1:
            out += random.choice((b"R", b"\x86", b"b", b"a", b"\x81", b"s", b"\x93"))
            depth -= 1
        elif kind < 13:
            out += b"q" + bytes((memo % 256,))
            memo += 1
        elif kind < 15 and memo:
            out += b"h" + bytes((random.randrange(memo) % 256,))
            depth += 1
        elif kind == 15:
            out += random.choice((b"\x85", b"2", b"0", b"\x87", b"Q", b"\x94", b"j" + random.randbytes(4)))
        elif kind == 16:
            out += random.choice((b"r" + random.randbytes(4), b"\x95" + random.randbytes(8), random.randbytes(2)))
        else:
            out += b"q" + bytes((random.randrange(256),))
    return bytes(out) + b"."


def pickles(random: Random) -> Files:
    if random.random() < 0.3:
        return {"in.pkl": damaged(random, pickle.dumps(_plain(random, 0), random.randrange(6)))}
    if random.random() < 0.5:
        return {"in.pkl": damaged(random, _members(_saved(random.randrange(40), False))["archive/data.pkl"])}
    return {"in.pkl": random_pickle(random)}


def _plain(random: Random, depth: int) -> object:
    if depth > 3 or random.random() < 0.4:
        return random.choice((None, True, 1, -1, 2**40, 2**300, 1.5, "a", "é" * 40, b"x", bytearray(b"y"), ()))
    values = [_plain(random, depth + 1) for _ in range(random.randrange(4))]
    return random.choice((values, tuple(values), {"k": values}, dict.fromkeys(range(len(values)), "v"), {1, 2}))


# ---------------------------------------------------------------------------------------------- archives


def zips(random: Random) -> Files:
    data = _saved(random.randrange(40), random.random() < 0.15)
    if not data.startswith(b"PK") or random.random() < 0.4:
        return {"in.pth": damaged(random, data)}
    members = list(_members(data).items())
    for _ in range(random.randrange(3)):
        at = random.randrange(len(members))
        name, content = members[at]
        match random.randrange(6):
            case 0:
                members[at] = (name, damaged(random, content))
            case 1:
                members.insert(random.randrange(len(members)), (name, content))
            case 2:
                other = random.choice((name.upper(), name + "/", "../" + name, name.replace("/", "\\")))
                members[at] = (other, content)
            case 3:
                members[at] = (name, content[: random.randrange(len(content) + 1)])
            case 4:
                del members[at]
            case _:
                members.append(("archive/" + random.choice(("byteorder", "version", "data/0", "data.pkl")), b"big"))
        if not members:
            break
    if random.random() < 0.2:
        members = [(n, random_pickle(random) if n.endswith("data.pkl") else c) for n, c in members]
    buffer = io.BytesIO()
    way = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(buffer, "w", way) as archive:  # of names twice
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content)
    return {"in.pth": damaged(random, buffer.getvalue()) if random.random() < 0.3 else buffer.getvalue()}


# ---------------------------------------------------------------------------------------------- safetensors


def _header(random: Random) -> tuple[dict[str, object], int]:
    bits = {"F32": 32, "F16": 16, "BF16": 16, "I64": 64, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F4": 4}
    header: dict[str, object] = {}
    at = 0
    for number in range(random.randrange(4)):
        dtype = random.choice(_ST_DTYPES if random.random() < 0.2 else _ST_DTYPES[:7])
        shape = [random.randrange(5) for _ in range(random.randrange(3))]
        size = bits.get(dtype, 8)
        for length in shape:
            size *= length
        end = at + size // 8
        entry: dict[str, object] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
        if random.random() < 0.15:
            field = random.choice(("dtype", "shape", "data_offsets", "extra"))
            entry[field] = random.choice((None, 1, "F32", [1, -1], [0, 2**64], [[1]], {}, 1.0, [1e3], [at, end]))
        header[random.choice(_NAMES[:3]) + str(number) if random.random() < 0.8 else random.choice(_NAMES[:12])] = entry
    if random.random() < 0.4:
        header["__metadata__"] = random.choice(({"format": "pt"}, {}, None, {"a": 1}, [], {"é": "\0"}, "x"))
    return header, at


def safetensors(random: Random) -> Files:
    header, size = _header(random)
    text = json.dumps(header, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    if random.random() < 0.2:
        text = damaged(random, text)
    if random.random() < 0.2:
        text += b" " * random.randrange(9)
    length = len(text) if random.random() < 0.9 else random.choice(_SIZES) & (2**64 - 1)
    body = random.randbytes(size + (random.choice((-1, 1, 8)) if random.random() < 0.1 and size else 0))
    return {"in.safetensors": struct.pack("<Q", length) + text + body}


def indexes(random: Random) -> Files:
    header, size = _header(random)
    shard = struct.pack("<Q", len(text := json.dumps(header).encode())) + text + bytes(size)
    names = [name for name in header if name != "__metadata__"] + ["other"] * (random.random() < 0.2)
    places = ("a.safetensors", "a.safetensors", "a.safetensors", "../a.safetensors", "/etc/passwd", "", "\0", 1, None)
    weight_map: object = {name: random.choice(places[: 3 + 6 * (random.random() < 0.2)]) for name in names}
    if random.random() < 0.1:
        weight_map = random.choice(([], None, "x", {"a": {}}))
    index = {"metadata": random.choice(({}, {"total_size": size}, {"total_size": -1}, None)), "weight_map": weight_map}
    written = json.dumps(index).encode()
    return {
        "model.safetensors.index.json": damaged(random, written) if random.random() < 0.3 else written,
        "a.safetensors": shard,
    }


@lru_cache(maxsize=1)
def _dcp() -> dict[str, bytes]:
    import tempfile
    from pathlib import Path

    from torch.distributed.checkpoint import FileSystemWriter, save

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        save({"w": torch.zeros(3, 2), "n": {"b": torch.ones(2)}}, storage_writer=FileSystemWriter(folder), no_dist=True)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def dcps(random: Random) -> Files:
    files = dict(_dcp())
    data = files.pop(".metadata")
    if random.random() < 0.1:
        data = random_pickle(random)
    rest = {name: damaged(random, each) if random.random() < 0.2 else each for name, each in files.items()}
    return {".": b"", ".metadata": damaged(random, data), **rest}


# ---------------------------------------------------------------------------------------------- arrays, programs, GGUF


def _arrays(random: Random) -> dict[str, object]:
    found: dict[str, object] = {}
    for number in range(random.randrange(1, 4)):
        shape = [random.choice((0, 1, 2, 3, 17)) for _ in range(random.randrange(4))]
        dtype = random.choice(("f4", ">f8", "i2", "u1", "c8", "?", "f2", "O", "U3"))
        array = np.zeros(shape, dtype)
        if dtype not in ("O", "U3", "?"):
            array = np.frombuffer(random.randbytes(array.nbytes), dtype).reshape(shape)
        found[f"w{number}"] = np.asfortranarray(array) if random.random() < 0.3 else array
    return found


def arrays(random: Random) -> Files:
    made = _arrays(random)
    match random.randrange(4):
        case 0:
            buffer = io.BytesIO()
            np.savez(buffer, **{key: array for key, array in made.items() if array.dtype != object})  # type: ignore[attr-defined]
            return {"in.npz": damaged(random, buffer.getvalue())}
        case 1:
            buffer = io.BytesIO()
            np.save(buffer, next(iter(made.values())), allow_pickle=True)
            return {"in.npy": damaged(random, buffer.getvalue())}
        case _:
            beside = {"model": made, "iteration": np.int64(3), "text": "x" * random.choice((1, 600)), "raw": b"y" * 700}
            data = pickle.dumps(beside if random.random() < 0.5 else made, random.randrange(6))
            return {"in.pdparams": damaged(random, data)}


_ODD_FIELDS = (
    None,
    -1,
    0,
    1 << 62,
    1 << 70,
    "x",
    [],
    {},
    {"as_int": -1},
    {"as_expr": {}},
    [{"as_int": 1 << 62}] * 3,
    1.5,
)


def pt2s(random: Random) -> Files:
    """Archives as torch.export writes them, without the program."""
    buffer, config, records = io.BytesIO(), {}, {}
    for number in range(random.randrange(4)):
        shape = [random.randrange(4) for _ in range(random.randrange(3))]
        strides = [1 if axis == len(shape) - 1 else 4 for axis in range(len(shape))]
        records[f"weight_{number}"] = bytes(random.choice((0, 64, 64, 64, 7)))
        meta: dict[str, object] = {"dtype": random.choice((7, 13, 5)), "layout": 7, "storage_offset": {"as_int": 0}}
        meta |= {"sizes": [{"as_int": n} for n in shape], "strides": [{"as_int": n} for n in strides]}
        if random.random() < 0.2:
            meta[random.choice(list(meta))] = random.choice(_ODD_FIELDS)
        entry: dict[str, object] = {"path_name": f"weight_{number}", "use_pickle": False, "tensor_meta": meta}
        if random.random() < 0.1:
            entry[random.choice(list(entry))] = random.choice((*_ODD_FIELDS, True))
        config[random.choice(_NAMES[:3]) + str(number)] = entry
    text = json.dumps({"config": config}).encode()
    pickled = _saved(random.randrange(40), False)
    with zipfile.ZipFile(buffer, "w") as archive:
        if random.random() < 0.3:
            archive.writestr("serialized_state_dict.pt", damaged(random, pickled))
        else:
            for name, content in records.items():
                archive.writestr(f"m/data/weights/{name}", content)
            name = "m/data/weights/model" + random.choice(("_weights_config.json", "_weights_config.json", ".pt"))
            content = text if name.endswith("json") else pickled
            archive.writestr(name, damaged(random, content) if random.random() < 0.4 else content)
            archive.writestr("m/models/model.json", b"{}")
    return {"in.pt2": damaged(random, buffer.getvalue()) if random.random() < 0.3 else buffer.getvalue()}


def ggufs(random: Random) -> Files:
    order = random.choice("<<<>")

    def text(value: str) -> bytes:
        return struct.pack(f"{order}Q", len(value.encode())) + value.encode()

    pairs = [text("general.architecture") + struct.pack(f"{order}I", 8) + text(random.choice(("llama", "qwen3", "")))]
    for number in range(random.randrange(4)):
        kind, value = random.choice(((4, "I"), (10, "Q"), (7, "?"), (6, "f")))
        pairs.append(text(f"k{number}") + struct.pack(f"{order}I{value}", kind, random.randrange(2)))
    if random.random() < 0.5:
        items = b"".join(text("t") for _ in range(9))
        pairs.append(text("tokens") + struct.pack(f"{order}IIQ", 9, 8, 9) + items)
    infos, data = [], b""
    for number in range(random.randrange(4)):
        kind, elements, nbytes = random.choice(
            (
                *((0, 1, 4), (1, 1, 2), (8, 32, 34), (12, 256, 144), (30, 1, 2), (2, 32, 18)),
                *((6, 32, 22), (14, 256, 210), (18, 256, 98), (29, 256, 56), (40, 64, 36), (99, 32, 18)),
            )
        )
        dims = [elements * random.choice((1, 2)), *(random.randrange(1, 4) for _ in range(random.randrange(3)))]
        size = nbytes * (np.prod(dims, dtype=int) // elements)
        infos.append(
            text(f"blk.{number}.w") + struct.pack(f"{order}I{len(dims)}QIQ", len(dims), *dims, kind, len(data))
        )
        data += random.randbytes(size)
        data += bytes(-len(data) % 32)
    head = b"GGUF" + struct.pack(f"{order}IQQ", 3, len(infos), len(pairs)) + b"".join(pairs) + b"".join(infos)
    whole = head + bytes(-len(head) % 32) + data
    return {"in.gguf": damaged(random, whole) if random.random() < 0.7 else whole}


# ---------------------------------------------------------------------------------------------- texts

_PIECES = (
    "a", "b", "layer", ".", ".", "{i}", "{i}", "{m**}", "**", "*", "{p*}", "{x=q|k|v}", "{s=1..3}", "{8-11}", "{8..11}",
    "{2*s+1}", "weight", "{", "}", "?", "[ab]", "[!a]", "[", "]", ",", "é", "re:", "(a|aa)+", "\\d", "{a,b}", "{*,a*}",
)  # fmt: skip
_STEPS = (
    "o i -> i o", "(x o) i -> x o i", "(a b) -> b a", "= $1 * 2", "= $1 @ $2", "= sum($1, 0)", "f16", "bf16", "i64",
    "= $1 ** $1", "= take($1, [0, 1], 0)", "fit grid", "o i -> o i 1", "= 9**9**9", "... -> x ...", "= ($1", "= a - b",
)  # fmt: skip


def _pattern(random: Random, most: int = 8) -> str:
    return "".join(random.choice(_PIECES) for _ in range(random.randrange(1, most)))


def rule(random: Random) -> str:
    """A rule of the recipe language, or nearly one."""
    left = ", ".join(_pattern(random) for _ in range(random.choice((1, 1, 1, 2))))
    right = random.choice(("!", "", left, _pattern(random), ", ".join((_pattern(random), _pattern(random)))))
    steps = "".join(f" | {random.choice(_STEPS)}" for _ in range(random.choice((0, 0, 1, 2))))
    return f"{random.choice(('', '', '?'))}{left} -> {right}{steps}"


def recipes(random: Random) -> Files:
    lines = [rule(random) if random.random() < 0.9 else "---" for _ in range(random.randrange(1, 6))]
    if random.random() < 0.3:
        return {"in.txt": "\n".join(lines).encode("utf-8", "replace")}
    keys = ("ckptool = 1", "unmatched = 'drop'", "vars = {a = 2}", "init = {'*' = 'zeros'}", "tie = [['a', 'b']]",
            "source.select = 'x'", "expect.coverage = 2", "output.dtype = 'f16'", "vars.a.b = 1", "x = 1")  # fmt: skip
    text = f"rules = {json.dumps(lines)}\n" + "\n".join(random.sample(keys, random.randrange(4)))
    return {"in.toml": damaged(random, text.encode("utf-8", "replace")) if random.random() < 0.2 else text.encode()}


def patterns(random: Random) -> Files:
    text = _pattern(random, 30) * random.choice((1, 1, 1, 5, 20))
    keys = ["".join(random.choice("ab.1é") for _ in range(random.randrange(60))) for _ in range(6)]
    return {"in.json": json.dumps([text, keys]).encode()}


def policies(random: Random) -> Files:
    values = ("1", "'a'", "true", "[]", "['f32', 1]", "{}", "{from = 'a', rel = -1}", "'50MB'", "'" + "{*,*}" * 9 + "'",
              "[['a', 'b']]", "1e999", "nan", "0x" + "f" * 40, "'\\u0000'", "1979-05-27", "'os:system'")  # fmt: skip
    names = ("into", "model-args", "recipe", "select", "dtypes", "max-size", "drift", "lock", "metadata", "tied",
             "levels", "allow", "levels.dead", "allow.missing", "fail-on", "paths", "allow.fits")  # fmt: skip
    lines = [f"{name} = {random.choice(values)}" for name in random.sample(names, random.randrange(1, 5))]
    if random.random() < 0.3:
        lines += ["[[paths]]", f"match = {json.dumps(_pattern(random).encode('utf-8', 'replace').decode())}"]
    text = "\n".join(lines).encode()
    return {"ckptool.toml": damaged(random, text) if random.random() < 0.3 else text}


KINDS: dict[str, Callable[[Random], Files]] = {
    "pickle": pickles,
    "zip": zips,
    "safetensors": safetensors,
    "index": indexes,
    "dcp": dcps,
    "recipe": recipes,
    "pattern": patterns,
    "policy": policies,
    "arrays": arrays,
    "pt2": pt2s,
    "gguf": ggufs,
    "encoded": quantized,
}
