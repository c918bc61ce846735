from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from ckptool.commands.diff.explaining import explain_pair
from ckptool.core.checkpoint import Checkpoint, Extra, Note
from ckptool.core.format import Format
from ckptool.core.spec import TensorSpec
from ckptool.core.tensor import Tensor
from ckptool.facts.headers import amount
from ckptool.facts.storages import ties
from ckptool.facts.words import notes_of as explain
from ckptool.formats.opening import open_checkpoint


def saved(tmp_path: Path, content: object, name: str = "a.pth") -> Checkpoint:
    torch.save(content, tmp_path / name)
    return open_checkpoint(tmp_path / name)


def plain(keys: Iterable[str] | Mapping[str, tuple[int, ...]], name: str = "a.safetensors", **facts: Any) -> Checkpoint:
    """A checkpoint that has keys and shapes only."""
    shapes = keys if isinstance(keys, Mapping) else dict.fromkeys(keys, (4,))
    tensors = {key: Tensor(TensorSpec(key, "float32", shape)) for key, shape in shapes.items()}
    return Checkpoint(Path(name), Format("safetensors"), tensors, **facts)


def only(notes: tuple[Note, ...]) -> Note:
    assert len(notes) == 1, [note.text for note in notes]
    return notes[0]


def mixed_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))


def without_counters(state: Mapping[str, torch.Tensor]) -> OrderedDict[str, torch.Tensor]:
    return OrderedDict((key, value) for key, value in state.items() if not key.endswith("num_batches_tracked"))


# ---------------------------------------------------------------------------------------------- one checkpoint


@pytest.mark.parametrize(
    "name", ["resnet18", "vit_b_16", "mobilenet_v3_small", "swin_t", "densenet121", "mnasnet0_5", "vgg11"]
)
def test_nothing_to_say_about_plain_torchvision_models(tmp_path: Path, torchvision: ModuleType, name: str) -> None:
    with torch.device("meta"):
        state = torchvision.models.get_model(name).state_dict()
    # one small storage for all values: only the keys, shapes and dtypes matter here
    tiny = plain({key: tuple(value.shape) for key, value in state.items()})
    assert all("(torchvision names)" in note.text for note in explain(tiny))


def test_nothing_to_say_about_a_plain_file(tmp_path: Path) -> None:
    assert explain(saved(tmp_path, mixed_net().state_dict())) == ()
    assert explain(saved(tmp_path, nn.Transformer(16, 2, 4, 4, 16, batch_first=True).state_dict())) == ()


def test_absent_counters_are_harmless_without_versions(tmp_path: Path) -> None:
    state = without_counters(mixed_net().state_dict())
    note = only(explain(saved(tmp_path, state)))
    assert note.text.startswith("BatchNorm counters (num_batches_tracked) are absent: written before torch 0.4.1")
    assert note.hint.startswith("harmless")
    assert note.keys == ("1.num_batches_tracked", "4.num_batches_tracked")
    mixed_net().load_state_dict(state)  # it is


def test_absent_counters_that_the_versions_promise(tmp_path: Path) -> None:
    whole = mixed_net().state_dict()
    state = without_counters(whole)
    state._metadata = whole._metadata  # type: ignore[attr-defined]
    note = only(explain(saved(tmp_path, state)))
    assert note.level == "warning"
    assert "a strict load fails with 2 missing keys" in note.hint
    with pytest.raises(RuntimeError, match="num_batches_tracked"):
        mixed_net().load_state_dict(torch.load(tmp_path / "a.pth"))


def test_wrappers_are_named(tmp_path: Path) -> None:
    parallel = saved(tmp_path, nn.DataParallel(mixed_net()).state_dict())
    note = only(explain(parallel))
    assert note.text == 'every key starts with "module.", the mark of DataParallel or DistributedDataParallel'
    assert note.hint == f"remove it: ckptool remap {tmp_path / 'a.pth'} -r strip-wrappers -o PLAIN"
    inside = plain(["_orig_mod.a._checkpoint_wrapped_module.w", "_orig_mod.b.w"])
    assert [note.text for note in explain(inside)] == [
        'every key starts with "_orig_mod.", the mark of torch.compile',
        '1 key with "_checkpoint_wrapped_module." inside, the mark of activation checkpointing',
    ]
    assert explain(plain(["se_module.w", "a.module.w"])) == ()


def test_averaged_model(tmp_path: Path) -> None:
    note = only(explain(saved(tmp_path, torch.optim.swa_utils.AveragedModel(nn.Linear(2, 2)).state_dict())))
    assert "AveragedModel" in note.text


def test_lightning_and_its_attribute(tmp_path: Path) -> None:
    state = {f"model.{key}": value for key, value in mixed_net().state_dict().items()}
    content = {"pytorch-lightning_version": "2.1.0", "epoch": 3, "state_dict": state, "hyper_parameters": {"lr": 0.1}}
    note = only(explain(saved(tmp_path, content)))
    assert (
        note.text
        == 'it is a Lightning checkpoint; every key starts with "model.", the attribute that holds the network'
    )
    assert "-r 'model. ->'" in note.hint


def test_share_of_the_optimizer(tmp_path: Path) -> None:
    model = nn.Linear(512, 512)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(512)).sum().backward()
    optimizer.step()
    opened = saved(tmp_path, {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    note = only(explain(opened))
    assert note.text == "67 % of the file is optimizer state (2.1 MB), needed to go on training only"
    assert "--only-weights" in note.hint
    assert explain(plain(["w"], extras=(Extra("optimizer", "", 1, 10),))) == ()


def test_ties_share_exactly(tmp_path: Path) -> None:
    base = torch.arange(24.0)
    view = base[:12]
    content = {
        "a": base,
        "b": view.view(3, 4),
        "c": view.view(3, 4),
        "d": base,
        "e": base.clone(),
        "f": view.view(4, 3),
    }
    content |= {"empty1": torch.zeros(0), "empty2": torch.zeros(0)}
    opened = saved(tmp_path, content)
    assert ties(opened) == (("a", "d"), ("b", "c"))
    note = only(explain(opened))
    assert note.text == "5 tensors overlap in memory without being the same: a, b, c, d"
    halves = saved(tmp_path, {"a": base[:12], "b": base[12:], "c": base[::2][:6], "d": base[12:]})
    assert ties(halves) == (("b", "d"),)
    assert set(only(explain(halves)).keys) == {"a", "b", "c", "d"}
    assert explain(saved(tmp_path, {"a": base[:12], "b": base[12:]})) == ()
    tied = nn.Linear(4, 4)
    model = nn.ModuleDict({"x": tied, "y": tied})
    assert ties(saved(tmp_path, model.state_dict())) == (("x.weight", "y.weight"), ("x.bias", "y.bias"))


def test_a_small_view_of_a_large_storage(tmp_path: Path) -> None:
    note = only(explain(saved(tmp_path, {"w": torch.zeros(1_000_000)[:250]})))
    assert note.text == "w is a view of 1.0 kB that keeps a storage of 4.0 MB in the file"
    assert note.level == "warning"


def test_one_layer_of_another_dtype(tmp_path: Path) -> None:
    state = {f"layers.{n}.w": torch.zeros(2, dtype=torch.float32 if n == 3 else torch.bfloat16) for n in range(8)}
    state["norm"] = torch.zeros(2)
    note = only(explain(saved(tmp_path, state)))
    assert note.text == "layers.*.w has different dtypes in different layers: 7 bf16, 1 f32"


def test_meta_tensors_and_nothing(tmp_path: Path) -> None:
    note = only(explain(saved(tmp_path, {"w": torch.zeros(3, device="meta")})))
    assert note.text == "1 tensor on the meta device: shapes without values"
    assert only(explain(plain([]))).text == "there are no tensors in it"


def test_weight_norm_old_and_new(tmp_path: Path) -> None:
    note = only(explain(saved(tmp_path, nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)).state_dict())))
    assert "weight_norm as a parametrization" in note.text
    assert "weight_norm" in only(explain(plain(["a.weight_g", "a.weight_v"]))).text
    pruned = prune.random_unstructured(nn.Linear(4, 4), "weight", 0.5)
    assert "pruning masks" in only(explain(saved(tmp_path, pruned.state_dict()))).text


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (
            ["features.denselayer1.norm.1.weight"],
            "1 key with DenseNet's old names, norm.1 for norm1: written before torch 0.4",
        ),
        (
            ["a.LayerNorm.gamma", "a.LayerNorm.beta"],
            "1 norm with TensorFlow's names gamma and beta for weight and bias",
        ),
        (
            ["m.q.lora_A.default.weight", "m.q.lora_B.default.weight"],
            "LoRA adapters of rank 4 for 1 layer, without the weights they adapt",
        ),
    ],
)
def test_what_made_the_names(keys: list[str], text: str) -> None:
    assert only(explain(plain(keys))).text == text


def test_a_layer_scale_called_gamma_is_nothing_special() -> None:
    assert explain(plain(["blocks.0.ls1.gamma", "blocks.0.ls1.beta", "stages.0.gamma"])) == ()


def transformer(layers: Iterable[int], module: str = "model.layers") -> list[str]:
    parts = ["attn.q", "attn.k", "attn.v", "mlp.up", "mlp.down"]
    return [f"{module}.{n}.{part}.weight" for n in layers for part in parts]


def test_missing_layers() -> None:
    assert explain(plain(transformer(range(12)))) == ()
    assert explain(plain(transformer(range(1, 13)))) == ()  # counted from 1
    note = only(explain(plain(transformer([*range(7), *range(9, 16)]))))
    assert (note.text, note.level) == ("model.layers.{7,8} are missing from a numbered sequence", "warning")
    note = only(explain(plain(transformer(range(16, 32)))))
    assert note.text == "model.layers.{0-15} are missing from a numbered sequence"
    assert explain(plain([f"layers.{n}.{last}" for n in range(0, 12, 2) for last in ("weight", "bias")])) == ()


def test_mixture_of_experts() -> None:
    keys = [f"layers.{n}.experts.{e}.w{w}.weight" for n in range(4) for e in range(8) for w in (1, 2, 3)]
    assert only(explain(plain(keys))).text == "a mixture of experts: 4 layers of 8"
    notes = explain(plain([key for key in keys if ".2.experts.5." not in key]))
    assert notes[0].text == "1 expert is missing: layers.2.experts.5"


def test_script_programs(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning) if torch.__version__ >= "2.9" else pytest.warns(None):  # type: ignore[call-overload]
        torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "a.pt")
    assert "TorchScript" in only(explain(open_checkpoint(tmp_path / "a.pt"))).text


def test_a_hundred_thousand_keys_are_judged_fast() -> None:
    keys = [f"model.layers.{n}.experts.{e}.w{w}.weight" for n in range(50) for e in range(667) for w in (1, 2, 3)]
    opened = plain(keys)
    start = time.perf_counter()
    explain(opened)
    ties(opened)
    assert time.perf_counter() - start < 5  # 0.5 s on an idle machine


# ---------------------------------------------------------------------------------------------- two checkpoints


def pair(old: Checkpoint, new: Checkpoint, prefixes: tuple[str, str] = ("", "")) -> tuple[Note, ...]:
    old_only = [key for key in old if key not in new]
    return explain_pair(old_only, [key for key in new if key not in old], old, new, prefixes)


def test_the_first_question_of_our_user(tmp_path: Path, torchvision: ModuleType) -> None:
    state = torchvision.models.resnet18().state_dict()
    new = saved(tmp_path, state, "model.pth")
    old = saved(tmp_path, without_counters(state), "resnet18-5c106cde.pth")
    assert (len(old), len(new)) == (102, 122)
    note = only(pair(old, new))
    assert note.text == "20 keys only in model.pth: all BatchNorm counters (num_batches_tracked)"
    assert note.hint == (
        "harmless: torch 0.4.1 and newer write them, evaluation does not use them, and loading "
        "resnet18-5c106cde.pth fills in zeros"
    )
    assert note.keys == tuple(key for key in new if key.endswith("num_batches_tracked"))
    torchvision.models.resnet18().load_state_dict(torch.load(old.path))  # strictly
    assert only(pair(new, old)).text == note.text


def test_counters_that_the_other_file_must_have(tmp_path: Path) -> None:
    whole = mixed_net().state_dict()
    state = without_counters(whole)
    state._metadata = whole._metadata  # type: ignore[attr-defined]
    note = only(pair(saved(tmp_path, state, "old.pth"), saved(tmp_path, whole, "new.pth")))
    assert note.level == "warning"
    assert "a strict load of old.pth fails with 2 missing keys" in note.hint


def test_counters_among_other_keys() -> None:
    new = plain(["bn.weight", "bn.num_batches_tracked", "fc.weight"], "new")
    text = "1 of the 2 keys only in new: BatchNorm counters (num_batches_tracked)"
    assert pair(plain(["bn.weight"], "old"), new)[0].text == text


def test_another_number_of_classes() -> None:
    body = {"conv.weight": (64, 3, 7, 7), "bn.weight": (64,)}
    old = plain(body | {"fc.weight": (1000, 512), "fc.bias": (1000,)}, "old")
    new = plain(body | {"fc.weight": (10, 512), "fc.bias": (10,)}, "new")
    note = only(pair(old, new))
    assert note.text == "only the classifier (fc) differs in shape: 1,000 against 10 classes"
    assert note.keys == ("fc.weight", "fc.bias")
    wrapped = plain({f"module.{key}": tensor.shape for key, tensor in new.items()}, "wrapped")
    assert note.text in [found.text for found in pair(old, wrapped, ("", "module."))]


def test_another_vocabulary() -> None:
    old = plain({"embed_tokens.weight": (32000, 64), "lm_head.weight": (32000, 64), "norm": (64,)}, "old")
    new = plain({"embed_tokens.weight": (32016, 64), "lm_head.weight": (32016, 64), "norm": (64,)}, "new")
    text = "only the vocabulary (embed_tokens, lm_head) differs in shape: 32,000 against 32,016 tokens"
    assert only(pair(old, new)).text == text


def test_another_resolution_and_other_channels() -> None:
    old = plain({"pos_embed": (1, 197, 768), "proj.weight": (768, 3, 16, 16)}, "old")
    assert only(pair(old, plain({"pos_embed": (1, 577, 768), "proj.weight": (768, 3, 16, 16)}, "new"))).text == (
        "pos_embed is for another input size: 14 x 14 patches against 24 x 24 patches"
    )
    note = only(pair(old, plain({"pos_embed": (1, 197, 768), "proj.weight": (768, 1, 16, 16)}, "new")))
    assert note.text == "proj.weight has another number of input channels: 3 against 1"
    table = "layers.0.attn.relative_position_bias_table"
    note = only(pair(plain({table: (169, 3)}, "old"), plain({table: (529, 3)}, "new")))
    assert note.text == f"{table} is for another input size: windows of 7 x 7 against windows of 12 x 12"


def test_keys_behind_a_prefix() -> None:
    old = plain(["backbone.a.w", "backbone.b.w", "head.w"], "old")
    note = pair(old, plain(["a.w", "b.w", "head.w"], "new"))[0]
    assert note.text == 'the keys of old are those of new behind the prefix "backbone."'
    assert note.hint == "remove it: ckptool remap old -r 'backbone. ->' -o PLAIN"


def test_other_spellings() -> None:
    notes = pair(plain(["x", "l.0.attn.qkv.weight"], "a"), plain(["x", "l.0.attn.q.weight", "l.0.attn.k.weight"], "b"))
    assert notes[0].text == "query, key and value are one tensor in a (l.0.attn.qkv.weight), three in b"
    notes = pair(plain(["x", "n.gamma", "n.beta"], "a"), plain(["x", "n.weight", "n.bias"], "b"))
    assert notes[0].text == "1 norm with gamma and beta in a, weight and bias in the other"
    notes = pair(plain(["x", "e.position_ids"], "a"), plain(["x"], "b"))
    assert notes[0].text == "1 key only in a is computed, not learned: position_ids"
    assert pair(plain(["x"], "a"), plain(["y"], "b"))[0].text.startswith("no key is in both")
    assert pair(plain(["x"], "a"), plain(["x"], "b")) == ()


def test_amounts() -> None:
    assert [amount(n) for n in (0, 999, 1000, 999_600, 4_000_000_000)] == ["0 B", "999 B", "1.0 kB", "1.0 MB", "4.0 GB"]
