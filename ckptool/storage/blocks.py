"""The bytes of a far file, fetched in as few requests as possible and kept until they are used.

Headers are read as they are asked for: what is missing is fetched with a margin, and kept. Values are announced: the
ranges that will be read are joined to segments, a read of any byte fetches its segment and the next ones ahead, and a
segment is let go when all that is wanted of it has been read.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

from ckptool.core.errors import CkptError, UnreadableError
from ckptool.storage.memory import Memory
from ckptool.storage.ranges import Segment, segments

Data = bytes | bytearray
Fetch = Callable[[int, int, bool], Data]
"""Gets the bytes from `start` to `stop`, exactly; the last argument says if they are values and not a header."""

FIRST = 128 << 10
"""Bytes fetched for the first read of a file: nearly every header is shorter."""

_MARGIN = 64 << 10
_AFTER = 4 << 10  # bytes behind what is asked for: a small record is often the next thing
_MOST_REQUESTS = 256
_MOST_BYTES = 64 << 20
_DECLARED = 256 << 20
_AHEAD = 5


@dataclass(slots=True)
class _Held:
    """A segment and its bytes, as far as they were fetched.

    Attributes:
        place: where it is.
        used_head: called when the beginning of the file, which was fetched ahead and is kept then, is read.
        is_spent: all that is wanted of it has been read at least once.
        future: the bytes; None before they are fetched and after they were let go.
        used: the parts that were read, in order, none of which touches the next.
    """

    place: Segment
    used_head: Callable[[], None] | None = None
    is_spent: bool = False
    future: Future[Data] | None = None
    used: list[tuple[int, int]] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        return self.place.stop - self.place.start

    @property
    def is_used(self) -> bool:
        """True if all that is wanted of it has been read."""
        return sum(stop - start for start, stop in self.used) >= self.place.wanted

    def use(self, start: int, stop: int) -> None:
        """Note a part that was read."""
        parts = [part for part in self.used if part[1] < start or part[0] > stop]
        touching = [part for part in self.used if part[1] >= start and part[0] <= stop]
        low = min([start, *(part[0] for part in touching)])
        high = max([stop, *(part[1] for part in touching)])
        insort(parts, (low, high))
        self.used = parts


@dataclass(slots=True)
class _Guard:
    """A check of a few bytes that is due before the bytes from `until` backwards to it are used."""

    start: int
    stop: int
    until: int
    check: Callable[[bytes], None]


class Blocks:
    """A file that is read by ranges; safe to use from several threads at once.

    Args:
        name: of the file, for messages.
        size: its bytes.
        fetch: gets a range.
        memory: what all files of a command may keep.

    Example:
        >>> data = bytes(range(256)) * 2000
        >>> asked = []
        >>> def fetch(start, stop, values):
        ...     asked.append((start, stop))
        ...     return data[start:stop]
        >>> blocks = Blocks("x", len(data), fetch, Memory())
        >>> blocks.read(0, 8) == data[:8], blocks.read(8, 1000) == data[8:1008], asked
        (True, True, [(0, 131072)])
        >>> blocks.announce([(200_000, 200_010), (300_000, 300_100)])
        >>> blocks.read(300_000, 100) == data[300_000:300_100], asked[1:]
        (True, [(200000, 300100)])
    """

    def __init__(self, name: str, size: int, fetch: Fetch, memory: Memory) -> None:
        self._name = name
        self._size = size
        self._fetch = fetch
        self._memory = memory
        self._lock = threading.RLock()
        self._gap_lock = threading.Lock()
        self._heads: list[tuple[int, Data]] = []
        self._held: list[_Held] = []
        self._guards: list[_Guard] = []
        self._requests = 0
        self._nbytes = 0
        self._declared = 0

    def put(self, start: int, data: Data) -> None:
        """Keep bytes that came by another way."""
        with self._lock:
            insort(self._heads, (start, data), key=lambda head: head[0])
        self._memory.keep_head(self, start, len(data))

    def forget_head(self, start: int) -> None:
        """Let a kept block go; it can be fetched again."""
        with self._lock:
            self._heads = [head for head in self._heads if head[0] != start]

    def read(self, offset: int, nbytes: int) -> bytes:
        """So many bytes from an offset on, all of them within the file."""
        buffer = bytearray(nbytes)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes from an offset on, all of them within the file."""
        self._pass_guards(offset, offset + len(buffer))
        done = 0
        while done < len(buffer):
            at = offset + done
            found = self._known(at, offset + len(buffer))
            if found is None:
                found = self._fill_gap(at, offset + len(buffer))
            buffer[done : done + len(found)] = found
            done += len(found)

    def announce(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Say which ranges will be read as values."""
        with self._lock:
            for segment in self.planned(ranges):
                self._add(segment)

    def planned(self, ranges: Iterable[tuple[int, int]]) -> list[Segment]:
        """What would be fetched for some ranges, beside what is here."""
        with self._lock:
            wanted = [part for each in ranges for part in self._without_heads(*each)]
            due = [(guard.start, guard.stop) for start, stop in wanted for guard in self._guards_of(start, stop)]
            return segments([*wanted, *dict.fromkeys(due)])

    def start_head(self, nbytes: int, used: Callable[[], None]) -> bool:
        """Fetch the first bytes ahead; False if they are here, or asked for already.

        Args:
            nbytes: how many.
            used: called when they are first read.
        """
        nbytes = min(nbytes, self._size)
        with self._lock:
            if not nbytes or self._heads or (self._held and self._held[0].place.start == 0):
                return False
            held = _Held(Segment(0, nbytes, nbytes), used_head=used)
            held.future = self._memory.workers.run(lambda: self._fetch_counted(0, nbytes, values=False))
            self._memory.take(self, held, nbytes)
            self._held.insert(0, held)
            return True

    def put_ahead(self, data: Data, used: Callable[[], None]) -> None:
        """Keep the first bytes of the file, which came by another way; `used` is called when they are first read."""
        held = _Held(Segment(0, len(data), len(data)), used_head=used, future=Future())
        assert held.future is not None
        held.future.set_result(data)
        with self._lock:
            self._memory.take(self, held, len(data))
            self._held.insert(0, held)

    def forget_values(self, held: object) -> None:
        """Let a segment go of which not all was read; it can be fetched again."""
        with self._lock:
            if isinstance(held, _Held) and held.future is not None and held.future.done() and held.used_head is None:
                self._let_go(held)

    def check_first(self, start: int, nbytes: int, until: int, check: Callable[[bytes], None]) -> None:
        """Have bytes checked before any byte between their end and `until` is handed out."""
        known = self._here(start, start + nbytes)
        if known is not None:
            check(known)
            return
        with self._lock:
            insort(self._guards, _Guard(start, start + nbytes, until, check), key=lambda guard: guard.start)

    # ------------------------------------------------------------------ what is here

    def _known(self, at: int, stop: int) -> memoryview | None:
        """The bytes from `at` on that are here or announced, at most up to `stop`; None if the first one is neither."""
        with self._lock:
            number = bisect_right(self._heads, at, key=lambda head: head[0]) - 1
            for start, data in self._heads[max(0, number) : number + 1]:
                if start <= at < start + len(data):
                    return memoryview(data)[at - start : stop - start]
            held = self._held_at(at)
            if held is None:
                return None
            future = self._future(held)
        data = self._result(held, future)
        self._memory.make_room()
        start = held.place.start
        part = memoryview(data)[at - start : stop - start]
        self._use(held, at, at + len(part), data)
        return part

    def _here(self, start: int, stop: int) -> bytes | None:
        """Bytes that need no request; None if some do."""
        with self._lock:
            for first, data in self._heads:
                if first <= start and stop <= first + len(data):
                    return bytes(data[start - first : stop - first])
        return None

    def _held_at(self, at: int) -> _Held | None:
        number = bisect_right(self._held, at, key=lambda held: held.place.start) - 1
        held = self._held[number] if number >= 0 else None
        return held if held is not None and at < held.place.stop else None

    def _without_heads(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The parts of a range that are not here."""
        parts = []
        at = start
        for first, data in self._heads:
            if first + len(data) <= at or first >= stop:
                continue
            if first > at:
                parts.append((at, first))
            at = max(at, first + len(data))
        if at < stop:
            parts.append((at, stop))
        return parts

    # ------------------------------------------------------------------ values

    def _add(self, segment: Segment) -> None:
        """A further segment, as far as no other one has its bytes."""
        at = segment.start
        for other in [
            held for held in self._held if held.place.stop > segment.start and held.place.start < segment.stop
        ]:
            if other.place.start > at:
                self._insert(at, other.place.start, segment)
            at = max(at, other.place.stop)
            if other.future is None and other.is_spent:
                other.is_spent = False
                other.used.clear()
        if at < segment.stop:
            self._insert(at, segment.stop, segment)

    def _insert(self, start: int, stop: int, whole: Segment) -> None:
        place = Segment(start, stop, min(stop - start, whole.wanted))
        insort(self._held, _Held(place), key=lambda held: held.place.start)

    def _future(self, held: _Held) -> Future[Data]:
        """The bytes of a segment, asked for now if they were not yet; the next ones are asked for ahead."""
        if held.future is None:
            self._start(held)
        number = self._held.index(held)
        for other in self._held[number + 1 : number + 1 + _AHEAD]:
            if other.future is None and not other.is_spent and self._memory.has_room(other.nbytes):
                self._start(other)
        assert held.future is not None
        return held.future

    def _start(self, held: _Held) -> None:
        start, stop = held.place.start, held.place.stop
        (self._memory.spend if held.is_spent else self._memory.take)(self, held, held.nbytes)
        held.future = self._memory.workers.run(lambda: self._fetch_counted(start, stop, values=True))

    def _result(self, held: _Held, future: Future[Data]) -> Data:
        try:
            return future.result()
        except BaseException:
            with self._lock:
                if held.future is future:
                    self._let_go(held)
            raise

    def _use(self, held: _Held, start: int, stop: int, data: Data) -> None:
        with self._lock:
            used_head, held.used_head = held.used_head, None
            if used_head is not None:
                self._held.remove(held)
                self._let_go(held)
            else:
                held.use(start, stop)
                if held.is_used and not held.is_spent and held.future is not None:
                    held.is_spent = True  # it may be read a second time soon
                    self._memory.spend(self, held, held.nbytes)
        if used_head is not None:
            self.put(0, data)
            used_head()

    def _let_go(self, held: _Held) -> None:
        held.future = None
        self._memory.give(held)

    # ------------------------------------------------------------------ headers

    def fetch_head(self, start: int, stop: int) -> None:
        """Fetch what is neither here nor announced of a part of a header, each gap at once; keep it."""
        while start < stop:
            found = self._known(start, stop)
            if found is None:
                found = self._fill_gap(start, stop, is_declared=True)
            start += len(found)

    def _fill_gap(self, at: int, stop: int, *, is_declared: bool = False) -> memoryview:
        """Fetch what is neither here nor announced from `at` on, with a margin; keep it."""
        with self._gap_lock:
            found = self._known(at, stop)
            if found is not None:
                return found
            with self._lock:
                end = max(stop + _AFTER, at + (FIRST if at == 0 else _MARGIN))
                after = [start for start, _ in self._heads if start > at]
                after += [held.place.start for held in self._held if held.place.start > at and not held.is_spent]
                end = min([end, self._size, *after])
            self._count(end - at, is_declared=is_declared)
            data = self._fetch(at, end, False)
            self.put(at, data)
            return memoryview(data)[: stop - at]

    def _fetch_counted(self, start: int, stop: int, *, values: bool) -> Data:
        if not values:
            self._count(stop - start)
        return self._fetch(start, stop, values)

    def _count(self, nbytes: int, *, is_declared: bool = False) -> None:
        """Hold what is fetched of headers within a budget; one whose length is stated has a larger one of its own."""
        with self._lock:
            self._requests += 1
            if is_declared:
                self._declared += nbytes
            elif nbytes <= _MOST_BYTES:
                self._nbytes += nbytes
        is_much = self._nbytes > _MOST_BYTES or self._declared > 2 * _DECLARED  # an index is read twice
        if self._requests > _MOST_REQUESTS or is_much or nbytes > _DECLARED:
            raise UnreadableError(
                f"the headers of {self._name} take more than {_MOST_REQUESTS} requests or {_MOST_BYTES >> 20} MiB",
                hint="download the file, then give its path",
            )

    # ------------------------------------------------------------------ checks that are due

    def _guards_of(self, start: int, stop: int) -> list[_Guard]:
        """The checks that are due before the bytes of a range are handed out."""
        number = bisect_left(self._guards, stop, key=lambda guard: guard.start) - 1
        found = []
        while number >= 0 and self._guards[number].until > start:
            found.append(self._guards[number])
            number -= 1
        return found

    def _pass_guards(self, start: int, stop: int) -> None:
        """Make the checks that are due before bytes are handed out."""
        with self._lock:
            due = self._guards_of(start, stop) if self._guards else []
            for guard in due:
                self._guards.remove(guard)
        for number, guard in enumerate(due):
            try:
                guard.check(self.read(guard.start, guard.stop - guard.start))
            except CkptError:
                with self._lock:
                    for each in due[number:]:
                        insort(self._guards, each, key=lambda one: one.start)
                raise
