"""Checks: what must hold of a checkpoint, one rule a file; the policy that asks for it; the report.

The docstring of a rule's function is its page of ``ckptool check --explain``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ckptool.commands.checks.finding import Level
from ckptool.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        name: as policies and reports have it.
        level: of what it finds, where the finding does not say another.
        needs: the policy keys one of which must be set for it to run; none for a rule that always runs.
        reads: it reads the values and not only the headers.
        anyway: it also looks at files that cannot be opened.
        shares: what it reads beside the one pass over the bytes is shared out among processes.
        file: the module and function that it is, where they are not called as it is.
    """

    name: str
    level: Level = "error"
    needs: tuple[str, ...] = ()
    reads: bool = False
    anyway: bool = False
    shares: bool = False
    file: str = ""

    @property
    def function(self) -> Callable[..., Any]:
        """What looks at a file; imported when it is asked for."""
        name = self.file or self.name.replace("-", "_")
        found: Callable[..., Any] = getattr(import_module(f"ckptool.commands.checks.{name}"), name)
        return found


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule("readable", anyway=True),
        Rule("unsafe-pickle", anyway=True),
        Rule("shards", anyway=True),
        Rule("ranks", reads=True, shares=True),
        Rule("fits", needs=("into", "recipe")),
        Rule("complete", needs=("complete-with",)),
        Rule("dtype", needs=("dtypes",)),
        Rule("nonfinite", reads=True),
        Rule("dead", "warning", reads=True),
        Rule("tied", needs=("tied",)),
        Rule("size", needs=("max-size",)),
        Rule("metadata", needs=("metadata",)),
        Rule("drift", needs=("drift",), reads=True, shares=True),
        Rule("lock", needs=("lock",), reads=True),
        Rule("facts", reads=True),
        Rule("quantized", reads=True),
        Rule("wrapper", "warning"),
        Rule("leftover", "warning"),
        Rule("policy", "warning", file="unused"),
    )
}
"""Every rule by its name, in the order of reports."""


def rule_named(name: str) -> Rule:
    """The rule of a name.

    Raises:
        UsageError: there is none; the hint has the nearest name.

    Example:
        >>> rule_named("nonfinite").reads
        True
    """
    if name in RULES:
        return RULES[name]
    raise UsageError(f'there is no rule "{name}"', hint=f"{nearest(name, RULES)}the rules are {', '.join(RULES)}")


def nearest(name: str, names: Any) -> str:
    """``did you mean "dtype"? ``; "" if nothing is near."""
    from difflib import get_close_matches

    close = get_close_matches(name.lower().replace("_", "-"), list(names), n=1)
    return f'did you mean "{close[0]}"? ' if close else ""


def explain_rule(name: str) -> str:
    """The page of a rule: what it finds, why it matters, what to do, how a policy asks for it.

    Raises:
        UsageError: there is no such rule.

    Example:
        >>> explain_rule("size").splitlines()[0]
        'The file is larger on disk than it may be.'
    """
    import inspect

    return inspect.getdoc(rule_named(name).function) or ""
