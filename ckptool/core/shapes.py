"""A set of keys as shapes: identical subtrees are one object; and names in braces.

The keys become a trie. Walked from its leaves up, equal subtrees (the same relative keys with the same labels) get one
`Shape`, so telling whether two layers are alike is comparing two references, and 100 alike layers are folded once.
Everything here is a loop, not a recursion: a file may send a key with a million dots.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ckptool.core.keys import escape

Label = Hashable
Entry = tuple[str, Label]

_READABLE = 16  # a brace with more alternatives than this is no longer read


@dataclass(frozen=True, slots=True, eq=False)
class Folded:
    """Siblings that are one row: leaves of one label (`shape` is None), or modules of one shape.

    `shadowed`: one of these leaves has the name of a module beside it.
    """

    names: tuple[str, ...]
    shape: Shape | None
    label: Label = None
    shadowed: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """What lies below a module. Equal subtrees share one object."""

    rows: tuple[Folded, ...]
    leaves: int


def shapes(entries: Iterable[Entry], merge_leaves: bool = True, series: int = 2) -> list[Shape]:
    """Every distinct shape, those below before those above; the last one is the root's.

    Args:
        entries: keys with labels.
        merge_leaves: leaves of one module and one label are one row.
        series: how many equal modules with names such as layer_1, layer_2 it takes to make them one row.
    """
    return Modules(entries).shapes(merge_leaves, series)


class Modules:
    """The modules of a set of keys; most of those that are equal are one."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.nodes = _nodes(entries)

    def labels_of_lasts(self) -> dict[str, set[Label]]:
        """The labels of the keys with each last part."""
        found: dict[str, set[Label]] = defaultdict(set)
        for node in self.nodes:
            for name, label in node.items():
                if type(name) is tuple:
                    found[name[0]].add(label)
        return found

    def shapes(
        self, merge_leaves: bool = True, series: int = 2, marked: Mapping[tuple[str], Label] = MappingProxyType({})
    ) -> list[Shape]:
        """As the function `shapes`; keys with last parts in `marked` have these labels."""
        known: dict[frozenset[Any], Shape] = {}
        shape_of: dict[int, Shape] = {}
        for node in self.nodes:
            inside = {
                name: shape_of[id(below)] if type(name) is str else marked.get(name, below)
                for name, below in node.items()
            }
            items = frozenset(inside.items())
            shape = known.get(items)
            if shape is None:
                shape = known[items] = _fold_siblings(inside, merge_leaves, series)
            shape_of[id(node)] = shape
        return list(known.values())


class _Node(dict[Any, Any]):
    """A module: names -> nodes, and leaves: (name,) -> labels. As a value it is equal to itself alone."""

    __slots__ = ()
    __hash__ = object.__hash__  # type: ignore[assignment]
    __eq__ = object.__eq__


_SMALL = 16  # entries


def _nodes(entries: Iterable[Entry]) -> list[_Node]:
    """The modules of a trie, those below before those above.

    A small module that is left becomes one with an equal one that was there before it, so that a million keys of like
    modules take the memory of a few. Where it is entered again, it is copied first.
    """
    trie = _Trie()
    for head, group in _numbered_modules(entries):
        if head is not None:
            path, dot, number = head.rpartition(".")
            above = trie.at(path if dot else None)
            if number not in above:
                above[number] = trie.module(group)
                continue
        for tail, label in group:
            path, dot, name = (tail if head is None else f"{head}.{tail}").rpartition(".")
            trie.at(path if dot else None)[(name,)] = label  # a tuple, so that a module may have the same name
    root = trie.at(None)
    found: list[_Node] = []
    known: set[int] = set()
    stack = [(root, False)]
    while stack:
        node, is_done = stack.pop()
        if is_done:
            found.append(node)
        elif id(node) not in known:
            known.add(id(node))
            stack.append((node, True))
            stack.extend((below, False) for below in node.values() if type(below) is _Node and id(below) not in known)
    return found


_IN_NUMBERED = re.compile(r"((?:.*\.)?[0-9]++)\.(.*)", re.DOTALL)
_MANY = 10_000  # modules, and names in them, that are remembered


def _numbered_modules(entries: Iterable[Entry]) -> Iterator[tuple[str | None, tuple[Entry, ...]]]:
    """Keys that follow one another in one module with a number for a name: its path, and the rest of each key.

    Example:
        >>> [(head, len(group)) for head, group in _numbered_modules((key, 0) for key in ("a", "b.0.w", "b.0.c.x"))]
        [(None, 1), ('b.0', 2)]
    """
    now: str | None = None
    group: list[Entry] = []
    place, plain = "\0", dict[str, str]()  # what stands below numbered modules, and holds none
    for key, label in entries:
        tail = plain.get(key[len(place) :]) if key.startswith(place) else None
        if tail is None:
            match = _IN_NUMBERED.match(key)
            head, tail = (None, key) if match is None else match.groups()
            if match is not None:
                place = f"{head}."
                tail = plain.setdefault(tail, tail) if len(plain) < _MANY else tail
        else:
            head = place[:-1]
        if head != now or len(group) == _SMALL:
            if group:
                yield now, tuple(group)
            now, group = head, []
        group.append((tail, label))
    if group:
        yield now, tuple(group)


class _Trie:
    """Modules by their paths, one of which is open: keys come module by module."""

    def __init__(self) -> None:
        self.open: str | None = None  # path of the module that is open; None for the root
        self.names, self.nodes = list[str](), [_Node()]  # on the way to it
        self.shared: dict[frozenset[Any], _Node] = {}
        self.known: dict[tuple[Entry, ...], _Node] = {}

    def at(self, path: str | None) -> _Node:
        """The module of this path, open."""
        if path != self.open:
            modules = [] if path is None else path.split(".")
            same = 0
            for one, other in zip(modules, self.names, strict=False):
                if one != other:
                    break
                same += 1
            while len(self.names) > same:
                self.leave()
            for part in modules[same:]:
                below = self.nodes[-1].get(part)
                if below is None or len(below) <= _SMALL:
                    below = self.nodes[-1][part] = _Node(below or ())
                self.nodes.append(below)
            self.open, self.names = path, modules
        return self.nodes[-1]

    def leave(self) -> None:
        """Replace a small module by an equal one, which takes its order."""
        node, name = self.nodes.pop(), self.names.pop()
        if len(node) <= _SMALL:
            known = self.nodes[-1][name] = self.shared.setdefault(frozenset(node.items()), node)
            if known is not node and list(known) != list(node):
                items = list(node.items())
                known.clear()
                known.update(items)

    def module(self, group: tuple[Entry, ...]) -> _Node:
        """A module with these keys below it, the same one for the same keys."""
        node = self.known.get(group)
        if node is None:
            node = _Node()
            for tail, label in group:
                *modules, name = tail.split(".")
                below = node
                for part in modules:
                    below = below.setdefault(part, _Node())
                below[(name,)] = label
            if len(self.known) < _MANY:
                self.known[group] = node
        return node


def _fold_siblings(node: dict[Any, Any], merge_leaves: bool, series: int) -> Shape:
    groups: dict[tuple[Any, ...], list[Any]] = {}
    group: tuple[Any, ...]
    previous: tuple[Any, ...] = ()
    for key, value in node.items():
        name = key[0] if type(key) is tuple else key
        parts = _numbered(name)
        group = (key,)
        if type(key) is tuple and merge_leaves:
            group = ("leaves", value)
        elif parts and parts[0] == parts[2] == "":
            group = ("numbers", type(key), value)
        elif parts:  # layer_1, layer_2: one row if they stand together; conv1 bn1 conv2 bn2 are read as they come
            same = (parts[0], parts[2], type(key), value)
            group = previous if previous[:4] == same else (*same, name)
        groups.setdefault(group, []).append(key)
        previous = group
    folded: list[Folded] = []
    for group, keys in groups.items():
        value = node[keys[0]]
        if type(keys[0]) is str and len(group) == 5 and len(keys) < series:
            folded += (Folded((key,), value) for key in keys)
        elif type(keys[0]) is str:
            folded.append(Folded(tuple(keys), value))
        else:
            groups_of_leaves = _readable([key[0] for key in keys])
            folded += (
                Folded(tuple(names), None, value, any(map(node.__contains__, names))) for names in groups_of_leaves
            )
    return Shape(tuple(folded), sum(len(row.names) * (row.shape.leaves if row.shape else 1) for row in folded))


def keys_below(shape: Shape) -> Iterator[str]:
    """The relative keys below a module. Those below small modules, of which many are one, are made once."""
    small: dict[Shape, list[str]] = {}
    for path, below in _walked(shape, _SMALL):
        if below is None:
            yield path
            continue
        if below not in small:
            small[below] = [name for name, _ in _walked(below)]
        yield from [f"{path}.{name}" for name in small[below]]


def _walked(shape: Shape, small: int = 0) -> Iterator[tuple[str, Shape | None]]:
    """The leaves below a module, but for those of modules with at most so many, which stand for their own."""
    stack: list[tuple[Any, Shape | None]] = [(None, shape)]
    while stack:
        link, below = stack.pop()  # a link is a name and the link above it
        if below is not None and (link is None or below.leaves > small):
            for row in reversed(below.rows):
                stack.extend(((name, link), row.shape) for name in reversed(row.names))
            continue
        parts = []
        while link is not None:
            name, link = link
            parts.append(name)
        yield ".".join(reversed(parts)), below


def labels_below(shape: Shape) -> Counter[Label]:
    """How many leaves below a module have each label."""
    found: Counter[Label] = Counter()
    stack = [(shape, 1)]
    while stack:
        below, copies = stack.pop()
        for row in below.rows:
            many = copies * len(row.names)
            if row.shape is None:
                found[row.label] += many
            else:
                stack.append((row.shape, many))
    return found


# ---------------------------------------------------------------------------------------------- names in braces

_NUMBERED = re.compile("(.*[^0-9]|)([0-9]{1,9})([^0-9]*)", re.DOTALL)


def _numbered(name: str) -> tuple[str, str, str] | None:
    """``encoder_layer_11`` -> ("encoder_layer_", "11", ""); the last number of the name."""
    match = _NUMBERED.fullmatch(name)
    return (match[1], match[2], match[3]) if match else None


def braces(names: Sequence[str]) -> str:
    """One part of a pattern that stands for exactly these names.

    Example:
        >>> braces(["0", "1", "2", "4"]), braces(["weight", "bias"]), braces(["w1", "w2", "b"])
        ('{0-2,4}', '{weight,bias}', '{w{1,2},b}')
    """
    if len(names) == 1:
        return escape(names[0])
    texts = [alternative for series in _series(names) for alternative in _alternatives(series)]
    return texts[0] if len(texts) == 1 and "{" in texts[0] else f"{{{','.join(texts)}}}"


def _series(names: Sequence[str]) -> list[list[str]]:
    """The names grouped into those that differ in one number only; the others each alone."""
    groups: dict[Hashable, list[str]] = defaultdict(list)
    for name in names:
        prefix, number, suffix = _numbered(name) or (name, "", "")
        width = (
            len(number) if number.startswith("0") and number != "0" else 0
        )  # 07 is not 7: numbers of a fixed width go together
        groups[prefix, number and suffix, width if number else -1].append(name)
    return list(groups.values())


def _readable(names: list[str]) -> list[list[str]]:
    """The names in groups whose braces a person can still read."""
    series = _series(names)
    return [names] if len(series) <= _READABLE else series


def _alternatives(series: list[str]) -> list[str]:
    """What stands between the commas for one series: ``["0-2", "4"]``, ``["w{1,2}"]``."""
    if len(series) == 1:
        return [escape(series[0], in_braces=True)]
    parts = [parts for parts in map(_numbered, series) if parts]
    runs: list[list[str]] = []
    for number in sorted((number for _, number, _ in parts), key=int):
        if runs and int(number) == int(runs[-1][-1]) + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = [text for run in runs for text in ([f"{run[0]}-{run[-1]}"] if len(run) > 2 else run)]
    prefix, _, suffix = parts[0]
    if not prefix and not suffix:
        return texts
    return [f"{escape(prefix, in_braces=True)}{{{','.join(texts)}}}{escape(suffix, in_braces=True)}"]
