"""A fact as the sentence that reports show."""

from __future__ import annotations

import shlex

from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.facts import Fact, Operation, Refuse, Use
from ckptool.facts.registry import facts_of


def note_of(fact: Fact, checkpoint: Checkpoint) -> Note:
    """The sentence of a fact, with the file's name in what to type: commands that are not refused."""
    hint = fact.hint
    if fact.remedy and not _is_refused(fact.remedied_by, checkpoint):
        hint = f"{hint}; {fact.remedy}" if hint else fact.remedy
    return Note(fact.text, with_file(hint, checkpoint), fact.keys, fact.level)


def _is_refused(operation: Operation, checkpoint: Checkpoint) -> bool:
    """True if a fact refuses to have this done to all tensors of the file."""
    facts = facts_of(checkpoint)
    return any(isinstance(fact.answer(Use(operation, fact.keys)), Refuse) for fact in facts)


def notes_of(checkpoint: Checkpoint) -> tuple[Note, ...]:
    """The sentences of all facts of a checkpoint.

    Example:
        >>> from pathlib import Path
        >>> from ckptool.core.format import Format
        >>> notes_of(Checkpoint(Path("a.pth"), Format("torch zip"), {}))[0].text
        'there are no tensors in it'
    """
    return tuple(note_of(fact, checkpoint) for fact in facts_of(checkpoint) if fact.is_listed)


def with_file(text: str, checkpoint: Checkpoint) -> str:
    """A hint with the file as a word for a command line."""
    return text.replace("{file}", shlex.quote(str(checkpoint.path)))
