"""``re:`` patterns: Python's regexes, whose worst case has no bound, under a limit of two seconds for the whole run.

Nothing stops a regex that has begun, neither a thread nor a signal that comes in another thread. So one whose cost can
be bounded from its text and the keys runs here, and any other runs in a process of its own, which can be stopped.
"""

from __future__ import annotations

import atexit
import json
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Iterable
from threading import Lock, Timer

from ckptool.core.errors import UsageError

SECONDS = 2.0  # for all regexes of a run
_REGAINED = 0.05  # of them for each second that passes, for a notebook that stays open
_CHEAP = 10_000_000  # steps: less than the process takes to start, ten times over
_MAX_TEXT = 2000  # characters
_UNBOUNDED = re.compile(r"\)[*+?{]|\(\?|\\[1-9]")  # a repeated group, an extension, a backreference

_PROGRAM = """\
import json, re, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
except (ImportError, OSError, ValueError):
    pass
for line in sys.stdin:
    pattern, keys = json.loads(line)
    match = re.compile(pattern, re.DOTALL).fullmatch
    print(json.dumps([at for at, key in enumerate(keys) if match(key)]), flush=True)
"""


class Regex:
    """A regex on whole keys.

    Raises:
        UsageError: it is too long; later, where it takes more time than all regexes may.
        re.error: it is malformed.

    Example:
        >>> Regex("(a+)+b").select(["aab", "aa"])
        ['aab']
    """

    def __init__(self, text: str) -> None:
        if len(text) > _MAX_TEXT:
            raise UsageError(f"a regex of {len(text):,} characters is too long", hint="use several patterns")
        self.text = text
        with warnings.catch_warnings(action="ignore"):  # "possible nested set" and the like
            self.compiled = re.compile(text, re.DOTALL)

    def select(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys that it matches, in their order."""
        keys = list(keys)
        if self.costs_little(keys):
            return [key for key in keys if self.compiled.fullmatch(key)]
        return [keys[at] for at in PROCESS.ask(self.text, keys)]

    def costs_little(self, keys: list[str]) -> bool:
        """True if matching these keys never takes more than `_CHEAP` steps; an upper bound."""
        if _UNBOUNDED.search(self.text):
            return False
        repeats = sum(map(self.text.count, "*+{"))
        ways = 2.0 ** sum(map(self.text.count, "?|"))
        cost = 0.0
        for key in keys:
            cost += ways * float(len(key) + 1) ** min(repeats + 1, 40)
            if cost > _CHEAP:
                return False
        return True


class Process:
    """Runs regexes until their time is up."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self.spent = 0.0
        self.last = time.monotonic()

    def ask(self, pattern: str, keys: list[str]) -> list[int]:
        """The places of the keys that match."""
        question = json.dumps([pattern, keys]).encode() + b"\n"
        with self.lock:
            process = self.started()
            assert process.stdin is not None and process.stdout is not None
            self.spent = max(0.0, self.spent - _REGAINED * (time.monotonic() - self.last))
            stop = Timer(max(SECONDS - self.spent, 0.01), process.kill)
            stop.daemon = True
            begun = time.monotonic()
            stop.start()
            try:
                process.stdin.write(question)
                process.stdin.flush()
                answer = process.stdout.readline()
            except BrokenPipeError:
                answer = b""
            finally:
                stop.cancel()
                self.last = time.monotonic()
                self.spent += self.last - begun
            if not answer.endswith(b"\n"):
                self.end()
                raise UsageError(
                    f'the regex "{pattern[:80]}" takes more than {SECONDS:g} seconds on these keys',
                    hint="write a glob, or a regex without a repeat inside a repeat",
                )
        found: list[int] = json.loads(answer)
        return found

    def started(self) -> subprocess.Popen[bytes]:
        if self.process is None or self.process.poll() is not None:
            atexit.register(self.end)
            command = [sys.executable, "-I", "-S", "-c", _PROGRAM]
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        return self.process

    def end(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.communicate()
            atexit.unregister(self.end)
        self.process = None


PROCESS = Process()
