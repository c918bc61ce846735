"""Very many keys in little memory: plans in columns are what plans of objects are; JSON in windows is JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import FIXTURES
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import ones

from ckptool.commands.beside.complete import complete
from ckptool.commands.consult import answers
from ckptool.commands.filter import plan_filter
from ckptool.commands.remap import plan_remap
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.columns import ColumnSpecs
from ckptool.core.fold import Group, fold, rollup
from ckptool.core.outlines import by_outline, outline, outlines
from ckptool.core.plan import Copies, Plan
from ckptool.core.shapes import keys_below, shapes
from ckptool.core.spec import Form, TensorSpec
from ckptool.formats import strict_json
from ckptool.formats.opening import open_checkpoint
from ckptool.formats.safetensors_header import parse
from ckptool.formats.strict_json import JsonError, JsonReader
from ckptool.recipes import matching
from ckptool.recipes.expand import expand
from ckptool.recipes.recipe import parse_recipe
from ckptool.report.plan_fates import counts
from ckptool.report.plan_rows import key_rows, nbytes_before, tensors_text, unruled_rows


def in_objects(checkpoint: Checkpoint) -> Checkpoint:
    """The same with an object for each tensor."""
    return replace(checkpoint, tensors=dict(checkpoint.tensors))


def said(plan: Plan) -> Mapping[str, object]:
    """All that is told of a plan."""
    return {
        "steps": list(plan.steps),
        "dropped": plan.dropped,
        "problems": plan.problems,
        "notes": plan.notes,
        "metadata": plan.metadata,
        "rows": key_rows(plan),
        "each": key_rows(plan, each=True),
        "unruled": unruled_rows(plan),
        "counts": list(counts(plan)),
        "sums": (plan.nbytes, plan.stored, nbytes_before(plan), tensors_text(plan)),
        "answers": answers(plan),
    }


@pytest.mark.parametrize("path", ["tuned.safetensors", "shards", "vit-hf.safetensors"])
@pytest.mark.parametrize("container", ["safetensors", "folder", "torch"])
@pytest.mark.parametrize(
    "choices", [[], [("drop", "*.bias")], [("keep", "layer1.*"), ("drop", "*.conv1.*")], [("drop", "*.weight")]]
)
@pytest.mark.parametrize("dtype", [None, "fp16", "f64", "f32"])
def test_a_plan_in_columns_is_the_plan_of_objects(
    path: str, container: str, choices: list[tuple[str, str]], dtype: str | None
) -> None:
    checkpoint = open_checkpoint(FIXTURES / path)
    assert checkpoint.columns is not None
    choices = [choice for choice in choices if path != "vit-hf.safetensors" or "layer1" not in choice[1]]
    choices = [choice for choice in choices if path != "vit-hf.safetensors" or "conv1" not in choice[1]]
    lean, plain = (plan_filter(side, choices, dtype=dtype) for side in (checkpoint, in_objects(checkpoint)))
    assert isinstance(lean.steps, Copies)
    assert not isinstance(plain.steps, Copies)
    assert said(complete(lean, container)) == said(complete(plain, container))


@pytest.mark.parametrize("dtype", ["fp16", "f64"])
@pytest.mark.parametrize("rule", ["layer1. -> stage1.", "layer1.* -> !", "{a*}.bias -> {a}.b"])
def test_a_remap_with_a_dtype_in_columns_is_that_of_objects(rule: str, dtype: str) -> None:
    checkpoint = open_checkpoint(FIXTURES / "tuned.safetensors")
    recipe = parse_recipe(["?" + rule])
    lean, plain = (plan_remap(side, recipe, dtype=dtype) for side in (checkpoint, in_objects(checkpoint)))
    assert isinstance(lean.steps, Copies)
    assert not isinstance(plain.steps, Copies)
    assert said(complete(lean, "safetensors")) == said(complete(plain, "safetensors"))


def test_what_a_container_cannot_hold_is_found_by_forms(tmp_path: Path) -> None:
    save_file({"a": ones(2), "b": ones(3)}, tmp_path / "a.safetensors")
    checkpoint = open_checkpoint(tmp_path / "a.safetensors")
    plan = plan_filter(checkpoint)
    assert isinstance(plan.steps, Copies)
    odd = replace(
        plan,
        steps=Copies(
            0,
            ["a", "b"],
            ["a", "b"],
            [form._replace(dtype="complex128") for form in plan.steps.forms],
            plan.steps.reasons,
        ),
    )
    (problem,) = complete(odd, "safetensors").problems
    assert "cannot hold 2 of 2 tensors: a is complex128" in problem.message


# ---------------------------------------------------------------------------------------------- JSON in windows

SPACES = st.text(" \t\n", max_size=3)
NAMES = st.one_of(st.text(max_size=6), st.sampled_from(["w", "long" * 9, "\\u00e9", 'q"', "é", "__metadata__"]))


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """Headers of safetensors files in any style, with members of other kinds and errors among them."""
    members = []
    end = 0
    for name in draw(st.lists(NAMES, max_size=6)):
        size = draw(st.integers(0, 9))
        entry: object = {"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}
        end += size
        entry = draw(st.sampled_from([entry, entry, entry, {**entry, "more": 1}, {"a": "b"}, 5]))  # type: ignore[dict-item]
        members.append(f"{json.dumps(name, ensure_ascii=draw(st.booleans()))}{draw(SPACES)}:{json.dumps(entry)}")
    text = draw(SPACES) + "{" + f"{draw(SPACES)},{draw(SPACES)}".join(members) + "}" + draw(SPACES)
    cut = draw(st.integers(0, 3 * len(text)))
    return text.encode("utf-8", "surrogatepass")[: cut if cut < len(text) else None]


def outcome(text: bytes) -> object:
    try:
        found = parse(JsonReader.of(text))
    except JsonError as problem:
        return str(problem)
    return found


@given(headers(), st.integers(1, 40))
def test_windows_change_nothing(text: bytes, size: int) -> None:
    whole = outcome(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict_json, "_WINDOWS", (size, 2 * size))
        patch.setattr(strict_json, "_LOOK_AHEAD", size)
        patch.setattr(strict_json, "_BATCH", size)
        assert outcome(text) == whole


@given(st.dictionaries(NAMES, NAMES, max_size=8), st.integers(1, 30), st.sampled_from([None, 1]))
def test_strings_in_windows_are_those_of_json(pairs: dict[str, str], size: int, indent: int | None) -> None:
    text = json.dumps({"weight_map": pairs, "metadata": {"total_size": 3}}, indent=indent).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict_json, "_WINDOWS", (size, size))
        patch.setattr(strict_json, "_LOOK_AHEAD", size)
        patch.setattr(strict_json, "_BATCH", size)
        reader = JsonReader.of(text)
        found = {
            member: reader.strings("x") if member == "weight_map" else reader.small_value()
            for member in reader.members()
        }
    assert found == json.loads(text)


@pytest.mark.parametrize("between", ["}", "},", ",}", " }"])
def test_nothing_stands_behind_the_end_of_a_header(between: str) -> None:
    entry = '{"dtype": "U8", "shape": [1], "data_offsets": [%d, %d]}'
    text = '{"a": ' + entry % (0, 1) + between + '"b": ' + entry % (1, 2) + "}"
    with pytest.raises(JsonError, match=r"goes on after its end|is not valid JSON"):
        parse(JsonReader.of(text.encode()))


def test_a_field_that_is_there_twice_is_refused() -> None:
    text = '{"a": {"dtype": "U8", "dtype": "U8", "data_offsets": [0, 1]}, "b": {"dtype": "U8", "shape": [0], %s}}'
    with pytest.raises(JsonError, match="has a field twice"):
        parse(JsonReader.of((text % '"data_offsets": [1, 1]').encode()))


# ---------------------------------------------------------------------------------------------- outlines

ODD = st.sampled_from(["\n", "x" * 1001 + "7", "²", "٣", "é", "7", "12", ".", "layer"])


@given(st.lists(st.lists(ODD, max_size=6).map("".join), unique=True))
def test_keys_of_one_outline_differ_in_digits_only(keys: list[str]) -> None:
    names = outlines(keys)
    groups = by_outline(keys)
    assert sorted(key for alike in groups.values() for key in alike) == sorted(keys)
    for key, name in zip(keys, names, strict=True):
        assert key in groups[name]
        assert len(key) == len(name)
        assert name in (key, outline(key))


RULES = (
    "model. ->",
    "-> net.",
    "-> .w",
    ".experts. -> .e.",
    ".w1. -> .up.",
    "layers.{i}.{k**} -> h.{i}.{k}",
    "layers.{i}.{k**} -> h.{i+1}.{k}",
    "layers.{i}.{k**} -> h{i}x{k}",
    "model.layers.{i}.{k**} -> layers.{i}.{k}",
    "model.{p*}.{i}.{k**} -> {p}.{k}.{i}",
    "{m**}.experts.{e}.{k**} -> {m}.experts.{e}.mlp.{k}",
    "{m**}.experts.{e}.{p=up|down} -> {m}.{p=w1|w2}.{e}",
    "{m**}.{w1,up}.{k**} -> {m}.{w3,gate}.{k}",
    "layers.{2-11}.{k**} -> some.{12-21}.{k}",
    "layers.{i=1..3}.{k**} -> few.{i}.{k}",
    "layers.{2*i}.{k**} -> even.{i}.{k}",
    "layers.7.{k**} -> seventh.{k}",
    "layers.{i}.experts.{i}.{k**} -> same.{i}.{k}",
    "norm -> end",
    "layers.3. -> !",
    "{m**}.down -> !",
    ".up. -> !",
    "*.bias -> *.b",
    "{m**} -> all.{m}",
)


@given(
    st.lists(st.sampled_from(RULES), min_size=1, max_size=4, unique=True),
    st.lists(
        st.tuples(
            st.sampled_from(["model.layers", "layers", "model.blocks"]),
            st.integers(0, 12),
            st.sampled_from(["", "experts.{}", "w{}", "experts.{}.w1", "0{}"]),
            st.integers(0, 12),
            st.sampled_from(["up", "down", "w1", "w1.bias", "up.weight"]),
        ),
        max_size=30,
        unique=True,
    ),
)
def test_keys_of_one_outline_become_what_each_alone_becomes(
    texts: list[str], parts: list[tuple[str, int, str, int, str]]
) -> None:
    names = [".".join(filter(None, (top, str(i), mid.format(e), last))) for top, i, mid, e, last in parts]
    keys = list(dict.fromkeys([*names, "norm", "lm_head.weight"]))
    recipe = parse_recipe([f"?{text}" for text in texts])
    specs = {key: TensorSpec(key, "float32", (2,)) for key in keys}
    columns = ColumnSpecs(keys, [Form("float32", (2,), 8)] * len(keys))
    found = []
    for many in (1, 10**9):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(matching, "_MANY", many)
            found += [expand(recipe, specs), expand(recipe, columns)]
    for other in found[1:]:
        assert list(found[0].steps) == list(other.steps)
        assert found[0].dropped == other.dropped
        assert found[0].uses == other.uses
        assert sorted(found[0].problems, key=str) == sorted(other.problems, key=str)


# ---------------------------------------------------------------------------------------------- folding

PARTS = st.sampled_from(["a", "b", "", "0", "1", "2", "10", "w", "x1"])
KEYS = st.lists(st.lists(PARTS, min_size=1, max_size=5).map(".".join), unique=True, max_size=40)


@given(KEYS, st.data())
def test_a_fold_has_every_key_once(keys: list[str], data: st.DataObject) -> None:
    labels = [data.draw(st.sampled_from("fg")) for _ in keys]
    found = list(keys_below(shapes(zip(keys, labels, strict=True))[-1]))
    assert sorted(found) == sorted(keys)
    root = fold(zip(keys, labels, strict=True))
    total: dict[object, int] = {}
    for child in root.children:
        assert sum(child.labels.values()) == child.count == len(child.sample)
        for label, many in child.labels.items():
            total[label] = total.get(label, 0) + many
    assert total == {label: labels.count(label) for label in sorted(set(labels))}


@given(KEYS, st.data())
def test_a_rollup_has_every_key_once_with_its_label(keys: list[str], data: st.DataObject) -> None:
    labels = {key: data.draw(st.sampled_from("fgh")) for key in keys}
    groups: list[Group] = rollup(labels.items())
    assert sorted(key for group in groups for key in group.keys) == sorted(keys)
    assert all(labels[key] == group.label for group in groups for key in group.keys)
