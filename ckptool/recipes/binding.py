"""What a recipe leaves open until its input is known: numbers that are given with it, and lists that the keys have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ckptool.core.errors import UsageError
from ckptool.recipes.capture import Hole
from ckptool.recipes.lists import layers_of
from ckptool.recipes.pattern import MAX_CHOICES, NAMED, Part, Pattern
from ckptool.recipes.reading import parse_rule
from ckptool.recipes.recipe import Recipe
from ckptool.recipes.rules import Rule, Stage

_BRACES = re.compile(r"\{([^{}]*)\}")
_UNSAFE = re.compile(r"[\s{}|,*]")


def with_numbers(recipe: Recipe, numbers: Mapping[str, float]) -> Recipe:
    """The recipe with the numbers in its captures: ``{i=first..last}`` becomes ``{i=4..7}``.

    An optional rule whose range ends just before it begins, as ``{i=first..last-1}`` may, is left out.

    Raises:
        UsageError: a number is missing, is not whole, or makes a range that goes backwards.

    Example:
        >>> from ckptool.recipes.recipe import parse_recipe
        >>> recipe = parse_recipe(["h.{i=last+1..}.{k**} -> h.{i-last+first-1}.{k**}"])
        >>> print(*with_numbers(recipe, {"first": 2, "last": 3}).rules)
        h.{i=4..}.{k**} -> h.{i-2}.{k**}
    """
    if not any(rule.is_named for rule in recipe.rules):
        return recipe
    stages = []
    for stage in recipe.stages:
        rules = (_with_numbers(rule, numbers) if rule.is_named else rule for rule in stage.rules)
        stages.append(replace(stage, rules=tuple(rule for rule in rules if rule is not None)))
    return replace(recipe, stages=tuple(stages))


def _with_numbers(rule: Rule, numbers: Mapping[str, float]) -> Rule | None:
    """The rule with its numbers; None where it is optional and its range is empty."""
    empty = False

    def written(match: re.Match[str]) -> str:
        nonlocal empty
        capture = NAMED.fullmatch(match[1])
        if capture is None:
            return match[0]
        text = capture["name"]
        if capture["factor"]:
            text = f"{_total(rule, capture['factor'], numbers)}*{text}"
        if capture["offset"]:
            offset = _total(rule, capture["offset"], numbers)
            text += f"{offset:+d}" if offset else ""
        if capture["low"]:
            low = _total(rule, capture["low"], numbers)
            high = _total(rule, capture["high"], numbers) if capture["high"] else None
            if low < 0:
                raise UsageError(f'{rule.name} "{rule.text}": a range cannot begin at {low}')
            empty = empty or (rule.optional and high == low - 1)
            text += f"={low}..{'' if high is None else max(high, low) if empty else high}"
        return "{" + text + "}"

    arrow = rule.text.index("->")
    steps = rule.text.find(" | ", arrow)
    head, rest = (rule.text, "") if steps < 0 else (rule.text[:steps], rule.text[steps:])
    made = replace(parse_rule(_BRACES.sub(written, head) + rest, rule.name), comment=rule.comment)
    return None if empty else made


def _total(rule: Rule, text: str, numbers: Mapping[str, float]) -> int:
    """The value of a sum of numbers and names."""
    total = 0
    for sign, term in re.findall(r"([+-]?)\s*(\w+)", text):
        if not term.isdecimal() and term not in numbers:
            raise UsageError(f'{rule.name} "{rule.text}" needs the number {term}', hint=f"give it: --var {term}=...")
        value = float(term if term.isdecimal() else numbers[term])
        if not value.is_integer() or abs(value) >= 1e9:
            raise UsageError(f"{term} = {value:g} stands in the names of {rule.name}, which need a whole number")
        total += -int(value) if sign == "-" else int(value)
    return total


def with_lists(stage: Stage, keys: Iterable[str], given: Mapping[str, str]) -> Stage:
    """The stage with the lists that the keys have: ``{layers#}`` becomes what stands before their numbers.

    Args:
        stage: its rules.
        keys: that it works on.
        given: the lists that are named, by the captures' names.

    Raises:
        UsageError: which list is meant is not clear.

    Example:
        >>> from ckptool.recipes.reading import parse_stages
        >>> (stage,) = parse_stages(["{layers#}{i}.{k**} -> {layers#}{#i}.{k**}"])
        >>> print(*with_lists(stage, ["h.0.w", "h.3.w"], {}).rules)
        h.{i=0|3}.{k**} -> h.{i=0|1}.{k**}
    """
    names = dict.fromkeys(name for rule in stage.rules for name in rule.lists)
    if not names and not any(rule.places for rule in stage.rules):
        return stage
    keys = list(keys)
    lists = {name: _safe(layers_of(keys, given.get(name), name)) for name in names}
    rules = []
    for rule in stage.rules:
        if rule.lists:
            sources, targets = ([_spelled(each, lists) for each in side] for side in (rule.sources, rule.targets))
            rule = replace(rule, sources=tuple(sources), targets=tuple(targets))
        rules.append(_placed(rule, keys) if rule.places else rule)
    return replace(stage, rules=tuple(rules))


def _safe(name: str) -> str:
    if _UNSAFE.search(name):
        raise UsageError(f'the list "{name}" has a name that no rule can write')
    return name


def _spelled(pattern: Pattern, lists: Mapping[str, str]) -> Pattern:
    """The pattern with the names of lists written out."""
    parts: list[Part] = []
    for part in pattern.parts:
        tokens: list[str | Hole] = []
        for token in part:
            if isinstance(token, Hole) and token.kind == "list":
                first, *others = lists[token.name].split(".")
                tokens.append(first)
                for other in others:
                    parts.append(tuple(each for each in tokens if each != ""))
                    tokens = [other]
            else:
                tokens.append(token)
        parts.append(tuple(each for each in tokens if each != ""))
    return Pattern(tuple(part for part in parts if part), pattern.starts_anywhere, pattern.ends_anywhere)


def _placed(rule: Rule, keys: Iterable[str]) -> Rule:
    """The rule with each number that it asks the place of, and its place."""
    matches = [values for key in keys for pattern in rule.sources if (values := pattern.match(key)) is not None]
    for name in rule.places:
        holes = [hole for pattern in rule.sources for hole in pattern.holes if hole.name == name]
        if any(hole.kind not in ("digits", "range") for hole in holes):
            raise UsageError(f"{rule.name}: {{#{name}}} is the place of a number, and {holes[0]} is none")
        there = sorted({values[name] for values in matches}, key=int)
        if len(there) > MAX_CHOICES:
            raise UsageError(f"{rule.name}: {{#{name}}} has more than {MAX_CHOICES:,} numbers")
        if not there:
            continue
        old, new = (Hole(name, "choice", choices=tuple(numbers)) for numbers in (there, map(str, range(len(there)))))
        rule = replace(
            rule,
            sources=tuple(_replaced(pattern, name, old, old) for pattern in rule.sources),
            targets=tuple(_replaced(pattern, name, old, new) for pattern in rule.targets),
        )
    return rule


def _replaced(pattern: Pattern, name: str, other: Hole, place: Hole) -> Pattern:
    """The pattern with a choice where the number or its place stood."""
    parts = [
        tuple(
            (place if token.kind == "place" else other) if isinstance(token, Hole) and token.name == name else token
            for token in part
        )
        for part in pattern.parts
    ]
    return Pattern(tuple(parts), pattern.starts_anywhere, pattern.ends_anywhere)
