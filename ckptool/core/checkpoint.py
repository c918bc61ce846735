"""Checkpoint: what every format opens into.

A checkpoint here is headers only: ordered tensors, where each one's bytes lie in which file, and everything that is
not a selected tensor. No tensor data is held. `ckptool.engine.reading` turns a `Tensor` into bytes or numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import methodcaller
from pathlib import PurePath
from typing import Literal

from ckptool.core.bytes import ByteSource
from ckptool.core.columns import Columns
from ckptool.core.format import Format
from ckptool.core.observations import Decoded, Observation
from ckptool.core.ranks import Ranks
from ckptool.core.spec import Form, TensorSpec
from ckptool.core.tensor import Tensor, form_of

Risk = Literal["harmless", "unknown", "dangerous"]

_PLAIN = ("float64", "float32", "float16", "bfloat16", "int64", "bool", "complex64", "complex128")


@dataclass(frozen=True, slots=True)
class Extra:
    """Something beside the selected weights: the epoch, the optimizer, a second set of weights.

    Attributes:
        name: its dotted path in the file, "optimizer".
        text: it in a few words, "90" or "{lr: 0.1, ...}".
        tensors: how many tensors it holds.
        nbytes: their bytes.
        node: the inert object itself.
    """

    name: str
    text: str
    tensors: int = 0
    nbytes: int = 0
    node: object = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dict of the file the weights were taken from.

    Attributes:
        path: the keys from the root to it, as text; empty if the file itself is the dict.
        why: one clause, said aloud: "the only dict of tensors".
        others: dotted paths of further dicts of tensors that --select could take.
        ema: the one among them that holds an exponential moving average, if any.
    """

    path: tuple[str, ...] = ()
    why: str = ""
    others: tuple[str, ...] = ()
    ema: str | None = None

    @property
    def name(self) -> str:
        return ".".join(self.path)


@dataclass(frozen=True, slots=True)
class GlobalUse:
    """A global that the file's pickle names. ckptool never imports or calls it.

    Attributes:
        name: "posix.system".
        risk: "harmless" for torch's own rebuild functions and plain containers; "dangerous" where a plain
            `pickle.load` would run code of the file's choice; "unknown" for any other class or function.
        calls: how often the pickle would call it.
        arguments: the number of arguments of the first call.
    """

    name: str
    risk: Risk
    calls: int = 0
    arguments: int = 0


@dataclass(frozen=True, slots=True)
class Note:
    """Something a user should know: a fact about the checkpoint, and what to do about it.

    Attributes:
        text: what is true.
        hint: what to do, or why it does not matter.
        keys: the tensors it is about.
        level: "note" or "warning".
    """

    text: str
    hint: str = ""
    keys: tuple[str, ...] = ()
    level: Literal["note", "warning"] = "note"


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Checkpoint(Mapping[str, Tensor]):
    """An opened checkpoint: a mapping from key to `Tensor`, in file order.

    Attributes:
        path: the file or folder.
        format: the container that it is stored in.
        tensors: the selected weights.
        files: the files that hold the bytes.
        indexes: the files that say which file holds what: an index of shards, a `.metadata`.
        nbytes: size of those files on disk, in bytes.
        selection: which dict was taken as the weights.
        extras: what else the file holds, top level first.
        other_tensors: tensors outside the selection, by dotted path ("optimizer.state.0.exp_avg").
        metadata: safetensors' `__metadata__`.
        module_versions: torch's `_metadata` versions by module; None where the file has none.
        globals: what its pickle names, each once.
        protocol: the protocol of its pickle, where it has one.
        observations: what only the reader of the format sees.
        unopened: names of further checkpoint files in the folder that was opened.
        ranks: the ranks of a training run that hold it together; None if it is not laid out over ranks.
        tree: for torch files, the inert objects around the tensors (a `ckptool.formats.torch.frame.Frame`), for writing
            them again.
    """

    path: PurePath
    format: Format
    tensors: Mapping[str, Tensor]
    files: tuple[ByteSource, ...] = ()
    indexes: tuple[ByteSource, ...] = ()
    nbytes: int = 0
    selection: Selection = Selection()
    extras: tuple[Extra, ...] = ()
    other_tensors: Mapping[str, Tensor] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    module_versions: Mapping[str, int] | None = None
    globals: tuple[GlobalUse, ...] = ()
    protocol: int | None = None
    observations: tuple[Observation, ...] = ()
    unopened: tuple[str, ...] = ()
    ranks: Ranks | None = None
    tree: object = field(default=None, repr=False, compare=False)

    @property
    def sources(self) -> tuple[ByteSource, ...]:
        """Every file that it was read from, as it was then."""
        return self.indexes + self.files

    @property
    def paths(self) -> tuple[PurePath, ...]:
        """Its own path, and that of every file that it was read from."""
        return (self.path, *(source.path for source in self.sources))

    @property
    def columns(self) -> Columns | None:
        """The tensors, if they are kept in columns: plain ones, none of which shares bytes with another."""
        return self.tensors if isinstance(self.tensors, Columns) else None

    @property
    def is_decoded(self) -> bool:
        """True if logical tensors stand in place of its encoded ones (``--dequantize``)."""
        return any(isinstance(each, Decoded) for each in self.observations)

    @property
    def may_hold_codes(self) -> bool:
        """False where no tensor has a dtype that codes of quantized weights are stored in."""
        if any(form.dtype not in _PLAIN or form.cls for form in self.form_counts()):
            return True
        return any(map(methodcaller("endswith", "absmax"), self.tensors))  # bitsandbytes' codes, stored as floats

    def form(self, key: str) -> Form:
        """Dtype, shape and size of a tensor, without the tensor."""
        if isinstance(self.tensors, Columns):
            return self.tensors.form(key)
        return form_of(self.tensors[key])

    def forms(self, keys: Iterable[str] | None = None) -> Iterator[Form]:
        """The forms of these tensors, or of all."""
        if isinstance(self.tensors, Columns):
            return self.tensors.forms(keys)
        return map(self.form, self.tensors if keys is None else keys)

    def form_counts(self, keys: Iterable[str] | None = None) -> Mapping[Form, int]:
        """How many of these tensors, or of all, have each form."""
        if isinstance(self.tensors, Columns):
            return self.tensors.form_counts(keys)
        return Counter(self.forms(keys))

    def spec(self, key: str) -> TensorSpec:
        """The spec of a tensor, without the tensor."""
        if isinstance(self.tensors, Columns):
            form = self.tensors.form(key)
            return TensorSpec(key, form.dtype, form.shape)
        return self.tensors[key].spec

    def specs(self) -> Mapping[str, TensorSpec]:
        """The spec of every tensor."""
        if isinstance(self.tensors, Columns):
            return self.tensors.specs()
        return {key: tensor.spec for key, tensor in self.tensors.items()}

    def __getitem__(self, key: str) -> Tensor:
        if key not in self.tensors:
            from ckptool.core.near_miss import UnknownKeyError  # only on the way to an error

            raise UnknownKeyError(key, self.tensors.keys())
        return self.tensors[key]

    def __contains__(self, key: object) -> bool:
        return key in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def input_names(inputs: Sequence[Checkpoint]) -> list[str]:
    """What to call several checkpoints: their names, or their paths where two have one name."""
    names = [checkpoint.path.name for checkpoint in inputs]
    return names if len(set(names)) == len(names) else [str(checkpoint.path) for checkpoint in inputs]
