"""Training wrappers that left their mark in the keys: ``module.``, ``_orig_mod.`` and the like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ckptool.core.counts import many
from ckptool.core.facts import Fact
from ckptool.core.keys import WRAPPERS, wrapper_prefix
from ckptool.facts.headers import Headers
from ckptool.facts.registry import finder

_MADE_BY = {
    "module.": "DataParallel or DistributedDataParallel",
    "_orig_mod.": "torch.compile",
    "_fsdp_wrapped_module.": "FullyShardedDataParallel",
    "_fpw_module.": "FullyShardedDataParallel",
    "_checkpoint_wrapped_module.": "activation checkpointing",
    "_forward_module.": "Lightning Fabric",
}


@dataclass(frozen=True, slots=True)
class Wrapped(Fact):
    """Keys with a wrapper's name.

    Attributes:
        prefix: what every key starts with; "" where a wrapper stands inside of some keys.
        inside: the wrapper that stands inside.
    """

    prefix: str = ""
    inside: str = ""

    name = "wrapper"
    rank = 7

    @property
    def text(self) -> str:
        if self.inside:
            return f'{many(len(self.keys), "key")} with "{self.inside}" inside, the mark of {_MADE_BY[self.inside]}'
        marks = dict.fromkeys(_MADE_BY[f"{part}."] for part in self.prefix.split(".")[:-1])
        return f'every key starts with "{self.prefix}", the mark of {" in ".join(marks)}'

    @property
    def remedy(self) -> str:
        return "remove it: ckptool remap {file} -r strip-wrappers -o PLAIN"


@finder
def find(headers: Headers) -> Iterator[Wrapped]:
    prefix = wrapper_prefix(headers.keys)
    if "module." in prefix and "n_averaged" in headers.modules:
        return  # an AveragedModel
    if prefix:
        yield Wrapped(prefix=prefix)
    for wrapper in WRAPPERS[1:]:  # a module that is called "module" is nothing special further down
        if wrapper[:-1] not in headers.parts:
            continue
        inside = tuple(key for key in headers.keys if f".{wrapper}" in key[max(len(prefix) - 1, 0) :])
        if inside:
            yield Wrapped(inside, inside=wrapper)
