"""Patches: bit-exact in any formats, bound to their base, small, and an error where they are damaged."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from console import Run, runner
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ckptool
from ckptool.commands.patching.apply import plan_patches
from ckptool.commands.patching.extract import Extracted, extract
from ckptool.core.errors import CkptError, UnreadableError, UsageError
from ckptool.core.patch import MANIFEST
from ckptool.encodings.delta import DamagedDeltaError, decode, encode
from ckptool.storage.staging import staged_file

State = dict[str, torch.Tensor]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(tmp_path, monkeypatch, capsys)


def written(base: Path, tuned: Path, out: Path) -> Extracted:
    with staged_file(out, force=True) as sink:
        found = extract(ckptool.open(base), ckptool.open(tuned), sink)
    assert found.nbytes == out.stat().st_size
    return found


def applied(base: Path, *patches: Path, out: Path) -> State:
    from writing import apply

    apply(plan_patches(ckptool.open(base), [ckptool.open(patch) for patch in patches]), out, force=True)
    return load_file(out) if out.suffix == ".safetensors" else torch.load(out, weights_only=True)


def same(one: State, other: State) -> None:
    assert sorted(one) == sorted(other)
    for key in one:
        assert (one[key].dtype, one[key].shape) == (other[key].dtype, other[key].shape)
        assert (
            one[key].contiguous().view(-1).view(torch.uint8).equal(other[key].contiguous().view(-1).view(torch.uint8))
        )


def saved(path: Path, state: State) -> Path:
    if path.suffix == ".safetensors":
        save_file({key: tensor.contiguous().clone() for key, tensor in state.items()}, path)
    else:
        torch.save(state, path)
    return path


def test_a_network_with_another_head_is_a_small_patch(tmp_path: Path) -> None:
    """The prefix that most keys have is seen through; what is beside it is stored by its own name."""
    torch.manual_seed(0)
    base: State = {f"layer{n}.weight": torch.randn(64, 64) for n in range(6)} | {"fc.weight": torch.randn(4, 64)}
    tuned = {f"backbone.{key}": value + 1e-3 for key, value in base.items() if key != "fc.weight"}
    tuned |= {"fc.weight": base["fc.weight"] * 1.001, "neck.weight": torch.ones(64)}
    save_file(base, tmp_path / "base.safetensors")
    save_file(tuned, tmp_path / "tuned.safetensors")
    found = written(tmp_path / "base.safetensors", tmp_path / "tuned.safetensors", tmp_path / "p.safetensors")
    assert {part.key: part.source for part in found.manifest.parts} == {
        **{f"backbone.layer{n}.weight": f"layer{n}.weight" for n in range(6)}, "fc.weight": "fc.weight",
        "neck.weight": "",
    }  # fmt: skip
    same(applied(tmp_path / "base.safetensors", tmp_path / "p.safetensors", out=tmp_path / "o.safetensors"), tuned)


# ---------------------------------------------------------------------------------------------- bytes


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_bytes_come_out_as_they_went_in(data: st.DataObject) -> None:
    width = data.draw(st.sampled_from([1, 2, 4, 8]))
    count = data.draw(st.integers(1, 3000))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    old = rng.integers(0, 256, count * width, np.uint8)
    new = old.copy()
    share = data.draw(st.sampled_from([0.0, 0.001, 0.05, 0.3, 1.0]))
    chosen = rng.random(count * width) < share
    new[chosen] ^= rng.integers(0, data.draw(st.sampled_from([2, 256])), int(chosen.sum()), np.uint8)
    chunk = encode(old.data, new.data, width)
    assert bytes(decode(old.data, chunk, width)) == new.tobytes()
    assert len(chunk) <= new.size + 5


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_chunk_is_an_error_or_gives_the_same(data: st.DataObject) -> None:
    rng = np.random.default_rng(1)
    old = rng.integers(0, 256, 4000, np.uint8)
    new = old.copy()
    new[:: data.draw(st.sampled_from([3, 200]))] ^= 5
    chunk = bytearray(encode(old.data, new.data, 2))
    for _ in range(data.draw(st.integers(1, 3))):
        chunk[data.draw(st.integers(0, len(chunk) - 1))] ^= data.draw(st.integers(1, 255))
    if data.draw(st.booleans()):
        del chunk[data.draw(st.integers(0, len(chunk) - 1)) :]
    try:
        found = decode(old.data, bytes(chunk), 2)
    except DamagedDeltaError:
        return
    assert bytes(found) == new.tobytes()


# ---------------------------------------------------------------------------------------------- sizes


def test_a_sparse_change_takes_two_percent_and_a_dense_one_a_third(tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = {"w": torch.randn(1000, 1000, dtype=torch.float32).mul(0.02).bfloat16()}
    saved(tmp_path / "base.safetensors", base)
    few = base["w"].clone().view(-1)
    places = torch.randperm(few.numel())[: few.numel() // 100]
    few[places] = torch.randn(len(places)).bfloat16()
    dense = (base["w"].float() * (1 + 0.01 * torch.randn(1000, 1000))).bfloat16()
    nbytes = base["w"].numel() * 2
    for tuned, most in ((few.view(1000, 1000), 0.02), (dense, 0.35), (torch.randn(1000, 1000).bfloat16(), 1.001)):
        saved(tmp_path / "tuned.safetensors", {"w": tuned})
        found = written(tmp_path / "base.safetensors", tmp_path / "tuned.safetensors", tmp_path / "p.safetensors")
        assert found.manifest.parts[0].nbytes <= most * nbytes
        same(applied(tmp_path / "base.safetensors", tmp_path / "p.safetensors", out=tmp_path / "o.pth"), {"w": tuned})


# ---------------------------------------------------------------------------------------------- checkpoints

DTYPES = [
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int16,
    torch.complex64,
]


def random(rng: np.random.Generator, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    count = int(np.prod(shape)) * dtype.itemsize
    if not count:
        return torch.zeros(shape, dtype=dtype)
    raw = torch.from_numpy(rng.integers(0, 2 if dtype is torch.bool else 120, count, np.uint8))
    return raw.view(dtype).reshape(shape)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_change_of_a_checkpoint_comes_back(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("p")
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
    base: State = {
        f"m.{number}.w": random(rng, data.draw(st.sampled_from(DTYPES)), data.draw(shapes))
        for number in range(data.draw(st.integers(1, 6)))
    }
    tuned: State = {}
    for key, tensor in base.items():
        what = data.draw(st.sampled_from(["keep", "change", "drop", "rename", "cast", "reshape"]))
        if what == "keep":
            tuned[key] = tensor
        elif what == "change":
            tuned[key] = random(rng, tensor.dtype, tuple(tensor.shape))
        elif what == "rename":
            tuned[f"new.{key}"] = tensor
        elif what == "cast" and tensor.dtype in (torch.float32, torch.float64):
            tuned[key] = tensor.to(torch.bfloat16)
        elif what == "reshape":
            tuned[key] = random(rng, tensor.dtype, (3,))
    tuned["extra"] = torch.arange(3.0)
    if data.draw(st.booleans()):
        tuned["tied"] = tuned[data.draw(st.sampled_from(sorted(tuned)))]
    old, new = (data.draw(st.sampled_from(["a.pth", "a.safetensors"])) for _ in range(2))
    saved(folder / f"base-{old}", base)
    saved(folder / f"tuned-{new}", tuned)
    written(folder / f"base-{old}", folder / f"tuned-{new}", folder / "p.safetensors")
    same(applied(folder / f"base-{old}", folder / "p.safetensors", out=folder / "o.safetensors"), tuned)


def test_several_patches_in_a_row(tmp_path: Path) -> None:
    torch.manual_seed(1)
    states = [{"w": torch.randn(300, 200), "b": torch.zeros(3)}]
    for _ in range(3):
        states.append({**states[-1], "w": states[-1]["w"] * (1 + 0.01 * torch.randn(300, 200))})
    paths = [saved(tmp_path / f"{number}.pth", state) for number, state in enumerate(states)]
    patches = []
    for number, (old, new) in enumerate(pairwise(paths)):
        patches.append(tmp_path / f"p{number}.safetensors")
        written(old, new, patches[-1])
    same(applied(paths[0], *patches, out=tmp_path / "o.pth"), states[-1])
    with pytest.raises(UsageError, match=r"another base than .*: 1 of 2 tensors differ: w"):
        plan_patches(ckptool.open(paths[0]), [ckptool.open(patches[1])])


def test_ties_views_and_shards(tmp_path: Path) -> None:
    torch.manual_seed(2)
    table = torch.randn(50, 8)
    base = {"wte": table, "head": table, "t": torch.randn(40, 30).T, "keep": torch.ones(4)}
    other = table + 0.25
    tuned = {"wte": other, "head": other, "t": base["t"].contiguous().T.clone().T + 1, "keep": torch.ones(4)}
    torch.save(base, tmp_path / "base.pth")
    torch.save(tuned, tmp_path / "tuned.pth")
    found = written(tmp_path / "base.pth", tmp_path / "tuned.pth", tmp_path / "p.safetensors")
    assert {part.key: part.how for part in found.manifest.parts} == {
        "wte": "delta",
        "head": "tied",
        "t": "delta",
        "keep": "same",
    }
    state = applied(tmp_path / "base.pth", tmp_path / "p.safetensors", out=tmp_path / "o.pth")
    same(state, tuned)
    assert state["wte"].data_ptr() == state["head"].data_ptr()
    ckptool.plan_filter(tmp_path / "base.pth").apply(tmp_path / "folder", max_shard=3000)
    same(applied(tmp_path / "folder", tmp_path / "p.safetensors", out=tmp_path / "o2.pth"), tuned)


def test_a_large_tensor_has_many_chunks(tmp_path: Path) -> None:
    torch.manual_seed(3)
    base = torch.randn(2_500_000)
    tuned = base.clone()
    tuned[1_500_000:1_500_100] += 1
    saved(tmp_path / "b.safetensors", {"w": base})
    saved(tmp_path / "t.safetensors", {"w": tuned})
    found = written(tmp_path / "b.safetensors", tmp_path / "t.safetensors", tmp_path / "p.safetensors")
    assert found.nbytes < 5000
    same(applied(tmp_path / "b.safetensors", tmp_path / "p.safetensors", out=tmp_path / "o.safetensors"), {"w": tuned})


# ---------------------------------------------------------------------------------------------- what goes wrong


def example(tmp_path: Path) -> tuple[Path, Path, Path]:
    torch.manual_seed(4)
    base = {"a": torch.randn(100, 50), "b": torch.randn(10)}
    saved(tmp_path / "b.safetensors", base)
    saved(tmp_path / "t.safetensors", {"a": base["a"] * 1.01, "c": torch.ones(3)})
    written(tmp_path / "b.safetensors", tmp_path / "t.safetensors", tmp_path / "p.safetensors")
    return tmp_path / "b.safetensors", tmp_path / "t.safetensors", tmp_path / "p.safetensors"


def test_a_damaged_patch_writes_nothing(tmp_path: Path) -> None:
    base, _, patch = example(tmp_path)
    raw = bytearray(patch.read_bytes())
    with safe_open(patch, "np") as file:
        assert "a" in file.keys()  # noqa: SIM118
    at = raw.index(b"\0" * 2, int.from_bytes(raw[:8], "little") + 8 + 40)
    raw[at + 5] ^= 0x55
    patch.write_bytes(bytes(raw))
    out = tmp_path / "o.safetensors"
    with pytest.raises(UnreadableError):
        applied(base, patch, out=out)
    assert not out.exists()


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_damage_is_an_error_or_changes_nothing(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("d")
    base, tuned, patch = example(folder)
    raw = bytearray(patch.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    patch.write_bytes(bytes(raw))
    try:
        state = applied(base, patch, out=folder / "o.safetensors")
    except CkptError:
        return
    expected = load_file(tuned)
    assert state["a"].equal(expected["a"]) or "a" not in state


def forged(patch: Path, change: Callable[[dict[str, Any], State], None]) -> None:
    """The patch with another manifest, or other chunks."""
    held = load_file(patch)
    with safe_open(patch, "pt") as file:
        metadata = file.metadata()
    fields = json.loads(zlib.decompress(held.pop(MANIFEST).numpy().tobytes()))
    change(fields, held)
    packed = fields["raw"] if "raw" in fields else zlib.compress(json.dumps(fields).encode())
    save_file({**held, MANIFEST: as_bytes(packed)}, patch, metadata)


def as_bytes(packed: bytes) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(packed, np.uint8).copy())


def delta_of(*chunks: bytes) -> torch.Tensor:
    return as_bytes(struct.pack(f"<{1 + len(chunks)}I", len(chunks), *map(len, chunks)) + b"".join(chunks))


def deflated(count: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(count >> 20)) + packer.flush()


BOMB = b"\1" + struct.pack("<I", len(deflated(64 << 20))) + deflated(64 << 20)
LIES: dict[str, Callable[[dict[str, Any], State], None]] = {
    "a shape of another size": lambda fields, _: fields["parts"][0].update(shape=[1 << 40, 1 << 10]),
    "a shape of the same size": lambda fields, _: fields["parts"][0].update(shape=[50, 100]),
    "a shape of nothing": lambda fields, _: fields["parts"][0].update(shape=[0, 1 << 62]),
    "another dtype": lambda fields, _: fields["parts"][0].update(dtype="float9"),
    "no such tensor": lambda fields, _: fields["parts"][0].update(source="z"),
    "deep nesting": lambda fields, _: fields.update(raw=zlib.compress(b"[" * 100_000)),
    "many empty lists": lambda fields, _: fields.update(raw=zlib.compress(b"[" + b"[]," * 30_000_000 + b"0]")),
    "a long text": lambda fields, _: fields.update(raw=zlib.compress(b'"' + bytes(200 << 20) + b'"')),
    "more chunks than there are": lambda _, held: held.update(a=as_bytes(struct.pack("<I", 2**32 - 1))),
    "lengths that do not add up": lambda _, held: held.update(a=as_bytes(struct.pack("<II", 1, 2**32 - 1))),
    "a chunk larger than its tensor": lambda _, held: held.update(a=delta_of(bytes(30 << 20))),
    "planes that inflate": lambda _, held: held.update(a=delta_of(b"\2" + bytes(4) + BOMB * 4)),
    "few numbers that inflate": lambda _, held: held.update(
        a=delta_of(b"\1" + bytes(4) + struct.pack("<II", 1, 1) + bytes(1) + BOMB * 4)
    ),
    "places behind the end": lambda _, held: held.update(
        a=delta_of(b"\1" + bytes(4) + struct.pack("<II", 1, 100) + b"\xff" * 99 + b"\0" + (b"\0" + bytes(4)) * 4)
    ),
    "more numbers than places": lambda _, held: held.update(
        a=delta_of(b"\1" + bytes(4) + struct.pack("<II", 2**32 - 1, 1) + bytes(1) + (b"\0" + bytes(4)) * 4)
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_patch_that_lies(lie: str, tmp_path: Path) -> None:
    import tracemalloc

    base, _, patch = example(tmp_path)
    forged(patch, LIES[lie])
    out = tmp_path / "o.safetensors"
    checkpoints = ckptool.open(base), ckptool.open(patch)
    tracemalloc.start()
    try:
        from writing import apply

        with pytest.raises(CkptError) as error:
            apply(plan_patches(checkpoints[0], [checkpoints[1]]), out, force=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "\n" not in error.value.message
    assert str(patch.name) in error.value.message
    assert peak < 40 << 20
    assert not out.exists()


def test_what_is_no_patch_is_said(tmp_path: Path, cli: Run) -> None:
    base, tuned, patch = example(tmp_path)
    code, _, err = cli("merge", base.name, "--patch", tuned.name)
    assert code == 2
    assert "t.safetensors is not a patch that ckptool extract made" in err
    code, _, err = cli("filter", patch.name, "-o", "x.safetensors")
    assert code == 2
    assert "this is a patch, not a model" in err
    code, _, err = cli("merge", base.name, tuned.name, "--patch", patch.name)
    assert (code, "--patch takes one base, not 2" in err) == (2, True)
    code, _, err = cli("extract", base.name, tuned.name, "-o", "x.pth")
    assert (code, "a patch is a safetensors file" in err) == (2, True)
    code, _, err = cli("extract", base.name, tuned.name, "-o", base.name, "--force")
    assert code == 2
    assert load_file(base)["b"].shape == (10,)


def test_the_command_line(tmp_path: Path, cli: Run) -> None:
    base, tuned, _ = example(tmp_path)
    code, out, _ = cli("extract", base.name, tuned.name, "--json")
    said = json.loads(out)
    assert code == 0
    assert said["summary"]["changed"] == 1
    assert (said["written"], said["removed"]) == (None, ["b"])
    code, out, _ = cli("extract", base.name, tuned.name, "-o", "q.safetensors", "--json")
    assert json.loads(out)["summary"] == said["summary"]
    code, _, _ = cli("merge", base.name, "--patch", "q.safetensors", "-o", "again.safetensors")
    assert code == 0
    same(load_file(tmp_path / "again.safetensors"), load_file(tuned))
    code, out, _ = cli("inspect", "q.safetensors")
    assert "this is a patch for a base of 2 tensors: 1 changed, 1 added, 1 removed" in " ".join(out.split())
    code, out, _ = cli("check", "q.safetensors", "--json")
    assert [one["level"] for one in json.loads(out)["findings"] if one["rule"] == "facts"] == ["note"]


def test_memory_does_not_grow_with_the_tensors(tmp_path: Path) -> None:
    import tracemalloc

    peaks: list[Any] = []
    for count in (6, 16):
        base = torch.randn(count << 20)
        saved(tmp_path / "b.safetensors", {"w": base})
        saved(tmp_path / "t.safetensors", {"w": base * 1.01})
        tracemalloc.start()
        written(tmp_path / "b.safetensors", tmp_path / "t.safetensors", tmp_path / "p.safetensors")
        applied_plan = plan_patches(
            ckptool.open(tmp_path / "b.safetensors"), [ckptool.open(tmp_path / "p.safetensors")]
        )
        from writing import apply

        apply(applied_plan, tmp_path / "o.safetensors", force=True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_equal_checkpoints_are_said_to_be_identical(fixtures: Path, cli: Run) -> None:
    first = cli("extract", str(fixtures / "resnet18.pth"), str(fixtures / "shards"))[1].partition("\n")[0]
    assert first == "identical: the patch changes none of 122 tensors, and would take 27.3 kB"
    more = cli("extract", str(fixtures / "resnet18.pth"), str(fixtures / "resnet18-102.pth"))[1]
    assert more.startswith("ready: "), "tensors are removed"
