"""One source for several targets: equal towers of a model; and a head that may be its table of words."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from itertools import combinations

from ckptool.core.checkpoint import Note
from ckptool.core.keys import common_prefix
from ckptool.core.spec import TensorSpec
from ckptool.matching.modules import HUGE
from ckptool.matching.result import Confidence, Evidence, MatchReport, Pair
from ckptool.matching.words import vocabulary, words_of

Specs = Mapping[str, TensorSpec]
Copies = Mapping[str, tuple[str, ...]]

_FEWEST = 4  # tensors of a tower
_LARGE, _INSIDE = 0.2, 0.4  # of the file's tensors are in each of them; where they are inside of blocks
_ALIKE = 0.8  # of what is in one is in the other under the same name, and of that so much has the same shape
_MOST = 0.5  # of the first tower's tensors have a source, so that the others get the same
_BOTH = 0.8  # of what all towers hold is in the other file, which has as many then
_RIVALS = 6  # towers that share a name, at most
_TOKEN, _NUMBERED = re.compile(r"[^._/]+"), re.compile(r"\d")


@dataclass(frozen=True, slots=True)
class Twins:
    """Parts of a file that hold the same, and are called by one word each: ``rgb.stem``, ``depth.stem``.

    Attributes:
        words: one for each, the one that has most in common with the other file first.
        inside: their keys by word, with a word that stands for all of them in its place.
    """

    words: tuple[str, ...]
    inside: Mapping[str, Mapping[str, str]]

    def keys(self, word: str) -> Iterable[str]:
        """What is in one of them."""
        return self.inside[word].values()

    def beginning(self, word: str) -> str:
        """What all keys of one of them begin with."""
        return common_prefix(self.keys(word)).rpartition(word)[0] + word

    def copies(self) -> Copies:
        """For each key of the first one the keys of the others that are the same."""
        first, *rest = (self.inside[word] for word in self.words)
        return {key: tuple(other[plain] for other in rest if plain in other) for plain, key in first.items()}


def twins_of(specs: Specs, other: Specs | None = None) -> list[Twins]:
    """The parts that hold the same under the same names, but for one word; not those that are counted.

    Args:
        specs: a file.
        other: that beside which it lies.

    Example:
        >>> specs = {f"{t}.{k}.bias": TensorSpec(k, "float32", (3,)) for t in ("left", "right") for k in "abcd"}
        >>> [twins.words for twins in twins_of(specs)]
        [('left', 'right')]
    """
    if len(specs) > HUGE:
        return []
    inside = _by_word(specs)
    place = {word: at for at, word in enumerate(inside)}
    known = {spec.shape for spec in (other or {}).values()}
    found: list[Twins] = []
    used: set[str] = set()
    for row in sorted(_alike(inside, specs), key=lambda row: min(place[word] for word in row)):
        keys = {key for word in row for key in inside[word].values()}
        if used.isdisjoint(keys) and not _are_opposite(row):
            used |= keys
            common = {word: sum(specs[key].shape in known for key in inside[word].values()) for word in row}
            words = sorted(row, key=lambda word: (-common[word], place[word]))
            found.append(Twins(tuple(words), {word: inside[word] for word in words}))
    return found


def _by_word(specs: Specs) -> dict[str, dict[str, str]]:
    """By each word of names, and by the key without it: the key."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for key in specs:
        seen = set()
        for token in _TOKEN.finditer(key, 0, max(key.rfind("."), key.rfind("/"), 0)):
            if token[0] not in seen and token[0].isalpha():
                seen.add(token[0])
                found[token[0]][f"{key[: token.start()]}*{key[token.end() :]}"] = key
    return found


def _alike(inside: Mapping[str, Mapping[str, str]], specs: Specs) -> set[frozenset[str]]:
    """The words that stand for each other in all names that have one of them."""
    beside: dict[str, list[str]] = defaultdict(list)
    for word, keys in inside.items():
        for plain in keys:
            beside[plain].append(word)
    counts: Counter[tuple[str, str]] = Counter()
    equal: Counter[tuple[str, str]] = Counter()
    for plain, words in beside.items():
        for pair in combinations(sorted(words), 2) if len(words) <= _RIVALS else ():
            counts[pair] += 1
            equal[pair] += specs[inside[pair[0]][plain]].shape == specs[inside[pair[1]][plain]].shape
    rows: dict[str, frozenset[str]] = {}
    for pair, count in counts.items():
        least = max(_FEWEST, *(max(_least(inside[word], specs), _ALIKE * len(inside[word])) for word in pair))
        if count >= least and equal[pair] >= _ALIKE * count:
            row = frozenset(pair).union(*(rows.get(word, ()) for word in pair))
            rows |= dict.fromkeys(row, row)
    return {*rows.values()}


def _least(inside: Mapping[str, str], specs: Specs) -> float:
    """How much there must be in a tower of this file."""
    is_inner = any(char.isdigit() for plain in inside for char in plain.partition("*")[0])
    return (_INSIDE if is_inner else _LARGE) * len(specs)


def _are_opposite(words: AbstractSet[str]) -> bool:
    said = {said for word in words for said in words_of(word)}
    return any(said.issuperset(pair) for pair in vocabulary().opposites)


def told_apart(twins: Twins, target: Specs, source: Specs) -> bool:
    """The source has as many parts; or a word of one of them alone is in its names, before their numbers."""
    wanted = Counter(target[key].shape for word in twins.words for key in twins.keys(word))
    known = Counter(spec.shape for spec in source.values())
    if (known & wanted).total() >= _BOTH * wanted.total():
        return True
    own = {word for text in twins.words for word in words_of(text)}
    outer = {part for key in source for part in _NUMBERED.split(key, maxsplit=1)[0].replace("/", ".").split(".")[:-1]}
    return any(word in own for part in outer for word in words_of(part))


def with_twins(report: MatchReport, twins: Sequence[Twins], target: Specs) -> MatchReport:
    """The report, in which what the first of equal towers is made of makes the others as well."""
    for row in twins:
        first = {*row.keys(row.words[0])}
        mine = [pair for pair in report.accepted() if first.issuperset(pair.targets)]
        if sum(len(pair.targets) for pair in mine) < _MOST * len(first):
            continue
        copies = row.copies()
        same = {
            key: tuple(twin for twin in copies[key] if target[twin].shape == target[key].shape)
            for pair in mine
            for key in pair.targets
        }
        report = with_copies(report, same)
    return report


def with_copies(report: MatchReport, copies: Copies) -> MatchReport:
    """The report, in which the sources of some targets make other targets, too.

    Args:
        report: of a match.
        copies: the other targets, by the one that has a source.
    """
    made: set[str] = set()

    def extended(pair: Pair) -> Pair:
        rows = [copies.get(key, ()) for key in pair.targets]
        more = tuple(key for row in zip(*rows, strict=False) for key in row)
        is_chain = len(pair.targets) > 1 and " | " in pair.layout
        if not more or len({*map(len, rows)}) > 1 or is_chain:
            return pair
        made.update(more)
        *steps, last = pair.layout.rpartition(" -> ")
        layout = "".join([*steps, ", ".join([last] * (1 + len(rows[0])))]) if pair.layout else ""
        return replace(pair, targets=pair.targets + more, layout=layout, evidence=(*pair.evidence, Evidence.TWINS))

    pairs = tuple(map(extended, report.pairs))
    left_over = tuple(key for key in report.unmatched_targets if key not in made)
    return replace(report, pairs=pairs, unmatched_targets=left_over)


def tied_head(report: MatchReport, source: Specs, target: Specs) -> tuple[Note, ...]:
    """That the target's head may be its table of words, where the source has none: files leave tied heads out."""
    if any("head" in _last(key) for key in source):
        return ()
    heads = [key for key in report.unmatched_targets if key.endswith(".weight") and "head" in _last(key)]
    tables = [
        pair
        for pair in report.accepted()
        if len(pair.targets) == len(pair.sources) == 1 and not pair.layout and "token" in _last(pair.targets[0])
    ]
    if len(heads) != 1 or len(tables) != 1 or target[heads[0]].shape != target[tables[0].targets[0]].shape:
        return ()
    text = f"{heads[0]} has no source; a head that is tied is its table of words"
    rule = f"{tables[0].sources[0]} -> {tables[0].targets[0]}, {heads[0]}"
    return (Note(text, f'if it is: -r "{rule}"', (heads[0],)),)


def _last(key: str) -> tuple[str, ...]:
    """The words of the module that a tensor is in."""
    return words_of(key.replace("/", ".").rpartition(".")[0].rpartition(".")[2])


def twin_note(report: MatchReport, source: Specs) -> tuple[Note, ...]:
    """Which parts of the source fit alike, where nothing says which is meant."""
    used = {key for pair in report.pairs if pair.confidence.within(Confidence.ALIGNED) for key in pair.sources}
    for twins in twins_of(source):
        if used.isdisjoint(key for word in twins.words for key in twins.keys(word)):
            names = [*map(twins.beginning, twins.words)]
            said = ", ".join(f'"{name}"' for name in names)
            return (Note(f"parts of the source fit alike: {said}", f"take one: --select {names[0]}"),)
    return ()


def one_tower_note(report: MatchReport, target: Specs) -> tuple[Note, ...]:
    """That the target takes the source in several places, of which one got it."""
    made = {key for pair in report.accepted() for key in pair.targets}
    for twins in twins_of(target):
        filled = [word for word in twins.words if not made.isdisjoint(twins.keys(word))]
        if len(filled) != 1:
            continue
        names = [f"{twins.beginning(word)}." for word in twins.words]
        (first,) = (name for name, word in zip(names, twins.words, strict=True) if word == filled[0])
        texts = [rule.text for rule in report.rules if rule.confidence.within(Confidence.ALIGNED)]
        texts = [f"{{m**}} {text}{{m**}}" if text.startswith("-> ") else text for text in texts]
        rules = [text.partition(" -> ") for text in texts]
        into = [(left, right) for left, _, right in rules if right.startswith(first) and not set("|,") & {*right}]
        if len(into) != 1:
            continue
        left, right = into[0]
        said = " and ".join(f'"{name}"' for name in names)
        every = ", ".join(name + right.removeprefix(first) for name in names)
        text = f'the model takes them {len(names)} times, under {said}: "{first}" got them'
        return (Note(text, f'for all: -r "{left} -> {every}"'),)
    return ()
