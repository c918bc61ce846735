"""Checks: what must hold of a checkpoint, one rule a file; the policy that asks for it; the report.

The docstring of a rule's function is its page of ``ckptool check --explain``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from ckptool.commands.checks.finding import Level
from ckptool.commands.checks.settings import SELECT, Key
from ckptool.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: what its module says of it, as `RULE`.

    Attributes:
        name: as policies and reports have it.
        level: of what it finds, where the finding does not say another.
        needs: the policy keys one of which must be set for it to run; none for a rule that always runs.
        also: further policy keys that it reads.
        allows: the allow-lists of a policy that soften it.
        reads: it reads the values and not only the headers.
        anyway: it also looks at files that cannot be opened.
        shares: what it reads beside the one pass over the bytes is shared out among processes.
        file: the module and function that it is, where they are not called as it is.
        order: its place in reports; those of one place stand by name.
    """

    name: str
    level: Level = "error"
    needs: tuple[Key[Any], ...] = ()
    also: tuple[Key[Any], ...] = ()
    allows: tuple[str, ...] = ()
    reads: bool = False
    anyway: bool = False
    shares: bool = False
    file: str = ""
    order: int = 1000

    @property
    def function(self) -> Callable[..., Any]:
        """What looks at a file."""
        name = self.file or self.name.replace("-", "_")
        found: Callable[..., Any] = getattr(import_module(f"{__name__}.{name}"), name)
        return found


class _Rules(Mapping[str, Rule]):
    """The rules of all modules of this folder, found when they are first asked for."""

    @cached_property
    def _known(self) -> dict[str, Rule]:
        modules = (import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__))
        rules = [module.RULE for module in modules if isinstance(getattr(module, "RULE", None), Rule)]
        return {rule.name: rule for rule in sorted(rules, key=lambda rule: (rule.order, rule.name))}

    def __getitem__(self, name: str) -> Rule:
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


RULES: Mapping[str, Rule] = _Rules()
"""Every rule by its name, in the order of reports."""


def policy_keys() -> dict[str, Key[Any]]:
    """The keys of a policy that rules read, and `select`, by name.

    Example:
        >>> "max-size" in policy_keys()
        True
    """
    keys = (key for rule in RULES.values() for key in (*rule.needs, *rule.also))
    return {key.name: key for key in (*keys, SELECT)}


def allow_lists() -> dict[str, str]:
    """The allow-lists of a policy, and the rule that each of them softens.

    Example:
        >>> allow_lists()["globals"]
        'unsafe-pickle'
    """
    return {name: rule.name for rule in RULES.values() for name in rule.allows}


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
