"""What two units have in common by themselves: shapes, roles and words."""

from __future__ import annotations

import re
from collections.abc import Callable

from ckptool.matching.groups import is_named
from ckptool.matching.modules import Part, Shape, Unit
from ckptool.matching.relations import squeezed
from ckptool.matching.words import is_structure, vocabulary, words_of

_KINDS = (frozenset({"token", "pos", "patch", "type", "cls"}), frozenset("qkv"))
_NORM = re.compile(r"(Batch|Layer|Group|Instance|RMS|Rms)_?Norm(alization)?(\d?d)?$")
_NO_NORM = re.compile(r"(Lazy)?(NonDynamicallyQuantizable)?(Linear|Conv(Transpose)?\dd|Conv1D|Embedding|Bilinear)")
OPTIONAL = frozenset({"bias", "num_batches_tracked"})  # roles that one side may lack

Form = Callable[[Unit], tuple[Shape, ...]]
"""What two units must share to be compared."""


def signature(unit: Unit, io: bool = False) -> tuple[Shape, ...]:
    """What two units must share: the shapes of the main role in every instance, squeezed and as torch has them."""
    return tuple(oriented(shape, io) for shape in unit.shapes[unit.main])


def oriented(shape: Shape, io: bool) -> Shape:
    """``(i, o)`` and ``(h, w, i, o)`` as torch has them, squeezed."""
    if io and len(squeezed(shape)) == 2:
        return squeezed(shape)[::-1]
    if io and len(shape) == 2:
        shape = shape[::-1]
    elif io and len(shape) in (3, 4, 5):
        shape = (shape[-1], shape[-2], *shape[:-2])
    return squeezed(shape)


def similarity(source: Unit, target: Unit) -> float:
    """How much two units' words agree, 0 to 1.

    Example:
        >>> from ckptool.matching.cuts import units_of
        >>> from ckptool.core.spec import TensorSpec
        >>> one, other = (units_of({k: TensorSpec(k, "float32", (3,))})[0] for k in ("ln.weight", "norm.weight"))
        >>> similarity(one, other)
        1.0
    """
    ours, theirs = source.words, target.words
    whole = sum(ours.values()) + sum(theirs.values())
    return shared(source, target) / whole if whole else 0.0


def shared(source: Unit, target: Unit) -> float:
    """The weight of the words that both have, and of the names with numbers (``bn2``) that are not counted alike."""
    ours, theirs = source.words, target.words
    found = sum(worth + theirs[word] for word, worth in ours.items() if word in theirs)
    here, there = source.named, target.named
    if source.place and target.place:
        here, there = dict.fromkeys(here, source.place[1]), dict.fromkeys(there, target.place[1])
    if any(count < 2 or count != there.get(name, count) for name, count in here.items() if name in there):
        for mine, other in ((ours, theirs), (theirs, ours)):
            found += sum(worth for word, worth in mine.items() if "/" in word and word not in other)
    return found


def same_end(source: Unit, target: Unit) -> bool:
    """The shorter name is the end of the other; numbers that stand alone have the same place among their like."""
    return all(
        one.text == other.text
        and (one.rank == other.rank or (not one.text.isdigit() and _counts(one) != _counts(other)))
        for one, other in zip(reversed(source.path), reversed(target.path), strict=False)
    )


def _counts(part: Part) -> int:
    """Among how many of its like a number has its place."""
    return part.rank[1] if part.rank else 0


def named_words(source: Unit, target: Unit) -> set[str]:
    """The words that both names have, and that say something."""
    return {word for word in source.words.keys() & target.words.keys() if "/" not in word and not is_structure(word)}


def compatible(source: Unit, target: Unit) -> bool:
    """What only one has is optional, and nothing that is known of them says that they are of two kinds."""
    both = source.shapes.keys() & target.shapes.keys()
    optional = OPTIONAL | {"weight"} if "running_mean" in both else OPTIONAL
    if (source.shapes.keys() ^ target.shapes.keys()) - optional or (source.kind and target.kind):
        return False
    if not is_named(source, target) or not is_named(target, source) or _kinds(source, target) == {True, False}:
        return False
    return not contradicts(source, target) and not _are_opposite(source, target)


def _are_opposite(source: Unit, target: Unit) -> bool:
    """One is in an encoder, say, and the other in a decoder."""
    around = [{word for part in unit.path[:-1] for word in words_of(part.text)} for unit in (source, target)]
    return any(
        one in ours and other in theirs and one not in theirs and other not in ours
        for pairs, (ours, theirs) in (
            (vocabulary().opposites, (source.words.keys(), target.words.keys())),
            (vocabulary().opposites_around, around),
        )
        for pair in pairs
        for one, other in (pair, pair[::-1])
    )


def contradicts(source: Unit, target: Unit) -> bool:
    """The last parts name two different things of one kind: a table of words and one of places."""
    ours, theirs = ({*(unit.path[-1].said or words_of(unit.path[-1].text))} for unit in (source, target))
    return any(ours & kind and theirs & kind and not ours & theirs & kind for kind in _KINDS)


def _kinds(source: Unit, target: Unit) -> set[bool]:
    """Whether they are norms, as far as known classes tell, or a name where there is a class to compare it with."""
    if source.path[-1].text == target.path[-1].text:
        return set()
    known = {is_norm for unit in (source, target) if (is_norm := _is_norm(unit.made_of)) is not None}
    named = {True for unit in (source, target) if not unit.made_of and "norm" in words_of(unit.path[-1].text)}
    return known | named if known else set()


def _is_norm(made_of: str) -> bool | None:
    """What a class of torch and of those that everyone has says; None for classes that nobody knows."""
    if _NORM.search(made_of):
        return True
    return False if _NO_NORM.fullmatch(made_of) else None


def penalty(source: Unit, target: Unit) -> float:
    """For what does not fit quite: a bias that one lacks, another rank."""
    lacking = (source.shapes.keys() ^ target.shapes.keys()) - {"num_batches_tracked"}
    found = 0.15 * len(lacking)
    found += 0.1 * (len(source.shapes[source.main][0]) != len(target.shapes[target.main][0]))
    return found + 0.05 * (source.bare != target.bare)
