"""Keys that an output of a transplant filled with the model's initial values, as its file records."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ckptool.core.counts import many
from ckptool.core.facts import FINE, Answer, Fact, Operation, Say, Use
from ckptool.core.fold import rollup
from ckptool.core.initial import recorded_initial
from ckptool.facts.headers import Headers
from ckptool.facts.registry import finder

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Initial(Fact):
    """Tensors that were never trained: a model's init made them.

    Attributes:
        patterns: that mean exactly the keys.
    """

    patterns: tuple[str, ...] = ()

    name = "initial"
    grade = "warning"
    tells = True
    rank = 1

    @property
    def text(self) -> str:
        more = f" and {len(self.patterns) - _SHOWN:,} more" if len(self.patterns) > _SHOWN else ""
        are = "holds" if len(self.keys) == 1 else "hold"
        return f"{many(len(self.keys), 'tensor')} {are} initial values: {', '.join(self.patterns[:_SHOWN])}{more}"

    @property
    def hint(self) -> str:
        return "nothing was loaded into them when this file was written: train them, or fill them with a rule"

    def answer(self, use: Use) -> Answer:
        if use.operation is Operation.LOAD or (use.operation is Operation.COMPUTE and use.mixed):
            are = "holds" if len(use.keys) == 1 else "hold"
            return Say(f"{many(len(use.keys), 'tensor')} of the source {are} initial values, not trained ones")
        return FINE


@finder
def find(headers: Headers) -> Iterator[Initial]:
    keys = recorded_initial(headers.checkpoint) if headers.checkpoint.metadata else ()
    if keys:
        yield initial_among(headers.keys, frozenset(keys))


def initial_among(every: Collection[str], keys: Collection[str]) -> Initial:
    """The fact for some keys of a file.

    Args:
        every: all keys of the file.
        keys: those that hold initial values.
    """
    groups = rollup((key, "initial" if key in keys else None) for key in every)
    return Initial(
        tuple(key for key in every if key in keys), tuple(group.pattern for group in groups if group.label is not None)
    )
