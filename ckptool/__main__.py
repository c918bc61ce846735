"""The ``ckptool`` command."""

from __future__ import annotations

import gc
import sys

from ckptool.storage.process import interrupts_end, interrupts_raise, prepare_process


def main() -> None:
    """Runs the command line and exits with its code."""
    prepare_process()
    # A header of 100,000 keys makes millions of objects and no garbage: looking for it doubles the time.
    gc.set_threshold(200_000, 20, 100)
    from ckptool.cli.app import run

    interrupts_raise()
    code = run(sys.argv[1:])
    gc.freeze()  # all of it ends with the process; to look through it first takes a tenth of a short command
    interrupts_end()
    sys.exit(code)


if __name__ == "__main__":
    main()
