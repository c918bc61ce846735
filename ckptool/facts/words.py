"""A fact as the sentence that reports show."""

from __future__ import annotations

import shlex

from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.facts import Fact
from ckptool.facts.registry import facts_of


def note_of(fact: Fact, checkpoint: Checkpoint) -> Note:
    """The sentence of a fact, with the file's name in what to type."""
    return Note(fact.text, with_file(fact.hint, checkpoint), fact.keys, fact.level)


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
