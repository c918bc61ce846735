"""What a torch file means: which tensors, which of them are the weights, what else there is."""

from __future__ import annotations

import argparse
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from test_torch_legacy import Pid, Rebuilt, pickled
from torch_oracle import assert_same, bytes_of, opened, read

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import UnreadableError, UsageError
from ckptool.core.tensor import Storage, Tensor
from ckptool.formats.pickle.loading import load
from ckptool.formats.pickle.objects import Call, Dict, Global, Persistent
from ckptool.formats.torch.storage import StorageRef, storage_id
from ckptool.formats.torch.tree import Tree, interpret
from ckptool.storage.local import Identity, LocalFile

LEGACY = {"_use_new_zipfile_serialization": False}


@pytest.fixture(params=["zip", "legacy"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> object:
    """A function that saves an object in either format and opens it."""

    def open_saved(value: object, select: str | None = None) -> Checkpoint:
        torch.save(value, tmp_path / "a.pt", **(LEGACY if request.param == "legacy" else {}))
        return opened(tmp_path / "a.pt", select)

    return open_saved


def state(**sizes: int) -> OrderedDict[str, torch.Tensor]:
    return OrderedDict((name.replace("_", "."), torch.arange(float(size)) + size) for name, size in sizes.items())


def test_parameters_subclasses_and_attributes(both) -> None:
    class Own(torch.Tensor):
        pass

    globals()["Own"] = Own
    Own.__qualname__ = "Own"
    tagged = torch.nn.Parameter(torch.arange(3.0))
    tagged.tag = {"inner": 1}
    own = torch.arange(4.0).as_subclass(Own)
    own.extra = "text"
    value = {
        "parameter": torch.nn.Parameter(torch.ones(2, 3), requires_grad=False),
        "tagged": tagged,
        "own": own,
        "buffer": torch.nn.Buffer(torch.ones(2)),
    }
    assert_same(both(value), value)


@pytest.mark.filterwarnings("ignore:Sparse (CSR|CSC|BSR|BSC|invariant)", "ignore:.*[Bb]eta state")
def test_sparse_tensors_are_listed_with_their_parts(both) -> None:
    dense = torch.tensor([[0.0, 1, 0, 0], [2, 0, 0, 0], [0, 0, 3, 0], [0, 0, 0, 4]])
    coo = dense.to_sparse()
    value = {
        "coo": coo,
        "csr": dense.to_sparse_csr(),
        "csc": dense.to_sparse_csc(),
        "bsr": dense.to_sparse_bsr((2, 2)),
        "bsc": dense.to_sparse_bsc((2, 2)),
    }
    found = both(value)
    assert {key: (tensor.layout, tensor.spec.short) for key, tensor in found.items()} == dict.fromkeys(
        value, ("sparse", "f32[4,4]")
    )
    assert [name for name, _ in found["coo"].parts] == ["indices", "values"]
    assert [name for name, _ in found["csr"].parts] == ["compressed_indices", "plain_indices", "values"]
    indices, values = (read(part) for _, part in found["coo"].parts)
    assert torch.equal(indices, coo.coalesce().indices())
    assert torch.equal(values, coo.coalesce().values())
    assert found["csr"].nbytes == (5 + 4) * 8 + 4 * 4


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_quantized_meta_and_nested(both) -> None:
    weight = torch.tensor([[1.0, -2], [3, 4]])
    value = {
        "per_tensor": torch.quantize_per_tensor(weight, 0.1, 3, torch.qint8),
        "per_channel": torch.quantize_per_channel(
            weight, torch.tensor([0.1, 0.2]), torch.tensor([0, 1]), 0, torch.quint8
        ),
        "meta": torch.empty(3, 4, device="meta", dtype=torch.bfloat16),
        "nested": torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(1, 3)]),
    }
    found = both(value)
    shown = {key: (tensor.layout, tensor.spec.short, tensor.nbytes) for key, tensor in found.items()}
    assert shown["per_tensor"] == ("quantized", "qi8[2,2]", 4)
    assert shown["per_channel"][:2] == ("quantized", "qu8[2,2]")
    assert shown["meta"] == ("meta", "bf16[3,4]", 0)
    assert shown["nested"][0] == "nested"
    assert [name for name, _ in found["nested"].parts] == ["values", "sizes", "strides", "storage_offsets"]
    piece = found["per_tensor"].pieces[0]
    raw = Path(piece.storage.file.path).read_bytes()[piece.storage.offset :][:4]
    assert raw == value["per_tensor"].int_repr().numpy().tobytes()


def test_a_subclass_made_of_tensors(both) -> None:
    from torch.testing._internal.two_tensor import TwoTensor

    found = both({"w": TwoTensor(torch.arange(6.0).reshape(2, 3), torch.ones(2, 3)), "b": torch.ones(1)})
    assert found["w"].spec.short == "f32[2,3]"
    assert [(name, bytes_of(read(part))) for name, part in found["w"].parts] == [
        ("a", bytes_of(torch.arange(6.0))),
        ("b", bytes_of(torch.ones(6))),
    ]


def test_tensors_of_other_devices(both) -> None:
    """XLA's tensors: rebuilt from a CPU tensor today, from a numpy array by older versions."""

    class Device:
        def __init__(self, function: object, data: object) -> None:
            self.reduced = function, (data, torch.float32, "cpu", False)

        def __reduce__(self) -> tuple[object, ...]:
            return self.reduced

    value = {
        "today": Device(torch._utils._rebuild_device_tensor_from_cpu_tensor, torch.arange(3.0)),
        "older": Device(torch._utils._rebuild_xla_tensor, np.arange(3.0, dtype="f4")),
        "cast": Device(torch._utils._rebuild_device_tensor_from_numpy, np.arange(3.0)),
    }
    found = both(value)
    assert_same(found, {"today": torch.arange(3.0), "older": torch.arange(3.0), "cast": torch.arange(3.0).double()})


@pytest.mark.parametrize("order", ["C", "F"])
def test_bfloat16_of_another_device_is_in_the_upper_halves_of_float32(both, order: str) -> None:
    values = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).bfloat16()

    class Device:
        def __reduce__(self) -> tuple[object, ...]:
            array = np.asarray(values.float().numpy(), order=order)
            return torch._utils._rebuild_device_tensor_from_numpy, (array, torch.bfloat16, "cpu", True)

    class Habana:
        def __reduce__(self) -> tuple[object, ...]:
            return torch._utils._rebuild_xla_tensor, (values, torch.bfloat16, "hpu:0", False)

    found = both({"w": Device(), "h": Habana(), "p": torch.nn.Parameter(values)})
    assert_same(found, {"w": values, "h": values, "p": values})


def test_training_checkpoint(both) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    value = {
        "epoch": 90,
        "state_dict": torch.nn.DataParallel(model).state_dict(),
        "optimizer": optimizer.state_dict(),
        "hyper_parameters": argparse.Namespace(lr=0.1, name="run", layers=[1, 2], opt=None, more={"a": 1}),
        "best_acc1": torch.tensor(69.5),
        "score": np.float64(0.75),
        "rng_state": torch.get_rng_state(),
        "callbacks": {"Checkpoint": {"best": 1.5}},
    }
    found = both(value)
    assert_same(found, value["state_dict"])
    assert found.selection.path == ("state_dict",)
    assert found.selection.others == ()
    assert found.selection.ema is None
    assert found.module_versions == {"": 1, "module": 1, "module.0": 1, "module.1": 2}
    texts = {extra.name: extra.text for extra in found.extras}
    assert texts == {
        "epoch": "90",
        "optimizer": "param_groups: 1, state: 4 entries",
        "hyper_parameters": "Namespace(lr=0.1, name=run, layers=[…], opt=None, …1 more)",
        "best_acc1": "f32[]",
        "score": "0.75",
        "rng_state": "u8[5056]",
        "callbacks": "{Checkpoint: {…}}",
    }
    by_name = {extra.name: extra for extra in found.extras}
    assert by_name["optimizer"].tensors == 12
    assert by_name["optimizer"].nbytes == 4 * 4 + 2 * 4 * (12 + 4 + 4 + 4)
    moment = optimizer.state_dict()["state"][0]["exp_avg"]
    assert bytes_of(read(found.other_tensors["optimizer.state.0.exp_avg"])) == bytes_of(moment)
    assert len(found.other_tensors) == 12 + 2


def chosen(found: Checkpoint) -> tuple[str, list[str], str | None]:
    return found.selection.name, list(found), found.selection.ema


def test_which_dict_holds_the_weights(both) -> None:
    a, b = state(w=2, b_c=3), state(w=2, b_c=3)
    module = torch.nn.Linear(2, 2)
    cases: list[tuple[object, tuple[str, list[str], str | None]]] = [
        (a, ("", ["w", "b.c"], None)),
        ({**a, "epoch": 3, "none": None}, ("", ["w", "b.c"], None)),
        ({"model": a, "ema": b}, ("model", ["w", "b.c"], "ema")),
        ({"model_ema": b, "model": a, "epoch": 1}, ("model", ["w", "b.c"], "model_ema")),
        ({"params_ema": a}, ("params_ema", ["w", "b.c"], None)),
        ({"params": a, "params_ema": b}, ("params", ["w", "b.c"], "params_ema")),
        ({"anything": a, "step": 3}, ("anything", ["w", "b.c"], None)),
        ({"anything": a, "best": torch.tensor(1.0)}, ("anything", ["w", "b.c"], None)),
        ({"model": {"state_dict": a, "args": 1}, "optimizer": {"x": b}}, ("model.state_dict", ["w", "b.c"], None)),
        ({"student": a, "teacher": b}, ("student", ["w", "b.c"], "teacher")),
        ({"model": module, "ema": module}, ("model", ["weight", "bias"], "ema")),
        ({"ema": {"decay": 0.9, "shadow_params": [*a.values()]}, "net": a}, ("net", ["w", "b.c"], "ema.shadow_params")),
        (
            {"generator": a, "discriminator": b},
            ("", ["generator.w", "generator.b.c", "discriminator.w", "discriminator.b.c"], None),
        ),
        ({"G": a, "D": b, "optimizer_G": {"x": b}}, ("", ["G.w", "G.b.c", "D.w", "D.b.c"], None)),
        ({"conv": {"w": a["w"]}, "scale": a["b.c"]}, ("", ["conv.w", "scale"], None)),
        ({"model": {"conv": {"w": a["w"]}, "fc": {"w": b["w"]}}, "epoch": 1}, ("model", ["conv.w", "fc.w"], None)),
        ([a, b], ("", ["0.w", "0.b.c", "1.w", "1.b.c"], None)),
        ([a["w"], b["w"]], ("", ["0", "1"], None)),
        ((a["w"], {"x": b["w"]}), ("", ["0", "1.x"], None)),
        (a["w"], ("", ["tensor"], None)),
        (module, ("", ["weight", "bias"], None)),
        (defaultdict(list, a), ("", ["w", "b.c"], None)),
        ({"state": {0: {"m": a["w"]}}, "param_groups": []}, ("state.0", ["m"], None)),
        ({"epoch": 3}, ("", [], None)),
        (3, ("", [], None)),
    ]
    for value, expected in cases:
        assert chosen(both(value)) == expected, value
        assert both(value).selection.why


def test_everything_is_said_aloud(both) -> None:
    found = both({"G": state(w=2), "D": state(w=2), "optimizer_G": {"x": torch.ones(3)}, "step": 5})
    assert found.selection.why == "no single dict of weights: every tensor, by its whole path"
    assert found.selection.others == ("G", "D")
    assert {extra.name: extra.text for extra in found.extras} == {"optimizer_G": "1 tensor", "step": "5"}
    assert list(found.other_tensors) == ["optimizer_G.x"]


def test_select(both) -> None:
    value = {"model": state(w=2), "ema": {"a.b": {"module": state(w=3)}}, "optimizer": {"x": torch.ones(3)}}
    assert both(value, "ema.a.b.module")["w"].shape == (3,)
    assert both(value, "ema.a.b.module").selection.path == ("ema", "a.b", "module")
    assert both(value, "optimizer")["x"].shape == (3,)
    assert list(both(value, "ema")) == ["a.b.module.w"]
    assert list(both(value, "")) == list(both(value, ".")) == ["model.w", "ema.a.b.module.w", "optimizer.x"]
    assert [extra.name for extra in both(value, "ema.a.b.module").extras] == ["model", "optimizer"]
    assert both(value, "ema.a.b.module").selection.why == "asked for"
    with pytest.raises(UsageError, match="no tensors under nothing") as caught:
        both(value, "nothing")
    assert caught.value.hint == "--select takes one of: model, ema.a.b.module"


def test_names_stay_apart(both) -> None:
    one, two = torch.ones(1), torch.ones(2)
    assert list(both({"a": {"b": one, "c": one}, "a.b": two, "x": two})) == ["a.b", "a.c", '["a.b"]', "x"]
    assert list(both({1: one, "1": two, (0, 1): one, None: two, b"k": one, 2.5: one})) == [
        *("1", '["1"]', "(0, 1)", "None", "k", "2.5"),
    ]
    assert list(both({((), 1): one, ((), 2): two, ((), 3): one})) == ["<tuple>", "[<tuple>]", "[<tuple>]#2"]
    assert list(both({True: one, "True": two})) == ["True", '["True"]']


def test_same_objects_under_two_keys(both) -> None:
    shared = state(w=2)
    found = both({"state_dict": shared, "model": shared, "epoch": 1})
    assert chosen(found) == ("state_dict", ["w"], None)
    assert [extra.name for extra in found.extras] == ["model", "epoch"]
    tied = torch.ones(3)
    both_keys = both({"a": tied, "b": tied})
    assert both_keys["a"].storage == both_keys["b"].storage
    loop: dict[str, object] = {"w": tied}
    loop["self"] = [loop]
    assert list(both(loop)) == ["w"]


def test_a_bare_storage_is_not_a_tensor(both) -> None:
    tensor = torch.arange(4.0)
    found = both({"storage": torch.arange(8, dtype=torch.uint8).untyped_storage(), "w": tensor})
    assert list(found) == ["w"]
    assert [(extra.name, extra.text) for extra in found.extras] == [("storage", "storage")]


def read_pickle(data: bytes) -> Tree:
    """Interpret a pickle whose storages lie in a file of a gigabyte."""

    def storage_of(node: Persistent, key: str) -> StorageRef:
        name, dtype, nbytes = storage_id(node.pid, key)
        return StorageRef(Storage(LocalFile(Path(name), Identity(0, 0, 1 << 30, 0, 0)), 0, nbytes), dtype)

    return interpret(load(data).value, storage_of, nbytes=len(data))


def test_sharing_that_unfolds_without_bound() -> None:
    """Forty dicts that each hold the next one twice: a thousand billion paths."""
    value: object = {"w": Rebuilt(Pid("storage", torch.FloatStorage, "0", "cpu", 6), 0, (6,), (1,))}
    for _ in range(40):
        value = {"a": value, "b": value}
    with pytest.raises(UnreadableError, match="share their parts"):
        read_pickle(pickled(value))


def test_many_objects_share_one_long_argument() -> None:
    """Each object's own walk of it would be quadratic in the size of the file."""
    pairs = b"(](" + b"".join(b"(U\x01kK\x01l" for _ in range(20_000)) + b"eq\x00t"
    calls = b"ccollections\nOrderedDict\nh\x00\x85R" * 20_000
    data = b"\x80\x02(ccollections\nOrderedDict\n" + pairs + b"R" + calls + b"l."
    with pytest.raises(UnreadableError, match="share their parts"):
        read_pickle(data)


def test_deep_nesting_is_refused() -> None:
    deep = b"\x80\x02" + b"}U\x01k" * 5000 + b"N" + b"s" * 5000 + b"."
    with pytest.raises(UnreadableError, match="nested more than 1,000 deep"):
        read_pickle(deep)


def test_names_that_add_up_are_refused() -> None:
    long_key = b"X" + (100_000).to_bytes(4, "little") + b"k" * 100_000
    pid = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x06tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor\n(" + pid + b"K\x00K\x06\x85K\x01\x85tR"
    data = b"\x80\x02" + b"}" + long_key + b"q\x00" + b"}h\x00" * 900 + tensor + b"s" * 901 + b"."
    with pytest.raises(UnreadableError, match="names add up"):
        read_pickle(data)


def test_a_parameter_around_something_else_is_an_extra() -> None:
    root = Dict([("p", Call("reduce", Global("torch._utils", "_rebuild_parameter"), (3, True, None)))])
    tree = interpret(root, lambda *_: pytest.fail("no storage is asked for"), nbytes=100)
    assert dict(tree.tensors) == {}
    assert [extra.name for extra in tree.extras] == ["p"]


def test_entries_set_twice_count_once() -> None:
    """The last value wins, in the place of the first, as in Python."""
    pid = Persistent(("storage", Global("torch", "FloatStorage"), "0", "cpu", 6))

    def tensor(size: int) -> Call:
        return Call("reduce", Global("torch._utils", "_rebuild_tensor"), (pid, 0, (size,), (1,)))

    somewhere = LocalFile(Path("x"), Identity(0, 0, 24, 0, 0))
    root = Dict([("a", tensor(1)), ("b", tensor(2)), ("a", tensor(3))])
    tree = interpret(
        root,
        lambda node, _: StorageRef(Storage(somewhere, 0, 24), "float32"),
        nbytes=1000,
    )
    assert {key: value.shape for key, value in tree.tensors.items()} == {"a": (3,), "b": (2,)}
    assert all(isinstance(value, Tensor) for value in tree.tensors.values())
