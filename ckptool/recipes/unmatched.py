"""What may be meant by a rule that matches no key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

from ckptool.core.keys import Pattern as KeyPattern
from ckptool.core.keys import escape
from ckptool.core.near_miss import near_miss
from ckptool.recipes.capture import Hole
from ckptool.recipes.pattern import Pattern
from ckptool.recipes.rules import Rule

_NEAR_MISS_KEYS = 20_000


def hint_for(rule: Rule, keys: Iterable[str], *, near: bool) -> str:
    """What to write instead of a rule that matches none of the keys; `near`: keys like its own are looked for."""
    found = None
    some = list(islice(keys, _NEAR_MISS_KEYS)) if near else []
    if not some:
        return "a leading ? lets it match nothing"
    for pattern in rule.sources:
        found = found or near_miss(KeyPattern.parse(_glob(pattern)), some)
    hint = f"a key that it might mean: {found.select(some)[0]}" if found else "a leading ? lets it match nothing"
    if module := _module_named(rule, some):
        hint = f'{module} is a module: "{module}." with a dot at its end means every key in it'
    elif inside := _inside(rule, some):
        hint = f'keys begin otherwise, as {inside[1]}; to rename it wherever it is: "{inside[0]}"'
    elif numbers := _numbers_there(rule, keys):
        hint = f"there is {numbers}"
    return hint


def _inside(rule: Rule, keys: Sequence[str]) -> tuple[str, str] | None:
    """The rule for a module anywhere in a key, and a key that has it there; None if none has, or it is no such rule."""
    if len(rule.sources) != 1 or len(rule.targets) != 1 or rule.optional or rule.steps:
        return None
    said: set[str] = set()
    old, new = rule.sources[0].written(said), rule.targets[0].written(said)
    if not all(part.endswith(".") and part[:1].isalnum() for part in (old, new)):
        return None
    key = next((key for key in keys if f".{old}" in key), None)
    return None if key is None else (f".{old} -> .{new}", key)


def _numbers_there(rule: Rule, keys: Iterable[str]) -> str:
    """The numbers that keys have where a rule names others, "0 to 31"; "" where they differ in more than numbers."""
    pattern = rule.sources[0]
    ranges = {hole.name for hole in pattern.holes if hole.kind == "range"}
    if len(rule.sources) > 1 or len(ranges) != 1:
        return ""
    any_number = [
        tuple(
            replace(token, kind="digits") if isinstance(token, Hole) and token.name in ranges else token
            for token in part
        )
        for part in pattern.parts
    ]
    wider = Pattern(tuple(any_number), pattern.starts_anywhere, pattern.ends_anywhere)
    (name,) = ranges
    found = [int(values[name]) for key in keys if (values := wider.match(key)) is not None and len(values[name]) < 10]
    return f"{name} = {min(found)} to {max(found)}" if found else ""


def _module_named(rule: Rule, keys: Sequence[str]) -> str:
    """The module that a rule names without the dot at its end; "" if it names none."""
    globs = (_glob(pattern) for pattern in rule.sources if not pattern.ends_anywhere)
    names = (glob for glob in globs if "*" not in glob and "[" not in glob)
    return next((name for name in names if any(key.startswith(f"{name}.") for key in keys)), "")


def _glob(pattern: Pattern) -> str:
    """A key pattern that is close to a rule's."""
    parts = ("".join(escape(token) if isinstance(token, str) else "*" for token in part) for part in pattern.parts)
    return "*." * pattern.starts_anywhere + (".".join(parts) or "*") + ".*" * pattern.ends_anywhere
