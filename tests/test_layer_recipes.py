"""Layers dropped, repeated and numbered anew: equal to the same surgery on the model in memory, config.json with it."""

from __future__ import annotations

import copy
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import ckptool
from ckptool.cli.app import run
from ckptool.core.errors import CkptError
from ckptool.core.plan import sources_of
from ckptool.core.spec import TensorSpec
from ckptool.models import import_torchvision
from ckptool.recipes.binding import with_lists, with_numbers
from ckptool.recipes.expand import expand
from ckptool.recipes.lists import layers_of, outer_lists
from ckptool.recipes.reading import parse_stages
from ckptool.recipes.recipe import load_recipe, parse_recipe

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import_torchvision()
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

SHARED = {
    "vocab_size": 40, "hidden_size": 16, "num_attention_heads": 4, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": [2, 3, 4, 5, 6, 7],
}  # fmt: skip
SMALL = {"num_hidden_layers": 6, "intermediate_size": 24}
MIXED = ["full_attention", "sliding_attention"] * 3
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", "model.layers", {**SMALL, "num_key_value_heads": 2}),
    "gpt2": ("GPT2LMHeadModel", "transformer.h", {"n_layer": 6, "n_positions": 32}),
    "bert": ("BertForMaskedLM", "bert.encoder.layer", {**SMALL, "max_position_embeddings": 32, "eos_token_id": 2}),
    "qwen2": (
        "Qwen2ForCausalLM", "model.layers",
        {**SMALL, "num_key_value_heads": 2, "layer_types": MIXED, "use_sliding_window": True, "sliding_window": 4},
    ),
    "qwen3-moe": (
        "Qwen3MoeForCausalLM", "model.layers",
        {**SMALL, "num_key_value_heads": 2, "head_dim": 4, "num_experts": 9, "num_experts_per_tok": 2,
         "moe_intermediate_size": 8, "decoder_sparse_step": 1, "mlp_only_layers": []},
    ),
}  # fmt: skip
SURGERY: dict[str, tuple[tuple[str, ...], list[int]]] = {
    "drop": (("-r", "drop-layers", "--var", "first=2", "--var", "last=3"), [0, 1, 4, 5]),
    "drop one": (("-r", "drop-layers", "--var", "first=0", "--var", "last=0"), [1, 2, 3, 4, 5]),
    "drop the last": (("-r", "drop-layers", "--var", "first=4", "--var", "last=5"), [0, 1, 2, 3]),
    "duplicate": (("-r", "duplicate-layers", "--var", "first=1", "--var", "last=3"), [0, 1, 2, 3, 1, 2, 3, 4, 5]),
    "duplicate all": (("-r", "duplicate-layers", "--var", "first=0", "--var", "last=5"), [*range(6), *range(6)]),
    "first": (("-r", "keep-first-layers", "--var", "n=2"), [0, 1]),
    "all": (("-r", "keep-first-layers", "--var", "n=6"), [0, 1, 2, 3, 4, 5]),
    "every second": (("-r", "keep-every-nth-layer", "--var", "n=2"), [0, 2, 4]),
    "holes": (("-r", "{layers#}{i=1..2}.{k**} -> !", "-r", "renumber-layers"), [0, 3, 4, 5]),
}


def saved(name: str, folder: Path) -> Any:
    kind, _, given = MODELS[name]
    torch.manual_seed(0)
    model_class = getattr(transformers, kind)
    model = model_class(model_class.config_class(**{**SHARED, **given})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    return model


def outputs(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.arange(3, 13).reshape(1, 10), use_cache=False).logits
    return found


def by_hand(model: Any, at: str, order: list[int]) -> Any:
    """The same layers in the model itself, each a module of its own that knows its number and its kind."""
    parent, _, last = at.rpartition(".")
    layers = nn.ModuleList([copy.deepcopy(model.get_submodule(at)[number]) for number in order])
    setattr(model.get_submodule(parent), last, layers)
    for number, layer in enumerate(layers):
        for part in layer.modules():
            if hasattr(part, "layer_idx"):
                part.layer_idx = number
    model.config.num_hidden_layers = len(order)
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = [model.config.layer_types[number] for number in order]
    return model


@pytest.mark.parametrize("surgery", SURGERY)
@pytest.mark.parametrize("name", MODELS)
def test_it_loads_and_computes_what_the_edited_model_does(name: str, surgery: str, tmp_path: Path) -> None:
    model = saved(name, tmp_path / "in")
    kind, at, _ = MODELS[name]
    words, order = SURGERY[surgery]
    assert run(["remap", str(tmp_path / "in"), *words, "-o", str(tmp_path / "out"), "--quiet"]) == 0
    again, info = getattr(transformers, kind).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not {key: list(value) for key, value in info.items() if value}
    assert len(again.get_submodule(at)) == len(order)
    assert torch.equal(outputs(again.eval()), outputs(by_hand(model, at, order)))
    before, after = (json.loads((tmp_path / side / "config.json").read_text()) for side in ("in", "out"))
    counts = {"num_hidden_layers", "n_layer", "layer_types"}
    assert {key: value for key, value in after.items() if key not in counts} == {
        key: value for key, value in before.items() if key not in counts
    }
    if "layer_types" in before:
        assert after["layer_types"] == [before["layer_types"][number] for number in order]


def _state(names: list[str]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([float(number)]) for number, name in enumerate(names)}


@pytest.mark.parametrize(
    ("names", "made"),
    [
        (["layer1.w", "layer2.w", "layer3.w", "fc.w"], ["layer1.w", "layer2.w", "fc.w"]),
        (["a.b.blocks.0.w", "a.b.blocks.1.w", "a.b.blocks.2.w"], ["a.b.blocks.0.w", "a.b.blocks.1.w"]),
        (["0.w", "1.w", "2.w"], ["0.w", "1.w"]),
        (["e.layer_0.w", "e.layer_1.w", "e.layer_2.w", "e.ln.w"], ["e.layer_0.w", "e.layer_1.w", "e.ln.w"]),
        ([f"h.{i}.experts.{e}.w" for i in range(3) for e in range(5)],
         [f"h.{i}.experts.{e}.w" for i in range(2) for e in range(5)]),
        (["wav2vec2.layers.0.w", "wav2vec2.layers.1.w", "wav2vec2.layers.2.w"],
         ["wav2vec2.layers.0.w", "wav2vec2.layers.1.w"]),
        (["m.layers.0.w", "m.layers.1.w", "m.layers.2.w", "mtp.layers.0.w"],
         ["m.layers.0.w", "m.layers.1.w", "mtp.layers.0.w"]),
    ],
)  # fmt: skip
def test_lists_of_any_name(names: list[str], made: list[str], tmp_path: Path) -> None:
    state = _state(names)
    save_file(state, tmp_path / "in.safetensors")
    plan = ckptool.plan_remap(tmp_path / "in.safetensors", "drop-layers", vars={"first": 1, "last": 1})
    plan.apply(tmp_path / "out.safetensors")
    found = load_file(tmp_path / "out.safetensors")
    assert set(found) == set(made)
    gone = {name for name in names if re.search(r"(?:^|blocks\.|layer_|h\.|layers\.|layer)1(?:\.|$)", name)}
    left = sorted(value.item() for name, value in state.items() if name not in gone)
    assert sorted(value.item() for value in found.values()) == left


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_t5_has_two_lists_and_two_numbers(side: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=40, d_model=16, d_kv=4, d_ff=24, num_heads=4, num_layers=4, num_decoder_layers=4,
        decoder_start_token_id=0,
    )  # fmt: skip
    model = transformers.T5ForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path / "in")
    words = ["--var", "first=2", "--var", "last=3", "--var", f"layers={side}.block"]
    assert run(["remap", str(tmp_path / "in"), "-r", "drop-layers", *words, "-o", str(tmp_path / "out"), "-q"]) == 0
    kind = transformers.T5ForConditionalGeneration
    again, info = kind.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not {key: list(value) for key, value in info.items() if value}
    stack = getattr(model, side)
    stack.block = stack.block[:2]
    ids = torch.arange(3, 13).reshape(1, 10)
    with torch.no_grad():
        one, two = (
            each.eval()(input_ids=ids, decoder_input_ids=ids, use_cache=False).logits for each in (again, model)
        )
    assert torch.equal(one, two)


def test_what_counts_layers_in_config_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved("llama", tmp_path / "in")
    path = tmp_path / "in" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "max_window_layers": 4, "first_k_dense_replace": 0}))
    words = ["-r", "drop-layers", "--var", "first=2", "--var", "last=3", "-o", str(tmp_path / "out")]
    assert run(["remap", str(tmp_path / "in"), *words]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "max_window_layers is 4 and speaks of the blocks by number" in said and "first_k_dense" not in said


def test_there_and_back(tmp_path: Path) -> None:
    saved("llama", tmp_path / "in")
    numbers = ["--var", "first=1", "--var", "last=3"]
    assert (
        run(["remap", str(tmp_path / "in"), "-r", "duplicate-layers", *numbers, "-o", str(tmp_path / "mid"), "-q"]) == 0
    )
    back = ["-r", "duplicate-layers", "--reverse", *numbers, "-o", str(tmp_path / "back"), "-q"]
    assert run(["remap", str(tmp_path / "mid"), *back]) == 0
    assert run(["diff", str(tmp_path / "in"), str(tmp_path / "back")]) == 0
    config, again = (json.loads((tmp_path / side / "config.json").read_text()) for side in ("in", "back"))
    assert config == again


@pytest.mark.parametrize(
    ("recipe", "numbers", "told"),
    [
        ("drop-layers", {"first": 2}, "needs the number last"),
        ("drop-layers", {"first": 2, "last": 9}, "matches none"),
        ("drop-layers", {"first": 2, "last": 6}, "there is i = 0 to 5"),
        ("drop-layers", {"first": 3, "last": 1}, "invalid range"),
        ("drop-layers", {"first": 0.5, "last": 1}, "whole number"),
        ("drop-layers", {"first": -2, "last": 1}, "cannot begin at -2"),
        ("keep-first-layers", {"n": 7}, "matches none"),
        ("keep-first-layers", {"n": 0}, "cannot begin at -1"),
        ("keep-every-nth-layer", {"n": 0}, "not a capture"),
        ("keep-every-nth-layer", {"n": 2, "m": 3}, "no rule uses m"),
        ("keep-every-nth-layer", {"n": "two"}, "not a number"),
    ],
)
def test_what_cannot_be_is_refused(recipe: str, numbers: dict[str, Any], told: str, tmp_path: Path) -> None:
    save_file(_state([f"h.{i}.w" for i in range(6)]), tmp_path / "in.safetensors")
    with pytest.raises(CkptError) as caught:
        plan = ckptool.plan_remap(tmp_path / "in.safetensors", recipe, vars=numbers)
        plan.apply(tmp_path / "out.safetensors")
    said = f"{caught.value.message} {caught.value.hint}"
    assert told in said and not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("text", ["{#i}.w -> {i}.w", "{k**}.{p*} -> {k**}.{#p}", "{a=b|c}.w -> {#a}.w"])
def test_places_are_of_numbers_on_the_left(text: str) -> None:
    with pytest.raises(CkptError):
        with_lists(parse_stages([text])[0], ["b.w", "1.w"], {})


def test_ten_comes_after_nine() -> None:
    stage = with_lists(
        parse_stages(["{layers#}{i}.{k**} -> {layers#}{#i}.{k**}"])[0], [f"h.{i}.w" for i in (10, 9, 2)], {}
    )
    assert str(stage.rules[0]) == "h.{i=2|9|10}.{k**} -> h.{i=0|1|2}.{k**}"


def test_lists_in_modules_of_a_list_are_no_lists_of_layers() -> None:
    keys = [f"model.layers.{i}.mlp.experts.{e}.up.weight" for i in range(3) for e in range(64)]
    assert outer_lists(keys) == {"model.layers.": {0, 1, 2}} and layers_of(keys) == "model.layers."


def test_numbers_stand_in_the_names_of_any_rule() -> None:
    recipe = with_numbers(parse_recipe(["h.{step*i+1}.{k**} -> g.{i}.{k**} | a b -> b a"]), {"step": 3})
    assert str(recipe.rules[0]) == "h.{3*i+1}.{k**} -> g.{i}.{k**} | a b -> b a"
    recipe = load_recipe("drop-layers")
    assert [rule.numbers for rule in recipe.rules] == [("last",), ("first", "last"), ("last", "first")]


@pytest.mark.parametrize(
    ("words", "count"), [(("first=1", "last=1"), 3), (("first=0", "last=2"), 1), (("first=4", "last=4"), None)]
)
def test_layers_that_predict_further_tokens_stand_behind_the_counted_ones(
    words: tuple[str, ...], count: int | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    save_file(_state([f"model.layers.{i}.w" for i in range(5)]), tmp_path / "in" / "model.safetensors")
    before = {"num_hidden_layers": 4, "num_nextn_predict_layers": 1, "kinds": [0, 1, 2, 3], "all": [0, 1, 2, 3, 4]}
    (tmp_path / "in" / "config.json").write_text(json.dumps(before))
    numbers = [word for text in words for word in ("--var", text)]
    assert run(["remap", str(tmp_path / "in"), "-r", "drop-layers", *numbers, "-o", str(tmp_path / "out")]) == 0
    after = json.loads((tmp_path / "out" / "config.json").read_text())
    if count is None:  # the further one is dropped itself
        assert after == before and "num_hidden_layers is 4" in " ".join(capsys.readouterr().out.split())
    else:
        left = [number for number in range(5) if not int(words[0][-1]) <= number <= int(words[1][-1])]
        assert after == {**before, "num_hidden_layers": count, "kinds": left[:-1], "all": left}


def test_a_number_that_no_list_has_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    save_file(_state([f"model.layers.{i}.w" for i in range(5)]), tmp_path / "in" / "model.safetensors")
    (tmp_path / "in" / "config.json").write_text('{"num_hidden_layers": 3}')
    assert (
        run(["remap", str(tmp_path / "in"), "-r", "keep-first-layers", "--var", "n=4", "-o", str(tmp_path / "out")])
        == 0
    )
    assert "num_hidden_layers is 3, and no list of blocks" in " ".join(capsys.readouterr().out.split())


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_numbers_do_what_lists_do(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 14))
    last = data.draw(st.integers(0, count - 1))
    first = data.draw(st.integers(0, last))
    every = data.draw(st.integers(1, 5))
    under = data.draw(st.sampled_from(["", "h.", "module.encoder.layer.", "stage", "a.b.block_"]))
    layers = list(range(count))
    wanted = {
        "drop-layers": layers[:first] + layers[last + 1 :],
        "duplicate-layers": layers[: last + 1] + layers[first:],
        "keep-first-layers": layers[: last + 1],
        "keep-every-nth-layer": layers[::every],
        "renumber-layers": layers,
    }
    gap = data.draw(st.integers(1, 3))
    for name, order in wanted.items():
        step = gap if name == "renumber-layers" else 1
        keys = [f"{under}{number * step}.{leaf}" for number in layers for leaf in ("w", "sub.0.w", "sub.1.w")]
        specs = {key: TensorSpec(key, "float32", (1,)) for key in [*keys, "head.weight"]}
        numbers = {"first": first, "last": last, "n": every if "nth" in name else last + 1}
        recipe = with_numbers(load_recipe(name), numbers)
        found = {step.target.key: next(sources_of(step.value)).key for step in expand(recipe, specs).steps}
        made = {
            f"{under}{place}.{leaf}": f"{under}{number * step}.{leaf}"
            for place, number in enumerate(order)
            for leaf in ("w", "sub.0.w", "sub.1.w")
        }
        assert found == {**made, "head.weight": "head.weight"}, name


def test_a_transplant_drops_layers_on_the_way(tmp_path: Path) -> None:
    source = {f"model.layers.{i}.w": torch.tensor([float(i)]) for i in range(6)}
    save_file(source, tmp_path / "six.safetensors")
    save_file({f"model.layers.{i}.w": torch.zeros(1) for i in range(4)}, tmp_path / "four.safetensors")
    out = tmp_path / "out.safetensors"
    words = ["transplant", str(tmp_path / "six.safetensors"), "--into", str(tmp_path / "four.safetensors")]
    words += ["-r", "drop-layers", "--var", "first=1", "--var", "last=2", "--var", "layers=model.layers"]
    assert run([*words, "--strict", "-o", str(out), "-q"]) == 0
    assert [load_file(out)[f"model.layers.{i}.w"].item() for i in range(4)] == [0, 3, 4, 5]


@pytest.mark.parametrize("name", ["out", "out.pth"])
def test_repeated_layers_are_trained_apart(name: str, tmp_path: Path) -> None:
    """A layer and its repetition begin equal and are two: the tied embedding stays one tensor with the head."""
    torch.manual_seed(0)
    given = {**SHARED, **MODELS["llama"][2], "tie_word_embeddings": True}
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**given)).save_pretrained(tmp_path / "in")
    words = ["-r", "duplicate-layers", "--var", "first=0", "--var", "last=1"]
    assert run(["remap", str(tmp_path / "in"), *words, "-o", str(tmp_path / name), "--quiet"]) == 0
    first, second = (f"model.layers.{number}.mlp.up_proj.weight" for number in (0, 2))
    if name == "out":
        model = transformers.LlamaForCausalLM.from_pretrained(tmp_path / name)
        with safe_open(tmp_path / name / "model.safetensors", "pt") as file:
            assert first not in str(file.metadata())
    else:
        count = given["num_hidden_layers"] + 2
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**given, "num_hidden_layers": count}))
        state = torch.load(tmp_path / name, weights_only=True)
        missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
        assert (set(missing) - {"lm_head.weight"}, unexpected) == (set(), [])
        model.tie_weights()
    one, other = model.get_parameter(first), model.get_parameter(second)
    kept = other.detach().clone()
    assert torch.equal(one, other)
    with torch.no_grad():
        one.add_(1)
    assert torch.equal(other, kept)
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
