"""Interleaved measurements: which of several contenders is faster, by what factor, in how much memory.

A machine's speed drifts by a factor of two between minutes, so contenders are never timed one after the other: in every
round each one runs once, in alternating order, and what is reported is a ratio to a baseline of the same rounds.
Files are in the page cache unless `before` evicts them (`evict`).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

Contender = Callable[[], object] | Sequence[str]

_MEASURE = Path(__file__).with_name("measure.py")


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run of a command.

    Attributes:
        code: its exit code.
        seconds: wall time from spawn to exit.
        cpu: seconds that its threads ran: what it took, whatever else the machine did.
        peak_rss: highest resident memory, bytes; pages of mapped files count.
        peak_private: highest anonymous memory, bytes; 0 unless it was asked for.
        output: what it printed, stdout and then stderr.
    """

    code: int
    seconds: float
    cpu: float
    peak_rss: int
    peak_private: int
    output: str


@dataclass(frozen=True, slots=True)
class Result:
    """A contender over all rounds: seconds, and bytes (None for a function, which has no process of its own)."""

    best: float
    median: float
    peak_rss: int | None = None
    peak_private: int | None = None


def ckptool(*arguments: str | Path) -> list[str]:
    """The command line of this checkout's ckptool: the installed script, as a user starts it."""
    script = Path(sys.executable).with_name("ckptool")
    start = [str(script)] if script.exists() else [sys.executable, "-m", "ckptool"]
    return [*start, *map(str, arguments)]


def script(code: str, *arguments: str | Path) -> list[str]:
    """A contender that is a few lines of Python, in a process of its own; `sys.argv[1:]` are the arguments."""
    return [sys.executable, "-c", code, *map(str, arguments)]


def measure(
    command: Sequence[str], *, poll: bool = False, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Measurement:
    """Run one command and measure it (see `measure.py` for what the numbers mean).

    Example:
        >>> run = measure([sys.executable, "-c", "print(1 + 1)"])
        >>> run.code, run.output
        (0, '2\\n')
    """
    launcher = [sys.executable, "-I", "-S", str(_MEASURE), *(["--poll"] if poll else []), *command]
    done = subprocess.run(
        launcher, capture_output=True, encoding="utf-8", errors="replace", env=env, cwd=cwd, check=False
    )
    said, mark, numbers = done.stderr.rpartition("\nmeasured ")
    if not mark:
        raise RuntimeError(f"could not run {command}:\n{done.stderr}")
    code, seconds, cpu, rss, private = numbers.split()
    return Measurement(int(code), float(seconds), float(cpu), int(rss), int(private), done.stdout + said)


def run_interleaved(
    contenders: Mapping[str, Contender],
    rounds: int = 5,
    *,
    codes: tuple[int, ...] = (0,),
    before: Callable[[], object] | None = None,
) -> dict[str, Result]:
    """Time all contenders, `rounds` times each, turn and turn about; then measure each command's memory once.

    Args:
        contenders: a function, called here, or a command line, run in a process of its own.
        rounds: how often each one runs.
        codes: the exit codes that count as having worked (`diff` ends with 1 if the files differ).
        before: called before every run, outside the clock.

    Raises:
        RuntimeError: a command ended with another exit code; a wrong answer must not win the race.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    rss: dict[str, int] = {}
    names = list(contenders)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            if before is not None:
                before()
            contender = contenders[name]
            if callable(contender):
                start = time.perf_counter()
                contender()
                seconds[name].append(time.perf_counter() - start)
            else:
                run = _checked(name, contender, codes)
                seconds[name].append(run.seconds)
                rss[name] = max(rss.get(name, 0), run.peak_rss)
    private: dict[str, int] = {}
    for name, contender in contenders.items():
        if not callable(contender):
            if before is not None:
                before()
            private[name] = _checked(name, contender, codes, poll=True).peak_private
    return {
        name: Result(min(times), statistics.median(times), rss.get(name), private.get(name))
        for name, times in seconds.items()
    }


def _checked(name: str, command: Sequence[str], codes: tuple[int, ...], poll: bool = False) -> Measurement:
    run = measure(command, poll=poll)
    if run.code not in codes:
        raise RuntimeError(f"{name} ended with exit code {run.code}:\n{run.output[-2000:]}")
    return run


def table(title: str, results: Mapping[str, Result], baseline: str) -> str:
    """The results as lines of text; `ratio` is a contender's best time over the baseline's.

    Example:
        >>> print(table("count", {"loop": Result(2.0, 2.2), "sum": Result(0.5, 0.5)}, baseline="loop"))
        count
          contender     best   median   ratio  peak RSS  private
          loop       2.000 s  2.200 s    1.00         -        -
          sum        0.500 s  0.500 s    0.25         -        -
    """
    unit = results[baseline].best
    wide = max(9, *map(len, results))
    lines = [title, f"  {'contender':<{wide}}     best   median   ratio  peak RSS  private"]
    for name, result in results.items():
        memory = f"{_mb(result.peak_rss):>8}  {_mb(result.peak_private):>7}"
        times = f"{result.best:5.3f} s  {result.median:5.3f} s  {result.best / unit:6.2f}"
        lines.append(f"  {name:<{wide}}  {times}  {memory}")
    return "\n".join(lines)


def _mb(nbytes: int | None) -> str:
    return "-" if nbytes is None else f"{nbytes / 1e6:.0f} MB"


def report(title: str, results: Mapping[str, Result], baseline: str) -> None:
    """Print the table; with CKPTOOL_BENCH_JSON set, append the numbers to that file as one line of JSON."""
    print(table(title, results, baseline), flush=True)
    if log := os.environ.get("CKPTOOL_BENCH_JSON"):
        numbers = {name: asdict(result) for name, result in results.items()}
        with Path(log).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"title": title, "baseline": baseline, "results": numbers}) + "\n")


def evict(*paths: Path) -> None:
    """Drop files from the page cache, for a cold run; the kernel keeps pages that somebody has mapped."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # dirty pages cannot be dropped
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


@contextmanager
def bench_folder() -> Iterator[Path]:
    """A folder for big files, deleted afterwards: inside CKPTOOL_BENCH_DIR, or the system's temporary folder."""
    parent = os.environ.get("CKPTOOL_BENCH_DIR")
    with tempfile.TemporaryDirectory(prefix="ckptool-bench-", dir=parent) as name:
        yield Path(name)
