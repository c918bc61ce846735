"""Keys that an older library or another framework spells in its own way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ckptool.core.counts import many
from ckptool.core.facts import Fact
from ckptool.facts.headers import Headers, below
from ckptool.facts.registry import finder


@dataclass(frozen=True, slots=True)
class TensorflowNorms(Fact):
    """``LayerNorm.gamma`` and ``LayerNorm.beta``; `norm` is the name of such a module, `count` their number."""

    norm: str = ""
    count: int = 0

    name = "tensorflow-norms"
    rank = 13

    @property
    def text(self) -> str:
        return f"{many(self.count, 'norm')} with TensorFlow's names gamma and beta for weight and bias"

    @property
    def hint(self) -> str:
        rules = f"-r '.{self.norm}.gamma -> .{self.norm}.weight' -r '.{self.norm}.beta -> .{self.norm}.bias'"
        return f"rename them: ckptool remap {{file}} {rules} -o OUT"


@dataclass(frozen=True, slots=True)
class OldDenseNet(Fact):
    """torchvision's first DenseNet files: ``norm.1``, where today's modules are called ``norm1``."""

    name = "densenet-names"
    rank = 14

    @property
    def text(self) -> str:
        return f"{many(len(self.keys), 'key')} with DenseNet's old names, norm.1 for norm1: written before torch 0.4"

    @property
    def remedy(self) -> str:
        return "rename them: ckptool remap {file} -r densenet-legacy -o OUT"


@finder
def find_norms(headers: Headers) -> Iterator[TensorflowNorms]:
    modules = [name for name in headers.with_all("gamma", "beta") if "norm" in name.rpartition(".")[2].lower()]
    if modules:
        yield TensorflowNorms(below(modules, "gamma"), modules[0].rpartition(".")[2], len(modules))


@finder
def find_densenet(headers: Headers) -> Iterator[OldDenseNet]:
    if "denselayer1" not in headers.parts:
        return
    old = tuple(key for key in headers.keys if re.search(r"denselayer\d+\.(?:norm|relu|conv)\.[12]\.", key))
    if old:
        yield OldDenseNet(old)
