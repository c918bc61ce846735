"""A plan as a safetensors file, or as a folder of them with the index that names them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from ckptool.core.dtypes import DTYPES
from ckptool.core.plan import Plan
from ckptool.core.spec import TensorSpec
from ckptool.formats.contents import contents_of
from ckptool.formats.image import Image
from ckptool.formats.safetensors_header import to_header
from ckptool.formats.safetensors_write import Entry, safetensors_image
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
    return Output({name: _image(plan, steps)}, _specs(plan, steps))


def folder_output(plan: Plan, name: str, limit: int) -> Output:
    """Shards of at most `limit` bytes of data (a larger tensor has its own), and the index that names them."""
    steps = _stored(plan)
    groups = list(_grouped(plan, steps, limit)) or [[]]
    if len(groups) == 1:
        return Output({SINGLE: _image(plan, groups[0])}, _specs(plan, steps))
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
    return Output(images, _specs(plan, steps))


def _stored(plan: Plan) -> list[int]:
    return [index for index, step in enumerate(plan.steps) if step.stored]


def _specs(plan: Plan, steps: Sequence[int]) -> tuple[TensorSpec, ...]:
    return tuple(plan.steps[index].target for index in steps)


def _image(plan: Plan, steps: Sequence[int]) -> Image:
    entries = [Entry(plan.steps[index].target, contents_of(plan, index)) for index in steps]
    return safetensors_image(entries, plan.metadata)


def _grouped(plan: Plan, steps: Sequence[int], limit: int) -> Iterator[list[int]]:
    group: list[int] = []
    size = 0
    for index in steps:
        nbytes = plan.steps[index].target.nbytes
        if group and size + nbytes > limit:
            yield group
            group, size = [], 0
        group.append(index)
        size += nbytes
    if group:
        yield group
