"""--dequantize in every command that writes, and what commands do to quantized weights without it."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ckptool.cli.app import run
from ckptool.core.arrays import numpy_dtype
from ckptool.engine.dequantize import dequantized as dequantized_checkpoint
from ckptool.engine.dequantize import encoded_of
from ckptool.formats.opening import open_checkpoint

DATA = ROOT / "tests" / "data" / "encodings"
EXAMPLES = sorted(path.name.removesuffix(".expected.safetensors") for path in DATA.glob("*.expected.safetensors"))
EXAMPLES = [name for name in EXAMPLES if "gguf" not in name]
CASES = [json.loads(line) for line in (DATA / "recorded.jsonl").read_text(encoding="ascii").splitlines()]

Told = pytest.CaptureFixture[str]


def flat(text: str) -> str:
    """A screen as one line: where it wraps depends on the length of names."""
    return " ".join(text.split())


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    """What loaders read of a safetensors file, or of all those in a folder."""
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    return {key: tensor for file in files for key, tensor in load_file(file).items()}


def same(one: torch.Tensor, two: torch.Tensor) -> bool:
    """Equal in every bit."""
    raw = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, two)]
    return one.dtype == two.dtype and one.shape == two.shape and torch.equal(*raw)


def recorded(case: dict[str, Any], folder: Path) -> Path:
    """A recorded tensor of a library as a folder, with a plain tensor beside it."""
    arrays = {"norm.weight": np.arange(4, dtype=np.float32)}
    for key, (dtype, shape, text) in case["arrays"].items():
        raw = np.frombuffer(zlib.decompress(base64.b85decode(text)), np.uint8)
        arrays[key] = raw.view(numpy_dtype(dtype)).reshape(shape)
    state = {
        key: torch.from_numpy(np.array(array).reshape(-1).view(np.uint8))
        .view(getattr(torch, array.dtype.name))
        .reshape(array.shape)
        for key, array in arrays.items()
    }
    folder.mkdir()
    save_file(state, folder / "model.safetensors", {"format": "pt", **(case["metadata"] or {})})
    (folder / "config.json").write_text(json.dumps({"model_type": "toy", **(case["config"] or {})}))
    return folder


def by_scheme() -> list[Any]:
    """One recorded tensor of each scheme and layout."""
    found: dict[str, dict[str, Any]] = {}
    for case in CASES:
        found.setdefault(" ".join(case["case"].split()[:2]), case)
    return [pytest.param(case, id=name) for name, case in found.items()]


SCHEMES = pytest.mark.parametrize("case", by_scheme())

# ---------------------------------------------------------------------------------------------- exact values


@pytest.mark.parametrize("name", EXAMPLES)
def test_filter_gives_the_expected_values_and_a_true_config(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(["filter", str(DATA / name), "--dequantize", "-o", str(out)]) == 0
    made, expected = tensors_of(out), load_file(DATA / f"{name}.expected.safetensors")
    for key, tensor in expected.items():
        assert same(made[key], tensor), key
    stored = open_checkpoint(DATA / name)
    plain = set(stored) - {key for encoded in encoded_of(stored) for key in encoded.keys}
    assert set(made) == plain | set(expected)
    config = json.loads((out / "config.json").read_text())
    assert not {"quantization_config", "quantization", "compression_config"} & set(config)
    assert config["torch_dtype"] == "bfloat16"
    assert not encoded_of(open_checkpoint(out))


@pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
def test_filter_gives_what_the_library_gives(case: dict[str, Any], tmp_path: Path, capsys: Told) -> None:
    source, out = recorded(case, tmp_path / "in"), tmp_path / "out.safetensors"
    code = run(["filter", str(source), "--dequantize", "--dtype", case["dtype"], "-o", str(out)])
    assert code == 0, capsys.readouterr().err
    made = load_file(out)
    norm = made.pop("norm.weight")
    ((_, tensor),) = made.items()
    assert hashlib.sha256(tensor.contiguous().reshape(-1).view(torch.uint8).numpy()).hexdigest() == case["sha256"]
    assert norm.dtype == getattr(torch, case["dtype"])
    with safe_open(out, "pt") as file:
        assert set(file.metadata()) <= {"format"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_dtype_is_rounded_once_from_float32(name: str, tmp_path: Path) -> None:
    for dtype in ("f32", "f16", "f64", "f8_e5m2"):
        out = tmp_path / f"{dtype}.safetensors"
        assert run(["filter", str(DATA / name), "--dequantize", "--dtype", dtype, "-o", str(out)]) == 0
    exact = load_file(tmp_path / "f32.safetensors")
    for key, expected in load_file(DATA / f"{name}.expected.safetensors").items():
        assert same(exact[key].to(torch.bfloat16), expected)
        assert same(load_file(tmp_path / "f16.safetensors")[key], exact[key].to(torch.float16))
        assert same(load_file(tmp_path / "f64.safetensors")[key], exact[key].to(torch.float64))
        assert same(load_file(tmp_path / "f8_e5m2.safetensors")[key], exact[key].to(torch.float8_e5m2))


def test_partners_in_other_shards_and_every_container(tmp_path: Path) -> None:
    source, key = DATA / "fp8_block_sharded", "model.layers.3.mlp.shared_experts.up_proj.weight"
    places = {file.name for file in source.glob("*.safetensors") if any("up_proj" in name for name in load_file(file))}
    assert len(places) == 2
    expected = load_file(DATA / "fp8_block_sharded.expected.safetensors")[key]
    for out in ("a.safetensors", "b.pth", "c"):
        assert (
            run(
                [
                    "filter",
                    str(source),
                    "--dequantize",
                    "-o",
                    str(tmp_path / out),
                    *(["--max-shard-size", "2kB"] * (out == "c")),
                ]
            )
            == 0
        )
    assert same(tensors_of(tmp_path / "a.safetensors")[key], expected)
    assert same(torch.load(tmp_path / "b.pth")[key], expected)
    assert same(tensors_of(tmp_path / "c")[key], expected)
    index = json.loads((tmp_path / "c" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(tensors_of(tmp_path / "c"))


def test_torch_files_are_decoded_inside_their_objects(tmp_path: Path) -> None:
    state = tensors_of(DATA / "gptq_v1_actorder")
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "in.pth")
    shutil.copy(DATA / "gptq_v1_actorder" / "config.json", tmp_path)
    assert run(["filter", str(tmp_path / "in.pth"), "--dequantize", "-o", str(tmp_path / "out.pth")]) == 0
    made = torch.load(tmp_path / "out.pth")
    assert made["epoch"] == 3
    ((key, expected),) = load_file(DATA / "gptq_v1_actorder.expected.safetensors").items()
    assert same(made["state_dict"][key], expected)
    assert set(made["state_dict"]) == {key, "model.embed_tokens.weight", "model.norm.weight"}


# ---------------------------------------------------------------------------------------------- other commands


def dequantized(name: str, folder: Path) -> tuple[Path, str]:
    """An example, decoded, and the key of its decoded tensor."""
    out = folder / "plain"
    assert run(["filter", str(DATA / name), "--dequantize", "-o", str(out)]) == 0
    (key,) = (
        load_file(DATA / f"{name}.expected.safetensors").keys()
        if name != "mlx_affine_4bit"
        else ["model.embed_tokens.weight"]
    )
    return out, key


@pytest.mark.parametrize("name", EXAMPLES)
def test_rules_see_logical_keys(name: str, tmp_path: Path) -> None:
    plain, key = dequantized(name, tmp_path)
    rules = ["-r", f"{key} -> {key.replace('model.', 'body.')} | = $1 * 2", "-r", "model. -> body."]
    for source, flag, out in ((DATA / name, ["--dequantize"], "one"), (plain, [], "two")):
        command = ["remap", str(source), *flag, *rules, "-o", str(tmp_path / f"{out}.safetensors")]
        assert run(command) == 0
    one, two = load_file(tmp_path / "one.safetensors"), load_file(tmp_path / "two.safetensors")
    assert set(one) == set(two)
    assert key.replace("model.", "body.") in one
    assert all(same(one[each], two[each]) for each in one)


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("method", [[], ["--method", "linear", "--weights", "0.25,0.75"]])
def test_merge_decodes_every_input(name: str, method: list[str], tmp_path: Path) -> None:
    plain, _ = dequantized(name, tmp_path)
    other = {key: tensor.clone().mul_(0.5) for key, tensor in tensors_of(plain).items()}
    save_file(other, tmp_path / "other.safetensors")
    for source, flag, out in ((DATA / name, ["--dequantize"], "one"), (plain, [], "two")):
        command = ["merge", str(tmp_path / "other.safetensors"), str(source), *flag, *method]
        assert run([*command, "-o", str(tmp_path / f"{out}.safetensors")]) == 0
    one, two = load_file(tmp_path / "one.safetensors"), load_file(tmp_path / "two.safetensors")
    assert set(one) == set(two) == set(other)
    assert all(same(one[key], two[key]) for key in one)


ADAPTED = [name for name in EXAMPLES if name not in ("mlx_affine_4bit", "mxfp4_gpt_oss")]  # embeddings, experts


@pytest.mark.parametrize("name", ADAPTED)
def test_an_adapter_is_merged_into_decoded_weights(name: str, tmp_path: Path, capsys: Told) -> None:
    plain, key = dequantized(name, tmp_path)
    rows, columns = tensors_of(plain)[key].shape
    module, adapter = key.removesuffix(".weight"), tmp_path / "adapter"
    adapter.mkdir()
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(2, columns, generator=generator) / 8
    b = torch.randn(rows, 2, generator=generator) / 8
    state = {f"base_model.model.{module}.lora_A.weight": a, f"base_model.model.{module}.lora_B.weight": b}
    save_file(state, adapter / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": [module.rpartition(".")[2]]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    lora = ["--lora", str(adapter)]
    told = refused(["merge", str(DATA / name), *lora], tmp_path / "x.safetensors", capsys)
    assert encoded_of(open_checkpoint(DATA / name))[0].scheme in told
    assert "--dequantize" in told
    for source, flag, out in ((DATA / name, ["--dequantize"], "one"), (plain, [], "two")):
        assert run(["merge", str(source), *flag, *lora, "-o", str(tmp_path / f"{out}.safetensors")]) == 0
    one, two = load_file(tmp_path / "one.safetensors"), load_file(tmp_path / "two.safetensors")
    assert set(one) == set(two)
    assert all(same(one[each], two[each]) for each in one)
    wanted = tensors_of(plain)[key].double() + 2.0 * b.double() @ a.double()
    assert torch.allclose(one[key].double(), wanted, rtol=2**-8, atol=1e-6)


NET = """
import torch
from torch import nn


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = nn.Linear({columns}, {rows}, bias=False)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.RMSNorm({width})
        self.head = Attention()
"""


def test_transplant_gets_logical_tensors(tmp_path: Path) -> None:
    plain, key = dequantized("gptq_v1_actorder", tmp_path)
    state = tensors_of(plain)
    rows, columns = state[key].shape
    text = NET.format(rows=rows, columns=columns, width=len(state["model.norm.weight"]))
    (tmp_path / "net.py").write_text(text)
    rules = ["-r", f"{key} -> head.q_proj.weight", "-r", "model.norm. -> norm."]
    for source, flag, out in ((DATA / "gptq_v1_actorder", ["--dequantize"], "one"), (plain, [], "two")):
        command = ["transplant", str(source), *flag, "--into", f"{tmp_path / 'net.py'}:Net", *rules]
        assert run([*command, "-o", str(tmp_path / f"{out}.pth")]) == 0
    one, two = torch.load(tmp_path / "one.pth"), torch.load(tmp_path / "two.pth")
    assert torch.equal(one["head.q_proj.weight"], state[key].float())
    assert all(torch.equal(one[each], two[each]) for each in two)


@pytest.mark.parametrize("name", EXAMPLES)
def test_transplant_without_it_says_what_is_quantized(name: str, tmp_path: Path, capsys: Told) -> None:
    plain, key = dequantized(name, tmp_path)
    out = tmp_path / "out.safetensors"
    model = ["--into", str(plain / "model.safetensors")]
    told = refused(["transplant", str(DATA / name), *model], out, capsys)
    assert encoded_of(open_checkpoint(DATA / name))[0].scheme in told
    assert "--dequantize" in told
    told = refused(["transplant", str(DATA / name), *model, "-r", "model. -> body."], out, capsys)
    assert "--dequantize" in told
    left_out = ["--drop", f"{key.rpartition('.')[0]}.*"]
    if name != "mlx_affine_4bit":
        assert run(["transplant", str(DATA / name), *model, *left_out, "-o", str(out)]) == 0
    assert run(["transplant", str(DATA / name), *model, "--dequantize", "-o", str(tmp_path / "all.safetensors")]) == 0
    made, wanted = load_file(tmp_path / "all.safetensors"), tensors_of(plain)
    assert all(same(made[each], wanted[each]) for each in wanted)


# ---------------------------------------------------------------------------------------------- without the option


def members_of(path: Path) -> tuple[list[str], str, str]:
    """The keys of the first group, its logical key, and its scheme."""
    group = encoded_of(open_checkpoint(path))[0]
    return list(group.keys), group.key, group.scheme


def refused(arguments: list[str], out: Path, capsys: Told) -> str:
    """What a command says that must not write."""
    assert run([*arguments, "-o", str(out)]) == 2
    assert not out.exists()
    told = flat(capsys.readouterr().err)
    assert "Traceback" not in told
    return told


@SCHEMES
@pytest.mark.parametrize("operation", ["cast", "compute", "merge"])
def test_value_operations_name_the_scheme_and_the_option(
    case: dict[str, Any], operation: str, tmp_path: Path, capsys: Told
) -> None:
    source = recorded(case, tmp_path / "in")
    keys, _, scheme = members_of(source)
    commands = {
        "cast": ["filter", str(source), "--dtype", "f64"],
        "compute": ["remap", str(source), "-r", f"{keys[0]} -> {keys[0]} | = $1 * 2"],
        "merge": ["merge", str(source), str(source), "--method", "linear"],
    }
    told = refused(commands[operation], tmp_path / "out.safetensors", capsys)
    assert scheme in told
    assert "--dequantize" in told


@SCHEMES
def test_a_group_moves_whole_or_not_at_all(case: dict[str, Any], tmp_path: Path, capsys: Told) -> None:
    source, out = recorded(case, tmp_path / "in"), tmp_path / "out.safetensors"
    keys, key, scheme = members_of(source)
    before, state = encoded_of(open_checkpoint(source))[0], tensors_of(source)
    alone = [each for each in keys if not any(other.startswith(f"{each}.") for other in keys)]  # "w" means "w.absmax"
    for torn in alone:
        told = refused(["filter", str(source), "--drop", torn], out, capsys)
        assert scheme in told
        assert "--dequantize" in told
        told = refused(["remap", str(source), "-r", f"{torn} -> other.tensor"], out, capsys)
        assert scheme in told
    assert run(["remap", str(source), "-r", "m. -> body.layers.0.", "-o", str(tmp_path / "renamed")]) == 0
    after = encoded_of(open_checkpoint(tmp_path / "renamed"))[0]
    assert (after.scheme, after.detail, after.spec.shape) == (before.scheme, before.detail, before.spec.shape)
    assert after.key == f"body.layers.0.{key.removeprefix('m.')}"
    renamed = tensors_of(tmp_path / "renamed")
    assert all(same(renamed[f"body.layers.0.{each.removeprefix('m.')}"], state[each]) for each in keys)
    assert run(["filter", str(source), "--drop", "m.*", "-o", str(out)]) == 0
    assert set(tensors_of(out)) == {"norm.weight"}
    shards = ["--max-shard-size", "1kB"]
    assert run(["filter", str(source), *shards, "-o", str(tmp_path / "shards")]) == 0
    assert {each: tensor.shape for each, tensor in tensors_of(tmp_path / "shards").items()} == {
        each: tensor.shape for each, tensor in state.items()
    }
    left = encoded_of(open_checkpoint(tmp_path / "shards"))[0]
    assert (left.title, left.key) == (before.title, key)
    assert run(["filter", str(tmp_path / "renamed"), "--dequantize", "-o", str(tmp_path / "decoded")]) == 0


def test_what_cannot_be_decoded_says_why(tmp_path: Path, capsys: Told) -> None:
    state = tensors_of(DATA / "fp8_block_sharded")
    scale = next(key for key in state if key.endswith("scale_inv"))
    del state[scale]
    source = tmp_path / "in"
    source.mkdir()
    save_file(state, source / "model.safetensors")
    shutil.copy(DATA / "fp8_block_sharded" / "config.json", source)
    told = refused(["filter", str(source), "--dequantize"], tmp_path / "out.safetensors", capsys)
    assert "cannot be dequantized" in told
    assert "has no scale" in told


def test_nothing_to_decode_changes_nothing(tmp_path: Path) -> None:
    source = DATA / "look_alike" / "look_alike.safetensors"
    assert run(["filter", str(source), "--dequantize", "-o", str(tmp_path / "out.safetensors")]) == 0
    assert all(
        same(tensor, tensors_of(source)[key]) for key, tensor in tensors_of(tmp_path / "out.safetensors").items()
    )


def test_the_quantization_file_of_gptq_follows(tmp_path: Path) -> None:
    source = tmp_path / "in"
    shutil.copytree(DATA / "gptq_v1_actorder", source)
    config = json.loads((source / "config.json").read_text())
    (source / "quantize_config.json").write_text(json.dumps(config.pop("quantization_config")))
    (source / "config.json").write_text(json.dumps(config))
    assert run(["filter", str(source), "-o", str(tmp_path / "copy")]) == 0
    assert (tmp_path / "copy" / "quantize_config.json").exists()
    assert run(["filter", str(source), "--dequantize", "-o", str(tmp_path / "plain")]) == 0
    assert not (tmp_path / "plain" / "quantize_config.json").exists()
    assert same(
        tensors_of(tmp_path / "plain")["model.layers.0.self_attn.q_proj.weight"],
        load_file(DATA / "gptq_v1_actorder.expected.safetensors")["model.layers.0.self_attn.q_proj.weight"],
    )


def test_a_preview_is_what_runs(tmp_path: Path, capsys: Told) -> None:
    command = ["filter", str(DATA / "fp8_block_sharded"), "--dequantize", "--json"]
    assert run([*command, "--to", "safetensors"]) == 0
    preview = json.loads(capsys.readouterr().out)
    assert run([*command, "-o", str(tmp_path / "out.safetensors")]) == 0
    written = json.loads(capsys.readouterr().out)
    for name in ("steps", "beside", "notes", "summary"):
        assert preview[name] == written[name]
    assert [step["why"] for step in written["steps"]].count("fp8 128×128 blocks → bf16") == 1


def test_numbers_that_the_dtype_cannot_hold_are_counted(tmp_path: Path, capsys: Told) -> None:
    codes = torch.ones(4, 4).to(torch.float8_e4m3fn)
    state = {"a.weight": codes, "a.weight_scale": torch.tensor([[1.0], [1e6], [1.0], [2e38]])}
    save_file(state, tmp_path / "in.safetensors")
    command = ["filter", str(tmp_path / "in.safetensors"), "--dequantize", "--dtype", "f16", "--json"]
    assert run([*command, "-o", str(tmp_path / "out.safetensors")]) == 0
    assert json.loads(capsys.readouterr().out)["written"]["overflows"] == {"a.weight": 8}
    assert load_file(tmp_path / "out.safetensors")["a.weight"].isinf().sum() == 8


def test_fp8_without_scales_is_cast_exactly_and_said(tmp_path: Path, capsys: Told) -> None:
    codes = torch.arange(256).to(torch.uint8).view(torch.float8_e4m3fn).reshape(16, 16)
    save_file({"a.weight": codes, "a.bias": torch.ones(16)}, tmp_path / "in.safetensors")
    command = ["filter", str(tmp_path / "in.safetensors"), "--dtype", "bf16", "-o", str(tmp_path / "out.safetensors")]
    assert run(command) == 0
    assert "note: 1 fp8 tensor without scales is taken as plain numbers: a.weight" in flat(capsys.readouterr().out)
    made = load_file(tmp_path / "out.safetensors")["a.weight"]
    assert torch.equal(made.float().nan_to_num(7.0), codes.float().nan_to_num(7.0))
    assert run(["filter", str(tmp_path / "in.safetensors"), "-o", str(tmp_path / "copy.safetensors")]) == 0
    assert "without scales" not in capsys.readouterr().out


def test_decoded_storages_are_told_apart_by_their_hashes(tmp_path: Path) -> None:
    """Each begins at byte 0 of its own source: with equal hashes a set of them took quadratic time."""
    state: dict[str, torch.Tensor] = {}
    for number in range(200):
        state[f"l.{number}.weight"] = torch.ones(2, 2).to(torch.float8_e4m3fn)
        state[f"l.{number}.weight_scale"] = torch.ones(1)
    save_file(state, tmp_path / "in.safetensors")
    made = dequantized_checkpoint(open_checkpoint(tmp_path / "in.safetensors"))
    hashes = {hash(piece.storage) for tensor in made.tensors.values() for piece in tensor.pieces}
    assert len(hashes) > 190


def test_a_damaged_torch_archive_is_not_decoded(tmp_path: Path, capsys: Told) -> None:
    state = tensors_of(DATA / "gptq_v1_actorder")
    torch.save(state, tmp_path / "in.pth")
    raw = bytearray((tmp_path / "in.pth").read_bytes())
    codes = next(tensor for key, tensor in state.items() if key.endswith("qweight"))
    raw[raw.index(codes.numpy().tobytes()) + 5] ^= 1
    (tmp_path / "in.pth").write_bytes(raw)
    told = refused(["filter", str(tmp_path / "in.pth"), "--dequantize"], tmp_path / "out.safetensors", capsys)
    assert "damaged" in told


def test_stored_views_are_decoded_as_they_are_seen(tmp_path: Path) -> None:
    state = tensors_of(DATA / "fp8_block_sharded")
    key = "model.layers.3.mlp.shared_experts.up_proj.weight"
    torch.save({**state, key: state[key].t().contiguous().t()}, tmp_path / "in.pth")
    shutil.copy(DATA / "fp8_block_sharded" / "config.json", tmp_path)
    assert run(["filter", str(tmp_path / "in.pth"), "--dequantize", "-o", str(tmp_path / "out.pth")]) == 0
    assert same(torch.load(tmp_path / "out.pth")[key], load_file(DATA / "fp8_block_sharded.expected.safetensors")[key])


def test_tied_quantized_weights_stay_tied(tmp_path: Path) -> None:
    codes, scale = torch.ones(4, 4).to(torch.float8_e4m3fn), torch.tensor(2.0)
    state = {"a.weight": codes, "a.weight_scale": scale, "b.weight": codes, "b.weight_scale": scale}
    torch.save(state, tmp_path / "in.pth")
    assert run(["filter", str(tmp_path / "in.pth"), "--dequantize", "-o", str(tmp_path / "out.pth")]) == 0
    made = torch.load(tmp_path / "out.pth")
    assert made["a.weight"].data_ptr() == made["b.weight"].data_ptr()


def test_a_changed_input_is_noticed(tmp_path: Path) -> None:
    from ckptool.commands.beside.complete import complete
    from ckptool.commands.filter import plan_filter
    from ckptool.core.errors import CkptError
    from ckptool.engine.apply import apply
    from ckptool.engine.dequantize import dequantized as logical

    source = tmp_path / "in"
    shutil.copytree(DATA / "fp8_block_sharded", source)
    plan = complete(plan_filter(logical(open_checkpoint(source))), "safetensors")
    shard = sorted(source.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes())
    with pytest.raises(CkptError, match="changed"):
        apply(plan, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_quantized_target_is_a_plain_model(tmp_path: Path, capsys: Told) -> None:
    plain, _ = dequantized("gptq_v1_actorder", tmp_path)
    into = ["--into", str(DATA / "gptq_v1_actorder"), "--dequantize", "--strict"]
    assert run(["transplant", str(plain), *into, "-o", str(tmp_path / "out.safetensors")]) == 0
    assert set(load_file(tmp_path / "out.safetensors")) == set(tensors_of(plain))
    assert "changes nothing" in capsys.readouterr().out


def test_codes_are_not_overwritten_beside_foreign_scales(tmp_path: Path, capsys: Told) -> None:
    plain, _ = dequantized("fp8_block_sharded", tmp_path)
    command = ["transplant", str(plain), "--into", str(DATA / "fp8_block_sharded")]
    told = refused(command, tmp_path / "out.safetensors", capsys)
    assert "fp8 128×128 blocks" in told


def test_names_in_the_config_follow_their_modules(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)

    def packed(bits: int) -> dict[str, torch.Tensor]:
        words = torch.randint(0, 2**31, (4, 64 * bits // 32), dtype=torch.int64, generator=generator)
        scales = torch.rand(4, 1, generator=generator).bfloat16()
        return {"weight": words.to(torch.uint32), "scales": scales, "biases": scales.clone()}

    state = {f"model.a.{name}": tensor for name, tensor in packed(4).items()}
    state |= {f"model.b.{name}": tensor for name, tensor in packed(8).items()}
    state["lm_head.weight"] = torch.ones(4, 64)
    save_file(state, folder / "model.safetensors", {"format": "mlx"})
    config = {"quantization": {"group_size": 64, "bits": 4, "model.b": {"group_size": 64, "bits": 8}, "lm_head": False}}
    (folder / "config.json").write_text(json.dumps(config))
    out = tmp_path / "out"
    rules = ["-r", "model. -> body.0.", "-r", "lm_head. -> head."]
    assert run(["remap", str(folder), *rules, "-o", str(out)]) == 0
    renamed = json.loads((out / "config.json").read_text())["quantization"]
    assert renamed == {"group_size": 64, "bits": 4, "body.0.b": {"group_size": 64, "bits": 8}, "head": False}
    for source, name in ((folder, "one"), (out, "two")):
        assert run(["filter", str(source), "--dequantize", "-o", str(tmp_path / f"{name}.safetensors")]) == 0
    one, two = load_file(tmp_path / "one.safetensors"), load_file(tmp_path / "two.safetensors")
    assert same(one["model.b.weight"], two["body.0.b.weight"])
    assert same(one["model.a.weight"], two["body.0.a.weight"])


def test_comfy_descriptions_in_the_metadata_follow(tmp_path: Path) -> None:
    layers = {"layers": {name: {"format": "float8_e4m3fn"} for name in ("a", "b")}, "format_version": "1.0"}
    state = {}
    for name in ("a", "b"):
        state[f"model.diffusion_model.{name}.weight"] = torch.ones(4, 4).to(torch.float8_e4m3fn)
        state[f"model.diffusion_model.{name}.weight_scale"] = torch.tensor(2.0)
    source, out = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    save_file(state, source, {"_quantization_metadata": json.dumps(layers)})
    rules = ["-r", "model.diffusion_model.a. -> model.diffusion_model.c.d.", "-r", "model.diffusion_model.b.{k**} -> !"]
    assert run(["remap", str(source), *rules, "-o", str(out)]) == 0
    with safe_open(out, "pt") as file:
        found = json.loads(file.metadata()["_quantization_metadata"])
    assert found == {"layers": {"c.d": {"format": "float8_e4m3fn"}}, "format_version": "1.0"}
    assert run(["filter", str(source), "--dequantize", "-o", str(tmp_path / "plain.safetensors")]) == 0
    with safe_open(tmp_path / "plain.safetensors", "pt") as file:
        assert "_quantization_metadata" not in (file.metadata() or {})


def test_torchao_descriptions_of_dropped_tensors_are_gone(tmp_path: Path) -> None:
    case = next(case for case in CASES if case["case"].startswith("torchao"))
    source, out = recorded(case, tmp_path / "in"), tmp_path / "out.safetensors"
    assert run(["filter", str(source), "--drop", "m.*", "-o", str(out)]) == 0
    with safe_open(out, "pt") as file:
        assert json.loads(file.metadata()["tensor_names"]) == []
        assert "m.weight" not in file.metadata()


def test_a_live_model_takes_decoded_weights() -> None:
    import ckptool

    class Attention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q_proj = torch.nn.Linear(64, 32, bias=False)

    model = Attention()
    rule = "model.layers.0.self_attn. ->"
    with pytest.raises(ckptool.CkptError, match="quantized"):
        ckptool.load_into(model, DATA / "gptq_v1_actorder", recipe=rule)
    report = ckptool.load_into(model, ckptool.dequantized(DATA / "gptq_v1_actorder"), recipe=rule)
    ((_, expected),) = load_file(DATA / "gptq_v1_actorder.expected.safetensors").items()
    assert report.loaded == ("q_proj.weight",)
    assert torch.equal(model.q_proj.weight.detach(), expected.float())


def test_a_run_is_resumed_only_if_it_decodes_the_same(tmp_path: Path) -> None:
    from ckptool.commands.beside.complete import complete
    from ckptool.commands.filter import plan_filter
    from ckptool.engine.dequantize import dequantized as logical
    from ckptool.engine.encode import encode
    from ckptool.engine.plan_hash import plan_hash

    source = tmp_path / "in"
    shutil.copytree(DATA / "gptq_v1_actorder", source)

    def digest(dtype: str | None = None) -> str:
        plan = complete(plan_filter(logical(open_checkpoint(source), dtype)), "safetensors")
        return plan_hash(plan, encode(plan, tmp_path / "out.safetensors"))

    first = digest()
    assert digest() == first
    assert digest("float16") != first
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"]["checkpoint_format"] = "gptq_v2"
    (source / "config.json").write_text(json.dumps(config))
    assert digest() != first
