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

from ckptool.core import checkpoint as core

if TYPE_CHECKING:
    from ckptool.report.document import Answer, Document


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

    def _answer(self) -> Answer:
        """The answer alone."""
        return self._document().answer

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._answer().text}>"

    def __str__(self) -> str:
        from ckptool.report.screen import document_text

        return document_text(self._document())

    def _repr_html_(self) -> str:
        from ckptool.report.html import static_parts

        return "".join(static_parts(self._document()))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Checkpoint(Shown, core.Checkpoint):
    """An opened checkpoint: a mapping from key to `Tensor`. See `ckptool.core.checkpoint.Checkpoint`."""

    def _answer(self) -> Answer:
        from ckptool.report.document_inspect import inspect_document
        from ckptool.report.inspection import Inspection

        return inspect_document(Inspection(self, self._name, tuple(self))).answer

    @property
    def _name(self) -> str:
        """What to call it: its file, with the folder where many files have that name; and whether it is decoded."""
        from ckptool.formats.folder import KNOWN

        folder = self.path.parent.name if self.path.name in KNOWN else ""
        name = f"{folder}/{self.path.name}" if folder else self.path.name
        return f"{name}, dequantized" if self.is_decoded else name

    def _document(self) -> Document:
        from ckptool.facts.storages import ties
        from ckptool.facts.words import notes_of
        from ckptool.report.document_inspect import inspect_document
        from ckptool.report.inspection import Inspection

        notes = tuple(notes_of(self))
        return inspect_document(Inspection(self, self._name, tuple(self), tuple(ties(self)), notes))
