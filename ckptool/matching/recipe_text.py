"""A match as a recipe: TOML of about ten lines, with the evidence in comments."""

from __future__ import annotations

import json

from ckptool.core.fold import rollup
from ckptool.matching.result import Confidence, MatchReport, MatchRule


def recipe_text(report: MatchReport, accept: Confidence = Confidence.ALIGNED) -> str:
    """The rules that are as sure as `accept`, the others and what has no counterpart in comments.

    Args:
        report: of `match`.
        accept: the least confidence that is written as a rule.
    """
    taken = [rule for rule in report.rules if rule.confidence.within(accept)]
    left = [rule for rule in report.rules if not rule.confidence.within(accept)]
    lines = ["ckptool = 1", 'unmatched = "drop"', *_missing(report, accept), "rules = '''"]
    width = max((len(rule.text) for rule in taken), default=0)
    lines += [f"{rule.text:<{min(width, 90)}}  # {_why(rule)}" for rule in taken]
    if not taken:
        lines.append("?{k**} -> !  # nothing is sure enough")
    lines += [f"# {rule.text}  # {_why(rule)}" for rule in left]
    lines.append("'''")
    lines += [f"# {_comment(note.text)}" for note in report.notes]
    return "\n".join(lines) + "\n"


def _missing(report: MatchReport, accept: Confidence) -> list[str]:
    """What nothing is found for, as patterns: whoever holds the outcome against the target expects no more."""
    made = {key: True for pair in report.accepted(accept) for key in pair.targets}
    paired = (key for pair in report.pairs for key in pair.targets)
    groups = rollup([(key, key in made) for key in dict.fromkeys([*paired, *report.unmatched_targets])])
    patterns = [_quoted(group.pattern) for group in groups if not group.label]
    return [f"expect.missing = [{', '.join(patterns)}]"] if patterns else []


def _quoted(text: str) -> str:
    """As TOML has it: JSON's escapes do, but for one character that TOML wants escaped, too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _why(rule: MatchRule) -> str:
    count = len(rule.pairs)
    tensors = f", {count:,} tensor{'s' * (count != 1)}" if count else ""
    rival = f"; next best: {rule.rival[0]} ({rule.rival[1]:.2f})" if rule.rival else ""
    return _comment(f"{rule.confidence.value}{tensors}: {', '.join(rule.evidence)}{rival}")


def _comment(text: str) -> str:
    """On one line, without what would end the text around it."""
    return "".join(char if char.isprintable() else "?" for char in text).replace("'''", "???")
