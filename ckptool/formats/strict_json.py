"""JSON that a stranger wrote, read piece by piece: safetensors headers and shard indexes.

Such a text may have 100 MB, and may unfold to gigabytes of nested lists. So it is never parsed or held as a whole: the
caller walks the members of the outermost object and says what it expects of each; anything else is refused before it is
built. Every pattern is possessive, hence linear in the text.

JSON is read by the letter: no NaN, no `-0` for a natural number, no half surrogate pair; and no key twice in one
object, because two readers could take two different ones (the caller of `members` and `pairs` sees to that).
"""

from __future__ import annotations

import json
import re
from codecs import utf_8_decode
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import NoReturn, TypeAlias

MAX_STRINGS = 1_500_000  # entries of one object of strings
MAX_SMALL = 1 << 16  # bytes of any other value
_MANY_VALUES = 10_000  # different strings of one object that are remembered
_WINDOWS = (1 << 20, 2 << 20)  # bytes of a text that are read first, and at once at most
_LOOK_AHEAD = 1 << 16  # bytes in which a member in the usual form ends
_BATCH = 1 << 15  # bytes whose members are given at once

Entries: TypeAlias = list[tuple[bytes, ...]]
"""Members that follow one another: the groups of each, and one more that says nothing."""


class JsonError(ValueError):
    """What is wrong with a text, to be read after its name: "is not valid JSON at byte 7"."""


def compiled(pattern: str) -> re.Pattern[bytes]:
    """A pattern in which ~ is white space, STRING a string (its inside is a group) and INT a natural number."""
    pattern = pattern.replace("STRING", r'"([^"\\\x00-\x1f]*+(?:\\[^\x00-\x1f][^"\\\x00-\x1f]*+)*+)"')
    pattern = pattern.replace("INT", "(?:0|[1-9][0-9]{0,19}+)")
    return re.compile(pattern.replace("~", r"[ \t\n\r]*+").encode())


@cache
def _in_batch(entry: re.Pattern[bytes]) -> re.Pattern[bytes]:
    """The entry with a comma behind it, and more text behind that; or all that is left, in the last group."""
    return re.compile(entry.pattern + compiled(r"~,~(?=(?s:.))|((?s:.+))").pattern)


@cache
def _alone(entry: re.Pattern[bytes]) -> re.Pattern[bytes]:
    """The entry, and what separates it from the next, in the last group."""
    return re.compile(entry.pattern + compiled(r"~([,}])~").pattern)


_OPEN = compiled(r"~\{~(\}~)?")
_KEY = compiled(r"STRING~:~")
_PAIR = compiled(r"STRING~:~STRING")
_NEXT = compiled(r"~([,}])~")
_NULL = compiled(r"null~")


class JsonReader:
    """A cursor over a text that is one JSON object. Only the part around the cursor is held.

    Example:
        >>> reader = JsonReader.of(b'{"a": {"x": "1"}, "b": [2]}')
        >>> [(key, reader.strings("a") if key == "a" else reader.small_value()) for key in reader.members()]
        [('a', {'x': '1'}), ('b', [2])]
    """

    def __init__(self, read: Callable[[int, int], bytes], nbytes: int) -> None:
        """A text of so many bytes, of which `read(offset, nbytes)` gives any part."""
        self._read = read
        self._left = nbytes  # bytes that are not held yet
        self._next = 0  # the first of them
        self._window = b""
        self._many = _WINDOWS[0]
        self._at = 0  # the byte of the window that comes next

    @classmethod
    def of(cls, text: bytes) -> JsonReader:
        """A text in memory."""
        return cls(lambda offset, nbytes: text[offset : offset + nbytes], len(text))

    def members(self, usual: re.Pattern[bytes] | None = None) -> Iterator[str | Entries]:
        """The members of the outermost object.

        Args:
            usual: a pattern of a member in the form that most have, from its key to the end of its value; it sets all
                of its groups. Members that fit come in lists. Of another the caller gets the key, and reads the value.

        Raises:
            JsonError: the text is not one JSON object.
        """
        more = self._open("is not a JSON object")
        while more:
            if usual is not None:
                yield from self._batches(usual)
                last = self._match(_alone(usual), _LOOK_AHEAD)
                if last is not None:
                    self._at, more = last.end(), last.groups()[-1] == b","
                    yield [last.groups()]
                    continue
            yield self._key()
            following = self._match(_NEXT)
            if following is None:
                raise self._invalid()
            self._at, more = following.end(), following[1] == b","
        if self._at != len(self._window) or self._left:
            raise JsonError(f"goes on after its end, at byte {self._position:,}")

    def pairs(self, what: str) -> Iterator[Entries]:
        """The object of strings that comes next, as lists of (key, value, nothing), each as it stands between its
        quotation marks; `null` counts as an empty one."""
        null = self._match(_NULL, _LOOK_AHEAD)
        if null is not None:
            self._at = null.end()
            return
        more = self._open(f"has a {what} that is not an object")
        total = 0
        while more:
            for entries in self._batches(_PAIR):
                yield entries
                total += len(entries)
                if total > MAX_STRINGS:
                    raise JsonError(f"has more than {MAX_STRINGS:,} entries of {what}")
            last = self._match(_alone(_PAIR))
            if last is None:
                name = self._key()
                if self._window[self._at : self._at + 1] in (b"", b'"'):
                    raise self._invalid()
                raise JsonError(f'has an entry "{name}" of {what} that is not text')
            self._at, more = last.end(), last[3] == b","
            yield [last.groups()]
            total += 1

    def strings(self, what: str) -> dict[str, str]:
        """The object of strings that comes next; see `pairs`."""
        found: dict[str, str] = {}
        values: dict[bytes, str] = {}  # an index names few shards for many keys
        for key, value, _ in chain.from_iterable(self.pairs(what)):
            name = unquoted(key)
            if name in found:
                raise JsonError(f'names "{name}" twice in {what}')
            text = values.get(value)
            if text is None:
                text = unquoted(value)
                if len(values) < _MANY_VALUES:
                    values[value] = text
            found[name] = text
        return found

    def small_value(self) -> object:
        """Whatever comes next, as Python's `json` has it, if its text is not longer than `MAX_SMALL` bytes."""
        while self._left and len(self._window) - self._at < MAX_SMALL:
            self._hold_more()
        for limit in (1 << 10, MAX_SMALL):
            piece = self._window[self._at : self._at + limit]
            try:
                text, _ = utf_8_decode(piece, "strict", len(piece) < limit)
                value, end = _DECODER.raw_decode(text)
                json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is not a text
            except (ValueError, RecursionError) as problem:
                if len(piece) == limit < MAX_SMALL:
                    continue
                raise (problem if isinstance(problem, JsonError) else self._invalid()) from None
            self._at += len(text[:end].encode())
            return value
        raise self._invalid()

    def _open(self, otherwise: str) -> bool:
        """Step into the object that comes next; False if it is empty, and then behind it."""
        opening = self._match(_OPEN)
        if opening is None:
            raise JsonError(otherwise)
        self._at = opening.end()
        return opening[1] is None

    def _key(self) -> str:
        key = self._match(_KEY)
        if key is None:
            raise self._invalid()
        self._at = key.end()
        return unquoted(key[1])

    def _batches(self, entry: re.Pattern[bytes]) -> Iterator[Entries]:
        """The entries of this form that come next, in lists, each with a comma behind it; the cursor is behind them."""
        pattern = _in_batch(entry)
        while True:
            if self._left and len(self._window) - self._at < _BATCH:
                self._hold_more()
            entries = pattern.findall(self._window, self._at, self._at + _BATCH)
            rest = entries.pop()[-1] if entries and entries[-1][-1] else b""
            self._at = min(self._at + _BATCH, len(self._window)) - len(rest)
            if not entries:
                return
            yield entries

    def _match(self, pattern: re.Pattern[bytes], ahead: int | None = None) -> re.Match[bytes] | None:
        """The pattern at the cursor. It may end where the window ends only if the text ends there.

        Args:
            pattern: what is looked for.
            ahead: bytes in which it is looked for; None for all that is left.
        """
        while True:
            match = pattern.match(self._window, self._at)
            if not self._left or (match is not None and match.end() < len(self._window)):
                return match
            if match is None and ahead is not None and len(self._window) - self._at >= ahead:
                return None
            self._hold_more()

    def _hold_more(self) -> None:
        """Let go of what was read, and hold at least twice as much of what was not."""
        rest = self._window[self._at :]
        self._window, self._at = rest, 0  # what was read goes before more comes
        more = self._read(self._next, min(self._left, max(self._many, len(rest))))
        self._many = min(2 * self._many, _WINDOWS[1])
        self._next, self._left = self._next + len(more), self._left - len(more)
        self._window = rest + more

    @property
    def _position(self) -> int:
        return self._next - len(self._window) + self._at

    def _invalid(self) -> JsonError:
        return JsonError(f"is not valid JSON at byte {self._position:,}")


def unquoted(raw: bytes) -> str:
    """The text of a string, given what stands between its quotation marks."""
    return unquoted_all((raw,))[0]


def unquoted_all(raw: Sequence[bytes]) -> list[str]:
    """The texts of many strings."""
    has_escapes = b"\\" in b"".join(raw)
    try:
        return list(map(_unescaped if has_escapes else bytes.decode, raw))
    except ValueError:
        raise JsonError("holds a string that is not valid Unicode") from None


def _unescaped(raw: bytes) -> str:
    text = raw.decode()
    if "\\" in text:
        text = str(json.loads(f'"{text}"'))
        text.encode()  # half a surrogate pair is not a text
    return text


def _no_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise JsonError("has a field twice")
    return fields


def _integer(digits: str) -> int | float:
    """As serde has it: -0, and what needs more than 64 bits, is no integer."""
    return int(digits) if len(digits) <= 19 and digits != "-0" else _float_or_int(digits)


def _float_or_int(digits: str) -> int | float:
    if len(digits) == 20 and 0 <= int(digits) < 2**64:
        return int(digits)
    return _float(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if abs(number) == float("inf"):
        raise JsonError("has a number out of range")
    return number


def _constant(name: str) -> NoReturn:
    raise JsonError(f"has {name} for a number")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_no_twins, parse_int=_integer, parse_float=_float, parse_constant=_constant
)
