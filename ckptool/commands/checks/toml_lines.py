"""On which line of a TOML document each key stands; tomllib reads the values and does not say.

The scanner runs over text that tomllib has accepted, so it needs to know only where things begin and end.
"""

from __future__ import annotations

import re
from bisect import bisect_right

Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:\s|#[^\n]*)*")
_STRING = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*""""{0,2}'
    r"|'''(?:(?!''').)*''''{0,2}"
    r'|"(?:[^"\\]|\\.)*"'
    r"|'[^']*'",
    re.DOTALL,
)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BARE_VALUE = re.compile(r"[^,\]}\n#]*")


def key_lines(text: str) -> dict[Path, int]:
    """The line, counted from 1, of every key, table and array element, by its path in the document.

    A table that is opened by several headers has the line of the first.

    Example:
        >>> lines = key_lines('a = 1\\n[b]\\nc = [\\n  "x",\\n  {d = 2},\\n]\\n')
        >>> lines["a",], lines["b", "c"], lines["b", "c", 1, "d"]
        (1, 3, 5)
    """
    return _Scanner(text.replace("\r\n", "\n")).document()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[Path, int] = {}
        self._arrays: dict[Path, int] = {}  # the last index of each array of tables
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def document(self) -> dict[Path, int]:
        table: Path = ()
        while self._blank() < len(self.text):
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)
        return self.found

    def _header(self) -> Path:
        """``[a.b]`` or ``[[a.b]]``: the path of the table that it opens."""
        line, is_array = self._line(), self.text[self.at : self.at + 2] == "[["
        self.at += 1 + is_array
        *outer, name = self._dotted()
        path: Path = ()
        for part in outer:
            path = (*path, part)
            self.found.setdefault(path, line)
            if path in self._arrays:
                path = (*path, self._arrays[path])
        path = (*path, name)
        self.found.setdefault(path, line)
        if is_array:
            self._arrays[path] = self._arrays.get(path, -1) + 1
            path = (*path, self._arrays[path])
            self.found[path] = line
        self._blank()
        self.at += 1 + is_array
        return path

    def _pair(self, table: Path) -> None:
        line, path = self._line(), table
        for part in self._dotted():
            path = (*path, part)
            self.found.setdefault(path, line)
        self.at += 1  # the equals sign
        self._blank()
        self._value(path)

    def _dotted(self) -> list[str]:
        """A key with its dots; the position is then behind it and the blanks that follow."""
        import tomllib  # runs without a policy start without it

        parts: list[str] = []
        while True:
            self._blank()
            match = _STRING.match(self.text, self.at) or _BARE_KEY.match(self.text, self.at)
            assert match is not None  # tomllib has accepted it
            self.at = match.end()
            parts += tomllib.loads(f"{match[0]} = 0")
            if self._blank() >= len(self.text) or self.text[self.at] != ".":
                return parts
            self.at += 1

    def _value(self, path: Path) -> None:
        if match := _STRING.match(self.text, self.at):
            self.at = match.end()
        elif self.text[self.at] == "[":
            self._inside("]", path, is_array=True)
        elif self.text[self.at] == "{":
            self._inside("}", path, is_array=False)
        elif match := _BARE_VALUE.match(self.text, self.at):
            self.at = match.end()

    def _inside(self, closing: str, path: Path, *, is_array: bool) -> None:
        """The elements of an array or the pairs of an inline table, up to behind its end."""
        self.at += 1
        index = 0
        while self.text[self._blank()] != closing:
            if is_array:
                self.found[*path, index] = self._line()
                self._value((*path, index))
                index += 1
            else:
                self._pair(path)
            if self.text[self._blank()] == ",":
                self.at += 1
        self.at += 1

    def _blank(self) -> int:
        """Goes over white space and comments; the position then."""
        match = _BLANK.match(self.text, self.at)
        self.at = match.end() if match else self.at
        return self.at

    def _line(self) -> int:
        return bisect_right(self._starts, self.at)
