"""Checkpoint: what every format opens into.

A checkpoint here is headers only: ordered tensors, where each one's bytes lie in which file, and everything that is
not a selected tensor. No tensor data is held. `ckptool.engine.reading` turns a `Tensor` into bytes or numbers.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate, chain, pairwise, repeat
from operator import is_, methodcaller
from pathlib import PurePath
from typing import Literal, TypeVar

from ckptool.core.bytes import ByteSource
from ckptool.core.counts import tallied
from ckptool.core.format import Format
from ckptool.core.observations import Decoded, Observation
from ckptool.core.ranks import Ranks
from ckptool.core.sorted_rows import SortedRows
from ckptool.core.spec import Form, TensorSpec, packed_nbytes

_T = TypeVar("_T")

Risk = Literal["harmless", "unknown", "dangerous"]
Layout = Literal["strided", "sparse", "quantized", "meta", "nested"]

_PLAIN = ("float64", "float32", "float16", "bfloat16", "int64", "bool", "complex64", "complex128")


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of bytes in a file that one or more tensors view. Tensors of equal storages are tied.

    Attributes:
        file: the file that holds it.
        offset: first byte in that file.
        nbytes: length in bytes.
        big_endian: True if multi-byte numbers have their high byte first.
        crc: the CRC-32 of the bytes, where the container states one.
    """

    file: ByteSource
    offset: int
    nbytes: int
    big_endian: bool = False
    crc: int | None = None

    def __hash__(self) -> int:  # there are as many as tensors, and each is looked for often
        return hash((self.offset or self.file, self.nbytes))  # derived bytes all begin at 0


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a tensor, and the view of a storage that holds its elements: a box, or a flat run.

    Nearly every tensor is one box that covers it; a tensor of a torch.distributed checkpoint is one box per chunk. A
    tensor cut out of flat parameters (ZeRO, FSDP) is flat runs: elements that follow one another in C order.

    Attributes:
        storage: the bytes viewed.
        start: first element in the storage, counted in elements.
        shape: the box's shape; (count,) for a flat run.
        strides: steps in the storage for each axis, in elements; None if the box lies there in C order without gaps.
        at: where the box begins in the tensor; empty for the origin.
        first: number of a flat run's first element in the tensor's C order; None for a box.

    Example:
        >>> import ckptool
        >>> (file,) = ckptool.open("fixtures/resnet18.pth").files
        >>> Piece.flat(Storage(file, 0, 400), start=10, first=6, count=4).shape
        (4,)
    """

    storage: Storage
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    at: tuple[int, ...] = ()
    first: int | None = None

    @classmethod
    def flat(cls, storage: Storage, start: int, first: int, count: int) -> Piece:
        """A flat run: elements `first` to `first + count` of the tensor in C order."""
        return cls(storage, start, (count,), first=first)

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a checkpoint: its spec and where its bytes are.

    Attributes:
        spec: key, dtype, shape.
        pieces: what it is made of, all boxes or all flat runs; none for meta tensors and for layouts made of parts.
        layout: "strided", or a special layout, which is listed and copied whole, never computed with.
        parts: the dense tensors that a sparse or nested tensor is made of, by role ("indices", "values", ...).
        conj: the elements are the complex conjugates of what is stored.
        neg: the elements are the negatives of what is stored.
        cls: the name of its class, where that is a subclass that keeps its values in its own way ("DTensor").
        node: the inert object it was read from, for torch files (see `ckptool.formats.pickle.objects`).
    """

    spec: TensorSpec
    pieces: tuple[Piece, ...] = field(default=(), repr=False)
    layout: Layout = "strided"
    parts: tuple[tuple[str, Tensor], ...] = field(default=(), repr=False)
    conj: bool = field(default=False, repr=False)
    neg: bool = field(default=False, repr=False)
    cls: str = field(default="", repr=False)
    node: object = field(default=None, repr=False, compare=False)

    @property
    def key(self) -> str:
        return self.spec.key

    @property
    def dtype(self) -> str:
        return self.spec.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.spec.shape

    @property
    def elements(self) -> int:
        return self.spec.elements

    @property
    def nbytes(self) -> int:
        """Bytes of its elements, tightly packed; 0 for a meta tensor, the sum of the parts for a sparse one."""
        if self.layout == "meta":
            return 0
        if self.parts:
            return sum(part.nbytes for _, part in self.parts)
        return self.spec.nbytes

    @property
    def storage(self) -> Storage | None:
        """The storage it views, if it is a plain tensor in one piece and not empty."""
        if len(self.pieces) == 1 and self.pieces[0].storage.nbytes:
            return self.pieces[0].storage
        return None

    @property
    def is_contiguous_run(self) -> bool:
        """True if its packed little-endian bytes stand in a file as one run."""
        if len(self.pieces) != 1 or self.conj or self.neg:
            return False
        piece = self.pieces[0]
        is_all = piece.first is None or (piece.first, piece.elements) == (0, self.elements)
        return piece.strides is None and not piece.storage.big_endian and is_all

    @property
    def run(self) -> tuple[ByteSource, int, int]:
        """(file, offset, nbytes) of that one run; only if `is_contiguous_run`."""
        piece = self.pieces[0]
        start = packed_nbytes(self.dtype, (piece.start,))
        return piece.storage.file, piece.storage.offset + start, self.spec.nbytes


_form = lru_cache(4096)(Form)  # most tensors are like others


@lru_cache(4096)
def _plain_form(dtype: str, shape: tuple[int, ...]) -> Form:
    return Form(dtype, shape, packed_nbytes(dtype, shape))


def form_of(tensor: Tensor) -> Form:
    """Dtype, shape and size of a tensor."""
    spec = tensor.spec
    if tensor.layout == "strided" and not tensor.parts:
        return _plain_form(spec.dtype, spec.shape)
    return _form(spec.dtype, spec.shape, tensor.nbytes, tensor.layout, tensor.cls)


class Columns(Mapping[str, Tensor]):
    """Very many tensors in little memory: each is one run of a file, and shares no byte with another.

    A `Tensor` is a view of a row, made when it is asked for; whoever wants forms or specs alone asks for those.

    Example:
        >>> from pathlib import Path
        >>> forms = [Form("float32", (2, 3), 24), Form("int8", (4,), 4)]
        >>> columns = Columns(Path("raw"), ["w", "v"], forms, array("Q", [8, 32]))
        >>> columns["v"].spec.short, columns["v"].storage.offset
        ('i8[4]', 32)
        >>> list(columns), columns.form("w").label
        (['w', 'v'], 'f32[2,3]')
    """

    __slots__ = ("_counts", "_files", "_forms", "_keys", "_known", "_starts")

    def __init__(self, file: ByteSource, keys: list[str], forms: list[Form], starts: array[int]) -> None:
        """Tensors of one file: keys, no two equal, their forms, and the file's first byte of each."""
        self._keys = keys
        self._forms = forms
        self._starts = starts
        self._files = [file]
        self._counts = [len(keys)]  # rows up to the end of each file
        self._known: Mapping[str, int] | None = None

    @classmethod
    def joined(cls, parts: Sequence[Columns]) -> Columns:
        """The rows of several files, one after the other; `has_twins` says whether a key is in two of them."""
        whole = cls(parts[0]._files[0], [], [], array("Q"))
        whole._files = [file for part in parts for file in part._files]
        whole._counts = list(accumulate(len(part) for part in parts))
        for part in parts:
            whole._keys += part._keys
            whole._forms += part._forms
            whole._starts += part._starts
        return whole

    @property
    def has_twins(self) -> bool:
        """True if a key is there twice."""
        return len(set(self._keys)) < len(self._keys)

    def forget_rows(self) -> None:
        """Let go of what `rows` has found; it is found again when it is asked for."""
        self._known = None

    @property
    def names(self) -> list[str]:
        """Its keys; the list itself, which nobody changes."""
        return self._keys

    @property
    def rows(self) -> Mapping[str, int]:
        """The number of each tensor's row."""
        if self._known is None:
            self._known = dict(zip(self._keys, range(len(self._keys)), strict=True))
        return self._known

    def __getitem__(self, key: str) -> Tensor:
        return self.tensor_of(self.rows[key])

    def key_of(self, row: int) -> str:
        """The key of the tensor in a row."""
        return self._keys[row]

    def tensor_of(self, row: int) -> Tensor:
        """The tensor in a row."""
        file, start = self.place_of(row)
        form = self._forms[row]
        storage = Storage(file, start, form.nbytes)
        return Tensor(TensorSpec(self._keys[row], form.dtype, form.shape), (Piece(storage, 0, form.shape),))

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in self.rows

    def form(self, key: str) -> Form:
        """The form of one tensor."""
        return self._forms[self.rows[key]]

    def forms(self, keys: Iterable[str] | None = None) -> Iterator[Form]:
        """The forms of these tensors, or of all."""
        if keys is None or (isinstance(keys, Sequence) and self.are_all(keys)):
            return iter(self._forms)
        return map(self._forms.__getitem__, map(self.rows.__getitem__, keys))

    def form_counts(self, keys: Iterable[str] | None = None) -> dict[Form, int]:
        """How many of these tensors, or of all, have each form."""
        found: Counter[Form] = Counter()
        for form, many in tallied(list(self.forms(keys))):
            found[form] += many
        return found

    def are_all(self, keys: Sequence[str]) -> bool:
        """True for its own keys, all of them in their order."""
        return len(keys) == len(self._keys) and all(map(is_, keys, self._keys))

    def has_list(self, keys: Sequence[str]) -> bool:
        """True if that is the list of its keys itself, so that places in it are rows."""
        return keys is self._keys

    def specs(self) -> ColumnSpecs:
        """The spec of every tensor."""
        return ColumnSpecs(self._keys, self._forms)

    def place(self, key: str) -> tuple[ByteSource, int]:
        """The file that holds a tensor, and the first byte of it there."""
        return self.place_of(self.rows[key])

    def picked(self, column: Sequence[_T], keys: Sequence[str]) -> Sequence[_T]:
        """What a column, which has an entry for each row, has for these keys."""
        return column if self.are_all(keys) else [column[row] for row in map(self.rows.__getitem__, keys)]

    def origins(self, keys: Sequence[str]) -> Iterator[bytes]:
        """What tells from which bytes of which files these tensors are."""
        counted = enumerate(pairwise((0, *self._counts)))
        numbers = list(chain.from_iterable(repeat(at, end - start) for at, (start, end) in counted))
        yield array("Q", self.picked(numbers, keys)).tobytes()
        yield array("Q", self.picked(self._starts, keys)).tobytes()

    def place_of(self, row: int) -> tuple[ByteSource, int]:
        """The same of the tensor in a row."""
        return self._files[bisect_right(self._counts, row)], self._starts[row]

    @property
    def stored_nbytes(self) -> int:
        """Bytes that the tensors take in their files."""
        return sum(form.nbytes * many for form, many in self.form_counts().items())


class ColumnSpecs(Mapping[str, TensorSpec]):
    """Specs in columns, each made when it is asked for.

    Example:
        >>> ColumnSpecs(["w"], [Form("float32", (2, 3), 24)])["w"].short
        'f32[2,3]'
    """

    __slots__ = ("_rows", "forms", "names")

    def __init__(self, names: list[str], forms: list[Form]) -> None:
        """Those of plain tensors: their keys, no two equal, and their forms."""
        self.names = names
        self.forms = forms
        self._rows: Mapping[str, int] | None = None

    def sorted(self) -> ColumnSpecs:
        """The same, which finds keys by bisection: in a tenth of the memory."""
        specs = ColumnSpecs(self.names, self.forms)
        specs._rows = SortedRows(self.names)
        return specs

    @property
    def rows(self) -> Mapping[str, int]:
        """The number of each key."""
        if self._rows is None:
            self._rows = dict(zip(self.names, range(len(self.names)), strict=True))
        return self._rows

    def __getitem__(self, key: str) -> TensorSpec:
        form = self.forms[self.rows[key]]
        return TensorSpec(key, form.dtype, form.shape)

    def get(self, key: str, default: TensorSpec | None = None) -> TensorSpec | None:  # type: ignore[override]
        """The spec of a key; the default for none."""
        row = self.rows.get(key)
        return default if row is None else TensorSpec(key, self.forms[row].dtype, self.forms[row].shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, key: object) -> bool:
        return key in self.rows


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

    def form_counts(self, keys: Iterable[str] | None = None) -> dict[Form, int]:
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
