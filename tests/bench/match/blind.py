"""What the blind pairs are written with: listings module by module, and rules by a table of names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tests.bench.match.fresh import Keys, Swap, renamed, state
from tests.bench.match.pairs import Two, pair


class Net(Keys):
    """A state dict with int64 counters."""

    def ints(self, name: str, *shape: int) -> None:
        """An integer buffer."""
        import torch

        self[name] = torch.empty(shape, dtype=torch.int64)

    def bn(self, name: str, size: int, counter: bool = True) -> None:
        """A batch norm."""
        super().bn(name, size, False)
        if counter:
            self.ints(f"{name}.num_batches_tracked")

    def lns(self, *names: str, size: int) -> None:
        """Layer norms."""
        for name in names:
            self.norm(name, size)

    def lins(self, *names: str, out: int, into: int, bias: bool = True) -> None:
        """Linears of one size."""
        for name in names:
            self.lin(name, out, into, bias)

    def mha(self, name: str, width: int, bias: bool = True) -> None:
        """torch's MultiheadAttention."""
        self.put(f"{name}.in_proj_weight", 3 * width, width)
        if bias:
            self.put(f"{name}.in_proj_bias", 3 * width)
        self.lin(f"{name}.out_proj", width, width, bias)


def like(target: Any, name_of: Callable[[str], str], order: Callable[[str], Any] | None = None) -> Net:
    """A listing with the target's tensors under other names, in another order if told; an empty name leaves one out."""
    found = Net()
    keys = list(state(target).items())
    if order:
        keys.sort(key=lambda item: order(item[0]))
    for key, tensor in keys:
        name = name_of(key)
        if name:
            assert name not in found, name
            found[name] = tensor
    return found


def to(source: Any, target: Any, table: Sequence[Swap], layouts: Sequence[tuple[str, str]] = (),
       groups: Iterable[str] = (), truth: str = "", **also: Any) -> Two:  # fmt: skip
    """Source names go to target names by the table; "" drops a key, "@" leaves it to the group rules."""
    rules = []
    for key in state(source):
        name = renamed(key, table)
        if "@" in name:
            continue
        layout = next((layout for pattern, layout in layouts if re.search(pattern, key)), "")
        rules.append(f"{key} -> {name or '!'}" + (f" | {layout}" if layout and name else ""))
    return Two(source, target, [*rules, *groups], proof=truth, **also)


def split(
    name: str, into: Sequence[str], bias: bool = True, weight: str = ".weight", offset: str = ".bias"
) -> list[str]:
    """Rows of one Linear to several of equal size."""
    parts = "abcdefgh"[: len(into)]
    left = " + ".join(parts)
    found = [f"{name}{weight} -> {', '.join(one + '.weight' for one in into)} | ({left}) i -> "
             + ", ".join(f"{part} i" for part in parts)]  # fmt: skip
    if bias:
        found.append(f"{name}{offset} -> {', '.join(one + '.bias' for one in into)} | ({left}) -> " + ", ".join(parts))
    return found


def join(names: Sequence[str], into: str, bias: bool = True) -> list[str]:
    """Rows of several Linears to one."""
    parts = "abcdefgh"[: len(names)]
    right = " + ".join(parts)
    found = [f"{', '.join(one + '.weight' for one in names)} -> {into}.weight | "
             + ", ".join(f"{part} i" for part in parts) + f" -> ({right}) i"]  # fmt: skip
    if bias:
        found.append(f"{', '.join(one + '.bias' for one in names)} -> {into}.bias | {', '.join(parts)} -> ({right})")
    return found


def none(source: Any, target: Any, truth: str) -> Two:
    """Nothing belongs together."""
    return Two(source, target, None, proof=truth)


__all__ = ["Net", "Two", "join", "like", "none", "pair", "renamed", "split", "state", "to"]
