"""A Document as plain text for files: wide, without colour, nothing elided."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from ckptool.report.document import Document
from ckptool.report.escape import terminal
from ckptool.report.text import Line, Screen, Span, paint

_LONGEST = 2000  # characters of a message


def encode_document(document: Document) -> Iterator[str]:
    """What a terminal shows, as it stands in a file, with the problems that a terminal gets on stderr."""
    screen = Screen()
    lines = chain(document.answer_lines(screen), _problems(document), document.screen(screen))
    return (f"{paint(line, screen)}\n" for line in lines)


def _problems(document: Document) -> Iterator[Line]:
    for problem in document.problems:
        yield (Span(f"error: {terminal(problem.message, _LONGEST)}"),)
        if problem.hint:
            yield (Span(f"  help: {terminal(problem.hint, _LONGEST)}"),)
