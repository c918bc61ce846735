"""A pickle costs seconds and megabytes that are bounded, whatever is in it; each command's, measured on real processes.

The promise is 10 seconds and 500 MB. Memory is held to here; of time, what the processor was busy, with room for a slow
one. Costs grow with the number of objects, so a quarter of what is read at most shows them; a quarter, since tables,
which double, are then as full as with all.
"""

from __future__ import annotations

import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ckptool.formats.pickle.dump import dump
from ckptool.formats.pickle.loading import load
from ckptool.formats.pickle.objects import Call, Dict, Global, Persistent
from ckptool.formats.pickle.state import MAX_OBJECTS
from tests.bench.harness import Measurement, ckptool, measure

MB = 1_000_000
SECONDS = 60.0
PART = 4


def _int(number: int) -> bytes:
    return b"J" + struct.pack("<I", number + 300)


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


# a little below what is read at all: one step more, and the first command refuses; for one PART of it
BESIDE: dict[str, Callable[[int], bytes]] = {
    "empty lists": lambda part: b"(" + b"]" * (1_000_000 // part) + b"l",
    "short lists": lambda part: b"(" + b"](K\x01K\x02e" * (1_000_000 // part) + b"l",
    "tuples": lambda part: b"(" + b"".join(b"K" + bytes([n & 255]) + b"\x85" for n in range(1_600_000 // part)) + b"l",
    "tuples in tuples": lambda part: b"(" + b"K\x01\x85\x85\x85" * (550_000 // part) + b"l",
    "texts": lambda part: b"(" + b"".join(_text(f"{n:06}") for n in range(1_500_000 // part)) + b"l",
    "one text": lambda part: _text("a" * (70_000_000 // part)),
    "a dict": lambda part: b"}(" + b"".join(_text(f"{n:06}") + _int(n) for n in range(900_000 // part)) + b"u",
    "numbers": lambda part: b"(" + b"".join(map(_int, range(3_500_000 // part))) + b"l",
    "calls": lambda part: b"(ccollections\nOrderedDict\nq\x01" + b"h\x01)R" * (1_000_000 // part) + b"l",
    "sets": lambda part: b"(" + b"\x8f" * (500_000 // part) + b"l",
    "references": lambda part: b"(]q\x01" + b"h\x01" * (9_000_000 // part) + b"l",
}
NOTHING = b"]"


def pickled(beside: bytes) -> bytes:
    """The pickle of one tensor with such objects beside it."""
    tensor = Call(
        "reduce",
        Global("torch._utils", "_rebuild_tensor_v2"),
        (Persistent(("storage", Global("torch", "FloatStorage"), "0", "cpu", 1)), 0, (1,), (1,), False,
         Call("reduce", Global("collections", "OrderedDict"), ())),
    )  # fmt: skip
    weights = dump(Dict([("model", Dict([("w", tensor)]))]))
    # the dict of one entry ends with SETITEM and STOP: another entry follows
    return weights[:-1] + _text("beside") + beside + b"s."


def write(path: Path, beside: bytes) -> Path:
    """A checkpoint of that pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(beside))
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/data/0", b"\0\0\x80\x3f")
        archive.writestr("archive/version", b"3\n")
    return path


def filtered(path: Path) -> Measurement:
    """Planned, written and read again: the most that any command does."""
    done = measure(ckptool("filter", path, "-o", path.with_name("out.pth"), "--force"))
    assert (done.code, "kept beside the weights: beside" in done.output) == (0, True), done.output
    return done


def compared(path: Path) -> Measurement:
    """The file with a copy of it."""
    shutil.copy(path, path.with_name("b.pth"))
    done = measure(ckptool("diff", path, path.with_name("b.pth")))
    assert done.code == 0, done.output
    return done


@pytest.fixture(scope="module")
def least(tmp_path_factory: pytest.TempPathFactory) -> dict[Callable[[Path], Measurement], Measurement]:
    """What commands cost with nothing beside the weights."""
    path = write(tmp_path_factory.mktemp("least") / "a.pth", NOTHING)
    return {command: command(path) for command in (filtered, compared)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "kind"), [*((filtered, kind) for kind in BESIDE), (compared, "short lists"), (compared, "calls")]
)
def test_objects_beside_the_weights_cost_little(
    command: Callable[[Path], Measurement],
    kind: str,
    least: dict[Callable[[Path], Measurement], Measurement],
    tmp_path: Path,
) -> None:
    done, start = command(write(tmp_path / "a.pth", BESIDE[kind](PART))), least[command]
    assert start.peak_rss + PART * (done.peak_rss - start.peak_rss) < 500 * MB
    assert start.cpu + PART * (done.cpu - start.cpu) < SECONDS


@pytest.mark.slow
@pytest.mark.parametrize(("command", "kind"), [(filtered, "numbers"), (filtered, "one text"), (compared, "a dict")])
def test_as_many_as_are_read_cost_no_more(command: Callable[[Path], Measurement], kind: str, tmp_path: Path) -> None:
    done = command(write(tmp_path / "a.pth", BESIDE[kind](1)))
    assert done.peak_rss < 500 * MB
    assert done.cpu < SECONDS


@pytest.mark.parametrize("kind", BESIDE)
def test_so_many_are_read(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of each against a quarter of the limit."""
    monkeypatch.setattr("ckptool.formats.pickle.state._MOST", MAX_OBJECTS * MB // PART)
    load(pickled(BESIDE[kind](PART)))


@pytest.mark.slow
@pytest.mark.parametrize(("command", "kind"), [("inspect", "texts"), ("check", "numbers"), ("filter", "tuples")])
def test_three_times_as_many_are_refused_by_every_command(command: str, kind: str, tmp_path: Path) -> None:
    body = BESIDE[kind](1)
    path = write(tmp_path / "a.pth", body[:-1] + body[1:-1] * 2 + body[-1:])
    done = measure(ckptool(command, path))
    assert done.code == (1 if command == "check" else 2)
    assert "makes more than 350 MB of objects, the most that is read" in " ".join(done.output.split())
    assert done.peak_rss < 500 * MB
    assert done.cpu < SECONDS


def test_a_key_of_a_torch_zip_takes_so_many_bytes(tmp_path: Path) -> None:
    """2,300 before tensors were read in one step and directories kept in columns; the promise is for 200,000 keys."""
    few, many = 1_000, 21_000
    peaks = []
    for keys in (few, many):
        torch.save({f"layer.{number}.weight": torch.zeros(1) for number in range(keys)}, tmp_path / "a.pth")
        done = measure(ckptool("inspect", tmp_path / "a.pth"))
        assert done.code == 0, done.output
        peaks.append(done.peak_rss)
    assert (peaks[1] - peaks[0]) / (many - few) < 2_200
