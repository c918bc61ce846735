"""What launchers say of a process, in every command; rivals that nobody told of each other; memory of long indexes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from console import Run
from safetensors.numpy import save_file
from test_distributed import content, environment, model, run

import ckptool
from ckptool.storage import ahead, memory
from ckptool.storage.launchers import launched
from tests.servers.base import serving
from tests.servers.hub import Hub, serving_hub

assert run  # the fixture

WRITING = {
    "filter": ["filter", "in", "-o", "out"],
    "remap": ["remap", "in", "-r", "layers. -> blocks.", "-o", "out"],
    "merge": ["merge", "in", "in", "--method", "linear", "-o", "out"],
    "transplant": ["transplant", "in", "--into", "in", "-o", "out"],
}
READING = {
    "inspect": ["inspect", "in", "--stats"],
    "diff": ["diff", "in", "in"],
    "check": ["check", "in"],
}
LAUNCHERS = {
    "torchrun": ("RANK", "WORLD_SIZE", {"TORCHELASTIC_RUN_ID": "x", "LOCAL_RANK": "0"}),
    "srun": ("SLURM_PROCID", "SLURM_NTASKS", {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_LOCALID": "0"}),
    "mpirun": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", {"OMPI_COMM_WORLD_LOCAL_RANK": "0"}),
    "mpiexec": ("PMI_RANK", "PMI_SIZE", {}),
}


@pytest.mark.parametrize("name", [*WRITING, *READING])
def test_each_command_warns_of_a_launcher(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    model(tmp_path / "in", tensors=3)
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    code, out, err = run(*(WRITING | READING)[name])
    assert code == 0 and "process 2 of 4" in out + err and "--distributed" in out + err
    assert "each of them does all of the work" in out + err


@pytest.mark.parametrize("name", [*WRITING, *READING])
def test_each_command_needs_a_launcher(run: Run, tmp_path: Path, name: str) -> None:
    model(tmp_path / "in", tensors=3)
    more = ["--work", "meet"] if name in READING else []
    code, out, err = run(*(WRITING | READING)[name], "--distributed", *more)
    assert (code, out) == (2, "") and "RANK and WORLD_SIZE are not set" in err and "torchrun" in err
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("step", [{}, {"SLURM_STEP_ID": "batch"}, {"SLURM_STEP_ID": "4294967291"}])
@pytest.mark.parametrize("name", ["filter", "check"])
def test_the_script_of_a_slurm_job_is_not_its_tasks(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, step: dict[str, str]
) -> None:
    """Slurm calls it process 0 of 8, and nobody starts the others: nothing waits for them or warns of them."""
    model(tmp_path / "in", tensors=3)
    for variable, value in {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "8", **step}.items():
        monkeypatch.setenv(variable, value)
    more = ["--work", "meet"] if name in READING else []
    code, out, err = run(*(WRITING | READING)[name], "--distributed", *more)
    assert (code, out) == (2, "") and "7 of its 8 tasks are not running" in err and "srun ckptool" in err
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    code, out, err = run(*(WRITING | READING)[name])
    assert code == 0 and "--distributed" not in out + err


def test_the_innermost_launcher_counts() -> None:
    """mpirun in a job of Slurm starts its helpers by srun; salloc's shell is one process, whatever the job has."""
    step = {"SLURM_PROCID": "1", "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_ID": "0"}
    share = launched(step | {"OMPI_COMM_WORLD_RANK": "5", "OMPI_COMM_WORLD_SIZE": "8"})
    assert share is not None and (share.number, share.count) == (5, 8)
    share = launched(step)
    assert share is not None and (share.number, share.count) == (1, 2)
    share = launched(step | {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_ID": "4294967290"})
    assert share is not None and share.count == 1
    script = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}
    share = launched(script | {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "8"})
    assert share is not None and share.count == 8
    assert launched(script | {"SLURM_NTASKS": "1"}) is not None and launched(script) is None


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_each_launcher_numbers_its_processes(launcher: str) -> None:
    rank, size, more = LAUNCHERS[launcher]
    share = launched({rank: "1", size: "4", **more})
    assert share is not None and (share.number, share.count, share.is_launched) == (1, 4, True)


def test_processes_of_a_launcher_share(run: Run, tmp_path: Path) -> None:
    launcher = "srun"
    model(tmp_path / "in", tensors=8)
    command = ["filter", "in", "--max-shard", "25kB", "-o"]
    assert run(*command, "alone")[0] == 0
    rank, size, more = LAUNCHERS[launcher]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "ckptool", *command, "out", "--distributed"],
            cwd=tmp_path, env=environment(**{rank: str(number), size: "2"}, **more),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "wrote out" in said[0][0] and said[1] == ("", "")
    assert content(tmp_path / "out") == content(tmp_path / "alone")


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="Open MPI is not installed")
def test_a_real_mpirun(run: Run, tmp_path: Path) -> None:
    model(tmp_path / "in", tensors=8)
    command = ["filter", "in", "--max-shard", "25kB", "-o"]
    assert run(*command, "alone")[0] == 0
    done = subprocess.run(
        ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "3",
         sys.executable, "-m", "ckptool", *command, "out", "--distributed", "--json"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["written"]["missing"] == 0
    assert content(tmp_path / "out") == content(tmp_path / "alone")


@pytest.mark.parametrize("text", ["-1", "", "2.0", "four", "3", "\u0663"])
def test_numbers_of_a_launcher_that_are_none(text: str) -> None:
    """A rank that is no number below the size is not one; nothing is written by half."""
    assert launched({"RANK": text, "WORLD_SIZE": "3"}) is None


# --- rivals: processes that nobody told of each other -----------------------------------------------------------------


def rivals(folder: Path, *commands: list[str]) -> list[tuple[int, str, str]]:
    """What came of commands that run at the same time."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "ckptool", *command],
            cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for command in commands
    ]  # fmt: skip
    said = [process.communicate(timeout=120) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


def test_rivals_of_a_transplant(tmp_path: Path) -> None:
    made = {f"layers.{n}.weight": np.full((500, 600), n, np.float32) for n in range(8)}
    save_file(made, tmp_path / "in.safetensors")
    save_file(made | {"head.weight": np.ones((50, 7), np.float32)}, tmp_path / "net.safetensors")
    command = ["transplant", "in.safetensors", "--into", "net.safetensors", "--max-shard", "2MB", "-o", "out"]
    said = rivals(tmp_path, command, command, command)
    assert sorted(code for code, _, _ in said) == [0, 2, 2], said
    for code, _, err in said:
        assert code == 0 or "another process is writing" in err or "exists" in err or "was created" in err
    assert len(ckptool.open(tmp_path / "out")) == 9
    hidden = [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert hidden == [], "rivals leave nothing behind"


@pytest.mark.parametrize("attempt", range(2))
def test_rivals_that_read_for_different_ends(run: Run, tmp_path: Path, attempt: int) -> None:
    """Two comparisons meet in one folder: each is right or refused, and the folder is as good as before for one."""
    model(tmp_path / "in")
    model(tmp_path / "new", tensors=21)
    one = ["diff", "in", "in", "--part", "1/1", "--work", "meet"]
    other = ["diff", "in", "new", "--part", "1/1", "--work", "meet"]
    said = rivals(tmp_path, one, other)
    for (code, out, err), expected in zip(said, (0, 1), strict=True):
        assert code == expected or (code == 2 and not out and "inputs or options differ" in err), said
    shutil.rmtree(tmp_path / "meet")
    assert run(*one)[0] == 0
    assert content(tmp_path / "in").keys() == {"model.safetensors", "config.json"}


def test_rivals_that_read_the_same(tmp_path: Path) -> None:
    """The same part twice at once: both say the same."""
    model(tmp_path / "in")
    command = ["inspect", "in", "--stats", "--json", "--part", "1/1", "--work", "meet"]
    said = rivals(tmp_path, command, command)
    assert [code for code, _, _ in said] == [0, 0], said
    assert any(out for _, out, _ in said)
    assert len({out for _, out, _ in said if out}) == 1


# --- memory -----------------------------------------------------------------------------------------------------------


def test_of_headers_no_more_is_kept_than_was_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index longer than all that is kept, and shards: what is kept never exceeds the bound by more than one file."""
    kept: list[int] = []
    monkeypatch.setattr(memory, "HEADS", 300_000)
    monkeypatch.setattr(ahead, "NBYTES", 100_000)
    real = memory.Memory.keep_head

    def watched(self: memory.Memory, keeper: memory.Keeper, start: int, nbytes: int) -> None:
        real(self, keeper, start, nbytes)
        own = sum(size for (which, _), (_, size) in self._heads.items() if which == id(keeper))
        kept.append(self._head_bytes)
        assert self._head_bytes == sum(size for _, size in self._heads.values())
        assert self._head_bytes <= max(memory.HEADS, own)

    monkeypatch.setattr(memory.Memory, "keep_head", watched)
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    files, where = {}, {}
    for number in range(1, 13):
        name = f"model-{number:05}-of-00012.safetensors"
        names = [f"model.layers.{number}.mlp.experts.{at}.down_proj.weight" for at in range(900)]
        text = json.dumps(dict.fromkeys(names, entry)).encode()
        files[name] = len(text).to_bytes(8, "little") + text
        where |= dict.fromkeys(names, name)
    files["model.safetensors.index.json"] = json.dumps({"weight_map": where}).encode()
    assert len(files["model.safetensors.index.json"]) > 3 * memory.HEADS
    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with serving_hub(Hub({"org/model": files})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert len(ckptool.open("hf://org/model")) == 10_800
    assert kept


@pytest.mark.slow
def test_a_long_index_of_a_web_server_takes_little_memory(tmp_path: Path) -> None:
    """29 MB of index and of headers: what is kept of them is bounded, and the index is read once."""
    from tests.bench.bench_remote import serve, sparse_shards
    from tests.bench.harness import measure, script

    sparse_shards(tmp_path / "in", 17, 170_000, 10**12)
    index = tmp_path / "in" / "model.safetensors.index.json"
    nbytes = sum(path.stat().st_blocks * 512 for path in index.parent.iterdir())
    limits = "import sys; from ckptool.storage import ahead, memory; memory.HEADS, ahead.NBYTES = 2 << 20, 1 << 20; "
    code = f"{limits}from ckptool.cli.app import run; sys.exit(run(sys.argv[1:]))"
    options = ("--keep", "model.layers.1.*", "-o", tmp_path / "x", "--dry-run")
    with serving(lambda handler, asked: serve(tmp_path, handler, asked)) as (url, log):
        far = measure(script(code, "filter", f"{url}/in/{index.name}", *options), env=environment())
        asked = [each.path for each in log.asked]
    near = measure(script(code, "filter", index, *options), env=environment())
    assert far.code == near.code == 0, far.output
    assert max(asked.count(path) for path in asked) == 2
    kept = 3 * 2**20
    network = 20 * 2**20  # http, ssl and the buffers of connections; 13 MB were measured
    assert kept + network < nbytes, "all of it would be more"
    assert far.peak_rss < near.peak_rss + kept + network
