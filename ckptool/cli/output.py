"""Where a command's report goes: stdout, painted and paged if that is a terminal."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ckptool.cli.common import Color
from ckptool.report.text import Line, Screen, paint
from ckptool.storage.environment import VARIABLES, find_program
from ckptool.storage.process import discard
from ckptool.storage.session import read_so_far
from ckptool.storage.streams import page

if TYPE_CHECKING:
    from ckptool.report.document import Answer

_BUFFER = 1 << 16  # characters written at once


def stdout_screen(color: Color) -> Screen:
    """The screen that stdout is."""
    return Screen.of(sys.stdout, VARIABLES, color.value)


def print_lines(lines: Iterable[Line], screen: Screen, pager: bool = True, answer: Answer | None = None) -> None:
    """Prints lines, through a pager if they are more than a terminal shows at once.

    Args:
        lines: what to print.
        screen: where.
        pager: False to print everything at once.
        answer: printed again after the pager ends, for a pager takes the first line with it.
    """
    _SCREENS[:] = [screen]
    texts: Iterator[str] = (f"{paint(line, screen)}\n" for line in lines)
    if screen.height is not None and pager:
        first = list(itertools.islice(texts, screen.height))
        texts = itertools.chain(first, texts)
        less = find_program("less") if len(first) >= screen.height else None
        if less:
            page(less, _blocks(texts))
            if answer is not None:
                from ckptool.report.screen import answer_lines

                print_texts(f"{paint(line, screen)}\n" for line in answer_lines(answer, screen))
            return
    print_texts(texts)


def print_texts(texts: Iterable[str]) -> None:
    """Prints pieces of text as they come.

    A closed pipe ends it in silence; the exit code stays what it would be. Where stdout takes no more for another
    reason, the command still does its work, and `lost_report` says what went wrong at its end.
    """
    try:
        for block in _blocks(texts):
            _write(block)
        sys.stdout.flush()
    except BrokenPipeError:
        discard(sys.stdout)
    except OSError as error:
        _LOST.append(error)
        discard(sys.stdout)


def say_read() -> None:
    """Print what was read over the network as the last line, where the command printed lines for people."""
    read = read_so_far()
    if read is not None and _SCREENS:
        from ckptool.report.document_plan import read_block
        from ckptool.report.screen import block_lines

        print_lines(block_lines([read_block(read)], _SCREENS[-1]), _SCREENS[-1], pager=False)
    _SCREENS.clear()


_SCREENS: list[Screen] = []
_LOST: list[OSError] = []


def lost_report() -> OSError | None:
    """Why stdout could not take all that was printed; None if it could. Asking clears it."""
    first = _LOST[0] if _LOST else None
    _LOST.clear()
    return first


def _blocks(texts: Iterable[str]) -> Iterator[str]:
    block: list[str] = []
    held = 0
    for text in texts:
        block.append(text)
        held += len(text)
        if held >= _BUFFER:
            yield "".join(block)
            block, held = [], 0
    yield "".join(block)


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding or "ascii"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
