"""Pickles as inert data: read them, write them back.

Every opcode of protocols 0 to 5 is understood. What a pickle would import, call, build or fill becomes the small
classes of `ckptool.formats.pickle.objects`; nothing is imported, called, hashed, compared or evaluated, and nothing is
allocated because the file says a number. The machine is in `machine` (stack, memo and the frequent opcodes) and
`opcodes` (the others), the way back in `dump` and `output`, the judgement of names in `globals`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import PurePath

from ckptool.core.bytes import ByteSource
from ckptool.core.checkpoint import GlobalUse
from ckptool.core.collector import collector_paused
from ckptool.core.errors import UnreadableError
from ckptool.formats.pickle.globals import merge_globals, risk_of
from ckptool.formats.pickle.machine import Machine, RefusedError
from ckptool.formats.pickle.skeleton import read_skeleton

__all__ = ["Loaded", "PickleError", "load", "load_from", "merge_globals", "risk_of"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """One pickle as inert data.

    Attributes:
        value: the object, made of plain Python values and the classes of `ckptool.formats.pickle.objects`.
        end: offset just after its STOP.
        protocol: what it says of itself; 0 if it says nothing (protocols 0 and 1).
        globals: the classes and functions it names, each once, in order of first appearance.
        faithful: False if `dump` might not say all that the stream did: a call's result was thrown away, or an object
            was filled in an order that no pickler writes.
        nbytes: its length, without arrays that were left in the file.
    """

    value: object
    end: int
    protocol: int
    globals: tuple[GlobalUse, ...]
    faithful: bool = True
    nbytes: int = 0


class PickleError(UnreadableError):
    """A malformed pickle; `globals` is what it had named until then."""

    globals: tuple[GlobalUse, ...] = ()


# what the machine raises: in words already, for damage, at the end of the data, for a spent budget
_STUMBLES = (RefusedError, IndexError, KeyError, ValueError, EOFError, struct.error, StopIteration, MemoryError)


def load(data: bytes | memoryview, start: int = 0, *, path: PurePath | None = None) -> Loaded:
    """Read one pickle, running nothing.

    Time and memory follow from the length of the stream. An integer never has more than 4300 digits, so that it can
    be printed.

    Args:
        data: bytes that hold the pickle; more may follow it.
        start: where it begins.
        path: the file, for error messages.

    Raises:
        PickleError: an `UnreadableError`; the stream is cut short, malformed, or far denser than any pickler writes.

    Example:
        >>> loaded = load(b"cposix\\nsystem\\n(S'rm -rf /'\\ntR.")
        >>> loaded.value, loaded.value.args
        (<Call>, ('rm -rf /',))
        >>> loaded.globals
        (GlobalUse(name='posix.system', risk='dangerous', calls=1, arguments=1),)
    """
    return _run(Machine(memoryview(data).cast("B") if isinstance(data, memoryview) else data, start), start, path)


def load_from(source: ByteSource, start: int, end: int) -> Loaded:
    """Read one pickle from a file, and leave the bytes of numpy arrays there (`Payload`).

    Args:
        source: the file.
        start: where the pickle begins.
        end: where it must end.

    Raises:
        UnreadableError: as `load`; or the pickle is too large, arrays apart.
    """
    with source.open() as file:
        skeleton = read_skeleton(source, file, start, end)
    return _run(Machine(bytes(skeleton.data), 0, skeleton), start, source.path)


def _run(machine: Machine, start: int, path: PurePath | None) -> Loaded:
    """What the machine makes of its pickle."""
    begin = machine.pos
    try:
        with collector_paused():
            value = machine.run()
    except _STUMBLES as error:
        bad = _explain(error, machine, start, path)
    else:
        return Loaded(
            value, _place(machine, machine.pos), machine.protocol, machine.uses(), machine.faithful, machine.pos - begin
        )
    bad.globals = machine.uses()
    raise bad


def _explain(error: Exception, machine: Machine, start: int, path: PurePath | None) -> PickleError:
    """What the machine stumbled over, in words."""
    what = f"the pickle at byte {start}" if start else "the pickle"
    hint: str | None = "the file is damaged or was made by hand; get it again from where it came from"
    if isinstance(error, RefusedError):
        message = f"{what} {error}"
    elif isinstance(error, StopIteration):
        message = f"{what} holds more objects than a file of its size can mean"
    elif isinstance(error, MemoryError):
        message, hint = f"{what} needs more memory than there is", None
    elif isinstance(error, EOFError | struct.error) or machine.pos >= len(machine.data):
        message, hint = f"{what} ends before it is complete", "the file was cut short; get it again"
    else:
        message = f"{what} is damaged at byte {_place(machine, machine.pos - 1)}"
    return PickleError(message, hint=hint, path=path)


def _place(machine: Machine, at: int) -> int:
    """A place in the machine's data as a place in the file, or in the bytes that hold the pickle."""
    return at if machine.skeleton is None else machine.skeleton.start + machine.skeleton.offset(at)
