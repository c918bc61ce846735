"""Several processes read one share each and meet in a folder: what they say is what one process says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from console import Run
from safetensors.numpy import load_file, save_file
from test_distributed import environment, run, start

import ckptool

assert run  # the fixture


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    """Two models that differ in values, a renamed tensor, NaN, a constant, integers and a cast; and a damaged one."""
    random = np.random.default_rng(1)
    made: dict[str, np.ndarray] = {f"layers.{n}.weight": random.normal(size=(40, 50 + n)) for n in range(12)}
    made = {key: value.astype(np.float32) for key, value in made.items()}
    made |= {"n": np.arange(10), "half": random.random(3000).astype(np.float16), "one": np.ones(100, np.float32)}
    save_file(made, tmp_path / "a.safetensors")
    made["layers.3.weight"] = made["layers.3.weight"] * np.float32(1.001)
    made["layers.4.weight"][3, 5] = np.nan
    made["layers.5.weight"][0, 0] = np.inf
    made["moved.weight"] = made.pop("layers.7.weight")
    made["half"] = made["half"].astype(np.float32)
    made["n"] = made["n"] + 1
    save_file(made, tmp_path / "b.safetensors")
    torch.save({key: torch.from_numpy(value) for key, value in load_file(tmp_path / "a.safetensors").items()},
               tmp_path / "c.pth")  # fmt: skip
    data = bytearray((tmp_path / "c.pth").read_bytes())
    data[data.index(made["layers.1.weight"].tobytes()) + 50] ^= 1
    (tmp_path / "c.pth").write_bytes(data)


COMMANDS = {
    "inspect": ["inspect", "b.safetensors", "--stats"],
    "diff": ["diff", "a.safetensors", "b.safetensors", "--tolerance", "ulp=1"],
    "rules": ["diff", "a.safetensors", "b.safetensors", "-r", "layers. -> blocks."],
    "check": ["check", "a.safetensors", "b.safetensors", "c.pth"],
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("count", [1, 3])
def test_parts_say_what_one_process_says(run: Run, tmp_path: Path, name: str, count: int) -> None:
    command = COMMANDS[name]
    alone = run(*command, "--json")
    assert alone[0] in (0, 1)
    for number in range(count, 0, -1):
        code, out, err = run(*command, "--json", "--part", f"{number}/{count}", "--work", "meet")
        if number > 1:
            assert (code, out) == (0, "") and "still to come: 1" in err
    assert (code, out) == alone[:2]
    assert run(*command, "--work", "meet", "--part", f"{count}/{count}")[:2] == run(*command)[:2], "and once more"
    records = [json.loads(path.read_text())["results"] for path in sorted((tmp_path / "meet").glob("*-of-*.json"))]
    done = [sum(len(results) for results in record.values()) for record in records]
    assert len(done) == count and min(done) > 0, "each of them did something"


def test_nothing_is_read_twice(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever puts the records together computes nothing."""
    from ckptool.values import stats

    for number in (1, 2):
        assert run(*COMMANDS["inspect"], "--part", f"{number}/2", "--work", "meet")[0] == 0
    monkeypatch.setattr(stats, "stats", lambda *_: pytest.fail("a tensor was read"))
    assert run(*COMMANDS["inspect"], "--part", "2/2", "--work", "meet")[0] == 0


def test_records_of_another_plan_are_refused(run: Run, tmp_path: Path) -> None:
    assert run(*COMMANDS["diff"], "--part", "1/2", "--work", "meet")[0] == 0
    code, out, err = run("diff", "a.safetensors", "b.safetensors", "--part", "2/2", "--work", "meet")
    assert code == 2 and not out and "inputs or options differ" in err, "another tolerance"
    data = bytearray((tmp_path / "a.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "a.safetensors").write_bytes(data)
    code, out, err = run(*COMMANDS["diff"], "--part", "2/2", "--work", "meet")
    assert code == 2 and not out and "inputs or options differ" in err and "rm -r meet" in err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    code, _, err = run(*COMMANDS["diff"], "--part", "2/2", "--work", "mine")
    assert code == 2 and "holds other files" in err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_a_record_that_is_damaged(run: Run, tmp_path: Path) -> None:
    for number in (1, 2):
        run(*COMMANDS["diff"], "--part", f"{number}/2", "--work", "meet")
    (tmp_path / "meet" / "1-of-2.json").write_text('{"version": 1')
    code, _, err = run(*COMMANDS["diff"], "--part", "2/2", "--work", "meet")
    assert code == 2 and "1-of-2.json is no record of this run" in err
    assert run(*COMMANDS["diff"], "--part", "1/2", "--work", "meet")[:2] == run(*COMMANDS["diff"])[:2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*COMMANDS["diff"], "--part", "1/2"], "--work DIR"),
        ([*COMMANDS["diff"], "--distributed", "--work", "meet"], "RANK and WORLD_SIZE are not set"),
        ([*COMMANDS["diff"], "--work", "meet"], "--work is where several processes meet"),
        ([*COMMANDS["check"], "--part", "3/2", "--work", "meet"], "is not I/N"),
        (["diff", "a.safetensors", "b.safetensors", "--keys-only", "--part", "1/2", "--work", "m"], "only headers"),
        (["inspect", "a.safetensors", "--part", "1/2", "--work", "meet"], "--stats"),
        ([*COMMANDS["inspect"], "--part", "1/2", "--work", "s3://bucket/x"], "no folder of a file system"),
    ],
)
def test_requests_that_do_not_fit(run: Run, tmp_path: Path, arguments: list[str], words: str) -> None:
    before = sorted(tmp_path.iterdir())
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and words in err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["inspect", "diff", "check"])
def test_launcher_variables_without_distributed(run: Run, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    alone = run(*COMMANDS[name])
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    code, out, err = run(*COMMANDS[name])
    assert (code, out) == alone[:2] and "process 2 of 4" in err and "--distributed" in err


def test_a_lock_is_written_by_one_process(run: Run, tmp_path: Path) -> None:
    (tmp_path / "ckptool.toml").write_text('lock = "weights.lock"\n')
    command = ["check", "a.safetensors", "--update-lock"]
    assert run(*command, "--part", "1/2", "--work", "meet")[0] == 0
    assert not (tmp_path / "weights.lock").exists()
    assert run(*command, "--part", "2/2", "--work", "meet")[0] == 0
    together = (tmp_path / "weights.lock").read_bytes()
    (tmp_path / "weights.lock").unlink()
    assert run(*command)[0] == 0
    assert (tmp_path / "weights.lock").read_bytes() == together


# --- the same in Python -----------------------------------------------------------------------------------------------


def in_parts(call, count: int, folder: Path) -> object:  # type: ignore[no-untyped-def]
    """What the last of several processes returns; the others return nothing."""
    for number in range(count, 1, -1):
        assert call(part=(number, count), work=folder) is None
    return call(part=(1, count), work=folder)


@pytest.mark.parametrize("count", [1, 3])
def test_parts_in_python(tmp_path: Path, count: int) -> None:
    a, b, damaged = (tmp_path / name for name in ("a.safetensors", "b.safetensors", "c.pth"))
    loose = ckptool.Tolerance(ulp=1)

    def compare(**parts):  # type: ignore[no-untyped-def]
        return ckptool.compare(a, b, tolerance=loose, **parts)

    assert in_parts(compare, count, tmp_path / "1").changes == compare().changes  # type: ignore[attr-defined]

    def check(**parts):  # type: ignore[no-untyped-def]
        return ckptool.check([a, b, damaged], **parts)

    assert in_parts(check, count, tmp_path / "2").findings == check().findings  # type: ignore[attr-defined]

    def stats(**parts):  # type: ignore[no-untyped-def]
        return ckptool.stats(b, only=["layers.*", "half"], **parts)

    found = in_parts(stats, count, tmp_path / "3")
    assert found == stats() and list(found) == list(stats()) and len(found) == 12  # type: ignore[call-overload, arg-type]
    assert found["layers.5.weight"].inf == 1 and found["layers.4.weight"].nan == 1  # type: ignore[index]


def test_parts_in_python_through_rules(tmp_path: Path) -> None:
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"

    def compare(**parts):  # type: ignore[no-untyped-def]
        return ckptool.compare(a, b, recipe=["layers. -> blocks."], only="blocks.*", **parts)

    with pytest.raises(ckptool.CkptError):
        compare()
    rules = ["layers.7.weight -> moved.weight"]
    alone = ckptool.compare(a, b, recipe=rules)
    shared = in_parts(lambda **parts: ckptool.compare(a, b, recipe=rules, **parts), 2, tmp_path / "meet")
    assert shared.changes == alone.changes  # type: ignore[attr-defined]
    with pytest.raises(ckptool.CkptError, match="inputs or options differ"):
        ckptool.compare(a, b, part=(1, 2), work=tmp_path / "meet")


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"part": (1, 2)}, "part= needs a folder"),
        ({"work": "meet"}, "work= is where"),
        ({"part": (3, 2), "work": "meet"}, "is not \\(I, N\\)"),
        ({"part": (1, 2), "work": "s3://bucket/x"}, "no folder of a file system"),
    ],
)
@pytest.mark.parametrize("name", ["check", "compare", "stats"])
def test_requests_in_python_that_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, parts: dict[str, object], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    paths = ["a.safetensors"] * (2 if name == "compare" else 1)
    with pytest.raises(ckptool.CkptError, match=words):
        getattr(ckptool, name)(*paths, **parts)
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(TypeError, match="unexpected keyword argument 'parts'; there are part, work"):
        getattr(ckptool, name)(*paths, parts=3)


# --- real processes ---------------------------------------------------------------------------------------------------


def torchrun(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    programs = Path(sys.executable).parent
    command = [programs / "torchrun", "--standalone", "--no-python", "--nproc-per-node", "4", programs / "ckptool"]
    return subprocess.run(
        [*command, *arguments],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_torchrun_starts_four(run: Run, tmp_path: Path) -> None:
    alone = run(*COMMANDS["inspect"], "--json")
    processes = [
        start(tmp_path, n, 2, *COMMANDS["inspect"], "--json", "--work", "meet", TORCHELASTIC_RUN_ID="x")
        for n in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert (processes[0].returncode, said) == (alone[0], [alone[1], ""])
    done = torchrun(tmp_path, *COMMANDS["diff"], "--json", "--distributed", "--work", "other")
    assert done.returncode == 1 and "exitcode  : 1" in done.stderr, "the exit code of the first process is that of all"
    assert done.stdout == run(*COMMANDS["diff"], "--json")[1]


def test_a_process_that_fails_ends_the_one_that_waits(tmp_path: Path) -> None:
    """What is damaged is in the share of one process: another one names it, as it waits for the record."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "ckptool", "diff", "c.pth", "b.safetensors", "--distributed", "--work", "meet"],
            cwd=tmp_path, env=environment(RANK=str(n), WORLD_SIZE="2", TORCHELASTIC_RUN_ID="x"),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for n in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=60) for process in processes]
    codes = [process.returncode for process in processes]
    assert codes[0] == 2 and sorted(codes)[-1] == 2 and said[0][0] == ""
    assert any("is damaged" in err for _, err in said) and "is damaged" in said[0][1], said
    assert str(ROOT) not in said[0][1]
