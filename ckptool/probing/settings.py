"""Numbers and words that two modules were built with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_NOT_SETTINGS = {"training", "momentum", "inplace", "call_super_init", "dump_patches"}


def settings_that_differ(mine: torch.nn.Module, its: torch.nn.Module) -> Iterator[tuple[str, str, str]]:
    """The settings that both have and that are not the same: (name, target's, source's).

    Example:
        >>> from torch.nn import LayerNorm
        >>> list(settings_that_differ(LayerNorm(4, eps=1e-6), LayerNorm(4)))
        [('eps', '1e-06', '1e-05')]
    """
    for name, value in vars(mine).items():
        other = vars(its).get(name)
        if name.startswith("_") or name in _NOT_SETTINGS or type(other) is not type(value):
            continue
        if isinstance(value, int | float | str | tuple) and value != other:
            yield name, str(value), str(other)
