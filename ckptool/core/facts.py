"""Facts: what is true of a checkpoint, as values that every command answers to.

A fact states what it is (`text`), what to do about it (`hint`), and what each operation does to it (`answer`). The
kinds are in `ckptool.facts`, one file each; `ckptool.commands.consult` asks them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Literal, TypeAlias

Level: TypeAlias = Literal["note", "warning", "error"]


class Operation(StrEnum):
    """What a command does to a tensor, or to a file as a whole."""

    LIST = "list"
    RENAME = "rename"
    DROP = "drop"
    COPY = "copy"
    CAST = "cast"
    COMPUTE = "compute"
    LOAD = "load"
    COMPARE = "compare"


TAKES_VALUES = (Operation.COPY, Operation.CAST, Operation.COMPUTE, Operation.LOAD)
"""What carries values of a checkpoint into an output or a model."""


@dataclass(frozen=True, slots=True)
class Use:
    """An operation on some of a fact's keys.

    Attributes:
        operation: what is done.
        keys: the keys of the fact that it is done to; for a fact without keys, those of the whole file.
        mixed: COMPUTE: numbers of several inputs go into one result, as in an average.
        moves: COMPUTE: the result has the same numbers in another order (joined, split).
        spared: CAST, COMPUTE: it is done to others, and these keys are copied, since their elements are integers.
        targets: RENAME: the names that all copied keys of the fact have in the output.
        inputs: how many checkpoints the plan reads.
    """

    operation: Operation
    keys: tuple[str, ...] = ()
    mixed: bool = False
    moves: bool = False
    inputs: int = 1
    spared: bool = False
    targets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fine:
    """The operation does no harm to the fact."""


@dataclass(frozen=True, slots=True)
class Say:
    """The operation may go on; the user is told."""

    text: str
    hint: str = ""
    level: Literal["note", "warning"] = "warning"


@dataclass(frozen=True, slots=True)
class Refuse:
    """The operation would write something wrong.

    Attributes:
        why: what is true and why it matters.
        instead: what to do instead.
        may_insist: True if ``--allow NAME`` may turn the refusal into a warning.
        keys: those to list, where that is not all that the operation touches; `why` may end with the first of them.
    """

    why: str
    instead: str
    may_insist: bool = False
    keys: tuple[str, ...] = ()


Answer: TypeAlias = Fine | Say | Refuse
FINE = Fine()


@dataclass(frozen=True, slots=True)
class Fact(ABC):
    """One thing that is true of a checkpoint. A kind is a subclass: a frozen dataclass of what was found.

    Attributes:
        keys: the tensors that it is about; none for a fact about the whole file.

    Class attributes:
        name: of the kind, as ``--allow`` takes it.
        level: how `inspect` shows it.
        grade: the level of the finding that `check` makes of it; None for no finding.
        tells: `diff` says it where only one side has it.
        rank: where it stands among facts of its level, the smallest first.
        may_be_allowed: one of its refusals may be turned into a warning.
        also: other words for it, which are no names but lead to its name.
        remedied_by: what the command of `remedy` does to the tensors.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True, slots=True)
        ... class Tiny(Fact):
        ...     name = "tiny"
        ...     @property
        ...     def text(self) -> str:
        ...         return f"{self.keys[0]} is tiny"
        >>> fact = Tiny(("fc.bias",))
        >>> fact.text, fact.answer(Use(Operation.COPY, fact.keys))
        ('fc.bias is tiny', Fine())
    """

    keys: tuple[str, ...] = ()

    name: ClassVar[str] = "fact"
    level: ClassVar[Literal["note", "warning"]] = "note"
    grade: ClassVar[Level | None] = None
    tells: ClassVar[bool] = False
    rank: ClassVar[int] = 50
    may_be_allowed: ClassVar[bool] = False
    also: ClassVar[tuple[str, ...]] = ()
    remedied_by: ClassVar[Operation] = Operation.COPY

    @property
    @abstractmethod
    def text(self) -> str:
        """What is true, in one sentence."""

    @property
    def hint(self) -> str:
        """What to do about it, or why it does not matter; ``{file}`` stands for the file."""
        return ""

    @property
    def remedy(self) -> str:
        """A command that writes a file without it; not shown where another fact refuses what the command does."""
        return ""

    @property
    def is_listed(self) -> bool:
        """False for what is true of so many files that `inspect` does not say it."""
        return True

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Keys that mean something only together; to drop one and keep another is a DROP."""
        return ()

    def finding_level(self) -> Level | None:
        """The level of the finding that `check` makes of this fact."""
        return self.grade

    def answer(self, use: Use) -> Answer:
        """What an operation does to it."""
        return FINE

    def missed(self, wanted: Collection[str], used: Collection[str]) -> Answer:
        """What a model lacks that has the keys `wanted`, when these keys of the checkpoint go into it."""
        return FINE
