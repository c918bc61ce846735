"""Two checkpoints -> Diff, on files that torch and safetensors wrote."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

import ckptool
from ckptool.commands.diff.comparison import compare, parse_tolerance
from ckptool.commands.diff.objects import tensor_pairs
from ckptool.commands.diff.result import Diff, Status
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import UnreadableError, UsageError
from ckptool.core.keys import Pattern
from ckptool.core.spec import DTYPES
from ckptool.formats.opening import open_checkpoint
from ckptool.formats.pickle.objects import Call, Dict, Global
from ckptool.report.diff_rows import diff_rows
from ckptool.report.recipe import diff_recipe
from ckptool.values import comparing as values
from ckptool.values.delta import Tolerance

State = dict[str, Any]


def weights(seed: int = 0) -> State:
    """A small net with a conv, a BatchNorm and a head; no two tensors alike but the fresh BatchNorm."""
    torch.manual_seed(seed)
    net = torch.nn.Sequential(
        OrderedDict(conv=torch.nn.Conv2d(3, 8, 3), bn=torch.nn.BatchNorm2d(8), fc=torch.nn.Linear(8, 4))
    )
    return net.state_dict()


def opened(path: Path, what: Any) -> Checkpoint:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(dict(what), path)
    else:
        torch.save(what, path, _use_new_zipfile_serialization=path.suffix != ".legacy")
    return open_checkpoint(path)


def diff(tmp_path: Path, old: Any, new: Any, suffix: str = ".pth", **options: Any) -> Diff:
    return compare(opened(tmp_path / f"old{suffix}", old), opened(tmp_path / f"new{suffix}", new), **options)


def statuses(found: Diff) -> dict[str, str]:
    return {change.key: str(change.status) for change in found.changes if change.status is not Status.SAME}


def only_change(found: Diff) -> Any:
    (change,) = [change for change in found.changes if change.status is not Status.SAME]
    return change


# ------------------------------------------------------------------------------------------------- same


@pytest.mark.parametrize("old", [".pth", ".legacy", ".safetensors"])
@pytest.mark.parametrize("new", [".pth", ".legacy", ".safetensors"])
def test_equal_weights_are_identical_in_any_two_formats(tmp_path: Path, old: str, new: str) -> None:
    state = weights()
    found = compare(opened(tmp_path / f"a{old}", state), opened(tmp_path / f"b{new}", state))
    assert found.is_same and found.exit_code == 0 and found.count(Status.SAME) == len(state)
    assert found.compared_nbytes == sum(t.nbytes for t in state.values())
    assert [change.key for change in found.changes] == list(open_checkpoint(tmp_path / f"b{new}"))


def test_shards_against_one_file(tmp_path: Path) -> None:
    state = weights()
    folder = tmp_path / "shards"
    folder.mkdir()
    names = list(state)
    for number, keys in enumerate((names[:3], names[3:]), start=1):
        shard = folder / f"model-{number:05}-of-00002.safetensors"
        safetensors.torch.save_file({key: state[key] for key in keys}, shard)
    old = open_checkpoint(folder)
    assert compare(old, opened(tmp_path / "one.pth", state)).is_same
    state["fc.bias"] += 1
    assert statuses(compare(old, opened(tmp_path / "two.pth", state))) == {"fc.bias": "changed"}


def test_a_file_against_itself_is_not_read(tmp_path: Path) -> None:
    old = opened(tmp_path / "a.pth", weights())
    (tmp_path / "link.pth").symlink_to("a.pth")
    new = open_checkpoint(tmp_path / "link.pth")
    calls: list[tuple[int, int]] = []
    assert compare(old, new, progress=lambda done, total: calls.append((done, total))).is_same
    assert not calls


def test_layouts_do_not_matter(tmp_path: Path) -> None:
    """Transposed, expanded, tied, conjugated: the numbers decide."""
    base = torch.randn(6, 4)
    z = torch.randn(5, dtype=torch.complex64)
    old = {"t": base.t(), "e": base[:1].expand(3, 4), "a": base, "b": base, "c": z.conj()}
    new = {key: value.resolve_conj().clone().contiguous() for key, value in old.items()}
    assert diff(tmp_path, old, new).is_same
    new["t"] = new["t"].clone()
    new["t"][1, 2] += 1
    change = only_change(diff(tmp_path, old, new))
    assert change.key == "t" and change.delta.differing == 1


def test_equal_files_need_no_numpy(tmp_path: Path) -> None:
    opened(tmp_path / "a.pth", weights())
    opened(tmp_path / "b.safetensors", weights())
    code = (
        "import sys; from ckptool.formats.opening import open_checkpoint\n"
        "from ckptool.commands.diff.comparison import compare\n"
        "assert compare(*map(open_checkpoint, sys.argv[1:])).is_same\n"
        "assert not {'numpy', 'torch', 'ml_dtypes'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.pth", tmp_path / "b.safetensors"], check=True)


# ------------------------------------------------------------------------------------------------- values


def test_numbers_are_those_of_torch_in_float64(tmp_path: Path) -> None:
    old, new = weights(0), weights(1)
    new["bn.num_batches_tracked"] = torch.tensor(4690)
    found = diff(tmp_path, old, new)
    changed = {change.key: change.delta for change in found.changes if change.status is Status.CHANGED}
    assert set(changed) == {"conv.weight", "conv.bias", "fc.weight", "fc.bias", "bn.num_batches_tracked"}
    for key in ("conv.weight", "fc.bias"):
        a, b = old[key].double().flatten(), new[key].double().flatten()
        delta = changed[key]
        assert delta is not None and delta.cosine is not None
        assert delta.rel == pytest.approx(float((b - a).norm() / a.norm()), rel=1e-6)
        assert delta.max_abs == pytest.approx(float((b - a).abs().max()), rel=1e-6)
        assert delta.cosine == pytest.approx(float(torch.nn.functional.cosine_similarity(a, b, dim=0)), abs=1e-6)
        assert delta.differing == int((a != b).sum())
    counter = changed["bn.num_batches_tracked"]
    assert counter is not None and (counter.rel, counter.old_range, counter.new_range) == (
        math.inf,
        (0, 0),
        (4690, 4690),
    )


SAVED = [
    name
    for name, dtype in DTYPES.items()
    if dtype.kind in ("float", "int", "uint", "complex")
    and hasattr(torch, name)
    and getattr(torch, name).itemsize * 8 == dtype.bits
    and not re.fullmatch("u?int[1-7]", name)
]


@pytest.mark.parametrize("dtype", SAVED)
def test_one_changed_element_of_any_dtype_is_found(tmp_path: Path, dtype: str) -> None:
    """Far into a tensor that is longer than a block."""
    kind = getattr(torch, dtype)
    size = max(1, kind.itemsize)
    raw = torch.full((70_000 * size,), 1, dtype=torch.uint8)
    other = raw.clone()
    other[66_000 * size] = 3
    found = diff(tmp_path, {"w": raw.view(kind)}, {"w": other.view(kind)})
    delta = only_change(found).delta
    assert delta.differing == 1 and delta.max_abs > 0 and delta.rel > 0


def test_chunks_add_up_and_threads_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    a = torch.randn(400_000).bfloat16()
    b = a.clone()
    b[300_000:] = (b[300_000:].float() * 1.01 + 0.01).bfloat16()
    whole = only_change(diff(tmp_path, {"w": a}, {"w": b})).delta
    monkeypatch.setattr(values, "_CHUNK", 1 << 16)
    old, new = open_checkpoint(tmp_path / "old.pth"), open_checkpoint(tmp_path / "new.pth")
    deltas = []
    for threads in (1, 2, 5):
        calls: list[tuple[int, int]] = []
        found = compare(old, new, threads=threads, progress=lambda *numbers, calls=calls: calls.append(numbers))
        deltas.append(only_change(found).delta)
        assert calls[-1] == (800_000, 800_000) and calls == sorted(calls)
    assert deltas[0] == deltas[1] == deltas[2]
    assert deltas[0].rel == pytest.approx(whole.rel, rel=1e-9) and deltas[0].differing == whole.differing


def test_tied_tensors_are_compared_once(tmp_path: Path) -> None:
    old_base, new_base = torch.randn(1000), torch.randn(1000)
    calls: list[int] = []
    found = diff(
        tmp_path,
        {"a": old_base, "b": old_base},
        {"a": new_base, "b": new_base},
        progress=lambda done, total: calls.append(total),
    )
    assert statuses(found) == {"a": "changed", "b": "changed"} and set(calls) == {4000}
    assert found.changes[0].delta == found.changes[1].delta


def test_an_endless_expanded_view_is_compared_at_once(tmp_path: Path) -> None:
    old = {"w": torch.tensor([[1.0, 2.0]]).expand(2**40, 2)}
    new = {"w": torch.tensor([[1.0, 4.0]]).expand(2**40, 2)}
    delta = only_change(diff(tmp_path, old, new)).delta
    assert delta.differing == 2**40 and delta.max_abs == 2.0
    assert diff(tmp_path, old, old).is_same


def test_a_sign_of_zero_is_a_change_without_distance(tmp_path: Path) -> None:
    delta = only_change(diff(tmp_path, {"w": torch.zeros(3)}, {"w": -torch.zeros(3)})).delta
    assert (delta.rel, delta.max_abs, delta.differing) == (0.0, 0.0, 3)


def test_sparse_and_quantized_are_compared_by_bytes(tmp_path: Path) -> None:
    dense = torch.tensor([[0.0, 2.0], [3.0, 0.0]])
    assert diff(tmp_path, {"w": dense.to_sparse()}, {"w": dense.to_sparse()}).is_same
    change = only_change(diff(tmp_path, {"w": dense.to_sparse()}, {"w": (dense * 2).to_sparse()}))
    assert change.status is Status.CHANGED and change.delta is None


@pytest.mark.filterwarnings("ignore")
def test_a_quantized_tensor_of_another_scale_is_changed(tmp_path: Path) -> None:
    old = torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)
    new = torch.quantize_per_tensor(torch.ones(4) * 2, 0.2, 0, torch.qint8)
    assert torch.equal(old.int_repr(), new.int_repr())
    assert diff(tmp_path, {"w": old}, {"w": old.clone()}).is_same
    assert statuses(diff(tmp_path, {"w": old}, {"w": new})) == {"w": "changed"}
    scales = [
        torch.quantize_per_channel(
            torch.ones(2, 2) * s, torch.tensor([0.1, 0.1]) * s, torch.zeros(2).long(), 0, torch.qint8
        )
        for s in (1, 2)
    ]
    assert diff(tmp_path, {"w": scales[0]}, {"w": scales[0].clone()}).is_same
    assert statuses(diff(tmp_path, {"w": scales[0]}, {"w": scales[1]})) == {"w": "changed"}


def test_a_file_cut_short_meanwhile_is_an_error(tmp_path: Path) -> None:
    old, new = opened(tmp_path / "a.safetensors", weights(0)), opened(tmp_path / "b.safetensors", weights(0))
    os.truncate(tmp_path / "b.safetensors", (tmp_path / "b.safetensors").stat().st_size - 100)
    with pytest.raises(UnreadableError, match="changed after it was opened"):
        compare(old, new)


# ------------------------------------------------------------------------------------------------- headers


def test_added_removed_reshaped_cast_in_the_order_of_the_new_file(tmp_path: Path) -> None:
    old = {"a": torch.ones(2), "gone": torch.arange(3.0), "b": torch.ones(2, 2), "c": torch.tensor([1.0, 1.001])}
    new = {"c": old["c"].bfloat16(), "b": torch.ones(4), "fresh": torch.arange(7.0), "a": torch.ones(2)}
    found = diff(tmp_path, old, new)
    assert [(change.key, str(change.status)) for change in found.changes] == [
        ("c", "cast"),
        ("b", "reshaped"),
        ("fresh", "added"),
        ("a", "same"),
        ("gone", "removed"),
    ]
    cast = found.changes[0]
    assert cast.delta is not None and 0 < cast.delta.rel < 2e-3 and cast.delta.differing == 1
    assert found.exit_code == 1 and found.count(Status.SAME) == 1


def test_a_cast_that_loses_nothing_says_so(tmp_path: Path) -> None:
    old = {"w": torch.randn(100).bfloat16()}
    delta = only_change(diff(tmp_path, old, {"w": old["w"].float()})).delta
    assert (delta.rel, delta.differing) == (0.0, 0)


def test_keys_only_reads_no_tensor(tmp_path: Path) -> None:
    old, new = opened(tmp_path / "a.safetensors", weights(0)), opened(tmp_path / "b.safetensors", weights(1))
    for name in ("a", "b"):
        os.truncate(tmp_path / f"{name}.safetensors", 1500)
    found = compare(old, new, keys_only=True)
    assert found.is_same and found.keys_only and found.compared_nbytes == 0


@pytest.mark.parametrize(
    ("old", "new", "prefixes"),
    [
        ("", "module.", ("", "module.")),
        ("module._orig_mod.", "", ("module._orig_mod.", "")),
        ("module.", "_orig_mod.", ("module.", "_orig_mod.")),
        ("module.", "module.", ("", "")),
        ("", "model.", ("", "model.")),
        ("module.model.", "", ("module.model.", "")),
        ("model.net.", "model.", ("model.net.", "model.")),
        ("backbone.", "encoder.", ("backbone.", "encoder.")),
    ],
)
def test_prefixes_are_seen_through(tmp_path: Path, old: str, new: str, prefixes: tuple[str, str]) -> None:
    state = weights()
    found = diff(tmp_path, {old + k: v for k, v in state.items()}, {new + k: v for k, v in state.items()})
    assert (found.old_prefix, found.new_prefix) == prefixes and found.is_same
    assert [change.key for change in found.changes] == [new[len(prefixes[1]) :] + key for key in state]
    assert all(c.old and c.new and c.old.key == prefixes[0] + c.key for c in found.changes)


@pytest.mark.parametrize(("old", "new"), [("", "backbone."), ("module.", "backbone."), ("base.", ""), ("a.b.", "c.")])
def test_prefixes_of_most_keys_are_seen_through(tmp_path: Path, old: str, new: str) -> None:
    """A network in a model with a head of its own, on either side."""
    state = {k: v for k, v in weights().items() if not k.startswith("fc.")}
    heads: list[State] = [{"fc.bias": torch.ones(4)}, {"neck.bias": torch.ones(8), "head.weight": torch.ones(3, 8)}]
    files = [{put + k: v for k, v in state.items()} | head for put, head in zip((old, new), heads, strict=True)]
    files[1][f"{new}conv.bias"] = files[1][f"{new}conv.bias"] + 1
    found = diff(tmp_path, *files)
    assert (found.old_prefix, found.new_prefix) == (old, new)
    keys = {c.key: c.status.value for c in found.changes}
    assert keys.pop("conv.bias") == "changed"
    assert {keys.pop(key) for key in heads[0]} == {"removed"}
    assert {keys.pop(key) for key in heads[1]} == {"added"}
    assert set(keys) | {"conv.bias"} == set(state) and set(keys.values()) == {"same"}
    stored = next(key for key in files[1] if key.endswith("conv.weight"))
    assert [c.key for c in diff(tmp_path, *files, only=[stored]).changes] == ["conv.weight"]
    (tmp_path / "r.toml").write_text("".join(diff_recipe(found, "old.pth", "new.pth")))
    plan = ckptool.plan_remap(tmp_path / "old.pth", str(tmp_path / "r.toml"))
    assert {step.target.key for step in plan.steps} == set(files[1]) - set(heads[1])
    twice = diff(tmp_path, {**files[0], "conv.weight": torch.ones(1)}, files[1])  # no key is there twice
    assert len({c.key for c in twice.changes}) == len(twice.changes)


def test_only_takes_shown_and_stored_keys(tmp_path: Path) -> None:
    old, new = weights(0), weights(1)
    wrapped = {f"module.{key}": value for key, value in new.items()}
    for pattern in ("fc", "fc.*", "module.fc.*", "module.fc"):
        found = diff(tmp_path, {**old}, wrapped, only=[pattern])
        assert [change.key for change in found.changes] == ["fc.weight", "fc.bias"], pattern
    with pytest.raises(UsageError, match='--only "classifier" matches none'):
        diff(tmp_path, old, new, only=["classifier"])
    training = {"epoch": 1, "state_dict": old}
    assert diff(tmp_path, training, {"epoch": 2, "state_dict": old}, only=["fc"]).is_same
    assert Pattern.parse("fc").matches("fc.weight")


# ------------------------------------------------------------------------------------------------- renames


def test_renames_by_spec_and_bytes(tmp_path: Path) -> None:
    state = weights()
    new = {key.replace("conv.", "stem.0."): value for key, value in state.items()}
    found = diff(tmp_path, dict(state), new)
    renamed = {c.key: c.old.key for c in found.changes if c.status is Status.RENAMED and c.old}
    assert renamed == {"stem.0.weight": "conv.weight", "stem.0.bias": "conv.bias"}
    assert statuses(found) == {"stem.0.weight": "renamed", "stem.0.bias": "renamed"}


def test_constant_tensors_move_with_their_neighbours_only(tmp_path: Path) -> None:
    torch.manual_seed(0)
    old, new = {}, {}
    for block in (1, 2, 3):
        old |= {
            f"layer{block}.w": torch.randn(4, 4),
            f"layer{block}.b": torch.zeros(4),
            f"layer{block}.n": torch.tensor(0),
        }
        new |= {f"stages.{block}.{key}": old[f"layer{block}.{key}"].clone() for key in "wbn"}
    old["lonely"], new["unrelated"] = torch.ones(7), torch.ones(7)
    found = diff(tmp_path, old, new)
    renamed = {c.key: c.old.key for c in found.changes if c.status is Status.RENAMED and c.old}
    assert renamed == {f"stages.{block}.{key}": f"layer{block}.{key}" for block in (1, 2, 3) for key in "wbn"}
    assert found.count(Status.ADDED) == found.count(Status.REMOVED) == 1


def test_copies_are_told_apart_by_their_last_name_or_not_at_all(tmp_path: Path) -> None:
    one = torch.arange(5.0)
    old = {"same": torch.ones(1), "a.query": one, "c.key": one.clone()}
    new = {"b.key": one.clone(), "d.query": one.clone(), "same": torch.ones(1)}
    renamed = [change for change in diff(tmp_path, old, new).changes if change.status is Status.RENAMED]
    assert {c.key: c.old.key for c in renamed if c.old} == {"b.key": "c.key", "d.query": "a.query"}
    found = diff(tmp_path, {"p.x": one, "q.x": one.clone()}, {"r.x": one.clone(), "s.x": one.clone()})
    assert found.count(Status.RENAMED) == 0 and found.count(Status.ADDED) == 2


def test_equal_starts_are_not_equal_tensors(tmp_path: Path) -> None:
    a = torch.randn(50_000)
    b = a.clone()
    b[-1] += 1
    found = diff(tmp_path, {"old": a}, {"new": b})
    assert statuses(found) == {"old": "removed", "new": "added"}


# ------------------------------------------------------------------------------------------------- tolerance


def test_tolerance_counts_as_same_and_keeps_the_numbers(tmp_path: Path) -> None:
    a = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    near, far = {"w": a * (1 + 1e-5), "n": torch.tensor(1)}, {"w": a, "n": torch.tensor(1)}
    for tolerance, same in [
        (Tolerance(rel=1e-4), True),
        (Tolerance(rel=1e-6), False),
        (Tolerance(abs=1e-3), True),
        (Tolerance(rel=1e-4, abs=1e-9), False),
        (Tolerance(ulp=200), True),
        (Tolerance(ulp=2), False),
    ]:
        found = diff(tmp_path, far, near, tolerance=tolerance)
        assert found.is_same == same and found.changes[0].delta is not None and found.tolerance == tolerance


def test_nan_must_be_where_it_was(tmp_path: Path) -> None:
    a, b = torch.ones(4), torch.ones(4)
    b[2] = math.nan
    assert statuses(diff(tmp_path, {"w": a}, {"w": b}, tolerance=Tolerance(rel=1, abs=1))) == {"w": "changed"}
    a[2], a[0] = math.nan, 1.0001
    assert diff(tmp_path, {"w": a}, {"w": b}, tolerance=Tolerance(rel=1e-3)).is_same


def test_parse_tolerance() -> None:
    assert parse_tolerance("abs=1e-6, ulp=3") == Tolerance(abs=1e-6, ulp=3)
    assert parse_tolerance("rel=1", parse_tolerance("rel=2,ulp=1")) == Tolerance(rel=1.0, ulp=1)
    for text in ("", "rel", "rel=", "rel=-1", "ulp=1.5", "eps=1", "abs=nan", "abs=inf", "rel=1;abs=2"):
        with pytest.raises(UsageError, match="is not a tolerance"):
            parse_tolerance(text)


# ------------------------------------------------------------------------------------------------- the rest


def training(epoch: int = 3, lr: float = 0.1, momentum: float = 0.0) -> State:
    state = weights()
    parameters = [torch.nn.Parameter(state["conv.weight"]), torch.nn.Parameter(state["fc.weight"])]
    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=0.9)
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 0.5 + momentum)
    optimizer.step()
    return {"epoch": epoch, "state_dict": weights(), "optimizer": optimizer.state_dict(), "best": float("nan")}


def test_what_is_not_tensors_is_compared_by_value(tmp_path: Path) -> None:
    assert diff(tmp_path, training(), training()).is_same
    found = diff(tmp_path, training(), training(epoch=4))
    assert [(x.name, x.old, x.new, str(x.status)) for x in found.extras] == [("epoch", "3", "4", "changed")]
    assert found.exit_code == 1 and found.count(Status.SAME) == len(found.changes)
    for other in (training(lr=0.2), training(momentum=0.1)):
        (extra,) = diff(tmp_path, training(), other).extras
        assert extra.name == "optimizer" and extra.old != extra.new


def test_extras_on_one_side(tmp_path: Path) -> None:
    found = diff(tmp_path, training(), weights())
    assert [(x.name, str(x.status)) for x in found.extras] == [
        ("epoch", "removed"),
        ("optimizer", "removed"),
        ("best", "removed"),
    ]
    old, new = opened(tmp_path / "t.pth", training()), opened(tmp_path / "w.safetensors", weights())
    assert {x.name for x in compare(old, new).extras} == {"epoch", "optimizer", "best"}
    assert all(x.status is Status.ADDED for x in compare(new, old).extras)


def test_the_order_of_a_dict_is_no_difference(tmp_path: Path) -> None:
    a = {"state_dict": weights(), "args": {"lr": 1, "wd": [1, (2, None)], 3: True}}
    b = {"state_dict": weights(), "args": {3: True, "wd": [1, (2, None)], "lr": 1}}
    assert diff(tmp_path, a, b).is_same
    b["args"][3] = 1
    assert [x.name for x in diff(tmp_path, a, b).extras] == ["args"]


def test_metadata_of_safetensors(tmp_path: Path) -> None:
    paths = []
    for name, metadata in (("a", {"format": "pt", "step": "1"}), ("b", {"format": "pt", "step": "2", "by": "me"})):
        paths.append(tmp_path / f"{name}.safetensors")
        safetensors.torch.save_file(dict(weights()), paths[-1], metadata=metadata)
    a, b = map(open_checkpoint, paths)
    found = {x.name: (x.old, x.new) for x in compare(a, b).extras}
    assert found == {"metadata.step": ("1", "2"), "metadata.by": (None, "me")}
    against_torch = compare(a, opened(tmp_path / "c.pth", weights()))
    assert against_torch.is_same and any("has metadata: step" in note.text for note in against_torch.notes)


def test_module_versions(tmp_path: Path) -> None:
    old, new = weights(), weights()
    new._metadata["bn"]["version"] = 1  # type: ignore[attr-defined]
    (extra,) = diff(tmp_path, old, new).extras
    assert (extra.name, extra.old, extra.new) == ("module versions", "bn: 2", "bn: 1")
    plain = diff(tmp_path, old, dict(old))
    assert plain.is_same and any("records module versions" in note.text for note in plain.notes)
    parallel = torch.nn.Module()
    parallel.module = torch.nn.Sequential(OrderedDict(conv=torch.nn.Conv2d(3, 8, 3)))
    inner = parallel.module.state_dict()
    assert diff(tmp_path, inner, parallel.state_dict()).is_same


# ------------------------------------------------------------------------------------------------- inert objects


def doubled(times: int) -> object:
    """2^times paths through `times` lists."""
    node: object = [1]
    for _ in range(times):
        node = [node, node]
    return node


def test_shared_cyclic_and_deep_objects() -> None:
    assert tensor_pairs(doubled(200), doubled(200), {}, {}) == []
    assert tensor_pairs(doubled(200), doubled(201), {}, {}) is None
    deep_a, deep_b = 1, 1
    for _ in range(200_000):
        deep_a, deep_b = [deep_a], [deep_b]  # type: ignore[assignment]
    assert tensor_pairs(deep_a, deep_b, {}, {}) == []
    one, two = Dict(), Dict()
    one.items.append(("self", one))
    two.items.append(("self", Dict([("self", two)])))
    assert tensor_pairs(one, two, {}, {}) == []  # no path tells them apart
    two.items[0][1].items.append(("more", 1))  # type: ignore[attr-defined]
    assert tensor_pairs(one, two, {}, {}) is None


def test_objects_differ_in_what_a_path_can_tell() -> None:
    def call(name: str = "f", state: object = None) -> Call:
        made = Call("reduce", Global("m", name), (1, "x"))
        made.states = [state]
        return made

    assert tensor_pairs(call(), call(), {}, {}) == []
    for other in (call("g"), call(state=0), Call("newobj", Global("m", "f"), (1, "x")), Global("m", "f"), "f", None):
        assert tensor_pairs(call(), other, {}, {}) is None
    assert tensor_pairs(math.nan, math.nan, {}, {}) == []
    for a, b in [(0.0, -0.0), (1, True), ("a", b"a"), ([1], (1,)), ("x" * 100, "x" * 99 + "y"), (2**70, 2**70 + 1)]:
        assert tensor_pairs(a, b, {}, {}) is None and tensor_pairs([a], [a], {}, {}) == []


def solved(side: str, shape: tuple[int, ...], letters: dict[str, int]) -> bool:
    """True if a shape is the one that ``[2a,b,3,3]`` says; takes the letters in."""
    names = side.partition("[")[2].rstrip("]").split(",")
    for name, length in zip(names, shape, strict=True):
        factor, letter = re.fullmatch(r"(\d*)([a-z]?)", name).groups()  # type: ignore[union-attr]
        if not letter:
            if int(factor) != length:
                return False
        elif letters.setdefault(letter, length // int(factor or 1)) * int(factor or 1) != length:
            return False
    return True


@given(data=st.data())
def test_changes_of_one_kind_are_one_row(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every tensor stands in exactly one row, whose letters have a solution for its shapes."""
    shapes = st.tuples(*[st.sampled_from([1, 2, 3, 4, 6, 17])] * 2)
    factors = st.sampled_from([(1, 1), (1, 2), (2, 1), (3, 2)])
    old, new = {}, {}
    for layer in range(data.draw(st.integers(1, 20))):
        shape, ratios = data.draw(shapes), data.draw(st.tuples(factors, factors))
        old[f"layer{layer}.weight"] = torch.zeros([n * a for n, (a, _) in zip(shape, ratios, strict=True)])
        rank = data.draw(st.sampled_from([2, 2, 2, 1]))
        new[f"layer{layer}.weight"] = torch.zeros([n * b for n, (_, b) in zip(shape, ratios, strict=True)][:rank])
    folder = tmp_path_factory.mktemp("diff")
    found = diff(folder, old, new, ".safetensors", keys_only=True)
    rows = diff_rows(found)
    assert sorted(change.key for row in rows for change in row.changes) == sorted(old)
    reshaped = [row for row in rows if row.status is Status.RESHAPED]
    assert len({row.what for row in reshaped}) == len(reshaped) or len(reshaped) <= 6
    for row in reshaped:
        before, _, after = row.what.partition(" → ")
        assert before.count(",") == after.count(",") or not re.search(r"[\[,]\d*[a-z]", row.what)
        for change in row.changes:
            letters: dict[str, int] = {}
            assert solved(before, change.old.spec.shape, letters), (row.what, change)  # type: ignore[union-attr]
            assert solved(after, change.new.spec.shape, letters), (row.what, change)  # type: ignore[union-attr]


def test_a_wide_model_against_a_narrow_one_is_a_few_rows(tmp_path: Path) -> None:
    def net(width: int, classes: int) -> State:
        net = OrderedDict(stem=torch.nn.Conv2d(3, width, 7, bias=False))
        for name in "abcdefghi":  # no list: a row each without being joined
            net[f"conv_{name}"] = torch.nn.Conv2d(width, width, 3, bias=False)
            net[f"norm_{name}"] = torch.nn.BatchNorm2d(width)
        net["fc"] = torch.nn.Linear(width, classes)
        return torch.nn.Sequential(net).state_dict()

    rows = diff_rows(diff(tmp_path, net(4, 10), net(8, 10)))
    assert [(row.what, len(row.changes)) for row in rows if row.status is Status.RESHAPED] == [
        ("f32[4,3,7,7] → f32[8,3,7,7]", 1),
        ("f32[4,4,3,3] → f32[8,8,3,3]", 9),
        ("f32[4] → f32[8]", 36),
        ("f32[10,4] → f32[10,8]", 1),
    ]
