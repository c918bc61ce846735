"""What a command has to say, before any format: the answer, typed rows, and how it is laid out for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ckptool.report.text import Line, Screen, Span, Style, wrap

if TYPE_CHECKING:
    from ckptool.commands.checks.finding import Level, Report
    from ckptool.core.plan import Problem

Mood = Literal["plain", "good", "warning", "bad"]
Cell = str | int | float | bool | None
_STYLES: Mapping[Mood, Style] = {"plain": "", "good": "green", "warning": "yellow", "bad": "red"}


@dataclass(frozen=True, slots=True)
class Answer:
    """The result in one line that cannot be misread.

    Attributes:
        text: "different: 116 of 122 tensors differ"; escaped.
        mood: whether it is what the user hopes for; "plain" where the first line of the layout says the same.
    """

    text: str
    mood: Mood = "plain"

    def lines(self, screen: Screen) -> Iterator[Line]:
        """The answer for a screen, wrapped where it is narrow; its first word says it in colour."""
        first, *rest = wrap(self.text, screen)
        head, colon, tail = first.partition(":")
        yield (Span(head + colon, _STYLES[self.mood]), Span(tail))
        yield from ((Span(line),) for line in rest)


@dataclass(frozen=True, slots=True)
class Table:
    """Typed rows, one per tensor (for `check`: per finding), never folded. Texts are as the files have them.

    Attributes:
        columns: names that stay the same within a version of the JSON schema.
        rows: a cell for each column; read once. Numbers are raw: bytes, elements, relative changes.
    """

    columns: tuple[str, ...]
    rows: Iterable[Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Document:
    """The result of a command for every encoder; parts are made when an encoder asks for them.

    Attributes:
        command: "inspect".
        answer: the result in a line.
        result: the fields of the JSON object, the schema first.
        records: what NDJSON has a line for.
        summary: the last line of NDJSON.
        table: the typed rows.
        listing: the fields of each line of `lines`, sorted by key.
        screen: the layout for a terminal, without the answer.
        markdown: the layout for a pull request or a job summary.
        html: the page.
        findings: what CI shows; None for a command that only reads.
        about: what each rule of the findings is about, in a sentence.
        fail_on: the mildest finding that makes the command end with 1.
        problems: why nothing is written; a terminal gets them on stderr, files after the answer.
    """

    command: str
    answer: Answer
    result: Callable[[], Iterable[tuple[str, Any]]]
    records: Callable[[], Iterator[Mapping[str, Any]]]
    summary: Callable[[], Mapping[str, Any]]
    table: Callable[[], Table]
    listing: Callable[[], Iterator[Sequence[str]]]
    screen: Callable[[Screen], Iterator[Line]]
    markdown: Callable[[], Iterator[str]]
    html: Callable[[], Iterator[str]]
    findings: Callable[[], Report] | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    fail_on: Level = "error"
    problems: tuple[Problem, ...] = ()

    def lines(self, screen: Screen) -> Iterator[Line]:
        """The answer, then the layout for a terminal."""
        yield from self.answer_lines(screen)
        yield from self.screen(screen)

    def answer_lines(self, screen: Screen) -> Iterator[Line]:
        """The answer; nothing where the layout begins with it."""
        return self.answer.lines(screen) if self.answer.mood != "plain" else iter(())

    @property
    def found(self) -> Report:
        """The findings.

        Raises:
            LookupError: the command has none.
        """
        if self.findings is None:
            raise LookupError(f"{self.command} has no findings")
        return self.findings()
