"""The factors of each change: the closest product of two thin matrices, computed and written one after the other."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING, Any, TypeAlias

from ckptool.commands.patching.lora_changes import Adapting
from ckptool.commands.patching.lora_result import Factored
from ckptool.commands.patching.peft import FUSED
from ckptool.commands.patching.stream import Sink, StreamWriter
from ckptool.core.arrays import dtype_of
from ckptool.core.casting import cast, precision
from ckptool.core.errors import UsageError
from ckptool.core.spec import TensorSpec
from ckptool.core.tensor import Piece, Tensor
from ckptool.engine.reading import Reader
from ckptool.values.lowrank import distance, low_rank

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

_ENOUGH = 1e-3  # of a difference may be lost where a smaller rank than asked for is taken
_NOISE = 0.6  # of the largest error of rounding: what it is in the mean, and a little more


@dataclass(slots=True)
class Factors:
    """What an adapter's file holds."""

    making: Adapting

    def written(self, parts: Sequence[Factored], reader: Reader, sink: Sink) -> tuple[list[Factored], int]:
        """The parts with what was computed, and the bytes of the file."""
        writer = StreamWriter(sink, self._specs(parts))
        wanted = {part.module for part in parts if part.fate == "adapted"}
        made = {
            part.key: (self._factored_experts if part.kind in FUSED else self._factored)(part, reader, writer)
            for part in parts
            if part.fate == "adapted"
        }
        adapted = {part.module for part in made.values() if part.fate == "adapted"}
        for part in parts:
            if part.fate == "saved" and part.module in wanted - adapted:
                made[part.key] = replace(part, fate="left", kind="the bias of a layer that is left", nbytes=0)
            elif part.fate == "saved":
                writer.begin()
                for block in reader.blocks(self.making.tuned[part.key]):
                    writer.add(bytes(block))
                writer.end(_saved_key(part, adapted), part.spec.dtype, part.spec.shape)
            if part.fate != "adapted":
                self.making.advance(part.spec.nbytes)
        return [made.get(part.key, part) for part in parts], writer.finish({"format": "pt"})

    def most_bytes(self, parts: Sequence[Factored]) -> int:
        """Bytes that the file has at most."""
        return StreamWriter(None, self._specs(parts)).head + sum(part.nbytes for part in parts)

    def _specs(self, parts: Sequence[Factored]) -> Iterator[TensorSpec]:
        adapted = {part.module for part in parts if part.fate == "adapted"}
        for part in parts:
            if part.fate == "adapted":
                yield from self.making.factor_specs(part, part.kind, part.rank)
            elif part.fate == "saved":
                yield replace(part.spec, key=_saved_key(part, adapted))

    def _factored(self, part: Factored, reader: Reader, writer: StreamWriter) -> Factored:
        """Computes the factors of one change and writes them."""
        import numpy as np

        change, size, norm = self._change(part, reader)
        self.making.advance(part.spec.nbytes)
        if change is None:
            return replace(part, fate="left", kind="numbers that are not finite", rank=0, nbytes=0)
        turned = part.kind in ("transposed", "embedding")
        matrix = change.T if turned else change
        u, values, v = low_rank(matrix, part.rank)
        most = min(_ENOUGH * norm, _NOISE * size)
        rank = _rank_needed(values, most)
        root = np.sqrt(values[:rank])
        b, a = (cast(each, self.making.options.dtype) for each in (u[:, :rank] * root, root[:, None] * v[:rank]))
        lost = distance(matrix, cast(b, "float64"), cast(a, "float64"))
        specs = self.making.factor_specs(part, part.kind, rank)
        for spec, factor in zip(specs, (a, b), strict=True):
            writer.begin()
            writer.add(np.ascontiguousarray(factor).view(np.uint8).reshape(-1).data)
            writer.end(spec.key, spec.dtype, spec.shape)
        return replace(part, rank=rank, norm=norm, lost=lost, nbytes=sum(spec.nbytes for spec in specs))

    def _factored_experts(self, part: Factored, reader: Reader, writer: StreamWriter) -> Factored:
        """The same for a matrix of each expert: A of one after the other; in B the expert changes fastest.

        Raises:
            UsageError: numbers are not finite.
        """
        import numpy as np

        experts, rank = part.spec.shape[0], part.rank
        a_spec, b_spec = self.making.factor_specs(part, part.kind, rank)
        all_b = np.zeros((b_spec.shape[0], rank, experts), np.float32)
        norms, losses = [], []
        writer.begin()
        for expert in range(experts):
            change, norm = self._change_of_expert(part, expert, reader)
            if not np.isfinite(norm):
                text = f"{part.key} changed by numbers that are not finite"
                raise UsageError(
                    text, hint="leave it out: ckptool filter --drop", path=self.making.tuned.path, key=part.key
                )
            matrix = change.T if part.kind == "transposed experts" else change
            u, values, v = low_rank(matrix, min(rank, *matrix.shape))
            root = np.sqrt(values)
            b = np.zeros((b_spec.shape[0], rank), np.float32)
            a = np.zeros((rank, a_spec.shape[1]), np.float32)
            b[:, : len(root)], a[: len(root)] = u * root, root[:, None] * v
            stored_b, stored_a = (cast(each, self.making.options.dtype) for each in (b, a))
            writer.add(np.ascontiguousarray(stored_a).view(np.uint8).reshape(-1).data)
            all_b[:, :, expert] = b
            norms.append(norm)
            losses.append(distance(matrix, cast(stored_b, "float64"), cast(stored_a, "float64")) if norm else 0.0)
        writer.end(a_spec.key, a_spec.dtype, a_spec.shape)
        writer.begin()
        writer.add(np.ascontiguousarray(cast(all_b, self.making.options.dtype)).view(np.uint8).reshape(-1).data)
        writer.end(b_spec.key, b_spec.dtype, b_spec.shape)
        self.making.advance(part.spec.nbytes)
        nbytes = a_spec.nbytes + b_spec.nbytes
        return replace(part, norm=sqrt(sum(n * n for n in norms)), lost=sqrt(sum(n * n for n in losses)), nbytes=nbytes)

    def _change_of_expert(self, part: Factored, expert: int, reader: Reader) -> tuple[Array, float]:
        """(tuned - base as a matrix, its norm) of one expert."""
        tuned, base = (
            _matrix_of(each, expert, reader) for each in (self.making.tuned[part.key], self.making.base[part.source])
        )
        kind = "float64" if "float64" in (dtype_of(tuned), dtype_of(base)) else "float32"
        change = cast(tuned, kind) - cast(base, kind)
        return change, _norm(change)

    def _change(self, part: Factored, reader: Reader) -> tuple[Array | None, float, float]:
        """(tuned - base as a matrix, the norm of a rounding error of tuned, the norm of the change)."""
        import numpy as np

        tuned = reader.array(self.making.tuned[part.key])
        kind = "float64" if "float64" in (dtype_of(tuned), self.making.base[part.source].dtype) else "float32"
        step = precision(dtype_of(tuned))
        change = cast(tuned, kind).reshape(tuned.shape[0], -1)
        size = _norm(change)
        change = change - cast(reader.array(self.making.base[part.source]), kind).reshape(change.shape)
        norm = _norm(change)
        return (change if np.isfinite(norm) else None), step * size, norm


def _matrix_of(tensor: Tensor, expert: int, reader: Reader) -> Array:
    """One matrix of a tensor with three dimensions."""
    piece, shape = tensor.pieces[0], tensor.shape[1:]
    if len(tensor.pieces) > 1 or piece.strides is not None or piece.first is not None:
        whole: Array = reader.array(tensor)
        matrix: Array = whole[expert]
        return matrix
    own = Piece(piece.storage, piece.start + expert * shape[0] * shape[1], shape)
    return reader.array(replace(tensor, spec=replace(tensor.spec, shape=shape), pieces=(own,), node=None))


def _saved_key(part: Factored, adapted: Collection[str]) -> str:
    """The adapter's key of a tensor in full; the bias of an adapted layer is inside of its wrapper."""
    if part.module in adapted:
        return f"base_model.model.{part.module}.base_layer.bias"
    return f"base_model.model.{part.source}"


def _norm(matrix: Array) -> float:
    import numpy as np

    with np.errstate(all="ignore"):
        return sqrt(sum(float(np.square(row, dtype=np.float64).sum()) for row in matrix))


def _rank_needed(values: Array, most: float) -> int:
    """How many of the largest singular values are needed, if no more than a norm of `most` may be lost."""
    import numpy as np

    lost = np.sqrt(np.cumsum(np.square(values[::-1])))[::-1]  # without this value and all behind it
    return max(1, int((lost > most).sum()))
