"""The automatic match: right or nothing. The truth is a recipe that a person wrote, or how the target was made."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Iterable, Mapping
from itertools import product
from types import ModuleType
from typing import Any

import pytest

from ckptool.core.plan import sources_of
from ckptool.core.spec import TensorSpec
from ckptool.matching.match import match
from ckptool.matching.result import Confidence, MatchReport
from ckptool.recipes.expand import expand
from ckptool.recipes.recipe import Recipe, load_recipe, parse_recipe
from ckptool.recipes.reverse import check_reverse
from ckptool.report.match_recipe import match_recipe

Specs = dict[str, TensorSpec]
Truth = Mapping[str, tuple[str, ...]]


def specs(rows: Iterable[tuple[str, tuple[int, ...]]]) -> Specs:
    return {key: TensorSpec(key, "float32", shape) for key, shape in rows}


def shapes_of(build: Any) -> Specs:
    """The specs of a model made without its weights."""
    import torch

    with torch.device("meta"):
        state = build().state_dict()
    return {key: TensorSpec(key, str(tensor.dtype)[6:], tuple(tensor.shape)) for key, tensor in state.items()}


def made_by(recipe: Recipe, source: Specs, **kwargs: Any) -> tuple[Specs, Truth]:
    """What a recipe makes of a checkpoint, and of what."""
    found = expand(recipe, source, **kwargs)
    assert not found.problems, found.problems
    target = {step.target.key: step.target for step in found.steps}
    return target, {step.target.key: tuple(sorted({one.key for one in sources_of(step.value)})) for step in found.steps}


def given(report: MatchReport) -> Truth:
    """What is accepted by default: for each target, its sources."""
    return {
        key: tuple(sorted(pair.sources))
        for pair in report.accepted()
        for key in pair.targets
        if pair.confidence is not Confidence.GUESS
    }


def linear(name: str, outputs: int, inputs: int) -> list[tuple[str, tuple[int, ...]]]:
    return [(f"{name}.weight", (outputs, inputs)), (f"{name}.bias", (outputs,))]


def norm(name: str, width: int, names: str = "weight bias") -> list[tuple[str, tuple[int, ...]]]:
    return [(f"{name}.{role}", (width,)) for role in names.split()]


def blocks(prefix: str, count: int, width: int = 8) -> list[tuple[str, tuple[int, ...]]]:
    """A transformer in the style of timm."""
    rows = []
    for at in range(count):
        block = f"{prefix}{at}."
        rows += norm(f"{block}norm1", width) + linear(f"{block}attn.qkv", 3 * width, width)
        rows += linear(f"{block}attn.proj", width, width) + norm(f"{block}norm2", width)
        rows += linear(f"{block}mlp.fc1", 4 * width, width) + linear(f"{block}mlp.fc2", width, 4 * width)
    return rows


def checked(report: MatchReport, source: Specs, target: Specs) -> Recipe:
    """The recipe as it is written, which must make exactly the accepted pairs and come back."""
    table = tomllib.loads(match_recipe(report))
    recipe = parse_recipe(table["rules"].splitlines())
    kept = {key for pair in report.accepted() for key in pair.sources}
    inside = {key: spec for key, spec in source.items() if key in kept}
    used = parse_recipe([rule.text for rule in recipe.rules if not rule.drops])
    found = expand(used, inside, targets=target)
    assert not found.problems, found.problems
    assert {step.target.key: step.target.shape for step in found.steps} == {
        key: target[key].shape for key in given(report)
    }
    assert {
        step.target.key: tuple(sorted({one.key for one in sources_of(step.value)})) for step in found.steps
    } == given(report)
    return used


# ---------------------------------------------------------------------------------------------- names


def test_a_prefix() -> None:
    target = specs(blocks("blocks.", 3))
    source = {f"module.{key}": TensorSpec(f"module.{key}", "float32", spec.shape) for key, spec in target.items()}
    report = match(source, target)
    assert given(report) == {key: (f"module.{key}",) for key in target}
    assert [rule.text for rule in report.rules] == ["module. ->"]
    assert check_reverse(checked(report, source, target), source).is_exact


def test_roles_of_tensorflow() -> None:
    source = specs(norm("encoder.LayerNorm", 8, "gamma beta") + linear("encoder.dense", 4, 8))
    report = match(source, specs(norm("encoder.LayerNorm", 8) + linear("encoder.dense", 4, 8)))
    assert given(report)["encoder.LayerNorm.weight"] == ("encoder.LayerNorm.gamma",)
    assert given(report)["encoder.LayerNorm.bias"] == ("encoder.LayerNorm.beta",)


def test_shuffled_files_are_matched_by_their_words() -> None:
    source = specs(blocks("encoder.layers.", 4))
    rows = [
        (key.replace("encoder.layers", "trunk.h").replace("norm", "ln_"), spec.shape) for key, spec in source.items()
    ]
    random.Random(0).shuffle(rows)
    report = match(source, specs(rows))
    wanted = {key.replace("encoder.layers", "trunk.h").replace("norm", "ln_"): (key,) for key in source}
    assert given(report) == wanted


def test_blocks_that_only_one_side_has() -> None:
    source, target = specs(blocks("encoder.", 6)), specs(blocks("blocks.", 4))
    report = match(source, target)
    assert given(report) == {key: (key.replace("blocks", "encoder"),) for key in target}
    assert any("{l=0..3}" in rule.text or "{4-5}" in rule.text for rule in report.rules)


def test_a_shard_of_the_last_layers_keeps_its_numbers() -> None:
    source = specs([row for row in blocks("layers.", 8) if int(row[0].split(".")[1]) >= 5])
    target = specs(blocks("layers.", 8))
    assert given(match(source, target)) == {key: (key,) for key in source}


def test_numbers_moved_by_inserted_modules() -> None:
    """0 and 2 are names of both, and 2 is another layer."""
    source = specs(row for at in range(4) for row in linear(f"net.{at}", 8, 8))
    target = specs(row for at in range(4) for row in linear(f"net.{2 * at}", 8, 8))
    found = given(match(source, target))
    for at, role in product(range(4), ("weight", "bias")):
        assert found.get(f"net.{2 * at}.{role}", (f"net.{at}.{role}",)) == (f"net.{at}.{role}",)


# ---------------------------------------------------------------------------------------------- refusals


def test_two_towers_without_a_word_in_common_are_not_told_apart() -> None:
    source = specs(blocks("tower_x.", 3) + blocks("tower_y.", 3))
    report = match(source, specs(blocks("left.", 3) + blocks("right.", 3)))
    assert not report.accepted()


def test_two_towers_are_told_apart_by_a_word() -> None:
    source = specs(blocks("image_encoder.", 3) + blocks("text_encoder.", 3))
    target = specs(blocks("text_model.", 3) + blocks("vision_model.", 3))
    names = {"text_model": "text_encoder", "vision_model": "image_encoder"}
    wanted = {key: (key.replace(key.split(".")[0], names[key.split(".")[0]]),) for key in target}
    assert given(match(source, target)) == wanted


def llama() -> tuple[Specs, Specs]:
    """Meta's names, except those of the MLP, and Hugging Face's, of two layers."""
    ours, theirs = [("tok_embeddings.weight", (50, 8))], [("model.embed_tokens.weight", (50, 8))]
    for at in range(2):
        for x, y in zip("qkvo", "qkvo", strict=True):
            ours.append((f"layers.{at}.attention.w{x}.weight", (8, 8)))
            theirs.append((f"model.layers.{at}.self_attn.{y}_proj.weight", (8, 8)))
        ours += [(f"layers.{at}.feed_forward.p{n}.weight", (8, 20) if n == 2 else (20, 8)) for n in (1, 2, 3)]
        theirs += [
            (f"model.layers.{at}.mlp.{name}_proj.weight", (8, 20) if name == "down" else (20, 8))
            for name in ("gate", "up", "down")
        ]
        ours += [(f"layers.{at}.{name}.weight", (8,)) for name in ("attention_norm", "ffn_norm")]
        theirs += [
            (f"model.layers.{at}.{name}.weight", (8,)) for name in ("input_layernorm", "post_attention_layernorm")
        ]
    ours += [("norm.weight", (8,)), ("output.weight", (50, 8))]
    theirs += [("model.norm.weight", (8,)), ("lm_head.weight", (50, 8))]
    return specs(ours), specs(theirs)


def test_what_only_the_order_tells_is_shown_and_not_taken() -> None:
    source, target = llama()
    report = match(source, target)
    found = given(report)
    assert found["model.layers.1.self_attn.o_proj.weight"] == ("layers.1.attention.wo.weight",)
    assert found["model.layers.0.post_attention_layernorm.weight"] == ("layers.0.ffn_norm.weight",)
    assert len(found) == len(target) - 4
    doubtful = [pair for pair in report.pairs if pair.confidence is Confidence.INTERCHANGEABLE]
    assert {pair.sources[0] for pair in doubtful} == {
        f"layers.{at}.feed_forward.p{n}.weight" for at in (0, 1) for n in (1, 3)
    }
    assert all(pair.runner_up for pair in doubtful)
    assert any("rotary" in note.text for note in report.notes)
    text = match_recipe(report)
    assert "# layers.{l}.feed_forward.p1.weight -> model.layers.{l}.mlp.gate_proj.weight" in text
    assert "\nlayers.{l}.feed_forward.p1" in match_recipe(report, Confidence.INTERCHANGEABLE)
    assert check_reverse(checked(report, source, target), {key: source[key] for (key,) in found.values()}).is_exact


def test_unrelated_models_share_nothing() -> None:
    convolutional = specs(
        row
        for at in range(6)
        for row in [(f"features.{3 * at}.weight", (16, 16, 3, 3)), *norm(f"features.{3 * at + 1}", 16)]
    )
    report = match(convolutional, specs(blocks("blocks.", 4, width=16)))
    assert not report.pairs and not report.rules and report.notes


def test_blocks_of_another_kind_of_model_are_a_guess() -> None:
    """GPT-2 and ViT have blocks of one shape, and nothing else in common."""
    source = specs([("wte.weight", (500, 8)), ("wpe.weight", (64, 8)), *blocks("h.", 3)])
    target = specs([("conv_proj.weight", (8, 3, 16, 16)), *blocks("encoder.layers.", 3), ("head.weight", (10, 8))])
    report = match(source, target)
    assert not report.accepted() and report.accepted(Confidence.GUESS)


# ---------------------------------------------------------------------------------------------- groups and layouts


def split_qkv(prefix: str, count: int, width: int = 8) -> list[tuple[str, tuple[int, ...]]]:
    rows = []
    for key, shape in blocks(prefix, count, width):
        if ".qkv." in key:
            rows += [(key.replace("qkv", f"{x}_proj"), (shape[0] // 3, *shape[1:])) for x in "kvq"]
        else:
            rows.append((key, shape))
    return rows


@pytest.mark.parametrize("is_split", [False, True])
def test_fused_qkv(is_split: bool) -> None:
    one, other = specs(split_qkv("encoder.layer.", 2)), specs(blocks("blocks.", 2))
    source, target = (other, one) if is_split else (one, other)
    report = match(source, target)
    assert set(given(report)) == set(target)
    pair = next(pair for pair in report.accepted() if len(pair.sources) + len(pair.targets) == 4)
    named = [key.split(".")[-2] for key in (pair.targets if is_split else pair.sources)]
    assert named == ["q_proj", "k_proj", "v_proj"]
    assert check_reverse(checked(report, source, target), source).is_exact


def test_experts_are_stacked_in_the_order_of_their_numbers() -> None:
    rows: list[tuple[str, tuple[int, ...]]] = []
    for at in range(2):
        moe = f"model.layers.{at}.block_sparse_moe."
        rows += [(f"{moe}gate.weight", (11, 8))]
        for e in sorted(range(11), key=str):  # 10 before 2, as sorted files have it
            rows += [(f"{moe}experts.{e}.w{n}.weight", (8, 12) if n == 2 else (12, 8)) for n in (1, 2, 3)]
        rows += [(f"model.layers.{at}.self_attn.o_proj.weight", (8, 8))]
    source = specs(rows)
    target, truth = made_by(load_recipe("mixtral-fuse-experts"), source)
    report = match(source, target)
    assert given(report) == truth
    down = next(pair for pair in report.pairs if "down" in pair.targets[0])
    assert [key.split(".")[5] for key in down.sources] == [str(e) for e in range(11)]
    checked(report, source, target)


def test_conv1d_is_turned_even_where_it_is_square() -> None:
    def rows(turned: bool) -> Specs:
        found = []
        for at in range(2):
            for name, outputs, inputs in (("attn.c_attn", 24, 8), ("attn.c_proj", 8, 8), ("mlp.c_fc", 32, 8)):
                shape = (inputs, outputs) if turned else (outputs, inputs)
                found += [(f"h.{at}.{name}.weight", shape), (f"h.{at}.{name}.bias", (outputs,))]
        return specs(found)

    report = match(rows(True), rows(False))
    layouts = {pair.targets[0]: pair.layout for pair in report.accepted()}
    assert len(layouts) == 12
    assert all(layout == ("i o -> o i" if key.endswith("weight") else "") for key, layout in layouts.items())


def test_ones_in_the_shape() -> None:
    source = specs([("a.layer_scale", (6, 1, 1)), ("a.class_token", (1, 1, 8)), *linear("a.fc", 3, 8)])
    target = specs([("b.gamma", (6,)), ("b.cls_token", (1, 8)), *linear("b.fc", 3, 8)])
    layouts = {pair.targets[0]: pair.layout for pair in match(source, target).accepted()}
    assert layouts == {"b.gamma": "a 1 1 -> a", "b.cls_token": "1 1 a -> 1 a", "b.fc.weight": "", "b.fc.bias": ""}


# ---------------------------------------------------------------------------------------------- real models


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("resnet50", "torchvision-resnet-to-detectron2"),
        ("resnet18", "torchvision-resnet-to-detectron2"),
        ("resnet50", "torchvision-resnet-to-hf"),
        ("vit_b_16", "torchvision-vit-to-timm"),
        ("swin_t", "torchvision-swin-to-timm"),
        ("convnext_tiny", "torchvision-convnext-to-timm"),
    ],
)
def test_recipes_are_found_again(torchvision: ModuleType, name: str, recipe: str) -> None:
    source = shapes_of(getattr(torchvision.models, name))
    target, truth = made_by(load_recipe(recipe), source)
    report = match(source, target)
    assert given(report) == truth
    assert len(report.rules) <= 12
    checked(report, source, target)


def test_a_network_written_down_twice(torchvision: ModuleType) -> None:
    """Names that say nothing: the shapes of all modules in one order do, except where equal ones are neighbours."""
    source = shapes_of(torchvision.models.mobilenet_v2)
    modules = {key.rpartition(".")[0]: None for key in source}
    names = {module: f"unit{at:03}x" for at, module in enumerate(modules)}
    truth = {f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": (key,) for key in source}
    target = specs((key, source[old].shape) for key, (old,) in truth.items())
    found = given(match(source, target))
    assert all(truth[key] == sources for key, sources in found.items())
    swapped = dict(reversed(target.items()))
    assert all(truth[key] == sources for key, sources in given(match(source, swapped)).items())


def test_a_decoder_counted_from_the_other_end() -> None:
    widths = [64, 32, 16, 8]
    one = [
        row
        for at, w in enumerate(widths)
        for row in [(f"up.{at}.conv.weight", (w // 2, w, 3, 3)), *norm(f"up.{at}.norm", w)]
    ]
    two = [
        row
        for at, w in enumerate(reversed(widths))
        for row in [(f"decoder{at}.conv.weight", (w // 2, w, 3, 3)), *norm(f"decoder{at}.norm", w)]
    ]
    found = given(match(specs(one), specs(two)))
    assert found and all(int(key[7]) + int(sources[0][3]) == 3 for key, sources in found.items())


def test_nothing_in_common(torchvision: ModuleType) -> None:
    models = torchvision.models
    for one, other in (("resnet50", "vit_b_16"), ("densenet121", "resnet50"), ("swin_t", "mobilenet_v2")):
        report = match(shapes_of(getattr(models, one)), shapes_of(getattr(models, other)))
        assert not report.accepted(), (one, other)


def test_the_same_question_has_the_same_answer() -> None:
    source, target = llama()
    assert len({match_recipe(match(source, target), Confidence.INTERCHANGEABLE) for _ in range(3)}) == 1


@pytest.mark.slow
def test_a_hundred_thousand_keys() -> None:
    import time

    source = specs(blocks("model.layers.", 8334))
    target = specs((key.replace("model.layers", "blocks"), spec.shape) for key, spec in source.items())
    start = time.process_time()
    report = match(source, target)
    assert len(report.accepted()) == len(target) == 100_008
    assert time.process_time() - start < 20  # 9 where it was measured
