"""`check --complete-with`: what an export lacks of its base, whatever its names are; transplant fills it in."""

from __future__ import annotations

import json
import random
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import ckptool
from ckptool.cli.app import run
from ckptool.commands.checks.counterparts import counterparts

State = dict[str, torch.Tensor]
Captured = pytest.CaptureFixture[str]


def vlm() -> State:
    """A text model, an image encoder, a projector and a head, of the names that transformers 5 has."""
    generator = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {"model.language_model.embed_tokens.weight": (16, 4)}
    for layer in range(4):
        at = f"model.language_model.layers.{layer}."
        shapes |= {f"{at}self_attn.q_proj.weight": (4, 4), f"{at}mlp.up_proj.weight": (6, 4), f"{at}norm.weight": (4,)}
    for block in range(3):
        shapes |= {f"model.visual.blocks.{block}.proj.weight": (5, 5), f"model.visual.blocks.{block}.proj.bias": (5,)}
    shapes |= {"model.multi_modal_projector.linear.weight": (4, 5), "model.multi_modal_projector.linear.bias": (4,)}
    shapes |= {"model.language_model.norm.weight": (4,), "lm_head.weight": (16, 4)}
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def folder(path: Path, state: State, config: dict[str, Any] | None = None) -> Path:
    path.mkdir(exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, path / "model.safetensors", {"format": "pt"})
    (path / "config.json").write_text(json.dumps(config if config is not None else {"model_type": "x"}))
    return path


def findings(export: Path, base: Path, capsys: Captured, *more: str) -> tuple[int, list[dict[str, Any]]]:
    capsys.readouterr()
    words = ["check", str(export), "--rule", "complete", "--complete-with", str(base), "--json", *more]
    code = run(words)
    return code, json.loads(capsys.readouterr().out)["findings"]


def missing(found: list[dict[str, Any]]) -> set[str]:
    return {key for each in found if "missing" in each["message"] for key in each["keys"]}


# ---------------------------------------------------------------------------------------------- the issue


def test_what_the_export_lost_is_named_and_filled_in(tmp_path: Path, fixtures: Path, capsys: Captured) -> None:
    base, export = fixtures / "moe", fixtures / "moe-tuned"
    code, found = findings(export, base, capsys)
    assert code == 1
    lost, cast = found
    assert lost["message"] == f"25 of 52 tensors of {base} are missing, 2.2 kB"
    assert [line.split()[0] for line in lost["details"]] == ["model.layers.2.*", "visual.blocks.{0,1}.proj.*"]
    assert [line.partition(": ")[2] for line in lost["details"]] == ["MTP layer", "image encoder"]
    assert cast["keys"] == ["model.layers.1.mlp.gate.e_score_correction_bias"]
    words = shlex.split(lost["help"].replace("WHOLE", str(tmp_path / "whole")))
    assert words[0] == "ckptool" and run(words[1:]) == 0
    assert findings(tmp_path / "whole", base, capsys) == (0, [])
    whole, tuned = load_file(tmp_path / "whole" / "model.safetensors"), load_file(export / "model.safetensors")
    original = dict(ckptool.open(base))
    assert whole.keys() == original.keys()
    assert all(torch.equal(whole[key].float(), tensor.float()) for key, tensor in tuned.items())
    state = {key: tensor for file in base.glob("*.safetensors") for key, tensor in load_file(file).items()}
    assert all(torch.equal(whole[key], state[key]) for key in whole.keys() - tuned.keys())
    assert (tmp_path / "whole" / "config.json").read_bytes() == (base / "config.json").read_bytes()


def test_outputs_for_people_and_programs(fixtures: Path, tmp_path: Path, capsys: Captured) -> None:
    report = tmp_path / "report.md"
    words = ["check", str(fixtures / "moe-tuned"), "--complete-with", str(fixtures / "moe")]
    assert run([*words, "--report", str(report)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("failed: 2 errors\n")
    assert "model.layers.2.*" in report.read_text()
    assert run([*words, "--format", "github"]) == 1


@pytest.mark.parametrize("allowed", [True, False])
def test_a_policy_asks_and_excuses(allowed: bool, fixtures: Path, tmp_path: Path, capsys: Captured) -> None:
    base = folder(tmp_path / "base", vlm())
    folder(tmp_path / "tuned", {key: tensor for key, tensor in vlm().items() if "visual" not in key})
    allow = 'allow.complete = ["model.visual.*"]\n' if allowed else ""
    (tmp_path / "ckptool.toml").write_text(f'complete-with = "{base.name}"\n{allow}')
    words = ["check", str(tmp_path / "tuned"), "--policy", str(tmp_path / "ckptool.toml")]
    assert run(words) == (0 if allowed else 1)
    assert ("complete-with" in capsys.readouterr().out) != allowed  # the line of the policy
    (tmp_path / "ckptool.toml").write_text('complete-with = "../elsewhere"\n')
    assert run(words) == 2


def test_in_python(fixtures: Path) -> None:
    report = ckptool.check(fixtures / "moe-tuned", complete_with=fixtures / "moe")
    assert [finding.rule for finding in report.findings] == ["complete", "complete"]


# ---------------------------------------------------------------------------------------------- any loss


@pytest.mark.parametrize("seed", range(12))
def test_exactly_what_was_dropped_is_missing(seed: int, tmp_path: Path, capsys: Captured) -> None:
    rng, state = random.Random(seed), vlm()
    dropped = set(rng.sample(sorted(state), rng.randrange(1, len(state) // 2)))
    cast = set(rng.sample(sorted(state.keys() - dropped), 2))
    reshaped = set(rng.sample(sorted(state.keys() - dropped - cast), 2))
    export = {key: tensor for key, tensor in state.items() if key not in dropped}
    export |= {key: export[key].half() for key in cast} | {key: torch.cat([export[key]] * 2) for key in reshaped}
    config = {"tie_word_embeddings": False}
    code, found = findings(folder(tmp_path / "e", export, config), folder(tmp_path / "b", state), capsys)
    assert code == 1
    assert missing(found) == dropped
    assert {key for each in found if "another dtype" in each["message"] for key in each["keys"]} == cast
    assert {key for each in found if "another shape" in each["message"] for key in each["keys"]} == reshaped


def test_another_vocabulary(tmp_path: Path, capsys: Captured) -> None:
    state = vlm()
    export = {
        key: torch.cat([tensor, tensor[:3]]) if tensor.shape == (16, 4) else tensor for key, tensor in state.items()
    }
    code, (found,) = findings(folder(tmp_path / "e", export), folder(tmp_path / "b", state), capsys)
    assert code == 1 and found["message"].endswith("(another vocabulary)")
    assert found["details"][1].split() == [
        "model.language_model.embed_tokens.weight",
        "f32[19,4]",
        "there",
        "f32[16,4]",
    ]


# ---------------------------------------------------------------------------------------------- names


def old_vlm(key: str) -> str:
    """The names of before transformers 4.52: three prefixes for one."""
    for new, old in (
        ("model.language_model.", "language_model.model."),
        ("model.visual.", "visual."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
        ("lm_head.", "language_model.lm_head."),
    ):
        if key.startswith(new):
            return old + key.removeprefix(new)
    return key


NAMES: dict[str, Any] = {
    "DataParallel": lambda key: f"module.{key}",
    "PEFT": lambda key: f"base_model.model.{key}",
    "PEFT's layers": lambda key: f"base_model.model.{key}".replace("q_proj.", "q_proj.base_layer."),
    "compiled blocks": lambda key: key.replace(".self_attn", "._orig_mod.self_attn"),
    "text alone": lambda key: key.replace("model.language_model.", "model."),
    "three prefixes": old_vlm,
}


@pytest.mark.parametrize("how", NAMES)
def test_other_prefixes_are_named_and_nothing_is_missing(how: str, tmp_path: Path, capsys: Captured) -> None:
    state = vlm()
    text = {key: tensor for key, tensor in state.items() if how != "text alone" or "language" in key or "head" in key}
    base = folder(tmp_path / "b", state)
    export = folder(tmp_path / "e", {NAMES[how](key): tensor for key, tensor in text.items()})
    code, found = findings(export, base, capsys)
    assert missing(found) == state.keys() - text.keys()
    warnings = [each["message"] for each in found if each["level"] == "warning"]
    assert warnings and code == (1 if missing(found) else 0)
    if how == "text alone":
        assert '"model.", there "model.language_model."' in warnings[0]
    lost = next(iter(state.keys() - {"lm_head.weight"} if how != "text alone" else text))
    folder(export, {NAMES[how](key): tensor for key, tensor in text.items() if key != lost})
    _, found = findings(export, base, capsys)
    assert missing(found) == {lost, *(state.keys() - text.keys())}


def test_the_command_for_several_prefixes_fills_in(tmp_path: Path, capsys: Captured) -> None:
    state = vlm()
    export = {old_vlm(key): tensor + 1 for key, tensor in state.items() if "blocks.2" not in key}
    base = folder(tmp_path / "b", state)
    _, found = findings(folder(tmp_path / "e", export), base, capsys)
    help = next(each["help"] for each in found if "missing" in each["message"])
    assert run(shlex.split(help.replace("WHOLE", str(tmp_path / "whole")))[1:]) == 0
    made = load_file(tmp_path / "whole" / "model.safetensors")
    for key, tensor in state.items():
        assert torch.equal(made[key], tensor if "blocks.2" in key else tensor + 1), key


def test_experts_in_another_layout_are_not_missing(fixtures: Path, tmp_path: Path, capsys: Captured) -> None:
    base, stacked = fixtures / "moe", tmp_path / "stacked"
    assert run(["remap", str(base), "-r", "fuse-experts", "-o", str(stacked)]) == 0
    for export, other in ((stacked, base), (base, stacked)):
        code, (found,) = findings(export, other, capsys)
        assert (code, found["level"]) == (0, "warning")
        assert "another layout of experts" in found["message"] and "-r fuse-experts" in found["help"]
    assert run(["filter", str(stacked), "--drop", "model.layers.2.*", "-o", str(tmp_path / "less")]) == 0
    code, found = findings(tmp_path / "less", base, capsys)
    assert code == 1 and missing(found) == {key for key in ckptool.open(base) if key.startswith("model.layers.2.")}
    help = next(each["help"] for each in found if "missing" in each["message"])
    assert run(shlex.split(help.replace("WHOLE", str(tmp_path / "whole")))[1:]) == 0
    assert run(["diff", str(base), str(tmp_path / "whole")]) == 0


def test_experts_in_another_layout_under_another_prefix(fixtures: Path, tmp_path: Path, capsys: Captured) -> None:
    base, stacked = fixtures / "moe", tmp_path / "stacked"
    rules = ["-r", "fuse-experts", "-r", "model.{k**} -> model.language_model.{k**}"]
    assert run(["remap", str(base), *rules, "-o", str(stacked)]) == 0
    code, found = findings(stacked, base, capsys)
    assert code == 0 and [each["level"] for each in found] == ["warning", "warning"]
    assert run(["filter", str(stacked), "--drop", "visual.*", "-o", str(tmp_path / "less")]) == 0
    _, found = findings(tmp_path / "less", base, capsys)
    assert missing(found) == {key for key in ckptool.open(base) if key.startswith("visual.")}
    help = next(each["help"] for each in found if "missing" in each["message"])
    assert run(shlex.split(help.replace("WHOLE", str(tmp_path / "whole")))[1:]) == 0
    assert run(["diff", str(base), str(tmp_path / "whole")]) == 0


def test_equal_names_are_pairs_whatever_else_there_is() -> None:
    shapes = {key: tuple(tensor.shape) for key, tensor in vlm().items()}
    assert counterparts(shapes, shapes).pairs == {key: key for key in shapes}
    assert counterparts(shapes, {**shapes, "extra.a.weight": (4, 4), "extra.b.weight": (4, 4)}).swaps == []
    assert counterparts(shapes, {"conv.weight": (3, 3)}).pairs == {}


# ---------------------------------------------------------------------------------------------- ties


@pytest.mark.parametrize(
    ("export_says", "base_is", "is_missing"),
    [
        (True, "apart", False),
        (False, "equal", True),
        (None, "equal", False),
        (None, "apart", True),
        (None, "one storage", False),
        (False, "one storage", True),
    ],
)
def test_a_tied_head_is_not_missing(
    export_says: bool | None, base_is: str, is_missing: bool, tmp_path: Path, capsys: Captured
) -> None:
    state = vlm()
    table = state["model.language_model.embed_tokens.weight"]
    export = {key: tensor for key, tensor in state.items() if key != "lm_head.weight"}
    if base_is != "apart":
        state["lm_head.weight"] = table if base_is == "one storage" else table.clone()
    if base_is == "one storage":
        torch.save(state, tmp_path / "base.pth")
    base = tmp_path / "base.pth" if base_is == "one storage" else folder(tmp_path / "b", state)
    config = {"text_config": {} if export_says is None else {"tie_word_embeddings": export_says}}
    _, found = findings(folder(tmp_path / "e", export, config), base, capsys)
    assert missing(found) == ({"lm_head.weight"} if is_missing else set())


def test_a_head_that_metadata_ties_is_there(tmp_path: Path, capsys: Captured) -> None:
    state = vlm()
    base = folder(tmp_path / "b", state)
    left = {key: tensor for key, tensor in state.items() if key != "lm_head.weight"}
    tied = {"format": "pt", "lm_head.weight": "model.language_model.embed_tokens.weight"}
    save_file(left, tmp_path / "e.safetensors", tied)
    assert findings(tmp_path / "e.safetensors", base, capsys) == (0, [])


# ---------------------------------------------------------------------------------------------- other kinds


def test_buffers_that_models_compute_are_not_missing(tmp_path: Path, capsys: Captured) -> None:
    more = {f"model.language_model.layers.{n}.rotary_emb.inv_freq": torch.ones(2) for n in range(4)}
    base = folder(tmp_path / "b", {**vlm(), **more})
    assert findings(folder(tmp_path / "e", vlm()), base, capsys) == (0, [])


def test_quantized_weights_count_as_what_they_stand_for(fixtures: Path, tmp_path: Path, capsys: Captured) -> None:
    plain = tmp_path / "plain"
    assert run(["filter", str(fixtures / "fp8"), "--dequantize", "-o", str(plain)]) == 0
    assert findings(fixtures / "fp8", plain, capsys) == (0, [])
    assert findings(plain, fixtures / "fp8", capsys) == (0, [])
    assert run(["filter", str(plain), "--drop", "*.q_proj.*", "-o", str(tmp_path / "less")]) == 0
    _, found = findings(tmp_path / "less", fixtures / "fp8", capsys)
    assert missing(found) == {f"model.layers.{n}.self_attn.q_proj.weight" for n in range(2)}


def test_an_adapter_is_no_export(tmp_path: Path, capsys: Captured) -> None:
    at = "base_model.model.model.language_model.layers.0.self_attn.q_proj."
    adapter = {f"{at}lora_A.weight": torch.ones(2, 4), f"{at}lora_B.weight": torch.ones(4, 2)}
    save_file(adapter, tmp_path / "adapter_model.safetensors")
    code, (found,) = findings(tmp_path / "adapter_model.safetensors", folder(tmp_path / "b", vlm()), capsys)
    assert code == 1 and "this is an adapter" in found["message"] and "--lora" in found["help"]


def test_another_model_is_not_its_base(tmp_path: Path, fixtures: Path, capsys: Captured) -> None:
    code, (found,) = findings(fixtures / "tuned.safetensors", folder(tmp_path / "b", vlm()), capsys)
    assert code == 1 and "is it the base of this file?" in found["message"]


def indexed(path: Path, state: State, named: list[str]) -> Path:
    """One shard of a folder whose index names these keys."""
    path.mkdir()
    save_file(state, path / "model-00001-of-00001.safetensors")
    weight_map = dict.fromkeys(named, "model-00001-of-00001.safetensors")
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return path


def test_tensors_that_the_index_does_not_list_are_missing(tmp_path: Path, capsys: Captured) -> None:
    state = vlm()
    base, named = folder(tmp_path / "b", state), [key for key in state if "visual" not in key]
    export = indexed(tmp_path / "e", state, named)
    code, (found,) = findings(export, base, capsys)
    assert code == 1 and missing([found]) == state.keys() - set(named)
    assert all("in a shard, not in its index" in line for line in found["details"])


def test_entries_of_the_index_without_tensors_are_errors(tmp_path: Path, capsys: Captured) -> None:
    state = vlm()
    base = folder(tmp_path / "b", state)
    export = indexed(tmp_path / "e", {key: t for key, t in state.items() if "visual" not in key}, list(state))
    assert run(["check", str(export), "--complete-with", str(base), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["findings"]
    assert {(each["rule"], each["level"]) for each in found} == {("shards", "error"), ("complete", "error")}
    assert all(set(each["keys"]) == {key for key in state if "visual" in key} for each in found)


@pytest.mark.parametrize("base", ["nowhere", "torchvision:resnet18"])
def test_a_base_that_is_no_checkpoint(base: str, fixtures: Path, capsys: Captured) -> None:
    assert run(["check", str(fixtures / "moe-tuned"), "--complete-with", base]) == 2
    assert "error: " in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- files of the folder


@pytest.mark.parametrize("rows", [16, 19])
def test_the_output_folder_has_the_files_that_belong_to_its_weights(
    rows: int, tmp_path: Path, capsys: Captured
) -> None:
    """The tokenizer is the export's, unless its vocabulary does not fit and the base's embeddings are kept."""
    state = vlm()
    base = folder(tmp_path / "base", state, {"vocab_size": 16})
    for name in ("tokenizer.json", "merges.txt", "generation_config.json", "preprocessor_config.json"):
        (base / name).write_text('"base"')
    own = {key: torch.ones(rows, 4) if tensor.shape == (16, 4) else tensor for key, tensor in state.items()}
    export = folder(
        tmp_path / "export", {key: t for key, t in own.items() if "visual" not in key}, {"vocab_size": rows}
    )
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (export / name).write_text('"export"')
    words = ["transplant", str(export), "--into", str(base), "-o", str(tmp_path / "whole"), "--json"]
    assert run(words) == 0
    whole = {path.name: path.read_text() for path in (tmp_path / "whole").iterdir() if path.suffix != ".safetensors"}
    assert json.loads(whole.pop("config.json")) == {"vocab_size": 16}
    expected = {"generation_config.json": "export", "preprocessor_config.json": "base"}
    if rows == 16:
        expected |= {"tokenizer.json": "export", "tokenizer_config.json": "export"}
    else:
        expected |= {"tokenizer.json": "base", "merges.txt": "base"}
    assert {name: json.loads(text) for name, text in whole.items()} == expected
    beside = {each["name"]: each["input"] for each in json.loads(capsys.readouterr().out)["beside"]}
    assert beside == {name: int(text == "base") for name, text in expected.items()} | {"config.json": 1}


@pytest.mark.filterwarnings("default")
def test_a_model_that_transformers_loads_and_saves_again(tmp_path: Path, capsys: Captured, torchvision: object) -> None:
    """It drops DeepSeek's layer for multi-token prediction; the whole model computes as the export does."""
    transformers = pytest.importorskip("transformers")
    from test_expert_recipes import GLM, MLA, SMALL

    model = transformers.DeepseekV3ForCausalLM(transformers.DeepseekV3Config(**SMALL, **GLM, **MLA))
    model.save_pretrained(tmp_path / "base")
    state = load_file(tmp_path / "base" / "model.safetensors")
    state |= {key.replace("layers.1.", "layers.2."): t.clone() for key, t in state.items() if "layers.1." in key}
    state["model.layers.2.eh_proj.weight"] = torch.randn(16, 32)
    save_file(state, tmp_path / "base" / "model.safetensors", {"format": "pt"})
    tuned = transformers.DeepseekV3ForCausalLM.from_pretrained(tmp_path / "base")
    with torch.no_grad():
        tuned.lm_head.weight += 1
    tuned.save_pretrained(tmp_path / "tuned")
    code, (found,) = findings(tmp_path / "tuned", tmp_path / "base", capsys)
    assert code == 1 and found["keys"] == sorted(key for key in state if ".layers.2." in key)
    assert [line.partition(": ")[2] for line in found["details"]] == ["MTP layer"]
    assert run(shlex.split(found["help"].replace("WHOLE", str(tmp_path / "whole")))[1:]) == 0
    assert findings(tmp_path / "whole", tmp_path / "base", capsys) == (0, [])
    whole = transformers.DeepseekV3ForCausalLM.from_pretrained(tmp_path / "whole").eval()
    tokens = torch.randint(32, (2, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(whole(tokens).logits, tuned.eval()(tokens).logits)
