"""What a command has to say, before any format: the answer, the blocks, and a typed row per tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ckptool.report.blocks import Block
from ckptool.report.cells import Kind
from ckptool.report.symbols import Style

if TYPE_CHECKING:
    from ckptool.commands.checks.finding import Level, Report
    from ckptool.core.plan import Problem

Mood = Literal["plain", "good", "warning", "bad"]


@dataclass(frozen=True, slots=True)
class Answer:
    """The result in one line that cannot be misread.

    Attributes:
        text: "different: 116 of 122 tensors differ"; escaped.
        mood: whether it is what the user hopes for; "plain" where the first block says the same.
    """

    text: str
    mood: Mood = "plain"


@dataclass(frozen=True, slots=True)
class Field:
    """One value of each row of a table.

    Attributes:
        name: in CSV, the same within a version of the JSON schema; "" for none there.
        title: on the page; "" for none there.
        kind: of its values.
        sum: what a branch of the page's tree shows: the sum of its rows, the largest, the gravest; nothing if None.
        total: of a "share", what is all of it.
        of: of a "ratio", the title of the field that is all of it.
        panel: shown in the details of a row only.
        style: of texts.
    """

    name: str = ""
    title: str = ""
    kind: Kind = "text"
    sum: Literal["add", "max", "worst"] | None = None
    total: float = 0
    of: str = ""
    panel: bool = False
    style: Style = ""


@dataclass(frozen=True, slots=True)
class Status:
    """What may have happened to a row, and how a filter calls it."""

    symbol: str
    label: str
    style: Style = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Typed rows, one per tensor (for `check`: per finding), never folded. Texts are as the files have them.

    Attributes:
        fields: what each row has.
        rows: a value for each field; read once. Numbers are raw: bytes, elements, relative changes.
        statuses: what may have happened to a row.
        status: the name of the field with their labels.
        noun: what a row is.
        key: the name of the field whose parts are the page's tree.
        separator: between those parts.
    """

    fields: tuple[Field, ...]
    rows: Iterable[Sequence[Any]]
    statuses: tuple[Status, ...] = (Status("", ""),)
    status: str = "status"
    noun: str = "tensor"
    key: str = "key"
    separator: str = "."


@dataclass(frozen=True, slots=True)
class Document:
    """The result of a command for every encoder; parts are made when an encoder asks for them.

    Attributes:
        command: "inspect".
        answer: the result in a line.
        blocks: all there is to say, in order.
        table: the typed rows.
        result: the fields of the JSON object, the schema first.
        records: what NDJSON has a line for.
        summary: the last line of NDJSON.
        listing: the fields of each line of `lines`, sorted by key.
        page: the rows of the page, where they are not those of the table.
        findings: what CI shows; None for a command that only reads.
        about: what each rule of the findings is about, in a sentence.
        fail_on: the mildest finding that makes the command end with 1.
        problems: why nothing is written; a terminal gets them on stderr, files after the answer.
        verbose: details are asked for.
        typed: the command line that shows the same as text.
    """

    command: str
    answer: Answer
    blocks: Callable[[], Iterable[Block]]
    table: Callable[[], Table]
    result: Callable[[], Iterable[tuple[str, Any]]]
    records: Callable[[], Iterator[Mapping[str, Any]]]
    summary: Callable[[], Mapping[str, Any]]
    listing: Callable[[], Iterator[Sequence[str]]]
    page: Callable[[], Table] | None = None
    findings: Callable[[], Report] | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    fail_on: Level = "error"
    problems: tuple[Problem, ...] = ()
    verbose: bool = False
    typed: str = ""

    @property
    def found(self) -> Report:
        """The findings.

        Raises:
            LookupError: the command has none.
        """
        if self.findings is None:
            raise LookupError(f"{self.command} has no findings")
        return self.findings()
