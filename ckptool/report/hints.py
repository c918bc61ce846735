"""A hint, and the commands in it: what is printed can be pasted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ckptool.report.text import Screen, wrap
from ckptool.report.text_width import cells

_WORD = r"(?:[^\s'\"]|'[^']*'|\"[^\"]*\")+"
_SHELL_WORDS = re.compile(_WORD)
COMMANDS = ("inspect", "diff", "filter", "remap", "merge", "extract", "transplant", "check", "help", "git")
_BEGINS = rf"(?:ckptool (?:{'|'.join(COMMANDS)})|pip install)"
_COMMAND = re.compile(rf"(?:^|: | {{3}})({_BEGINS}(?: {_WORD})*)(?= {{3}}|$)")


def wrap_hint(text: str, screen: Screen, first: str = "  ", indent: str = "  ") -> Iterator[str]:
    """A hint, broken so that every command in it can be pasted as it stands.

    A hint is words and commands. A command stands at its beginning or behind a colon, and goes on to its end or to
    three spaces, which stand between the parts of a hint. Where all do not fit one line, a part has its own; a command
    that does not fit there either begins one, is broken between its words, and goes on behind a backslash.

    Args:
        text: the hint, escaped.
        screen: where it is shown.
        first: what stands before its first line.
        indent: what stands before the others.

    Example:
        >>> hint = "rename them: ckptool remap a.pth -r 'a -> b' -o OUT   or leave them out"
        >>> print(*wrap_hint(hint, Screen(width=30, elide=True)), sep="\\n")
          rename them:
          ckptool remap a.pth \\
            -r 'a -> b' -o OUT
          or leave them out
    """
    room = screen.width if screen.elide else 1 << 30
    if cells(first + text) <= room or not _COMMAND.search(text):
        yield from wrap(text, screen, indent=indent, first=first)
        return
    for words, command in parts(text):
        *lines, last = wrap(words, screen, indent=indent, first=first) if words else (first,)
        yield from lines
        joined = f"{last} {command}" if words else last + command
        if command and cells(joined) > room:
            if words:
                yield last
            yield from _broken(_SHELL_WORDS.findall(command), room, indent if words else first, f"{indent}  ")
        else:
            yield joined.rstrip(" ")
        first = indent


def parts(text: str) -> Iterator[tuple[str, str]]:
    """The words and the command of each part of a hint; "" for what it has not.

    Example:
        >>> list(parts("drop them: ckptool filter a.pth --drop 'a b' -o OUT   or keep them"))
        [('drop them:', "ckptool filter a.pth --drop 'a b' -o OUT"), ('or keep them', '')]
    """
    at = 0
    for found in _COMMAND.finditer(text):
        *before, words = text[at : found.start(1)].split("   ")
        yield from ((part.strip(" "), "") for part in before if part.strip(" "))
        yield words.strip(" "), found[1]
        at = found.end()
    yield from ((part.strip(" "), "") for part in text[at:].split("   ") if part.strip(" "))


def _broken(words: Sequence[str], room: int, first: str, indent: str) -> Iterator[str]:
    """A command in lines, each but the last with a backslash behind it."""
    line = first + words[0]
    for word, following in zip(words[1:], [*words[2:], ""], strict=True):
        longer = f"{line} {word}"
        ends = 2 if following else 0  # room for a backslash
        is_value = line.startswith(f"{indent}-") and " " not in line.strip(" ")  # stays with its option, however long
        if (cells(longer) + ends > room and not is_value) or _parts_option(longer, word, following, room):
            yield f"{line} \\"
            line = indent + word
        else:
            line = longer
    yield line


def _parts_option(line: str, word: str, value: str, room: int) -> bool:
    """True if a line would end with an option whose value does not fit behind it."""
    return word.startswith("-") and bool(value) and not value.startswith("-") and cells(f"{line} {value}") + 2 > room
