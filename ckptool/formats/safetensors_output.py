"""A plan as a safetensors file, or as a folder of them with the index that names them."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import overload

from ckptool.core.dtypes import DTYPES
from ckptool.core.plan import Copies, Plan
from ckptool.core.spec import Form, TensorSpec
from ckptool.formats.contents import contents_of
from ckptool.formats.image import Image, Images, Text
from ckptool.formats.safetensors_header import to_header
from ckptool.formats.safetensors_write import HEADER_LIMIT, METADATA, safetensors_image
from ckptool.formats.shard_names import INDEX, SINGLE, shard_name
from ckptool.formats.writer import Loading, Output, Portion


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
    if isinstance(plan.steps, Copies):
        return _copied_output(plan, plan.steps, {name: (0, len(plan.steps))})
    steps = _stored(plan)
    return Output.of({name: _image(plan, steps)}, _Specs(plan, steps))


def folder_output(plan: Plan, name: str, limit: int) -> Output:
    """Shards of at most `limit` bytes of data (a larger tensor has its own), and the index that names them."""
    if isinstance(plan.steps, Copies):
        return _copied_output(plan, plan.steps, _named(_grouped([form.nbytes for form in plan.steps.forms], limit)))
    steps = _stored(plan)
    targets = _Specs(plan, steps)
    nbytes = array("Q", (target.nbytes for target in targets))
    shards = _named(_grouped(nbytes, limit))
    images = {shard: _image(plan, steps[low:high]) for shard, (low, high) in shards.items()}
    if len(shards) > 1:
        images[INDEX] = _index([target.key for target in targets], sum(nbytes), shards)
    return Output.of(images, targets)


def _named(groups: Iterable[tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Shards with the first and the end of their tensors."""
    groups = list(groups)
    if len(groups) == 1:
        return {SINGLE: groups[0]}
    return {shard_name(number, len(groups)): group for number, group in enumerate(groups, 1)}


def _copied_output(plan: Plan, steps: Copies, files: Mapping[str, tuple[int, int]]) -> Output:
    """Files of columns, each laid out when it is asked for; what may be refused is laid out now."""
    nbytes = [form.nbytes for form in steps.forms]
    makers = {file: partial(_image, plan, range(*group)) for file, group in files.items()}
    for file, (low, high) in files.items():
        if _may_be_refused(steps.keys[low:high], steps.forms[low:high]):
            makers[file]()
    portions = {file: Portion(high - low, sum(nbytes[low:high])) for file, (low, high) in files.items() if low < high}
    index = {INDEX: partial(_index, steps.keys, sum(nbytes), files)} if len(files) > 1 else {}
    return Output(Images({**makers, **index}), _Specs(plan, range(len(steps))), portions, is_of_columns=True)


def _may_be_refused(keys: Sequence[str], forms: Sequence[Form]) -> bool:
    """True if a shard of these tensors has a key that cannot be written, or perhaps too long a header."""
    if METADATA in keys:
        return True
    try:
        length = sum(map(len, map(str.encode, keys)))
    except UnicodeEncodeError:
        return True
    dimensions = max((len(form.shape) for form in set(forms)), default=0)
    return 6 * length + (100 + 20 * dimensions) * len(keys) > HEADER_LIMIT


def _index(keys: Sequence[str], nbytes: int, shards: Mapping[str, tuple[int, int]]) -> Image:
    """The index of keys that have so many bytes, each shard with the first and the end of its keys."""

    def parts() -> Iterator[bytes]:
        before = f'{{\n  "metadata": {{\n    "total_size": {nbytes}\n  }},\n  "weight_map": {{'
        for shard, (low, high) in shards.items():
            named = _json(shard)
            for at in range(low, high):
                yield f"{before}\n    {_json(keys[at])}: {named}".encode()
                before = ","
        yield b"\n  }\n}\n"

    text = Text(parts)
    return Image(text.size, text, ())


_json = json.JSONEncoder(ensure_ascii=False).encode


def _grouped(nbytes: Sequence[int], limit: int) -> Iterator[tuple[int, int]]:
    """The first and the end of the tensors of each shard, at least one shard.

    Example:
        >>> list(_grouped([3, 3, 3, 9, 1], 6)), list(_grouped([], 6))
        ([(0, 2), (2, 3), (3, 4), (4, 5)], [(0, 0)])
    """
    first, size = 0, 0
    for number, each in enumerate(nbytes):
        if number > first and size + each > limit:
            yield first, number
            first, size = number, 0
        size += each
    yield first, len(nbytes)


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
