from __future__ import annotations

from collections.abc import Iterable, Iterator

from ckptool.commands.checks.case import Found
from ckptool.commands.checks.settings import Allow


def unused(entries: Iterable[Allow]) -> Iterator[Found]:
    """An allow-list excuses something that does not occur.

    Found: entries of `allow` that no finding needed, although their rule ran on a file that they are for.

    Why: an exception that is no longer needed hides the next fault that fits it, and a misspelled one never helped.

    What to do: remove the entry, or correct its pattern.

    Policy: it always runs, and warns.

        levels.policy = "error"
    """
    for entry in entries:
        yield Found(
            f'allow.{entry.list} "{entry.pattern.text}" excuses nothing',
            help="remove it, or correct its pattern",
            place=entry.place,
        )
