"""The folded tree of a checkpoint as rows of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from ckptool.core import fold
from ckptool.core.spec import Form
from ckptool.report.cells import Cell, Row
from ckptool.report.inspection import Inspection


@dataclass(frozen=True)
class Tree:
    """The rows to show and what they leave out.

    Attributes:
        rows: from the top down: name, tensors ("12", or "2 × 12" for identical subtrees), spec of leaves, elements,
            bytes, share of all bytes.
        keys: for each row the keys of all copies, if it is one tensor of each; else none.
        depth: levels shown.
        hides: True if there are deeper levels.
        module: pattern of the largest module that is not all there is; "" for none.
        is_flat: a row per tensor, no tree.
    """

    rows: tuple[Row, ...]
    keys: tuple[tuple[str, ...], ...]
    depth: int = 0
    hides: bool = False
    module: str = ""
    is_flat: bool = False


def tree(report: Inspection, depth: int | None = None, flat: bool = False, by_size: bool = False) -> Tree:
    """The tree of what is shown, as deep as fits a screen unless a depth is asked for."""
    if flat:
        every = zip(report.keys, report.labels(report.keys), report.checkpoint.forms(report.keys), strict=True)
        rows = (_row(report, Cell(key), "1", label, [(form, 1)]) for key, label, form in every)
        return Tree(tuple(rows), tuple((key,) for key in report.keys), is_flat=True)
    keys: Sequence[str] = _by_module_size(report) if by_size else report.keys
    root = fold.fold(zip(keys, _labels(report, keys), strict=True))
    depth = fold.default_depth(root) if depth is None else depth
    found = list(fold.rows(root, depth))
    return Tree(
        rows=tuple(_folded_row(report, row) for row in found),
        keys=tuple(row.node.keys if row.node.is_leaf and row.node.count == 1 else () for row in found),
        depth=depth,
        hides=any(row.hidden for row in found),
        module=_largest_module(report, root),
    )


def _labels(report: Inspection, keys: Sequence[str]) -> Iterator[Form | str]:
    """What tells leaves apart: their forms; the text of these where forms of one text have several sizes."""
    if report.encoded:
        return report.labels(keys)
    forms = report.checkpoint.forms(keys)
    if len({form.label for form in report.forms}) == len(report.forms):
        return forms
    return (form.label for form in forms)


def _forms(report: Inspection, node: fold.Node) -> Iterable[tuple[Form, int]]:
    """The forms of the tensors that a row counts, and how many have each."""
    found = node.labels
    if all(isinstance(label, Form) for label in found):
        return cast("Iterable[tuple[Form, int]]", found.items())
    return report.checkpoint.form_counts(node.sample).items()


def _folded_row(report: Inspection, row: fold.Row) -> Row:
    node = row.node
    each = node.count // node.copies
    tensors = f"{node.copies:,} × {each:,}" if node.copies > 1 else f"{each:,}"
    name = Cell(node.name, "" if node.is_leaf else "bold", row.rails)
    forms = list(_forms(report, node))
    return _row(report, name, tensors, _label(node) if node.is_leaf else "", forms)


def _label(node: fold.Node) -> str:
    return node.label.label if isinstance(node.label, Form) else str(node.label)


def _row(report: Inspection, name: Cell, tensors: str, spec: str, forms: Sequence[tuple[Form, int]]) -> Row:
    nbytes = sum(form.nbytes * many for form, many in forms)
    elements = sum(form.elements * many for form, many in forms)
    return Row((name, tensors, spec, elements, nbytes, nbytes / (report.nbytes or 1)))


def _largest_module(report: Inspection, root: fold.Node) -> str:
    """The largest row that is a module, if it is not everything: a good next question."""
    node = root
    while len(node.children) == 1 and not node.is_leaf:
        node = node.children[0]
    modules = [child for child in node.children if not child.is_leaf]

    def bytes_below(child: fold.Node) -> int:
        return sum(form.nbytes * many for form, many in _forms(report, child))

    return max(modules, key=bytes_below).pattern if modules else ""


def _by_module_size(report: Inspection) -> list[str]:
    """The keys so that in every module the largest part comes first."""
    totals: Counter[str] = Counter()
    for key, form in zip(report.keys, report.checkpoint.forms(report.keys), strict=True):
        parts = key.split(".")
        for end in range(1, min(len(parts), 32) + 1):
            totals[".".join(parts[:end])] += form.nbytes

    def order(key: str) -> list[tuple[int, str]]:
        parts = key.split(".")[:32]
        prefixes = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
        return [(-totals[prefix], prefix) for prefix in prefixes]

    return sorted(report.keys, key=order)
