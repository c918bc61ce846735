"""What differs between the models that two checkpoints are of, and which tensors that concerns."""

from __future__ import annotations

from collections.abc import Iterable

from ckptool.commands.diff.result import Change, Explained, Models, Status
from ckptool.core.checkpoint import Checkpoint
from ckptool.facts.architecture import Architecture, Part
from ckptool.facts.registry import facts_of
from ckptool.facts.signatures import pattern_of


def models_of(old: Checkpoint, new: Checkpoint, changes: Iterable[Change]) -> Models | None:
    """What differs between the first models that are known on both sides; None if there are none."""
    sides = [[fact for fact in facts_of(side) if isinstance(fact, Architecture)] for side in (old, new)]
    if not all(sides):
        return None
    before, after = _pair(*sides)
    parts = _parts(before, after)
    differing = [change for change in changes if change.status is not Status.SAME]
    explained = []
    taken: set[str] = set()
    for text, owned in parts.items():
        scopes = [
            pattern_of(at + scope)
            for part, owner in owned
            for scope in part.scopes
            for side in (before, after)
            for at in (side.prefixes if part.at is None or side is not owner else (part.at,))
        ]
        keys = {
            change.key
            for change in differing
            for tensor in (change.old, change.new)
            if tensor is not None and any(scope.fullmatch(tensor.key) for scope in scopes)
        } - taken
        taken |= keys
        if keys:
            explained.append(Explained(text, frozenset(keys)))
    return Models(before, after, _sentence(before, after, list(parts)), tuple(explained))


def _pair(olds: list[Architecture], news: list[Architecture]) -> tuple[Architecture, Architecture]:
    """The first two of one name; else the first of each side."""
    for old in olds:
        for new in news:
            if old.model == new.model:
                return old, new
    return olds[0], news[0]


def _parts(old: Architecture, new: Architecture) -> dict[str, list[tuple[Part, Architecture]]]:
    """Each difference in words, with the parts of either model that it is about."""
    found = {part.text: [(part, new)] for part in new.parts if part not in old.parts}
    found |= {f"without {part.text}": [(part, old)] for part in old.parts if part not in new.parts}
    if old.head != new.head:
        heads = [(side.head, side) for side in (new, old) if side.head is not None]
        texts = [side.head.text if side.head is not None else "nothing" for side in (new, old)]
        if texts[0] != texts[1]:  # a head of another name only is no other head
            found[" instead of ".join(texts)] = heads
    return found


def _sentence(old: Architecture, new: Architecture, differences: list[str]) -> str:
    if old.plain == new.plain:
        head = f"both are {new.plain}"
    elif old.model == new.model:
        head = f"both are {new.model}, with the names of {old.library} and of {new.library}"
    else:
        head = f"{old.plain} and {new.plain}"
    return f"{head}; the new one has {', '.join(differences)}" if differences else head
