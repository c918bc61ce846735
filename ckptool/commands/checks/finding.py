"""What checks find: values that any renderer can show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ckptool.core.errors import Exit

Level = Literal["error", "warning", "note"]
Verdict = Literal["ok", "found", "skipped"]

LEVELS: tuple[Level, ...] = ("error", "warning", "note")
"""The worst first."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a policy asks for a rule.

    Attributes:
        file: the policy file as it is named.
        line: counted from 1; None if it is not known.
        text: what stands there: ``into = "torchvision:resnet18"``.
    """

    file: str
    line: int | None = None
    text: str = ""

    @property
    def name(self) -> str:
        """``ckptool.toml:2``"""
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a rule found in one file. Texts are as the file has them: renderers escape.

    Attributes:
        rule: its name, "dtype".
        level: how grave it is.
        file: the checkpoint as it was named.
        message: what is true, in one sentence: "2 tensors do not fit torchvision:resnet18".
        keys: the tensors it is about.
        details: lines that prove it: "fc.weight  f32[10,512]   model f32[1000,512]".
        help: the next command.
        policy: where the rule was asked for.
    """

    rule: str
    level: Level
    file: str
    message: str
    keys: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    help: str = ""
    policy: Place | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one rule went for one file.

    Attributes:
        file: the checkpoint as it was named.
        rule: the rule's name.
        status: "skipped" where the rule had nothing to look at, or could not.
        text: it in a word or two, for a table: "2", "3 NaN", "refused"; why, where it was skipped.
    """

    file: str
    rule: str
    status: Verdict
    text: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """Files x rules: what was looked at and what was found.

    Attributes:
        files: as they were named.
        rules: their names in the order of the registry.
        findings: in the order of the files, then of the rules.
        outcomes: one for each file and rule.
        seconds: it took.
    """

    files: tuple[str, ...]
    rules: tuple[str, ...]
    findings: tuple[Finding, ...]
    outcomes: tuple[Outcome, ...]
    seconds: float = 0.0

    @property
    def idle(self) -> dict[str, str]:
        """The rules among `rules` that had nothing to look at in any file, and why.

        Example:
            >>> Report(("a",), ("shards",), (), (Outcome("a", "shards", "skipped", "not sharded"),)).idle
            {'shards': 'not sharded'}
        """
        looked = {outcome.rule for outcome in self.outcomes if outcome.status != "skipped"}
        reasons = {rule: dict[str, None]() for rule in self.rules if rule not in looked}
        for outcome in self.outcomes:
            if outcome.rule in reasons and outcome.text:
                reasons[outcome.rule][outcome.text] = None
        return {rule: ", ".join(texts) for rule, texts in reasons.items()}

    def count(self, level: Level) -> int:
        """How many findings have this level.

        Example:
            >>> Report(("a",), (), (Finding("dtype", "error", "a", "m"),), ()).count("error")
            1
        """
        return sum(finding.level == level for finding in self.findings)

    def exit_code(self, fail_on: Level = "error") -> Exit:
        """DIFFERENT if there is a finding of this level or a worse one.

        Example:
            >>> report = Report(("a",), (), (Finding("dtype", "warning", "a", "m"),), ())
            >>> int(report.exit_code()), int(report.exit_code("warning"))
            (0, 1)
        """
        grave = LEVELS[: LEVELS.index(fail_on) + 1]
        return Exit.DIFFERENT if any(finding.level in grave for finding in self.findings) else Exit.OK
