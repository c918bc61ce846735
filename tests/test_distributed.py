"""Several processes write one folder: the bytes of one process, whatever is killed, and in whatever order they come."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from console import Run, runner
from safetensors.numpy import save_file

import ckptool
from ckptool.engine.sharing import dealt
from ckptool.storage.launchers import launched
from ckptool.storage.stages import stages_of, words_of_done

VARIABLES = ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", "OMPI_COMM_WORLD_RANK", "PMI_RANK")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return runner(tmp_path, monkeypatch, capsys)


def model(folder: Path, tensors: int = 20, elements: int = 3000) -> Path:
    made = {f"layers.{n}.weight": np.random.default_rng(n).random(elements, np.float32) for n in range(tensors)}
    folder.mkdir()
    save_file(made, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "x"}')
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def states(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("*.safetensors")}


FILTER = ["filter", "in", "--drop", "layers.3.*", "--dtype", "bf16", "--max-shard", "25kB"]


def test_parts_make_what_one_process_makes(run: Run, tmp_path: Path) -> None:
    model(tmp_path / "in")
    assert run(*FILTER, "-o", "alone")[0] == 0
    order = [2, 4, 1, 3]
    for number in order:
        assert not (tmp_path / "out").exists(), "nothing has the name before all is there"
        code, out, err = run(*FILTER, "-o", "out", "--part", f"{number}/4")
        assert code == 0, err
        assert ("wrote a part of out" in out) == (number != order[-1])
    assert content(tmp_path / "out") == content(tmp_path / "alone")
    assert (tmp_path / "out" / "config.json").exists()
    assert stages_of(tmp_path / "out") == []
    code, out, err = run(*FILTER, "-o", "out", "--part", "1/4", "--json")
    assert code == 0 and "complete already" in err and json.loads(out)["written"]["missing"] == 0
    assert run(*FILTER, "-o", "out")[0] == 2, "one process alone replaces nothing"


@pytest.mark.parametrize(
    "command", [["remap", "in", "-r", "layers. -> blocks."], ["merge", "in", "in", "--method", "linear"]]
)
def test_other_commands_share_too(run: Run, tmp_path: Path, command: list[str]) -> None:
    model(tmp_path / "in")
    options = ["--max-shard", "30kB"]
    assert run(*command, *options, "-o", "alone")[0] == 0
    for number in (1, 2):
        assert run(*command, *options, "-o", "out", "--part", f"{number}/2")[0] == 0
    assert content(tmp_path / "out") == content(tmp_path / "alone")


NET = """import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(60, 50) for _ in range(8))
        self.head = torch.nn.Linear(50, 7)
"""


@pytest.mark.parametrize("into", ["net.py:Net", "target.safetensors"])
def test_a_transplant_is_shared_too(run: Run, tmp_path: Path, into: str) -> None:
    """What nothing fills is the model's own init in all parts, or what the target checkpoint has."""
    (tmp_path / "net.py").write_text(NET)
    random = np.random.default_rng(1)
    made = {f"layers.{n}.weight": random.random((50, 60), np.float32) for n in range(6)}
    save_file(made, tmp_path / "in.safetensors")
    target = {f"layers.{n}.{name}": np.full(shape, n, np.float32) for n in range(8)
              for name, shape in (("weight", (50, 60)), ("bias", (50,)))}  # fmt: skip
    save_file(target, tmp_path / "target.safetensors")
    command = ["transplant", "in.safetensors", "--into", into, "--max-shard", "25kB"]
    assert run(*command, "-o", "alone", "--save-recipe", "alone.toml")[0] == 0
    for number in (3, 1, 2):
        code, out, err = run(*command, "-o", "out", "--save-recipe", "r.toml", "--part", f"{number}/3")
        assert code == 0, err
        assert (tmp_path / "r.toml").exists() == (tmp_path / "out").exists() == (number == 2)
        assert ("with strict=True: yes" in out) == (number == 2)
    assert content(tmp_path / "out") == content(tmp_path / "alone")
    before = states(tmp_path / "out")
    code, out, _ = run(*command, "-o", "out", "--resume")
    assert (code, out.count("\n"), states(tmp_path / "out")) == (0, 1, before) and out.startswith("complete: ")
    assert json.loads(run(*command, "-o", "out", "--resume", "--json")[1])["written"]["missing"] == 0
    assert run(*command, "-o", "out")[0] == 2
    (tmp_path / "net.py").write_text(NET.replace("7)", "7)\n        torch.nn.init.ones_(self.head.weight)"))
    assert (run(*command, "-o", "out", "--resume")[0] == 2) == (into == "net.py:Net"), "another init is another plan"


def test_a_transplant_that_all_processes_do(tmp_path: Path, run: Run) -> None:
    (tmp_path / "net.py").write_text(NET)
    save_file({"layers.1.weight": np.ones((50, 60), np.float32)}, tmp_path / "in.safetensors")
    command = ["transplant", "in.safetensors", "--into", "net.py:Net", "--max-shard", "25kB"]
    assert run(*command, "-o", "alone")[0] == 0
    processes = [start(tmp_path, number, 2, *command, "-o", "out") for number in range(2)]
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "with strict=True: yes" in said[0][0] and said[1] == ("", "")
    assert content(tmp_path / "out") == content(tmp_path / "alone")


def test_parts_in_python(tmp_path: Path) -> None:
    plan = ckptool.plan_filter(model(tmp_path / "in"), [("drop", "layers.3.*")], dtype="bf16")
    plan.apply(tmp_path / "alone", max_shard=25_000)
    assert plan.apply(tmp_path / "out", max_shard=25_000, part=(2, 2)).missing > 0
    assert not (tmp_path / "out").exists()
    assert plan.apply(tmp_path / "out", max_shard=25_000, part=(1, 2)).missing == 0
    assert content(tmp_path / "out") == content(tmp_path / "alone")
    before = states(tmp_path / "out")
    assert plan.apply(tmp_path / "out", max_shard=25_000, resume=True).missing == 0
    assert states(tmp_path / "out") == before
    with pytest.raises(ckptool.CkptError, match="not \\(I, N\\)"):
        plan.apply(tmp_path / "other", part=(0, 2))


def test_more_parts_than_files_and_one_part(run: Run, tmp_path: Path) -> None:
    model(tmp_path / "in", tensors=3)
    for number in range(5, 0, -1):
        assert run("filter", "in", "-o", "five", "--part", f"{number}/5")[0] == 0
    assert run("filter", "in", "-o", "one", "--part", "1/1")[0] == 0
    assert content(tmp_path / "five") == content(tmp_path / "one")


def test_finished_shards_are_kept_by_another_number_of_parts(run: Run, tmp_path: Path) -> None:
    model(tmp_path / "in")
    assert run(*FILTER, "-o", "out", "--part", "1/3")[0] == 0
    (stage,) = stages_of(tmp_path / "out")
    before = states(stage / "new")
    assert before
    for number in (1, 2):
        assert run(*FILTER, "-o", "out", "--part", f"{number}/2")[0] == 0
    after = states(tmp_path / "out")
    assert {name: after[name] for name in before} == before


def test_a_record_counts_only_if_the_file_agrees(run: Run, tmp_path: Path) -> None:
    model(tmp_path / "in")
    assert run(*FILTER, "-o", "alone")[0] == 0
    assert run(*FILTER, "-o", "out", "--part", "1/2")[0] == 0
    (stage,) = stages_of(tmp_path / "out")
    damaged = sorted((stage / "new").glob("*.safetensors"))[0]
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    assert run(*FILTER, "-o", "out", "--part", "2/2")[0] == 0
    assert not (tmp_path / "out").exists(), "a file is missing again"
    assert run(*FILTER, "-o", "out", "--resume")[0] == 0
    assert content(tmp_path / "out") == content(tmp_path / "alone")


def test_resume(run: Run, tmp_path: Path) -> None:
    model(tmp_path / "in")
    assert run(*FILTER, "-o", "out", "--part", "1/2")[0] == 0
    code, _, err = run(*FILTER, "--drop", "layers.4.*", "-o", "out", "--resume")
    assert code == 2 and "the inputs or options changed" in err
    assert run(*FILTER, "-o", "out", "--resume")[0] == 0
    before = states(tmp_path / "out")
    for also in ((), ("--force",)):
        code, out, err = run(*FILTER, "-o", "out", "--resume", *also)
        assert (code, err, states(tmp_path / "out")) == (0, "", before)
        assert out.startswith("complete: ") and out.count("\n") == 1, "one line says it"
    code, out, err = run(*FILTER, "--drop", "layers.4.*", "-o", "out", "--resume")
    assert (code, out) == (2, "") and "out exists" in err, "refused before anything is shown"
    assert run(*FILTER, "-o", "out", "--resume")[1].startswith("complete: "), "a refused run leaves that known"
    model(tmp_path / "other", tensors=21)
    code, _, err = run("filter", "other", "-o", "out", "--resume")
    assert code == 2 and "exists" in err
    assert run("filter", "other", "-o", "out", "--force")[0] == 0
    assert words_of_done(tmp_path / "out") == [], "another run takes its word back"


def test_an_output_that_was_changed_is_not_taken_for_complete(run: Run, tmp_path: Path) -> None:
    model(tmp_path / "in")
    assert run(*FILTER, "-o", "out", "--resume")[0] == 0
    shard = sorted((tmp_path / "out").glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert run(*FILTER, "-o", "out", "--resume")[0] == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "out", "--distributed"], "RANK and WORLD_SIZE are not set"),
        (["-o", "out", "--part", "3/2"], "is not I/N"),
        (["-o", "out", "--part", "0/2"], "is not I/N"),
        (["-o", "out", "--part", "1/2", "--distributed"], "exclude each other"),
        (["--part", "1/2"], "no output"),
        (["-o", "out.safetensors", "--part", "1/2"], "a folder of shards"),
        (["-o", "out.pth", "--resume"], "a folder of shards"),
    ],
)
def test_requests_that_do_not_fit(run: Run, tmp_path: Path, options: list[str], words: str) -> None:
    model(tmp_path / "in")
    code, _, err = run("filter", "in", *options)
    assert code == 2 and words in err
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_launcher_variables_without_distributed(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model(tmp_path / "in")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    code, out, _ = run("filter", "in", "-o", "out")
    assert code == 0 and "process 2 of 4" in out and "--distributed" in out


@pytest.mark.parametrize(
    "names",
    [
        ("RANK", "WORLD_SIZE"),
        ("SLURM_PROCID", "SLURM_NTASKS"),
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
        ("PMI_RANK", "PMI_SIZE"),
    ],
)
def test_launchers(names: tuple[str, str]) -> None:
    share = launched({names[0]: "2", names[1]: "3"})
    assert share is not None and (share.number, share.count, share.leads) == (2, 3, False)
    assert launched({names[0]: "3", names[1]: "3"}) is None


def test_shares_are_even() -> None:
    random.seed(3)
    sizes = {f"{n}": random.randrange(1, 5_000) for n in range(200)}
    shares = dealt(sizes, 8)
    assert sorted(name for share in shares for name in share) == sorted(sizes)
    loads = [sum(sizes[name] for name in share) for share in shares]
    assert max(loads) - min(loads) < 200
    assert dealt(dict(reversed(sizes.items())), 8) == shares, "the order of the names does not matter"


# --- real processes ---------------------------------------------------------------------------------------------------


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **more}


def start(folder: Path, number: int, count: int, *arguments: str, **more: str) -> subprocess.Popen[str]:
    """One process, as a launcher starts it."""
    variables = environment(RANK=str(number), WORLD_SIZE=str(count), **more)
    return subprocess.Popen(
        [sys.executable, "-m", "ckptool", *arguments, "--distributed"],
        cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_torchrun_starts_four(tmp_path: Path, run: Run) -> None:
    model(tmp_path / "in", tensors=40)
    assert run(*FILTER, "-o", "alone")[0] == 0
    bin_folder = Path(sys.executable).parent
    command = [bin_folder / "torchrun", "--standalone", "--no-python", "--nproc-per-node", "4"]
    done = subprocess.run(
        [*command, bin_folder / "ckptool", *FILTER, "-o", "out", "--distributed", "--json"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["written"]["tensors"] == 39 and said["written"]["missing"] == 0, "one process speaks for all"
    assert len(said["written"]["rounding"]) == 39, "what casts did to the numbers of all of them"
    assert content(tmp_path / "out") == content(tmp_path / "alone")
    assert stages_of(tmp_path / "out") == []


def test_processes_that_plan_differently_fail_clearly(tmp_path: Path) -> None:
    model(tmp_path / "in", tensors=300, elements=20_000)
    first = start(tmp_path, 0, 2, *FILTER, "-o", "out")
    while not stages_of(tmp_path / "out"):
        time.sleep(0.02)
        assert first.poll() is None
    second = start(tmp_path, 1, 2, *FILTER, "--drop", "layers.7.*", "-o", "out")
    _, said = second.communicate(timeout=60)
    first.kill()
    first.communicate()
    assert second.returncode == 2 and "its inputs or options differ" in said


def test_a_process_that_fails_ends_the_one_that_waits(tmp_path: Path) -> None:
    """One tensor of the input is damaged, in a shard that the second process writes."""
    state = {f"layers.{n}.weight": torch.full((2000,), float(n)) for n in range(6)}
    torch.save(state, tmp_path / "in.pth")
    data = bytearray((tmp_path / "in.pth").read_bytes())
    data[data.index(state["layers.1.weight"].numpy().tobytes()) + 50] ^= 1
    (tmp_path / "in.pth").write_bytes(data)
    command = ["filter", "in.pth", "-o", "out", "--to", "folder", "--max-shard", "9kB"]
    first, second = (start(tmp_path, n, 2, *command, TORCHELASTIC_RUN_ID="a") for n in range(2))
    said = [process.communicate(timeout=60)[1] for process in (first, second)]
    assert (first.returncode, second.returncode) == (2, 2)
    assert "process 2 of 2" in said[0] and "is damaged" in said[0] and "is damaged" in said[1]
    assert not (tmp_path / "out").exists()
    assert stages_of(tmp_path / "out"), "what was finished is kept"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_processes_are_killed_at_random_and_started_again(tmp_path: Path, run: Run, seed: int) -> None:
    """The processes are found by the ids that we started; the number of them changes from try to try."""
    chance = random.Random(seed)
    model(tmp_path / "in", tensors=60, elements=60_000)
    options = ["filter", "in", "--dtype", "bf16", "--max-shard", "400kB"]
    assert run(*options, "-o", "alone")[0] == 0
    kept: dict[str, tuple[int, int]] = {}
    for attempt in range(12):
        count = chance.choice([2, 3, 4])
        processes = [
            start(tmp_path, n, count, *options, "-o", "out", TORCHELASTIC_RESTART_COUNT=str(attempt))
            for n in range(count)
        ]
        if attempt < 4:
            time.sleep(chance.uniform(0.3, 1.2))
            for process in chance.sample(processes, chance.randint(1, count)):
                process.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM]))
            time.sleep(0.1)
            for process in processes:  # as torchrun does
                process.kill()
        codes = []
        for process in processes:
            process.communicate(timeout=120)
            codes.append(process.returncode)
        for stage in stages_of(tmp_path / "out"):
            names = {path.name.removesuffix(".json") for path in (stage / "done").glob("*.safetensors.json")}
            now = {name: state for name, state in states(stage / "new").items() if name in names}
            assert {name: now[name] for name in kept if name in now} == {
                name: kept[name] for name in kept if name in now
            }
            kept = now
        if (tmp_path / "out").exists():
            break
        assert attempt < 4 or codes == [0] * count
    assert content(tmp_path / "out") == content(tmp_path / "alone")
    final = states(tmp_path / "out")
    assert {name: final[name] for name in kept} == kept, "what was finished was not written again"


def children(parent: int) -> list[int]:
    """The processes that another one has started: torchrun gives each worker a session of its own."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            number, _, rest = path.read_text().partition(" (")
            if int(rest.rpartition(") ")[2].split()[1]) == parent:
                found.append(int(number))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="workers are found by their parent in /proc")
def test_two_gigabytes_under_torchrun_with_random_kills(tmp_path: Path) -> None:
    """Four workers, killed at random; torchrun starts all of them again, and what was finished is kept."""
    from tests.bench.bench_remote import real_shards

    chance = random.Random(5)
    real_shards(tmp_path / "in", 2)
    programs = Path(sys.executable).parent
    command = ["filter", "in", "--drop", "layers.3.4.weight", "--max-shard", "60MB"]
    launcher = [programs / "torchrun", "--standalone", "--no-python", "--nproc-per-node", "4", "--max-restarts", "9"]
    process = subprocess.Popen(
        [*launcher, programs / "ckptool", *command, "-o", "out", "--distributed", "--json"],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    killed, kept, goal = 0, dict[str, tuple[int, int]](), 1
    while process.poll() is None and killed < 3:
        time.sleep(0.02)
        assert not (tmp_path / "out").exists() or is_whole(tmp_path), "nothing has the name before all is there"
        for stage in stages_of(tmp_path / "out"):
            names = {path.name.removesuffix(".json") for path in (stage / "done").glob("*.safetensors.json")}
            now = {name: state for name, state in states(stage / "new").items() if name in names}
            assert {name: now.get(name, kept[name]) for name in kept} == kept
            kept |= now
        workers = children(process.pid)
        if len(kept) >= goal and workers:
            os.kill(chance.choice(workers), signal.SIGKILL)
            killed, goal = killed + 1, len(kept) + chance.randrange(3, 9)
            wait_until(lambda gone=frozenset(workers): gone.isdisjoint(children(process.pid)))
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0 and killed > 0, err
    assert json.loads(out)["written"]["missing"] == 0
    final = states(tmp_path / "out")
    assert {name: final[name] for name in kept} == kept, "what was finished was not written again"
    changes = ckptool.compare(tmp_path / "in", tmp_path / "out").changes
    assert [change.key for change in changes if change.status != "same"] == ["layers.3.4.weight"]
    assert stages_of(tmp_path / "out") == []


def is_whole(folder: Path) -> bool:
    return len(ckptool.open(folder / "out")) == len(ckptool.open(folder / "in")) - 1


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_rivals_without_distributed_fail_clearly(tmp_path: Path) -> None:
    model(tmp_path / "in", tensors=100, elements=30_000)
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "ckptool", *FILTER, "-o", "out"],
            cwd=tmp_path, env=environment(RANK=str(n), WORLD_SIZE="3"), stderr=subprocess.PIPE, text=True,
        )
        for n in range(3)
    ]  # fmt: skip
    said = [process.communicate(timeout=120)[1] for process in processes]
    codes = sorted(process.returncode for process in processes)
    assert codes == [0, 2, 2], said
    assert len(ckptool.open(tmp_path / "out")) == 99


# --- the plan that every process makes --------------------------------------------------------------------------------


def test_a_process_lays_out_what_it_writes(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of copies in columns: the layout of a shard is the work of the process that writes it."""
    from ckptool.formats import safetensors_output

    made: list[int] = []
    laid_out = safetensors_output.safetensors_image

    def counted(specs, contents, metadata):  # type: ignore[no-untyped-def]
        made.append(len(specs))
        return laid_out(specs, contents, metadata)

    model(tmp_path / "in")
    monkeypatch.setattr(safetensors_output, "safetensors_image", counted)
    copies = ["filter", "in", "--drop", "layers.3.*", "--max-shard", "25kB"]
    assert run(*copies, "-o", "out", "--part", "999/999")[0] == 0 and made == []
    assert run(*copies, "-o", "out", "--part", "1/3")[0] == 0 and sum(made) == 7
    assert run(*copies, "-o", "out")[0] == 0 and sum(made) == 19, "of the shards that are finished nothing is made"
    assert run(*copies, "-o", "alone")[0] == 0
    assert content(tmp_path / "out") == content(tmp_path / "alone")


@pytest.mark.parametrize("key", ["__metadata__", "a\ud800"])
def test_what_cannot_be_laid_out_is_refused_before_anything_is_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    from ckptool.commands.beside.complete import complete
    from ckptool.commands.filter import plan_filter
    from ckptool.core.plan import Copies
    from ckptool.engine.apply import apply

    model(tmp_path / "in")
    plan = complete(plan_filter(ckptool.open(tmp_path / "in")), "folder")
    assert isinstance(plan.steps, Copies)
    plan.steps.keys = [*plan.steps.keys[:-1], key]
    with pytest.raises(ckptool.CkptError):
        apply(plan, tmp_path / "out", max_shard=25_000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_the_hash_of_a_plan_tells_plans_apart(tmp_path: Path) -> None:
    """Whatever changes a byte of the output, or an input, changes the hash; nothing else does."""
    from ckptool.commands.beside.complete import complete
    from ckptool.commands.filter import plan_filter
    from ckptool.commands.remap import plan_remap
    from ckptool.engine.encode import encode
    from ckptool.engine.plan_hash import plan_hash
    from ckptool.recipes.recipe import parse_recipe

    source = model(tmp_path / "in", tensors=6)

    def digest(
        *rules: tuple[str, str], limit: int = 25_000, renames: str = "", dtype: str | None = None, **metadata: str
    ) -> str:
        opened = ckptool.open(source)
        recipe = parse_recipe([renames]) if renames else None
        plan = plan_remap(opened, recipe) if recipe else plan_filter(opened, list(rules), dtype=dtype)
        plan = replace(complete(plan, "folder"), metadata=metadata)
        return plan_hash(plan, encode(plan, tmp_path / "out", max_shard=limit))

    first = digest()
    assert digest() == first
    others = [
        digest(("drop", "layers.3.*")),
        digest(("drop", "layers.4.*")),
        digest(limit=13_000),
        digest(limit=100_000),
        digest(by="me"),
        digest(renames="layers. -> blocks."),
        digest(dtype="bf16"),
        digest(dtype="f16"),
    ]
    assert len({first, *others}) == 9
    data = bytearray((source / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (source / "model.safetensors").write_bytes(data)
    assert digest() != first, "an input was written to"


def test_decoded_tensors_are_shared_too(run: Run, tmp_path: Path, fixtures: Path) -> None:
    """They are columns as well, and not copies of bytes: their plan is told by what decodes them."""
    command = ["filter", str(fixtures / "fp8"), "--max-shard", "2kB", "-o"]
    assert run(*command, "stored")[0] == 0
    assert run(*command, "alone", "--dequantize")[0] == 0
    for number in (2, 1):
        code, _, err = run(*command, "out", "--dequantize", "--part", f"{number}/2")
        assert code == 0, err
    assert content(tmp_path / "out") == content(tmp_path / "alone") != content(tmp_path / "stored")
    assert run(*command, "next", "--dequantize", "--part", "1/2")[0] == 0
    code, _, err = run(*command, "next", "--dequantize", "--dtype", "f32", "--resume")
    assert code == 2 and "inputs or options changed" in err
