"""The tensors between two stages of a recipe, in columns: very many in little memory."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, chain

from ckptool.core.plan import Source
from ckptool.core.reasons import RuleName
from ckptool.core.spec import TensorSpec
from ckptool.recipes.group import Item

Rules = tuple[RuleName, ...]


class Loaded:
    """All tensors of the inputs in rows, one input after the other."""

    def __init__(self, inputs: Sequence[Mapping[str, TensorSpec]]) -> None:
        self.inputs = inputs
        self.keys = list(chain.from_iterable(inputs))
        self.ends = list(accumulate(map(len, inputs)))

    def source(self, row: int) -> Source:
        """What a plan calls a tensor."""
        return Source(bisect_right(self.ends, row), self.keys[row])

    def spec(self, row: int) -> TensorSpec:
        return self.inputs[bisect_right(self.ends, row)][self.keys[row]]


class Items(Mapping[str, Item]):
    """Tensors by their names; an `Item` is made where one is asked for.

    Attributes:
        loaded: the tensors of the inputs.
        names: what the tensors are called now.
        rows: which tensor of the inputs each is; -1 for the first of `computed`, -2 for the next.
        rules: those that each has met.
        computed: tensors that rules have made.
    """

    def __init__(self, loaded: Loaded, names: list[str], rows: Sequence[int], rules: list[Rules]) -> None:
        self.loaded = loaded
        self.names = names
        self.rows = rows
        self.rules = rules
        self.computed: list[Item] = []
        self._positions: dict[str, int] | None = None

    @classmethod
    def none_of(cls, loaded: Loaded) -> Items:
        """None yet."""
        return cls(loaded, [], array("q"), [])

    def append(self, name: str, row: int, rules: Rules) -> None:
        """Add a tensor of the inputs."""
        assert isinstance(self.rows, array)
        self.names.append(name)
        self.rows.append(row)
        self.rules.append(rules)

    def append_item(self, name: str, item: Item) -> None:
        """Add a tensor that a rule has made."""
        self.computed.append(item)
        self.append(name, -len(self.computed), item.rules)

    def renamed(self, names: list[str], rules: list[Rules]) -> Items:
        """The same tensors under other names."""
        items = Items(self.loaded, names, self.rows, rules)
        items.computed = self.computed
        return items

    def chosen(self, positions: Sequence[int]) -> Items:
        """Some of the tensors."""
        rows = array("q", (self.rows[at] for at in positions))
        names, rules = [self.names[at] for at in positions], [self.rules[at] for at in positions]
        items = Items(self.loaded, names, rows, rules)
        items.computed = self.computed
        return items

    def at(self, position: int) -> Item:
        """The tensor at a position."""
        row = self.rows[position]
        if row < 0:
            return replace(self.computed[-row - 1], rules=self.rules[position])
        return Item(self.loaded.source(row), self.loaded.spec(row), self.rules[position])

    def spec(self, position: int) -> TensorSpec:
        """Its dtype and shape."""
        row = self.rows[position]
        return self.computed[-row - 1].spec if row < 0 else self.loaded.spec(row)

    def __getitem__(self, name: str) -> Item:
        if self._positions is None:
            self._positions = dict(zip(self.names, range(len(self.names)), strict=True))
        return self.at(self._positions[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
