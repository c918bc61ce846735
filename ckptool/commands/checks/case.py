"""What a rule gets to look at, and what it says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from ckptool.commands.checks.bases import Bases
from ckptool.commands.checks.finding import Level, Place
from ckptool.commands.checks.lock_file import Section
from ckptool.commands.checks.paths import Target
from ckptool.commands.checks.policy import Policy
from ckptool.commands.checks.settings import Allow, Setting, Settings
from ckptool.commands.checks.values import Measure
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import CkptError
from ckptool.core.shell import shell_quote

_WIDEST = 60


@dataclass(frozen=True, slots=True)
class Found:
    """One finding of a rule; whoever runs it knows the rule and the file.

    Attributes:
        message: what is true, in one sentence.
        keys: the tensors it is about.
        details: lines that prove it.
        help: the next command.
        place: where the policy asks for it.
        level: None for the rule's own.
        short: it in a word or two, for a table.
    """

    message: str
    keys: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    help: str = ""
    place: Place | None = None
    level: Level | None = None
    short: str = ""


@dataclass(slots=True)
class Case:
    """One file under check.

    Attributes:
        target: what was asked for.
        checkpoint: it, opened; an empty one if it cannot be.
        error: why it cannot be opened.
        policy: the whole policy, for paths in it.
        settings: what this file must keep to.
        bases: other checkpoints and models, each opened once for all files.
        threads: how many a rule may use.
        values: what the pass over the bytes found, by key.
        locked: its section in the lock file; None if that has none.
        used: the allow-list entries that excused something, of all files.
        is_explained: a rule has said better than `error` why the file cannot be opened.
    """

    target: Target
    checkpoint: Checkpoint
    error: CkptError | None
    policy: Policy
    settings: Settings
    bases: Bases
    threads: int = 2
    values: Mapping[str, Measure] = field(default_factory=dict)
    locked: Section | None = None
    used: set[Allow] = field(default_factory=set)
    is_explained: bool = False

    @property
    def name(self) -> str:
        return self.target.name

    @property
    def word(self) -> str:
        """The file as a word of a command line."""
        return shell_quote(self.target.name)

    def allows(self, name: str, text: str) -> bool:
        """True if the allow-list of that name excuses a key or other name; every entry that does counts as used."""
        entries = [entry for entry in self.settings.allow if entry.list == name and entry.pattern.matches(text)]
        self.used.update(entries)
        return bool(entries)

    def refused(self, name: str, texts: Iterable[str]) -> tuple[str, ...]:
        """Those of the names that the allow-list does not excuse."""
        return tuple(text for text in texts if not self.allows(name, text))

    def path_of(self, text: str) -> PurePath:
        """A file that the policy names; `UsageError` if it must not name it."""
        return self.policy.path(text)

    def place(self, key: str) -> Place | None:
        """Where the policy sets a key."""
        setting = self.settings.values.get(key)
        return setting.place if setting else None


@contextmanager
def asked_by(setting: Setting[Any]) -> Iterator[None]:
    """Errors that leave this block show the line of the policy that asks for what has failed."""
    try:
        yield
    except CkptError as error:
        if not setting.is_typed:
            error.add_detail(f"   = policy: {setting.place.text}  ({setting.place.name})")
        raise


def columns(rows: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Rows as lines whose columns stand below each other; a very long cell does not move the others, empty columns go.

    Example:
        >>> columns([("fc.weight", "f32[10,512]"), ("fc.bias", "f32[10]")])
        ('fc.weight  f32[10,512]', 'fc.bias    f32[10]')
    """
    every = list(rows)
    filled = [number for number, cells in enumerate(zip(*every, strict=True)) if any(cells)]
    every = [tuple(row[number] for number in filled) for row in every]
    widths = [min(_WIDEST, max(map(len, column))) for column in zip(*every, strict=True)]
    return tuple("  ".join(map(str.ljust, row, widths)).rstrip() for row in every)
