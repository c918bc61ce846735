"""What the far files of one command may keep in memory, and the threads that fetch for them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Protocol

from ckptool.storage.workers import Workers

HEADS = 64 << 20
"""Bytes of headers that are kept."""
AHEAD = 64 << 20
"""Bytes of values that are held while more are fetched ahead."""
VALUES = 384 << 20
"""Bytes of values from which on those are let go that were not read whole."""
SPENT = 40 << 20
"""Bytes of values that are kept after they were read: statistics read a tensor twice."""


class Keeper(Protocol):
    """What keeps bytes, and can be told to let them go."""

    def forget_head(self, start: int) -> None: ...

    def forget_values(self, held: object) -> None: ...


class Memory:
    """Counts what is kept. Values that somebody waits for are always fetched; what is fetched ahead has a limit.

    Args:
        threads: how many fetch at the same time.
    """

    def __init__(self, threads: int = 8) -> None:
        self.workers = Workers(threads)
        self._lock = threading.Lock()
        self._heads: OrderedDict[tuple[int, int], tuple[Keeper, int]] = OrderedDict()
        self._head_bytes = 0
        self._values: OrderedDict[int, tuple[Keeper, object, int]] = OrderedDict()
        self._value_bytes = 0
        self._spent: OrderedDict[int, tuple[Keeper, object, int]] = OrderedDict()
        self._spent_bytes = 0

    def keep_head(self, keeper: Keeper, start: int, nbytes: int) -> None:
        """Note a block of a header; where there are too many, the oldest ones of other files are let go.

        One file's header may be longer than what is kept: it is read while all of it is here.
        """
        forgotten = []
        with self._lock:
            self._heads[id(keeper), start] = (keeper, nbytes)
            self._head_bytes += nbytes
            if self._head_bytes > HEADS:
                for (which, at), (other, size) in list(self._heads.items()):
                    if self._head_bytes > HEADS and which != id(keeper):
                        del self._heads[which, at]
                        self._head_bytes -= size
                        forgotten.append((other, at))
        for other, at in forgotten:
            other.forget_head(at)

    def has_room(self, nbytes: int) -> bool:
        """True if so many bytes may be fetched ahead."""
        return self._value_bytes + nbytes <= AHEAD

    def take(self, keeper: Keeper, held: object, nbytes: int) -> None:
        """Note values that are being fetched."""
        with self._lock:
            self._values[id(held)] = (keeper, held, nbytes)
            self._value_bytes += nbytes

    def spend(self, keeper: Keeper, held: object, nbytes: int) -> None:
        """Note values that were read, or are read again."""
        self.give(held)
        with self._lock:
            self._spent[id(held)] = (keeper, held, nbytes)
            self._spent_bytes += nbytes

    def give(self, held: object) -> None:
        """Note values that were let go."""
        with self._lock:
            _, _, nbytes = self._values.pop(id(held), (None, None, 0))
            self._value_bytes -= nbytes
            _, _, nbytes = self._spent.pop(id(held), (None, None, 0))
            self._spent_bytes -= nbytes

    def make_room(self) -> None:
        """Let the oldest values go where too many are held. Whoever calls this holds no lock."""
        if self._value_bytes <= VALUES and self._spent_bytes <= SPENT:
            return
        with self._lock:
            oldest = [
                *_oldest(self._values, self._value_bytes - VALUES),
                *_oldest(self._spent, self._spent_bytes - SPENT),
            ]
        for keeper, held in oldest:
            keeper.forget_values(held)


def _oldest(kept: OrderedDict[int, tuple[Keeper, object, int]], over: int) -> Iterator[tuple[Keeper, object]]:
    """The first of what is kept, so many bytes of it."""
    for keeper, held, nbytes in kept.values():
        if over <= 0:
            return
        yield keeper, held
        over -= nbytes
