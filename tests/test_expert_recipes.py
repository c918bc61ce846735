"""Experts: from one tensor per expert to stacked ones and back, against transformers' own conversion.

transformers 5 holds stacked experts and writes the older layout of each model. So it is the oracle of both: what it
has written, through a recipe, is loaded strictly into a new model, and the outputs are equal; backwards it is the file
again.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from recipe_harness import assert_comes_back, remap_torch, run, structured

import ckptool
from ckptool.cli.app import run as main
from ckptool.core.spec import TensorSpec
from ckptool.recipes.expand import expand
from ckptool.recipes.recipe import load_recipe, parse_recipe, recipe_of
from ckptool.recipes.reverse import reverse

pytestmark = [
    pytest.mark.filterwarnings("default"),
    pytest.mark.usefixtures("torchvision"),
]

SMALL = {
    "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
HEADS = {"head_dim": 8}
QWEN = {"moe_intermediate_size": 12, "num_experts": 4, "num_experts_per_tok": 2}
GLM = {
    "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 12,
    "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
}  # fmt: skip
MLA = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}
JAMBA = {
    "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
    "mamba_d_state": 4, "mamba_dt_rank": 4,
}  # fmt: skip
LFM2 = {"num_dense_layers": 1, "layer_types": ["conv", "full_attention"], "moe_intermediate_size": 12}
NEMOTRON = {
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12, "n_group": 1, "topk_group": 1,
    "moe_shared_expert_intermediate_size": 12, "layers_block_type": ["moe", "attention"],
}  # fmt: skip
ERNIE = {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 12, "moe_num_shared_experts": 1}
STATICS = ".moe_statics. -> .gate.moe_statics."

WRITTEN: list[tuple[str, str, dict[str, Any], tuple[str, ...]]] = [
    ("mixtral-fuse-experts", "Mixtral", HEADS | {"num_local_experts": 11}, ()),
    ("mixtral-fuse-experts", "MiniMax", HEADS | {"num_local_experts": 4, "block_size": 4}, ()),
    ("mixtral-fuse-experts", "MiniMaxM2", HEADS | {"num_local_experts": 4, "num_experts_per_tok": 2}, ()),
    ("phimoe-fuse-experts", "Phimoe", {"num_local_experts": 4}, ()),
    ("fuse-experts", "Qwen2Moe", HEADS | QWEN | {"shared_expert_intermediate_size": 12, "decoder_sparse_step": 2}, ()),
    ("fuse-experts", "Qwen3Moe", HEADS | QWEN | {"num_experts": 12}, ()),
    ("fuse-experts", "DeepseekV2", GLM | MLA | HEADS, ()),
    ("fuse-experts", "DeepseekV3", GLM | MLA, ()),
    ("fuse-experts", "Glm4Moe", HEADS | GLM, ()),
    ("fuse-experts", "Dots1", HEADS | GLM, ()),
    ("fuse-experts", "Olmoe", {"num_experts": 4, "num_experts_per_tok": 2}, ()),
    ("fuse-experts", "FlexOlmo", {"num_experts": 4, "num_experts_per_tok": 2}, ()),
    ("fuse-experts", "Jamba", JAMBA | {"num_experts": 4, "num_experts_per_tok": 2}, ()),
    ("fuse-experts", "HunYuanMoEV1", HEADS | {"num_experts": 4, "moe_topk": 2}, ()),
    ("fuse-experts", "Ernie4_5_Moe", HEADS | ERNIE, (STATICS,)),
    ("fuse-experts-w123", "Lfm2Moe", LFM2 | {"num_experts": 4, "num_experts_per_tok": 2}, ()),
    ("fuse-experts-ungated", "NemotronH", HEADS | NEMOTRON, ("backbone. -> model.",)),
    ("granitemoe-experts", "GraniteMoe", {"num_local_experts": 4, "num_experts_per_tok": 2}, ()),
    ("aria-experts", "AriaText", HEADS | {"moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 1}, ()),
]


def built(name: str, options: dict[str, Any]) -> Any:
    """Two models of one config, of other weights."""
    transformers = pytest.importorskip("transformers")
    if name == "AriaText":
        from transformers.models.aria import modeling_aria as transformers  # not among the names of the package
    config = getattr(transformers, f"{name}Config")(**{**SMALL, **options})
    kind = getattr(transformers, f"{name}ForCausalLM", None) or getattr(transformers, f"{name}Model")
    torch.manual_seed(1)
    return structured(kind(config)).eval(), kind(config).eval()


def remap(source: Path, out: Path, rules: list[str], *more: str) -> None:
    options = [word for rule in rules for word in ("-r", rule)]
    assert main(["remap", str(source), *options, "-o", str(out), *more]) == 0


@pytest.mark.parametrize(("recipe", "name", "options", "more"), WRITTEN, ids=[row[1] for row in WRITTEN])
def test_what_transformers_writes_is_fused_and_split(
    recipe: str, name: str, options: dict[str, Any], more: tuple[str, ...], tmp_path: Path
) -> None:
    load_file = pytest.importorskip("safetensors.torch").load_file
    ours, theirs = built(name, options)
    ours.save_pretrained(tmp_path / "old")
    saved, fused = load_file(tmp_path / "old" / "model.safetensors"), ours.state_dict()
    assert set(saved) - set(fused), "transformers writes another layout than it holds"
    rules = [recipe, *more]
    remap(tmp_path / "old", tmp_path / "new.safetensors", rules)
    made = load_file(tmp_path / "new.safetensors")
    missing = set(fused) - set(made)
    assert all(key == "lm_head.weight" or "inv_freq" in key for key in missing), missing  # tied; computed
    theirs.load_state_dict({**{key: fused[key] for key in missing}, **made}, strict=True)
    tokens = torch.randint(3, 32, (2, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = [model(tokens, use_cache=False)[0] for model in (ours, theirs)]
    assert torch.equal(*outputs)
    assert outputs[0].std() > 0
    assert_comes_back(recipe_of(rules), saved)
    remap(tmp_path / "new.safetensors", tmp_path / "back.safetensors", rules, "--reverse")
    again = load_file(tmp_path / "back.safetensors")
    assert set(again) == set(saved)
    assert all(torch.equal(again[key], saved[key]) for key in saved)


def test_a_split_layout_that_is_loaded_by_from_pretrained(tmp_path: Path) -> None:
    """What is split backwards is what transformers reads, config and all: the outputs are equal."""
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import save_file

    ours, _ = built("Qwen3Moe", HEADS | QWEN)
    ours.save_pretrained(tmp_path / "old")
    state = {key: tensor.contiguous() for key, tensor in ours.state_dict().items()}
    save_file(state, tmp_path / "old" / "model.safetensors", {"format": "pt"})  # stacked, as it holds them
    remap(tmp_path / "old", tmp_path / "split", ["fuse-experts"], "--reverse")
    keys = set(ckptool.open(tmp_path / "split"))
    assert "model.layers.1.mlp.experts.3.up_proj.weight" in keys
    theirs = transformers.Qwen3MoeForCausalLM.from_pretrained(tmp_path / "split").eval()
    tokens = torch.randint(32, (2, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(ours(tokens).logits, theirs(tokens).logits)


def turned(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor if tensor.dim() == 1 else tensor.mT).contiguous()


def test_gpt_oss_interleaves_gate_and_up() -> None:
    options = HEADS | {"num_local_experts": 4, "num_experts_per_tok": 2, "layer_types": ["full_attention"] * 2}
    ours, theirs = built("GptOss", options)
    state = ours.state_dict()
    for key in list(state):
        if key.endswith("experts.gate_up_proj"):
            state[key].uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    split: dict[str, torch.Tensor] = {}
    for key, tensor in state.items():
        module, _, name = key.partition(".experts.")
        for expert in range(4 if name else 0):
            at, kind = f"{module}.experts.{expert}", "bias" if name.endswith("_bias") else "weight"
            if name.startswith("gate_up_proj"):  # as the model has it: [..., ::2] and [..., 1::2]
                split[f"{at}.gate_proj.{kind}"] = turned(tensor[expert][..., ::2])
                split[f"{at}.up_proj.{kind}"] = turned(tensor[expert][..., 1::2])
            else:
                split[f"{at}.down_proj.{kind}"] = turned(tensor[expert])
        if not name:
            split[key] = tensor
    recipe = load_recipe("gpt-oss-fuse-experts")
    made = remap_torch(recipe, split)
    theirs.load_state_dict(made, strict=True)
    tokens = torch.randint(32, (2, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(ours(tokens).logits, theirs(tokens).logits)
    assert_comes_back(recipe, split)


@pytest.mark.parametrize("name", ["llama4-fuse-experts", "transpose-experts"])
def test_stacked_experts_with_inputs_first(name: str) -> None:
    """Llama 4 and the files of Qwen3-VL-MoE: (expert, in, out)."""
    gates, ups, downs = torch.randn(3, 11, 6, 4)
    downs = downs.transpose(1, 2).contiguous()
    if name == "transpose-experts":
        before = {
            "l.0.mlp.experts.gate_up_proj": torch.cat([gates, ups], 1).transpose(1, 2).contiguous(),
            "l.0.mlp.experts.down_proj": downs.transpose(1, 2).contiguous(),
        }
        made = remap_torch(load_recipe(name), before)
        assert torch.equal(made["l.0.mlp.experts.gate_up_proj"], torch.cat([gates, ups], 1))
        assert torch.equal(made["l.0.mlp.experts.down_proj"], downs)
    else:
        before = {
            f"l.0.feed_forward.experts.{e}.{part}_proj.weight": stack[e]
            for e in range(11)
            for part, stack in (("gate", gates), ("up", ups), ("down", downs))
        }
        x = torch.randn(11, 3, 4)
        made = remap_torch(load_recipe(name), before)
        gate, up = (x @ made["l.0.feed_forward.experts.gate_up_proj"]).chunk(2, dim=-1)  # as Llama4TextExperts has it
        assert torch.allclose(gate, x @ gates.transpose(1, 2)) and torch.allclose(up, x @ ups.transpose(1, 2))
        assert torch.equal(made["l.0.feed_forward.experts.down_proj"], downs.transpose(1, 2))
    assert_comes_back(load_recipe(name), before)


# ---------------------------------------------------------------------------------------------- the table


NOT_COVERED = {
    "ernie4_5_vl_moe",  # the config says which experts are of text and which of images: its own test is below
    "inkling2_loop_text",  # 4-bit codes and their scales
}


def converters() -> list[tuple[str, Any]]:
    pytest.importorskip("transformers")
    from transformers.conversion_mapping import _build_checkpoint_conversion_mapping
    from transformers.core_model_loading import WeightConverter

    table = _build_checkpoint_conversion_mapping()
    return [
        (model, entry)
        for model, entries in table.items()
        for entry in entries
        if isinstance(entry, WeightConverter) and any("experts." in name for name in entry.target_patterns)
    ]


def library_result(converter: Any, tensors: dict[str, list[torch.Tensor]]) -> dict[str, torch.Tensor]:
    """What transformers' own operations make of the tensors of each source pattern."""
    found: Any = tensors
    for operation in converter.operations:
        options = {"source_patterns": converter.source_patterns, "target_patterns": converter.target_patterns}
        if hasattr(operation, "check_dims"):
            operation = type(operation)(operation.dim0, operation.dim1)  # what it does where the shapes ask for it
        found = operation.convert(found, config=None, **options)
    return {key: value[0] if isinstance(value, list) else value for key, value in found.items()}


def test_every_converter_of_experts_in_the_table_of_transformers_has_a_recipe() -> None:
    recipes = {name: load_recipe(name) for name in ckptool_expert_recipes()}
    told = set()
    for model, converter in converters():
        if model in NOT_COVERED or any("_scale" in name for name in converter.target_patterns):
            continue
        sources = [re.sub(r"\\", "", name) for name in converter.source_patterns]
        rows: dict[str, torch.Tensor] = {}
        given: dict[str, list[torch.Tensor]] = {}
        generator = torch.Generator().manual_seed(0)
        for pattern, name in zip(converter.source_patterns, sources, strict=True):
            is_down = any(part in name for part in ("down", "w2", "fc2"))
            many = 11 if "*" in name else 1
            stacked = (11,) if "*" not in name else ()
            shape = (*stacked, 4, 6) if is_down else (*stacked, 12 if "w13" in name else 6, 4)
            if "gate_up" in name:
                shape = (11, 4, 12)
            if model == "qwen3_vl_moe" and is_down:
                shape = (11, 6, 4)
            given[pattern] = [torch.randn(shape, generator=generator) for _ in range(many)]
            for number, tensor in enumerate(given[pattern]):
                rows[f"layers.0.{name.removeprefix('.').replace('*', str(number))}"] = tensor
        wanted = library_result(converter, given)
        tensors = whole(rows)
        fits = [name for name, recipe in recipes.items() if gives(recipe, tensors, wanted)]
        assert fits, (model, sources, converter.target_patterns)
        told.update(fits)
    assert {"fuse-experts", "fuse-experts-w123", "fuse-experts-fc123", "fuse-experts-ungated"} <= told
    assert {"inkling-experts", "step3-fuse-experts", "transpose-experts"} <= told


def test_experts_of_text_and_of_images_are_told_apart_by_the_config(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    generator, state = torch.Generator().manual_seed(0), {}
    for expert in range(6):
        width = 7 if expert < 3 else 5  # of text, of images
        for name, shape in (("gate_proj", (width, 4)), ("up_proj", (width, 4)), ("down_proj", (4, width))):
            state[f"layers.1.mlp.experts.{expert}.{name}.weight"] = torch.randn(shape, generator=generator)
    for name, shape in (
        ("gate.weight", (4, 3)),
        ("gate.weight_1", (4, 3)),
        ("moe_statics.e_score_correction_bias", (2, 3)),
    ):
        state[f"layers.1.mlp.{name}"] = torch.randn(shape, generator=generator)
    wanted = {}
    for model, converter in converters():
        if model == "ernie4_5_vl_moe":
            names = [re.escape(name).replace(r"\*", r"\d+") + "$" for name in converter.source_patterns]
            given = {
                source: [tensor for key, tensor in state.items() if re.search(name, key)]
                for source, name in zip(converter.source_patterns, names, strict=True)
            }
            made = library_result(converter, given)
            wanted |= {f"layers.1.mlp.{name.removeprefix('mlp.')}": tensor for name, tensor in made.items()}
    assert len(wanted) == 4
    for side, bias in zip(("text", "vision"), state["layers.1.mlp.moe_statics.e_score_correction_bias"], strict=True):
        wanted[f"layers.1.mlp.{side}_moe.gate.moe_statics.e_score_correction_bias"] = bias[None]
    wanted["layers.1.mlp.text_moe.gate.weight"] = state["layers.1.mlp.gate.weight"].T
    wanted["layers.1.mlp.vision_moe.gate.weight"] = state["layers.1.mlp.gate.weight_1"].T
    (tmp_path / "old").mkdir()
    save_file(state, tmp_path / "old" / "model.safetensors", {"format": "pt"})
    (tmp_path / "old" / "config.json").write_text(json.dumps({"text_config": {"moe_num_experts": 3}}))
    remap(tmp_path / "old", tmp_path / "new", ["ernie-vl-fuse-experts"])
    made = load_file(tmp_path / "new" / "model.safetensors")
    assert made.keys() == wanted.keys()
    assert all(torch.equal(made[key], wanted[key]) for key in wanted)
    remap(tmp_path / "new", tmp_path / "back", ["ernie-vl-fuse-experts"], "--reverse")
    assert main(["diff", str(tmp_path / "old"), str(tmp_path / "back")]) == 0


def ckptool_expert_recipes() -> list[str]:
    from ckptool.recipes.recipe import builtin_recipes

    return [name for name in builtin_recipes() if "experts" in name and name != "ernie-vl-fuse-experts"]


def whole(rows: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rows with what else is in such a layer, so that rules which need it find it."""
    generator, found = torch.Generator().manual_seed(1), dict(rows)
    for key, tensor in rows.items():
        for taken, other in (("gate_proj", "down_proj"), ("w1", "w2"), ("fc1", "fc2"), ("up_proj", "down_proj")):
            if f".{taken}." in key:
                found.setdefault(key.replace(taken, other), torch.randn(tensor.mT.shape, generator=generator))
    return found


def gives(recipe: Any, tensors: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    """True if a recipe makes the wanted tensors, by the ends of their names, of these."""
    made = expand(recipe_of_optional(recipe), {k: TensorSpec(k, "float32", tuple(t.shape)) for k, t in tensors.items()})
    if made.problems:
        return False
    results = run(made, {key: tensor.numpy() for key, tensor in tensors.items()})
    return all(
        any(key.endswith(name.strip("\\.").replace("\\", "")) and torch.equal(torch.from_numpy(array.copy()), tensor)
            for key, array in results.items())
        for name, tensor in wanted.items()
    )  # fmt: skip


def recipe_of_optional(recipe: Any) -> Any:
    """The recipe, of which a layer may have a part."""
    from ckptool.recipes.reverse import _lenient

    return _lenient(recipe)


# ---------------------------------------------------------------------------------------------- fp8


def fp8_experts(folder: Path, rows: int) -> None:
    """Experts in fp8 blocks of 128, as DeepSeek-V3 has them."""
    from safetensors.torch import save_file

    generator, state = torch.Generator().manual_seed(0), {}
    for expert in range(3):
        for name, shape in (("gate_proj", (rows, 128)), ("up_proj", (rows, 128)), ("down_proj", (128, rows))):
            key = f"model.layers.0.mlp.experts.{expert}.{name}.weight"
            state[key] = torch.randn(shape, generator=generator).to(torch.float8_e4m3fn)
            grid = tuple(-(-size // 128) for size in shape)
            state[f"{key}_scale_inv"] = torch.rand(grid, generator=generator) + 0.5
    folder.mkdir()
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    quantization = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    (folder / "config.json").write_text(json.dumps({"quantization_config": quantization}))


def test_scales_of_fp8_experts_go_with_their_codes(tmp_path: Path) -> None:
    """Fused and then decoded is decoded and then fused."""
    fp8_experts(tmp_path / "fp8", 256)
    remap(tmp_path / "fp8", tmp_path / "fused", ["fuse-experts"], "--allow", "encoded")
    assert "quantization_config" in json.loads((tmp_path / "fused" / "config.json").read_text())
    assert main(["filter", str(tmp_path / "fused"), "--dequantize", "-o", str(tmp_path / "a.safetensors")]) == 0
    remap(tmp_path / "fp8", tmp_path / "b.safetensors", ["fuse-experts"], "--dequantize")
    assert main(["diff", str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")]) == 0
    remap(tmp_path / "fused", tmp_path / "back", ["fuse-experts"], "--reverse", "--allow", "encoded")
    assert main(["diff", str(tmp_path / "fp8"), str(tmp_path / "back")]) == 0


def test_blocks_that_two_projections_would_share_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fp8_experts(tmp_path / "fp8", 192)
    code = main(["remap", str(tmp_path / "fp8"), "-r", "fuse-experts", "--allow", "encoded", "-o", str(tmp_path / "o")])
    assert code == 2
    assert "128 * $2.shape[0]" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "o").exists()


# ---------------------------------------------------------------------------------------------- refusals


STACKED = {"l.0.mlp.experts.gate_up_proj": (4, 12, 8), "l.0.mlp.experts.down_proj": (4, 8, 6)}


def test_a_layout_that_is_not_the_recipes_is_refused_backwards() -> None:
    """Split along the wrong axis the shapes would look right for some sizes; the recipe says which layout it undoes."""
    other = {"l.0.mlp.experts.gate_up_proj": (4, 8, 12), "l.0.mlp.experts.down_proj": (4, 6, 8)}
    for name, shapes, fits in [
        ("fuse-experts", STACKED, True),
        ("fuse-experts", other, False),
        ("llama4-fuse-experts", other, True),
        ("llama4-fuse-experts", STACKED, False),
        ("transpose-experts", STACKED, True),
        ("transpose-experts", other, False),
    ]:
        specs = {key: TensorSpec(key, "float32", shape) for key, shape in shapes.items()}
        assert bool(expand(reverse(load_recipe(name)).recipe, specs).problems) != fits, (name, shapes)


def test_reverse_require_is_a_list_of_preconditions_on_keys() -> None:
    from ckptool.recipes.recipe import parse_toml

    recipe = parse_toml('rules = ["a -> b"]\nreverse.require = ["b: ndim == 2"]', "mine")
    spec = TensorSpec("b", "float32", (3,))
    assert expand(reverse(recipe).recipe, {"b": spec}).problems
    assert not expand(recipe, {"a": TensorSpec("a", "float32", (3,))}).problems
    assert not expand(reverse(parse_recipe(["a -> b"])).recipe, {"b": spec}).problems


# ---------------------------------------------------------------------------------------------- suggestions


@pytest.mark.parametrize(("layers", "many"), [(2, 5_000), (2, 20), (450, 5_000)])
def test_a_transplant_between_the_layouts_names_the_recipe(
    layers: int, many: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for as many keys as a real model has, of which recipes are tried by the forms of their keys."""
    monkeypatch.setattr("ckptool.commands.transplant.suggest._MANY", many)
    from safetensors.torch import save_file

    split = {
        f"model.layers.{layer}.mlp.experts.{expert}.{name}_proj.weight": torch.full(shape, float(layer * 4 + expert))
        for layer in range(layers)
        for expert in range(4)
        for name, shape in (("gate", (3, 2)), ("up", (3, 2)), ("down", (2, 3)))
    } | {"model.norm.weight": torch.ones(2)}
    old, new, out = tmp_path / "old.safetensors", tmp_path / "new.safetensors", tmp_path / "out.safetensors"
    save_file(split, old, {"format": "pt"})
    remap(old, new, ["fuse-experts"])
    for source, target, options in ((old, new, "-r fuse-experts"), (new, old, "-r fuse-experts --reverse")):
        capsys.readouterr()
        assert main(["transplant", str(source), "--into", str(target)]) == 0
        assert f"note: {options} would fill" in capsys.readouterr().out
        if layers > 2:  # that the command does it is seen on the small ones
            continue
        words = [*options.split(), "--strict", "-o", str(out), "--force"]
        assert main(["transplant", str(source), "--into", str(target), *words]) == 0
        assert main(["diff", str(out), str(target)]) == 0


def test_reverse_without_rules_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from conftest import ROOT

    path = str(ROOT / "fixtures" / "moe")
    assert main(["transplant", path, "--into", path, "--reverse"]) == 2
    assert "--reverse without rules" in capsys.readouterr().err


def shown(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    main(words[1:])
    return capsys.readouterr().out


def test_diff_names_the_recipe_and_compares_through_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from conftest import ROOT

    moe, stacked = str(ROOT / "fixtures" / "moe"), str(tmp_path / "stacked")
    remap(Path(moe), Path(stacked), ["fuse-experts"])
    for sides in ((moe, stacked), (stacked, moe)):
        capsys.readouterr()
        assert main(["diff", *sides, "--json"]) == 1
        notes = json.loads(capsys.readouterr().out)["notes"]
        (note,) = [each for each in notes if "experts are stored in another layout" in each["text"]]
        words = shlex.split(note["hint"])
        assert words[0] == "ckptool" and main([*words[1:], "--json"]) == 1
        statuses = {each["key"]: each["status"] for each in json.loads(capsys.readouterr().out)["changes"]}
        assert set(statuses.values()) <= {"same", "reshaped"}, statuses
        assert "same values, rearranged" in shown(words, capsys)
    assert main(["diff", moe, moe, "--json"]) == 0
    assert "another layout" not in capsys.readouterr().out
    remap(Path(moe), tmp_path / "wrapped", ["model. -> module.model.", "lm_head. -> module.lm_head."])
    assert main(["diff", moe, str(tmp_path / "wrapped"), "--json"]) == 0
    out = capsys.readouterr().out
    assert "another layout" not in out and "module." in out


def test_a_recipe_for_other_experts_names_those_that_fit(capsys: pytest.CaptureFixture[str]) -> None:
    from conftest import ROOT

    moe = str(ROOT / "fixtures" / "moe")
    assert main(["remap", moe, "-r", "mixtral-fuse-experts"]) == 2
    assert "these fit: -r fuse-experts, -r llama4-fuse-experts" in " ".join(capsys.readouterr().err.split())
    assert main(["remap", moe, "-r", "fuse-experts", "--reverse"]) == 2
    assert "these fit: -r fuse-experts, -r llama4-fuse-experts" in " ".join(capsys.readouterr().err.split())
    assert main(["remap", moe, "-r", "resnet-to-ibn"]) == 2
    assert "fit:" not in capsys.readouterr().err
