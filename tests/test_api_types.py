"""Every public function says what to pass where it is given something else, and what it takes it takes."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptool
from ckptool.api import given, options
from ckptool.api.loading import Report
from ckptool.api.plan import Plan
from ckptool.core.errors import CkptError, UsageError

FUNCTIONS = [getattr(ckptool, name) for name in ckptool.__all__ if inspect.isfunction(getattr(ckptool, name))]
WRONG: list[Any] = [None, 3, 3.5, b"resnet18.pth", ["resnet18.pth"], {}, torch.nn.Linear(2, 2), object(), "", True]
WRONG += [torch.nn.Linear(2, 2).state_dict(), OrderedDict(a=1), {"resnet18.pth"}, torch.ones(2)]


def parameters(function: Callable[..., Any]) -> list[str]:
    """The names of all that a function takes, those of its options too."""
    names = []
    for name, each in inspect.signature(function).parameters.items():
        if each.kind is each.VAR_KEYWORD:
            options = {"load_into": "LoadOptions", "plan_transplant": "TransplantOptions", "apply": "WriteOptions"}
            options |= dict.fromkeys(("check", "compare", "stats"), "ReadOptions")
            kind = getattr(__import__("ckptool.api.options").api.options, options[function.__name__])
            names += list(inspect.get_annotations(kind)) or list(kind.__annotations__)
        elif name != "self":
            names.append(name)
    return names


@pytest.mark.parametrize("function", [*FUNCTIONS, Plan.apply, Report.freeze], ids=lambda function: function.__name__)
def test_every_parameter_has_a_kind(function: Callable[..., Any]) -> None:
    assert hasattr(function, "__wrapped__")
    for name in parameters(function):
        assert given._kind_of(function.__name__, name) is not None, name


@pytest.mark.parametrize("kind", [options.TransplantOptions, options.WriteOptions], ids=lambda kind: kind.__name__)
def test_options_take_what_their_types_say(kind: Any) -> None:
    function = "apply" if kind is options.WriteOptions else "plan_transplant"
    takes = {"str | Sequence[str]": ["a"], "bool": True, "int": 3, "float | None": 0.5, "str | None": "a"}
    takes |= {"Mapping[str, str] | None": {"a": "b"}, "Mapping[str, float] | None": {"a": 1.0}}
    declared = {name: text for each in kind.__mro__[:-2] or (kind,) for name, text in each.__annotations__.items()}
    assert declared.keys() >= kind.__required_keys__ | kind.__optional_keys__
    for name, text in declared.items():
        text = getattr(text, "__forward_arg__", text)
        if text in takes:
            found = given._kind_of(function, name)
            assert found is not None and found.test(takes[text]), name


ARGUMENTS: dict[str, dict[str, Any]] = {
    "check": {"paths": "resnet18.pth"},
    "compare": {"old": "resnet18.pth", "new": "shards", "keys_only": True},
    "dequantized": {"checkpoint": "fp8"},
    "extract": {"base": "resnet18.pth", "tuned": "shards"},
    "extract_lora": {"base": "resnet18.pth", "tuned": "tuned.safetensors", "rank": 2},
    "load_into": {"model": torch.nn.Sequential(), "source": "resnet18.pth"},
    "match": {"source": "resnet18.pth", "target": "shards"},
    "open": {"path": "resnet18.pth"},
    "plan_filter": {"checkpoint": "resnet18.pth"},
    "plan_merge": {"checkpoints": ["resnet18.pth", "shards"], "method": "linear"},
    "plan_patch": {"base": "resnet18.pth"},
    "plan_remap": {"checkpoint": "resnet18.pth", "recipe": "fc. -> head."},
    "plan_transplant": {"source": "resnet18.pth", "target": "shards"},
    "probe": {"transplant": None, "source_model": "models.py:ResNet18"},
    "stats": {"checkpoint": "resnet18.pth"},
}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_wrong_types_are_said(
    function: Callable[..., Any], fixtures: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(fixtures)
    arguments = dict(ARGUMENTS[function.__name__])
    if function is ckptool.probe:
        arguments["transplant"] = ckptool.plan_transplant("resnet18.pth", "models.py:ResNet18")
    names = [name for name in parameters(function) if name != "patches"]
    for name in names:
        kind = given._kind_of(function.__name__, name)
        assert kind is not None
        for value in WRONG:
            if kind.test(value):
                continue
            with pytest.raises(TypeError) as caught:
                function(**{**arguments, name: value})
            assert str(caught.value).startswith(f"{function.__name__}: {name} is ")
            assert f"give {kind.says}" in str(caught.value)


def test_swapped_arguments_are_named(fixtures: Path) -> None:
    path, model = str(fixtures / "resnet18.pth"), torch.nn.Linear(2, 2)
    with pytest.raises(TypeError, match=r"the two are swapped: load_into\(model, source\)"):
        ckptool.load_into(path, model)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a model is not a checkpoint"):
        ckptool.compare(model, path)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a dict of tensors is not a file"):
        ckptool.plan_filter(model.state_dict())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda path, out: ckptool.plan_transplant(path, path, mismatch="fti"), "skip, error, fit"),  # type: ignore[arg-type]
        (lambda path, out: ckptool.plan_merge([path, path], method="linear", keys="all"), "exact, intersect, union"),  # type: ignore[arg-type]
        (lambda path, out: ckptool.match(path, path, accept="sure"), "certain, unique, aligned"),
        (lambda path, out: ckptool.plan_filter(path).apply(out, tied="both"), "clone, keep-first"),  # type: ignore[arg-type]
    ],
)
def test_unknown_choices_are_refused(
    call: Callable[[str, str], Any], said: str, fixtures: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        call(str(fixtures / "resnet18.pth"), str(tmp_path / "out.pth"))
    assert said in (caught.value.hint or "")


def test_what_is_no_list_but_serves_as_one_is_taken(fixtures: Path) -> None:
    path = fixtures / "resnet18.pth"
    options = {"fc.*": 0}
    assert ckptool.compare(path, path, only=options.keys(), keys_only=True).count("same") == 2  # type: ignore[arg-type]
    plan = ckptool.plan_merge((path for _ in range(2)), method="linear", weights=torch.ones(2))  # type: ignore[arg-type]
    assert len(plan.steps) == 122
    assert len(ckptool.plan_filter(path, (("drop", name) for name in ["fc.*"])).steps) == 120  # type: ignore[arg-type]


def test_reader_and_counts(fixtures: Path) -> None:
    path = fixtures / "resnet18.pth"
    checkpoint = ckptool.open(path)
    with pytest.raises(TypeError, match="give checkpoints"):
        ckptool.Reader([path])  # type: ignore[list-item]
    with ckptool.Reader(checkpoint) as reader, pytest.raises(TypeError, match="give a tensor: checkpoint"):
        reader.array("fc.weight")  # type: ignore[arg-type]
    diff = ckptool.compare(path, fixtures / "tuned.safetensors")
    assert diff.count("changed") == diff.count(ckptool.Status.CHANGED) == 114
    with pytest.raises(ValueError, match="is not a valid Status"):
        diff.count("chnaged")


def test_names_in_a_line(fixtures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fixtures)
    assert repr(ckptool.open("fp8")) == "<Checkpoint fp8/model.safetensors: 10 tensors, 6.29 kB>"
    assert repr(ckptool.dequantized("fp8")) == "<Checkpoint fp8/model.safetensors, dequantized: 6 tensors, 10.8 kB>"
    written = ckptool.plan_filter("resnet18.pth").apply(tmp_path / "o.safetensors")
    assert repr(written).startswith("<Written 122 tensors, ") and repr(written).endswith("o.safetensors>")
    assert str(written).startswith("wrote ")
    with pytest.raises(CkptError):
        ckptool.plan_filter("resnet18.pth").apply(tmp_path / "o.safetensors")
