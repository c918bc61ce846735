"""What a match finds: pairs of tensors, why, and the rules that say the same in a few lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, StrEnum

from ckptool.core.checkpoint import Note


class Confidence(StrEnum):
    """How sure a pair is, the surest first.

    CERTAIN: same name and shape, in the same surroundings. UNIQUE: no other tensor has this shape, and the names or the
    neighbours agree. ALIGNED: at least two independent signals agree and none disagrees. GUESS: one signal alone.
    INTERCHANGEABLE: others fit just as well, and only the order in the files speaks.
    """

    CERTAIN = "certain"
    UNIQUE = "unique"
    ALIGNED = "aligned"
    GUESS = "guess"
    INTERCHANGEABLE = "interchangeable"

    @property
    def rank(self) -> int:
        """0 for the surest.

        Example:
            >>> Confidence.UNIQUE.rank < Confidence.GUESS.rank
            True
        """
        return _RANKS[self]

    def within(self, accept: Confidence) -> bool:
        """It is as sure as `accept`, or surer.

        Example:
            >>> Confidence.CERTAIN.within(Confidence.ALIGNED), Confidence.GUESS.within(Confidence.ALIGNED)
            (True, False)
        """
        return self.rank <= accept.rank


class Group(StrEnum):
    """Kinds of evidence that do not depend on each other; CLASS is what the classes of a model say."""

    WORDS = "words"
    STRUCTURE = "structure"
    ORDER = "order"
    CLASS = "class"


class Evidence(Enum):
    """What speaks for a pair, or against it: its group, and how much it tells, 0 to 1; below 0 for what objects."""

    SAME_NAME = "same name", Group.WORDS, 1.0
    ONLY_OF_SHAPE = "only of shape", Group.STRUCTURE, 0.95
    PAIR_OFF = "pair off", Group.WORDS, 0.9
    SAME_SEQUENCE = "same sequence", Group.ORDER, 0.85
    LAST_OF_SHAPE = "last of shape", Group.STRUCTURE, 0.8
    WORDS_AGREE = "words agree", Group.WORDS, 0.75
    SAME_UNDER_PREFIX = "same name under a prefix", Group.WORDS, 0.98
    SAME_SHAPES = "same shapes on both sides", Group.STRUCTURE, 0.5
    SAME_BLOCKS = "same blocks", Group.STRUCTURE, 0.45
    SAME_TABLE = "same table", Group.STRUCTURE, 0.6
    NEIGHBOURS_AGREE = "neighbours agree", Group.STRUCTURE, 0.5
    BESIDE = "beside its matrix", Group.STRUCTURE, 0.7
    ORDER_AGREES = "order agrees", Group.ORDER, 0.4
    BEST_OF_SHAPE = "best of shape", Group.WORDS, 0.5
    ONLY_ORDER = "only order", Group.ORDER, 0.1
    MOST_MATCH = "most match", Group.STRUCTURE, 0.2
    TWINS = "twins", Group.STRUCTURE, 0.99
    OTHER_SHAPE = "other shape", Group.STRUCTURE, 0.0
    NO_COUNTERPART = "no counterpart", Group.STRUCTURE, 0.0
    SQUARE = "square", Group.STRUCTURE, -0.5
    OTHER_BLOCKS = "other blocks", Group.STRUCTURE, -0.5
    CROSSED = "crossed", Group.ORDER, -0.5
    NAMESAKE = "namesake", Group.WORDS, -0.5
    TWIN = "twin", Group.STRUCTURE, -0.5
    REARRANGED = "rearranged", Group.WORDS, -0.5
    UNDIVIDED = "undivided", Group.WORDS, -0.5
    SPLIT = "split", Group.STRUCTURE, -0.5
    NO_WORD = "no word", Group.WORDS, -0.5
    MIRRORED = "mirrored", Group.ORDER, -0.5

    def __init__(self, slug: str, group: Group, weight: float) -> None:
        self.slug, self.group, self.weight = slug, group, weight

    @property
    def objects(self) -> bool:
        """It speaks against the pair.

        Example:
            >>> Evidence.TWIN.objects, Evidence.WORDS_AGREE.objects, Evidence.WORDS_AGREE.group
            (True, False, <Group.WORDS: 'words'>)
        """
        return self.weight < 0

    @property
    def is_name(self) -> bool:
        """It says that the names are the same, all of them or what stands behind a prefix."""
        return self in (Evidence.SAME_NAME, Evidence.SAME_UNDER_PREFIX)


_NEAR = 0.3  # of the score of the best, at most: the runner-up is worth a look
_RANKS = {one: at for at, one in enumerate(Confidence)}


@dataclass(frozen=True, slots=True)
class Pair:
    """Tensors of the source that become tensors of the target.

    Attributes:
        targets: one key nearly always; several where one source is split.
        sources: one key nearly always; several where they are joined.
        layout: what is done with the axes, in the recipe language; "" for nothing.
        evidence: what speaks for it, and what objects.
        confidence: how sure it is.
        runner_up: the key of the next best source and its score, where there is one.
        score: what all signals give it, to compare with the runner-up's; 0 where its place in the file decided.
        shapes: those of source and target, where they differ and no layout makes one of the other.
    """

    targets: tuple[str, ...]
    sources: tuple[str, ...]
    layout: str = ""
    evidence: tuple[Evidence, ...] = ()
    confidence: Confidence = Confidence.CERTAIN
    runner_up: tuple[str, float] | None = None
    score: float = 0.0
    shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None


@dataclass(frozen=True, slots=True)
class MatchRule:
    """One line of the recipe language that says what many pairs say.

    Attributes:
        text: the rule.
        pairs: those that it makes, all of them and no others.
        evidence: why, for the comment above it.
        confidence: that of its least sure pair.
    """

    text: str
    pairs: tuple[Pair, ...]
    evidence: tuple[Evidence, ...]
    confidence: Confidence

    @property
    def rival(self) -> tuple[str, float] | None:
        """The runner-up that comes nearest to what was chosen; of a rule that is sure only if that is near.

        Example:
            >>> pair = Pair(("a",), ("b",), confidence=Confidence.ALIGNED, runner_up=("c", 0.8), score=1.0)
            >>> MatchRule("b -> a", (pair,), (), Confidence.ALIGNED).rival
            ('c', 0.8)
        """
        rows = [(pair.score - pair.runner_up[1], pair.runner_up) for pair in self.pairs if pair.runner_up]
        gap, rival = min(rows, key=lambda row: row[0], default=(0.0, None))
        return rival if gap <= _NEAR or not self.confidence.within(Confidence.ALIGNED) else None


@dataclass(frozen=True, slots=True)
class Candidate:
    """One pair that was possible, with its signals, each 0 to 1.

    Attributes:
        targets: the keys that would be made.
        sources: of these.
        words: how much the names agree.
        lacking: what does not fit quite, which is taken off.
        around: how much of what lies around the one lies around the other; None where nothing was known.
        siblings: the same of the module they are in alone.
        blocks: how much the blocks of both lists hold the same shapes; None outside of lists.
        order: how much of the block stands on the same side of both; None where the order says nothing.
        total: all together.
    """

    targets: tuple[str, ...]
    sources: tuple[str, ...]
    words: float
    lacking: float
    around: float | None
    siblings: float | None
    blocks: float | None
    order: float | None
    total: float


@dataclass(frozen=True, slots=True, eq=False)
class MatchReport:
    """Which source tensors belong to which target tensors.

    Attributes:
        pairs: in the target's order, of every confidence.
        unmatched_targets: keys that no pair names.
        unmatched_sources: the same for the source.
        notes: what headers cannot decide, where it matters.
        rules: the pairs as rules, in the order in which a recipe has them.
        weighed: every candidate with its signals, to be asked for a key.
        reshaped: what no pair names, and belongs together by its names though shapes differ.
        reshaped_rules: the same as rules, for those who fit tensors to other shapes.
    """

    pairs: tuple[Pair, ...]
    unmatched_targets: tuple[str, ...]
    unmatched_sources: tuple[str, ...]
    notes: tuple[Note, ...] = ()
    rules: tuple[MatchRule, ...] = ()
    reshaped: tuple[Pair, ...] = ()
    reshaped_rules: tuple[MatchRule, ...] = ()
    weighed: Callable[[str], list[Candidate]] | None = None

    def accepted(self, accept: Confidence = Confidence.ALIGNED) -> tuple[Pair, ...]:
        """The pairs that are as sure as `accept`, or surer."""
        return tuple(pair for pair in self.pairs if pair.confidence.within(accept))


def least_sure(found: Iterable[Confidence]) -> Confidence:
    """The least sure of some.

    Example:
        >>> least_sure([Confidence.CERTAIN, Confidence.ALIGNED])
        <Confidence.ALIGNED: 'aligned'>
    """
    return max(found, key=lambda one: one.rank)
