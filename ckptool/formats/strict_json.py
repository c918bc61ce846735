"""JSON that a stranger wrote, read piece by piece: safetensors headers and shard indexes.

Such a text may have 100 MB, and may unfold to gigabytes of nested lists. So it is never parsed as a whole: the caller
walks the members of the outermost object and says what it expects of each; anything else is refused before it is built.
Every pattern is possessive, hence linear in the text.

JSON is read by the letter: no NaN, no `-0` for a natural number, no half surrogate pair; and no key twice in one
object, because two readers could take two different ones.
"""

from __future__ import annotations

import json
import re
from codecs import utf_8_decode
from collections.abc import Iterator
from typing import NoReturn

MAX_STRINGS = 1_500_000  # entries of one object of strings
MAX_SMALL = 1 << 16  # bytes of any other value
_MANY_VALUES = 10_000  # different strings of one object that are remembered


class JsonError(ValueError):
    """What is wrong with a text, to be read after its name: "is not valid JSON at byte 7"."""


def compiled(pattern: str) -> re.Pattern[bytes]:
    """A pattern in which ~ is white space, STRING a string (its inside is a group) and INT a natural number."""
    pattern = pattern.replace("STRING", r'"([^"\\\x00-\x1f]*+(?:\\[^\x00-\x1f][^"\\\x00-\x1f]*+)*+)"')
    pattern = pattern.replace("INT", "(?:0|[1-9][0-9]{0,19}+)")
    return re.compile(pattern.replace("~", r"[ \t\n\r]*+").encode())


_OPEN = compiled(r"~\{~(\}~)?")
_KEY = compiled(r"STRING~:~")
_PAIR = compiled(r"STRING~:~STRING~([,}])~")
_NEXT = compiled(r"~([,}])~")
_NEVER = compiled("(?!)")
_NULL = compiled(r"null~")


class JsonReader:
    """A cursor over a text that is one JSON object.

    Attributes:
        text: the whole text.
        position: the byte that is read next.

    Example:
        >>> reader = JsonReader(b'{"a": {"x": "1"}, "b": [2]}')
        >>> [(key, reader.strings("a") if key == "a" else reader.small_value()) for key, _ in reader.members()]
        [('a', {'x': '1'}), ('b', [2])]
    """

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.position = 0

    def members(self, usual: re.Pattern[bytes] = _NEVER) -> Iterator[tuple[str, re.Match[bytes] | None]]:
        """The keys of the outermost object; after each one the caller reads its value.

        Args:
            usual: a pattern of a whole member in the form that most have: its first group is the key, its last one what
                separates it from the next. The caller gets the match, if all groups are set, and reads no value then.

        Raises:
            JsonError: the text is not one JSON object, or a key is there twice.
        """
        seen: set[str] = set()
        more = self._open("is not a JSON object")
        while more:
            match = usual.match(self.text, self.position)
            if match is not None and None in match.groups():
                match = None
            key = self._key() if match is None else unquoted(match[1])
            if key in seen:
                raise JsonError(f'names "{key}" twice')
            seen.add(key)
            yield key, match
            following = _NEXT.match(self.text, self.position) if match is None else match
            if following is None:
                raise self._invalid()
            self.position, more = following.end(), following[following.lastindex or 0] == b","
        if self.position != len(self.text):
            raise JsonError(f"goes on after its end, at byte {self.position:,}")

    def strings(self, what: str) -> dict[str, str]:
        """The object of strings that comes next; `null` counts as an empty one."""
        null = _NULL.match(self.text, self.position)
        if null is not None:
            self.position = null.end()
            return {}
        found: dict[str, str] = {}
        values: dict[bytes, str] = {}  # an index names few shards for many keys
        more = self._open(f"has a {what} that is not an object")
        while more:
            pair = _PAIR.match(self.text, self.position)
            if pair is None:
                name = self._key()
                if self.text[self.position : self.position + 1] in (b"", b'"'):
                    raise self._invalid()
                raise JsonError(f'has an entry "{name}" of {what} that is not text')
            key, value, separator = pair.groups()
            name = unquoted(key)
            if name in found:
                raise JsonError(f'names "{name}" twice in {what}')
            if len(found) == MAX_STRINGS:
                raise JsonError(f"has more than {MAX_STRINGS:,} entries of {what}")
            text = values.get(value)
            if text is None:
                text = unquoted(value)
                if len(values) < _MANY_VALUES:
                    values[value] = text
            found[name] = text
            self.position, more = pair.end(), separator == b","
        return found

    def small_value(self) -> object:
        """Whatever comes next, as Python's `json` has it, if its text is not longer than `MAX_SMALL` bytes."""
        for limit in (1 << 10, MAX_SMALL):
            piece = self.text[self.position : self.position + limit]
            try:
                text, _ = utf_8_decode(piece, "strict", len(piece) < limit)
                value, end = _DECODER.raw_decode(text)
                json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
            except (ValueError, RecursionError) as problem:
                if len(piece) == limit < MAX_SMALL:
                    continue
                raise (problem if isinstance(problem, JsonError) else self._invalid()) from None
            self.position += len(text[:end].encode())
            return value
        raise self._invalid()

    def _open(self, otherwise: str) -> bool:
        """Step into the object that comes next; False if it is empty, and then behind it."""
        opening = _OPEN.match(self.text, self.position)
        if opening is None:
            raise JsonError(otherwise)
        self.position = opening.end()
        return opening[1] is None

    def _key(self) -> str:
        key = _KEY.match(self.text, self.position)
        if key is None:
            raise self._invalid()
        self.position = key.end()
        return unquoted(key[1])

    def _invalid(self) -> JsonError:
        return JsonError(f"is not valid JSON at byte {self.position:,}")


def unquoted(raw: bytes) -> str:
    """The text of a string, given what stands between its quotation marks."""
    try:
        text = raw.decode()
        if "\\" in text:
            text = json.loads(f'"{text}"')
            text.encode()  # half a surrogate pair is no text
    except ValueError:
        raise JsonError("holds a string that is not valid Unicode") from None
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
