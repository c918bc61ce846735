"""SARIF 2.1.0, for code scanning: a result for each finding, the keys as its logical locations."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ckptool.commands.checks.finding import LEVELS, Finding, Level, Place, Report
from ckptool.report.document import Document
from ckptool.report.escape import sarif_text, terminal, uri
from ckptool.report.json import json_object

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_KEYS = 1000  # logical locations of one result
_DETAILS = 20
_WHOLE = 1 << 62  # names are not shortened where programs read them


def encode_document(document: Document) -> Iterator[str]:
    """The findings of a document as one run."""
    return sarif(document.found, document.about, document.fail_on)


def sarif(report: Report, about: Mapping[str, str] | None = None, fail_on: Level = "error") -> Iterator[str]:
    """The report as one run.

    Args:
        report: the findings.
        about: what each rule is about, in a sentence.
        fail_on: the mildest level that the exit code tells of.
    """
    from ckptool.core.version import VERSION

    rules = list(dict.fromkeys([*report.rules, *(finding.rule for finding in report.findings)]))
    driver = {"name": "ckptool", "version": VERSION, "rules": [_rule(rule, report, about or {}) for rule in rules]}
    run = {
        "tool": {"driver": driver},
        "invocations": [{"executionSuccessful": True, "exitCode": int(report.exit_code(fail_on))}],
        "columnKind": "utf16CodeUnits",
        "results": [_result(finding, rules) for finding in report.findings],
    }
    yield from json_object([("$schema", _SCHEMA), ("version", "2.1.0"), ("runs", iter([run]))])


def _rule(rule: str, report: Report, about: Mapping[str, str]) -> dict[str, Any]:
    levels = [finding.level for finding in report.findings if finding.rule == rule]
    return {
        "id": f"ckptool/{terminal(rule)}",
        "name": terminal(rule),
        "shortDescription": {"text": sarif_text(about.get(rule, rule))},
        "defaultConfiguration": {"level": min(levels, key=LEVELS.index, default="error")},
    }


def _result(finding: Finding, rules: Sequence[str]) -> dict[str, Any]:
    lines = [sarif_text(f"{finding.file}: {finding.message}"), *map(sarif_text, finding.details[:_DETAILS])]
    if len(finding.details) > _DETAILS:
        lines.append(f"{len(finding.details) - _DETAILS:,} more")
    if finding.help:
        lines.append(f"help: {sarif_text(finding.help)}")
    result: dict[str, Any] = {
        "ruleId": f"ckptool/{terminal(finding.rule)}",
        "ruleIndex": rules.index(finding.rule),
        "level": finding.level,
        "message": {"text": "\n".join(lines)},
        "locations": [_location(finding)],
        "partialFingerprints": {"primaryLocationLineHash": _fingerprint(finding)},
    }
    if finding.policy is not None:
        result["relatedLocations"] = [_policy(finding.policy)]
    return result


def _location(finding: Finding) -> dict[str, Any]:
    """The checkpoint and the tensors in it. A binary file has no lines; GitHub shows no result without one."""
    location: dict[str, Any] = {
        "physicalLocation": {"artifactLocation": {"uri": uri(finding.file)}, "region": {"startLine": 1}}
    }
    if finding.keys:
        location["logicalLocations"] = [_key(key) for key in finding.keys[:_KEYS]]
    return location


def _key(key: str) -> dict[str, str]:
    return {
        "fullyQualifiedName": terminal(key, _WHOLE),
        "name": terminal(key.rpartition(".")[2], _WHOLE),
        "kind": "member",
    }


def _policy(place: Place) -> dict[str, Any]:
    location: dict[str, Any] = {"artifactLocation": {"uri": uri(place.file)}}
    if place.line is not None:
        location["region"] = {"startLine": place.line}
    return {"id": 1, "message": {"text": "the policy that asks for it"}, "physicalLocation": location}


def _fingerprint(finding: Finding) -> str:
    """Equal for the same finding of two runs, whatever its numbers."""
    said = "\0".join((finding.rule, finding.file, *finding.keys))
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:16] + ":1"
