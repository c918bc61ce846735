"""Where the installed command begins: from the first line on, Ctrl-C ends it with one line and exit code 130.

It stands beside the package, since whatever is inside would be imported after the package itself, and it imports what
Python has loaded already. Only the console script imports it: it takes Ctrl-C away from whoever does. What happens
before (Python itself starts, its site packages are found) is Python's, as is all of ``python -m ckptool`` up to there.
"""

import os
from _signal import SIG_IGN, SIGINT, getsignal, signal  # type: ignore[import-not-found]


def _leave(*_: object) -> None:
    os.write(2, b"interrupted; nothing written\n")
    os._exit(130)


if getsignal(SIGINT) != SIG_IGN:  # ignored in a background job: it stays ignored
    signal(SIGINT, _leave)


def main() -> None:
    """Runs the command line and exits with its code."""
    from ckptool.__main__ import main

    main()
