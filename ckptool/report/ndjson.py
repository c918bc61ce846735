"""NDJSON: one tensor per line, then one line with the summary; for jq, logs and data frames."""

from __future__ import annotations

from collections.abc import Iterator

from ckptool.commands.diff.result import Diff, Status
from ckptool.report.inspection import Inspection
from ckptool.report.json import change_fields, encode, extra_change_fields, summary_fields, tensor_fields


def inspect_ndjson(report: Inspection) -> Iterator[str]:
    """A tensor per line, then ``{"summary": ...}``."""
    for tensor in report.tensors:
        yield encode(tensor_fields(report, tensor)) + "\n"
    yield encode({"summary": summary_fields(report)}) + "\n"


def diff_ndjson(diff: Diff) -> Iterator[str]:
    """A tensor per line, then other entries that differ, then ``{"summary": ...}``."""
    for change in diff.changes:
        yield encode(change_fields(change)) + "\n"
    for extra in diff.extras:
        yield encode({"extra": extra_change_fields(extra)}) + "\n"
    counts = {status.value: diff.count(status) for status in Status}
    yield encode({"summary": {**counts, "extras": len(diff.extras), "exit_code": int(diff.exit_code)}}) + "\n"
