"""A checkpoint as lines that git can compare: what it is, what it holds beside the weights, then its tensors."""

from __future__ import annotations

from collections.abc import Iterator

from ckptool.core.counts import many
from ckptool.core.errors import CkptError
from ckptool.report.document_inspect import inspect_listing
from ckptool.report.escape import terminal
from ckptool.report.inspection import Inspection
from ckptool.report.lines import row_text
from ckptool.report.units import size_short

_LONGEST = 2000  # characters of a value: what follows is not compared
_DIGEST = 12  # digits of a digest, as many as git shows of its own


def textconv_lines(report: Inspection, threads: int = 2) -> Iterator[str]:
    """Lines that depend on the content alone, not on where the file lies or what it is called."""
    checkpoint = report.checkpoint
    selection = checkpoint.selection
    under = f', weights under "{terminal(selection.name)}"' if selection.path else ""
    yield f"# {checkpoint.format}{under}\n"
    for use in sorted(report.dangerous, key=lambda use: use.name):
        yield f"# asks for {terminal(use.name)}: loading it with pickle would run code\n"
    for extra in checkpoint.extras:
        held = f"({many(extra.tensors, 'tensor')}, {size_short(extra.nbytes)})" if extra.tensors else extra.text
        yield f"# {terminal(extra.name)} = {terminal(held, _LONGEST)}\n"
    for name, value in checkpoint.metadata.items():
        yield f"# metadata {terminal(name)} = {terminal(value, _LONGEST)}\n"
    for key, spec, digest in inspect_listing(report, threads):
        yield row_text((key, spec, digest[:_DIGEST]))


def unreadable_lines(error: CkptError, path: str, head: bytes, size: int) -> Iterator[str]:
    """What can be said of a file that is no readable checkpoint; a short text, as a Git LFS pointer is, as it is."""
    yield f"# {terminal(error.message.replace(path, 'it'), _LONGEST)}\n"
    if error.hint:
        yield f"# help: {terminal(error.hint, _LONGEST)}\n"
    yield f"# {size:,} bytes\n"
    if head.startswith(b"version https://git-lfs") and size == len(head):
        yield from (f"{terminal(line)}\n" for line in head.decode("utf-8", "replace").splitlines())
