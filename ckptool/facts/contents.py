"""What a file holds as a whole: nothing, mostly optimizer state, a program, Lightning's bookkeeping, several dtypes."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from ckptool.core.counts import many
from ckptool.core.facts import Fact, Operation
from ckptool.core.keys import common_prefix, strip_wrappers
from ckptool.core.outlines import outlines
from ckptool.core.spec import DTYPES
from ckptool.facts.headers import Headers, amount
from ckptool.facts.registry import finder

_WORTH_SAYING = 1 << 20  # bytes
_MUCH = 0.3


@dataclass(frozen=True, slots=True)
class Empty(Fact):
    """No tensors at all; `others` are dicts of tensors beside the selection."""

    others: tuple[str, ...] = ()

    name = "empty"
    level = "warning"
    rank = 0

    @property
    def text(self) -> str:
        return "there are no tensors in it"

    @property
    def hint(self) -> str:
        return f"other dicts of tensors: {', '.join(self.others)} (take one with --select)" if self.others else ""


@dataclass(frozen=True, slots=True)
class MixedDtypes(Fact):
    """Some layers in another float dtype than their sisters.

    Attributes:
        role: the name that they share: "layers.*.w".
        counts: (short dtype, tensors), the most frequent first.
        more: how many further names are mixed.
    """

    role: str = ""
    counts: tuple[tuple[str, int], ...] = ()
    more: int = 0

    name = "mixed-dtypes"
    remedied_by = Operation.CAST
    rank = 6

    @property
    def text(self) -> str:
        listed = ", ".join(f"{number:,} {short}" for short, number in self.counts)
        more = f" (and {many(self.more, 'more such name')})" if self.more else ""
        return f"{self.role} has different dtypes in different layers: {listed}{more}"

    @property
    def remedy(self) -> str:
        return f"one dtype for all: ckptool filter {{file}} --dtype {self.counts[0][0]} -o OUT"


@dataclass(frozen=True, slots=True)
class Lightning(Fact):
    """A Lightning checkpoint; `prefix` is the attribute that holds the network, in every key."""

    prefix: str = ""

    name = "lightning"
    rank = 9

    @property
    def text(self) -> str:
        where = f'; every key starts with "{self.prefix}.", the attribute that holds the network' if self.prefix else ""
        return f"it is a Lightning checkpoint{where}"

    @property
    def remedy(self) -> str:
        return f"the network alone: ckptool remap {{file}} -r '{self.prefix}. ->' -o PLAIN" if self.prefix else ""


@dataclass(frozen=True, slots=True)
class OptimizerState(Fact):
    """Much of the file is not weights: bytes of optimizer state, and of everything."""

    nbytes: int = 0
    total: int = 0

    name = "optimizer"
    rank = 16

    @property
    def text(self) -> str:
        share = f"{100 * self.nbytes / self.total:.0f} %"
        return f"{share} of the file is optimizer state ({amount(self.nbytes)}), needed to go on training only"

    @property
    def remedy(self) -> str:
        return "leave it out: ckptool filter {file} --only-weights -o WEIGHTS"


@dataclass(frozen=True, slots=True)
class Script(Fact):
    """A compiled program around the weights; `program` is what made it."""

    program: str = "TorchScript"

    name = "script"
    rank = 17

    @property
    def text(self) -> str:
        return f"it is a {self.program} program: code and weights in one file"

    @property
    def hint(self) -> str:
        return "nothing of it runs here"

    @property
    def remedy(self) -> str:
        return "the weights alone: ckptool filter {file} -o OUT.safetensors"


@finder
def find_empty(headers: Headers) -> Iterator[Empty]:
    if not headers.checkpoint:
        yield Empty(others=headers.checkpoint.selection.others)


@finder
def find_mixed_dtypes(headers: Headers) -> Iterator[MixedDtypes]:
    dtypes = {form.dtype for form in headers.kinds if DTYPES[form.dtype].kind == "float"}
    if len(dtypes) < 2:
        return
    names, forms = outlines(headers.keys), {id(form): form for form in headers.forms}
    found: dict[str, set[str]] = defaultdict(set)
    for name, number in set(zip(names, map(id, headers.forms), strict=True)):  # a quick look: few differ
        found[name].add(forms[number].dtype)
    by_role: dict[str, set[str]] = defaultdict(set)
    for name, some in found.items():
        by_role[_role(name)] |= some & dtypes
    suspects = {name for name in found if len(by_role[_role(name)]) > 1}
    roles: dict[str, Counter[str]] = defaultdict(Counter)
    for key, name, form in zip(headers.keys, names, headers.forms, strict=True) if suspects else ():
        if name in suspects and form.dtype in dtypes:
            roles[_role(key)][DTYPES[form.dtype].short] += 1
    mixed = {role: counts for role, counts in roles.items() if len(counts) > 1}
    for role, counts in list(mixed.items())[:1]:
        yield MixedDtypes((role,), role, tuple(counts.most_common()), len(mixed) - 1)


def _role(key: str) -> str:
    """The key with a star for each number."""
    return ".".join(["*" if part.isdecimal() and part.isascii() else part for part in key.split(".")])


@finder
def find_lightning(headers: Headers) -> Iterator[Lightning]:
    if "pytorch-lightning_version" in {extra.name for extra in headers.checkpoint.extras}:
        yield Lightning(prefix=common_prefix(strip_wrappers(key) for key in headers.keys).split(".")[0])


@finder
def find_optimizer(headers: Headers) -> Iterator[OptimizerState]:
    states = [extra for extra in headers.checkpoint.extras if re.search("optim", extra.name, re.IGNORECASE)]
    nbytes = sum(extra.nbytes for extra in states)
    if nbytes < _WORTH_SAYING:
        return
    weights = sum(form.nbytes for form in headers.forms)
    if nbytes > _MUCH * weights:
        yield OptimizerState(nbytes=nbytes, total=max(headers.checkpoint.nbytes, nbytes + weights))


@finder
def find_script(headers: Headers) -> Iterator[Script]:
    if headers.checkpoint.format.is_program:
        yield Script(program=headers.checkpoint.format.name)
