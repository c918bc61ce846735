"""Running statistics: measured on data, not learned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ckptool.core.counts import many
from ckptool.core.facts import FINE, Answer, Fact, Operation, Say, Use
from ckptool.facts.headers import Headers, below
from ckptool.facts.registry import finder

STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True, slots=True)
class RunningStatistics(Fact):
    """The running mean and variance of BatchNorm and its like: nothing to note of a file, but of an average."""

    name = "statistics"

    @property
    def text(self) -> str:
        return f"{many(len(self.keys), 'tensor')} of running statistics"

    @property
    def is_listed(self) -> bool:
        return False

    def answer(self, use: Use) -> Answer:
        if use.operation is Operation.COMPUTE and use.mixed:
            count = many(len(use.keys), "BatchNorm statistic")
            are = "is" if len(use.keys) == 1 else "are"
            return Say(
                f"{count} {are} averaged, which does not give the merged model's statistics",
                "recompute them with a forward pass over training data (torch.optim.swa_utils.update_bn)",
            )
        return FINE


@finder
def find(headers: Headers) -> Iterator[RunningStatistics]:
    keys = tuple(key for last in STATISTICS for key in below(headers.modules.get(last, ()), last))
    if keys:
        yield RunningStatistics(keys)
