"""From a plan to the files that will hold it: which format, which shards, which bytes where.

Still headers only. What comes out is one `Image` per file; `ckptool.engine.apply` fills them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ckptool.core.dtypes import DTYPES
from ckptool.core.errors import CkptError, OutputError, PlanError
from ckptool.core.plan import Container, Plan, Source, sources_of
from ckptool.core.spec import TensorSpec
from ckptool.engine.shard_names import INDEX, SINGLE, shard_name
from ckptool.formats.contents import contents_of
from ckptool.formats.image import Image
from ckptool.formats.registry import written_endings
from ckptool.formats.torch.tensor import subclass_of

DEFAULT_SHARD = 5_000_000_000
"""Bytes of one shard where --max-shard-size does not say: what Hugging Face's tools write."""


@dataclass(frozen=True, slots=True)
class Output:
    """The files of an output.

    Attributes:
        images: by file name, in the order to write them; the index last.
        specs: every tensor that the output will hold when it is opened.
        place: dotted path of the dict inside the file that holds them; empty for the file itself.
        is_folder: True for a sharded output.
    """

    images: Mapping[str, Image]
    specs: tuple[TensorSpec, ...]
    place: str
    is_folder: bool


def container_of(target: Path) -> Container:
    """The container that an output's name asks for.

    Example:
        >>> container_of(Path("body.safetensors")), container_of(Path("out")), container_of(Path("llama-3.1"))
        ('safetensors', 'folder', 'folder')

    Raises:
        OutputError: for an ending that ckptool does not write.
    """
    suffix = target.suffix.lower()
    if suffix[1:2].isdigit():  # "llama-3.1" has no ending
        return "folder"
    written = written_endings()
    if suffix and suffix not in written and not target.is_dir():
        known = ", ".join(written)
        raise OutputError(f'"{suffix}" is not a format that is written', hint=f"write {known}, or a folder of shards")
    return written.get(suffix, "folder")


def refusals(plan: Plan) -> Iterator[CkptError]:
    """Why the container of a complete plan cannot hold it, from headers."""
    yield from _uncomputable(plan)
    if plan.container == "torch":
        from ckptool.formats.torch.output import torch_refusal

        error = torch_refusal(plan)
    else:
        error = _safetensors_refusal(plan)
    if error is not None:
        yield error


def _uncomputable(plan: Plan) -> Iterator[CkptError]:
    """The first tensor that is computed of what can only be copied: a sparse, quantized or packed one."""
    for step in plan.steps:
        for source in sources_of(step.value) if not step.is_copy else ():
            tensor = plan.inputs[source.input][source.key]
            if tensor.layout != "strided" or DTYPES[tensor.dtype].bits < 8:
                what = tensor.layout if tensor.layout != "strided" else tensor.dtype
                yield PlanError(
                    f"{source.key} is {what}: it can be copied, not computed with", hint="leave it out", key=source.key
                )
                return


def encode(plan: Plan, target: Path, *, max_shard: int | None = None) -> Output:
    """Lay a plan's output out.

    Args:
        plan: what it holds, complete for the container of `target`.
        target: its name, which says the container.
        max_shard: bytes of one shard, for a folder.

    Raises:
        OutputError: if the container cannot hold a tensor.
    """
    container = container_of(target)
    if max_shard is not None and container != "folder":
        raise OutputError(
            f"{target} is one file; shards make a folder", hint=f"write {target.with_suffix('')}", path=target
        )
    if container == "torch":
        from ckptool.formats.torch.output import torch_output

        image, specs, place = torch_output(plan)
        return Output({target.name: image}, specs, place, is_folder=False)
    if error := _safetensors_refusal(plan):
        raise error
    steps, metadata = [index for index, step in enumerate(plan.steps) if step.stored], plan.metadata
    specs = tuple(plan.steps[index].target for index in steps)
    if container == "safetensors":
        return Output({target.name: _safetensors(plan, steps, metadata)}, specs, "", is_folder=False)
    return Output(_shards(plan, steps, metadata, max_shard or DEFAULT_SHARD), specs, "", is_folder=True)


def _safetensors_refusal(plan: Plan) -> CkptError | None:
    """Why safetensors cannot hold the plan's tensors; None if it can."""
    from ckptool.formats.safetensors_header import to_header

    bad: list[tuple[str, str]] = []
    stored = [step for step in plan.steps if step.stored]
    for step in stored:
        layout = "strided"
        if isinstance(step.value, Source):
            tensor = plan.inputs[step.value.input][step.value.key]
            layout = tensor.layout
            layout = subclass_of(tensor.node) or layout if layout != "strided" else layout
        if layout != "strided" or to_header(step.target.dtype, step.target.shape) is None:
            bad.append((step.target.key, layout if layout != "strided" else _unheld(step.target)))
    if not bad:
        return None
    key, what = bad[0]
    return OutputError(
        f"safetensors cannot hold {len(bad)} of {len(stored)} {'tensor' if len(stored) == 1 else 'tensors'}: "
        f"{key} is {what}",
        hint="write a .pth file, or --drop them",
        key=key,
    )


def _unheld(spec: TensorSpec) -> str:
    """What of a tensor the format cannot hold: its dtype, or this shape of it."""
    return spec.short if DTYPES[spec.dtype].safetensors else spec.dtype


def _safetensors(plan: Plan, steps: Sequence[int], metadata: Mapping[str, str]) -> Image:
    from ckptool.formats.safetensors_write import Entry, safetensors_image

    return safetensors_image([Entry(plan.steps[index].target, contents_of(plan, index)) for index in steps], metadata)


def _shards(plan: Plan, steps: Sequence[int], metadata: Mapping[str, str], limit: int) -> dict[str, Image]:
    """Shards of at most `limit` bytes of data (a larger tensor has its own), and the index that names them."""
    groups = list(_grouped(plan, steps, limit)) or [[]]
    if len(groups) == 1:
        return {SINGLE: _safetensors(plan, groups[0], metadata)}
    images: dict[str, Image] = {}
    weight_map: dict[str, str] = {}
    for number, group in enumerate(groups, 1):
        name = shard_name(number, len(groups))
        images[name] = _safetensors(plan, group, metadata)
        weight_map.update({plan.steps[index].target.key: name for index in group})
    total = sum(plan.steps[index].target.nbytes for index in steps)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    text = (json.dumps(index, indent=2, ensure_ascii=False) + "\n").encode()
    images[INDEX] = Image(len(text), ((0, text),), ())
    return images


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
