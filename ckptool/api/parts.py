"""What one of several processes reads, and what all of them found."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ckptool.api.options import ReadOptions, known_options, share_of
from ckptool.core.errors import UsageError
from ckptool.storage.paths import is_address, local_path

_Result = TypeVar("_Result")


def in_parts(compute: Callable[[], _Result], options: ReadOptions) -> _Result | None:
    """The result of a call that reads values, or None where other processes have still to read their part.

    Args:
        compute: the call; it says once what is asked (`ckptool.values.shared.agree`).
        options: which part this is, and the folder in which the processes meet.

    Raises:
        UsageError: one is given without the other, or there is no such part.
        OutputError: the folder holds something else, or another process asks for something else.
    """
    given = known_options(options, ReadOptions)
    part, work = given.get("part"), given.get("work")
    if part is None and work is None:
        return compute()
    if part is None:
        raise UsageError("work= is where several processes meet", hint="part=(2, 8) says which of them this is")
    if work is None:
        raise UsageError("part= needs a folder in which the processes meet", hint='work="DIR", which all of them see')
    if is_address(work):
        raise UsageError(f"work={str(work)!r} is no folder of a file system", hint='work="DIR", which all of them see')
    from ckptool.values.shared import Waiting, in_shares

    found = in_shares(compute, share_of(part), local_path(work))
    return None if isinstance(found, Waiting) else found
