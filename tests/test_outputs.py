"""Findings in every format: what it must look like, that its readers accept it, and that hostile names stay inert."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest
from console import fits, same_as_golden
from documents import document_text
from reports import CLEAN, FILES, FINDINGS, HOSTILE, REPORT, RULES, hostile_report

from ckptool.commands.checks.finding import Finding, Outcome, Place, Report
from ckptool.report.document_check import check_document
from ckptool.report.escape import github_data, github_property, uri
from ckptool.report.github import workflow_commands
from ckptool.report.json import encode_document as encode_json
from ckptool.report.junit import junit
from ckptool.report.markdown import LIMIT
from ckptool.report.markdown import encode_document as encode_markdown
from ckptool.report.sarif import sarif
from ckptool.report.screen import block_lines
from ckptool.report.text import Line, Screen, paint

DATA = Path(__file__).parent / "data"
WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def check_lines(report: Report, screen: Screen, verbose: bool = False) -> Iterator[Line]:
    return block_lines(check_document(report).blocks(), screen, verbose)


def summary(report: Report, limit: int = LIMIT) -> str:
    return "".join(encode_markdown(check_document(report), limit))


def text_of(report: Report, width: int, verbose: bool = False, elide: bool = True) -> str:
    screen = Screen(width=width, elide=elide)
    return "".join(f"{paint(line, screen)}\n" for line in check_lines(report, screen, verbose))


def commands_of(report: Report) -> str:
    return "".join(workflow_commands(report))


def xml_of(report: Report) -> str:
    return "".join(junit(report, when=WHEN))


def sarif_of(report: Report) -> str:
    return "".join(sarif(report, {"fits": "tensors fit the model"}))


def many(findings: int, details: int = 0) -> Report:
    """A report of as many files, each with a finding."""
    files = tuple(f"run/{at:05}.pth" for at in range(findings))
    found = tuple(
        Finding(
            "fits", "error", file, "it does not fit", details=tuple(f"layer{line}.weight" for line in range(details))
        )
        for file in files
    )
    return Report(files, ("fits",), found, tuple(Outcome(file, "fits", "found", "1") for file in files))


# ---------------------------------------------------------------------------------------------- text


@pytest.mark.parametrize("width", [80, 160])
def test_text_is_the_one_of_the_design(width: int) -> None:
    text = text_of(REPORT, width)
    assert max(map(len, text.splitlines())) <= width
    if width == 80:
        same_as_golden("check-80", text)
    same_as_golden("documents/check", document_text(check_document(REPORT)))


def test_the_answer_and_the_last_line_say_whether_all_is_well() -> None:
    assert text_of(REPORT, 80).splitlines()[-2:] == [
        "3 files, 9 rules: 2 errors, 1 warning",
        "why: ckptool check --explain fits",
    ]
    assert check_document(CLEAN).answer.text == "passed: 1 file, 9 rules, nothing found"
    assert check_document(REPORT).answer.text == "failed: 2 errors, 1 warning"
    assert text_of(CLEAN, 80) == ""  # the answer says it


def test_many_details_are_counted_unless_all_are_asked_for() -> None:
    report = many(1, details=30)
    assert "22 more (all: -v)" in text_of(report, 80)
    assert text_of(report, 80, verbose=True).count("   | layer") == 30
    assert "more" not in text_of(many(1, details=9), 80)


def test_the_table_of_many_files_ends() -> None:
    text = text_of(many(100), 160, elide=False)
    assert "60 more files" in text
    assert text.count("it does not fit") == 100


# ---------------------------------------------------------------------------------------------- GitHub


def parsed(line: str) -> tuple[str, dict[str, str], str]:
    """A workflow command as GitHub's runner reads it."""
    match = re.fullmatch(r"::(\w+) ?(.*?)::(.*)\n", line)
    assert match is not None, line
    unescaped = {"%0D": "\r", "%0A": "\n", "%3A": ":", "%2C": ",", "%25": "%"}
    properties = dict(pair.split("=", 1) for pair in match[2].split(","))
    for name, value in properties.items():
        properties[name] = re.sub("%(0D|0A|3A|2C|25)", lambda found: unescaped[found[0]], value)
    return match[1], properties, re.sub("%(0D|0A|25)", lambda found: unescaped[found[0]], match[3])


def test_an_annotation_stands_on_the_line_of_the_policy() -> None:
    commands = [parsed(line) for line in workflow_commands(REPORT)]
    assert [(name, properties) for name, properties, _ in commands] == [
        ("error", {"file": "ckptool.toml", "line": "2", "title": "ckptool fits"}),
        ("error", {"title": "ckptool unsafe-pickle"}),
        ("warning", {"title": "ckptool nonfinite"}),
    ]
    assert commands[0][2] == (
        "weights/tuned.safetensors: 2 tensors do not fit torchvision:resnet18"
        " (fc.weight f32[10,512] model f32[1000,512]; fc.bias f32[10] model f32[1000])"
    )


def test_one_annotation_for_each_rule_however_many_files() -> None:
    (line,) = workflow_commands(many(50))
    _, _, message = parsed(line)
    lines = message.splitlines()
    assert lines[0] == "run/00000.pth: it does not fit"
    assert lines[-1] == "and 30 more files"
    assert len(lines) == 21


def test_at_most_ten_annotations_of_a_level() -> None:
    findings = tuple(
        Finding(f"rule-{at}", level, "a.pth", "m", policy=Place("ckptool.toml", at + 1))
        for level in ("error", "warning")
        for at in range(25)
    )
    commands = [parsed(line) for line in workflow_commands(Report(("a.pth",), (), findings, ()))]
    assert [name for name, _, _ in commands] == ["error"] * 10 + ["warning"] * 10
    assert commands[9][2].startswith("16 more rules found something, see the job summary: rule-9, rule-10")


def test_workflow_commands_are_escaped_as_the_toolkit_does() -> None:
    # the cases of actions/toolkit's command.ts
    assert github_data("%\r\n:,") == "%25%0D%0A:,"
    assert github_property("a%b:c,d") == "a%25b%3Ac%2Cd"


def test_the_job_summary_is_markdown_with_both_tables() -> None:
    text = summary(REPORT)
    assert text.startswith("### ckptool check\n\n**failed&#58; 2 errors, 1 warning**\n\n| file | readable |")
    assert "| `weights/old.pth` | ok | **refused** |" in text
    assert "(policy `ckptool.toml:2`)" in text


@pytest.mark.parametrize("report", [many(30_000), many(8_000, details=50)], ids=["files", "details"])
def test_the_job_summary_stays_below_its_limit(report: Report) -> None:
    text = summary(report)
    assert LIMIT - 10_000 < len(text.encode()) <= LIMIT
    shown = text.count("it does not fit")
    assert f"… {len(report.findings) - shown:,} more findings" in text


def test_a_tiny_limit_still_says_what_was_found() -> None:
    text = summary(REPORT, limit=400)
    assert text.startswith("### ckptool check\n\n**failed&#58; 2 errors, 1 warning**")
    assert len(text.encode()) <= 400


# ---------------------------------------------------------------------------------------------- JUnit


@pytest.fixture(scope="module")
def junit_schema() -> object:
    import xmlschema

    return xmlschema.XMLSchema(DATA / "junit.xsd")


@pytest.mark.parametrize(
    "report", [REPORT, CLEAN, many(3, 2), Report((), (), (), ())], ids=["found", "clean", "many", "none"]
)
def test_junit_validates(report: Report, junit_schema: object) -> None:
    junit_schema.validate(xml_of(report))  # type: ignore[attr-defined]


def test_a_test_case_for_each_file_and_rule() -> None:
    root = ElementTree.fromstring(xml_of(REPORT))
    cases = root.findall("testsuite/testcase")
    assert [(case.get("classname"), case.get("name")) for case in cases] == [(f, r) for f in FILES for r in RULES]
    failed = {(case.get("classname"), case.get("name")) for case in cases if case.find("failure") is not None}
    assert failed == {(FILES[0], "fits"), (FILES[1], "unsafe-pickle")}
    suite = root.find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("27", "2", "6")
    assert "3 NaN in layer4.1.conv2.weight" in (suite.findtext("system-out") or "")
    failure = next(case for case in cases if case.get("name") == "fits").find("failure")
    assert failure is not None
    assert failure.get("message") == FINDINGS[0].message
    assert "   | fc.bias    f32[10]       model f32[1000]" in (failure.text or "")


def test_junit_fails_where_the_exit_code_does() -> None:
    root = ElementTree.fromstring("".join(junit(REPORT, fail_on="warning", when=WHEN)))
    assert len(root.findall("testsuite/testcase/failure")) == 3
    assert int(REPORT.exit_code("warning")) == 1


def test_a_finding_without_an_outcome_is_a_test_case_too() -> None:
    report = Report(("a.pth",), (), (Finding("allow", "error", "ckptool.toml", "an entry is not used"),), ())
    (case,) = ElementTree.fromstring(xml_of(report)).findall("testsuite/testcase")
    assert (case.get("classname"), case.get("name")) == ("ckptool.toml", "allow")


# ---------------------------------------------------------------------------------------------- SARIF


@pytest.fixture(scope="module")
def sarif_schema() -> object:
    import jsonschema

    schema = json.loads((DATA / "sarif-2.1.0.schema.json").read_text(encoding="utf-8"))
    return jsonschema.Draft7Validator(schema, format_checker=jsonschema.FormatChecker())


@pytest.mark.parametrize(
    "report", [REPORT, CLEAN, many(3, 200), Report((), (), (), ())], ids=["found", "clean", "many", "none"]
)
def test_sarif_validates(report: Report, sarif_schema: object) -> None:
    sarif_schema.validate(json.loads(sarif_of(report)))  # type: ignore[attr-defined]


def test_sarif_says_which_rule_file_and_keys() -> None:
    (run,) = json.loads(sarif_of(REPORT))["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == [f"ckptool/{rule}" for rule in RULES]
    assert rules[2]["shortDescription"]["text"] == "tensors fit the model"
    first = run["results"][0]
    assert (first["ruleId"], rules[first["ruleIndex"]]["id"], first["level"]) == (
        "ckptool/fits",
        "ckptool/fits",
        "error",
    )
    (location,) = first["locations"]
    assert location["physicalLocation"]["artifactLocation"]["uri"] == "weights/tuned.safetensors"
    assert [key["fullyQualifiedName"] for key in location["logicalLocations"]] == ["fc.weight", "fc.bias"]
    assert first["relatedLocations"][0]["physicalLocation"]["region"]["startLine"] == 2


def test_two_findings_have_two_fingerprints_and_the_same_finding_one() -> None:
    def prints(report: Report) -> list[str]:
        results = json.loads(sarif_of(report))["runs"][0]["results"]
        return [result["partialFingerprints"]["primaryLocationLineHash"] for result in results]

    assert len(set(prints(REPORT))) == 3
    assert prints(REPORT) == prints(REPORT)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a b.pth", "a%20b.pth"),
        ("50%#?.pth", "50%25%23%3F.pth"),
        ("c:x.pth", "c%3Ax.pth"),
        ("/data/é.pth", "file:///data/%C3%A9.pth"),
        ("a\udcff.pth", "a%FF.pth"),
        ("a\ud800.pth", "a%ED%A0%80.pth"),
    ],
)
def test_paths_are_percent_encoded(path: str, expected: str) -> None:
    assert uri(path) == expected


# ---------------------------------------------------------------------------------------------- JSON


def test_json_is_the_one_of_the_design() -> None:
    said = json.loads("".join(encode_json(check_document(REPORT))))
    assert {name: said[name] for name in ("schema", "exit_code", "files", "rules", "summary")} == {
        "schema": "ckptool.check/1",
        "exit_code": 1,
        "files": 3,
        "rules": 9,
        "summary": {"error": 2, "warning": 1, "note": 0},
    }
    assert said["findings"][0] == {
        "rule": "fits",
        "level": "error",
        "file": FILES[0],
        "keys": ["fc.weight", "fc.bias"],
        "message": FINDINGS[0].message,
        "details": list(FINDINGS[0].details),
        "policy": {"file": "ckptool.toml", "line": 2},
        "help": FINDINGS[0].help,
    }
    assert len(said["outcomes"]) == 27
    assert json.loads("".join(encode_json(check_document(CLEAN))))["exit_code"] == 0


# ---------------------------------------------------------------------------------------------- hostile names


@pytest.fixture(params=HOSTILE.values(), ids=HOSTILE)
def hostile(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def no_controls(text: str) -> None:
    """Nothing in it acts on a terminal, hides, or turns the direction; it can be written as UTF-8."""
    assert all(
        unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} for char in text.replace("\n", "")
    )
    text.encode("utf-8")


@pytest.mark.parametrize("width", [40, 80, 160])
def test_text_keeps_its_lines(hostile: str, width: int) -> None:
    plain = text_of(hostile_report("plain"), width, elide=False)
    text = text_of(hostile_report(hostile), width, elide=False)
    no_controls(text)
    starts = [[line[:5].rstrip() for line in shown.partition("\nfile  ")[0].splitlines()] for shown in (text, plain)]
    assert starts[0] == starts[1]
    assert len(text.splitlines()) == len(plain.splitlines())
    assert not any(line.lstrip().startswith("::") or "##[" in line for line in text.splitlines())
    narrow = text_of(hostile_report(hostile), width)
    assert all(fits(line, max(width, 60)) for line in narrow.splitlines())


def test_colour_comes_only_from_us(hostile: str) -> None:
    screen = Screen(width=80, color=True)
    text = "\n".join(paint(line, screen) for line in check_lines(hostile_report(hostile), screen))
    no_controls(re.sub(r"\x1b\[[0-9;]*m", "", text))


def test_workflow_commands_stay_ours(hostile: str) -> None:
    text = commands_of(hostile_report(hostile))
    no_controls(text)
    error, warning = (parsed(f"{line}\n") for line in text.splitlines())
    assert error[0] == "error"
    assert set(error[1]) == {"file", "line", "title"}
    assert error[1]["line"] == "3"
    assert warning[0] == "warning"
    assert set(warning[1]) == {"title"}
    assert not any(line.startswith("::") for line in error[2].splitlines())


def test_markdown_stays_ours(hostile: str) -> None:
    text = summary(hostile_report(hostile))
    no_controls(text)
    outside = re.sub(r"`[^`\n]*`", "", text)  # what no code span holds
    assert not set(outside) & set("[]@")
    assert set(re.findall(r"<[^>]*>?", outside)) <= {"<code>", "</code>"}
    assert "http:" not in outside
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1
    assert len(text.splitlines()) == len(summary(hostile_report("plain")).splitlines())


def test_junit_stays_ours(hostile: str, junit_schema: object) -> None:
    text = xml_of(hostile_report(hostile))
    no_controls(text)
    junit_schema.validate(text)  # type: ignore[attr-defined]
    root = ElementTree.fromstring(text)
    assert [element.tag for element in root.iter()] == [
        element.tag for element in ElementTree.fromstring(xml_of(hostile_report("plain"))).iter()
    ]


def test_sarif_stays_ours(hostile: str, sarif_schema: object) -> None:
    text = sarif_of(hostile_report(hostile))
    assert text.isascii()
    said = json.loads(text)
    sarif_schema.validate(said)  # type: ignore[attr-defined]
    for result in said["runs"][0]["results"]:
        no_controls(result["message"]["text"])
        unescaped = re.sub(r"\\[\\\[\]]", "", result["message"]["text"])
        assert not re.search(r"\[[^\]]*\]\(", unescaped)
        place = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        assert re.fullmatch(r"(file://)?[A-Za-z0-9_.~/%-]*", place)
        assert not re.match(r"[a-z]+:(?!///)", place)


def test_json_keeps_names_exactly(hostile: str) -> None:
    text = "".join(encode_json(check_document(hostile_report(hostile))))
    assert text.isascii()
    assert not any(line.lstrip().startswith("::") for line in text.splitlines())
    finding = json.loads(text)["findings"][0]
    assert finding["file"] == finding["message"] == finding["keys"][0] == finding["details"][0] == hostile
