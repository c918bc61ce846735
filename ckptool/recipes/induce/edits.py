"""One renaming as two that do not know of each other: what its keys begin with, and what is inside.

``encoder.blocks.3.attn.query.weight -> model.encoder.layers.3.self_attn.q_proj.weight`` is what two short rules do,
each to its part: ``encoder.blocks.{l}. -> model.encoder.layers.{l}.`` and ``.attn.query. -> .self_attn.q_proj.``. Of
all ways to cut the keys the one is taken whose rules are the fewest and shortest: a rule that many keys need costs each
of them little.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ckptool.recipes.induce.lines import Said

Parts = tuple[str, ...]

_ROUNDS = 4
_SAMPLE = 8  # pairs of one form that are looked at to know whether a cut holds for all
_RUN = re.compile("[0-9]+")
_RULE = 12  # what a rule costs, as characters
_NUMBER = 3  # what a number costs more than others
_WRONG = 0.34  # as many keys that a rule is wrong for as those it is right for, at most: they get rules of their own


@dataclass(frozen=True, slots=True)
class Edit:
    """A run of parts that becomes another, numbers as ``#``.

    Attributes:
        old: the parts.
        new: what they become; several where a tensor gets several names.
        where: "head" where keys begin with it, "inside", "end", or "key" where it is all of it.
        layout: what is done with the axes.
    """

    old: Parts
    new: tuple[Parts, ...]
    where: str
    layout: str = ""

    @property
    def cost(self) -> int:
        """Characters."""
        text = "".join((*self.old, *(part for row in self.new for part in row), self.layout))
        return _RULE + len(text) + _NUMBER * text.count("#")


@dataclass(frozen=True, slots=True)
class Cut:
    """One way to say a renaming: up to two edits, and where they are in a key.

    Attributes:
        head: what the key begins with; None if that stays.
        inner: what is behind it; None if that stays.
        begin: of the inner run in the source's parts.
        end: of it.
        starts: where it begins in each target.
    """

    head: Edit | None
    inner: Edit | None
    begin: int
    end: int
    starts: tuple[int, ...]

    @property
    def edits(self) -> tuple[Edit, ...]:
        return tuple(edit for edit in (self.head, self.inner) if edit)


@dataclass(slots=True)
class Form:
    """Pairs whose keys differ in numbers only."""

    old: Parts
    new: tuple[Parts, ...]
    layout: str
    said: list[Said] = field(default_factory=list)
    rows: list[tuple[Parts, tuple[Parts, ...]]] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)

    @property
    def sample(self) -> list[tuple[Parts, tuple[Parts, ...]]]:
        """Some of the rows, the first and the last among them."""
        return [*self.rows[:: -(-len(self.rows) // _SAMPLE)], self.rows[-1]]


def common_prefixes(pairs: Sequence[Said]) -> tuple[Parts, Parts]:
    """What all sources begin with, and what all targets begin with; a part that is a number never follows them."""
    rows = [pair.sources[0].split(".") for pair in pairs], [key.split(".") for pair in pairs for key in pair.targets]
    ours, theirs = (_common([row[:-1] for row in side]) for side in rows)
    while ours and theirs and ours[-1] == theirs[-1]:
        ours, theirs = ours[:-1], theirs[:-1]
    while any(
        row[len(some)].isdigit() for some, side in zip((ours, theirs), rows, strict=True) if some for row in side
    ):
        ours, theirs = ours[:-1], theirs[:-1]
    return ours, theirs


def _common(rows: Sequence[Sequence[str]]) -> Parts:
    found = []
    for column in zip(*rows, strict=False):
        if len(set(column)) > 1:
            break
        found.append(column[0])
    return tuple(found)


def forms_of(pairs: Iterable[Said], prefixes: tuple[Parts, Parts]) -> list[Form]:
    """The pairs, one source each, by what is left of their keys without these prefixes, and without numbers."""
    ours, theirs = (len(".".join(parts)) + bool(parts) for parts in prefixes)
    found: dict[object, Form] = {}
    for pair in pairs:
        source, targets = pair.sources[0][ours:], [key[theirs:] for key in pair.targets]
        name = _RUN.sub("#", source), tuple(_RUN.sub("#", key) for key in targets), pair.layout
        if name not in found:
            found[name] = Form(tuple(name[0].split(".")), tuple(tuple(n.split(".")) for n in name[1]), pair.layout)
        form = found[name]
        form.said.append(pair)
        form.rows.append((tuple(source.split(".")), tuple(tuple(key.split(".")) for key in targets)))
    return [*found.values()]


def chosen_cuts(forms: Sequence[Form]) -> list[Cut]:
    """The cut of each form; that of names which stay as they are has no edits."""
    for form in forms:
        form.cuts = [*_cuts(form)]
    _keep_true(forms)
    counts = Counter(edit for form in forms for edit in {edit for cut in form.cuts for edit in cut.edits})
    found: list[Cut] = []
    for _ in range(_ROUNDS):
        found = [min(form.cuts, key=lambda cut: (_cost(cut, counts), bool(cut.inner))) for form in forms]
        new = Counter(edit for cut in found for edit in cut.edits)
        if new == counts:
            break
        counts = new
    return found


def _cost(cut: Cut, counts: Counter[Edit]) -> float:
    return sum(edit.cost / max(1, counts[edit]) for edit in cut.edits)


def _cuts(form: Form) -> Iterator[Cut]:
    """All ways to say the renaming of a form, that as a whole the first."""
    old, new, rows = form.old, form.new, form.sample
    same = 0
    shortest = min(len(old), *map(len, new))
    while not form.layout and same < shortest and _is_same_end(rows, same):
        same += 1
    if not form.layout and new == (old,) and same == len(old):
        yield Cut(None, None, 0, 0, (0,))
        return
    yield Cut(None, Edit(old, new, "key", form.layout), 0, len(old), (0,) * len(new))
    for behind in {same, max(same - 1, 0)}:
        core, cores = old[: len(old) - behind], tuple(one[: len(one) - behind] for one in new)
        for at in range(len(core) + 1):
            for size in range(min(map(len, cores)) + 1):  # of what the inner run becomes
                if cut := _cut(form.layout, (core, cores), (at, size), behind < same, rows):
                    run = cut.inner and replace(cut.inner, where="inside" if behind else "end")
                    yield replace(cut, inner=run)


def _cut(
    layout: str,
    cores: tuple[Parts, tuple[Parts, ...]],
    place: tuple[int, int],
    has_end: bool,
    rows: Sequence[tuple[Parts, tuple[Parts, ...]]],
) -> Cut | None:
    """One way to cut.

    Args:
        layout: what is done with the axes.
        cores: the parts of both sides that an edit may name.
        place: where the inner run begins on the left, and how long it is on the right.
        has_end: the last part of the cores is the same on both sides.
        rows: keys of the form.
    """
    (old, new), (at, size) = cores, place
    inner, becomes = old[at:], {one[len(one) - size :] for one in new}
    heads = tuple(one[: len(one) - size] for one in new)
    if len(becomes) > 1 or bool(inner) != bool(size) or (layout and not inner):
        return None
    (ends,) = becomes
    changed = (*inner[:-1], *ends[:-1]) if has_end else inner
    if inner and not re.search("[^#]", "".join(changed)):
        return None  # a number alone is found in too many places
    if any(not one for one in (old[:at], *heads)) and (at or any(heads)):
        return None  # what is put before keys, or taken from them, is so for all
    starts = tuple(map(len, heads))
    if not _holds(rows, at, len(old), starts, size):
        return None
    first = [(ours[:at], theirs[0][: starts[0]]) for ours, theirs in rows]
    last = [(ours[at : len(old)], theirs[0][starts[0] : starts[0] + size]) for ours, theirs in rows]
    head = None if len(heads) == 1 and all(a == b for a, b in first) else Edit(old[:at], heads, "head")
    if inner and not layout and all(a == b for a, b in last):
        return None
    run = Edit(inner, (ends,), "inside", layout) if inner else None
    return Cut(head, run, at, len(old), starts) if head or run else None


def _is_same_end(rows: Sequence[tuple[Parts, tuple[Parts, ...]]], at: int) -> bool:
    """The part so far from the end is the same on both sides."""
    return all(ours[-1 - at] == one[-1 - at] for ours, theirs in rows for one in theirs)


def _holds(
    rows: Sequence[tuple[Parts, tuple[Parts, ...]]], at: int, end: int, starts: Sequence[int], size: int
) -> bool:
    """Numbers in the head depend on those in the head alone, and inside on those inside."""
    heads: dict[Parts, object] = {}
    runs: dict[Parts, object] = {}
    for ours, theirs in rows:
        after = tuple(one[:start] for one, start in zip(theirs, starts, strict=True))
        inside = {one[start : start + size] for one, start in zip(theirs, starts, strict=True)}
        if len(inside) > 1:
            return False
        if heads.setdefault(ours[:at], after) != after or runs.setdefault(ours[at:end], inside) != inside:
            return False
    return True


def _keep_true(forms: Sequence[Form]) -> None:
    """Leaves cuts out whose inner rule would meet many other keys that it is wrong for, there or back."""
    able: dict[_Run, set[int]] = defaultdict(set)
    there, back = _Runs(), _Runs()
    for number, form in enumerate(forms):
        for ours, theirs in form.sample:
            there.add(number, ours)
            for one in theirs:
                back.add(number, one)
        for cut in form.cuts:
            for run in _inner_runs(cut, form):
                able[run].add(number)
    for form in forms:
        rows = [(cut, [_is_right(run, able, there, back) for run in _inner_runs(cut, form)]) for cut in form.cuts]
        form.cuts = [cut for cut, right in rows if all(right)]


def _is_right(run: _Run, able: Mapping[_Run, set[int]], there: _Runs, back: _Runs) -> bool:
    """Few keys have what a rule replaces, or what it makes, and are meant otherwise."""
    mine = able[run]
    others = max(there.others(run.old, run.where, mine), back.others(run.new, run.where, mine))
    return others <= _WRONG * len(mine)


def _inner_runs(cut: Cut, form: Form) -> Iterator[_Run]:
    """What the inner rule of a cut replaces in some keys, and by what."""
    if cut.inner and cut.inner.where != "key":
        size = len(cut.inner.new[0])
        for ours, theirs in form.sample:
            new = theirs[0][cut.starts[0] : cut.starts[0] + size]
            yield _Run(ours[cut.begin : cut.end], new, cut.inner.where, cut.inner.layout)


@dataclass(frozen=True, slots=True)
class _Run:
    """What a rule replaces in a key, and by what, numbers as they are."""

    old: Parts
    new: Parts
    where: str
    layout: str


class _Runs:
    """In which forms a run of parts is found, inside of keys or at their end."""

    def __init__(self) -> None:
        self.found: dict[tuple[Parts, str], set[int]] = defaultdict(set)

    def add(self, form: int, key: Parts) -> None:
        """Takes the runs of a key of a form in."""
        size = len(key)
        for begin in range(size):
            self.found[key[begin:], "end"].add(form)
            for end in range(begin + 1, size):
                self.found[key[begin:end], "inside"].add(form)

    def others(self, run: Parts, where: str, forms: set[int]) -> int:
        """How many forms have it besides some."""
        return len(self.found[run, where] - forms)
