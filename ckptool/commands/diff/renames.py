"""Renamed tensors: another key, equal spec, equal bytes.

Bytes are evidence only where they are particular. A tensor of one value (a fresh bias, a counter) or one that stands in
the file several times is taken for renamed only where its neighbours moved the same way; else it stays added and
removed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ckptool.core.tensor import Tensor
from ckptool.core.views import is_blown_up
from ckptool.engine.reading import Reader
from ckptool.values.pool import in_threads
from ckptool.values.shared import divide, label

_LITTLE = 1 << 16  # bytes that are looked at before a tensor is read whole


@dataclass(slots=True)
class _Candidate:
    """A tensor without a partner, and what is known of it so far: equal for tensors that may be the same."""

    key: str
    tensor: Tensor
    known: tuple[Hashable, ...]
    constant: bool = False


@dataclass(slots=True)
class _Group:
    """Keys of equal content."""

    constant: bool
    old: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)


def find_renames(
    removed: Mapping[str, Tensor], added: Mapping[str, Tensor], reader: Reader, threads: int = 2
) -> dict[str, str]:
    """Pairs removed tensors with added ones of equal spec and bytes; see the module for what counts as evidence.

    Reads only candidates: first a little of each tensor whose spec is on both sides, then all of those that may still
    be equal.

    Args:
        removed: tensors only in the old checkpoint.
        added: tensors only in the new one.
        reader: reads both.
        threads: how many at most.

    Returns:
        old key by new key.
    """
    old, new = _in_both(_candidates(removed), _candidates(added))
    for whole in (False, True):
        for candidate, (digest, constant) in _digests([*old, *new], reader, threads, whole=whole):
            candidate.known = (*candidate.known, digest)
            candidate.constant = constant
        old, new = _in_both(old, new)
    groups: dict[tuple[Hashable, ...], _Group] = {}
    for candidate in old:
        groups.setdefault(candidate.known, _Group(candidate.constant)).old.append(candidate.key)
    for candidate in new:
        groups[candidate.known].new.append(candidate.key)
    return _paired(list(groups.values()))


def _candidates(tensors: Mapping[str, Tensor]) -> list[_Candidate]:
    return [
        _Candidate(key, tensor, (tensor.dtype, tensor.shape, tensor.layout))
        for key, tensor in tensors.items()
        if tensor.layout != "meta" and tensor.elements and (tensor.parts or not is_blown_up(tensor))
    ]


def _in_both(old: list[_Candidate], new: list[_Candidate]) -> tuple[list[_Candidate], list[_Candidate]]:
    """Those that may still have a partner on the other side."""
    common = {candidate.known for candidate in old} & {candidate.known for candidate in new}
    return [c for c in old if c.known in common], [c for c in new if c.known in common]


def _digests(
    candidates: Sequence[_Candidate], reader: Reader, threads: int, *, whole: bool
) -> Iterator[tuple[_Candidate, tuple[str, bool]]]:
    """What is known of each candidate then. Little is read by every process, what is whole is shared out."""

    def digest(candidate: _Candidate) -> tuple[str, bool]:
        return _digest(candidate.tensor, reader, whole=whole)

    if not whole:
        yield from in_threads(digest, candidates, threads)
        return
    tensors = [candidate.tensor for candidate in candidates]
    part = divide("renames", map(label, tensors), (tensor.nbytes for tensor in tensors))
    places = {id(candidates[place]): place for place in part.todo}
    for place, (text, constant) in part.known.items():
        yield candidates[place], (text, constant)
    for candidate, result in in_threads(digest, [candidates[place] for place in part.todo], threads):
        part.leave(places[id(candidate)], result)
        yield candidate, result


def _digest(tensor: Tensor, reader: Reader, *, whole: bool) -> tuple[str, bool]:
    """A digest of the bytes (of the first few), and whether they are one element over and over."""
    digest = hashlib.blake2b(digest_size=16)
    size = tensor.nbytes // tensor.elements if tensor.nbytes % tensor.elements == 0 else 1
    first, constant = b"", True
    for block in reader.blocks(tensor, 1 << 20 if whole else _LITTLE):
        first = first or bytes(block[:size])
        constant = constant and bytearray(first * (len(block) // size)) == block
        digest.update(block)
        if not whole:
            break
    return digest.hexdigest(), constant


def _paired(groups: list[_Group]) -> dict[str, str]:
    pairs = {
        group.new[0]: group.old[0]
        for group in groups
        if not group.constant and len(group.old) == 1 and len(group.new) == 1
    }
    moves = _moves(pairs.items())
    for group in groups:
        news = set(group.new)
        for old in group.old if group.new[0] not in pairs else ():
            new = next((new for new in _moved(old, moves) if new in news), None)
            if new is not None:
                pairs[new] = old
                news.discard(new)
    done = {*pairs, *pairs.values()}
    for group in groups:
        if not group.constant:
            olds, news_left = _by_last_part(group.old, done), _by_last_part(group.new, done)
            pairs |= {news_left[part]: key for part, key in olds.items() if part in news_left}
    return pairs


def _moves(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Where modules went, by the tensors whose new key is certain: old module -> new module, the most frequent."""
    counts: dict[str, Counter[str]] = {}
    for new_key, old_key in pairs:
        old, new = old_key.split("."), new_key.split(".")
        same = next((i for i, (a, b) in enumerate(zip(old[::-1], new[::-1], strict=False)) if a != b), None)
        same = min(len(old), len(new)) if same is None else same
        for ends in {1, max(1, same)}:
            head = ".".join(old[: len(old) - ends])
            counts.setdefault(head, Counter())[".".join(new[: len(new) - ends])] += 1
    return {head: count.most_common(1)[0][0] for head, count in counts.items()}


def _moved(key: str, moves: Mapping[str, str]) -> Iterator[str]:
    """The key with each of its modules moved, the innermost first."""
    parts = key.split(".")
    for count in range(len(parts) - 1, -1, -1):
        head = moves.get(".".join(parts[:count]))
        if head is not None:
            yield ".".join([*([head] if head else []), *parts[count:]])


def _by_last_part(keys: list[str], done: set[str]) -> dict[str, str]:
    """The keys still without a partner by their last part, where no two share it."""
    found: dict[str, list[str]] = {}
    for key in keys:
        if key not in done:
            found.setdefault(key.rpartition(".")[2], []).append(key)
    return {part: those[0] for part, those in found.items() if len(those) == 1}
