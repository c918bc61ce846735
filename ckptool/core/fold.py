"""Folding: a set of keys -> a tree in which identical subtrees are one row. Nothing is lost, only said once.

`fold` and `rows` are for looking at one checkpoint; `rollup` is for saying what happened to many keys in few rows.
Every row has a pattern for exactly its keys, so what is shown can be pasted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod

from ckptool.core.counts import tallied
from ckptool.core.keys import pin
from ckptool.core.shapes import Entry, Folded, Label, Modules, Shape, braces, keys_below, labels_below, shapes

_SCREEN = 40  # rows that are shown unless more are asked for
_FEW = 12  # rows that a reader takes in at a glance
_SERIES = 6  # so many layer1, layer2, ... are copies of one another; fewer are stages, which people look at one by one


@dataclass(frozen=True, eq=False)
class Node:
    """One row of the folded tree.

    Attributes:
        segments: the names it adds to its parent, per level: ``(("layers",), ("0", "1", ..., "31"))``.
        parent: the row above; None for the root, which has no row of its own.
        label: the label of its leaves; None for a module.
        copies: how many identical subtrees it stands for, within one copy of its parent; 1 for leaves.
        count: how many keys it stands for, within one copy of its parent.
    """

    segments: tuple[tuple[str, ...], ...]
    parent: Node | None
    label: Label
    copies: int
    count: int
    _shape: Shape | None
    _strict: bool = False
    _words: frozenset[str] = frozenset()

    @property
    def is_leaf(self) -> bool:
        return self._shape is None

    @cached_property
    def name(self) -> str:
        """What the row shows: ``layers.{0-31}``, ``{weight,bias}``, ``conv1.weight``."""
        return ".".join(map(braces, self.segments))

    @cached_property
    def pattern(self) -> str:
        """A key pattern for exactly the keys below, in all copies: ``model.layers.{0-31}.*``."""
        text = ".".join(node.name for node in self._path)
        if self.is_leaf:
            return pin(text) if self._strict else text
        return f"{text}.*" if self.parent else "*"

    @cached_property
    def children(self) -> tuple[Node, ...]:
        """The rows below, in file order."""
        return tuple(_joined(self, row) for row in self._shape.rows) if self._shape else ()

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys below, in all copies of this row and of the rows above."""
        return tuple(self.each_key())

    def each_key(self) -> Iterator[str]:
        """The same, one after the other."""
        return _keys([segment for node in self._path for segment in node.segments], self._shape)

    @property
    def size(self) -> int:
        """How many keys it stands for in all copies of the rows above."""
        return self.count * prod(node.copies for node in self._path[:-1])

    @property
    def labels(self) -> dict[Label, int]:
        """How many of the keys that this row counts (see `sample`) have each label."""
        copies = prod(len(segment) for segment in self.segments)
        if self._shape is None:
            return {self.label: copies}
        return {label: many * copies for label, many in labels_below(self._shape).items()}

    @property
    def sample(self) -> tuple[str, ...]:
        """The keys that this row counts: those below it in the first copy of the rows above."""
        above = [segment[:1] for node in self._path[:-1] for segment in node.segments]
        return tuple(_keys([*above, *self.segments], self._shape))

    @property
    def _path(self) -> list[Node]:
        """From below the root down to this node."""
        path = [self]
        while (parent := path[-1].parent) is not None:
            path.append(parent)
        return path[-2::-1] if len(path) > 1 else path


@dataclass(frozen=True, slots=True)
class Row:
    """A node where it stands on the screen.

    Attributes:
        node: the node.
        level: 0 for the rows below the root.
        last: for each level down to this one, whether the row's ancestor there is the last of its siblings.
        hidden: True if it has rows below that are not shown.
    """

    node: Node
    level: int
    last: tuple[bool, ...]
    hidden: bool

    @property
    def rails(self) -> str:
        """The lines of the tree before the name: ``│  ├─ ``."""
        if not self.level:
            return ""
        above = "".join("   " if last else "│  " for last in self.last[1:-1])
        return above + ("└─ " if self.last[-1] else "├─ ")


def fold(entries: Iterable[Entry], *, merge_leaves: bool = True) -> Node:
    """The folded tree of these keys; subtrees are identical if their relative keys and labels are.

    Args:
        entries: keys in file order, each with any label that tells leaves apart, such as "f32[64]".
        merge_leaves: leaves of one module that have one label share a row, ``{weight,bias}``.

    Returns:
        the root; its children are the rows.

    Example:
        >>> root = fold([(f"layers.{n}.{name}", "f32[8]") for n in range(4) for name in ("weight", "bias")])
        >>> [(node.name, node.pattern, node.count) for node in root.children]
        [('layers.{0-3}.{weight,bias}', 'layers.{0-3}.{weight,bias}', 8)]
    """
    return _root(shapes(entries, merge_leaves))


def _root(known: Sequence[Shape]) -> Node:
    """The root of these shapes, those below before those above."""
    *below, shape = known
    # a pattern without a dot also means any key that ends so: these names must be pinned to the whole key
    words = _leaves((shape,)).intersection(_leaves(below))
    return Node((), None, None, 1, shape.leaves, shape, _words=frozenset(words))


def _leaves(known: Iterable[Shape]) -> set[str]:
    """The names of the leaves that stand in these modules themselves."""
    return {name for shape in known for row in shape.rows if not row.shape for name in row.names}


def rows(root: Node, depth: int | None = None) -> Iterator[Row]:
    """The rows of the tree from the top down, to a depth; by default as deep as fits a screen.

    Example:
        >>> root = fold([("bn1.weight", "f32[8]"), ("bn1.steps", "i64[]"), ("fc.weight", "f32[9,8]")])
        >>> [row.rails + row.node.name for row in rows(root)]
        ['bn1', '├─ weight', '└─ steps', 'fc.weight']
    """
    depth = default_depth(root) if depth is None else depth
    stack: list[tuple[Node, tuple[bool, ...]]] = []

    def push(node: Node, last: tuple[bool, ...]) -> None:
        below = node.children
        stack.extend((child, (*last, at == len(below) - 1)) for at, child in reversed(list(enumerate(below))))

    push(root, ())
    while stack:
        node, last = stack.pop()
        shown = len(last) < depth
        yield Row(node, len(last) - 1, last, not node.is_leaf and not shown)
        if shown:
            push(node, last)


def default_depth(root: Node, screen: int = _SCREEN) -> int:
    """The largest depth at which the rows still fit a screen of so many lines; at least 1."""
    depth, level = 1, root.children
    total = len(level)
    while True:
        below = sum(len(node._shape.rows) for node in level if node._shape)
        if not below or total + below > screen:
            return depth
        depth, total = depth + 1, total + below
        level = tuple(child for node in level for child in node.children)


def _joined(parent: Node, row: Folded) -> Node:
    """The node of a row, and of the rows below as long as there is only one: ``conv1.weight``, ``layers.{0-31}``."""
    segments, count = [row.names], len(row.names)
    while row.shape and len(row.shape.rows) == 1:
        row = row.shape.rows[0]
        segments.append(row.names)
        count *= len(row.names)
    if row.shape:
        return Node(tuple(segments), parent, None, count, count * row.shape.leaves, row.shape)
    at_top = parent.parent is None and len(segments) == 1
    strict = row.shadowed or (at_top and (row.names == ("",) or not parent._words.isdisjoint(row.names)))
    return Node(tuple(segments), parent, row.label, 1, count, None, _strict=strict)


def _keys(segments: Sequence[Sequence[str]], shape: Shape | None) -> Iterator[str]:
    heads = map(".".join, product(*segments))
    if shape is None:
        return heads
    tails = list(keys_below(shape))
    return (f"{head}.{tail}" for head in heads for tail in tails) if segments else iter(tails)


# ---------------------------------------------------------------------------------------------- rolling up


@dataclass(frozen=True, slots=True)
class Group:
    """Keys that share a label, as one row.

    Attributes:
        pattern: a key pattern for exactly these keys among all that were rolled up.
        keys: them, in file order.
        label: their label.
    """

    pattern: str
    keys: tuple[str, ...]
    label: Label


class _Apart:
    """Stands in for the label of keys that are told apart by their last part, in a row of their own."""


_APART = _Apart()
_NOTHING = Shape((), 0)
_MIXED = _Apart()


def rollup(entries: Mapping[str, Label] | Iterable[Entry], *, together: Collection[Label] = ()) -> list[Group]:
    """What happened to many keys, in few rows: a module is one row as soon as all below it share a label.

    Where a last part that occurs all over the tree has a label of its own, it gets one row (``*.num_batches_tracked``)
    and the modules are judged without it. A row that would swallow most of the keys is opened, since that says more.

    Args:
        entries: keys in file order, each with what happened to it.
        together: labels of no interest, whose rows may be as large as they get.

    Returns:
        the rows in the order of their first keys; every key is in exactly one.

    Example:
        >>> statuses = {"bn1.weight": "same", "fc.weight": "reshaped", "fc.bias": "changed", "bn1.bias": "same"}
        >>> [(group.pattern, group.label) for group in rollup(statuses.items())]
        [('bn1.*', 'same'), ('fc.weight', 'reshaped'), ('fc.bias', 'changed')]
    """
    labels = entries if isinstance(entries, Mapping) else dict(entries)
    modules = Modules(labels.items())
    own: dict[Label, list[str]] = defaultdict(list)
    for last, found in modules.labels_of_lasts().items():
        if len(found) == 1:
            own[next(iter(found))] += [last]
    sizes: Counter[Label] = Counter()
    for label, many in tallied(list(labels.values())):
        sizes[label] += many
    best = _Rolled(labels, modules, {}, together)
    for label in sorted(own, key=sizes.__getitem__)[-4:]:
        rare = sizes[label] * 2 <= len(labels)
        if len(own[label]) <= _FEW and (rare or label in together or len(best) > _FEW):
            trial = _Rolled(labels, modules, {**best.apart, **dict.fromkeys(own[label], label)}, together)
            if len(trial) < len(best):
                best = trial
    return best.groups()


class _Rolled:
    """The rows when some last parts have rows of their own; the keys of each are looked for at the end.

    Attributes:
        apart: those last parts, and the label of each.
        rows: of the others: the node, its label, and whether some keys below it are apart.
    """

    def __init__(
        self, labels: Mapping[str, Label], modules: Modules, apart: Mapping[str, Label], together: Collection[Label]
    ) -> None:
        self.labels, self.apart = labels, apart
        known = modules.shapes(series=_SERIES, marked={(last,): _APART for last in apart})
        common = _common_labels(known)
        self.rows: list[tuple[Node, Label, bool]] = []
        stack = [_root(known)]
        while stack:
            node = stack.pop()
            label, with_apart = (node.label, False) if node._shape is None else common[node._shape]
            if label is _APART:
                continue
            is_row = label is not _MIXED and (label in together or not _says_too_little(node, len(labels)))
            if is_row and not (with_apart and _has_many_lasts(node)):
                self.rows.append((node, label, with_apart))
            else:
                stack.extend(reversed(node.children))

    def __len__(self) -> int:
        return len(set(self.apart.values())) + len(self.rows)

    def groups(self) -> list[Group]:
        """The rows with their keys. The largest row of a label has the keys that no other row has."""
        rows: list[tuple[Node, bool]] = []
        rest: dict[Label, int] = {}  # the largest row of each label
        row_of: dict[str, int] = {}  # of the keys of all others
        for node, label, with_apart in sorted(self.rows, key=lambda row: -row[0].size):
            if rest.setdefault(label, len(rows)) != len(rows):
                row_of |= dict.fromkeys(node.each_key(), len(rows))
            rows.append((node, with_apart))
        own = {label: -1 - at for at, label in enumerate(dict.fromkeys(self.apart.values()))}
        found: dict[int, list[str]] = {}
        for key, label in self.labels.items():
            if self.apart and _last(key) in self.apart:
                at = own[label]
            else:
                at = row_of[key] if key in row_of else rest[label]
            found.setdefault(at, []).append(key)
        return [
            Group(_pattern(rows[at] if at >= 0 else None, keys), tuple(keys), self.labels[keys[0]])
            for at, keys in found.items()
        ]


def _pattern(row: tuple[Node, bool] | None, keys: Sequence[str]) -> str:
    """A pattern for the keys of a row; None for those that share their last parts."""
    if row is not None and not row[1]:
        return _whole(row[0])
    lasts = list(dict.fromkeys(map(_last, keys)))
    if row is not None:
        return _without(row[0], lasts)
    return ("*." if all("." in key for key in keys) else "{*.,}") + braces(lasts)


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _common_labels(shapes_below: Iterable[Shape]) -> dict[Shape, tuple[Label, bool]]:
    """For each shape: the label of all its leaves, or _MIXED; and whether some are apart (which do not count)."""
    common: dict[Shape, tuple[Label, bool]] = {}
    for shape in shapes_below:
        below = [common[row.shape] if row.shape else (row.label, row.label is _APART) for row in shape.rows]
        found = {label for label, _ in below} - {_APART}
        label = found.pop() if len(found) == 1 else _MIXED if found else _APART
        common[shape] = (label, any(some for _, some in below))
    return common


def _whole(node: Node) -> str:
    """``bn1.*`` where leaves that share a row are all there is below a module."""
    if not node.is_leaf or len(node.segments) < 2 or len(node.segments[-1]) < 2:
        return node.pattern
    return Node(node.segments[:-1], node.parent, None, 1, node.count, _NOTHING).pattern


def _has_many_lasts(node: Node) -> bool:
    """True if the keys below a module that are not apart end in many different parts."""
    lasts: set[str] = set()
    stack, known = [node._shape], set[Shape | None]((None,))
    while stack and len(lasts) <= _FEW:
        shape = stack.pop()
        if shape is not None and shape not in known:
            known.add(shape)
            lasts.update(name for row in shape.rows if not row.shape and row.label is not _APART for name in row.names)
            stack.extend(row.shape for row in shape.rows)
    return len(lasts) > _FEW


def _without(node: Node, lasts: list[str]) -> str:
    """A pattern for the keys below a module that end in these last parts."""
    assert node._shape is not None
    direct = {row.shape is None for row in node._shape.rows if row.label is not _APART}
    deeper = "{*.,}" if len(direct) == 2 else "" if True in direct else "*."
    module = node.pattern.removesuffix("*")
    return module + deeper + braces(lasts)


def _says_too_little(node: Node, total: int) -> bool:
    """True for a module that holds most of the keys and can be opened into a few rows; always for the root."""
    if node.parent is None:
        return True
    return not node.is_leaf and node.copies == 1 and node.count * 2 > total and len(node.children) <= _FEW
