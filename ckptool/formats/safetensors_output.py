"""A plan as a safetensors file, or as a folder of them with the index that names them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import overload

from ckptool.core.dtypes import DTYPES
from ckptool.core.plan import Copies, Plan
from ckptool.core.spec import TensorSpec
from ckptool.formats.contents import contents_of
from ckptool.formats.image import Image
from ckptool.formats.safetensors_header import to_header
from ckptool.formats.safetensors_write import safetensors_image
from ckptool.formats.shard_names import INDEX, SINGLE, shard_name
from ckptool.formats.writer import Loading, Output


def unheld(spec: TensorSpec) -> str:
    """What of a tensor the format cannot hold: its dtype, or this shape of it; "" if it can."""
    if to_header(spec.dtype, spec.shape) is not None:
        return ""
    return spec.short if DTYPES[spec.dtype].safetensors else spec.dtype


def file_loading(path: str, wrap: str | None) -> Loading:
    """How safetensors loads one file."""
    return Loading(f"load_file({path!r})", ("from safetensors.torch import load_file",))


def folder_loading(path: str, wrap: str | None) -> Loading:
    """How safetensors loads a folder of shards."""
    shards = f'for shard in sorted(Path({path!r}).glob("*.safetensors"))'
    state = f"{{key: value {shards} for key, value in load_file(shard).items()}}"
    return Loading(state, ("from pathlib import Path", "from safetensors.torch import load_file"))


def file_output(plan: Plan, name: str, limit: int) -> Output:
    """One file of that name."""
    steps = _stored(plan)
    return Output({name: _image(plan, steps)}, _Specs(plan, steps))


def folder_output(plan: Plan, name: str, limit: int) -> Output:
    """Shards of at most `limit` bytes of data (a larger tensor has its own), and the index that names them."""
    steps = _stored(plan)
    groups = list(_grouped(plan, steps, limit)) or [[]]
    if len(groups) == 1:
        return Output({SINGLE: _image(plan, groups[0])}, _Specs(plan, steps))
    images: dict[str, Image] = {}
    weight_map: dict[str, str] = {}
    for number, group in enumerate(groups, 1):
        shard = shard_name(number, len(groups))
        images[shard] = _image(plan, group)
        weight_map.update({plan.steps[index].target.key: shard for index in group})
    total = sum(plan.steps[index].target.nbytes for index in steps)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    text = (json.dumps(index, indent=2, ensure_ascii=False) + "\n").encode()
    images[INDEX] = Image(len(text), ((0, text),), ())
    return Output(images, _Specs(plan, steps))


def _stored(plan: Plan) -> Sequence[int]:
    if isinstance(plan.steps, Copies):
        return range(len(plan.steps))
    return [index for index, step in enumerate(plan.steps) if step.stored]


class _Specs(Sequence[TensorSpec]):
    """The specs of some steps, each made when it is asked for."""

    def __init__(self, plan: Plan, steps: Sequence[int]) -> None:
        self._plan = plan
        self._steps = steps

    @overload
    def __getitem__(self, at: int) -> TensorSpec: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[TensorSpec]: ...
    def __getitem__(self, at: int | slice) -> TensorSpec | Sequence[TensorSpec]:
        if isinstance(at, slice):
            return _Specs(self._plan, self._steps[at])
        return self._plan.steps[self._steps[at]].target

    def __len__(self) -> int:
        return len(self._steps)


def _image(plan: Plan, steps: Sequence[int]) -> Image:
    return safetensors_image(_Specs(plan, steps), lambda at: contents_of(plan, steps[at]), plan.metadata)


def _grouped(plan: Plan, steps: Sequence[int], limit: int) -> Iterator[Sequence[int]]:
    """The steps of each shard."""
    first = size = 0
    for end, spec in enumerate(_Specs(plan, steps)):
        nbytes = spec.nbytes
        if end > first and size + nbytes > limit:
            yield steps[first:end]
            first, size = end, 0
        size += nbytes
    if len(steps) > first:
        yield steps[first:]
