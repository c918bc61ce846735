"""The machine that reads a pickle: stack, memo, budgets, and the opcodes that make up 95 % of a checkpoint.

How long it may take and how much it may hold follows from the length of the stream: each length is compared with the
bytes left, the memo grows by what is put into it, and three budgets (opcodes, small objects, big objects) end streams
that hold far more objects per byte than any pickler writes; no stream may have more than `MAX_OPCODES` or make more
than `MAX_OBJECTS`. Damage shows as `IndexError`, `KeyError`, `ValueError`,
`EOFError`, `struct.error`, a spent budget as `StopIteration`; `loading.load` puts them into words.
"""

from __future__ import annotations

import struct

from ckptool.formats.pickle.objects import Call, Persistent
from ckptool.formats.pickle.opcodes import RARE
from ckptool.formats.pickle.state import MAX_OPCODES, NO_EDGE, RefusedError, State
from ckptool.formats.pickle.tensors import own_text, plain_tensor

__all__ = ["Machine", "RefusedError"]

_u16 = struct.Struct("<H").unpack_from
_i32 = struct.Struct("<i").unpack_from
_u32 = struct.Struct("<I").unpack_from


class Machine(State):
    """Reads one pickle; see `State`."""

    def run(self) -> object:
        """Run to STOP and return the value; the frequent opcodes stand here, most frequent first."""
        data, pos = self.data, self.pos
        stack, outer, memo, far = self.stack, self.outer, self.memo, self.far
        calls, small, big, edge = self.calls, self.small, self.big, NO_EDGE
        try:
            for opcodes in self.slices():
                for _ in opcodes:
                    if pos >= edge:
                        edge = self.leave_frame(pos)
                    op = data[pos]
                    pos += 1
                    if op == 0x72:  # LONG_BINPUT
                        at = _u32(data, pos)[0]
                        pos += 4
                        if at == len(memo) and not far:
                            memo.append(stack[-1])
                        else:
                            self.put(at, stack[-1])
                    elif op == 0x4B:  # BININT1
                        stack.append(data[pos])
                        pos += 1
                    elif op == 0x68:  # BINGET
                        at = data[pos]
                        pos += 1
                        stack.append(memo[at] if at < len(memo) else far[at])
                    elif op == 0x28:  # MARK
                        if data[pos] == 0x28 and stack and edge == NO_EDGE and not far:
                            found = plain_tensor(data, pos - 1, stack[-1], memo)
                            if found is not None:
                                stack[-1], pos = found
                                self.tensors += 1
                                continue
                        small()
                        outer.append(stack)
                        stack = []
                    elif op == 0x74:  # TUPLE
                        values = tuple(stack)
                        self.large += 8 * len(values)
                        stack = outer.pop()
                        stack.append(values)
                    elif op == 0x58:  # BINUNICODE
                        small()
                        end = pos + 4 + _u32(data, pos)[0]
                        text = self.text(pos + 4, end)
                        stack.append(text if len(text) != 1 else own_text(text))
                        pos = end
                    elif op == 0x6A:  # LONG_BINGET
                        at = _u32(data, pos)[0]
                        pos += 4
                        stack.append(memo[at] if at < len(memo) else far[at])
                    elif op == 0x71:  # BINPUT
                        self.put(data[pos], stack[-1])
                        pos += 1
                    elif op == 0x94:  # MEMOIZE
                        if far:
                            self.put(len(memo) + len(far), stack[-1])
                        else:
                            memo.append(stack[-1])
                    elif op == 0x86:  # TUPLE2
                        small()
                        last = stack.pop()
                        stack[-1] = (stack[-1], last)
                    elif op == 0x52:  # REDUCE
                        big()
                        args = stack.pop()
                        stack[-1] = call = Call("reduce", stack[-1], args)
                        calls.append(call)
                    elif op == 0x29:  # EMPTY_TUPLE
                        stack.append(())
                    elif op == 0x4A:  # BININT
                        stack.append(_i32(data, pos)[0])
                        pos += 4
                    elif op == 0x51:  # BINPERSID
                        small()
                        stack[-1] = Persistent(stack[-1])
                    elif op == 0x89:  # NEWFALSE
                        stack.append(False)
                    elif op == 0x4D:  # BININT2
                        stack.append(_u16(data, pos)[0])
                        pos += 2
                    elif op == 0x85:  # TUPLE1
                        small()
                        stack[-1] = (stack[-1],)
                    elif op == 0x8C:  # SHORT_BINUNICODE
                        small()
                        end = pos + 1 + data[pos]
                        text = self.text(pos + 1, end)
                        stack.append(text if len(text) != 1 else own_text(text))
                        pos = end
                    elif op == 0x2E:  # STOP
                        value = stack.pop()
                        if edge != NO_EDGE:
                            self.leave_frame(pos)
                        self.faithful &= not stack and not outer
                        self.measure()
                        return value
                    else:
                        self.pos, self.stack = pos, stack
                        RARE[op](self)
                        pos, stack, edge = self.pos, self.stack, self.edge
                self.stack = stack  # it is measured between two slices
            if self.opcodes == MAX_OPCODES:
                raise RefusedError(f"has more than {MAX_OPCODES:,} opcodes, the most that are read")
            raise StopIteration
        finally:
            self.pos = pos

    # --- what the rare opcodes are made of
