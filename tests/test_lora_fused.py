"""PEFT's `target_parameters` on fused experts: equal to `merge_and_unload`, both packings, or refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_lora import State, write_adapter
from torch import nn

import ckptool
from ckptool.core.errors import CkptError, UsageError

E, R = 4, 2


@pytest.fixture
def peft(torchvision: ModuleType) -> ModuleType:
    """peft, which imports transformers, which imports torchvision."""
    del torchvision
    found: ModuleType = pytest.importorskip("peft")
    return found


def mixtral(hidden: int, inner: int) -> Any:
    import transformers

    config = transformers.MixtralConfig(
        vocab_size=32, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=E, num_experts_per_tok=2,
    )  # fmt: skip
    return transformers.MixtralForCausalLM(config)


def qwen3_moe(hidden: int, inner: int) -> Any:
    import transformers

    config = transformers.Qwen3MoeConfig(
        vocab_size=32, hidden_size=hidden, moe_intermediate_size=inner, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, num_experts=E, num_experts_per_tok=2,
    )  # fmt: skip
    return transformers.Qwen3MoeForCausalLM(config)


def gpt_oss(hidden: int, inner: int) -> Any:
    import transformers

    config = transformers.GptOssConfig(
        vocab_size=32, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=E, num_experts_per_tok=2, head_dim=8,
    )  # fmt: skip
    return transformers.GptOssForCausalLM(config)


BOTH = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::RuntimeWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("make", "sizes", "targets", "more"),
    [
        (mixtral, (16, 24), BOTH, {}),
        (mixtral, (16, 16), BOTH, {"target_modules": ["q_proj"], "use_rslora": True}),
        (mixtral, (32, 16), BOTH, {}),
        (qwen3_moe, (16, 12), ["experts.down_proj"], {"alpha_pattern": {"experts.down_proj": 9}}),
        (qwen3_moe, (16, 16), BOTH, {}),
        (gpt_oss, (16, 24), BOTH, {}),
        (gpt_oss, (16, 16), BOTH, {}),
        (gpt_oss, (16, 16), ["experts.down_proj"], {}),
    ],
)
def test_agrees_with_peft(
    make: Callable[[int, int], nn.Module], sizes: tuple[int, int], targets: list[str], more: dict[str, Any],
    peft: ModuleType, tmp_path: Path,
) -> None:  # fmt: skip
    torch.manual_seed(1)
    model = make(*sizes)
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    save_file(state, tmp_path / "base.safetensors")
    options = {"target_modules": [], **more}
    config = peft.LoraConfig(r=R, lora_alpha=3, target_parameters=targets, init_lora_weights=False, **options)
    adapted = peft.get_peft_model(copy.deepcopy(model), config)
    adapted.save_pretrained(tmp_path / "adapter")
    expected = adapted.merge_and_unload().state_dict()
    ckptool.plan_merge(tmp_path / "base.safetensors", lora=tmp_path / "adapter").apply(tmp_path / "out.safetensors")
    found = load_file(tmp_path / "out.safetensors")
    changed = {key for key in found if not found[key].equal(state[key])}
    assert {key for key in changed if "experts" in key} == {
        key for key in state if any(key.endswith(target) for target in targets)
    }
    for key, tensor in expected.items():
        assert torch.allclose(found[key], tensor, atol=1e-5), key


def packed(out: int, inner: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A, B, and the sum that they stand for, [experts, out, in]."""
    a, b = torch.randn(E * R, inner), torch.randn(out, R * E)
    each = torch.einsum("ore,eri->eoi", b.double().reshape(out, R, E), a.double().reshape(E, R, inner))
    return a, b, each


def written(folder: Path, base: State, factors: list[tuple[torch.Tensor, torch.Tensor]], targets: list[str]) -> State:
    """What merging gives; `factors` of the outermost wrapper come first."""
    save_file(base, folder / "base.safetensors")
    state: State = {}
    for depth, (a, b) in enumerate(factors):
        head = "base_model.model.mlp.experts." + "base_layer." * depth
        state |= {f"{head}lora_A.weight": a, f"{head}lora_B.weight": b}
    adapter = write_adapter(folder / "adapter", state, r=R, lora_alpha=R, target_parameters=targets)
    ckptool.plan_merge(folder / "base.safetensors", lora=adapter).apply(folder / "out.safetensors", force=True)
    return load_file(folder / "out.safetensors")


def test_the_packing_of_older_versions_is_told_by_the_shapes(tmp_path: Path) -> None:
    torch.manual_seed(2)
    base = {"mlp.experts.gate_up_proj": torch.randn(E, 12, 6), "mlp.experts.down_proj": torch.randn(E, 6, 6)}
    gate, down = packed(6, 12), packed(6, 6)  # as for [experts, in, out], though they are [experts, out, in]
    found = written(tmp_path, base, [down[:2], gate[:2]], BOTH)
    for key, (_, _, change) in zip(base, (gate, down), strict=True):
        assert torch.allclose(found[key], (base[key].double() + change.transpose(1, 2)).float(), atol=1e-6)


def test_what_shapes_do_not_tell_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(3)
    square = {"mlp.experts.down_proj": torch.randn(E, 6, 6)}
    with pytest.raises(UsageError, match=r"do not tell how they are added to mlp\.experts\.down_proj"):
        written(tmp_path, square, [packed(6, 6)[:2]], ["experts.down_proj"])
    twins = {"mlp.experts.up_proj": torch.randn(E, 8, 6), "mlp.experts.gate_proj": torch.randn(E, 8, 6)}
    with pytest.raises(UsageError, match="do not tell"):
        written(tmp_path, twins, [packed(8, 6)[:2], packed(8, 6)[:2]], ["experts.up_proj", "experts.gate_proj"])
    with pytest.raises(UsageError, match="do not fit"):
        written(tmp_path, square, [packed(7, 6)[:2]], ["experts.down_proj"])
    with pytest.raises(UsageError, match="factors for 1 of the 2 parameters"):
        written(tmp_path, twins, [packed(8, 6)[:2]], ["experts.up_proj", "experts.gate_proj"])
    apart = {f"mlp.experts.{expert}.down_proj.weight": torch.randn(6, 6) for expert in range(E)}
    with pytest.raises(CkptError) as caught:
        written(tmp_path, apart, [packed(6, 6)[:2]], ["experts.down_proj"])
    assert "-r fuse-experts" in (caught.value.hint or "")
    assert not (tmp_path / "out.safetensors").exists()
