"""kohya's, diffusers' and LoCon adapters merged into a base: against their formula in float64."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import ckptool
from ckptool.commands.merging.lora import plan_adapter
from ckptool.core.errors import CkptError, UsageError

State = dict[str, torch.Tensor]
BASE = {
    "down_blocks.0.attentions.0.proj_in.weight": (8, 6, 1, 1),
    "down_blocks.0.attentions.0.attn1.to_q.weight": (8, 8),
    "down_blocks.0.attentions.0.attn1.to_out.0.weight": (8, 6),
    "down_blocks.0.resnets.0.conv1.weight": (8, 6, 3, 3),
    "conv_in.weight": (6, 4, 3, 3),
    "time_embedding.linear_1.weight": (5, 7),
}
R = 2


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape) + len(shape)))


def base_file(folder: Path, prefix: str = "") -> Path:
    save_file({prefix + key: random(*shape) for key, shape in BASE.items()}, folder / "base.safetensors")
    return folder / "base.safetensors"


def factors(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    out, inner, *kernel = shape
    return random(R, inner, *kernel), random(out, R, *(1 for _ in kernel))


def expected(key: str, scaling: float, base: State) -> torch.Tensor:
    down, up = factors(BASE[key])
    delta = up.double().flatten(1) @ down.double().flatten(1)
    return (base[key].double().flatten(1) + scaling * delta).reshape(BASE[key]).float()


def merged(base: Path, adapter: Path) -> State:
    out = base.with_name("merged.safetensors")
    ckptool.plan_merge([base], lora=adapter).apply(out, force=True)
    return load_file(out)


def held_against(found: State, base: State, scalings: dict[str, float]) -> None:
    for key in BASE:
        if key in scalings:
            assert torch.allclose(found[key], expected(key, scalings[key], base), rtol=1e-6, atol=1e-6), key
        else:
            assert found[key].equal(base[key]), key


@pytest.mark.parametrize("prefix", ["lora_unet_", "lycoris_", "lora_transformer_"])
def test_kohya(prefix: str, tmp_path: Path) -> None:
    path = base_file(tmp_path)
    state: State = {}
    for number, (key, shape) in enumerate(BASE.items()):
        name = prefix + key.removesuffix(".weight").replace(".", "_")
        state[f"{name}.lora_down.weight"], state[f"{name}.lora_up.weight"] = factors(shape)
        state[f"{name}.alpha"] = torch.tensor(float(number + 1))
    save_file(state, tmp_path / "a.safetensors")
    scalings = {key: (number + 1) / R for number, key in enumerate(BASE)}
    held_against(merged(path, tmp_path / "a.safetensors"), load_file(path), scalings)


def test_without_an_alpha_the_product_is_added_as_it_is(tmp_path: Path) -> None:
    path, key = base_file(tmp_path), "time_embedding.linear_1.weight"
    down, up = factors(BASE[key])
    state = {
        "lora_unet_time_embedding_linear_1.lora_down.weight": down,
        "lora_unet_time_embedding_linear_1.lora_up.weight": up,
    }
    save_file(state, tmp_path / "a.safetensors")
    held_against(merged(path, tmp_path / "a.safetensors"), load_file(path), {key: 1.0})


@pytest.mark.parametrize(
    ("q", "out"),
    [
        ("unet.{}attn1.processor.to_q_lora.{}.weight", "unet.{}attn1.processor.to_out_lora.{}.weight"),
        ("unet.{}attn1.to_q.lora.{}.weight", "unet.{}attn1.to_out.0.lora.{}.weight"),
        ("{}attn1.to_q.lora_{}.weight", "{}attn1.to_out.0.lora_{}.weight"),
    ],
)
def test_diffusers(q: str, out: str, tmp_path: Path) -> None:
    path = base_file(tmp_path)
    at = "down_blocks.0.attentions.0."
    keys = {f"{at}attn1.to_q.weight": q, f"{at}attn1.to_out.0.weight": out}
    state: State = {}
    for key, name in keys.items():
        for part, factor in zip(("down", "up"), factors(BASE[key]), strict=True):
            state[name.format(at, part)] = factor
    save_file(state, tmp_path / "a.safetensors")
    held_against(merged(path, tmp_path / "a.safetensors"), load_file(path), dict.fromkeys(keys, 1.0))


@pytest.mark.parametrize("prefix", ["transformer.", "unet.", ""])
@pytest.mark.parametrize("stated", [False, True])
def test_diffusers_with_the_names_of_peft(prefix: str, stated: bool, tmp_path: Path) -> None:
    path, state = base_file(tmp_path), {}
    for key, shape in BASE.items():
        for part, factor in zip("AB", factors(shape), strict=True):
            state[f"{prefix}{key.removesuffix('.weight')}.lora_{part}.weight"] = factor
    first = prefix.removesuffix(".") or "conv_in"
    said = {f"{first}.r": R, f"{first}.lora_alpha": 6, f"{first}.alpha_pattern": {"conv_in": 1}}
    metadata = {"format": "pt", **({"lora_adapter_metadata": json.dumps(said)} if stated else {})}
    save_file(state, tmp_path / "pytorch_lora_weights.safetensors", metadata)
    scalings = dict.fromkeys(BASE, 6 / R if stated and prefix else 1.0)
    if stated:
        scalings["conv_in.weight"] = 1 / R if prefix else 6 / R
    held_against(merged(path, tmp_path / "pytorch_lora_weights.safetensors"), load_file(path), scalings)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("mid", [False, True])
@pytest.mark.parametrize("key", BASE)
def test_locon_with_a_middle_factor_and_dora(key: str, mid: bool, dora: bool, tmp_path: Path) -> None:
    """LyCORIS: einsum("i j ..., i p, j r -> p r ..."), and apply_weight_decompose with one norm for each output."""
    shape = BASE[key]
    out, inner, *kernel = shape
    if mid and not kernel:
        return
    path, name = base_file(tmp_path), "lycoris_" + key.removesuffix(".weight").replace(".", "_")
    down, up = factors(shape)
    state: State = {f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(3.0)}
    delta = (up.double().flatten(1) @ down.double().flatten(1)).reshape(shape)
    if mid:
        down, middle = random(R, inner, 1, 1), random(R, R, *kernel)
        factored = middle.double(), up.double().flatten(1).T, down.double().flatten(1)
        delta = torch.einsum("ij...,ip,jr->pr...", *factored)
        state[f"{name}.lora_mid.weight"] = middle
    state[f"{name}.lora_down.weight"] = down
    exact = load_file(path)[key].double() + 3 / R * delta
    if dora:
        scale = random(out, *(1 for _ in shape[1:])).abs() + 1
        state[f"{name}.dora_scale"] = scale
        exact = exact * scale.double() / exact.flatten(1).norm(dim=1).reshape(scale.shape)
    save_file(state, tmp_path / "a.safetensors")
    assert torch.allclose(merged(path, tmp_path / "a.safetensors")[key], exact.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("meant", [1, 2])
def test_two_text_encoders_in_one_file(meant: int, tmp_path: Path) -> None:
    """Names are equal, the shapes tell; a deeper encoder has more layers than the base."""
    widths, depths = {1: 6, 2: 10}, {1: 2, 2: 3}
    name = "text_model.encoder.layers.{}.mlp.fc1"
    base = {f"{name.format(n)}.weight": random(5, widths[meant]) for n in range(depths[meant])}
    save_file(base, tmp_path / "base.safetensors")
    state: State = {}
    for encoder, width in widths.items():
        for layer in range(depths[encoder]):
            flat = f"lora_te{encoder}_{name.format(layer).replace('.', '_')}"
            state[f"{flat}.lora_down.weight"], state[f"{flat}.lora_up.weight"] = random(R, width), random(5, R)
    save_file(state, tmp_path / "a.safetensors")
    plan = ckptool.plan_merge([tmp_path / "base.safetensors"], lora=tmp_path / "a.safetensors")
    other = f"lora_te{3 - meant}_text_model"
    assert any("for another model" in note.text and other in note.text for note in plan.notes)
    found = merged(tmp_path / "base.safetensors", tmp_path / "a.safetensors")
    delta = random(5, R).double() @ random(R, widths[meant]).double()
    for key, tensor in base.items():
        assert torch.allclose(found[key], (tensor.double() + delta).float(), atol=1e-6)


def test_a_text_encoder_deep_in_the_base(tmp_path: Path) -> None:
    """SDXL in one file: the adapter's names begin four parts in; the second encoder has other names."""
    unet, head = "model.diffusion_model.", "conditioner.embedders.0.transformer."
    base = {f"{unet}input_blocks.{n}.1.proj_in.weight": random(5, 4) for n in range(3)}
    base |= {f"{head}text_model.encoder.layers.{n}.mlp.fc1.weight": random(5, 6) for n in range(2)}
    base |= {
        f"conditioner.embedders.1.model.transformer.resblocks.{n}.mlp.c_fc.weight": random(5, 10) for n in range(3)
    }
    save_file(base, tmp_path / "base.safetensors")
    names = {f"lora_unet_input_blocks_{n}_1_proj_in": 4 for n in range(3)}
    names |= {f"lora_te1_text_model_encoder_layers_{n}_mlp_fc1": 6 for n in range(2)}
    names |= {f"lora_te2_text_model_encoder_layers_{n}_mlp_fc1": 10 for n in range(3)}
    state: State = {}
    for name, width in names.items():
        state[f"{name}.lora_down.weight"], state[f"{name}.lora_up.weight"] = random(R, width), random(5, R)
    save_file(state, tmp_path / "a.safetensors")
    plan = ckptool.plan_merge([tmp_path / "base.safetensors"], lora=tmp_path / "a.safetensors")
    assert [note.text for note in plan.notes if "3 modules of the adapter are for another model" in note.text]
    found = merged(tmp_path / "base.safetensors", tmp_path / "a.safetensors")
    changed = {key for key, tensor in found.items() if not tensor.equal(base[key])}
    assert changed == {key for key in base if "resblocks" not in key}


def test_a_name_that_fits_in_two_places_is_refused(tmp_path: Path) -> None:
    save_file({"one.m.fc.weight": random(5, 6), "two.m.fc.weight": random(5, 6)}, tmp_path / "base.safetensors")
    state = {"lora_unet_fc.lora_down.weight": random(R, 6), "lora_unet_fc.lora_up.weight": random(5, R)}
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match=r"lora_unet_fc of the adapter can mean one\.m\.fc and two\.m\.fc"):
        ckptool.plan_merge([tmp_path / "base.safetensors"], lora=tmp_path / "a.safetensors")


def test_two_parts_for_one_module_are_refused(tmp_path: Path) -> None:
    save_file({"fc.weight": random(5, 6)}, tmp_path / "base.safetensors")
    state: State = {}
    for encoder in (1, 2):
        state[f"lora_te{encoder}_fc.lora_down.weight"], state[f"lora_te{encoder}_fc.lora_up.weight"] = (
            random(R, 6),
            random(5, R),
        )
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match=r"lora_te1_fc and lora_te2_fc of the adapter both mean fc"):
        ckptool.plan_merge([tmp_path / "base.safetensors"], lora=tmp_path / "a.safetensors")


@pytest.mark.parametrize("kind", ["hada_w1_a", "lokr_w1", "mixed"])
def test_other_kinds_are_named(kind: str, tmp_path: Path) -> None:
    path = base_file(tmp_path)
    state = {f"lora_unet_conv_in.{kind}": random(6, R), "lora_unet_conv_in.alpha": torch.tensor(1.0)}
    if kind == "mixed":
        down, up = factors(BASE["conv_in.weight"])
        state = {"lora_unet_conv_in.lora_down.weight": down, "lora_unet_conv_in.lora_up.weight": up}
        state["lora_unet_time_embedding_linear_1.diff"] = random(5, 7)
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match=r"LoHa|LoKr|diff is no factor"):
        ckptool.plan_merge([path], lora=tmp_path / "a.safetensors")


def test_the_base_may_have_a_prefix_and_the_adapter_a_text_encoder(tmp_path: Path) -> None:
    path, key = base_file(tmp_path, "model.diffusion_model."), "conv_in.weight"
    down, up = factors(BASE[key])
    state = {
        "lora_unet_conv_in.lora_down.weight": down,
        "lora_unet_conv_in.lora_up.weight": up,
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": random(R, 4),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": random(5, R),
    }
    save_file(state, tmp_path / "a.safetensors")
    plan = ckptool.plan_merge([path], lora=tmp_path / "a.safetensors")
    assert any("for another model" in note.text for note in plan.notes)
    found = merged(path, tmp_path / "a.safetensors")
    cut = {key.removeprefix("model.diffusion_model."): tensor for key, tensor in found.items()}
    base = {key.removeprefix("model.diffusion_model."): tensor for key, tensor in load_file(path).items()}
    held_against(cut, base, {key: 1.0})


def test_what_cannot_be_merged_is_refused(tmp_path: Path) -> None:
    path = base_file(tmp_path)
    down, up = factors(BASE["conv_in.weight"])
    good = {"lora_unet_conv_in.lora_down.weight": down, "lora_unet_conv_in.lora_up.weight": up}
    for more, message in (
        ({"lora_unet_conv_in.dora_scale": random(1, 4, 1, 1)}, "magnitudes for the inputs"),
        ({"lora_unet_conv_in.lora_mid.weight": random(R, R, 3, 3)}, "does not fit it"),
        ({"lora_unet_conv_in.diff": random(R, R, 3, 3)}, "is no factor of an adapter"),
        ({"lora_unet_conv_in.lora_up.weight": random(R, 4, 1, 1)}, "do not fit"),
        (
            {"lora_unet_other.lora_down.weight": random(R, 4), "lora_unet_other.lora_up.weight": random(4, R)},
            "for 1 module that base.safetensors does not have: lora_unet_other",
        ),
    ):
        save_file({**good, **more}, tmp_path / "a.safetensors")
        with pytest.raises(CkptError, match=message):
            ckptool.plan_merge([path], lora=tmp_path / "a.safetensors").apply(tmp_path / "out.safetensors")
    save_file({"lora_unet_conv_in.lora_down.weight": down}, tmp_path / "a.safetensors")
    with pytest.raises(CkptError, match="no lora_up for lora_unet_conv_in"):
        ckptool.plan_merge([path], lora=tmp_path / "a.safetensors")
    save_file({key.replace("conv_in", "nowhere"): value for key, value in good.items()}, tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match="none of the modules"):
        ckptool.plan_merge([path], lora=tmp_path / "a.safetensors")
    save_file({"a.b.weight": random(4, 4), "a_b.weight": random(4, 4)}, tmp_path / "twins.safetensors")
    save_file(
        {"lora_x_a_b.lora_down.weight": random(R, 4), "lora_x_a_b.lora_up.weight": random(4, R)},
        tmp_path / "a.safetensors",
    )
    with pytest.raises(UsageError, match=r"can mean a\.b and a_b"):
        ckptool.plan_merge([tmp_path / "twins.safetensors"], lora=tmp_path / "a.safetensors")


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_names_are_resolved_against_the_base(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any names: each module of the base is met by its flattened name, behind any prefix of the adapter."""
    folder = tmp_path_factory.mktemp("k")
    part = st.sampled_from(["a", "b_c", "block", "0", "1", "attn_1", "to_q", "proj"])
    names = data.draw(
        st.lists(st.lists(part, min_size=1, max_size=4).map(".".join), min_size=1, max_size=6, unique=True)
    )
    flats = [name.replace(".", "_") for name in names]
    if len(set(flats)) < len(flats):
        return
    base = {f"{name}.weight": random(3 + number, 4) for number, name in enumerate(names)}
    save_file(base, folder / "base.safetensors")
    prefix = data.draw(st.sampled_from(["lora_unet_", "lora_te1_", "lora_"]))
    adapter: State = {}
    for name, flat in zip(names, flats, strict=True):
        out = base[f"{name}.weight"].shape[0]
        adapter[f"{prefix}{flat}.lora_down.weight"], adapter[f"{prefix}{flat}.lora_up.weight"] = (
            random(R, 4),
            random(out, R),
        )
    save_file(adapter, folder / "a.safetensors")
    found = merged(folder / "base.safetensors", folder / "a.safetensors")
    for key, tensor in base.items():
        delta = random(tensor.shape[0], R).double() @ random(R, 4).double()
        assert torch.allclose(found[key], (tensor.double() + delta).float(), atol=1e-6)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (("lora_controlnet", "q.up", "q.down"), "ControlLoRA"),
        (("lora_unet_q.weight", "lora_unet_q.on_input"), "(IA)3"),
        (("lora_unet_q.diff", "lora_unet_q.diff_b"), "whole differences"),
        (("lora_unet_q.hada_w1_a", "lora_unet_q.hada_w1_b"), "LoHa"),
        (("lora_unet_q.lokr_w1", "lora_unet_q.lokr_w2"), "LoKr"),
        (("lora_unet_q.oft_blocks",), "OFT"),
    ],
)
def test_other_kinds_of_adapters_are_named(keys: tuple[str, ...], told: str, tmp_path: Path) -> None:
    base, adapter = tmp_path / "base.safetensors", tmp_path / "adapter.safetensors"
    save_file({"q.weight": torch.ones(4, 4)}, base)
    save_file({key: torch.ones(4, 4) for key in keys}, adapter)
    with pytest.raises(CkptError) as error:
        plan_adapter(ckptool.open(base), ckptool.open(adapter))
    assert told in error.value.message
    assert error.value.hint
