"""Whatever nested thing is saved: torch -> torch keeps it, and torch -> safetensors -> torch keeps its weights."""

from __future__ import annotations

import collections
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptool.commands.filter import plan_filter
from ckptool.formats.opening import open_checkpoint
from tests.deep_equal import assert_equal, bits, sharing
from tests.writing import apply

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool]
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
# two paths must not give the same name, so that dropping one cannot mean the other
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=".[]"), min_size=1, max_size=8)


@st.composite
def tensors(draw: st.DrawFn, pool: list[torch.Tensor]) -> torch.Tensor:
    """A new tensor, or one from the pool, or a view of it."""
    if pool and draw(st.booleans()):
        found = draw(st.sampled_from(pool))
        way = draw(st.sampled_from(["same", "transposed", "part", "steps", "expanded"]))
        if way == "transposed":
            return found.t() if found.dim() == 2 else found
        if way == "part" and found.dim():
            low = draw(st.integers(0, len(found)))
            return found[low : draw(st.integers(low, len(found)))]
        if way == "steps" and found.dim():
            return found[:: draw(st.integers(1, 3))]
        if way == "expanded":
            return found.unsqueeze(0).expand(draw(st.integers(1, 3)), *found.shape)
        return found
    shape = draw(SHAPES)
    made = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(len(pool)))
    tensor = made.to(draw(st.sampled_from(DTYPES)))
    if tensor.is_floating_point() and draw(st.booleans()):
        tensor = torch.nn.Parameter(tensor, requires_grad=draw(st.booleans()))
    pool.append(tensor)
    return tensor


PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.complex_numbers(allow_nan=False),
    st.frozensets(st.integers(), max_size=3),
)


@st.composite
def checkpoints(draw: st.DrawFn) -> dict[str, Any]:
    """Weights beside and among other things, some of them shared."""
    pool: list[torch.Tensor] = []
    weights = draw(st.dictionaries(KEYS, tensors(pool), min_size=1, max_size=5))
    if draw(st.booleans()):
        weights = collections.OrderedDict(weights)
    if draw(st.booleans()):
        return dict(weights)
    inner = st.recursive(
        st.one_of(PLAIN, tensors(pool)),
        lambda child: st.one_of(
            st.lists(child, max_size=3), st.tuples(child, child), st.dictionaries(st.one_of(KEYS, st.integers()), child)
        ),
        max_leaves=6,
    )
    beside = draw(st.dictionaries(KEYS.filter(lambda key: key != "state_dict"), inner, max_size=3))
    return {"state_dict": weights, **beside}


def written(folder: Path, value: Any, legacy: bool, *choices: tuple[str, str], suffix: str = "pth") -> Path:
    torch.save(value, folder / "in.pth", _use_new_zipfile_serialization=not legacy)
    apply(plan_filter(open_checkpoint(folder / "in.pth"), choices), folder / f"out.{suffix}", force=True)
    return folder / f"out.{suffix}"


def load(path: Path) -> Any:
    return torch.load(path, weights_only=False)


MANY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@MANY
@given(checkpoints(), st.booleans())
def test_torch_to_torch_keeps_everything(value: dict[str, Any], legacy: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        target = written(Path(name), value, legacy)
        before, after = load(Path(name) / "in.pth"), load(target)
        assert_equal(before, after)
        assert sharing(before) >= sharing(after)  # thin views of wide storages are packed


@MANY
@given(checkpoints(), st.booleans(), st.data())
def test_a_dropped_key_is_all_that_is_missing(value: dict[str, Any], legacy: bool, data: st.DataObject) -> None:
    weights = value.get("state_dict", value)
    if not isinstance(weights, dict) or len(weights) < 2:
        return
    gone = data.draw(st.sampled_from(list(weights)))
    with tempfile.TemporaryDirectory() as name:
        torch.save(value, Path(name) / "in.pth", _use_new_zipfile_serialization=not legacy)
        checkpoint = open_checkpoint(Path(name) / "in.pth")
        if set(checkpoint) != set(weights):
            return  # everything in the file counts as weights
        plan = plan_filter(checkpoint)
        steps = tuple(step for step in plan.steps if step.target.key != gone)
        apply(replace(plan, steps=steps), Path(name) / "out.pth")
        before, after = load(Path(name) / "in.pth"), load(Path(name) / "out.pth")
        del before.get("state_dict", before)[gone]
        assert_equal(before, after)


@MANY
@given(checkpoints(), st.booleans())
def test_through_safetensors_and_back(value: dict[str, Any], legacy: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        middle = written(Path(name), value, legacy, suffix="safetensors")
        found = safetensors.torch.load_file(middle)
        apply(plan_filter(open_checkpoint(middle)), Path(name) / "back.pth")
        back = load(Path(name) / "back.pth")
        original = open_checkpoint(Path(name) / "in.pth")
        assert set(found) == set(back) == set(original)
        weights = value.get("state_dict", value)
        for key, tensor in weights.items() if set(weights) == set(found) else ():
            assert (found[key].dtype, found[key].shape) == (tensor.dtype, tensor.shape)
            assert bits(found[key]) == bits(back[key]) == bits(tensor)
