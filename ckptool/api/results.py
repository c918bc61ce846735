"""What comparisons, transplants, checks and probes give in Python, ready to be looked at."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Self

from ckptool.api.shown import Shown
from ckptool.commands.checks import finding
from ckptool.commands.diff import result as diff
from ckptool.commands.patching import extract as patching
from ckptool.commands.patching import lora_result
from ckptool.commands.transplant import result as transplant
from ckptool.core.counts import many
from ckptool.engine import apply
from ckptool.models.probing import report as probing
from ckptool.report.escape import terminal
from ckptool.report.units import size_short

if TYPE_CHECKING:
    from ckptool.report.document import Document


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
        from ckptool.commands.transplant.advice import with_python_suggestions
        from ckptool.report.document_transplant import transplant_document

        return transplant_document(with_python_suggestions(self), str(self.source.path), "preview")


@dataclass(frozen=True, slots=True, repr=False)
class CheckReport(Shown, finding.Report):
    """Files and rules, and what was found. See `ckptool.commands.checks.finding.Report`."""

    def _document(self) -> Document:
        from ckptool.report.document_check import check_document

        return check_document(self)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Extracted(Shown, patching.Extracted):
    """A patch, measured or written. See `ckptool.commands.patching.extract.Extracted`."""

    def _document(self) -> Document:
        from ckptool.report.document_extract import extract_document

        return extract_document(self, (str(self.base.path), str(self.tuned.path)))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ExtractedLora(Shown, lora_result.ExtractedLora):
    """An adapter, planned or written. See `ckptool.commands.patching.lora_result.ExtractedLora`."""

    def _document(self) -> Document:
        from ckptool.report.document_lora import lora_document

        return lora_document(self, (str(self.base.path), str(self.tuned.path)))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ProbeReport(Shown, probing.ProbeReport):
    """One input through two models. See `ckptool.models.probing.report.ProbeReport`."""

    def _document(self) -> Document:
        from ckptool.report.document_probe import probe_document

        return probe_document(self)


@dataclass(frozen=True, slots=True, repr=False)
class Written(apply.Written):
    """An output. See `ckptool.engine.apply.Written` for what is known of it."""

    @classmethod
    def of(cls, plain: apply.Written) -> Self:
        """The same, ready to be looked at."""
        return cls(**{field.name: getattr(plain, field.name) for field in fields(plain)})

    def __repr__(self) -> str:
        return f"<Written {many(self.tensors, 'tensor')}, {size_short(self.nbytes)}: {terminal(str(self.path))}>"

    def __str__(self) -> str:
        from ckptool.report.document_plan import written_blocks
        from ckptool.report.screen import blocks_text

        return blocks_text(written_blocks(self, str(self.path)))
