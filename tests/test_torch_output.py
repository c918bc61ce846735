"""torch -> torch: whatever is not selected weights survives, and so do strides, sharing and classes of the weights."""

from __future__ import annotations

import argparse
import collections
import datetime
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ckptool.commands.filter import plan_filter
from ckptool.core.errors import OutputError, PlanError, UnsafeError
from ckptool.core.plan import Plan, Source, Step
from ckptool.formats.opening import open_checkpoint
from tests.deep_equal import assert_equal, bits, sharing
from tests.writing import apply

CLEAR = [False, True]


class Tagged(torch.Tensor):
    """A subclass that somebody wrote, with attributes."""


class Table(dict):  # type: ignore[type-arg]
    """A dict of one's own, with an attribute."""


@dataclass
class Settings:
    """A class that ckptool has never heard of."""

    depth: int
    table: dict[str, int]


class Nested:
    class Inner:
        def __init__(self, value: int) -> None:
            self.value = value

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Nested.Inner) and other.value == self.value

        __hash__ = None  # type: ignore[assignment]


class Runs:
    """Calls somebody's function when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        import os

        return os.system, ("touch /tmp/never",)


@pytest.fixture(params=["zip", "legacy"])
def legacy(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "legacy")


def filtered(
    folder: Path, value: Any, *choices: tuple[str, str], legacy: bool = False, protocol: int = 2, **options: Any
) -> Path:
    """Save, filter, and give the path of the output."""
    source, target = folder / "in.pth", folder / "out.pth"
    torch.save(value, source, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    keep_unknown = options.pop("keep_unknown", False)
    select = options.pop("select", None)
    plan = plan_filter(open_checkpoint(source, select), choices, **options)
    apply(replace(plan, keep_unknown=keep_unknown), target, force=True)
    return target


def load(path: Path, **options: Any) -> Any:
    return torch.load(path, **{"weights_only": False, **options})


def same_through(folder: Path, value: Any, **options: Any) -> Any:
    """Filter without a pattern: torch.load gives the same before and after."""
    target = filtered(folder, value, **options)
    before, after = load(folder / "in.pth"), load(target)
    assert_equal(before, after)
    assert sharing(before) == sharing(after)
    for loading in ({"weights_only": True}, {"weights_only": False, "mmap": True}):
        try:
            expected = load(folder / "in.pth", **loading)
        except (pickle.UnpicklingError, RuntimeError):
            continue  # torch itself does not load the input this way
        assert_equal(expected, load(target, **loading))
    return after


def pickle_of(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))


def small_model() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))


def trained(optimizer: type[torch.optim.Optimizer], **settings: Any) -> dict[str, Any]:
    """A model, its optimizer after two steps, a scheduler."""
    model = small_model()
    optim = optimizer(model.parameters(), lr=0.1, **settings)
    schedule = torch.optim.lr_scheduler.StepLR(optim, 2)
    for _ in range(2):
        optim.zero_grad()
        model(torch.randn(2, 3, 8, 8)).sum().backward()
        optim.step()
        schedule.step()
    return {
        "epoch": 2,
        "state_dict": model.state_dict(),
        "optimizer": optim.state_dict(),
        "lr_scheduler": schedule.state_dict(),
    }


# --- no pattern: everything is as it was


def test_resnet_keeps_its_very_pickle(tmp_path: Path, torchvision: ModuleType) -> None:
    target = filtered(tmp_path, torchvision.models.resnet18().state_dict())
    assert pickle_of(target) == pickle_of(tmp_path / "in.pth")


def test_training_checkpoint_keeps_its_very_pickle(tmp_path: Path) -> None:
    target = filtered(tmp_path, trained(torch.optim.Adam))
    assert pickle_of(target) == pickle_of(tmp_path / "in.pth")


@pytest.mark.parametrize(
    ("optimizer", "settings"), [(torch.optim.SGD, {"momentum": 0.9}), (torch.optim.AdamW, {"amsgrad": True})]
)
def test_training_checkpoints(
    tmp_path: Path, legacy: bool, optimizer: type[torch.optim.Optimizer], settings: dict[str, Any]
) -> None:
    same_through(tmp_path, trained(optimizer, **settings), legacy=legacy)


def test_harmless_objects(tmp_path: Path, legacy: bool) -> None:
    extras = {
        "args": argparse.Namespace(lr=0.1, layers=[1, 2], nested=argparse.Namespace(a=None)),
        "best": np.float32(0.5),
        "accuracy": np.float64(71.25),
        "history": np.arange(6.0).reshape(2, 3),
        "by_class": collections.defaultdict(list, {3: [1]}),
        "counts": collections.Counter("abca"),
        "last": collections.deque([1, 2, 3], maxlen=3),
        "names": {"a", "b"},
        "frozen": frozenset({1, 2}),
        "raw": b"\x00\xff",
        "array": bytearray(b"abc"),
        "z": 1 + 2j,
        "when": datetime.datetime(2020, 2, 29, 12, tzinfo=datetime.UTC),
        "took": datetime.timedelta(seconds=5),
        "where": PurePosixPath("a/b"),
        "ordered": collections.OrderedDict([("b", 1), ("a", 2)]),
        "shape": torch.Size([2, 3]),
        "dtype": torch.bfloat16,
        "device": torch.device("cpu"),
        "big": 2**100,
        "nan": float("nan"),
        "empty": [(), [], {}, "", None, True],
        1: "int key",
        (1, "a"): "tuple key",
    }
    same_through(tmp_path, {"state_dict": small_model().state_dict(), **extras}, legacy=legacy)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_every_pickle_protocol(tmp_path: Path) -> None:
    value = {"state_dict": small_model().state_dict(), "names": {"a"}, "raw": b"x", "array": bytearray(b"y" * 70_000)}
    for protocol in (2, 3, 4, 5):
        same_through(tmp_path, value, protocol=protocol)


def test_lightning_like(tmp_path: Path, legacy: bool) -> None:
    state = trained(torch.optim.Adam)
    value = {
        "epoch": 3,
        "global_step": 99,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": collections.OrderedDict((f"model.{key}", t) for key, t in state["state_dict"].items()),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 3}}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [state["optimizer"]],
        "lr_schedulers": [state["lr_scheduler"]],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1},
    }
    same_through(tmp_path, value, legacy=legacy)


def test_average_beside_raw_weights(tmp_path: Path, legacy: bool) -> None:
    model = small_model()
    average = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    same_through(tmp_path, {"model": model.state_dict(), "model_ema": average, "epoch": 1}, legacy=legacy)


def test_tensors_beside_that_share_storages_with_weights(tmp_path: Path, legacy: bool) -> None:
    weight = torch.randn(6, 4)
    value = {
        "state_dict": {"a": weight, "b": weight[2:4], "t": weight.t()},
        "best": {"a": weight},
        "rows": weight[1:3],
        "other": torch.randn(3),
    }
    after = same_through(tmp_path, value, legacy=legacy)
    assert after["rows"].data_ptr() == after["state_dict"]["a"][1:].data_ptr()


def test_layouts_of_dense_tensors(tmp_path: Path, legacy: bool) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    value = {
        "base": base,
        "transposed": torch.randn(3, 5).t(),
        "view": base[1:3, 2:4],
        "expanded": torch.randn(1, 3).expand(4, 3),
        "steps": torch.randn(10)[::2],
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 7),
        "empty_view": base[:0],
        "tied": base,
        "channels_last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "conj": torch.randn(4, dtype=torch.complex64).conj(),
        "neg": torch.randn(4, dtype=torch.complex64).conj().imag,
    }
    after = same_through(tmp_path, value, legacy=legacy)
    for key, tensor in value.items():
        assert after[key].stride() == tensor.stride(), key
    assert after["tied"] is after["base"]


def test_thin_view_of_a_wide_range_is_packed(tmp_path: Path, legacy: bool) -> None:
    wide = torch.randn(1000, 50)
    target = filtered(tmp_path, {"column": wide[:, 3], "few": wide[10:20, :4], "rest": torch.ones(2)}, legacy=legacy)
    after = load(target)
    assert torch.equal(after["column"], wide[:, 3])
    assert torch.equal(after["few"], wide[10:20, :4])
    assert after["column"].untyped_storage().nbytes() == 4000
    assert after["few"].untyped_storage().nbytes() == 160


DTYPES = [
    *("float64", "float32", "float16", "bfloat16", "complex64", "complex128", "bool"),
    *("int8", "int16", "int32", "int64", "uint8"),
]
UNTYPED = [  # torch.save writes them into legacy files, and torch.load cannot read those
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "complex32"),
    *("uint16", "uint32", "uint64"),
]


@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_every_dtype(tmp_path: Path, legacy: bool) -> None:
    noise = torch.randint(0, 2, (2, 3, 16), dtype=torch.uint8)
    names = DTYPES if legacy else [*DTYPES, *UNTYPED]
    value = {name: noise.clone().view(getattr(torch, name)) for name in names}
    same_through(tmp_path, value, legacy=legacy)


@pytest.mark.filterwarnings("ignore:Sparse")
def test_special_layouts(tmp_path: Path, legacy: bool) -> None:
    dense = torch.eye(4)
    value = {
        "dense": torch.ones(2),
        "coo": dense.to_sparse(),
        "csr": dense.to_sparse_csr(),
        "meta": torch.empty(3, device="meta"),
    }
    same_through(tmp_path, value, legacy=legacy)


@pytest.mark.filterwarnings("ignore:.*")
def test_quantized(tmp_path: Path, legacy: bool) -> None:
    scales, zeros = torch.tensor([0.1, 0.2], dtype=torch.float64), torch.tensor([1, 2])
    value = {
        "dense": torch.ones(2),
        "whole": torch.quantize_per_tensor(torch.randn(3, 4), 0.1, 3, torch.quint8),
        "channels": torch.quantize_per_channel(torch.randn(2, 4), scales, zeros, 0, torch.qint8),
    }
    same_through(tmp_path, value, legacy=legacy)


def test_parameters_and_their_attributes(tmp_path: Path, legacy: bool) -> None:
    model = small_model()
    frozen = nn.Parameter(torch.randn(3), requires_grad=False)
    tagged = nn.Parameter(torch.randn(2, 2))
    tagged.role = "head"  # type: ignore[attr-defined]
    tagged.twin = torch.arange(5)  # type: ignore[attr-defined]
    value = {**dict(model.named_parameters()), "frozen": frozen, "tagged": tagged, "buffer": torch.ones(1)}
    same_through(tmp_path, value, legacy=legacy)


def test_parameter_that_views_and_keeps_a_tensor_as_attribute(tmp_path: Path) -> None:
    base = torch.randn(100)
    part = nn.Parameter(base[10:20])
    part.whole = base  # type: ignore[attr-defined]
    after = same_through(tmp_path, {"part": part, "small": torch.randn(50)[40:]})
    assert after["part"].whole[10:].data_ptr() == after["part"].data_ptr()
    assert after["small"].untyped_storage().nbytes() == 40


def test_empty_parameter_and_expanded_parameter_stay_parameters(tmp_path: Path, legacy: bool) -> None:
    value = {
        "empty": nn.Parameter(torch.zeros(0, 3)),
        "empty_view": nn.Parameter(torch.randn(5)[:0]),
        "thin": nn.Parameter(torch.randn(100, 10)[:, 2]),
    }
    after = same_through(tmp_path, value, legacy=legacy)
    assert after["empty_view"].untyped_storage().nbytes() == 0
    assert after["thin"].is_contiguous()


def test_nested_dicts_and_lists(tmp_path: Path, legacy: bool) -> None:
    value = {
        "generator": small_model().state_dict(),
        "discriminator": nn.Linear(2, 2).state_dict(),
        "blocks": [torch.ones(2), {"w": torch.zeros(3)}],
        "pair": (torch.ones(1), torch.ones(1)),
        "optimizer": trained(torch.optim.Adam)["optimizer"],
        "step": 4,
    }
    same_through(tmp_path, value, legacy=legacy)


@pytest.mark.parametrize("value", [torch.randn(3), [torch.ones(2), torch.zeros(1)], (torch.ones(1), 5)])
def test_files_that_are_no_dict(tmp_path: Path, legacy: bool, value: Any) -> None:
    same_through(tmp_path, value, legacy=legacy)


def test_dict_with_other_entries_keeps_their_places(tmp_path: Path, legacy: bool) -> None:
    first = collections.OrderedDict(
        [("epoch", 3), ("a", torch.ones(1)), ("note", "x"), ("b", torch.ones(2)), ("end", 1)]
    )
    after = same_through(tmp_path, first, legacy=legacy)
    assert list(after) == ["epoch", "a", "note", "b", "end"]
    after = load(filtered(tmp_path, first, ("drop", "a"), legacy=legacy))
    assert list(after) == ["epoch", "note", "b", "end"]


def test_dicts_of_other_classes(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(1), "b": torch.zeros(2)}
    same_through(tmp_path, collections.defaultdict(int, tensors))
    table = Table(tensors)
    table.note = "mine"  # type: ignore[attr-defined]
    after = same_through(tmp_path, {"state_dict": table, "epoch": 1}, keep_unknown=True)
    assert after["state_dict"].note == "mine"
    after = load(filtered(tmp_path, {"state_dict": table}, ("drop", "a"), keep_unknown=True))
    assert list(after["state_dict"]) == ["b"]
    assert after["state_dict"].note == "mine"


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_storages_on_their_own(tmp_path: Path, legacy: bool) -> None:
    weight = torch.arange(6.0)
    value = {"state_dict": {"w": weight, "part": weight[2:4]}, "typed": weight.storage()}
    if not legacy:  # torch.load cannot read those
        value["raw"] = torch.arange(3, dtype=torch.uint8).untyped_storage()
    after = same_through(tmp_path, value, legacy=legacy)
    assert after["typed"].data_ptr() == after["state_dict"]["w"].data_ptr()


def test_big_endian_archive(tmp_path: Path) -> None:
    value = {"w": torch.randn(3, 4), "n": torch.arange(5), "p": nn.Parameter(torch.randn(2)), "z": torch.randn(2) + 0j}
    tied = {**value, "again": value["w"], "epoch": 3}
    torch.save(tied, tmp_path / "little.pth")
    with zipfile.ZipFile(tmp_path / "little.pth") as old, zipfile.ZipFile(tmp_path / "big.pth", "w") as new:
        sizes = iter([4, 8, 4, 4])  # by storage; the parts of a complex number are swapped one by one
        for name in old.namelist():
            data = old.read(name)
            if "/data/" in name:
                data = np.frombuffer(data, f"u{next(sizes)}").byteswap().tobytes()
            new.writestr(name, b"big" if name.endswith("byteorder") else data)
    assert_equal(load(tmp_path / "big.pth"), load(tmp_path / "little.pth"))
    apply(plan_filter(open_checkpoint(tmp_path / "big.pth")), tmp_path / "out.pth")
    after = load(tmp_path / "out.pth")
    assert_equal(load(tmp_path / "little.pth"), after)
    assert after["again"].data_ptr() == after["w"].data_ptr()


def test_same_input_same_bytes(tmp_path: Path, legacy: bool) -> None:
    value = trained(torch.optim.Adam)
    first = filtered(tmp_path, value, ("drop", "4.*"), legacy=legacy).read_bytes()
    second = filtered(tmp_path, value, ("drop", "4.*"), legacy=legacy).read_bytes()
    assert first == second


def test_every_record_has_its_checksum_and_place(tmp_path: Path, legacy: bool) -> None:
    target = filtered(tmp_path, trained(torch.optim.Adam), ("drop", "1.*"), legacy=legacy)
    with zipfile.ZipFile(target) as archive:
        assert archive.testzip() is None
    for tensor in open_checkpoint(target).tensors.values():
        assert tensor.pieces[0].storage.offset % 64 == 0


# --- patterns: what is dropped is gone, the rest is as it was


def test_dropped_tensors_and_their_module_versions(tmp_path: Path, legacy: bool) -> None:
    value = trained(torch.optim.SGD)
    after = load(filtered(tmp_path, value, ("drop", "1.*"), legacy=legacy))
    kept = {key: tensor for key, tensor in value["state_dict"].items() if not key.startswith("1.")}
    assert list(after["state_dict"]) == list(kept)
    assert list(after["state_dict"]._metadata) == ["", "0", "2", "3", "4"]
    assert after["optimizer"]["param_groups"][0]["params"] == [0, 1, 4, 5]
    rest = {key: item for key, item in value.items() if key not in ("state_dict", "optimizer")}
    assert_equal(rest, {key: item for key, item in after.items() if key not in ("state_dict", "optimizer")})
    body = small_model()
    body[1] = nn.Identity()
    body.load_state_dict(after["state_dict"], strict=True)


def test_one_of_two_nested_dicts_is_dropped(tmp_path: Path, legacy: bool) -> None:
    value = {"generator": small_model().state_dict(), "discriminator": nn.Linear(2, 2).state_dict(), "step": 4}
    after = load(filtered(tmp_path, value, ("drop", "discriminator.*"), legacy=legacy))
    assert list(after) == ["generator", "step"]
    assert_equal(load(tmp_path / "in.pth")["generator"], after["generator"])


def test_nested_versions_follow(tmp_path: Path) -> None:
    value = {"generator": small_model().state_dict(), "discriminator": nn.Linear(2, 2).state_dict()}
    after = load(filtered(tmp_path, value, ("drop", "generator.1.*")))
    assert list(after["generator"]._metadata) == ["", "0", "2", "3", "4"]
    assert list(after["discriminator"]._metadata) == [""]


def test_tensors_of_a_list_go_together_or_not_at_all(tmp_path: Path) -> None:
    value = {"blocks": [torch.ones(2), torch.zeros(3)], "other": {"w": torch.ones(1)}, "end": torch.ones(4)}
    after = load(filtered(tmp_path, value, ("drop", "blocks.*")))
    assert list(after) == ["other", "end"]
    with pytest.raises(PlanError, match="is a list, of which"):
        filtered(tmp_path, value, ("drop", "blocks.0"))
    after = load(filtered(tmp_path, value, ("drop", "blocks.0"), only_weights=True))
    assert list(after) == ["blocks.1", "other.w", "end"]


def test_dropped_weights_that_stand_beside_too_stay_there(tmp_path: Path, legacy: bool) -> None:
    weight, bias = torch.randn(4), torch.randn(2)
    value = {"state_dict": {"w": weight, "b": bias}, "best": {"w": weight, "b": bias}}
    after = load(filtered(tmp_path, value, ("drop", "w"), select="state_dict", legacy=legacy))
    assert list(after["state_dict"]) == ["b"]
    assert_equal(load(tmp_path / "in.pth")["best"], after["best"])
    assert after["best"]["b"].data_ptr() == after["state_dict"]["b"].data_ptr()


def test_large_storage_is_trimmed_to_what_is_kept(tmp_path: Path, legacy: bool) -> None:
    flat = torch.randn(100_000)
    value = {"head": flat[:100], "body": flat[100:], "overlap": flat[50:150]}
    after = load(filtered(tmp_path, value, ("drop", "body"), legacy=legacy))
    assert after["head"].untyped_storage().nbytes() == 600
    assert after["overlap"].untyped_storage().data_ptr() == after["head"].untyped_storage().data_ptr()
    assert torch.equal(after["overlap"], flat[50:150])


def test_views_of_different_element_sizes_in_one_storage(tmp_path: Path) -> None:
    raw = torch.randint(0, 255, (64,), dtype=torch.uint8)
    floats, words = raw[1:64].view(torch.float8_e5m2), raw[2:64].view(torch.uint16)
    after = load(filtered(tmp_path, {"f": floats, "w": words}))
    assert bits(after["f"]) == bits(floats)
    assert bits(after["w"]) == bits(words)


def test_cast_leaves_integers_and_everything_beside(tmp_path: Path, legacy: bool) -> None:
    value = trained(torch.optim.Adam)
    after = load(filtered(tmp_path, value, dtype="bf16", legacy=legacy))
    for key, tensor in value["state_dict"].items():
        expected = tensor.bfloat16() if tensor.is_floating_point() else tensor
        assert_equal(expected, after["state_dict"][key], key)
    assert_equal(value["optimizer"], after["optimizer"])


def test_whole_module_becomes_its_state_dict(tmp_path: Path, legacy: bool) -> None:
    model = small_model()
    target = filtered(tmp_path, {"model": model, "epoch": 3}, legacy=legacy)
    after = load(target, weights_only=True)
    assert after["epoch"] == 3
    assert list(after["model"]) == list(model.state_dict())
    small_model().load_state_dict(after["model"], strict=True)
    (note,) = plan_filter(open_checkpoint(tmp_path / "in.pth")).notes
    assert note.text == "the module is written as its state_dict"
    bare = load(filtered(tmp_path, model, legacy=legacy), weights_only=True)
    assert list(bare) == list(model.state_dict())


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_torchscript_becomes_its_state_dict(tmp_path: Path) -> None:
    model = small_model()
    torch.jit.script(model).save(tmp_path / "in.pt")
    apply(plan_filter(open_checkpoint(tmp_path / "in.pt")), tmp_path / "out.pth")
    after = load(tmp_path / "out.pth", weights_only=True)
    small_model().load_state_dict(after, strict=True)
    assert all(torch.equal(after[key], tensor) for key, tensor in model.state_dict().items())


# --- classes that nobody knows, and payloads


def test_unknown_class_stops_the_write(tmp_path: Path, legacy: bool) -> None:
    value = {"state_dict": small_model().state_dict(), "settings": Settings(3, {"a": 1})}
    with pytest.raises(UnsafeError, match=r"1 unknown class: \S*test_torch_output\.Settings") as error:
        filtered(tmp_path, value, legacy=legacy)
    assert "--only-weights" in str(error.value.hint)
    assert "--keep-unknown" in str(error.value.hint)
    assert [path.name for path in tmp_path.iterdir()] == ["in.pth"]
    after = load(filtered(tmp_path, value, only_weights=True, legacy=legacy), weights_only=True)
    assert_equal(load(tmp_path / "in.pth")["state_dict"], after)
    same_through(tmp_path, value, keep_unknown=True, legacy=legacy)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_class_inside_a_class_survives(tmp_path: Path) -> None:
    value = {"state_dict": {"w": torch.ones(1)}, "inner": Nested.Inner(4), "array": bytearray(b"x")}
    same_through(tmp_path, value, keep_unknown=True, protocol=4)


def test_subclass_of_a_tensor(tmp_path: Path, legacy: bool) -> None:
    tagged = torch.randn(100)[10:20].as_subclass(Tagged)
    tagged.origin = "camera"  # type: ignore[attr-defined]
    tagged.scale = torch.arange(3)  # type: ignore[attr-defined]
    value = {"tagged": tagged, "plain": torch.ones(2)}
    with pytest.raises(UnsafeError, match="Tagged"):
        filtered(tmp_path, value, legacy=legacy)
    after = load(filtered(tmp_path, value, only_weights=True, legacy=legacy), weights_only=True)
    assert type(after["tagged"]) is torch.Tensor
    assert torch.equal(after["tagged"], tagged.as_subclass(torch.Tensor))
    after = same_through(tmp_path, value, keep_unknown=True, legacy=legacy)
    assert after["tagged"].untyped_storage().nbytes() == 40


@pytest.mark.parametrize("where", ["beside", "inside", "attribute"])
def test_payload_is_never_carried_on(tmp_path: Path, legacy: bool, where: str) -> None:
    weights: dict[str, Any] = {"w": torch.ones(2)}
    value: dict[str, Any] = {"state_dict": weights, "epoch": 3}
    if where == "beside":
        value["x"] = [{"y": Runs()}]
    elif where == "inside":
        weights["x"] = Runs()
    else:
        parameter = nn.Parameter(torch.ones(2))
        parameter.x = Runs()  # type: ignore[attr-defined]
        weights["p"] = parameter
    for keep_unknown in (False, True):
        with pytest.raises(UnsafeError, match=r"system"):
            filtered(tmp_path, value, keep_unknown=keep_unknown, legacy=legacy)
        assert not (tmp_path / "out.pth").exists()
    after = load(filtered(tmp_path, value, only_weights=True, legacy=legacy), weights_only=True)
    assert torch.equal(after["w"], weights["w"])


def test_pickle_that_does_more_than_its_objects_say_is_not_written_on(tmp_path: Path) -> None:
    source = tmp_path / "in.pth"
    torch.save({"state_dict": {"w": torch.ones(2)}, "epoch": 3}, source)
    hidden = b"cargparse\nNamespace\n)R0"  # a call whose result is thrown away
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(tmp_path / "odd.pth", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data[:2] + hidden + data[2:] if name.endswith("data.pkl") else data)
    assert load(tmp_path / "odd.pth")["epoch"] == 3
    plan = plan_filter(open_checkpoint(tmp_path / "odd.pth"))
    with pytest.raises(UnsafeError, match="no checkpoint needs"):
        apply(plan, tmp_path / "out.pth")
    apply(plan_filter(open_checkpoint(tmp_path / "odd.pth"), only_weights=True), tmp_path / "out.pth")
    assert list(load(tmp_path / "out.pth")) == ["w"]


# --- other sources


def test_torch_shards_become_one_file(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    model = small_model()
    parts = [dict(list(model.state_dict().items())[:4]), dict(list(model.state_dict().items())[4:])]
    parts[1]["sparse"] = torch.eye(3).to_sparse()
    parts[0]["view"] = torch.randn(100)[5:10]
    parts[0]["parameter"] = nn.Parameter(torch.randn(2))
    weight_map = {}
    for number, part in enumerate(parts, 1):
        name = f"pytorch_model-{number:05d}-of-00002.bin"
        torch.save(part, folder / name)
        weight_map |= dict.fromkeys(part, name)
    import json

    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    apply(plan_filter(open_checkpoint(folder)), tmp_path / "out.bin")
    after = load(tmp_path / "out.bin")
    assert list(after) == [*parts[0], *parts[1]]
    for key, tensor in {**parts[0], **parts[1]}.items():
        assert_equal(tensor, after[key], key)
    assert after["view"].untyped_storage().nbytes() == 20


def test_dtype_that_torch_has_not_is_refused(tmp_path: Path) -> None:
    import json

    header = {"w": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}}
    text = json.dumps(header).encode()
    (tmp_path / "in.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"abc")
    with pytest.raises(OutputError, match=r"torch has no dtype for 1 tensor"):
        apply(plan_filter(open_checkpoint(tmp_path / "in.safetensors")), tmp_path / "out.pth")


def test_computed_tensors_of_every_torch_dtype_load(tmp_path: Path) -> None:
    from ckptool.core.ops import Fill
    from ckptool.core.plan import Apply
    from ckptool.core.spec import TensorSpec

    torch.save({"w": torch.ones(1)}, tmp_path / "in.pth")
    source = open_checkpoint(tmp_path / "in.pth")
    names = [name for name in (*DTYPES, *UNTYPED) if not name.startswith("complex")]
    steps = [Step(TensorSpec(name, name, (2, 3)), Apply(Fill(1.0, name, (2, 3)), ()), "made") for name in names]
    plan = Plan((source,), (*steps, Step(source["w"].spec, Source(0, "w"), "kept")), frame=None)
    apply(plan, tmp_path / "out.pth")
    after = load(tmp_path / "out.pth", weights_only=True)
    for name in names:
        assert str(after[name].dtype) == f"torch.{name}"
        assert bits(after[name]) == bits(torch.ones(2, 3).to(getattr(torch, name))), name
