"""A LoRA adapter of what tuning changed: each matrix of the difference as the closest product of two thin ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from math import sqrt
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from zlib import crc32

from ckptool.commands.diff.pairing import seen_through
from ckptool.commands.filter import float_dtype
from ckptool.commands.patching.peft import (
    FUSED,
    FUSED_ORDER,
    KINDS,
    TIED_BY_PEFT,
    Layers,
    factor_keys,
    fused_keys,
    is_input,
    is_tied,
    task_of,
)
from ckptool.commands.patching.stream import Sink, StreamWriter
from ckptool.core.address import address_of
from ckptool.core.arrays import dtype_of
from ckptool.core.casting import cast, precision
from ckptool.core.checkpoint import Checkpoint, Note, Piece, Tensor
from ckptool.core.counts import many
from ckptool.core.dtypes import DTYPES
from ckptool.core.errors import UsageError
from ckptool.core.shell import shell_quote
from ckptool.core.spec import TensorSpec
from ckptool.core.ties import with_recorded_ties
from ckptool.encodings.delta import CHUNK
from ckptool.engine.dequantize import config_beside, encoded_of
from ckptool.engine.patched import cast_bytes, number_width
from ckptool.engine.reading import Reader
from ckptool.storage.stages import Stage
from ckptool.values.lowrank import distance, low_rank

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_ENOUGH = 1e-3  # of a difference may be lost where a smaller rank than asked for is taken
_NOISE = 0.6  # of the largest error of rounding: what it is in the mean, and a little more

Fate: TypeAlias = Literal["same", "adapted", "saved", "left"]


@dataclass(frozen=True, slots=True)
class LoraOptions:
    """How an adapter is made.

    Attributes:
        rank: the largest of a matrix.
        dtype: of what is written, a float dtype.
        save: modules that changed otherwise are saved in full (PEFT's `modules_to_save`).
    """

    rank: int
    dtype: str = "float32"
    save: bool = False


@dataclass(frozen=True, slots=True)
class Factored:
    """A tensor of the tuned checkpoint, and what of its change is in the adapter.

    Attributes:
        key: its key there.
        spec: of it.
        source: the key of the base; "" if it has none.
        fate: "same" as in the base, "adapted" by two factors, "saved" in full, "left" out.
        kind: how it is adapted; for "left", why not, in words.
        rank: of the factors; the largest possible before they are computed.
        norm: the Frobenius norm of the change; None before it is computed.
        lost: that of what the factors lack.
        nbytes: in the adapter.
    """

    key: str
    spec: TensorSpec
    source: str
    fate: Fate
    kind: str = ""
    rank: int = 0
    norm: float | None = None
    lost: float | None = None
    nbytes: int = 0

    @property
    def module(self) -> str:
        return self.source.rpartition(".")[0]

    @property
    def error(self) -> float | None:
        """What is lost, relative to the change; None before it is computed."""
        return None if self.norm is None or self.lost is None else self.lost / self.norm if self.norm else 0.0


@dataclass(frozen=True, slots=True)
class ExtractedLora:
    """An adapter.

    Attributes:
        base: what it is for.
        tuned: what it comes close to.
        options: how it is made.
        parts: each tensor of `tuned`.
        removed: keys of the base that `tuned` lacks.
        config: what adapter_config.json says.
        notes: what a user should know.
        nbytes: of the weights' file.
    """

    base: Checkpoint
    tuned: Checkpoint
    options: LoraOptions
    parts: tuple[Factored, ...]
    removed: tuple[str, ...]
    config: Mapping[str, object]
    notes: tuple[Note, ...]
    nbytes: int

    def with_fate(self, fate: Fate) -> list[Factored]:
        return [part for part in self.parts if part.fate == fate]

    @property
    def kept(self) -> float | None:
        """The share of the adapted change that is in the factors, as energy (squares); None before it is computed."""
        adapted = self.with_fate("adapted")
        if not adapted or any(part.norm is None for part in adapted):
            return None
        total = sum((part.norm or 0) ** 2 for part in adapted)
        return 1 - sum((part.lost or 0) ** 2 for part in adapted) / total if total else 1.0


def extract_lora(
    base: Checkpoint,
    tuned: Checkpoint,
    options: LoraOptions,
    stage: Stage | None = None,
    *,
    name: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> ExtractedLora:
    """Find what changed, and with a `stage` write the adapter that comes closest to it.

    Args:
        base: the checkpoint that the adapter is for.
        tuned: the one that it comes close to.
        options: how it is made.
        stage: takes the files; None compares only, and computes no factors.
        name: what `base_model_name_or_path` says.
        progress: told (bytes read, bytes to read).

    Raises:
        UsageError: weights are encoded, or nothing that an adapter can hold has changed.
        UnreadableError: a file ends early, or changes while it is read.
    """
    base, tuned = with_recorded_ties(base), with_recorded_ties(tuned)
    if options.rank < 1:
        raise UsageError(f"a rank of {options.rank} holds nothing", hint="--rank 16")
    options = replace(options, dtype=float_dtype(options.dtype) or "float32")
    for checkpoint in (base, tuned):
        _require_plain(checkpoint)
    making = _Making(base, tuned, options, progress)
    with Reader((base, tuned)) as reader:
        parts = making.compared(reader)
        if not any(part.fate in ("adapted", "saved") for part in parts):
            raise _nothing(parts, tuned)
        nbytes = making.most_bytes(parts)
        if stage is not None:
            with stage.file(WEIGHTS, {}) as sink:
                parts, nbytes = making.written(parts, reader, sink)
                if not any(part.fate in ("adapted", "saved") for part in parts):
                    raise _nothing(parts, tuned)
    config = making.config(parts, name)
    if stage is not None:
        with stage.file(CONFIG, {}) as sink:
            sink.write((json.dumps(config, indent=2) + "\n").encode(), 0)
    used = {part.source for part in parts}
    removed = tuple(key for key in base if key not in used)
    notes = tuple(_notes(making, parts, removed))
    return ExtractedLora(base, tuned, options, tuple(parts), removed, config, notes, nbytes)


def replaceable(folder: PurePath) -> frozenset[str]:
    """The names of an adapter's files in a folder, which a new one replaces."""
    from ckptool.storage.paths import is_file

    return frozenset(name for name in (CONFIG, WEIGHTS) if is_file(folder / name))


def stage_name(base: Checkpoint, tuned: Checkpoint, options: LoraOptions) -> str:
    """What names the stage of such an output: equal for equal requests."""
    return f"{crc32(repr((base.path, tuned.path, options)).encode()):08x}"


def base_name(path: PurePath) -> str:
    """What `base_model_name_or_path` says: a name on the hub, or the path of the folder or file.

    Example:
        >>> from ckptool.core.address import Address
        >>> base_name(Address("hf://org/model@main")), base_name(PurePath("base"))
        ('org/model', 'base')
    """
    address = address_of(path)
    if address is None or address.scheme != "hf":
        return str(path)
    return "/".join(str(address).removeprefix("hf://").split("@")[0].split("/")[:2])


def _require_plain(checkpoint: Checkpoint) -> None:
    if encoded := encoded_of(checkpoint):
        raise UsageError(
            f"{checkpoint.path.name} holds quantized weights ({encoded[0].title}), which have no difference",
            hint=f"decode them: ckptool filter {shell_quote(checkpoint.path)} --dequantize -o OUT",
            path=checkpoint.path,
        )


def _nothing(parts: Sequence[Factored], tuned: Checkpoint) -> UsageError:
    left = [part for part in parts if part.fate == "left"]
    if not left:
        return UsageError(f"{tuned.path.name} is the base: there is nothing to adapt", hint="give the tuned model")
    text = f"a LoRA can hold none of the {many(len(left), 'tensor')} that changed: {left[0].key} ({left[0].kind})"
    return UsageError(text, hint="make a patch, which holds everything: without --lora", path=tuned.path)


@dataclass(slots=True)
class _Making:
    """One extraction."""

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

    # ------------------------------------------------------------------------------------------ what changed

    def compared(self, reader: Reader) -> list[Factored]:
        """Each tensor of the tuned checkpoint and what is to become of it; nothing is computed."""
        old, new = seen_through(self.base, self.tuned)
        parts = []
        leaders = self._leaders({key: old + key[len(new) :] for key in self.tuned if key.startswith(new)})
        for key, tensor in self.tuned.items():
            source = old + key[len(new) :] if key.startswith(new) else ""
            part = Factored(key, tensor.spec, source if source in self.base else "", "left")
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
        return replace(part, nbytes=sum(spec.nbytes for spec in self._factor_specs(part, part.kind, part.rank)))

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
        nbytes = 0 if kind in FUSED else sum(spec.nbytes for spec in self._factor_specs(part, kind, rank))
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

    def _factor_specs(self, part: Factored, kind: str, rank: int) -> tuple[TensorSpec, TensorSpec]:
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

    # ------------------------------------------------------------------------------------------ factors

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
                for block in reader.blocks(self.tuned[part.key]):
                    writer.add(bytes(block))
                writer.end(_saved_key(part, adapted), part.spec.dtype, part.spec.shape)
            if part.fate != "adapted":
                self.advance(part.spec.nbytes)
        return [made.get(part.key, part) for part in parts], writer.finish({"format": "pt"})

    def most_bytes(self, parts: Sequence[Factored]) -> int:
        """Bytes that the file has at most."""
        return StreamWriter(None, self._specs(parts)).head + sum(part.nbytes for part in parts)

    def _specs(self, parts: Sequence[Factored]) -> Iterator[TensorSpec]:
        adapted = {part.module for part in parts if part.fate == "adapted"}
        for part in parts:
            if part.fate == "adapted":
                yield from self._factor_specs(part, part.kind, part.rank)
            elif part.fate == "saved":
                yield replace(part.spec, key=_saved_key(part, adapted))

    def _factored(self, part: Factored, reader: Reader, writer: StreamWriter) -> Factored:
        """Computes the factors of one change and writes them."""
        import numpy as np

        change, size, norm = self._change(part, reader)
        self.advance(part.spec.nbytes)
        if change is None:
            return replace(part, fate="left", kind="numbers that are not finite", rank=0, nbytes=0)
        turned = part.kind in ("transposed", "embedding")
        matrix = change.T if turned else change
        u, values, v = low_rank(matrix, part.rank)
        most = min(_ENOUGH * norm, _NOISE * size)
        rank = _rank_needed(values, most)
        root = np.sqrt(values[:rank])
        b, a = (cast(each, self.options.dtype) for each in (u[:, :rank] * root, root[:, None] * v[:rank]))
        lost = distance(matrix, cast(b, "float64"), cast(a, "float64"))
        specs = self._factor_specs(part, part.kind, rank)
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
        a_spec, b_spec = self._factor_specs(part, part.kind, rank)
        all_b = np.zeros((b_spec.shape[0], rank, experts), np.float32)
        norms, losses = [], []
        writer.begin()
        for expert in range(experts):
            change, norm = self._change_of_expert(part, expert, reader)
            if not np.isfinite(norm):
                text = f"{part.key} changed by numbers that are not finite"
                raise UsageError(text, hint="leave it out: ckptool filter --drop", path=self.tuned.path, key=part.key)
            matrix = change.T if part.kind == "transposed experts" else change
            u, values, v = low_rank(matrix, min(rank, *matrix.shape))
            root = np.sqrt(values)
            b = np.zeros((b_spec.shape[0], rank), np.float32)
            a = np.zeros((rank, a_spec.shape[1]), np.float32)
            b[:, : len(root)], a[: len(root)] = u * root, root[:, None] * v
            stored_b, stored_a = (cast(each, self.options.dtype) for each in (b, a))
            writer.add(np.ascontiguousarray(stored_a).view(np.uint8).reshape(-1).data)
            all_b[:, :, expert] = b
            norms.append(norm)
            losses.append(distance(matrix, cast(stored_b, "float64"), cast(stored_a, "float64")) if norm else 0.0)
        writer.end(a_spec.key, a_spec.dtype, a_spec.shape)
        writer.begin()
        writer.add(np.ascontiguousarray(cast(all_b, self.options.dtype)).view(np.uint8).reshape(-1).data)
        writer.end(b_spec.key, b_spec.dtype, b_spec.shape)
        self.advance(part.spec.nbytes)
        nbytes = a_spec.nbytes + b_spec.nbytes
        return replace(part, norm=sqrt(sum(n * n for n in norms)), lost=sqrt(sum(n * n for n in losses)), nbytes=nbytes)

    def _change_of_expert(self, part: Factored, expert: int, reader: Reader) -> tuple[Array, float]:
        """(tuned - base as a matrix, its norm) of one expert."""
        tuned, base = (_matrix_of(each, expert, reader) for each in (self.tuned[part.key], self.base[part.source]))
        kind = "float64" if "float64" in (dtype_of(tuned), dtype_of(base)) else "float32"
        change = cast(tuned, kind) - cast(base, kind)
        return change, _norm(change)

    def _change(self, part: Factored, reader: Reader) -> tuple[Array | None, float, float]:
        """(tuned - base as a matrix, the norm of a rounding error of tuned, the norm of the change)."""
        import numpy as np

        tuned = reader.array(self.tuned[part.key])
        kind = "float64" if "float64" in (dtype_of(tuned), self.base[part.source].dtype) else "float32"
        step = precision(dtype_of(tuned))
        change = cast(tuned, kind).reshape(tuned.shape[0], -1)
        size = _norm(change)
        change = change - cast(reader.array(self.base[part.source]), kind).reshape(change.shape)
        norm = _norm(change)
        return (change if np.isfinite(norm) else None), step * size, norm

    # ------------------------------------------------------------------------------------------ configuration

    def config(self, parts: Sequence[Factored], name: str) -> dict[str, object]:
        """adapter_config.json: what the same adapter has after `save_pretrained`, and no more."""
        adapted = {part.module: part for part in parts if part.fate == "adapted" and part.kind not in FUSED}
        fused = sorted(part.source for part in parts if part.fate == "adapted" and part.kind in FUSED)
        smaller: dict[int, list[str]] = {}
        for module, part in adapted.items():
            if part.rank != self.options.rank:
                smaller.setdefault(part.rank, []).append(module)
        ranks = {pattern: rank for rank, modules in smaller.items() for pattern in self.layers.pattern(modules)}
        beside = config_beside(self.base)
        saved = {part.module for part in parts if part.fate == "saved"}
        biases = saved & adapted.keys()
        return {
            "peft_type": "LORA",
            "task_type": task_of(beside),
            "base_model_name_or_path": name or None,
            "r": self.options.rank,
            "lora_alpha": self.options.rank,
            "lora_dropout": 0.0,
            "bias": "lora_only" if biases else "none",
            "target_modules": self.layers.named(list(adapted)) if adapted else [],
            **({"target_parameters": fused} if fused else {}),
            "rank_pattern": ranks,
            "alpha_pattern": ranks,
            "fan_in_fan_out": any(part.kind == "transposed" for part in adapted.values()),
            "modules_to_save": self.layers.saved(sorted(saved - biases)) or None,
            "ensure_weight_tying": bool(self.tied(adapted.values())),
            "inference_mode": True,
        }

    def tied(self, parts: Iterable[Factored]) -> list[str]:
        """The adapted modules that are one tensor with another module's, as the files or config.json say."""
        leaders, stated = set(self.ties.values()), is_tied(config_beside(self.base))
        adapted = (part for part in parts if part.fate == "adapted")
        return [part.module for part in adapted if part.key in leaders or (stated and is_input(part.module))]


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


def _norm(matrix: Array) -> float:
    import numpy as np

    with np.errstate(all="ignore"):
        return sqrt(sum(float(np.square(row, dtype=np.float64).sum()) for row in matrix))


def _rank_needed(values: Array, most: float) -> int:
    """How many of the largest singular values are needed, if no more than a norm of `most` may be lost."""
    import numpy as np

    lost = np.sqrt(np.cumsum(np.square(values[::-1])))[::-1]  # without this value and all behind it
    return max(1, int((lost > most).sum()))


def _notes(making: _Making, parts: Sequence[Factored], removed: Sequence[str]) -> Iterator[Note]:
    left = [part for part in parts if part.fate == "left"]
    if left:
        reasons = ", ".join(dict.fromkeys(part.kind for part in left))
        could = not making.options.save and any(part.source for part in left)
        yield Note(
            f"{many(len(left), 'changed tensor')} {'is' if len(left) == 1 else 'are'} not in the adapter: {reasons}",
            "--modules-to-save saves what it can in full; a patch holds everything" if could else "a patch holds them",
            tuple(part.key for part in left),
            "warning",
        )
    if removed:
        yield Note(
            f"{many(len(removed), 'tensor')} of the base {'is' if len(removed) == 1 else 'are'} not in "
            f"{making.tuned.path.name}, and stay as they are",
            "",
            tuple(removed),
        )
    if untied := [module for module in making.tied(parts) if module.rpartition(".")[2] not in TIED_BY_PEFT]:
        yield Note(
            f"{untied[0]} is tied to the head, to which peft applies its change only once it is merged",
            "merge it: merge_and_unload, or ckptool merge --lora",
            tuple(untied),
            "warning",
        )
    tables = [part.key for part in parts if part.fate == "adapted" and part.kind == "embedding"]
    if tables:
        yield Note(f"taken as {'an embedding' if len(tables) == 1 else 'embeddings'}: {', '.join(tables)}")
