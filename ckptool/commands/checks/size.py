from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ckptool.commands.checks import Rule
from ckptool.commands.checks.case import Case, Found
from ckptool.commands.checks.settings import At, Key, PolicyReader
from ckptool.core.errors import CkptError
from ckptool.core.sizes import parse_size
from ckptool.facts.headers import amount


def _size(reader: PolicyReader, value: Any, at: At) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = reader.text(value, at)
    try:
        return parse_size(text)
    except CkptError as error:
        reader.refuse(error.message, at, error.hint or "")


MAX_SIZE: Key[int] = Key("max-size", _size)
RULE = Rule("size", needs=(MAX_SIZE,), order=110)


def size(case: Case) -> Iterator[Found]:
    """The file is larger on disk than it may be.

    Found: checkpoints whose files together have more bytes than `max-size`. The help says what takes the room.

    Why: repositories, registries and edge devices have limits, and an optimizer state or a float64 slips in easily.

    What to do: ckptool filter FILE --only-weights leaves out what is not weights, --dtype bf16 halves them.

    Policy: it runs where `max-size` is set. MB are 10^6 bytes, MiB are 2^20.

        max-size = "50MB"
    """
    setting = case.settings.get(MAX_SIZE)
    if setting is None or case.checkpoint.nbytes <= setting.value:
        return
    weights = sum(tensor.nbytes for tensor in case.checkpoint.values())
    beside = sum(extra.nbytes for extra in case.checkpoint.extras)
    yield Found(
        f"{amount(case.checkpoint.nbytes)} on disk, more than {amount(setting.value)}",
        details=(f"weights {amount(weights)}", *([f"beside them {amount(beside)}"] if beside else [])),
        help=f"ckptool filter {case.word} {'--only-weights' if beside else '--dtype bf16'} -o OUT",
        place=setting.place,
        short=amount(case.checkpoint.nbytes),
    )
