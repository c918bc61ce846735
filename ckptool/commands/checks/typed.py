"""What the caller of a check names beside the policy: a model that all files must fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from ckptool.commands.checks.complete import COMPLETE_WITH
from ckptool.commands.checks.finding import Place, Report
from ckptool.commands.checks.fits import INTO, MODEL_ARGS
from ckptool.commands.checks.policy import Policy
from ckptool.commands.checks.settings import Setting, Settings
from ckptool.core.address import address_of
from ckptool.core.bytes import PathText
from ckptool.core.errors import UsageError
from ckptool.storage.paths import exists, relative

_TYPED = "command line"


def with_model(policy: Policy, into: str | None, arguments: Mapping[str, object] | None = None) -> Policy:
    """The policy with a model for all files.

    Args:
        policy: it.
        into: the model, or the path of a checkpoint; a path is taken from where we are, not from the policy's folder.
        arguments: for the model.

    Raises:
        UsageError: there are arguments and no model.
    """
    if into is None:
        if arguments:
            raise UsageError("--model-arg is for the model of --into", hint="--into MODEL --model-arg NAME=VALUE")
        return policy
    path, colon, name = into.rpartition(":")
    for typed, rest in ((into, ""), (path, f"{colon}{name}")):
        if typed and exists(typed):  # a policy's paths are relative to its folder
            into = f"{relative(typed, policy.folder)}{rest}"
            break
    place = Place(_TYPED, None, f"--into {into}")
    values: dict[str, Setting[Any]] = {INTO.name: Setting(into, place, is_typed=True)}
    if arguments:
        values[MODEL_ARGS.name] = Setting(dict(arguments), place, is_typed=True)
    return _with(policy, Settings(values))


def with_base(policy: Policy, base: PathText | None) -> Policy:
    """The policy with a base whose tensors all files must have; its path is taken from where we are.

    Example:
        >>> with_base(Policy(), None) == Policy()
        True
    """
    if base is None:
        return policy
    is_whole = address_of(base) is not None or PurePath(base).is_absolute()
    text = str(base) if is_whole else str(relative(base, policy.folder))
    place = Place(_TYPED, None, f"--complete-with {text}")
    return _with(policy, Settings({COMPLETE_WITH.name: Setting(text, place, is_typed=True)}))


def _with(policy: Policy, settings: Settings) -> Policy:
    return replace(policy, paths=(*policy.paths, ("**", settings)))


def without_typed_places(report: Report) -> Report:
    """The report in which findings name no place in a policy where a caller asked: there is no line to show."""
    findings = (
        replace(each, policy=None) if each.policy and each.policy.file == _TYPED else each for each in report.findings
    )
    return replace(report, findings=tuple(findings))
