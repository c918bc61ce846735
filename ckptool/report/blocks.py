"""What a report is made of: blocks of a few kinds. A command says what they hold, each output how a kind looks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ckptool.core.checkpoint import Note
from ckptool.report.cells import Kind, Row
from ckptool.report.symbols import Style

if TYPE_CHECKING:
    from ckptool.commands.checks.finding import Finding


@dataclass(frozen=True, slots=True)
class Side:
    """One checkpoint or model that a report is about.

    Attributes:
        name: as it was typed; not escaped, like all texts of blocks.
        facts: "122 tensors", "91.4 kB", "torch zip".
        mark: "source", "-".
        style: of its name.
    """

    name: str
    facts: tuple[str, ...]
    mark: str = ""
    style: Style = "bold"


@dataclass(frozen=True, slots=True)
class Sides:
    """What a report is about; the heading of a page.

    Attributes:
        sides: one or more.
        joint: what stands between their names in one line.
        on_screen: False where the answer is all that a screen needs.
    """

    sides: tuple[Side, ...]
    joint: str = " → "
    on_screen: bool = True


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums, on one line where it is wide enough."""

    parts: tuple[str, ...]
    separator: str = "   "


@dataclass(frozen=True, slots=True)
class Facts:
    """Things beside the tensors, and sentences with a title: (title, entries). Those without entries are not shown."""

    rows: tuple[tuple[str, Sequence[str]], ...]


@dataclass(frozen=True, slots=True)
class Notes:
    """Notes and warnings; identical ones are shown once."""

    notes: Sequence[Note]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: its heading.
        kind: of its values.
        least: columns it may be narrowed to on a screen; None for one that is never narrowed.
        wide: shown only where there is room: 120 columns, files.
        spare: left out where the table would not fit.
        wraps: a long text goes on below; one column at most.
    """

    title: str
    kind: Kind = "text"
    least: int | None = None
    wide: bool = False
    spare: bool = False
    wraps: bool = False


@dataclass(frozen=True, slots=True)
class Rows:
    """A table. Columns without values are not shown.

    Attributes:
        columns: of it.
        rows: folded, as few as say it all.
        each: the table with a row per tensor, where that is more; shown if details are asked for.
        title: what it is, where it is folded away.
    """

    columns: tuple[Column, ...]
    rows: Callable[[], Sequence[Row]]
    each: Rows | None = None
    title: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing of a list.

    Attributes:
        mark: a symbol or a word.
        text: it in a line.
        below: what more is to be said of it.
        label: its number.
        style: of the mark, where that is no symbol; of all the text if `loud`.
        loud: the text is what a person looks for.
    """

    mark: str
    text: str
    below: tuple[str, ...] = ()
    label: str = ""
    style: Style = ""
    loud: bool = False


@dataclass(frozen=True, slots=True)
class Items:
    """A list.

    Attributes:
        items: of it.
        title: what it is.
        sum: it in a few words.
        code: the texts are code.
    """

    items: tuple[Item, ...]
    title: str = ""
    sum: str = ""
    code: bool = False

    @property
    def is_long(self) -> bool:
        """True if it is more than a line for each item."""
        return bool(self.title) or any(item.below for item in self.items)


@dataclass(frozen=True, slots=True)
class Findings:
    """What checks found, each in the manner of a compiler."""

    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Series:
    """Values over the depth of a model.

    Attributes:
        title: what they are.
        values: one for each key of the chart; None for none.
        kind: of the values.
        log: their powers count.
        styles: of each; all are alike if there are none.
    """

    title: str
    values: tuple[float | None, ...]
    kind: Kind = "real"
    log: bool = False
    styles: tuple[Style, ...] = ()


@dataclass(frozen=True, slots=True)
class Chart:
    """Values over the depth of a model, drawn on pages.

    Attributes:
        title: what it shows.
        keys: of tensors or modules, in the order of the model.
        series: of values, one below the other.
    """

    title: str
    keys: tuple[str, ...]
    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True)
class Code:
    """Lines to be copied."""

    text: str
    language: str = "python"


@dataclass(frozen=True, slots=True)
class Next:
    """What to type next; for terminals."""

    parts: tuple[str, ...]


Block: TypeAlias = Sides | Totals | Facts | Notes | Rows | Items | Findings | Chart | Code | Next
