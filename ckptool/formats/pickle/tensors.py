"""Plain tensors, read in one step each.

A state dict is one short run of about thirty opcodes again and again: what `torch.save` writes for a dense tensor
without attributes or hooks, ``_rebuild_tensor_v2((storage, offset, size, stride, requires_grad, OrderedDict()))``.
A regular expression recognises that run, and the objects are then made exactly as the opcodes would make them. It
must be proven on the stream first: each byte of the run is matched, the memo numbers are the next ones, and what is
fetched from the memo is what torch has put there. Anything else is left to the opcodes.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from ckptool.formats.pickle.objects import Call, Global, Persistent

REBUILD = ("torch._utils", "_rebuild_tensor_v2")
HOOKS = ("collections", "OrderedDict")
_STORAGE = "storage"

_NUMBER = rb"(?:K.|M..|J.{4})"
_GET = rb"(h.|j.{4})"
_PUT = rb"r(.{4})"
_SIZES = rb"(?:\)|(N\x85|NN\x86|NNN\x87|\(N{4,64}t)PUT)"
_RUN = (
    rb"\(\(GETGET(?:X(.)\0\0\0([0-9]{1,18})PUT|GET)GET(N)tPUTQ"  # ("storage", class, name, location, elements)
    rb"(N)SIZESSIZES([\x88\x89])GET\)RPUTtPUTRPUT"  # offset, size, stride, requires_grad, hooks
)
for _name, _part in ((b"SIZES", _SIZES), (b"GET", _GET), (b"PUT", _PUT), (b"N", _NUMBER)):
    _RUN = _RUN.replace(_name, _part)
_match = re.compile(_RUN, re.DOTALL).match
_PUTS = tuple(struct.Struct(f"<{count}I").pack for count in range(8))


class Found(NamedTuple):
    """A tensor, and where its run ends."""

    call: Call
    end: int


def plain_tensor(data: bytes | memoryview, pos: int, rebuild: object, memo: list[object]) -> Found | None:
    """The tensor whose run begins at `pos`; None if there is no such run.

    Args:
        data: the pickle.
        pos: where two MARKs stand.
        rebuild: what the run calls: the top of the stack.
        memo: gets what the run puts there.
    """
    if type(rebuild) is not Global or (rebuild.module, rebuild.name) != REBUILD:
        return None
    match = _match(data, pos)
    if match is None:
        return None
    (get_word, get_class, length, digits, put_name, get_name, get_place, count, put_pid, start, size, put_size, stride,
     put_stride, grad, get_hooks, put_hooks, put_args, put_call) = match.groups()  # fmt: skip
    puts = [put for put in (put_name, put_pid, put_size, put_stride, put_hooks, put_args, put_call) if put is not None]
    if b"".join(puts) != _PUTS[len(puts)](*range(len(memo), len(memo) + len(puts))):
        return None
    word, cls, place, ordered = (_fetched(get, memo) for get in (get_word, get_class, get_place, get_hooks))
    name = _fetched(get_name, memo) if digits is None else own_text(str(digits, "ascii"))
    if digits is not None and length[0] != len(digits):
        return None
    if not (word == _STORAGE and type(cls) is Global and type(name) is str and type(place) is str):
        return None
    if type(ordered) is not Global or (ordered.module, ordered.name) != HOOKS:
        return None
    pid = (word, cls, name, place, _numbers(count)[0])
    sizes, strides, hooks = _sizes(size), _sizes(stride), Call("reduce", ordered, ())
    args = (Persistent(pid), _numbers(start)[0], sizes, strides, grad == b"\x88", hooks)
    call = Call("reduce", rebuild, args)
    call.is_plain = True
    if digits is not None:
        memo.append(name)
    memo += (pid, *filter(None, (sizes, strides)), hooks, args, call)  # an empty tuple is never remembered
    return Found(call, match.end())


def plain_storage(call: Call) -> Persistent | None:
    """The storage of a tensor that is as plain as it was read; None for any other object."""
    if not call.is_plain or type(call.args) is not tuple:
        return None
    storage, hooks = call.args[0], call.args[5]
    if type(storage) is not Persistent or type(hooks) is not Call:
        return None
    return None if hooks.items or hooks.states or hooks.appended else storage


def own_text(text: str) -> str:
    """An object of its own for a string of one character.

    CPython keeps one object for each of them, but not for what `str(0)` returns, so a file can hold "0" as one object
    or as several; which, is to be written again. This relies on a detail of `str.replace`; where another Python does
    otherwise, the objects become one, and nothing but the bytes of the pickle changes.
    """
    return "\0".replace("\0", text) if len(text) == 1 else text


def _fetched(get: bytes, memo: list[object]) -> object:
    """What BINGET or LONG_BINGET fetches; None if there is nothing yet."""
    at = get[1] if len(get) == 2 else int.from_bytes(get[1:], "little")
    return memo[at] if at < len(memo) else None


def _numbers(run: bytes) -> list[int]:
    """The numbers of a run of BININT1, BININT2 and BININT."""
    found = []
    at = 0
    while at < len(run):
        kind = run[at]
        if kind == 0x4B:
            found.append(run[at + 1])
            at += 2
        elif kind == 0x4D:
            found.append(run[at + 1] | run[at + 2] << 8)
            at += 3
        else:
            found.append(int.from_bytes(run[at + 1 : at + 5], "little", signed=True))
            at += 5
    return found


def _sizes(run: bytes | None) -> tuple[int, ...]:
    """The numbers before the opcode that makes a tuple of them; without a run the empty tuple."""
    if run is None:
        return ()
    return tuple(_numbers(run[1:-1] if run[0] == 0x28 else run[:-1]))
