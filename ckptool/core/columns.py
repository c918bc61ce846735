"""Very many tensors, and their specs, in little memory: a row is a tensor when it is asked for."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain, pairwise, repeat
from operator import is_

from ckptool.core.bytes import ByteSource
from ckptool.core.counts import tallied
from ckptool.core.spec import Form, TensorSpec
from ckptool.core.tensor import Piece, Storage, Tensor


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
        self._known: dict[str, int] | None = None

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
    def rows(self) -> Mapping[str, int]:
        """The number of each tensor's row."""
        if self._known is None:
            self._known = dict(zip(self._keys, range(len(self._keys)), strict=True))
        return self._known

    def __getitem__(self, key: str) -> Tensor:
        row = self.rows[key]
        file, start = self.place_of(row)
        form = self._forms[row]
        storage = Storage(file, start, form.nbytes)
        return Tensor(TensorSpec(key, form.dtype, form.shape), (Piece(storage, 0, form.shape),))

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

    def specs(self) -> ColumnSpecs:
        """The spec of every tensor."""
        return ColumnSpecs(self._keys, self._forms)

    def place(self, key: str) -> tuple[ByteSource, int]:
        """The file that holds a tensor, and the first byte of it there."""
        return self.place_of(self.rows[key])

    are_stored = True
    """Every tensor is bytes of a file as they are; none is computed from them."""

    def places(self, keys: Sequence[str]) -> tuple[list[int], list[int]]:
        """Of each tensor the number of its file, and the first byte of it there."""
        rows = range(len(self)) if self.are_all(keys) else list(map(self.rows.__getitem__, keys))
        numbers = list(
            chain.from_iterable(repeat(at, end - start) for at, (start, end) in enumerate(pairwise((0, *self._counts))))
        )
        return [numbers[row] for row in rows], [self._starts[row] for row in rows]

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
        self._rows: dict[str, int] | None = None

    @property
    def rows(self) -> Mapping[str, int]:
        """The number of each key."""
        if self._rows is None:
            self._rows = dict(zip(self.names, range(len(self.names)), strict=True))
        return self._rows

    def __getitem__(self, key: str) -> TensorSpec:
        form = self.forms[self.rows[key]]
        return TensorSpec(key, form.dtype, form.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, key: object) -> bool:
        return key in self.rows
