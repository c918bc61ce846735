from __future__ import annotations

from collections.abc import Iterable, Iterator

from ckptool.commands.checks import RULES, Rule
from ckptool.commands.checks.case import Found
from ckptool.commands.checks.fits import INTO, MODEL_ARGS
from ckptool.commands.checks.policy import Policy
from ckptool.commands.checks.settings import ALSO, Allow, Settings

RULE = Rule("policy", level="warning", file="unused", order=190)


def unused(entries: Iterable[Allow], policy: Policy) -> Iterator[Found]:
    """A part of the policy has no effect: it excuses what does not occur, or no rule reads it.

    Found: entries of `allow` that no finding needed, although their rule ran on a file that they are for; entries of
    `allow` and levels of a rule that never runs, since the policy does not set what it needs or turns it off; and
    `model-args` without `into`.

    Why: an exception that is no longer needed hides the next fault that fits it, and a misspelled one never helped.
    What no rule reads looks like a check that passes.

    What to do: remove the entry, correct its pattern, or set what its rule needs.

    Policy: it always runs, and warns.

        levels.policy = "error"
    """
    for entry in entries:
        yield Found(
            f'allow.{entry.list} "{entry.pattern.text}" excuses nothing',
            help="remove it, or correct its pattern",
            place=entry.place,
        )
    every = [policy.settings, *(narrower for _, narrower in policy.paths)]
    for settings in every:
        for entry in settings.allow:
            why = _never_runs(entry.rule, every)
            if why and (entry.list not in ALSO or _never_runs(ALSO[entry.list], every)):
                text = f'allow.{entry.list} "{entry.pattern.text}" has no effect: {why}'
                yield Found(text, help="set that, or remove the entry", place=entry.place)
        for rule, level in settings.levels.items():
            if level.value != "off" and (why := _never_runs(rule, every)):
                yield Found(f"levels.{rule} has no effect: {why}", help="set that, or remove it", place=level.place)
        arguments = settings.get(MODEL_ARGS)
        if arguments is not None and not any(each.get(INTO) for each in every):
            text = "model-args has no effect: they are for the model of into, which is not set"
            yield Found(text, help='into = "torchvision:NAME", or "net.py:CLASS"', place=arguments.place)


def _never_runs(rule: str, every: Iterable[Settings]) -> str:
    """Why a rule runs on no file, whatever its path; "" if it may."""
    needs = RULES[rule].needs
    if needs and not any(settings.get(key) for settings in every for key in needs):
        return f"the rule {rule} needs {' or '.join(key.name for key in needs)}, which the policy does not set"
    levels = {settings.levels[rule].value for settings in every if rule in settings.levels}
    return f"the rule {rule} is off" if levels == {"off"} else ""
