"""The rules of a match: few, exactly what the pairs say, and right down to the values."""

from __future__ import annotations

import re
import tomllib
from itertools import product
from statistics import median
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ckptool.core.plan import Source, sources_of
from ckptool.core.reasons import Kept
from ckptool.core.spec import TensorSpec
from ckptool.engine.evaluate import compute
from ckptool.matching.match import match
from ckptool.matching.result import Confidence, MatchReport, Pair
from ckptool.recipes.expand import expand
from ckptool.recipes.induce.fold import Texts, folded
from ckptool.recipes.induce.lines import Line
from ckptool.recipes.recipe import parse_recipe
from ckptool.report.match_recipe import match_recipe
from tests.bench.match.pairs import case_of, entries
from tests.test_match import Specs, blocks, checked, given, linear, norm, specs

MOST = {  # of the rules that are taken; today's number and one or two
    "latent diffusion's U-Net to diffusers": 38,
    "efficientnet_pytorch's b0 to torchvision": 32,
    "latent diffusion's VAE to diffusers: the decoder counts backwards": 26,
    "vgg16 to vgg16_bn: renumbered Sequentials": 14,
    "detectron2's Faster R-CNN to torchvision": 13,
    "x-transformers' decoder to blocks: attention and feed-forward take turns": 13,
    "milesial's U-Net to Buda's: up1 is decoder4": 11,
    "nn.Transformer to modules of one's own": 11,
    "resnet50 to detectron2": 10,
    "resnet50 in Keras' names": 9,
    "MONAI's BasicUNet to milesial's: upcat_4 is up1": 8,
    "a detector's backbone in TensorFlow's names": 7,
    "a wide ResNet in two spellings": 7,
    "torch's TransformerEncoder to separate q k v": 5,
    "separate q k v to torch's TransformerEncoder": 5,
    "resnet50 with another head": 2,
}
LONG = 0.07  # of all rules, at most, have over 120 characters: those of joined tensors, or of TensorFlow's long names


def made_by_recipe(report: MatchReport, source: Specs, target: Specs) -> dict[str, tuple[str, ...]]:
    """What the recipe makes as it is written, and of what."""
    table = tomllib.loads(match_recipe(report))
    recipe = parse_recipe(table["rules"].splitlines())
    found = expand(recipe, source, targets=target)
    assert not found.problems, found.problems
    return {
        step.target.key: tuple(sorted({one.key for one in sources_of(step.value)}))
        for step in found.steps
        if step.reason != Kept()
    }


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_rules_are_few_and_say_exactly_what_the_pairs_say(torchvision: ModuleType) -> None:
    counts: dict[str, int] = {}
    lengths: list[int] = []
    for entry in entries():
        if not set(entry.needs) <= {"torch", "torchvision"} or entry.name.startswith("fresh"):
            continue
        case = case_of(entry)
        report = match(case.source, case.target)
        assert (entry.name, made_by_recipe(report, case.source, case.target)) == (entry.name, given(report))
        assert {pair.targets for rule in report.rules for pair in rule.pairs} == {pair.targets for pair in report.pairs}
        assert all(len(rule.evidence) <= 3 for rule in report.rules)
        counts[entry.name] = sum(rule.confidence.within(Confidence.ALIGNED) for rule in report.rules)
        lengths += [len(rule.text) for rule in report.rules]
        assert all(text.count("|") < 6 for rule in report.rules for text in re.findall(r"=([^{}]*)\}", rule.text))
    assert {name: counts[name] for name, most in MOST.items() if counts[name] > most} == {}
    assert median(counts.values()) <= 4
    assert sum(length > 120 for length in lengths) <= LONG * len(lengths)


# ---------------------------------------------------------------------------------------------- values


def transformer(count: int, turned: bool, fused: bool, width: int = 6) -> Specs:
    """Blocks in GPT-2's names, or with q, k and v apart; matrices as torch has them, or turned."""
    rows: list[tuple[str, tuple[int, ...]]] = [("wte.weight", (50, width))]
    for at in range(count):
        qkv = ["attn.c_attn"] if fused else [f"self_attn.{x}_proj" for x in "kvq"]
        out, up, down = ("attn.c_proj", "mlp.c_fc", "mlp.c_proj") if fused else ("self_attn.out_proj", "fc1", "fc2")
        sizes = [(name, 3 * width // len(qkv), width) for name in qkv]
        for name, outputs, inputs in (*sizes, (out, width, width), (up, 4 * width, width), (down, width, 4 * width)):
            (weight, shape), bias = linear(f"{'h' if fused else 'layers'}.{at}.{name}", outputs, inputs)
            rows += [(weight, shape[::-1] if turned else shape), bias]
    return specs(rows)


@pytest.mark.parametrize(("joins", "ours", "theirs"), list(product([True, False], repeat=3)))
def test_fused_matrices_that_are_turned_have_the_right_values(joins: bool, ours: bool, theirs: bool) -> None:
    import torch

    fused, apart = (transformer(2, turned, is_fused) for turned, is_fused in ((ours, True), (theirs, False)))
    source, target = (apart, fused) if joins else (fused, apart)
    report = match(source, target)
    assert set(given(report)) == set(target)
    values = {key: torch.randn(spec.shape, generator=torch.Generator().manual_seed(at)) for at, (key, spec) in
              enumerate(source.items())}  # fmt: skip
    arrays = {Source(0, key): value.numpy() for key, value in values.items()}
    recipe = parse_recipe(tomllib.loads(match_recipe(report))["rules"].splitlines())
    made = {step.target.key: compute(step.value, arrays) for step in expand(recipe, source, targets=target).steps}
    for at, role in product(range(2), ("weight", "bias")):
        whole = f"h.{at}.attn.c_attn.{role}"
        parts = [f"layers.{at}.self_attn.{x}_proj.{role}" for x in "qkv"]

        def as_torch(value: Any, turned: bool, role: str = role) -> Any:
            return value.T if turned and role == "weight" else value

        if joins:
            joined = torch.cat([as_torch(values[part], theirs) for part in parts])
            assert np.array_equal(made[whole], as_torch(joined, ours).numpy())
        else:
            split = as_torch(values[whole], ours).chunk(3)
            for part, value in zip(parts, split, strict=True):
                assert np.array_equal(made[part], as_torch(value, theirs).numpy())
    assert {pair.targets for rule in report.rules for pair in rule.pairs} == {pair.targets for pair in report.pairs}
    checked(report, source, target)


def test_one_rule_for_weight_and_bias_of_three_parts() -> None:
    rows = [row for row in blocks("blocks.", 3) if ".attn." in row[0] or ".mlp." in row[0]]
    split = []
    for key, shape in rows:
        if "qkv" in key:
            split += [(key.replace("attn.qkv", f"attention.{x}"), (shape[0] // 3, *shape[1:]))
                      for x in ("query", "key", "value")]  # fmt: skip
        else:
            split.append((key, shape))
    texts = [rule.text for rule in match(specs(split), specs(rows)).rules]
    parts = "blocks.{l}.attention.{x=query|key|value}"
    assert f"{parts}.{{p=weight|bias}} -> blocks.{{l}}.attn.qkv.{{p}} | o ... -> (x o) ..." in texts
    texts = [rule.text for rule in match(specs(rows), specs(split)).rules]
    assert f"blocks.{{l}}.attn.qkv.{{p=weight|bias}} -> {parts}.{{p}} | (x o) ... -> o ..." in texts


def test_parts_of_different_sizes_are_spelled_out() -> None:
    rows: list[tuple[str, tuple[int, ...]]] = []
    whole: list[tuple[str, tuple[int, ...]]] = []
    for at in range(3):
        rows += [(f"layers.{at}.self_attn.{x}_proj.weight", (8 if x == "q" else 2, 8)) for x in "qkv"]
        whole += [(f"layers.{at}.self_attn.qkv_proj.weight", (12, 8))]
        for side in (rows, whole):
            side += [(f"layers.{at}.self_attn.o_proj.weight", (8, 8)), *norm(f"layers.{at}.norm", 8)]
    report = match(specs(rows), specs(whole))
    assert set(given(report)) == {key for key, _ in whole}
    assert any(rule.text.endswith("| o i, q i, r i -> (o + q + r) i") for rule in report.rules)
    checked(report, specs(rows), specs(whole))


# ---------------------------------------------------------------------------------------------- what rules cannot say


def test_what_no_rule_can_say_is_not_reported_as_found() -> None:
    source = specs([*norm("a{norm", 8), *linear("encoder.fc", 4, 8)])
    report = match(source, specs([*norm("encoder.a{norm", 8), *linear("encoder.fc", 4, 8)]))
    assert set(given(report)) == {"encoder.fc.weight", "encoder.fc.bias"}
    assert set(report.unmatched_targets) == {"encoder.a{norm.weight", "encoder.a{norm.bias"}
    note = next(note for note in report.notes if "no rule says" in note.text)
    assert set(note.keys) == set(report.unmatched_targets) and "2 tensors" in note.text


# ---------------------------------------------------------------------------------------------- numbers


def renamed(form: str, count: int) -> tuple[Specs, Specs, dict[str, str]]:
    target = specs(blocks("blocks.", count))
    names = {key: re.sub(r"blocks\.(\d+)\.", lambda at: form.format(int(at[1])), key) for key in target}
    return specs((name, target[key].shape) for key, name in names.items()), target, names


@pytest.mark.parametrize("count", [4, 12])
@pytest.mark.parametrize("form", ["encoder.layer_{:02}.", "encoder/block_{:03}/", "layers.{:03}."])
def test_padded_numbers(form: str, count: int) -> None:
    source, target, names = renamed(form, count)
    there = match(source, target)
    assert given(there) == {key: (name,) for key, name in names.items()} and len(there.rules) <= 4
    checked(there, source, target)
    back = match(target, source)
    assert given(back) == {name: (key,) for key, name in names.items()} and len(back.rules) <= 4
    checked(back, target, source)


def test_camel_case_is_cut_into_words() -> None:
    def camel(key: str) -> str:
        return ".".join(re.sub(r"_([a-z])", lambda at: at[1].upper(), part) for part in key.split("."))

    rows: list[tuple[str, tuple[int, ...]]] = [("model.embed_tokens.weight", (50, 8)), ("lm_head.weight", (50, 8))]
    for at in range(3):
        layer = f"model.layers.{at}."
        rows += [(f"{layer}self_attn.{x}_proj.weight", (8, 8)) for x in "qkvo"]
        rows += [(f"{layer}mlp.{x}_proj.weight", (8, 20) if x == "down" else (20, 8)) for x in ("gate", "up", "down")]
        rows += [(f"{layer}{name}.weight", (8,)) for name in ("input_layernorm", "post_attention_layernorm")]
    source = specs(sorted((camel(key), shape) for key, shape in rows))
    assert given(match(source, specs(rows))) == {key: (camel(key),) for key, _ in rows}


def texts(rows: dict[str, str], *others: str) -> list[str]:
    lines = [Line((a,), (b,), "", (Pair((b,), (a,), confidence=Confidence.ALIGNED),)) for a, b in rows.items()]
    return sorted(line.text for line in folded(lines, Texts([*rows, *others])))


def test_numbers_become_captures() -> None:
    rows = {f"f.{s}.{b}.w": f"g.{s - 1}.{b}.w" for s in (4, 5, 6) for b in range(s)}
    assert texts(rows) == ["f.{l}.{b}.w -> g.{l-1}.{b}.w"]
    assert texts(rows, "f.7.0.w") == ["f.{l=4..6}.{b}.w -> g.{l-1}.{b}.w"]
    assert texts(rows, "f.07.0.w") == ["f.{l}.{b}.w -> g.{l-1}.{b}.w"]  # 07 is not a number of that form


def test_numbers_without_a_rule_become_choices() -> None:
    rows = {f"f.{s}.{k}.w": f"g.{s}.bn{n}.w" for s in range(3) for k, n in ((0, 1), (1, 2), (3, 3))}
    assert texts(rows) == ["f.{l}.{n=0|1|3}.w -> g.{l}.bn{n=1|2|3}.w"]


def test_one_number_that_becomes_two() -> None:
    rows = {f"in.{3 * s + b + 1}.w": f"down.{s}.res.{b}.w" for s in range(3) for b in range(2)}
    assert texts(rows) == ["in.{3*l+1}.w -> down.{l}.res.0.w", "in.{3*l+2}.w -> down.{l}.res.1.w"]
    uneven = {"b.0.w": "s.0.0.w", "b.1.w": "s.1.0.w", "b.2.w": "s.1.1.w", "b.3.w": "s.2.0.w", "b.4.w": "s.2.1.w",
              "b.5.w": "s.2.2.w", "b.6.w": "s.3.0.w", "b.7.w": "s.4.0.w", "b.8.w": "s.4.3.w"}  # fmt: skip
    few = texts(uneven)
    made = expand(parse_recipe(few), {key: TensorSpec(key, "float32", (1,)) for key in uneven}).steps
    assert {next(sources_of(step.value)).key: step.target.key for step in made} == uneven
    assert len(few) <= 5 and max(map(len, few)) <= 40


def test_an_exception_is_a_rule_by_itself() -> None:
    rows = {f"f.{s}.{b}.w": f"g.{s}.{b}.w" for s in range(3) for b in range(4)} | {"f.3.0.w": "g.3.1.w"}
    assert texts(rows) == ["f.3.0.w -> g.3.1.w", "f.{l=0..2}.{b}.w -> g.{l}.{b}.w"]
