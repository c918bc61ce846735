"""Adapters: low-rank corrections, with or without the weights that they correct."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ckptool.core.counts import many
from ckptool.core.facts import FINE, Answer, Fact, Operation, Refuse, Say, Use
from ckptool.facts.headers import Headers
from ckptool.facts.registry import finder

_DOWN = ("lora_A", "lora_down", "lora.down", "hada_w1_a", "lokr_w1", "oft_blocks", "oft_diag", "ia3_l")
_PART = re.compile(
    r"(?:^|[._])(?P<part>lora_A|lora_B|lora_embedding_[AB]|lora_magnitude_vector|lora_down|lora_up|lora_mid|dora_scale|"
    r"lora\.down|lora\.up|hada_[wt]\d\w*|lokr_[wt]\d\w*|oft_blocks|oft_diag|ia3_l|alpha)(?=\.|$)"
)


@dataclass(frozen=True, slots=True)
class Adapter(Fact):
    """An adapter; the keys are those of its first factors.

    Attributes:
        family: who writes it: "PEFT", "kohya", "diffusers", "LoHa", "LoKr", "OFT", "IA3".
        ranks: the ranks of the factors.
        has_base: the weights that it corrects are in the same file.
    """

    family: str = ""
    ranks: tuple[int, ...] = ()
    has_base: bool = False

    name = "adapter"
    may_be_allowed = True
    also = ("lora", "peft")
    tells = True
    grade = "note"
    rank = 10

    @property
    def text(self) -> str:
        rank = f" of rank {', '.join(map(str, self.ranks))}" if self.ranks else ""
        base = "beside the weights they adapt" if self.has_base else "without the weights they adapt"
        kind = self.family if self.family in ("LoHa", "LoKr", "OFT", "IA3") else "LoRA"
        of = f" ({self.family}'s format)" if self.family in ("kohya", "diffusers") else ""
        return f"{kind} adapters{of}{rank} for {many(len(self.keys), 'layer')}, {base}"

    @property
    def hint(self) -> str:
        if self.family == "PEFT":
            return "alpha and r are in adapter_config.json; merged weight = base + alpha / r * B @ A"
        if self.family == "kohya":
            return "alpha is in the file; merged weight = base + alpha / rank * up @ down"
        return ""

    @property
    def way(self) -> str:
        """How to merge it."""
        if self.family in ("PEFT", "kohya", "diffusers"):
            return "merge it into its base: ckptool merge BASE --lora {file} -o OUT"
        return f"merge it into its base with the library that reads {self.family} adapters, such as peft or LyCORIS"

    def answer(self, use: Use) -> Answer:
        if self.has_base:
            return FINE
        if use.operation is Operation.LOAD or (use.operation is Operation.COPY and use.inputs > 1):
            return Refuse(f"this is an adapter, not a model: {self.text}", self.way, may_insist=True)
        if use.operation is Operation.COMPUTE and use.mixed:
            return Say(
                "factors of adapters are averaged or mixed: the corrections that they make are not the average",
                "merge each adapter into the base first",
            )
        return FINE


@finder
def find(headers: Headers) -> Iterator[Adapter]:
    if not any(part.endswith(_DOWN) or part == "down" for part in headers.parts):
        return
    parts = {key: match["part"] for key in headers.keys if (match := _PART.search(key))}
    downs = tuple(key for key, part in parts.items() if part in _DOWN or part == "lora_embedding_A")
    if not downs:
        return
    shapes = [form.shape for form in headers.checkpoint.forms(downs)]
    ranks = tuple(sorted({shape[0] for shape in shapes if shape}))
    based = any(".base_layer." in key or key.endswith(".base_layer.weight") for key in headers.keys)
    based = based or ((len(headers.keys) - len(parts)) * 2 > len(parts) and not _only_adapter(headers, parts))
    yield Adapter(downs, _family(set(parts.values()), headers), ranks, based)


def _only_adapter(headers: Headers, parts: dict[str, str]) -> bool:
    """True if PEFT's own file: every key begins as it writes them, modules that it saves whole included."""
    return all(key.startswith("base_model.model.") for key in headers.keys) and ".base_layer." not in "".join(parts)


def _family(parts: set[str], headers: Headers) -> str:
    if parts & {"lora_A", "lora_embedding_A"}:
        return "PEFT"
    for family, mark in (("LoHa", "hada_"), ("LoKr", "lokr_"), ("OFT", "oft_"), ("IA3", "ia3_")):
        if any(part.startswith(mark) for part in parts):
            return family
    if "lora_down" in parts and any("." not in key.rpartition(".lora_")[0] for key in headers.keys if ".lora_" in key):
        return "kohya"
    return "diffusers"
