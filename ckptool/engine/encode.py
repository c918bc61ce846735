"""From a plan to the files that will hold it: which format, which shards, which bytes where.

Still headers only. What comes out is one `Image` per file; `ckptool.engine.apply` fills them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ckptool.core.checkpoint import Extra, Note
from ckptool.core.errors import OutputError
from ckptool.core.plan import Plan, Source
from ckptool.core.spec import TensorSpec
from ckptool.formats.contents import contents_of, tied_steps
from ckptool.formats.image import Image
from ckptool.formats.torch.tensor import subclass_of

Container = Literal["torch", "safetensors", "folder"]
Tied = Literal["clone", "keep-first"]

SUFFIXES: Mapping[str, Container] = {
    ".pth": "torch",
    ".pt": "torch",
    ".bin": "torch",
    ".ckpt": "torch",
    ".safetensors": "safetensors",
    "": "folder",
}
DEFAULT_SHARD = 5_000_000_000
"""Bytes of one shard where --max-shard does not say: what Hugging Face's tools write."""

TIED_KEY = "ckptool.tied"
"""The entry of `__metadata__` that says which key was written under which other key."""


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
    if suffix not in SUFFIXES and not target.is_dir():
        known = ", ".join(filter(None, SUFFIXES))
        raise OutputError(f'"{suffix}" is not a format that is written', hint=f"write {known}, or a folder of shards")
    return SUFFIXES.get(suffix, "folder")


def encode(plan: Plan, target: Path, *, max_shard: int | None = None, tied: Tied = "clone") -> Output:
    """Lay a plan's output out.

    Args:
        plan: what it holds.
        target: its name, which says the container.
        max_shard: bytes of one shard, for a folder.
        tied: what a safetensors file gets for tensors that share their bytes.

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
    steps, metadata = _settle_ties(plan, tied)
    _refuse_what_safetensors_cannot_hold(plan, steps)
    specs = tuple(plan.steps[index].target for index in steps)
    if container == "safetensors":
        return Output({target.name: _safetensors(plan, steps, metadata)}, specs, "", is_folder=False)
    return Output(_shards(plan, steps, metadata, max_shard or DEFAULT_SHARD), specs, "", is_folder=True)


def _settle_ties(plan: Plan, tied: Tied) -> tuple[list[int], dict[str, str]]:
    """The steps to write, and the metadata with the tied keys."""
    ties = tied_steps(plan)
    metadata = dict(plan.metadata)
    if not all("safetensors" in checkpoint.format for checkpoint in plan.inputs):
        metadata.setdefault("format", "pt")  # transformers refuses files that do not say which framework wrote them
    if ties:
        names = {plan.steps[i].target.key: plan.steps[j].target.key for i, j in ties.items()}
        metadata[TIED_KEY] = json.dumps(names, ensure_ascii=False)
    left_out = set(ties) if tied == "keep-first" else set()
    return [index for index in range(len(plan.steps)) if index not in left_out], metadata


def tie_notes(plan: Plan, target: Path, tied: Tied) -> tuple[Note, ...]:
    """What becomes of tied tensors in a safetensors output, said aloud."""
    ties = tied_steps(plan)
    if container_of(target) == "torch" or not ties:
        return ()
    keys = tuple(plan.steps[index].target.key for index in ties)
    count = f"{len(keys)} tied tensor{'s' if len(keys) > 1 else ''}"
    if tied == "clone":
        return (Note(f"{count} written as a copy of their own", "--tied keep-first writes them once", keys),)
    return (Note(f"{count} left out, the first of each group is kept", "--tied clone writes them all", keys),)


def left_behind(plan: Plan, target: Path) -> tuple[Extra, ...]:
    """What the frame holds beside the weights and this output's container cannot hold."""
    if plan.frame is None or container_of(target) == "torch":
        return ()
    dropped = set(plan.dropped_extras)
    return tuple(extra for extra in plan.inputs[plan.frame].extras if extra.name not in dropped)


def _refuse_what_safetensors_cannot_hold(plan: Plan, steps: Sequence[int]) -> None:
    from ckptool.formats.safetensors_write import NAMES

    bad: list[tuple[str, str]] = []
    for index in steps:
        step = plan.steps[index]
        layout = "strided"
        if isinstance(step.value, Source):
            tensor = plan.inputs[step.value.input][step.value.key]
            layout = tensor.layout
            layout = subclass_of(tensor.node) or layout if layout != "strided" else layout
        if layout != "strided" or step.target.dtype not in NAMES:
            bad.append((step.target.key, layout if layout != "strided" else step.target.dtype))
    if bad:
        key, what = bad[0]
        raise OutputError(
            f"safetensors cannot hold {len(bad)} of {len(steps)} {'tensor' if len(steps) == 1 else 'tensors'}: "
            f"{key} is {what}",
            hint="write a .pth file, or --drop them",
            key=key,
        )


def _safetensors(plan: Plan, steps: Sequence[int], metadata: Mapping[str, str]) -> Image:
    from ckptool.formats.safetensors_write import Entry, safetensors_image

    return safetensors_image([Entry(plan.steps[index].target, contents_of(plan, index)) for index in steps], metadata)


def _shards(plan: Plan, steps: Sequence[int], metadata: Mapping[str, str], limit: int) -> dict[str, Image]:
    """Shards of at most `limit` bytes of data (a larger tensor has its own), and the index that names them."""
    groups = list(_grouped(plan, steps, limit)) or [[]]
    if len(groups) == 1:
        return {"model.safetensors": _safetensors(plan, groups[0], metadata)}
    images: dict[str, Image] = {}
    weight_map: dict[str, str] = {}
    for number, group in enumerate(groups, 1):
        name = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        images[name] = _safetensors(plan, group, metadata)
        weight_map.update({plan.steps[index].target.key: name for index in group})
    total = sum(plan.steps[index].target.nbytes for index in steps)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    text = (json.dumps(index, indent=2, ensure_ascii=False) + "\n").encode()
    images["model.safetensors.index.json"] = Image(len(text), ((0, text),), ())
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
