"""Results of the Python API, ready to be looked at: in a line, as the terminal shows them, in a notebook.

>>> import ckptool
>>> ckptool.open("fixtures/resnet18.pth")
<Checkpoint resnet18.pth: 122 tensors, 54.1 kB>
>>> print(ckptool.compare("fixtures/resnet18.pth", "fixtures/shards"))
identical: 122 tensors, 54.1 kB compared
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from ckptool.commands.diff import result as diff
from ckptool.commands.transplant import result as transplant
from ckptool.core import checkpoint as core

if TYPE_CHECKING:
    from ckptool.report.document import Document


class Shown:
    """A result that is a line in `repr`, the terminal's text in `print`, and the parts of its page in a notebook."""

    __slots__ = ()

    @classmethod
    def of(cls, plain: Any) -> Self:
        """The same result, ready to be looked at."""
        return cls(**{field.name: getattr(plain, field.name) for field in fields(plain)})

    @abstractmethod
    def _document(self) -> Document:
        """The result for every output."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._document().answer.text}>"

    def __str__(self) -> str:
        from ckptool.report.screen import document_text

        return document_text(self._document())

    def _repr_html_(self) -> str:
        from ckptool.report.html import static_parts

        return "".join(static_parts(self._document()))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Checkpoint(Shown, core.Checkpoint):
    """An opened checkpoint: a mapping from key to `Tensor`. See `ckptool.core.checkpoint.Checkpoint`."""

    def _document(self) -> Document:
        from ckptool.facts.storages import ties
        from ckptool.facts.words import notes_of
        from ckptool.report.document_inspect import inspect_document
        from ckptool.report.inspection import Inspection

        notes = tuple(notes_of(self))
        return inspect_document(Inspection(self, self.path.name, tuple(self), tuple(ties(self)), notes))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Diff(Shown, diff.Diff):
    """A comparison of two checkpoints. See `ckptool.commands.diff.result.Diff`."""

    def _document(self) -> Document:
        from ckptool.report.document_diff import diff_document

        return diff_document(self, (str(self.old.path), str(self.new.path)))


@dataclass(frozen=True, eq=False, repr=False)
class Transplant(Shown, transplant.Transplant):
    """A transplant, decided on headers. See `ckptool.commands.transplant.result.Transplant`."""

    def _document(self) -> Document:
        from ckptool.report.document_transplant import transplant_document

        return transplant_document(self, str(self.source.path), "preview")
