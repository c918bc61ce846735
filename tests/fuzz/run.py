"""Many inputs, one after the other, in a process that may end at any of them."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

MAX_MEMORY = 500_000  # kB that one input may add to the most memory used so far
_MOST = 12 << 30  # bytes of address space: torch alone maps a few


def case_of(kind: str, seed: int, number: int) -> dict[str, bytes]:
    """The files of one input; the same for the same numbers."""
    from tests.fuzz.inputs import KINDS

    return dict(KINDS[kind](Random(f"{kind} {seed} {number}")))


def write_case(files: dict[str, bytes], folder: Path) -> Path:
    """Writes the files; returns what is opened: the first of them, or the folder."""
    for name, data in files.items():
        if name != ".":
            (folder / name).write_bytes(data)
    return folder / next(iter(files))


def work(kind: str, seed: int, first: int, seconds: float, most: int, told: Path) -> int:
    """Judges inputs until the time is up; writes what it is at, and what it found, into a folder."""
    from tests.fuzz.judge import FindingError, judge

    resource.setrlimit(resource.RLIMIT_AS, (_MOST, _MOST))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    folder = told / "case"
    end = time.monotonic() + seconds
    number, taken = first, 0
    while time.monotonic() < end and number - first < most:
        (told / "at").write_text(f"{number} {taken}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        path = write_case(case_of(kind, seed, number), folder)
        if os.environ.get("CKPTOOL_FUZZ_DIES_AT") == str(number):  # tests/test_fuzz.py
            os.kill(os.getpid(), signal.SIGKILL)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            taken += judge(path)
            if number - first > 20 and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before > MAX_MEMORY:
                raise FindingError("takes more than 500 MB")
        except FindingError as finding:
            with (told / "found").open("a") as file:
                print(f"{number} {finding}".replace("\n", " "), file=file)
        number += 1
    (told / "at").write_text(f"{number} {taken}")
    return 0


def run(kinds: list[str], seed: int, seconds: float, most: int = sys.maxsize) -> list[str]:
    """Inputs of each kind for an equal share of the time. Returns what was found, a line each."""
    found = []
    for kind in kinds:
        end = time.monotonic() + seconds / len(kinds)
        with tempfile.TemporaryDirectory() as name:
            told, first, taken = Path(name), 0, 0
            while (left := end - time.monotonic()) > 0 and first < most:
                command = [sys.executable, "-m", "tests.fuzz", "--work", kind, str(seed), str(first), str(left),
                           str(most - first), name]  # fmt: skip
                try:
                    done = subprocess.run(command, stdout=subprocess.DEVNULL, timeout=left + 60, check=False)
                    code = done.returncode
                except subprocess.TimeoutExpired:
                    code = -9
                number, more = map(int, (told / "at").read_text().split()) if (told / "at").exists() else (first, 0)
                taken += more
                first = number
                if code == 0:
                    break
                found.append(f"{kind} --seed {seed} --number {number}: the process ended with {code}")
                first += 1
            if (told / "found").exists():
                rows = (line.partition(" ") for line in (told / "found").read_text().splitlines())
                found += [f"{kind} --seed {seed} --number {number}: {text}" for number, _, text in rows]
        print(f"{kind:12} {first:9,} inputs, {taken:9,} taken", flush=True)
    return found


def main(arguments: list[str] | None = None) -> int:
    """``python -m tests.fuzz --seconds 120 [--seed N] [--kind K] [--number N]``: 1 if anything was found."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["--work"]:
        kind, *numbers, told = given[1:]
        return work(kind, int(numbers[0]), int(numbers[1]), float(numbers[2]), int(numbers[3]), Path(told))
    from tests.fuzz.inputs import KINDS

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--inputs", type=int, default=sys.maxsize, help="of each kind, at most")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--number", type=int, help="only this input, which is kept in a folder that is printed")
    options = parser.parse_args(given)
    print(f"seed {options.seed}", flush=True)
    kinds = options.kind or list(KINDS)
    if options.number is not None:
        from tests.fuzz.judge import judge

        path = write_case(case_of(kinds[0], options.seed, options.number), Path(tempfile.mkdtemp()))
        print(path, "taken" if judge(path) else "refused")
        return 0
    found = run(kinds, options.seed, options.seconds, options.inputs)
    for line in found:
        print(f"FOUND {line}")
    return int(bool(found))
