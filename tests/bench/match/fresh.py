"""What the fresh pairs are written with: state dicts from their public descriptions, and rules from a table of names.

The authors of these pairs have not read the matcher. Each source is built in its own order, apart from the target;
the rules come from a published conversion or from the code of both sides, and `truth_of` checks every shape.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tests.bench.match.pairs import State, Two, pair

Swap = tuple[str, str | Callable[[re.Match[str]], str]]

PROOF = "by the published conversion or the code of both sides; shapes checked"


class Keys(dict[str, Any]):
    """A state dict that is written module by module."""

    def put(self, name: str, *shape: int) -> None:
        """One tensor."""
        import torch

        assert name not in self, name
        self[name] = torch.empty(shape)

    def conv(self, name: str, out: int, into: int, *kernel: int, bias: bool = True) -> None:
        """A convolution; one number is a square kernel."""
        self.put(f"{name}.weight", out, into, *(kernel * 2 if len(kernel) == 1 else kernel))
        if bias:
            self.put(f"{name}.bias", out)

    def lin(self, name: str, out: int, into: int, bias: bool = True) -> None:
        """A Linear."""
        self.put(f"{name}.weight", out, into)
        if bias:
            self.put(f"{name}.bias", out)

    def norm(self, name: str, size: int) -> None:
        """A norm without statistics."""
        self.put(f"{name}.weight", size)
        self.put(f"{name}.bias", size)

    def bn(self, name: str, size: int, counter: bool = True) -> None:
        """A batch norm."""
        self.norm(name, size)
        self.put(f"{name}.running_mean", size)
        self.put(f"{name}.running_var", size)
        if counter:
            self.put(f"{name}.num_batches_tracked")

    def under(self, prefix: str) -> Keys:
        """The same below a prefix."""
        found = Keys()
        found.update({prefix + key: tensor for key, tensor in self.items()})
        return found


def state(model: Any) -> dict[str, Any]:
    """What a model would save."""
    return dict(model) if isinstance(model, dict) else model.state_dict()


def renamed(name: str, table: Sequence[Swap]) -> str:
    """All swaps of the table, one after the other."""
    for pattern, to in table:
        name = re.sub(pattern, to, name)
    return name


def rules_of(
    keys: Iterable[str], table: Sequence[Swap], layouts: Sequence[tuple[str, str]] = (), backwards: bool = False
) -> list[str]:
    """A rule for each key: source names go to target names, or back; an empty name leaves a key out."""
    found = []
    for key in keys:
        name = renamed(key, table)
        if not name:
            continue
        layout = next((layout for pattern, layout in layouts if re.search(pattern, key)), "")
        left, right = (name, key) if backwards else (key, name)
        found.append(f"{left} -> {right}" + (f" | {layout}" if layout else ""))
    return found


def fresh(source: Any, target: Any, rules: Sequence[str] | None, **also: Any) -> Two:
    """A pair whose truth is a published conversion."""
    return Two(source, target, rules, proof=PROOF, **also)


def back(source: Any, target: Any, table: Sequence[Swap], layouts: Sequence[tuple[str, str]] = (), **also: Any) -> Two:
    """A pair whose table leads from target names to source names."""
    return fresh(source, target, rules_of(state(target), table, layouts, backwards=True), **also)


def forth(source: Any, target: Any, table: Sequence[Swap], layouts: Sequence[tuple[str, str]] = (), **also: Any) -> Two:
    """A pair whose table leads from source names to target names."""
    return fresh(source, target, rules_of(state(source), table, layouts), **also)


__all__ = ["Keys", "State", "Two", "back", "forth", "fresh", "pair", "renamed", "rules_of", "state"]
