"""From a plan to the files that will hold it: which container, what it cannot hold, which bytes where.

Still headers only. What comes out is one `Image` per file; `ckptool.engine.apply` fills them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import PurePath

from ckptool.core.dtypes import DTYPES
from ckptool.core.errors import CkptError, OutputError, PlanError, UsageError
from ckptool.core.plan import Copies, Plan, sources_of
from ckptool.core.spec import Form
from ckptool.formats.image import Image
from ckptool.formats.registry import writer_endings, writers, written_endings
from ckptool.formats.writer import Output, Writer, misfit
from ckptool.storage.paths import is_folder

DEFAULT_SHARD = 5_000_000_000
"""Bytes of one shard where --max-shard-size does not say: what Hugging Face's tools write."""


def writer_named(name: str) -> Writer:
    """What writes a container.

    Raises:
        UsageError: nothing does; says what can be written.

    Example:
        >>> writer_named("torch").keeps_objects
        True
    """
    known = writers()
    if name not in known:
        *others, last = known
        raise UsageError(f'"{name}" is not a format that is written', hint=f"use {', '.join(others)} or {last}")
    return known[name]


def container_of(target: PurePath, to: str | None = None) -> str:
    """The container of an output.

    Args:
        target: its name, whose ending says the container unless other files have that ending too.
        to: the container that is asked for.

    Example:
        >>> [container_of(PurePath(name)) for name in ("body.safetensors", "out", "llama-3.1")]
        ['safetensors', 'folder', 'folder']
        >>> container_of(PurePath("body.bin")), container_of(PurePath("body.bin"), "safetensors")
        ('torch', 'safetensors')

    Raises:
        OutputError: for an ending that ckptool does not write, or one that says another container than is asked for.
        UsageError: nothing writes what is asked for.
    """
    suffix = target.suffix.lower()
    has_ending = bool(suffix) and not suffix[1:2].isdigit()  # "llama-3.1" has no ending
    written = written_endings()
    if to is not None:
        wanted, said = writer_named(to), writer_endings().get(suffix)
        if said is not None and said != to and not (wanted.is_folder and is_folder(target)):
            hint = f"give it another ending, or ask for {said}"
            raise OutputError(
                f"{target} has the ending of a {said} file, and {to} is asked for", hint=hint, path=target
            )
        return to
    if has_ending and suffix not in written and not is_folder(target):
        known = ", ".join(written)
        raise OutputError(
            f'"{suffix}" is not a format that is written', hint=f"write {known}, or a folder of shards; or say it: --to"
        )
    return written.get(suffix, "folder") if has_ending else "folder"


def refusals(plan: Plan) -> Iterator[CkptError]:
    """Why the container of a complete plan cannot hold it, from headers."""
    yield from _uncomputable(plan)
    writer = writer_of(plan)
    if error := misfit(writer, plan) or writer.refusal(plan):
        yield error


def writer_of(plan: Plan) -> Writer:
    """What writes a complete plan.

    Raises:
        PlanError: it is not complete.
    """
    if plan.container is None:
        raise PlanError("the plan is not complete", hint="ckptool.commands.beside.complete")
    return writer_named(plan.container)


def _uncomputable(plan: Plan) -> Iterator[CkptError]:
    """The first tensor that is computed of what can only be copied: a sparse, quantized or packed one."""
    steps = plan.steps
    if isinstance(steps, Copies) and (steps.cast is None or all(map(_can_compute, steps.origins))):
        return
    for step in steps:
        for source in sources_of(step.value) if not step.is_copy else ():
            form = plan.inputs[source.input].form(source.key)
            if not _can_compute(form):
                what = form.layout if form.layout != "strided" else form.dtype
                yield PlanError(
                    f"{source.key} is {what}: it can be copied, not computed with", hint="leave it out", key=source.key
                )
                return


@lru_cache(256)
def _can_compute(form: Form) -> bool:
    return form.layout == "strided" and DTYPES[form.dtype].bits >= 8


def encode(plan: Plan, target: PurePath, *, max_shard: int | None = None) -> Output:
    """Lay a plan's output out.

    Args:
        plan: what it holds, complete.
        target: its name.
        max_shard: bytes of one shard, for a folder.

    Raises:
        OutputError: if the container cannot hold a tensor.
    """
    writer = writer_of(plan)
    if max_shard is not None and not writer.is_folder:
        raise OutputError(
            f"{target} is one file; shards make a folder", hint=f"write {target.with_suffix('')}", path=target
        )
    if error := misfit(writer, plan):
        raise error
    output = writer.lay_out(plan, target.name, max_shard or DEFAULT_SHARD)
    return replace(output, images={**dict(_carried(plan)), **output.images}) if plan.files else output


def _carried(plan: Plan) -> Iterator[tuple[str, Image]]:
    """The files that lie beside the weights, without which loaders do not take the folder."""
    for file in plan.files:
        text = file.text
        if text is None:
            with plan.inputs[file.input].files[0].folder.open(file.name).open() as opened:
                text = opened.read(0, opened.size)
        yield file.name, Image(len(text), ((0, text),), ())
