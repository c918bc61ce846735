"""Small models, and probes of what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from recipe_harness import structured
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

import ckptool
from ckptool.commands.probing import probe
from ckptool.commands.transplant.planning import plan_transplant
from ckptool.commands.transplant.result import Asked, Transplant
from ckptool.core.plan import Value
from ckptool.models import target_of
from ckptool.models.probing.report import ProbeReport
from ckptool.recipes.recipe import Recipe, recipe_of
from ckptool.report.document_probe import probe_answer, probe_blocks
from ckptool.report.screen import answer_lines, block_lines
from ckptool.report.text import Screen, paint

Numbers = Mapping[str, float] | None


def planned(
    source: nn.Module, target: nn.Module, folder: Path, rules: Sequence[str] = (), vars: Numbers = None
) -> Transplant:
    """A transplant between two live models, through a file."""
    torch.save({key: tensor.clone() for key, tensor in source.state_dict().items()}, folder / "source.pth")
    old = ckptool.open(folder / "source.pth")
    return plan_transplant(old, target_of(target), Asked(recipe_of(list(rules)) if rules else Recipe(), vars=vars))


def probed(
    source: nn.Module,
    target: nn.Module,
    folder: Path,
    rules: Sequence[str] = (),
    change: Callable[[Transplant], Transplant] = lambda done: done,
    vars: Numbers = None,
    **options: Any,
) -> ProbeReport:
    done = change(planned(structured(source), target, folder, rules, vars))
    return probe(done, target_of(source), **options)


def swapped(*pairs: tuple[str, str]) -> Callable[[Transplant], Transplant]:
    """A transplant with tensors of the target exchanged, as a wrong mapping would have it."""

    def change(done: Transplant) -> Transplant:
        values: dict[str, Value] = {step.target.key: step.value for step in done.plan.steps}
        other = {}
        for one, two in pairs:
            names = [key for key in values if key.startswith(one)]
            for key in names:
                there = two + key.removeprefix(one)
                other |= {key: values[there], there: values[key]}
        assert other
        steps = tuple(replace(step, value=other.get(step.target.key, step.value)) for step in done.plan.steps)
        return replace(done, plan=replace(done.plan, steps=steps))

    return change


def differs(report: ProbeReport, target: str) -> None:
    assert not report.agree and not report.is_proof
    assert report.first is not None and report.first.target == target, report.first
    assert report.first.error > 100 * report.first.limit


def text(report: ProbeReport, width: int = 80) -> str:
    screen = Screen(width=width, elide=True)
    lines = chain(answer_lines(probe_answer(report), screen), block_lines(probe_blocks(report), screen))
    return "\n".join(paint(line, screen) for line in lines)


# ---------------------------------------------------------------------------------------------- small models

WIDTH, HEADS = 16, 2


class Split(nn.Module):
    """Attention with a layer for each of q, k, v."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (one(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for one in (self.q, self.k, self.v))
        return self.out(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Fused(nn.Module):
    """The same with one layer for the three."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w2, self.w3 = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    def __init__(self, attention: Callable[[], nn.Module] = Split) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2, self.mlp = nn.LayerNorm(WIDTH), attention(), nn.LayerNorm(WIDTH), Gated()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Text(nn.Module):
    """A small transformer over tokens."""

    def __init__(
        self, depth: int = 3, classes: int = 5, vocabulary: int = 50, attention: Callable[[], nn.Module] = Split
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, WIDTH)
        self.blocks = nn.Sequential(*(Block(attention) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, classes)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embed(ids))))


FUSE = [
    "{m**}.q.{p*}, {m**}.k.{p*}, {m**}.v.{p*} -> {m**}.qkv.{p*} | a ..., b ..., c ... -> (a + b + c) ...",
    "{m**}.out.{p*} -> {m**}.proj.{p*}",
]


def fused() -> Text:
    return Text(attention=Fused)
