"""The folded tree of a checkpoint as rows of plain values; text and Markdown draw it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from ckptool.core import fold
from ckptool.core.spec import Form
from ckptool.report.inspection import Inspection
from ckptool.report.units import count, size


@dataclass(frozen=True, slots=True)
class TreeRow:
    """One row: what it is called and what it stands for.

    Attributes:
        rails: the branches drawn before the name.
        name: the name below its parent, a pattern; not escaped.
        tensors: "12", or "2 × 12" for identical subtrees.
        spec: "f32[64]" for leaves.
        elements: their number.
        nbytes: their bytes.
        keys: the keys of all copies if the row is one tensor of each; else none.
    """

    rails: str
    name: str
    tensors: str
    spec: str
    elements: int
    nbytes: int
    keys: tuple[str, ...] = ()

    @property
    def figures(self) -> tuple[str, str]:
        """Elements and size as they are printed."""
        return count(self.elements), size(self.nbytes)


@dataclass(frozen=True)
class Tree:
    """The rows to show and what they leave out.

    Attributes:
        rows: from the top down.
        depth: levels shown.
        hides: True if there are deeper levels.
        module: pattern of the largest module that is not all there is; "" for none.
        is_flat: a row per tensor, no tree.
        folds: True if some rows stand for several copies.
    """

    rows: tuple[TreeRow, ...]
    depth: int = 0
    hides: bool = False
    module: str = ""
    is_flat: bool = False
    folds: bool = False


def tree(report: Inspection, depth: int | None = None, flat: bool = False, by_size: bool = False) -> Tree:
    """The tree of what is shown, as deep as fits a screen unless a depth is asked for."""
    if flat:
        return Tree(tuple(_flat_rows(report)), is_flat=True)
    keys: Sequence[str] = _by_module_size(report) if by_size else report.keys
    root = fold.fold(zip(keys, _labels(report, keys), strict=True))
    depth = fold.default_depth(root) if depth is None else depth
    found = list(fold.rows(root, depth))
    return Tree(
        rows=tuple(_tree_row(report, row) for row in found),
        depth=depth,
        hides=any(row.hidden for row in found),
        module=_largest_module(report, root),
        folds=any(row.node.copies > 1 and not row.hidden for row in found),
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


def _flat_rows(report: Inspection) -> Iterator[TreeRow]:
    forms = report.checkpoint.forms(report.keys)
    for key, form, label in zip(report.keys, forms, report.labels(report.keys), strict=True):
        yield TreeRow("", key, "1", label, form.elements, form.nbytes, (key,))


def _tree_row(report: Inspection, row: fold.Row) -> TreeRow:
    node = row.node
    forms = list(_forms(report, node))
    each = node.count // node.copies
    return TreeRow(
        rails=row.rails,
        name=node.name,
        tensors=f"{node.copies:,} × {each:,}" if node.copies > 1 else f"{each:,}",
        spec=forms[0][0].label if node.is_leaf else "",
        elements=sum(form.elements * many for form, many in forms),
        nbytes=sum(form.nbytes * many for form, many in forms),
        keys=node.keys if node.is_leaf and node.count == 1 else (),
    )


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
