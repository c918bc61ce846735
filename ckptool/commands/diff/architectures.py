"""What differs between the models that two checkpoints are of, and which tensors that concerns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ckptool.commands.diff.result import Change, Changes, Explained, Models
from ckptool.core.checkpoint import Checkpoint
from ckptool.facts.architecture import Architecture, Part
from ckptool.facts.registry import facts_of
from ckptool.facts.signatures import pattern_of


@dataclass(frozen=True, slots=True)
class _Difference:
    """Something that one model has and the other has not.

    Attributes:
        text: it in words.
        is_new: the new one has it.
        parts: what it is about, each with its model.
    """

    text: str
    is_new: bool
    parts: tuple[tuple[Part, Architecture], ...]


def models_of(old: Checkpoint, new: Checkpoint, changes: Changes) -> Models | None:
    """What differs between the first models that are known on both sides; None if there are none."""
    sides = [[fact for fact in facts_of(side) if isinstance(fact, Architecture)] for side in (old, new)]
    if not all(sides):
        return None
    before, after = _pair(*sides)
    differences = tuple(_differences(before, after)) if before.model == after.model else ()
    differing = list(changes.differing) if differences else []
    explained = []
    taken: set[str] = set()
    for difference in differences:
        keys = _changed(difference, (before, after), differing) - taken
        taken |= keys
        if keys:
            explained.append(Explained(difference.text, frozenset(keys)))
    return Models(before, after, _sentence(before, after, differences), tuple(explained))


def _pair(olds: Sequence[Architecture], news: Sequence[Architecture]) -> tuple[Architecture, Architecture]:
    """The first two of one name; else the first of each side."""
    for old in olds:
        for new in news:
            if old.model == new.model:
                return old, new
    return olds[0], news[0]


def _differences(old: Architecture, new: Architecture) -> Iterator[_Difference]:
    for part in new.parts:
        if part not in old.parts:
            yield _Difference(part.text, True, ((part, new),))
    for part in old.parts:
        if part not in new.parts:
            yield _Difference(f"only the old one: {part.text}", False, ((part, old),))
    texts = [side.head.text if side.head is not None else "nothing" for side in (new, old)]
    if texts[0] != texts[1]:
        heads = tuple((side.head, side) for side in (new, old) if side.head is not None)
        yield _Difference(" instead of ".join(texts), True, heads)


def _changed(difference: _Difference, sides: Sequence[Architecture], changes: Iterable[Change]) -> set[str]:
    """The keys of the changes that a difference explains."""
    scopes = [
        pattern_of(at + scope)
        for part, owner in difference.parts
        for scope in part.scopes
        for side in sides
        for at in (side.prefixes if part.at is None or side is not owner else (part.at,))
    ]
    return {
        change.key
        for change in changes
        for tensor in (change.old, change.new)
        if tensor is not None and any(scope.fullmatch(tensor.key) for scope in scopes)
    }


def _sentence(old: Architecture, new: Architecture, differences: Sequence[_Difference]) -> str:
    """What differs; "" where nothing does."""
    if old.model != new.model:
        return f"the old one is {old.text}; the new one is {new.text}"
    if not differences and old.library == new.library:
        return ""
    head = f"both are {new.plain}"
    if old.library != new.library:
        head = f"both are {new.model}, with the names of {old.library} and of {new.library}"
    added = ", ".join(each.text for each in differences if each.is_new)
    gone = [each.text for each in differences if not each.is_new]
    return "; ".join([head, *([f"the new one has {added}"] if added else []), *gone])
