"""What tuning changed, and which of it an adapter can hold: by factors, in full, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeAlias

from ckptool.commands.diff.pairing import partners
from ckptool.commands.patching.lora_result import Factored, LoraOptions
from ckptool.commands.patching.peft import (
    FUSED,
    FUSED_ORDER,
    KINDS,
    Layers,
    factor_keys,
    fused_keys,
    is_input,
    is_tied,
)
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.dtypes import DTYPES
from ckptool.core.spec import TensorSpec
from ckptool.core.tensor import Tensor
from ckptool.encodings.delta import CHUNK
from ckptool.engine.dequantize import config_beside
from ckptool.engine.patched import cast_bytes, number_width
from ckptool.engine.reading import Reader

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(slots=True)
class Adapting:
    """One extraction: what changed between two checkpoints, and what becomes of it in an adapter."""

    base: Checkpoint
    tuned: Checkpoint
    options: LoraOptions
    progress: Callable[[int, int], None] | None
    done: int = 0
    layers: Layers = field(init=False)
    ties: dict[str, str] = field(default_factory=dict)
    fused: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        model_type = (config_beside(self.base) or {}).get("model_type")
        self.layers = Layers.of((t.spec for t in self.base.values()), str(model_type) if model_type else "")

    def advance(self, nbytes: int) -> None:
        self.done += nbytes
        if self.progress is not None:
            self.progress(self.done, 2 * sum(tensor.nbytes for tensor in self.tuned.values()))

    def compared(self, reader: Reader) -> list[Factored]:
        """Each tensor of the tuned checkpoint and what is to become of it; nothing is computed."""
        sources = partners(self.base, self.tuned)
        parts = []
        leaders = self._leaders(sources)
        for key, tensor in self.tuned.items():
            part = Factored(key, tensor.spec, sources.get(key, ""), "left")
            parts.append(self._compared(part, tensor, leaders, reader))
            self.advance(tensor.nbytes)
        parts = [self._sized(part) if part.kind in FUSED else part for part in parts]
        return self._saved(parts) if self.options.save else parts

    def _sized(self, part: Factored) -> Factored:
        """A parameter of experts with its bytes, once all of its module are known; or why it is left."""
        names = [key.rpartition(".")[2] for key in self.fused[part.module]]
        if len(names) > 1 and not set(FUSED_ORDER).issuperset(names):
            why = "one of several parameters of experts, whose order the files do not state"
            return replace(part, fate="left", kind=why, rank=0)
        return replace(part, nbytes=sum(spec.nbytes for spec in self.factor_specs(part, part.kind, part.rank)))

    def _wrappers(self, part: Factored) -> int:
        """How many parameters of its module come after a parameter, and are wrapped around it."""
        places = {key: key.rpartition(".")[2] for key in self.fused[part.module]}
        if len(places) == 1:
            return 0
        return sum(FUSED_ORDER.index(name) > FUSED_ORDER.index(places[part.source]) for name in places.values())

    def _leaders(self, sources: Mapping[str, str]) -> dict[str, str]:
        """{key: the key that it is one tensor with}, in both checkpoints; the embedding before its head."""
        groups: dict[object, list[str]] = {}
        for key, source in sources.items():
            if source in self.base and self.tuned[key].pieces and self.base[source].pieces:
                groups.setdefault((self.tuned[key].pieces, self.base[source].pieces), []).append(key)
        found = {}
        for keys in groups.values():
            first = min(keys, key=lambda key: self.layers.kind(sources[key]) != "embedding")
            found.update({key: first for key in keys if key != first})
        return found

    def _compared(self, part: Factored, tensor: Tensor, leaders: Mapping[str, str], reader: Reader) -> Factored:
        if not part.source:
            return replace(part, kind="not in the base")
        base = self.base[part.source]
        if base.shape != tensor.shape:
            return replace(part, kind="another shape than in the base")
        if base.layout != "strided" or tensor.layout != "strided" or not tensor.elements:
            return replace(part, fate="same" if not tensor.elements else "left", kind="no plain tensor")
        if _is_same(base, tensor, reader):
            return replace(part, fate="same")
        if part.key in leaders:
            self.ties[part.source] = leaders[part.key]
            return replace(part, fate="same", kind="tied")
        kind = self.layers.kind(part.source)
        if kind not in KINDS:
            return replace(part, kind=kind)
        if not (_is_float(base) and _is_float(tensor)):
            return replace(part, kind="no floating-point numbers")
        if kind in FUSED:
            self.fused.setdefault(part.module, []).append(part.source)
        rank = min(self.options.rank, tensor.shape[0], tensor.elements // tensor.shape[0])
        rank = self.options.rank if kind in FUSED else rank
        nbytes = 0 if kind in FUSED else sum(spec.nbytes for spec in self.factor_specs(part, kind, rank))
        return replace(part, fate="adapted", kind=kind, rank=rank, nbytes=nbytes)

    def _saved(self, parts: list[Factored]) -> list[Factored]:
        """With `modules_to_save`: modules of which something is left, and nothing is adapted, in full; and biases."""
        by_source = {part.source: part for part in parts}
        adapted = {part.module for part in parts if part.fate == "adapted"}
        wanted = {part.source for part in parts if part.fate == "left" and self._is_bias(part, adapted)}
        for part in parts:
            keys = self.layers.parts(part.module) if part.source and part.fate == "left" and part.module else []
            own = [by_source[key] for key in keys if key in by_source]
            if own and len(own) == len(keys) and all(self._can_be_saved(each) for each in own):
                wanted.update(keys)
        return [
            replace(part, fate="saved", kind="in full", nbytes=part.spec.nbytes) if part.source in wanted else part
            for part in parts
        ]

    def _is_bias(self, part: Factored, adapted: Collection[str]) -> bool:
        """Whether it is the bias of an adapted layer, which PEFT keeps with the layer."""
        is_bias = part.source == f"{part.module}.bias" and part.module in adapted
        return is_bias and self.base[part.source].shape == part.spec.shape

    def _can_be_saved(self, part: Factored) -> bool:
        return part.fate != "adapted" and self.base[part.source].shape == part.spec.shape

    def factor_specs(self, part: Factored, kind: str, rank: int) -> tuple[TensorSpec, TensorSpec]:
        """The two factors of a change of this kind and rank, under the adapter's keys."""
        out, *rest = part.spec.shape
        if kind in FUSED:
            one, other = fused_keys(part.module, self._wrappers(part))
            inner, outer = rest if kind == "transposed experts" else reversed(rest)
            dtype, all_ranks = self.options.dtype, out * rank
            return TensorSpec(one, dtype, (all_ranks, inner)), TensorSpec(other, dtype, (outer, all_ranks))
        one, other = factor_keys(part.module, kind)
        if kind == "conv":
            shapes: tuple[tuple[int, ...], ...] = (rank, *rest), (out, rank, *(1 for _ in rest[1:]))
        elif kind == "linear":
            shapes = (rank, rest[0]), (out, rank)
        else:
            shapes = (rank, out), (rest[0], rank)
        dtype = self.options.dtype
        return TensorSpec(one, dtype, shapes[0]), TensorSpec(other, dtype, shapes[1])

    def tied(self, parts: Iterable[Factored]) -> list[str]:
        """The adapted modules that are one tensor with another module's, as the files or config.json say."""
        leaders, stated = set(self.ties.values()), is_tied(config_beside(self.base))
        adapted = (part for part in parts if part.fate == "adapted")
        return [part.module for part in adapted if part.key in leaders or (stated and is_input(part.module))]


def _is_same(base: Tensor, tuned: Tensor, reader: Reader) -> bool:
    """Whether two tensors hold the same; a base of another float dtype is cast first."""
    if base.dtype == tuned.dtype and base.pieces == tuned.pieces and base.pieces:
        return True
    if base.dtype != tuned.dtype and not (_is_float(base) and _is_float(tuned)):
        return False
    olds = reader.blocks(base, CHUNK * number_width(base.dtype))
    news = reader.blocks(tuned, CHUNK * number_width(tuned.dtype))
    for old, new in zip_longest(olds, news):
        if (old if base.dtype == tuned.dtype else cast_bytes(old, base.dtype, tuned.dtype)) != new:
            return False
    return True


def _is_float(tensor: Tensor) -> bool:
    dtype = DTYPES[tensor.dtype]
    return dtype.kind == "float" and not dtype.is_packed
