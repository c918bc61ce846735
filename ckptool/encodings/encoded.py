"""An encoded tensor: which stored tensors are one logical tensor, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from ckptool.core.errors import CkptError, UndecodableError
from ckptool.core.spec import TensorSpec

if TYPE_CHECKING:
    from ckptool.core.arrays import Array
    from ckptool.encodings.headers import Headers

ProblemKind: TypeAlias = Literal["missing", "misshapen", "values", "config", "refused"]

CODES, SCALES, ZEROS = "codes", "scales", "zeros"


class Read(Protocol):
    """Reads a box of a member: ``read("scales", slice(0, 4))`` is ``scales[0:4]``, ``read("scales")`` all of it.

    The array has the member's rank and the dtype that `numpy_dtype` gives. It may be a view; it is not written to.
    """

    def __call__(self, role: str, /, *box: slice) -> Array: ...


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an encoded tensor cannot be decoded.

    Attributes:
        kind: "missing" (a member is not there), "misshapen" (its shape or dtype does not fit), "values" (its numbers
            cannot be true), "config" (the config says otherwise), "refused" (the scheme is known and not decoded).
        text: one clause about the file.
        hint: what to do next.
    """

    kind: ProblemKind
    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One logical tensor and the stored tensors that hold it.

    Attributes:
        scheme: the name of the scheme, ``fp8``.
        spec: logical key, dtype, shape. The shape is a guess while `needs` is not empty.
        members: the stored tensors by role. The payload has the role ``codes`` and comes first. A member that decoding
            does not need (``input_scale``) has its last name as its role.
        parameters: block shape, group size, bits, version, ...
        needs: roles that `registry.settle` must read before the shape is known and the tensor can be decoded.
        problems: why it cannot be decoded; empty if it can.
        markers: keys that describe the whole file (``scaled_fp8``). They have no use when everything is decoded.
        lead: leading axes of the logical shape that only stack matrices (experts).
        detail: the layout in a few words, ``128×128 blocks``.
    """

    scheme: str
    spec: TensorSpec
    members: Mapping[str, TensorSpec]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    markers: tuple[str, ...] = ()
    lead: int = 0
    detail: str = ""

    @property
    def key(self) -> str:
        """The logical key."""
        return self.spec.key

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of all members."""
        return tuple(spec.key for spec in self.members.values())

    @property
    def codes(self) -> TensorSpec:
        """The payload."""
        return self.members[CODES]

    @property
    def title(self) -> str:
        """Scheme and layout: ``fp8 128×128 blocks``."""
        return f"{self.scheme} {self.detail}".strip()

    @property
    def nbytes(self) -> int:
        """Bytes of all members."""
        return sum(spec.nbytes for spec in self.members.values())

    @property
    def bits_per_weight(self) -> float:
        """Stored bits for each logical element, members included."""
        return 8 * self.nbytes / max(1, self.spec.elements)

    @property
    def rows(self) -> int:
        """Rows of the logical tensor, of all stacked matrices."""
        return prod(self.spec.shape[: self.lead + 1])

    @property
    def matrix_rows(self) -> int:
        """Rows of one matrix."""
        return prod(self.spec.shape[self.lead : self.lead + 1])

    @property
    def columns(self) -> int:
        """Elements of one row."""
        return prod(self.spec.shape[self.lead + 1 :])

    def with_problem(self, kind: ProblemKind, text: str, hint: str = "") -> Encoded:
        """The same with one more problem."""
        return replace(self, problems=(*self.problems, Problem(kind, text, hint)))

    def misfit(self, role: str, expected: str) -> Encoded:
        """The same with the problem that a member's dtype or shape is not the expected one."""
        member = self.members[role]
        return self.with_problem("misshapen", f"{member.key} is {member.short}, not {expected}")

    def require_decodable(self) -> None:
        """Raises `CkptError` with the first problem, or if `settle` was not called."""
        if self.problems:
            first = self.problems[0]
            raise CkptError(f"{self.key} cannot be decoded: {first.text}", hint=first.hint or None, key=self.key)
        if self.needs:
            raise CkptError(f"{self.key} cannot be decoded before {', '.join(self.needs)} is read", key=self.key)


@dataclass(frozen=True, slots=True)
class Part:
    """One matrix of an encoded tensor, and its members' parts of that matrix.

    Attributes:
        encoded: the tensor.
        read: reads its members.
        at: the index of the matrix along the leading axes; empty for a plain matrix.
    """

    encoded: Encoded
    read: Read
    at: tuple[int, ...] = ()

    def matrix(self, role: str, rows: slice | None = None, columns: slice | None = None) -> Array:
        """Rows and columns of a member that is stacked as the tensor is, as a matrix [rows, columns]."""
        box = [slice(index, index + 1) for index in self.at]
        rank = len(self.encoded.members[role].shape) - len(self.at)
        if columns is not None:
            box += [rows or slice(None), columns]
        elif rows is not None:
            box.append(rows)
        array = self.read(role, *box)
        shape = array.shape[len(self.at) :]
        return array.reshape(shape[0] if rank else 1, prod(shape[1:]))

    def whole(self, role: str) -> Array:
        """All of a member."""
        return self.read(role)

    def error(self, text: str, hint: str = "") -> UndecodableError:
        """An error about this tensor."""
        return UndecodableError(
            f"{self.encoded.key} cannot be decoded: {text}", hint=hint or None, key=self.encoded.key
        )


def _settled(encoded: Encoded, read: Read) -> Encoded:
    return replace(encoded, needs=())


@dataclass(frozen=True, slots=True)
class Scheme:
    """How one scheme is found and decoded. A scheme without `decode` is only named.

    Attributes:
        name: as in `Encoded.scheme`.
        priority: schemes with explicit descriptions come first (low numbers).
        find: the encoded tensors of a file.
        decode: rows ``start`` to ``stop`` of one matrix, float32 ``[stop - start, columns]``.
        settle: the tensor with what its description members say, when `needs` was not empty.
        granule: decoding is fastest in multiples of so many rows.
    """

    name: str
    priority: int
    find: Callable[[Headers], Iterator[Encoded]]
    decode: Callable[[Part, int, int], Array] | None = None
    settle: Callable[[Encoded, Read], Encoded] = _settled
    granule: Callable[[Encoded], int] = lambda encoded: 1
