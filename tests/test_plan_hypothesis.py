"""A plan is complete: what ``--dry-run`` says is what the run does, ties stay ties, and copies are copies."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file, save_model
from torch import nn

from ckptool.cli.app import run
from ckptool.formats.opening import open_checkpoint

KEYS = ["a.weight", "a.bias", "b.weight", "b.running_mean", "c.0.weight", "c.1.weight", "n"]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64]
FORMS = ["zip", "legacy", "nested", "training", "unknown", "module", "safetensors", "save_model", "shards"]
OUTPUTS = [*["out.pth"] * 6, *["out.safetensors"] * 4, *["out"] * 4, "out.gguf"]
RULES = [
    ["-r", "?a. -> z."],
    ["-r", "?a.weight -> a.weight | o i -> i o"],
    ["-r", "?{k**}.weight -> {k**}.weight | bf16"],
    ["-r", "?c.{n}.weight -> c.weight | o i -> n o i"],
    ["-r", "?a.weight -> x, y"],
    ["-r", "?b.weight -> b.weight | = $1 * 2"],
    ["-r", "?b. -> !", "-r", "?nothing -> x"],
]
CHANGES = [
    ["filter"],
    ["filter", "--drop", "*.weight"],
    ["filter", "--keep", "*.weight"],
    ["filter", "--dtype", "bf16"],
    ["filter", "--drop", "*"],
    *(["remap", *rules] for rules in RULES),
    ["merge", "second"],
    ["merge", "second", "--method", "linear"],
    ["merge", "second", "--method", "linear", "--union", "--dtype", "f16"],
    ["transplant", "--into", "second"],
    ["transplant", "--into", "second", "--strict"],
    ["transplant", "--into", "second", "--only-loaded"],
]
OPTIONS = [
    [],
    ["--tied", "keep-first"],
    ["--only-weights"],
    ["--drop-optimizer"],
    ["--keep-optimizer-as-is"],
    ["--keep-unknown"],
]


@st.composite
def weights(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    """Matrices and vectors under some keys; some are one tensor under two keys, or views of one storage."""
    found: dict[str, torch.Tensor] = {}
    for key in draw(st.lists(st.sampled_from(KEYS), min_size=5, unique=True)):
        way = draw(st.sampled_from(["new", "new", "tied", "transposed"])) if found else "new"
        other = found[draw(st.sampled_from(sorted(found)))] if found else torch.empty(0)
        if way == "tied":
            found[key] = other
        elif way == "transposed" and other.dim() == 2:
            found[key] = other.T
        else:
            shape = (4, 4) if key.endswith("weight") and draw(st.booleans()) else (4, 3) if "weight" in key else (4,)
            noise = torch.Generator().manual_seed(len(found))
            found[key] = (torch.randn(shape, generator=noise) * 8).to(draw(st.sampled_from(DTYPES)))
    return found


def write(folder: Path, name: str, form: str, tensors: dict[str, torch.Tensor]) -> str:
    """A checkpoint of some form; its name."""
    apart = {key: tensor.clone().contiguous() for key, tensor in tensors.items()}
    floats = [nn.Parameter(t) for t in tensors.values() if t.is_floating_point() and not t.is_leaf] or [
        nn.Parameter(torch.ones(2))
    ]
    match form:
        case "safetensors":
            save_file(apart, folder / f"{name}.safetensors", metadata={"by": "somebody"})
            return f"{name}.safetensors"
        case "save_model":
            save_model(module_of(tensors), str(folder / f"{name}.safetensors"))
            return f"{name}.safetensors"
        case "shards":
            (folder / name).mkdir()
            (folder / name / "config.json").write_text("{}")
            halves = [dict(list(apart.items())[at::2]) for at in range(2)]
            index = {key: f"model-{at + 1:05d}-of-00002.safetensors" for at in range(2) for key in halves[at]}
            for at, half in enumerate(halves):
                save_file(half, folder / name / f"model-{at + 1:05d}-of-00002.safetensors")
            (folder / name / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
            return name
    value: Any = tensors
    match form:
        case "nested":
            value = {"model": {"weights": tensors}, "epoch": 3}
        case "training":
            parameters = [nn.Parameter(t) for t in dict.fromkeys(tensors.values()) if t.is_floating_point()] or floats
            optimizer = torch.optim.Adam(parameters)
            sum(p.double().square().sum() for p in parameters).backward()  # type: ignore[union-attr]
            optimizer.step()
            value = {"state_dict": tensors, "optimizer": optimizer.state_dict(), "epoch": 1}
        case "unknown":
            value = {"state_dict": tensors, "args": argparse.Namespace(lr=0.1)}
        case "module":
            value = module_of(tensors).state_dict()
    torch.save(value, folder / f"{name}.pth", _use_new_zipfile_serialization=form != "legacy")
    return f"{name}.pth"


def module_of(tensors: dict[str, torch.Tensor]) -> nn.Module:
    """A module whose state dict holds these tensors."""
    root = nn.Module()
    made: dict[object, nn.Parameter] = {}
    for key, tensor in tensors.items():
        *path, last = key.split(".")
        module = root
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        place = tensor.data_ptr(), tensor.shape, tensor.stride()
        plain = made.setdefault(place, nn.Parameter(tensor.clone().contiguous(), requires_grad=False))
        module.register_parameter(last, plain)
    return root


def command(folder: Path, arguments: list[str]) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of a command line."""
    out = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        code = run([*arguments, "--json", "--quiet"])
    return code, json.loads(out.getvalue() or "{}")


SAID = ("steps", "beside", "dropped", "problems", "unmet", "notes", "container", "summary", "error")


def groups(values: dict[str, torch.Tensor]) -> set[frozenset[str]]:
    """The keys that are one tensor."""
    places: dict[object, set[str]] = {}
    for key, tensor in values.items():
        places.setdefault((tensor.data_ptr(), tensor.shape, tensor.stride()), set()).add(key)
    return {frozenset(keys) for keys in places.values() if len(keys) > 1}


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    tensors=weights(),
    others=weights(),
    forms=st.tuples(st.sampled_from(FORMS), st.sampled_from(FORMS)),
    change=st.sampled_from(CHANGES),
    option=st.sampled_from(OPTIONS),
    output=st.sampled_from(OUTPUTS),
    alike=st.booleans(),
)
def test_a_dry_run_says_what_the_run_does(
    tensors: dict[str, torch.Tensor],
    others: dict[str, torch.Tensor],
    forms: tuple[str, str],
    change: list[str],
    option: list[str],
    output: str,
    alike: bool,
) -> None:
    if change[0] == "transplant" and option[:1] != ["--tied"]:
        option = []
    if output == "out":
        option = [*option, "--max-shard", "100"]
    others = {key: tensor.clone() for key, tensor in tensors.items()} if alike else others
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = write(folder, "first", forms[0], tensors)
        second = write(folder, "second", forms[1], others)
        rest = [second if part == "second" else part for part in change[1:]]
        line = [change[0], first, *rest, *option, "-o", output]
        before = sorted(folder.rglob("*"))
        dry_code, dry = command(folder, [*line, "--dry-run"])
        assert sorted(folder.rglob("*")) == before
        code, ran = command(folder, line)
        assert (code, {key: ran.get(key) for key in SAID}) == (dry_code, {key: dry.get(key) for key in SAID})
        assert dry.get("written") is None
        assert (folder / output).exists() == (ran.get("written") is not None)
        if ran.get("written"):
            check_copies(folder, [first, second], ran, output)
            if output == "out.pth":
                check_ties(folder, ran, output)


def check_copies(folder: Path, names: list[str], ran: dict[str, Any], output: str) -> None:
    """What the plan calls copied is equal byte for byte."""
    from ckptool.core.ties import recorded_ties
    from ckptool.engine.reading import Reader

    inputs, written = [open_checkpoint(folder / name) for name in names], open_checkpoint(folder / output)
    held = {**written.other_tensors, **written.tensors}
    place = "state_dict." if ran["container"] == "torch" else ""
    with Reader() as reader:
        for step in ran["steps"]:
            key = step["target"]["key"]
            found = held.get(key) or held.get(place + key) or held.get(f"model.weights.{key}")
            if step["op"] != "copy" or found is None:
                continue
            (source,) = step["sources"]
            side = inputs[source["input"]]
            origin = side[recorded_ties(side).get(source["key"], source["key"])]
            assert reader.read_bytes(found) == reader.read_bytes(origin)


def check_ties(folder: Path, ran: dict[str, Any], output: str) -> None:
    """The tie partition of a torch file is what the plan says."""
    value = torch.load(folder / output, weights_only=False)
    held = value.get("state_dict", value.get("model", {}).get("weights", value) if "model" in value else value)
    found = groups({key: tensor for key, tensor in flat(held).items() if tensor.numel()})
    said: dict[str, set[str]] = {}
    for step in ran["steps"]:
        if "tied_to" in step:
            said.setdefault(step["tied_to"], {step["tied_to"]}).add(step["target"]["key"])
    assert found == {frozenset(keys) for keys in said.values()}


def flat(value: Any, before: str = "") -> dict[str, torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return {before: value}
    found: dict[str, torch.Tensor] = {}
    for key, child in value.items() if isinstance(value, dict) else ():
        found |= flat(child, f"{before}.{key}" if before else str(key))
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    tensors=weights(),
    form=st.sampled_from(["zip", "legacy", "nested", "module", "save_model"]),
    change=st.sampled_from([["filter"], ["filter", "--dtype", "bf16"], ["remap", "-r", "{k**} -> m.{k**}"]]),
    via=st.sampled_from([None, "via.safetensors", "via"]),
    tied=st.sampled_from(["clone", "keep-first"]),
)
def test_ties_in_are_ties_out(
    tensors: dict[str, torch.Tensor], form: str, change: list[str], via: str | None, tied: str
) -> None:
    """Also through a safetensors file, which can only record them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = write(folder, "first", form, tensors)
        wanted = {
            frozenset(("m." + key if change[0] == "remap" else key) for key in group) for group in groups(tensors)
        }
        line = [change[0], first, *change[1:], "--only-weights", "-o"]
        if via is None:
            code, ran = command(folder, [*line, "out.pth"])
        else:
            code, ran = command(folder, [*line, via, "--tied", tied])
            assert code == 0, ran
            code, ran = command(folder, ["filter", via, "-o", "out.pth"])
        assert code == 0, ran
        assert groups(flat(torch.load(folder / "out.pth"))) == wanted


def test_recorded_ties_that_are_no_ties_any_more(tmp_path: Path) -> None:
    save_file(
        {"a": torch.ones(3), "b": torch.zeros(3)},
        tmp_path / "in.safetensors",
        metadata={"ckptool.tied": '{"b": "a"}'},
    )
    code, ran = command(tmp_path, ["filter", "in.safetensors", "-o", "out.pth"])
    assert code == 0
    assert [note["level"] for note in ran["notes"]] == ["warning"]
    found = torch.load(tmp_path / "out.pth")
    assert torch.equal(found["b"], torch.zeros(3))


@pytest.mark.parametrize("text", ["null", "[]", "{", '{"b": 1}', '{"b": "nothing"}', "[" * 5000])
def test_a_record_that_is_none_is_metadata(tmp_path: Path, text: str) -> None:
    save_file({"a": torch.ones(3), "b": torch.ones(3)}, tmp_path / "in.safetensors", metadata={"ckptool.tied": text})
    code, ran = command(tmp_path, ["filter", "in.safetensors", "-o", "out.pth"])
    assert (code, ran["summary"]["tensors"]) == (0, 2)
    assert all("tied_to" not in step for step in ran["steps"])


def test_the_other_files_of_a_folder_are_carried_or_named(tmp_path: Path) -> None:
    folder = write(tmp_path, "first", "shards", {"a": torch.ones(3), "b": torch.ones(3)})
    code, ran = command(tmp_path, ["filter", folder, "-o", "out"])
    assert code == 0
    assert [(beside["name"], beside["fate"]) for beside in ran["beside"]] == [("config.json", "kept")]
    assert (tmp_path / "out" / "config.json").read_text() == "{}"
    code, ran = command(tmp_path, ["filter", folder, "-o", "out.safetensors"])
    assert ("config.json", "lost") in [(beside["name"], beside["fate"]) for beside in ran["beside"]]


def test_keep_first_counts_what_is_written(tmp_path: Path) -> None:
    tied = torch.ones(4)
    torch.save({"a": tied, "b": tied}, tmp_path / "in.pth")
    code, ran = command(tmp_path, ["filter", "in.pth", "--tied", "keep-first", "-o", "out.safetensors"])
    assert (code, ran["summary"]) == (0, {"tensors": 1, "bytes": 16, "dropped": 0})
    assert [step.get("stored", True) for step in ran["steps"]] == [True, False]
