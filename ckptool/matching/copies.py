"""One source for several targets: equal towers of a model; and a head that may be its table of words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ckptool.core.checkpoint import Note
from ckptool.core.spec import TensorSpec
from ckptool.matching.modules import HUGE
from ckptool.matching.result import Confidence, Evidence, MatchReport, Pair
from ckptool.matching.words import vocabulary, words_of

Specs = Mapping[str, TensorSpec]
Copies = Mapping[str, tuple[str, ...]]

_FEWEST = 4  # tensors of a tower
_LARGE = 0.2  # of the file's tensors are in each of them
_DEEPEST = 3  # parts of its name
_MOST = 0.8  # of the first tower's tensors have a source, so that the others get the same


def twins_of(specs: Specs) -> list[tuple[str, ...]]:
    """The names of parts that hold the same tensors, the outermost alone; not those that are counted.

    Example:
        >>> specs = {f"{t}.{k}": TensorSpec(k, "float32", (3,)) for t in ("left", "right") for k in "abcd"}
        >>> twins_of(specs)
        [('left.', 'right.')]
    """
    if len(specs) > HUGE:
        return []
    inside: dict[str, dict[str, tuple[int, ...]]] = defaultdict(dict)
    for key, spec in specs.items():
        parts = key.split(".")
        for depth in range(1, min(_DEEPEST, len(parts) - 1) + 1):
            if any(char.isdigit() for char in parts[depth - 1]):
                break  # what is inside of a block is no tower
            inside[".".join(parts[:depth]) + "."][".".join(parts[depth:])] = spec.shape
    alike: dict[object, list[str]] = defaultdict(list)
    for name, rows in inside.items():
        if len(rows) >= max(_FEWEST, _LARGE * len(specs)):
            alike[name[:-1].rpartition(".")[0], frozenset(rows.items())].append(name)
    found: list[tuple[str, ...]] = []
    for names in sorted((tuple(row) for row in alike.values() if len(row) > 1), key=lambda row: len(row[0])):
        if not any(names[0].startswith(outer) for row in found for outer in row):
            found.append(names)
    return found


def told_apart(names: Sequence[str], others: Iterable[str]) -> bool:
    """A word of one of these towers alone is in the other side's keys, or says that it is a copy."""
    words = [frozenset(word for part in name.split(".") for word in words_of(part)) for name in names]
    own = frozenset().union(*words) - frozenset.intersection(*words)
    said = {word for key in others for part in key.replace("/", ".").split(".")[:_DEEPEST] for word in words_of(part)}
    return bool(own & (said | vocabulary().marks | set(vocabulary().copies)))


def with_twins(report: MatchReport, twins: Sequence[tuple[str, ...]], target: Specs) -> MatchReport:
    """The report, in which what the first of equal towers is made of makes the others as well."""
    for names in twins:
        first = names[0]
        mine = [pair for pair in report.accepted() if pair.targets[0].startswith(first)]
        if sum(len(pair.targets) for pair in mine) < _MOST * sum(key.startswith(first) for key in target):
            continue
        copied = [pair for pair in mine if not pair.layout and len(pair.targets) == 1]
        copies = {pair.targets[0]: tuple(name + pair.targets[0][len(first) :] for name in names[1:]) for pair in copied}
        report = with_copies(report, copies)
    return report


def with_copies(report: MatchReport, copies: Copies) -> MatchReport:
    """The report, in which the sources of some targets make other targets, too.

    Args:
        report: of a match.
        copies: the other targets, by the one that has a source.
    """

    def extended(pair: Pair) -> Pair:
        more = copies.get(pair.targets[0], ()) if len(pair.targets) == 1 else ()
        return replace(pair, targets=pair.targets + more, evidence=(*pair.evidence, Evidence.TWINS)) if more else pair

    made = {key for row in copies.values() for key in row}
    left_over = tuple(key for key in report.unmatched_targets if key not in made)
    return replace(report, pairs=tuple(map(extended, report.pairs)), unmatched_targets=left_over)


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
    for names in twins_of(source):
        if not any(key.startswith(names) for key in used):
            said = ", ".join(f'"{name[:-1]}"' for name in names)
            return (Note(f"parts of the source fit alike: {said}", f"take one: --select {names[0][:-1]}"),)
    return ()


def one_tower_note(report: MatchReport, target: Specs) -> tuple[Note, ...]:
    """That the target takes the source in several places, of which one got it."""
    made = {key for pair in report.accepted() for key in pair.targets}
    for names in twins_of(target):
        filled = [name for name in names if any(key.startswith(name) for key in made)]
        if len(filled) != 1:
            continue
        texts = [rule.text for rule in report.rules if rule.confidence.within(Confidence.ALIGNED)]
        texts = [f"{{m**}} {text}{{m**}}" if text.startswith("-> ") else text for text in texts]
        rules = [text.partition(" -> ") for text in texts]
        into = [(left, right) for left, _, right in rules if right.startswith(filled[0]) and not set("|,") & {*right}]
        if len(into) != 1:
            continue
        left, right = into[0]
        said = " and ".join(f'"{name}"' for name in names)
        every = ", ".join(name + right.removeprefix(filled[0]) for name in names)
        text = f'the model takes them {len(names)} times, under {said}: "{filled[0]}" got them'
        return (Note(text, f'for all: -r "{left} -> {every}"'),)
    return ()
