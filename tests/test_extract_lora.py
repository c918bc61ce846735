"""Adapters of what tuning changed: they load with peft and give the tuned model; what they lack is reported."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from console import Run, runner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

import ckptool
from ckptool.commands.patching.peft import Layers
from ckptool.core.errors import UsageError
from ckptool.core.spec import TensorSpec
from ckptool.values.lowrank import distance, low_rank

T = torch.Tensor


@pytest.fixture
def peft(torchvision: ModuleType) -> ModuleType:
    """peft, which imports transformers, which imports torchvision."""
    del torchvision
    found: ModuleType = pytest.importorskip("peft")
    return found


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(tmp_path, monkeypatch, capsys)


def changed(model: nn.Module, rank: int, wanted: Callable[[str], bool]) -> nn.Module:
    """A copy whose chosen matrices differ by a matrix of some rank."""
    tuned = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if wanted(name):
                out, inner = weight.shape[0], weight[0].numel()
                one, other = (torch.randn(size, generator=generator) * 0.2 for size in ((out, rank), (rank, inner)))
                weight.add_((one @ other).reshape(weight.shape))
    return tuned


def llama(tied: bool) -> nn.Module:
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=tied,
    )  # fmt: skip
    return nn.Module.eval(transformers.LlamaForCausalLM(config))


def gpt2() -> nn.Module:
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=64, n_positions=16, n_embd=32, n_layer=2, n_head=4)
    return nn.Module.eval(transformers.GPT2LMHeadModel(config))


class Net(nn.Module):
    """Convolutions, an embedding without a telling place, norms, and activations that have no weights."""

    def __init__(self) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(40, 12)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
        self.head = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 12))
        self.norm = nn.LayerNorm(12)

    def forward(self, ids: T) -> T:
        image = torch.linspace(-1, 1, 3 * 64).reshape(1, 3, 8, 8)
        seen: T = self.norm(self.head(self.blocks(self.stem(image)).mean((2, 3))) + self.token_embedding(ids))
        return seen


def net() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


def saved(model: Any, folder: Path) -> Path:
    if isinstance(model, Net):
        folder.mkdir()
        save_file(model.state_dict(), folder / "model.safetensors")
    else:
        model.save_pretrained(folder)
    return folder


def logits(model: nn.Module) -> T:
    ids = torch.arange(10).reshape(1, 10)
    with torch.no_grad():
        out = model(ids)
    return out if isinstance(out, torch.Tensor) else out.logits


def loaded_by(peft: ModuleType, model: nn.Module, adapter: Path) -> Any:
    """The adapter in a copy of the model; every tensor of both has met."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        loaded = peft.PeftModel.from_pretrained(copy.deepcopy(model), adapter)
    lost = [str(each.message) for each in said if "adapter keys" in str(each.message)]
    assert all("['base_model.model.lm_head." in text for text in lost), "tied to the embedding's factors"
    return loaded


MATRICES: dict[str, tuple[Callable[[], nn.Module], Callable[[str], bool]]] = {
    "all": (lambda: llama(False), lambda name: "norm" not in name),
    "some": (lambda: llama(False), lambda name: "q_proj" in name or "layers.1.mlp.up_proj" in name),
    "tied": (lambda: llama(True), lambda name: "embed_tokens" in name or "v_proj" in name),
    "gpt2": (gpt2, lambda name: name.endswith("weight") and "ln_" not in name and "wte" not in name),
    "square": (gpt2, lambda name: "attn.c_proj.weight" in name),
    "net": (net, lambda name: name.endswith("weight") and "norm" not in name and name != "blocks.1.weight"),
}


@pytest.mark.parametrize("case", MATRICES)
def test_peft_loads_it_and_gives_the_tuned_model(case: str, peft: ModuleType, tmp_path: Path) -> None:
    make, wanted = MATRICES[case]
    model = make()
    tuned = changed(model, 3, wanted)
    base, goal = saved(model, tmp_path / "base"), saved(tuned, tmp_path / "tuned")
    found = ckptool.extract_lora(base, goal, tmp_path / "adapter", rank=5)
    assert not found.with_fate("left")
    assert {part.rank for part in found.with_fate("adapted")} <= {1, 3}
    assert (found.kept or 0) > 1 - 1e-9
    loaded = loaded_by(peft, model, tmp_path / "adapter")
    names = {name for name, module in loaded.base_model.model.named_modules() if hasattr(module, "lora_A")}
    assert names == {part.module for part in found.with_fate("adapted")} | ({"lm_head"} if case == "tied" else set())
    assert torch.allclose(logits(loaded), logits(tuned), atol=2e-4)
    assert not torch.allclose(logits(model), logits(tuned), atol=1e-2)
    ckptool.plan_merge(base, lora=tmp_path / "adapter").apply(tmp_path / "again.safetensors")
    again, state = load_file(tmp_path / "again.safetensors"), tuned.state_dict()
    for key, tensor in again.items():
        assert torch.allclose(tensor, state[key], atol=1e-5), key


def test_a_tied_table_that_peft_does_not_know_is_named(peft: ModuleType, tmp_path: Path) -> None:
    model = gpt2()
    tuned = changed(model, 2, lambda name: "wte" in name)
    found = ckptool.extract_lora(
        saved(model, tmp_path / "base"), saved(tuned, tmp_path / "tuned"), tmp_path / "adapter", rank=2
    )
    assert any("transformer.wte is tied to the head" in note.text for note in found.notes)
    merged = loaded_by(peft, model, tmp_path / "adapter").merge_and_unload()
    assert torch.allclose(logits(merged), logits(tuned), atol=1e-5)


def test_norms_are_saved_in_full_where_asked(peft: ModuleType, tmp_path: Path) -> None:
    model = llama(False)
    tuned = changed(model, 2, lambda name: "q_proj" in name)
    with torch.no_grad():
        tuned.model.norm.weight += 0.5  # type: ignore[union-attr, operator]
        tuned.model.layers[1].input_layernorm.weight *= 1.5  # type: ignore[union-attr, index]
    base, goal = saved(model, tmp_path / "base"), saved(tuned, tmp_path / "tuned")
    without = ckptool.extract_lora(base, goal, tmp_path / "without", rank=2)
    assert {part.key for part in without.with_fate("left")} == {
        "model.norm.weight", "model.layers.1.input_layernorm.weight",
    }  # fmt: skip
    assert any("2 changed tensors are not in the adapter" in note.text for note in without.notes)
    found = ckptool.extract_lora(base, goal, tmp_path / "adapter", rank=2, modules_to_save=True)
    assert found.config["modules_to_save"] == ["layers.1.input_layernorm", "model.norm"]
    loaded = loaded_by(peft, model, tmp_path / "adapter")
    assert torch.allclose(logits(loaded), logits(tuned), atol=2e-5)
    ckptool.plan_merge(base, lora=tmp_path / "adapter").apply(tmp_path / "again.safetensors")
    again = load_file(tmp_path / "again.safetensors")
    assert all(torch.allclose(again[key], tensor, atol=1e-5) for key, tensor in tuned.state_dict().items())


@pytest.mark.parametrize("make", [gpt2, net])
def test_biases_and_norms_and_buffers_make_it_whole(
    make: Callable[[], nn.Module], peft: ModuleType, tmp_path: Path
) -> None:
    model = make()
    tuned = changed(model, 2, lambda name: name.endswith("weight") and "ln_" not in name and "norm" not in name)
    with torch.no_grad():
        for name, tensor in (*tuned.named_parameters(), *tuned.named_buffers()):
            if tensor.ndim == 1 and tensor.is_floating_point():
                tensor.add_(0.3 + 0.01 * len(name))
        if make is gpt2:  # its table is tied
            tuned.get_parameter("transformer.wte.weight").copy_(model.get_parameter("transformer.wte.weight"))
        else:
            tuned.get_parameter("blocks.1.weight").copy_(model.get_parameter("blocks.1.weight") + 1)
    base, goal = saved(model, tmp_path / "base"), saved(tuned, tmp_path / "tuned")
    found = ckptool.extract_lora(base, goal, tmp_path / "adapter", rank=2, modules_to_save=True)
    assert not found.with_fate("left")
    loaded = loaded_by(peft, model, tmp_path / "adapter")
    assert torch.allclose(logits(loaded), logits(tuned), atol=2e-4)
    ckptool.plan_merge(base, lora=tmp_path / "adapter").apply(tmp_path / "again.safetensors")
    again = load_file(tmp_path / "again.safetensors")
    for key, tensor in tuned.state_dict().items():
        if key in again:
            assert torch.allclose(again[key], tensor, atol=1e-5), key


def test_the_reported_error_is_what_is_lost(tmp_path: Path) -> None:
    torch.manual_seed(3)
    base = {"a.weight": torch.randn(300, 400), "b.weight": torch.randn(20, 30)}
    tuned = {key: tensor + 0.1 * torch.randn(tensor.shape) for key, tensor in base.items()}
    save_file(base, tmp_path / "base.safetensors")
    save_file(tuned, tmp_path / "tuned.safetensors")
    for dtype in ("float32", "bfloat16"):
        found = ckptool.extract_lora(
            tmp_path / "base.safetensors", tmp_path / "tuned.safetensors", tmp_path / dtype, rank=8, dtype=dtype
        )
        factors = load_file(tmp_path / dtype / "adapter_model.safetensors")
        assert {str(factor.dtype) for factor in factors.values()} == {f"torch.{dtype}"}
        for part in found.parts:
            change = (tuned[part.key] - base[part.key]).double()
            a, b = (factors[f"base_model.model.{part.module}.lora_{name}.weight"].double() for name in "AB")
            lost = float((change - b @ a).norm() / change.norm())
            assert part.error == pytest.approx(lost, rel=1e-4)
            values = torch.linalg.svdvals(change)
            best = float(values[8:].square().sum().sqrt() / change.norm())
            assert best - 1e-6 <= lost < 1.005 * best + 2e-4


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_low_rank_is_close_to_the_best(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    shape = data.draw(st.sampled_from([(5, 3), (72, 64), (64, 150), (1, 9)]))
    rank = data.draw(st.integers(1, 12))
    decay = data.draw(st.sampled_from([0.0, 0.5, 2.0]))
    u, _ = np.linalg.qr(rng.standard_normal((shape[0], min(shape))))
    v, _ = np.linalg.qr(rng.standard_normal((shape[1], min(shape))))
    values = (1.0 + np.arange(min(shape))) ** -decay * 10.0 ** data.draw(st.sampled_from([-6, 0, 4]))
    matrix = ((u * values) @ v.T).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ckptool.values.lowrank._EXACT", 32)  # what is larger goes the way of large ones
        left, found, right = low_rank(matrix, rank)
    best = float(np.sqrt(np.square(values[rank:]).sum()))
    assert distance(matrix, left * found, right) <= 1.01 * best + 1e-5 * values[0]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_names_mean_the_chosen_modules_and_no_others(peft: ModuleType, data: st.DataObject) -> None:
    part = st.sampled_from(["a", "b", "0", "1", "q_proj", "proj", "layers"])
    names = data.draw(
        st.lists(st.lists(part, min_size=1, max_size=4).map(".".join), min_size=1, max_size=8, unique=True)
    )
    chosen = [name for name in names if data.draw(st.booleans())]
    if not chosen:
        return
    layers = Layers.of(TensorSpec(f"{name}.weight", "float32", (2, 2)) for name in names)
    ends = layers.named(chosen)
    config = peft.LoraConfig(target_modules=ends)
    from peft.tuners.tuners_utils import check_target_module_exists

    assert {name for name in layers.modules if check_target_module_exists(config, name)} == set(chosen)
    patterns = layers.pattern(chosen)
    from peft.utils.other import get_pattern_key

    assert {name for name in layers.modules if get_pattern_key(patterns, name) in patterns} == set(chosen)


def test_what_no_adapter_holds_is_said(tmp_path: Path, cli: Run) -> None:
    base = {"a.weight": torch.ones(4, 4), "n.weight": torch.ones(4), "mha.in_proj_weight": torch.ones(6, 2)}
    base |= {"mha.out_proj.weight": torch.ones(2, 2), "gone": torch.ones(1), "wide.weight": torch.ones(3, 2)}
    tuned = {key: tensor + 1 for key, tensor in base.items() if key != "gone"}
    tuned |= {"new.weight": torch.ones(2, 2), "wide.weight": torch.ones(5, 2)}
    save_file(base, tmp_path / "b.safetensors")
    save_file(tuned, tmp_path / "t.safetensors")
    code, out, _ = cli("extract", "b.safetensors", "t.safetensors", "--lora", "--rank", "2", "--json")
    said = json.loads(out)
    fates = {each["key"]: (each["fate"], each["kind"]) for each in said["tensors"]}
    assert code == 0
    assert fates == {
        "a.weight": ("adapted", "linear"),
        "n.weight": ("left", "no matrix of a layer"),
        "mha.in_proj_weight": ("left", "a part of MultiheadAttention"),
        "mha.out_proj.weight": ("left", "a part of MultiheadAttention"),
        "new.weight": ("left", "not in the base"),
        "wide.weight": ("left", "another shape than in the base"),
    }
    assert (said["removed"], said["written"], said["summary"]["kept"]) == (["gone"], None, None)
    code, out, _ = cli("extract", "b.safetensors", "t.safetensors", "--lora", "--rank", "2", "-o", "d", "--json")
    assert json.loads(out)["summary"]["kept"] == pytest.approx(1.0)
    assert (
        "5 changed tensors are not in it"
        in cli("extract", "b.safetensors", "t.safetensors", "--lora", "--rank", "2")[1]
    )
    for arguments, message in (
        (["--lora"], "--lora takes a rank"),
        (["--rank", "4"], "--rank is for an adapter"),
        (["--lora", "--rank", "4", "-o", "d"], "d exists"),
        (["--lora", "--rank", "4", "-o", "d.safetensors"], "an adapter is a folder"),
        (["--lora", "--rank", "4", "--dtype", "i8"], "is not a float dtype"),
    ):
        code, _, err = cli("extract", "b.safetensors", "t.safetensors", *arguments)
        assert (code, message in err) == (2, True), err
    assert cli("extract", "b.safetensors", "t.safetensors", "--lora", "--rank", "4", "-o", "d", "--force")[0] == 0
    with pytest.raises(UsageError, match="is the base"):
        ckptool.extract_lora(tmp_path / "b.safetensors", tmp_path / "b.safetensors", rank=1)


def test_numbers_that_are_not_finite_are_left(tmp_path: Path) -> None:
    base = {"a.weight": torch.ones(4, 4), "b.weight": torch.ones(4, 4), "b.bias": torch.ones(4)}
    tuned = {key: tensor + 1 for key, tensor in base.items()}
    tuned["b.weight"][1, 2] = float("nan")
    save_file(base, tmp_path / "b.safetensors")
    save_file(tuned, tmp_path / "t.safetensors")
    found = ckptool.extract_lora(
        tmp_path / "b.safetensors", tmp_path / "t.safetensors", tmp_path / "d", rank=2, modules_to_save=True
    )
    left = {part.key: part.kind for part in found.with_fate("left")}
    assert left == {"b.weight": "numbers that are not finite", "b.bias": "the bias of a layer that is left"}
    assert found.config["target_modules"] == ["a"]
    keys = load_file(tmp_path / "d" / "adapter_model.safetensors")
    assert sorted(keys) == ["base_model.model.a.lora_A.weight", "base_model.model.a.lora_B.weight"]


def test_any_key_comes_back(tmp_path: Path, cli: Run) -> None:
    base = {f"{key}.weight": torch.ones(3, 4) for key in ("a\x1b[31m\n=cmd", "b.\u202ex", "q(+", "=1")}
    tuned = {key: tensor + 1 for key, tensor in base.items()}
    torch.save(base, tmp_path / "b.pth")
    torch.save(tuned, tmp_path / "t.pth")
    for form in ("text", "csv", "markdown", "html", "ndjson", "lines"):
        code, out, _ = cli("extract", "b.pth", "t.pth", "--lora", "--rank", "1", "-o", "d", "--force", "--format", form)
        assert code == 0
        assert not {"\x1b", "\u202e"} & set(out)
    most = json.loads(cli("extract", "b.pth", "t.pth", "--lora", "--rank", "1", "--json")[1])["summary"][
        "adapter_bytes"
    ]
    assert most == (tmp_path / "d" / "adapter_model.safetensors").stat().st_size
    ckptool.plan_merge(tmp_path / "b.pth", lora=tmp_path / "d").apply(tmp_path / "o.pth")
    found = torch.load(tmp_path / "o.pth", weights_only=True)
    assert all(torch.allclose(found[key], tensor) for key, tensor in tuned.items())


# ---------------------------------------------------------------------------------------------- experts


def gpt_oss() -> nn.Module:
    import transformers

    torch.manual_seed(0)
    config = transformers.GptOssConfig(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, head_dim=8,
        num_key_value_heads=1, num_local_experts=4, num_experts_per_tok=2, pad_token_id=0,
    )  # fmt: skip
    return nn.Module.eval(transformers.GptOssForCausalLM(config))


class Experts(nn.Module):
    """Parameters that hold the matrices of all experts, [experts, out, in]."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(3, 20, 12) * 0.1)
        self.down_proj = nn.Parameter(torch.randn(3, 12, 10) * 0.1)

    def forward(self, x: T) -> T:
        gate, up = torch.einsum("eoi,bi->ebo", self.gate_up_proj, x).chunk(2, -1)
        found: T = torch.einsum("eoi,ebi->bo", self.down_proj, gate * torch.sigmoid(up))
        return found


class Mixture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(16, 12)
        self.mlp = nn.Module()
        self.mlp.experts = Experts()

    def forward(self, ids: T) -> T:
        found: T = self.mlp.experts(self.embed(ids).reshape(-1, 12))
        return found


def mixture() -> nn.Module:
    torch.manual_seed(0)
    return Mixture().eval()


@pytest.mark.parametrize("changed", ["both", "gate_up_proj", "down_proj", "all"])
@pytest.mark.parametrize("make", [gpt_oss, mixture])
def test_experts_are_target_parameters(
    make: Callable[[], nn.Module], changed: str, peft: ModuleType, tmp_path: Path, cli: Run
) -> None:
    """What peft loads, and what `merge --lora` gives, is the tuned model."""
    base = make()
    tuned = copy.deepcopy(base)
    names = ("gate_up_proj", "down_proj") if changed in ("both", "all") else (changed,)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if name.endswith(names) or (changed == "all" and ("q_proj.weight" in name or "embed" in name)):
                parameter.add_(0.2 * torch.randn(*parameter.shape[:-1], 2) @ torch.randn(2, parameter.shape[-1]))
    for model, folder in ((base, "base"), (tuned, "tuned")):
        if isinstance(model, Mixture):
            (tmp_path / folder).mkdir()
            save_file(model.state_dict(), tmp_path / folder / "model.safetensors")
        else:
            model.save_pretrained(tmp_path / folder)
    code, text, error = cli("extract", "base", "tuned", "--lora", "--rank", "3", "-o", "adapter")
    assert code == 0, text + error
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert {name.rpartition(".")[2] for name in config["target_parameters"]} == set(names)
    loaded = loaded_by(peft, base, tmp_path / "adapter").merge_and_unload()
    torch.testing.assert_close(logits(loaded), logits(tuned), rtol=1e-4, atol=1e-4)
    for name, parameter in loaded.named_parameters():
        torch.testing.assert_close(parameter, tuned.get_parameter(name), rtol=1e-4, atol=1e-4)
    code, text, error = cli("merge", "base", "--lora", "adapter", "-o", "merged.safetensors")
    if code == 2 and make is mixture:
        assert "do not tell how they are added" in error, "where both parameters would fit both ways"
        return
    assert code == 0, text + error
    for name, value in load_file(tmp_path / "merged.safetensors").items():
        torch.testing.assert_close(value, tuned.state_dict()[name], rtol=1e-4, atol=1e-4)
