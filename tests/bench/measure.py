"""Run one command and print its time and peak memory: ``python -I -S measure.py [--poll] COMMAND...``

A process of its own, and small, because a child's `ru_maxrss` starts at the memory of the process that forked it:
started from a test run that has imported torch, every command would seem to need 300 MB.

The last line of stderr is ``measured <exit code> <seconds> <CPU seconds> <peak RSS bytes> <peak private bytes>``.
Private memory is `RssAnon`, sampled every 2 ms, so pages of a mapped file do not count; without --poll it is 0, and
nothing disturbs the clock.
"""

from __future__ import annotations

import os
import sys
import time


def anonymous(pid: int) -> int:
    """Bytes of anonymous memory that a process holds now; 0 once it has ended."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:  # noqa: PTH123 (pathlib would cost this process 5 MB)
            for line in file:
                if line.startswith(b"RssAnon:"):
                    return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0


def main(arguments: list[str]) -> int:
    poll = arguments[0] == "--poll"
    command = arguments[poll:]
    private = 0
    start = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, os.environ)
    ended = 0
    while poll and not ended:
        private = max(private, anonymous(pid))
        time.sleep(0.002)
        ended, status, usage = os.wait4(pid, os.WNOHANG)
    if not poll:
        _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - start
    code = os.waitstatus_to_exitcode(status)
    cpu = usage.ru_utime + usage.ru_stime
    print(f"\nmeasured {code} {seconds:.6f} {cpu:.6f} {usage.ru_maxrss * 1024} {private}", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
