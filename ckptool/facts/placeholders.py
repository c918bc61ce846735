"""Tensors without values: on the meta device, or empty ones that stand for a parameter kept elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import PurePath

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.counts import many
from ckptool.core.facts import FINE, TAKES_VALUES, Answer, Fact, Operation, Refuse, Say, Use
from ckptool.core.spec import DTYPES, Form
from ckptool.facts.headers import Headers
from ckptool.facts.registry import finder
from ckptool.formats.folder import KNOWN
from ckptool.formats.ranks.kinds import joining_folder


@dataclass(frozen=True, slots=True)
class Meta(Fact):
    """Tensors on the meta device."""

    name = "meta"
    tells = True
    level = "warning"
    grade = "error"
    rank = 1

    @property
    def text(self) -> str:
        return f"{many(len(self.keys), 'tensor')} on the meta device: shapes without values"

    @property
    def hint(self) -> str:
        return "the model was saved before its weights were loaded or made"

    def answer(self, use: Use) -> Answer:
        listed = f"{many(len(use.keys), 'tensor')} without values (meta device): {', '.join(use.keys[:3])}"
        match use.operation:
            case Operation.COPY:
                return Say(listed, self.hint)
            case Operation.CAST | Operation.COMPUTE | Operation.LOAD:
                return Refuse(listed, "leave them out with --drop, or save the model after its weights are loaded")
        return FINE


@dataclass(frozen=True, slots=True)
class Partitioned(Fact):
    """Empty tensors in the place of parameters that DeepSpeed ZeRO-3 or FSDP keeps in pieces on every rank.

    `folder` is where their values are, if it is there.
    """

    folder: str = ""

    name = "placeholders"
    may_be_allowed = True
    also = ("zero3", "partitioned")
    tells = True
    level = "warning"
    grade = "error"
    rank = 1

    @property
    def text(self) -> str:
        return (
            f"{many(len(self.keys), 'tensor')} of shape [0]: placeholders of parameters that were partitioned "
            f"(DeepSpeed ZeRO-3, FSDP)"
        )

    @property
    def hint(self) -> str:
        if self.folder:
            return f"the values are in the files of the ranks: open the folder {self.folder}"
        return (
            "gather the weights: zero_to_fp32.py beside the checkpoint, "
            "stage3_gather_16bit_weights_on_model_save, or a full state dict of FSDP"
        )

    def answer(self, use: Use) -> Answer:
        if use.operation in TAKES_VALUES:
            return Refuse(
                f"{many(len(use.keys), 'tensor')} of shape [0] hold no weights: {', '.join(use.keys[:3])}",
                self.hint,
                may_insist=True,
            )
        return FINE


@finder
def find_meta(headers: Headers) -> Iterator[Meta]:
    meta = {form for form in headers.kinds if form.layout == "meta" and not form.cls}
    keys = _keys_of(headers, meta)
    if keys:
        yield Meta(keys)


@finder
def find_partitioned(headers: Headers) -> Iterator[Partitioned]:
    empty = _keys_of(headers, {f for f in headers.kinds if f.shape == (0,) and DTYPES[f.dtype].kind == "float"})
    # a module may well have one empty parameter: placeholders are weights, and many
    if any(key.rpartition(".")[2] == "weight" for key in empty) and len(empty) * 4 >= len(headers.keys):
        folder = _folder_with_values(headers.checkpoint)
        yield Partitioned(empty, "" if folder is None else str(folder))


def _keys_of(headers: Headers, forms: Collection[Form]) -> tuple[str, ...]:
    """The keys of tensors that have one of these forms."""
    if not forms:
        return ()
    return tuple(key for key, form in zip(headers.keys, headers.forms, strict=True) if form in forms)


def _folder_with_values(checkpoint: Checkpoint) -> PurePath | None:
    """Where the ranks of the run left the values: in the folder of the file, or in one beside it."""
    if not checkpoint.files or checkpoint.ranks is not None:
        return None
    folder = checkpoint.files[0].folder
    is_whole = any(entry.name in KNOWN for entry in folder.entries())
    return joining_folder(folder, is_whole=is_whole)
