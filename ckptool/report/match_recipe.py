"""A match as a recipe: TOML of about ten lines, with the evidence in comments."""

from __future__ import annotations

from ckptool.core.toml import toml_text
from ckptool.matching.result import Confidence, MatchReport, MatchRule
from ckptool.report.match_words import rule_words


def match_recipe(report: MatchReport, accept: Confidence = Confidence.ALIGNED) -> str:
    """The rules that are as sure as `accept`, the others and what has no counterpart in comments.

    Args:
        report: of `match`.
        accept: the least confidence that is written as a rule.
    """
    from ckptool.commands.automatic import missing_patterns

    taken = [rule for rule in report.rules if rule.confidence.within(accept)]
    left = [rule for rule in report.rules if not rule.confidence.within(accept)]
    missing = ", ".join(map(toml_text, missing_patterns(report, accept)))
    lines = ["ckptool = 1", 'unmatched = "drop"']
    lines += [f"expect.missing = [{missing}]"] if missing else []
    lines.append("rules = '''")
    width = max((len(rule.text) for rule in taken), default=0)
    lines += [f"{rule.text:<{min(width, 90)}}  # {_why(rule)}" for rule in taken]
    if not taken:
        lines.append("?{k**} -> !  # nothing is sure enough")
    lines += [f"# {rule.text}  # {_why(rule)}" for rule in left]
    lines.append("'''")
    lines += [f"# {_comment(note.text)}" for note in report.notes]
    return "\n".join(lines) + "\n"


def _why(rule: MatchRule) -> str:
    return _comment(rule_words(rule))


def _comment(text: str) -> str:
    """On one line, without what would end the text around it."""
    return "".join(char if char.isprintable() else "?" for char in text).replace("'''", "???")
