"""Targets: models of libraries and of the user's code, built without data; and what torch says of loading into them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FIXTURES, ROOT
from torch import nn

from ckptool.core.errors import CkptError, UnreadableError, UsageError
from ckptool.core.spec import TensorSpec
from ckptool.models import (
    Target,
    import_torchvision,
    initial_state,
    open_target,
    parse_model_args,
    strict_verdict,
    target_of,
)

Specs = dict[str, TensorSpec]


def specs_of(module: nn.Module) -> list[tuple[str, str, tuple[int, ...]]]:
    """The oracle: what the module's own state dict holds."""
    return [(key, str(value.dtype)[6:], tuple(value.shape)) for key, value in module.state_dict().items()]


def listed(target: Target) -> list[tuple[str, str, tuple[int, ...]]]:
    assert list(target.specs) == [spec.key for spec in target.specs.values()]
    return [(spec.key, spec.dtype, spec.shape) for spec in target.specs.values()]


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Path]]:
    """Writes a Python file into the working folder; what was imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    yield write
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


# ------------------------------------------------------------------------------------------------------- --model-arg


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("751", 751),
        ("-3", -3),
        ("0.1", 0.1),
        ("1e-3", 1e-3),
        ("2E4", 2e4),
        (".5", 0.5),
        ("-inf", float("-inf")),
        ("true", True),
        ("False", False),
        ("none", None),
        ("null", None),
        ("'751'", "751"),
        ('"a b"', "a b"),
        ("''", ""),
        ("bnneck", "bnneck"),
        ("", ""),
        ("1.2.3", "1.2.3"),
        ("a=b", "a=b"),
        ("[384, 192]", [384, 192]),
        ('{"a": [true, null]}', {"a": [True, None]}),
    ],
)
def test_values_are_typed_by_how_they_are_written(text: str, value: object) -> None:
    parsed = parse_model_args([f"x={text}"])["x"]
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["751"], "751 is not an argument"),
        (["=751"], "not an argument"),
        (["num-classes=1"], "not an argument"),
        (["a=1", "a=2"], "twice"),
        (["a=[1,"], "JSON"),
        (["a=" + "[" * 100_000], "JSON"),
    ],
)
def test_malformed_arguments(texts: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_model_args(texts)


# ------------------------------------------------------------------------------------------------------- torchvision

SAMPLE: dict[str, dict[str, object]] = {
    "resnet18": {"num_classes": 751},
    "mobilenet_v3_small": {},
    "shufflenet_v2_x0_5": {},
    "mnasnet0_5": {},
    "squeezenet1_1": {},
    "regnet_y_400mf": {},  # its init asks for values
    "swin_t": {},
    "efficientnet_b0": {},
    "densenet121": {},
    "googlenet": {"aux_logits": True},
    "lraspp_mobilenet_v3_large": {},
    "ssdlite320_mobilenet_v3_large": {},
    "fasterrcnn_mobilenet_v3_large_fpn": {"num_classes": 7},
    "quantized_mobilenet_v2": {},
    "r3d_18": {},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SAMPLE)
def test_a_torchvision_model_is_known_without_data(name: str) -> None:
    target = open_target(f"torchvision:{name}", SAMPLE[name])
    models = import_torchvision().models
    without = {"weights_backbone": None} if "rcnn" in name or "ssd" in name or "lraspp" in name else {}
    real = models.get_model(name, weights=None, **without, **SAMPLE[name])
    assert listed(target) == specs_of(real)
    assert target.device == "meta"
    assert target.notes == ()
    assert target.versions == {at: meta["version"] for at, meta in real.state_dict()._metadata.items()}
    parameters = dict(real.named_parameters())
    assert target.kinds == {key: "parameter" if key in parameters else "buffer" for key in target.specs}
    assert target.modules == {
        at: f"{type(part).__module__}.{type(part).__qualname__}" for at, part in real.named_modules()
    }
    assert strict_verdict(target, target.specs, target.versions).strict


def test_names_that_torchvision_does_not_have() -> None:
    with pytest.raises(UsageError, match=r"has no model resnet5\n") as caught:
        open_target("torchvision:resnet5")
    assert "torchvision:resnet50" in str(caught.value.hint)
    with pytest.raises(UsageError) as caught:
        open_target("torchvision:zzzz")
    assert "list_models" in str(caught.value.hint)
    with pytest.raises(UsageError, match="there is no module torchvison") as caught:
        open_target("torchvison:resnet18")
    assert caught.value.hint == "did you mean torchvision?"
    with pytest.raises(UnreadableError, match="resnet50 does not exist") as caught_path:
        open_target("resnet50")
    assert "torchvision:resnet50" in str(caught_path.value.hint)


def test_arguments_that_a_model_does_not_take() -> None:
    with pytest.raises(UsageError, match="torchvision:resnet18 takes no argument num_clases") as caught:
        open_target("torchvision:resnet18", {"num_clases": 10})
    assert str(caught.value.hint).startswith("did you mean num_classes")
    for given in ({"weights": "DEFAULT"}, {"weights_backbone": "DEFAULT"}, {"pretrained": True}):
        with pytest.raises(UsageError, match="download"):
            open_target("torchvision:fcn_resnet50", given)
    assert open_target("torchvision:resnet18", {"weights": None}).specs
    with pytest.raises(CkptError, match=r"torchvision:resnet18 stops at .*resnet\.py:[0-9]+ while it is built: "):
        open_target("torchvision:resnet18", {"replace_stride_with_dilation": [True]})


def run(code: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    prelude = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", prelude + code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def test_a_fresh_process_builds_resnet_without_the_compiler_and_has_it_when_it_is_wanted() -> None:
    done = run(
        "from ckptool.models import open_target, strict_verdict\n"
        "assert 'torch' not in sys.modules\n"
        "target = open_target('torchvision:resnet50')\n"
        "assert strict_verdict(target, target.specs, target.versions).strict\n"
        "assert not {'torch._dynamo', 'sympy'} & set(sys.modules)\n"
        "import torch, torchvision\n"
        "boxes = [torch.tensor([[0.0, 0, 4, 4]])]\n"
        "roi_align = torchvision.ops.roi_align\n"
        "asked = roi_align.__globals__.get('is_compile_supported')\n"
        "assert asked is None or asked('cpu') in (True, False)\n"
        "double = torch.compile(lambda x: 2 * x, backend='eager')\n"
        "assert double(torch.ones(1)).item() == 2 and torch._dynamo.config\n"
        "print(len(target.specs), target.device)"
    )
    assert done.stdout == "320 meta\n"


def test_torchvision_can_be_imported_afterwards_by_anyone() -> None:
    done = run(
        "import torch\n"
        "from ckptool.models.vision import declare_operators\n"
        "declare_operators(); declare_operators()\n"
        "import torchvision\n"
        "declare_operators()\n"
        "print(len(torchvision.models.resnet18().state_dict()))"
    )
    assert done.stdout == "122\n"


# ------------------------------------------------------------------------------------------------- would it load?


def real_outcome(module: nn.Module, specs: Mapping[str, TensorSpec], versions: Mapping[str, int] | None) -> str:
    """The oracle: what `load_state_dict` says of real tensors; "" if it loads."""
    state: Any = OrderedDict(
        (spec.key, torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype))) for spec in specs.values()
    )
    if versions is not None:
        state._metadata = OrderedDict((at, {"version": version}) for at, version in versions.items())
    try:
        module.load_state_dict(state, strict=True)
    except Exception as error:
        return str(error)
    return ""


def without(specs: Mapping[str, TensorSpec], ending: str) -> Specs:
    return {key: spec for key, spec in specs.items() if not key.endswith(ending)}


def reshaped(specs: Mapping[str, TensorSpec], *keys: str) -> Specs:
    return {
        key: TensorSpec(key, spec.dtype, (*spec.shape[:-1], spec.shape[-1] + 1)) if key in keys else spec
        for key, spec in specs.items()
    }


EXTRA = {"neck.weight": TensorSpec("neck.weight", "float32", (3,))}
CHANGES: dict[str, Callable[[Mapping[str, TensorSpec]], Specs]] = {
    "complete": lambda specs: dict(specs),
    "no counters": lambda specs: without(specs, "num_batches_tracked"),
    "no head": lambda specs: without(without(specs, "fc.weight"), "fc.bias"),
    "more": lambda specs: {**specs, **EXTRA},
    "other shapes": lambda specs: reshaped(specs, "fc.weight", "conv1.weight"),
    "all wrong": lambda specs: {**reshaped(without(specs, "fc.bias"), "fc.weight"), **EXTRA},
    "half": lambda specs: {key: TensorSpec(key, "float16", spec.shape) for key, spec in specs.items()},
    "empty": lambda specs: {},
}


@pytest.fixture(scope="module")
def resnet18() -> tuple[Target, nn.Module]:
    """As a target, and a real one, which any number of state dicts may be loaded into."""
    return open_target("torchvision:resnet18"), import_torchvision().models.resnet18()


@pytest.mark.parametrize("versions", ["own", "none", "empty"])
@pytest.mark.parametrize("change", CHANGES)
def test_the_verdict_is_that_of_torch(change: str, versions: str, resnet18: tuple[Target, nn.Module]) -> None:
    target, module = resnet18
    given = {"own": target.versions, "none": None, "empty": {}}[versions]
    specs = CHANGES[change](target.specs)
    said = real_outcome(module, specs, given)
    verdict = strict_verdict(target, specs, given)
    assert verdict.strict == (not said)
    assert verdict.message == said
    if not verdict.strict:
        assert set(verdict.mismatched) == {
            key for key in specs if specs[key].shape != target.specs.get(key, specs[key]).shape
        }
        assert set(verdict.unexpected) == specs.keys() - target.specs.keys()
        counters = versions != "own"  # without versions BatchNorm forgives its counters
        absent = without(target.specs, "num_batches_tracked") if counters else target.specs
        assert set(verdict.missing) == absent.keys() - specs.keys()


def test_102_keys_load_without_versions_only() -> None:
    target = open_target("torchvision:resnet18")
    old = without(target.specs, "num_batches_tracked")
    assert len(old) == 102
    assert strict_verdict(target, old, None).strict
    verdict = strict_verdict(target, old, target.versions)
    assert (verdict.strict, len(verdict.missing)) == (False, 20)
    official = open_target(str(FIXTURES / "resnet18-102.pth"))
    assert len(official.specs) == 102


def test_mnasnet_refuses_a_dict_without_versions() -> None:
    target = open_target("torchvision:mnasnet0_5")
    verdict = strict_verdict(target, target.specs, None)
    assert not verdict.strict
    assert verdict.message == real_outcome(import_torchvision().models.mnasnet0_5(), target.specs, None)
    assert "version" in verdict.message
    assert strict_verdict(target, target.specs, target.versions).strict


def test_hooks_that_rename_take_part() -> None:
    """The ViT of torchvision takes the names of its first version where the dict says that it is of that."""
    small = "torchvision.models:VisionTransformer"
    arguments = {
        "image_size": 32,
        "patch_size": 16,
        "num_layers": 1,
        "num_heads": 2,
        "hidden_dim": 8,
        "mlp_dim": 16,
    }
    target = open_target(small, arguments)
    names = {"mlp.0.": "mlp.linear_1.", "mlp.3.": "mlp.linear_2."}
    old: Specs = {}
    for key, spec in target.specs.items():
        for new, before in names.items():
            key = key.replace(new, before)
        old[key] = TensorSpec(key, spec.dtype, spec.shape)
    assert old.keys() != target.specs.keys()
    assert strict_verdict(target, old, None).strict
    verdict = strict_verdict(target, old, target.versions)
    assert (len(verdict.missing), len(verdict.unexpected)) == (4, 4)


def test_weight_norm_and_its_old_names() -> None:
    module = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), nn.BatchNorm1d(2))
    target = target_of(module)
    assert listed(target) == specs_of(module)
    assert "0.parametrizations.weight.original0" in target.specs
    old = {
        key: TensorSpec(key, "float32", shape)
        for key, shape in {"0.bias": (2,), "0.weight_g": (2, 1), "0.weight_v": (2, 3)}.items()
    }
    old |= {key: spec for key, spec in target.specs.items() if key.startswith("1.")}
    assert strict_verdict(target, old, None).strict
    assert real_outcome(module, old, None) == ""


class Stubborn(nn.Module):
    """Refuses in its own way, and breaks something while it does."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.register_buffer("mean", torch.ones(3))

    def _load_from_state_dict(self, *args: Any) -> None:
        print("loading")
        self.mean = torch.zeros(1)
        self.register_buffer("more", torch.zeros(1))
        raise LookupError


def test_a_live_model_is_not_touched(capsys: pytest.CaptureFixture[str]) -> None:
    module = Stubborn()
    kept = {key: (value, value.clone()) for key, value in module.state_dict(keep_vars=True).items()}
    target = target_of(module, "mine")
    assert (target.name, target.device, target.module) == ("mine", "cpu", module)
    verdict = strict_verdict(target, target.specs, None)
    assert (verdict.strict, verdict.message, verdict.missing) == (False, "LookupError", ())
    after = module.state_dict(keep_vars=True)
    assert after.keys() == kept.keys()
    for key, (tensor, value) in kept.items():
        assert after[key] is tensor
        assert torch.equal(tensor, value)
    assert not module._load_state_dict_post_hooks
    assert "loading" not in capsys.readouterr().out


def test_a_verdict_leaves_gradients_and_values_alone() -> None:
    module = nn.Linear(2, 2)
    module(torch.ones(1, 2)).sum().backward()
    grad = module.weight.grad
    target = target_of(module)
    assert target.name == "Linear"
    assert strict_verdict(target, target.specs, None).strict
    assert module.weight.grad is grad
    assert not module.weight.is_meta


# -------------------------------------------------------------------------------------------- what a model consists of


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight
        self.twin = self.head
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("scratch", torch.zeros(7), persistent=False)
        self.register_buffer("nothing", None)
        self.halves = nn.Parameter(torch.zeros(4, dtype=torch.bfloat16), requires_grad=False)


def test_ties_buffers_and_kinds() -> None:
    module = Tied()
    target = target_of(module)
    assert listed(target) == specs_of(module)
    assert target.ties == (("embed.weight", "head.weight", "twin.weight"),)
    assert target.kinds == {
        "seen": "buffer",
        "halves": "parameter",
        "embed.weight": "parameter",
        "head.weight": "parameter",
        "twin.weight": "parameter",
    }
    assert target.modules["twin"] == "torch.nn.modules.linear.Linear"
    assert target.modules[""].endswith("test_models.Tied")


def test_ties_are_seen_without_data() -> None:
    with torch.device("meta"):
        module = Tied()
    assert target_of(module).ties == (("embed.weight", "head.weight", "twin.weight"),)


def test_a_state_that_is_no_tensor_is_said() -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> object:
            return {"a": 1}

        def set_extra_state(self, state: object) -> None:
            pass

    target = target_of(Extra(2, 2))
    assert list(target.specs) == ["weight", "bias"]
    (note,) = target.notes
    assert note.keys == ("_extra_state",)
    verdict = strict_verdict(target, target.specs, target.versions)
    assert (verdict.strict, verdict.missing) == (False, ("_extra_state",))


def test_lazy_modules() -> None:
    with pytest.raises(CkptError, match=r"fc.weight and 1 more is only known after a first forward") as caught:
        target_of(nn.Sequential(OrderedDict(fc=nn.LazyLinear(3))), "net.py:Net")
    assert caught.value.key == "fc.weight"


# ----------------------------------------------------------------------------------------------------- its own init


@pytest.mark.parametrize("name", ["torchvision:resnet18", "torchvision:regnet_y_400mf"])
def test_its_own_init_by_seed(name: str) -> None:
    target = open_target(name)
    keys = [key for key in target.specs if key.startswith("fc.") or key == "bn1.num_batches_tracked"]
    state = torch.random.get_rng_state()
    first, again, other = (initial_state(target, keys, seed) for seed in (7, 7, 8))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(7)
    real = import_torchvision().models.get_model(name.split(":")[1]).state_dict()
    assert list(first) == [key for key in target.specs if key in keys]
    for key in keys:
        assert torch.equal(first[key], real[key])
        assert torch.equal(first[key], again[key])
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


NUMPY_INIT = """
import random
import numpy as np
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.fc = nn.Linear(width, width)
        self.a = nn.Parameter(torch.from_numpy(np.random.rand(width)))
        self.b = nn.Parameter(torch.full((1,), random.random()))
        self.c = nn.Parameter(torch.zeros(int(self.fc.weight.detach().abs().sum().ceil().item() * 0) + 2))
        torch.set_default_dtype(torch.float64)
"""


def test_an_init_that_refuses_meta_and_draws_elsewhere(code: Callable[[str, str], Path]) -> None:
    code("net.py", NUMPY_INIT)
    target = open_target("net.py:Net", {"width": 4})
    assert target.device == "cpu"
    assert [note.text for note in target.notes] == [
        "imports net.py: its code runs",
        "built on cpu: its init refuses the meta device",
    ]
    assert torch.get_default_dtype() is torch.float32
    first, again = (initial_state(target, target.specs, 3) for _ in range(2))
    assert [(key, first[key].dtype) for key in first] == [
        ("a", torch.float64),
        ("b", torch.float32),
        ("c", torch.float32),
        ("fc.weight", torch.float32),
        ("fc.bias", torch.float32),
    ]
    assert all(torch.equal(first[key], again[key]) for key in first)
    script = (
        "from ckptool.models import *\n"
        "target = open_target('net.py:Net', {'width': 4})\n"
        "state = initial_state(target, target.specs, 3)\n"
        "print([tensor.tolist() for tensor in state.values()])\n"
    )
    assert run(script, Path.cwd()).stdout == f"{[tensor.tolist() for tensor in first.values()]}\n"
    other = initial_state(target, target.specs, 4)
    assert not any(torch.equal(first[key], other[key]) for key in first if key != "c")


def test_initial_state_of_other_targets() -> None:
    module = nn.Linear(2, 2)
    live = initial_state(target_of(module), ["weight"], 0)["weight"]
    assert torch.equal(live, module.weight)
    assert live.data_ptr() != module.weight.data_ptr()
    tied = initial_state(target_of(Tied()), ["head.weight", "embed.weight"], 0)
    assert tied["head.weight"] is tied["embed.weight"]
    with torch.device("meta"):
        empty = nn.Linear(2, 2)
    with pytest.raises(CkptError, match="weight of Linear has no data"):
        initial_state(target_of(empty), ["weight"], 0)
    with pytest.raises(UsageError, match="Linear has no fc"):
        initial_state(target_of(module), ["fc"], 0)
    with pytest.raises(CkptError, match="is a checkpoint"):
        initial_state(open_target(str(FIXTURES / "resnet18.pth")), ["fc.weight"], 0)


# ------------------------------------------------------------------------------------------------------ the user's code

NET = """
import os
from torch import nn
print("importing")

class Net(nn.Module):
    def __init__(self, depth=2, num_classes=3):
        super().__init__()
        print("building")
        os.system("echo from the shell")
        self.layers = nn.Sequential(*[nn.Linear(4, 4) for _ in range(depth)])
        self.fc = nn.Linear(4, num_classes)
        if depth > 5:
            raise KeyError("depth")

def make(depth, *, width=4):
    return Net(depth)

class Zoo:
    small = staticmethod(lambda: Net(1))

def table():
    return {"a": 1}

def orphan():
    return Net.__missing__

held = Net(1, 2)
number = 3
"""


def test_a_class_a_function_and_a_model_of_a_file(code: Callable[[str, str], Path]) -> None:
    path = code("net.py", NET)
    sys.modules.pop("net", None)  # of another test
    target = open_target("net.py:Net", {"num_classes": 751})
    assert target.name == "net.py:Net"
    assert target.specs["fc.weight"].short == "f32[751,4]"
    assert (target.device, len(target.specs)) == ("meta", 6)
    assert target.modules[""] == "net.Net"
    assert [note.text for note in target.notes] == ["imports net.py: its code runs"]
    assert len(open_target(f"{path}:make", {"depth": 3}).specs) == 8
    assert len(open_target("./net.py:Zoo.small").specs) == 4
    held = open_target("net.py:held")
    assert held.device == "cpu"
    assert "a seed does not change" in held.notes[0].hint
    assert not list(path.parent.rglob("*.pyc"))


@pytest.mark.parametrize(
    ("name", "arguments", "message", "hint"),
    [
        ("net.py", {}, "net.py is Python code", "net.py:Net, net.py:make, net.py:Zoo, net.py:table"),
        ("net.py:Nett", {}, "net.py has no Nett", "did you mean net.py:Net?"),
        ("net.py:zzz", {}, "net.py has no zzz", "it has Net, Zoo, held, make, orphan, table"),
        ("net.py:Zoo.smal", {}, "net.py has no smal", "did you mean net.py:small?"),
        ("nett.py:Net", {}, "nett.py does not exist", "did you mean net.py?"),
        ("net.py:", {}, "net.py: names no class or function", "write net.py:Net"),
        ("net.py:Net", {"dept": 3}, "net.py:Net takes no argument dept", "did you mean depth?; it takes depth, num"),
        ("net.py:make", {}, "net.py:make needs an argument: depth", "--model-arg depth=..."),
        ("net.py:held", {"depth": 1}, "net.py:held is a model already built", "name its class"),
        ("net.py:number", {}, "net.py:number is an int", "name a class or function"),
        ("net.py:table", {}, "net.py:table gives a dict where a torch.nn.Module should be", "name a function"),
        ("net.py:Net", {"depth": 6}, "net.py:Net stops at net.py:14 while it is built: KeyError: 'depth'", ""),
        ("net.py:make", {"depth": 6}, "net.py:make stops at net.py:14 while it is built: KeyError: 'depth'", ""),
        ("net.py:orphan", {}, "net.py:orphan stops at net.py:26 while it is built: AttributeError: type object", ""),
        ("net.py:Net", {"depth": "x"}, "net.py:Net stops at net.py:11 while it is built: TypeError: 'str'", ""),
    ],
)
def test_what_can_be_wrong_with_it(
    name: str, arguments: dict[str, object], message: str, hint: str, code: Callable[[str, str], Path]
) -> None:
    code("net.py", NET)
    with pytest.raises(CkptError) as caught:
        open_target(name, arguments)
    assert caught.value.message.startswith(message)
    assert (caught.value.hint or "").startswith(hint)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("import torch\n\ntorch.zeros(3).foo()", "bad.py stops at bad.py:3 while it is imported: AttributeError: ", ""),
        (
            "\nimport nothere.at.all",
            "bad.py stops at bad.py:2 while it is imported: ModuleNotFoundError: No module named",
            "install nothere",
        ),
        ("x = 1\ndef f(:\n", "bad.py stops at bad.py:2 while it is imported: SyntaxError: ", ""),
        ("import sys\nsys.exit(3)", "bad.py stops at bad.py:2 while it is imported: SystemExit: 3", "put what is not"),
        ("import blocks", "bad.py stops at blocks.py:2 while it is imported: ZeroDivisionError: division by zero", ""),
        ("raise ValueError('one\\n  two')", "bad.py stops at bad.py:1 while it is imported: ValueError: one two", ""),
        ("import json\njson.loads('{')", "bad.py stops at bad.py:2 while it is imported: json.decoder.JSONDecode", ""),
    ],
)
def test_code_that_stops_while_it_is_imported(
    text: str, message: str, hint: str, code: Callable[[str, str], Path]
) -> None:
    path = code("bad.py", text)
    code("blocks.py", "a = 0\nb = 1 / a\n")
    with pytest.raises(CkptError) as caught:
        open_target("bad.py:Net")
    assert caught.value.message.startswith(message)
    assert (caught.value.hint or "").startswith(hint)
    assert caught.value.path in (path, path.with_name("blocks.py"))
    assert "bad" not in sys.modules


def test_a_file_is_read_again_and_packages_import_their_own(code: Callable[[str, str], Path]) -> None:
    line = "from torch import nn\nNet = lambda: nn.Linear({}, 2)\n"
    code("net.py", line.format(3))
    assert open_target("net.py:Net").specs["weight"].shape == (2, 3)
    code("net.py", line.format(4))
    assert open_target("net.py:Net").specs["weight"].shape == (2, 4)
    code("json.py", line.format(5))
    assert open_target("json.py:Net").specs["weight"].shape == (2, 5)
    assert sys.modules["json"] is json
    code("zoo_pkg/__init__.py", "")
    code("zoo_pkg/blocks.py", "from torch import nn\nclass Block(nn.BatchNorm2d): pass\n")
    code("zoo_pkg/net.py", "from .blocks import Block\ndef make(): return Block(6)\n")
    by_file, by_name = open_target("zoo_pkg/net.py:make"), open_target("zoo_pkg.net:make")
    assert by_file.specs == by_name.specs
    assert by_file.modules == {"": "zoo_pkg.blocks.Block"}
    with pytest.raises(UsageError, match="zoo_pkg has no module nett") as caught:
        open_target("zoo_pkg.nett:make")
    assert caught.value.hint == "did you mean net?"
    with pytest.raises(UsageError, match="there is no module nosuchpkg"):
        open_target("nosuchpkg.net:make")
    with pytest.raises(UsageError, match="is not the name of a module"):
        open_target("a b:make")


def test_stdout_stays_clean_and_the_caller_as_before(code: Callable[[str, str], Path]) -> None:
    code("net.py", NET + "import sys\nsys.__stdout__.write('beside')\n")
    done = run(
        "before = list(sys.path)\n"
        "from ckptool.models import *\n"
        "target = open_target('net.py:Net')\n"
        "initial_state(target, ['fc.bias'], 0)\n"
        "assert sys.path == before\n"
        "print('{}')",
        Path.cwd(),
    )
    assert done.stdout == "{}\n"
    for text in ("importing", "building", "from the shell", "beside"):
        assert text in done.stderr


def test_a_file_that_imports_torchvision(code: Callable[[str, str], Path]) -> None:
    code(
        "reid.py",
        "from torch import nn\n"
        "from torchvision.models import resnet18\n"
        "class Baseline(nn.Module):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__()\n"
        "        self.base = resnet18()\n"
        "        del self.base.fc\n"
        "        self.bottleneck = nn.BatchNorm1d(512)\n"
        "        self.bottleneck.bias.requires_grad_(False)\n"
        "        self.classifier = nn.Linear(512, num_classes, bias=False)\n"
        "        nn.init.normal_(self.classifier.weight, std=0.001)\n",
    )
    done = run(
        "from ckptool.models import *\n"
        "target = open_target('reid.py:Baseline', {'num_classes': 751})\n"
        "assert 'torch._dynamo' not in sys.modules\n"
        "weight = initial_state(target, ['classifier.weight'], 0)['classifier.weight']\n"
        "print(len(target.specs), target.device, tuple(weight.shape), 0.0009 < weight.std().item() < 0.0011)",
        Path.cwd(),
    )
    assert done.stdout == "126 meta (751, 512) True\n"


# --------------------------------------------------------------------------------------------------------- checkpoints


def test_a_checkpoint_is_a_target() -> None:
    target = open_target(str(FIXTURES / "resnet18.pth"))
    assert len(target.specs) == 122
    assert (target.module, dict(target.kinds), dict(target.modules)) == (None, {}, {})
    assert target.checkpoint is not None
    assert target.versions == target.checkpoint.module_versions
    assert strict_verdict(target, target.specs, None).strict
    wrong = {**reshaped(without(target.specs, "fc.bias"), "fc.weight"), **EXTRA}
    verdict = strict_verdict(target, wrong, None)
    assert (verdict.missing, verdict.unexpected, verdict.mismatched) == (("fc.bias",), ("neck.weight",), ("fc.weight",))
    assert verdict.message == "1 missing, 1 unexpected, 1 of another shape"
    with pytest.raises(UsageError, match="has no arguments"):
        open_target(str(FIXTURES / "resnet18.pth"), {"num_classes": 3})


def test_ties_of_a_checkpoint(tmp_path: Path) -> None:
    weight = torch.zeros(3, 2)
    torch.save({"a": weight, "b": weight, "c": weight.t(), "d": torch.zeros(3, 2)}, tmp_path / "x:y.pth")
    assert open_target(str(tmp_path / "x:y.pth")).ties == (("a", "b"),)


def test_no_such_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="does not exist"):
        open_target(str(tmp_path / "no.pth"))
    with pytest.raises(CkptError):
        open_target("")


# ---------------------------------------------------------------------------------- timm, transformers, open_clip


def needs(package: str) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


def test_a_missing_library_is_named() -> None:
    for package, name in (("timm", "timm:resnet50"), ("transformers", "hf:.")):
        if find_spec(package) is None:
            with contextlib.chdir(FIXTURES), pytest.raises(CkptError) as caught:
                open_target(name)
            assert f"{package}, which is not installed" in caught.value.message or "config.json" in caught.value.message


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_atto"])
def test_timm(name: str) -> None:
    needs("timm")
    target = open_target(f"timm:{name}", {"num_classes": 5})
    import timm

    assert listed(target) == specs_of(timm.create_model(name, pretrained=False, num_classes=5))
    assert (target.device, target.notes) == ("meta", ())
    assert strict_verdict(target, target.specs, target.versions).strict


def test_the_tag_of_timm_weights_may_stay() -> None:
    needs("timm")
    assert open_target("timm:resnet18.a1_in1k").specs == open_target("timm:resnet18").specs
    with pytest.raises(CkptError, match="Invalid pretrained tag"):
        open_target("timm:resnet18.no_such_tag")


def test_timm_errors() -> None:
    needs("timm")
    with pytest.raises(UsageError, match="has no model vit_bas_patch16_224") as caught:
        open_target("timm:vit_bas_patch16_224")
    assert "timm:vit_base_patch16_224" in str(caught.value.hint)
    with pytest.raises(UsageError, match="takes no argument num_clases") as caught:
        open_target("timm:resnet18", {"num_clases": 3})
    assert str(caught.value.hint).startswith("did you mean num_classes")
    for name, given in (("resnet18", {"pretrained": True}), ("hf-hub:timm/resnet18", {})):
        with pytest.raises(UsageError, match="download"):
            open_target(f"timm:{name}", given)


TINY = {
    "model_type": "bert",
    "architectures": ["BertForMaskedLM"],
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 11,
    "max_position_embeddings": 12,
}


def config(folder: Path, **changes: object) -> str:
    (folder / "config.json").write_text(json.dumps({**TINY, **changes}))
    return f"hf:{folder}"


def test_hugging_face(tmp_path: Path) -> None:
    needs("transformers")
    target = open_target(config(tmp_path))
    import transformers

    real = transformers.BertForMaskedLM(transformers.BertConfig(**TINY))
    assert listed(target) == specs_of(real)
    assert ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight") in target.ties
    assert (target.device, target.notes) == ("meta", ())
    assert strict_verdict(target, target.specs, target.versions).strict
    first, again = (initial_state(target, target.specs, 5) for _ in range(2))
    assert all(torch.equal(first[key], again[key]) for key in target.specs)
    assert first["bert.embeddings.word_embeddings.weight"].std() > 0
    longer = open_target(config(tmp_path), {"num_hidden_layers": 3})
    assert len(longer.specs) > len(target.specs)
    assert open_target(config(tmp_path, dtype="bfloat16")).specs["cls.predictions.bias"].dtype == "bfloat16"
    base = open_target(config(tmp_path, architectures=["MyBert"]))
    assert "embeddings.word_embeddings.weight" in base.specs
    assert "MyBert" in base.notes[0].text


def test_hugging_face_errors(tmp_path: Path) -> None:
    needs("transformers")
    with pytest.raises(CkptError, match=r"cannot use .*config.json: .*nonsense"):
        open_target(config(tmp_path, model_type="nonsense"))
    with pytest.raises(CkptError, match=r"cannot use .*config.json"):
        open_target(config(tmp_path, model_type="mine", auto_map={"AutoConfig": "code.Config"}))
    with pytest.raises(UsageError, match="has no hiden_size") as caught:
        open_target(config(tmp_path), {"hiden_size": 3})
    assert str(caught.value.hint).startswith("did you mean hidden_size")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CkptError, match=r"cannot use .*config.json"):
        open_target(f"hf:{tmp_path}")


def test_the_hub_is_not_asked() -> None:
    with pytest.raises(UsageError, match="bert-base-uncased is not a folder"):
        open_target("hf:bert-base-uncased")


def test_open_clip_as_a_function() -> None:
    needs("open_clip")
    target = open_target("open_clip:create_model", {"model_name": "RN50-quickgelu"})
    assert "visual.conv1.weight" in target.specs
    assert strict_verdict(target, target.specs, target.versions).strict
