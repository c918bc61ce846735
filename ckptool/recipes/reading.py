"""Rules from text, with a caret for what is malformed; what is said of a capture in one place holds everywhere."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ckptool.core.dtypes import dtypes_meant
from ckptool.core.errors import UsageError
from ckptool.core.ops import parse_cast
from ckptool.core.reasons import RuleName
from ckptool.fits.args import parse_fit
from ckptool.recipes.capture import Hole
from ckptool.recipes.expression import Expression
from ckptool.recipes.layout import Layout
from ckptool.recipes.pattern import Pattern, Token, malformed, parse_pattern
from ckptool.recipes.rules import NAMELESS, Rule, Stage, Then, checked

MAX_RULES = 200_000  # of a recipe
MAX_STAGES = 1000
MAX_RULE = 20_000  # characters
MAX_ALL_CHOICES = 1_000_000  # values of the captures of all rules


def parse_stages(lines: Iterable[str], name: str = "") -> tuple[Stage, ...]:
    """The stages of a recipe, each rule on its own line; ``#`` begins a comment. `UsageError` where one is malformed.

    Args:
        lines: of text.
        name: of the recipe, for reports; empty for the command line.

    Example:
        >>> [len(stage.rules) for stage in parse_stages(["module. ->", "---", ".gamma -> .weight", "fc.{k**} -> !"])]
        [1, 2]
    """
    stages: list[list[Rule]] = [[]]
    number = choices = 0
    for line in lines:
        text, *comment = (part.strip() for part in re.split(r"(?:^|\s)#", line, maxsplit=1))
        if text == "---":
            stages.append([])
        elif text:
            number += 1
            rule = parse_rule(text, RuleName(name, number))
            choices += sum(len(hole.choices) for pattern in (*rule.sources, *rule.targets) for hole in pattern.holes)
            if number > MAX_RULES or len(stages) > MAX_STAGES or choices > MAX_ALL_CHOICES:
                limits = f"{MAX_RULES:,} rules, {MAX_STAGES:,} stages and {MAX_ALL_CHOICES:,} values of captures"
                raise UsageError(f"{name or 'the recipe'} has more than {limits}", hint="use captures: {i}, {m**}")
            stages[-1].append(replace(rule, comment="".join(comment)))
    return tuple(Stage(tuple(rules)) for rules in stages if rules)


def parse_rule(text: str, name: RuleName = NAMELESS) -> Rule:
    """The rule that `text` writes down; `UsageError` with a caret where it is malformed.

    Example:
        >>> print(parse_rule("in_proj_weight -> {x=q|k|v}_proj.weight | (x o) i -> o i"))
        in_proj_weight -> {x=q|k|v}_proj.weight | (x o) i -> o i
    """
    if len(text) > MAX_RULE:
        raise UsageError(f"{name} has {len(text):,} characters: more than any rule needs", hint="use several rules")
    (head, _), *rest = _split(text, r"\|")
    arrows = [match.start() for match in re.finditer("->", head)]
    if len(arrows) != 1:
        where = arrows[1] if arrows else len(head.rstrip())
        raise malformed(f"{name} has {'no' if not arrows else 'two'} ->", text, where, 'a rule is "FROM -> TO"')
    optional = head.lstrip().startswith("?")
    begin = head.index("?") + 1 if optional else 0
    sources = _patterns(head[begin : arrows[0]], text, begin)
    right = head[arrows[0] + 2 :]
    drops = right.strip() == "!"
    targets = () if drops else _patterns(right, text, arrows[0] + 2)
    steps = tuple(_step(one, text, at) for one, at in rest)
    return checked(Rule(*_unified(sources, targets, text), drops, optional, steps, name), text)


def _split(text: str, mark: str) -> Iterator[tuple[str, int]]:
    """The fields of a text between marks outside braces and brackets, and where each begins."""
    depth, begin = 0, 0
    for match in re.finditer(rf"[{{(\[]|[}})\]]|{mark}", text):
        if match[0] in "{([":
            depth += 1
        elif match[0] in "})]":
            depth -= 1
        elif depth <= 0:
            yield text[begin : match.start()], begin
            begin = match.end()
    yield text[begin:], begin


def _patterns(text: str, rule: str, at: int) -> tuple[Pattern, ...]:
    if not text.strip():
        return ()
    found = []
    for one, begin in _split(text, ","):
        inset = len(one) - len(one.lstrip())
        if not one.strip():
            raise malformed("a pattern is missing here", rule, at + begin)
        found.append(parse_pattern(one.strip(), rule, at + begin + inset))
    return tuple(found)


def _step(written: str, rule: str, at: int) -> Then:
    text = written.strip()
    at += len(written) - len(written.lstrip())
    if text.startswith("="):
        return Expression.parse(text[1:], rule, at + 1)
    if re.match(r"fit\s", text):
        try:
            fit = parse_fit(text[4:])
        except UsageError as error:
            raise malformed(error.message, rule, at, error.hint) from None
        if fit is not None:
            return fit
    if "->" in text:
        return Layout.parse(text, rule, at)
    if cast := parse_cast(text):
        return cast
    if len(meant := dtypes_meant(text)) > 1:
        raise malformed("several dtypes", rule, at, f"one of {', '.join(dtype.short for dtype in meant)}")
    if text.startswith("fit"):
        raise malformed("not a step", rule, at, "fit METHOD, or fit METHOD(name=value, ...)")
    near = difflib.get_close_matches(
        text, ["f32", "f16", "bf16", "f64", "float32", "float16", "bfloat16", "i64", "fit"], 1
    )
    hint = (
        f'did you mean "{near[0]}"?' if near else 'a step is a layout "o i -> i o", "= EXPR", "fit METHOD" or a dtype'
    )
    raise malformed("not a step", rule, at, hint)


def _unified(
    sources: tuple[Pattern, ...], targets: tuple[Pattern, ...], text: str
) -> tuple[tuple[Pattern, ...], tuple[Pattern, ...]]:
    """The patterns with what is said of a capture in one place filled in everywhere."""
    said: dict[str, Hole] = {}
    holes = [hole for pattern in (*sources, *targets) for hole in pattern.holes if hole.kind != "place"]
    if any(hole.kind == "named" for hole in holes):
        return sources, targets
    for hole in holes:
        known = said.setdefault(hole.name, hole) if hole.kind else None
        if known and known != hole:
            both_choose = known.kind == hole.kind == "choice" and len(known.choices) == len(hole.choices)
            if not both_choose and not hole.name.startswith("*"):
                at = text.rindex(str(hole)) if str(hole) in text else 0
                raise malformed(
                    f"{{{hole.name}}} is written in two ways that do not agree: {known} and {hole}", text, at
                )

    def explained(token: Token) -> Token:
        if isinstance(token, str) or token.kind:
            return token
        known = said.get(token.name)
        if known is None:
            return replace(token, kind="digits")
        if token.linear and known.kind not in ("range", "digits"):
            raise malformed(f"{token} counts, but {known} is not a number", text, 0)
        return replace(known, factor=token.factor, offset=token.offset, width=token.width)

    def fill(pattern: Pattern) -> Pattern:
        return Pattern(
            tuple(tuple(map(explained, part)) for part in pattern.parts), pattern.starts_anywhere, pattern.ends_anywhere
        )

    return tuple(map(fill, sources)), tuple(map(fill, targets))
