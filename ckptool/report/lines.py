"""One tensor per line between tabs, sorted and stable: git's textconv, grep, join, sha256sum-like checks."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from ckptool.commands.diff.result import Change, Diff
from ckptool.core.checkpoint import Tensor
from ckptool.core.errors import CkptError
from ckptool.engine.reading import Reader
from ckptool.report.escape import terminal
from ckptool.report.inspection import Inspection
from ckptool.report.units import relative

_WHOLE = 1 << 62  # names are not shortened here: two of them must not become one


def inspect_lines(report: Inspection, threads: int = 2) -> Iterator[str]:
    """``key<TAB>f32[64,3,7,7]<TAB>sha256`` by key; the digest is of the packed bytes, whatever the file's format."""
    tensors = sorted(report.tensors, key=lambda tensor: tensor.key)
    with Reader() as reader, ThreadPoolExecutor(threads) as pool:

        def digest(tensor: Tensor) -> str:
            try:
                return reader.sha256(tensor)
            except CkptError as error:
                error.key = error.key or tensor.key
                raise

        for tensor, sha256 in zip(tensors, pool.map(digest, tensors), strict=True):
            yield f"{terminal(tensor.key, _WHOLE)}\t{tensor.spec.short}\t{sha256}\n"


def diff_lines(diff: Diff) -> Iterator[str]:
    """``status<TAB>key<TAB>old spec<TAB>new spec<TAB>rel`` by key; ``-`` where there is none."""
    for change in sorted(diff.changes, key=lambda change: change.key):
        yield "\t".join(_fields(change)) + "\n"


def _fields(change: Change) -> tuple[str, ...]:
    rel = change.delta.rel if change.delta is not None else None
    return (
        change.status.value,
        terminal(change.key, _WHOLE),
        change.old.spec.short if change.old is not None else "-",
        change.new.spec.short if change.new is not None else "-",
        "-" if rel is None else relative(rel),
    )
