"""How a container is written: what it can hold, what it keeps beside the weights, how its files are laid out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptool.core.dtypes import DTYPES
from ckptool.core.errors import CkptError, OutputError

if TYPE_CHECKING:
    from ckptool.core.plan import Plan, Step
    from ckptool.core.spec import TensorSpec
    from ckptool.formats.image import Image


@dataclass(frozen=True, slots=True)
class Output:
    """The files of an output.

    Attributes:
        images: by file name, in the order to write them; the index last.
        specs: every tensor that the output will hold when it is opened.
        place: dotted path of the dict inside the file that holds them; empty for the file itself.
    """

    images: Mapping[str, Image]
    specs: Sequence[TensorSpec]
    place: str = ""


def _holds(spec: TensorSpec) -> str:
    """Nothing is missing."""
    return ""


def _allows(plan: Plan) -> CkptError | None:
    """Nothing speaks against it."""
    return None


@dataclass(frozen=True, slots=True)
class Loading:
    """How a library loads what was written, in Python.

    Attributes:
        state: an expression: the state dict.
        imports: the lines that it needs.
    """

    state: str
    imports: tuple[str, ...] = ()


def unknown_loading(path: str, wrap: str | None = None) -> Loading:
    """For a container that no library is known to load."""
    return Loading(f"...  # the state dict in {path!r}")


@dataclass(frozen=True, slots=True)
class Writer:
    """What writes a container, from headers; bytes move in `ckptool.engine.apply`.

    Attributes:
        name: as `--to` and plans call it.
        lay_out: given a complete plan, the name of the output and the bytes of one shard.
        unheld: what of a tensor it cannot hold, its dtype or this shape of it, in words; "" if it can.
        refusal: what else stands against a complete plan; None for nothing.
        loading: how to load an output in Python, given its path and the key of the dict that the weights are under.
        files: what one of its files is, where that is another name.
        is_folder: the output is a folder of shards.
        keeps_objects: it holds what lies beside the weights, module versions, and tied tensors once.
        keeps_metadata: it holds named texts, in which ties are recorded.
    """

    name: str
    lay_out: Callable[[Plan, str, int], Output]
    unheld: Callable[[TensorSpec], str] = _holds
    refusal: Callable[[Plan], CkptError | None] = _allows
    loading: Callable[[str, str | None], Loading] = unknown_loading
    files: str = ""
    is_folder: bool = False
    keeps_objects: bool = False
    keeps_metadata: bool = False

    @property
    def file_kind(self) -> str:
        """What one of its files is."""
        return self.files or self.name


def misfit(writer: Writer, plan: Plan) -> CkptError | None:
    """Why a container of plain tensors cannot hold those of a plan; None if it can, or if it keeps objects."""
    if writer.keeps_objects:
        return None
    bad = list(_unheld(writer, plan))
    if not bad:
        return None
    key, what = bad[0]
    return OutputError(
        f"{writer.file_kind} cannot hold {len(bad)} of {plan.stored} {'tensor' if plan.stored == 1 else 'tensors'}: "
        f"{key} is {what}",
        hint="decode them: --dequantize" if _in_blocks(plan, key) else "write a .pth file, or --drop them",
        key=key,
    )


def _in_blocks(plan: Plan, key: str) -> bool:
    """True if a tensor is of a block type, which no container but its own holds."""
    return any(not DTYPES[step.target.dtype].numpy for step in plan.steps if step.target.key == key)


def _unheld(writer: Writer, plan: Plan) -> Iterator[tuple[str, str]]:
    """The keys that it cannot hold, and what they are."""
    from ckptool.core.plan import Copies
    from ckptool.core.spec import TensorSpec

    if not isinstance(plan.steps, Copies):
        for step in plan.steps:
            if step.stored and (what := _class_of(plan, step) or writer.unheld(step.target)):
                yield step.target.key, what
        return
    said = {form: writer.unheld(TensorSpec("", form.dtype, form.shape)) for form in plan.steps.form_counts}
    if any(said.values()):
        rows = zip(plan.steps.keys, plan.steps.forms, strict=True)
        yield from ((key, said[form]) for key, form in rows if said[form])


def _class_of(plan: Plan, step: Step) -> str:
    """The layout or class of a tensor that is not torch's plain one; "" for a plain one."""
    from ckptool.core.plan import Source
    from ckptool.formats.torch.tensor import subclass_of

    if not isinstance(step.value, Source) or plan.inputs[step.value.input].columns is not None:
        return ""
    tensor = plan.inputs[step.value.input][step.value.key]
    return "" if tensor.layout == "strided" else subclass_of(tensor.node) or tensor.layout
