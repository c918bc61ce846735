"""BatchNorm counters (num_batches_tracked): absent ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ckptool.core.counts import many
from ckptool.core.facts import Fact
from ckptool.facts.headers import Headers, below
from ckptool.facts.registry import finder

COUNTER = "num_batches_tracked"


@dataclass(frozen=True, slots=True)
class NoCounters(Fact):
    """BatchNorm without counters, which the module versions do not promise; harmless. The keys are the absent ones.

    Attributes:
        has_versions: the file has module versions.
        norms: how many BatchNorms there are, those with counters included.
    """

    has_versions: bool = False
    norms: int = 0

    name = "counters"
    rank = 2

    @property
    def text(self) -> str:
        if len(self.keys) < self.norms:
            verb = "has" if len(self.keys) == 1 else "have"
            return f"{len(self.keys):,} of {many(self.norms, 'BatchNorm')} {verb} no counter ({COUNTER})"
        return f"BatchNorm counters ({COUNTER}) are absent: written before torch 0.4.1, or by frozen BatchNorm"

    @property
    def hint(self) -> str:
        since = "its versions allow that" if self.has_versions else "the file has no module versions"
        return f"harmless: evaluation does not use them, and a strict load fills in zeros, since {since}"

    @property
    def remedy(self) -> str:
        return "zeros in the file: ckptool remap {file} -r batchnorm-counters -o OUT"


@dataclass(frozen=True, slots=True)
class PromisedCounters(Fact):
    """Absent counters of BatchNorm modules whose version says that they were written."""

    name = "promised-counters"
    level = "warning"
    rank = 2

    @property
    def text(self) -> str:
        return (
            f"{many(len(self.keys), 'BatchNorm counter')} ({COUNTER}) absent, although the module versions in the file "
            "say that BatchNorm writes them"
        )

    @property
    def hint(self) -> str:
        return f"a strict load fails with {many(len(self.keys), 'missing key')}"

    @property
    def remedy(self) -> str:
        return "without module versions torch fills in zeros: ckptool filter {file} -o OUT.safetensors"


@finder
def find(headers: Headers) -> Iterator[Fact]:
    counted = set(headers.modules.get(COUNTER, ()))
    norms = headers.with_all("running_mean", "running_var")
    absent = [module for module in norms if module not in counted]
    if not absent:
        return
    versions = headers.checkpoint.module_versions
    promised = promised_counters(versions, absent)
    if promised:
        yield PromisedCounters(below(promised, COUNTER))
    else:
        yield NoCounters(below(absent, COUNTER), bool(versions), len(norms))


def promised_counters(versions: object, modules: Iterable[str]) -> list[str]:
    """Those BatchNorm modules whose version (2) says that counters were written: torch then insists on them."""
    known = versions if hasattr(versions, "get") else {}
    return [module for module in modules if (known.get(module) or 0) >= 2]
