"""Numbers and words that two modules were built with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_NOT_SETTINGS = {"training", "momentum", "inplace", "call_super_init", "dump_patches"}
_TINY = 1e-5


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


@dataclass(frozen=True, slots=True)
class Aligned:
    """A tiny number of a module of the target that was made the source's: what keeps a norm from dividing by zero.

    Attributes:
        module: of the target.
        name: of the setting.
        mine: what it was.
        its: what it is now.
    """

    module: str
    name: str
    mine: float
    its: float


def align(module: str, mine: torch.nn.Module, its: torch.nn.Module) -> Iterator[Aligned]:
    """Make the tiny number of the target's module the source's, if each has one; larger ones are for the user to see.

    An output differs by about as much as they do, and so does all that is computed from it: an exchange of tensors that
    shows no more could not be told from it.

    Example:
        >>> from torch.nn import LayerNorm
        >>> norm = LayerNorm(4, eps=1e-6)
        >>> list(align("norm", norm, LayerNorm(4))), norm.eps
        ([Aligned(module='norm', name='eps', mine=1e-06, its=1e-05)], 1e-05)
        >>> list(align("norm", norm, LayerNorm(4, eps=0.1))), norm.eps
        ([], 1e-05)
    """
    one, two = ([(k, v) for k, v in vars(part).items() if _is_tiny(v)] for part in (mine, its))
    if len(one) == len(two) == 1 and one[0][1] != two[0][1]:
        setattr(mine, one[0][0], two[0][1])
        yield Aligned(module, *one[0], two[0][1])


def _is_tiny(value: object) -> bool:
    return isinstance(value, float) and 0 <= value <= _TINY
