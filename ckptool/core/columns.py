"""Very many tensors, and their specs, in little memory: a row is a tensor when it is asked for."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain, pairwise, repeat
from operator import is_
from typing import TypeVar

from ckptool.core.bytes import ByteSource
from ckptool.core.sorted_rows import SortedRows
from ckptool.core.spec import Form, TensorSpec
from ckptool.core.tensor import Piece, Storage, Tensor

_T = TypeVar("_T")


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

    __slots__ = ("_counted", "_counts", "_files", "_forms", "_keys", "_known", "_starts")

    def __init__(self, file: ByteSource, keys: list[str], forms: list[Form], starts: array[int]) -> None:
        """Tensors of one file: keys, no two equal, their forms, and the file's first byte of each."""
        self._keys = keys
        self._forms = forms
        self._starts = starts
        self._files = [file]
        self._counts = [len(keys)]  # rows up to the end of each file
        self._known: Mapping[str, int] | None = None
        self._counted: Counter[Form] | None = None

    @classmethod
    def joined(cls, parts: Sequence[Columns]) -> Columns:
        """The rows of several files, one after the other; `has_twins` says whether a key is in two of them."""
        if len(parts) == 1:
            return parts[0]
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
        """True if a key is there twice, in two files."""
        return len(self._files) > 1 and len(set(self._keys)) < len(self._keys)

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

    def form_counts(self, keys: Iterable[str] | None = None) -> Mapping[Form, int]:
        """How many of these tensors, or of all, have each form."""
        if keys is not None:
            return Counter(self.forms(keys))
        if self._counted is None:
            self._counted = Counter(self._forms)
        return self._counted

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
