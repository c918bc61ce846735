"""A transplant as rows: how much of each module is loaded, and what became of every key, rolled up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence

from ckptool.commands.transplant.result import Transplant
from ckptool.commands.transplant.shares import Share, State, share_of
from ckptool.core.counts import many
from ckptool.core.fold import Group, rollup
from ckptool.core.reasons import ByRules, DoesNotFit, Kept, NoSuchKey, RuleName, Tie
from ckptool.core.spec import DTYPES
from ckptool.models.entries import Entry, Filled
from ckptool.report.cells import Cell, Row, share_text
from ckptool.report.reasons import dropped_text, reason_text
from ckptool.report.symbols import LOOKED_FOR, Style
from ckptool.report.units import count

_MANY_MODULES = 30
_FEW_PARTS = 8  # rows of one module
_FEW_ALIKE = 3  # of these that are loaded alike
_MANY_SHAPES = 6  # rows that differ in their shapes only
_LONE = 0.75  # share of the keys that makes a module a wrapper around the model


SYMBOLS: Mapping[str, str] = {
    "filled": "=",
    "renamed": ">",
    "computed": "*",
    "cast": "~",
    "fitted": "*",
    "mismatched": "!",
    "missing": "-",
    "new": "-",
    "harmless": "-",
    "unexpected": "+",
    "dropped": "-",
}
"""The statuses in the order of the table."""


def module_rows(transplant: Transplant, depth: int | None = None) -> list[Row]:
    """The target's modules to a depth: their names, how many tensors are loaded, and which share that is.

    By default the top level, opened where one module wraps nearly everything, and where it is partly loaded.
    """
    keys = [entry.key for entry in transplant.entries]
    names = [_name(key, depth or 1) for key in keys]
    for _ in range(3 if depth is None else 0):
        names = _opened(keys, names)
    groups: dict[str, list[Entry]] = {}
    for name, entry in zip(names, transplant.entries, strict=True):
        groups.setdefault(name, []).append(entry)
    new = transplant.new
    if len(groups) > _MANY_MODULES and depth is None:
        shown = list(groups)[: _MANY_MODULES - 1]
        rest = [entry for name, entries in groups.items() if name not in shown for entry in entries]
        return [*(_module_row(name, groups[name], new) for name in shown), _module_row("more modules", rest, new)]
    if depth is None:
        modules = transplant.modules
        groups = {name: part for whole, entries in groups.items() for name, part in _parts(modules, whole, entries)}
    return [_module_row(name, entries, new) for name, entries in groups.items()]


def _parts(modules: Mapping[str, Share], name: str, entries: list[Entry]) -> Iterator[tuple[str, list[Entry]]]:
    """What of a partly loaded module is loaded and what is new, if that is said in few rows; else the module."""
    by_key = {entry.key: entry for entry in entries}
    above = {module[:at] for module in modules for at, char in enumerate(module) if char == "."}
    states = [(key, _state(by_key[key], modules, above)) for key in by_key]
    found = rollup(states) if share_of(name, entries).state is State.PARTLY else []
    lacking = _alike(
        [(group, [by_key[key] for key in group.keys]) for group in found if group.label is not State.LOADED]
    )
    if len(found) < 2 or len(lacking) > _FEW_PARTS:
        yield name, entries
        return
    loaded = [by_key[key] for key, state in states if state is State.LOADED]
    if loaded:
        yield f"{name}, the rest", loaded
    yield from lacking


def _state(entry: Entry, modules: Mapping[str, Share], above: Collection[str]) -> State:
    """That of the layer that a tensor is in; one beside whole modules, as a token is, has its own."""
    module = entry.key.rpartition(".")[0]
    if not module or module in above:
        return State.LOADED if entry.is_filled else State.NEW
    return modules[module].state


def _alike(groups: Sequence[tuple[Group, list[Entry]]]) -> list[tuple[str, list[Entry]]]:
    """The rows of a module; where many are loaded to the same share, one for all of these."""
    alike: dict[Hashable, list[tuple[Group, list[Entry]]]] = {}
    for group, entries in groups:
        filled = sum(entry.is_filled for entry in entries)
        alike.setdefault((group.label, filled / len(entries)), []).append((group, entries))
    rows: list[tuple[str, list[Entry]]] = []
    for found in alike.values():
        if len(found) > _FEW_ALIKE:
            more = f"{found[0][0].pattern}  +{len(found) - 1} more"
            rows.append((more, [entry for _, entries in found for entry in entries]))
        else:
            rows += [(group.pattern, entries) for group, entries in found]
    return rows


def _name(key: str, depth: int) -> str:
    """The module a key is in, at a depth; a key that stands higher is its own row."""
    parts = key.split(".")
    return ".".join(parts[:depth]) if len(parts) > depth else key


def _opened(keys: list[str], names: list[str]) -> list[str]:
    """The names with the module opened that holds nearly all keys, unless it is a list of equal blocks."""
    name, modules = Counter(names).most_common(1)[0] if names else ("", 0)
    depth = name.count(".") + 2
    inner = {_name(key, depth) for key, at in zip(keys, names, strict=True) if at == name}
    is_list = all(below.rpartition(".")[2].isdecimal() for below in inner)
    if modules < 2 or modules < _LONE * len(keys) or is_list or len(inner) > _MANY_MODULES:
        return names
    return [_name(key, depth) if at == name else at for key, at in zip(keys, names, strict=True)]


STATES: Mapping[State, Style] = {State.LOADED: "dim green", State.PARTLY: "bold yellow", State.NEW: "bold red"}


def _module_row(name: str, entries: list[Entry], new: Collection[str]) -> Row:
    """The smaller of the shares of tensors and of elements counts: a norm is small, and matters as much.

    What lacks nothing but tensors that are meant to start anew is as expected.
    """
    share = share_of(name, entries)
    filled = sum(entry.is_filled for entry in entries)
    loaded, state = share.share, share.state
    if not share.tensors[1]:  # nothing that matters
        loaded = float(filled == len(entries))
        state = State.LOADED if loaded else State.NEW
    is_meant = state is not State.LOADED and _is_meant(entries, new)
    shown = Cell(name, "" if state is State.LOADED or is_meant else "bold")
    style: Style = "dim" if is_meant else STATES[state]
    words = "new on purpose" if is_meant and state is State.NEW else state.value
    said = Cell(None if state is State.LOADED else words, style)
    return Row((shown, f"{filled:,}/{len(entries):,}", Cell(loaded, style), said))


def _is_meant(entries: Iterable[Entry], new: Collection[str]) -> bool:
    """True if all that is not filled is meant to start anew."""
    left = [entry for entry in entries if entry.covered < entry.spec.elements and not entry.is_harmless]
    return bool(left) and all(entry.key in new for entry in left)


# ---------------------------------------------------------------------------------------------- what became of keys

_Label = tuple[str, str]
"""Status and words."""


def entry_rows(transplant: Transplant, each: bool = False) -> list[Row]:
    """What became of each target key, then of what the source has besides; `each` makes a row of every tensor.

    A row has a symbol, the patterns that mean exactly its keys, how many they are, their elements, and what it is.
    """
    labels = _labels(transplant, each)
    elements = {entry.key: entry.spec.elements for entry in transplant.entries}
    rows = _rolled(labels, elements, each)
    names, among = unexpected_names(transplant)
    unexpected = {name: spec.elements for name, spec in zip(names, transplant.unexpected, strict=True)}
    besides = dict.fromkeys(unexpected, ("unexpected", "unexpected: the model has no such key"))
    rows += _rolled(besides, unexpected, each, among=among)
    source = transplant.source
    gone = {
        row.source.key: ("dropped", dropped_text(row.reason))
        for row in transplant.plan.dropped
        if not isinstance(row.reason, DoesNotFit | NoSuchKey)
    }
    sizes = {key: source[key].elements for key in gone}
    rows += _rolled(gone, sizes, each, among=[*source])
    order = list(SYMBOLS)
    return [row for _, row in sorted(rows, key=lambda row: order.index(row[0]))]


def unexpected_names(transplant: Transplant) -> tuple[Sequence[str], Sequence[str]]:
    """How the unexpected tensors are called, and all names beside them: as the source has them, unless rules say else.

    A prefix that is seen through is no part of a name: what is printed is what --drop takes.
    """
    made = [spec.key for spec in transplant.unexpected]
    kept = [row.source.key for row in transplant.plan.dropped if isinstance(row.reason, NoSuchKey)]
    swap = transplant.swap
    pairs = zip(kept, made, strict=False)
    if len(kept) == len(made) and all(_bare(key, transplant) == name.removeprefix(swap.put) for key, name in pairs):
        return kept, [*transplant.source]
    return made, [*transplant.mapped]


def _bare(key: str, transplant: Transplant) -> str:
    """A source key without the prefixes that are seen through."""
    return key.removeprefix(transplant.under).removeprefix(transplant.swap.take)


def _rolled(
    labels: Mapping[str, _Label], elements: Mapping[str, int], each: bool, among: Iterable[str] = ()
) -> list[tuple[str, Row]]:
    """The status and the row for each label, its patterns exact among these keys and `among`."""
    if each or not labels:
        return [_row(label, [key], [key], elements) for key, label in labels.items()]
    known: dict[str, _Label | None] = {**dict.fromkeys(among), **labels}
    patterns: dict[_Label, list[str]] = {}
    keys: dict[_Label, list[str]] = {}
    of_no_interest = {None, *(label for label in labels.values() if label[0] in ("filled", "renamed", "computed"))}
    for group in rollup(known.items(), together=of_no_interest):
        if group.label is not None:
            label = labels[group.keys[0]]
            patterns.setdefault(label, []).append(group.pattern)
            keys.setdefault(label, []).extend(group.keys)
    return [_row(label, patterns[label], keys[label], elements) for label in patterns]


def _row(label: _Label, patterns: list[str], keys: list[str], elements: Mapping[str, int]) -> tuple[str, Row]:
    status, what = label
    symbol = SYMBOLS[status]
    key = Cell(tuple(patterns), LOOKED_FOR[symbol] if status in ("mismatched", "missing") else "")
    cells = (symbol, key, len(keys), sum(elements[key] for key in keys), what)
    return status, Row(cells, "dim" if status in ("filled", "new") else "")


def _labels(transplant: Transplant, each: bool) -> dict[str, _Label]:
    rules: dict[tuple[RuleName, ...], str] = {(use.name,): use.rule for use in transplant.plan.uses}
    labels = {entry.key: _label(entry, rules) for entry in transplant.entries}
    new = (entry for entry in transplant.entries if entry.key in transplant.new)
    labels |= {entry.key: ("new", f"new on purpose: {reason_text(entry.reason)}") for entry in new}
    for status, words in (("mismatched", "of another shape"), ("fitted", "fitted")):
        found = {label for label in labels.values() if label[0] == status}
        if len(found) > _MANY_SHAPES and not each:
            texts = {key: (status, _without_shapes(label[1], words)) for key, label in labels.items() if label in found}
            labels |= texts
    return labels


def _without_shapes(text: str, words: str) -> str:
    return f"{words}: {text.rpartition(': ')[2]}"


def _label(entry: Entry, rules: Mapping[tuple[RuleName, ...], str]) -> _Label:
    reason, how = entry.reason, reason_text(entry.reason)
    if entry.status is Filled.MISSING:
        return "harmless" if entry.is_harmless else "missing", f"missing: {how}"
    old, new = _shapes(entry)
    if entry.status is Filled.MISMATCHED:
        return "mismatched", f"source {old}, model {new}: {how}"
    computes = rules.get(reason.rules, "").partition(" | ")[2] if isinstance(reason, ByRules) else ""
    how = f"{how}: {computes}" if computes else "same key" if isinstance(reason, Kept) else how
    if entry.status is Filled.FITTED:
        return "fitted", f"{old} → {new}: {', '.join(filter(None, (entry.fit, how)))}"
    if entry.status is Filled.CAST:
        return "cast", f"{old.partition('[')[0]} → {DTYPES[entry.spec.dtype].short}, {how}"
    is_same = entry.sources == (entry.key,) or isinstance(reason, Tie)
    return "computed" if computes else "filled" if is_same else "renamed", how


def _shapes(entry: Entry) -> tuple[str, str]:
    """Both specs; without the dtype where it is the same."""
    old, new = entry.found, entry.spec.short
    if old.partition("[")[0] == new.partition("[")[0] and old != new:
        return f"[{old.partition('[')[2]}", f"[{new.partition('[')[2]}"
    return old, new


# ---------------------------------------------------------------------------------------------- sentences


def target_text(transplant: Transplant) -> str:
    """``218 tensors (110 parameters, 108 buffers)``"""
    kinds = Counter(entry.kind for entry in transplant.entries)
    parts = [many(kinds[kind], kind) for kind in ("parameter", "buffer") if kinds[kind]]
    return many(len(transplant.entries), "tensor") + (f" ({', '.join(parts)})" if parts else "")


def summary_text(transplant: Transplant) -> str:
    """``11.19M of 21.81M elements (51%) from the source, the rest is init of the model, seed 0``"""
    filled, whole = transplant.elements  # all of them, as inspect counts
    share = share_text(filled / whole if whole else 0.0)
    tensors, total = transplant.tensors
    left = [entry for entry in transplant.entries if entry.covered < entry.spec.elements]
    fitted = len(transplant.having(Filled.FITTED))
    if not left and not fitted:
        return f"all {count(whole)} elements of {many(total, 'tensor')} from the source"
    if not left:
        return f"all {many(total, 'tensor')} from the source, {fitted:,} of them made to fit"
    if all(entry.is_counter for entry in left):
        beside = f"{many(len(left), 'BatchNorm counter')} start{'s' * (len(left) == 1)} at zero"
        return f"all {many(tensors, 'tensor')} that matter from the source; {beside}"
    elements = f"{count(filled)} of {count(whole)} elements ({share})"
    text = f"{elements} from the source, {tensors:,} of {many(total, 'tensor')}"
    text += f" ({fitted:,} made to fit)" if fitted else ""
    if transplant.asked.only_loaded:
        return text
    own = "the target's own" if transplant.target.checkpoint is not None else f"init, seed {transplant.asked.seed}"
    return f"{text}; the rest: {own}"


def verdict_texts(transplant: Transplant) -> Iterator[str]:
    """What torch would say, a sentence each."""
    as_it_is, ruled = transplant.as_it_is, transplant.verdict
    counters = [entry for entry in transplant.having(Filled.MISSING) if entry.is_counter]
    who = "load_state_dict(strict=True)" if transplant.target.module is not None else "a strict load"
    if as_it_is.strict:
        yield f"{who} takes the source as it is"
        if counters:
            states = "no" if transplant.source.module_versions is None else "older"
            yield (
                f"{many(len(counters), 'BatchNorm counter')} missing and forgiven: the source states {states} "
                "module versions, so torch fills in zeros"
            )
    else:
        yield f"{who} of the source as it is: no, {refusal_text(as_it_is)}"
        if ruled != as_it_is:
            yield f"with what is done here: {'yes' if ruled.strict else f'no, {refusal_text(ruled)}'}"
        if counters and not ruled.strict and {entry.key for entry in counters} <= set(ruled.missing):
            are = "is a BatchNorm counter" if len(counters) == 1 else "are BatchNorm counters"
            yield (
                f"{many(len(counters), 'missing key')} {are}: torch wants them of a file with "
                "module versions; evaluation does not use them"
            )


def refusal_text(verdict: object) -> str:
    """``2 missing, 2 of another shape``; what the model itself says where it is none of these."""
    counts = (
        (len(getattr(verdict, "missing", ())), "missing"),
        (len(getattr(verdict, "unexpected", ())), "unexpected"),
        (len(getattr(verdict, "mismatched", ())), "of another shape"),
    )
    said = ", ".join(f"{number:,} {what}" for number, what in counts if number)
    return said or str(getattr(verdict, "message", "")).partition("\n")[0]


def freeze_text(transplant: Transplant) -> str:
    """``60 parameters loaded in full, with 20 BatchNorms that need .eval()``; "" if there are none."""
    if not transplant.freeze:
        return ""
    named = bool(transplant.asked.recipe.freeze)
    whose = "that the recipe names" if named else "loaded in full"
    text = f"{many(len(transplant.freeze), 'parameter')} {whose}"
    norms = len(transplant.batchnorms)
    return text + (f", {many(norms, 'BatchNorm')} that need{'s' * (norms == 1)} .eval()" if norms else "")
