"""The policy: `ckptool.toml`, or `[tool.ckptool.check]` of `pyproject.toml`.

Every key is known and of its type, or it is an error with its line: a policy that is misread guards nothing. A policy
comes with what it is to guard, in CI with a pull request: it runs no code and names no file outside of its folder,
unless the command line trusts it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from typing import Any

from ckptool.commands.checks import RULES, allow_lists, nearest, policy_keys
from ckptool.commands.checks.finding import LEVELS, Level
from ckptool.commands.checks.settings import Allow, Key, PolicyReader, Setting, Settings, path_matches
from ckptool.core.address import address_of
from ckptool.core.errors import MissingError, UsageError
from ckptool.core.shell import shell_quote
from ckptool.core.toml import parse_toml_text
from ckptool.storage.paths import exists, is_file, is_own, relative, resolved
from ckptool.storage.texts import read_bytes

NAMES = ("ckptool.toml", "pyproject.toml")
_TABLE = ("tool", "ckptool", "check")
_LARGEST = 1_000_000  # bytes


@dataclass(frozen=True, slots=True)
class Policy:
    """What checkpoints must keep to.

    Attributes:
        file: where it was read; None without a policy.
        settings: for every checkpoint.
        paths: for those whose path fits a pattern, on top; the later ones on the earlier.
        fail_on: the level at which a run fails, if the policy says it.
        is_trusted: it may name models whose code runs, and files outside of its folder.
    """

    file: PurePath | None = None
    settings: Settings = field(default_factory=Settings)
    paths: tuple[tuple[str, Settings], ...] = ()
    fail_on: Level | None = None
    is_trusted: bool = False

    @property
    def folder(self) -> PurePath:
        """What paths in it are relative to: its own folder."""
        return self.file.parent if self.file else PurePath()

    def relative(self, path: PurePath) -> str:
        """A path as seen from the policy's folder, with slashes.

        Example:
            >>> Policy(PurePath("ci/ckptool.toml")).relative(PurePath("ci/weights/../a.pth"))
            'a.pth'
        """
        return relative(path, self.folder).as_posix()

    def path(self, name: str) -> PurePath:
        """A file that the policy names.

        Raises:
            UsageError: it lies outside of the policy's folder, also by a link, and the policy is not trusted.
        """
        address = None if "\0" in name else address_of(name)
        path = address or self.folder / name
        if not self.is_trusted and not self.holds(name):
            raise UsageError(
                f"{name} lies outside of the folder of {self.file or 'the policy'}",
                hint="move it below, or trust the policy: --trust-policy",
                path=self.file,
            )
        return path

    def holds(self, name: str) -> bool:
        """True if a file of that name lies below the policy's folder."""
        if "\0" in name or address_of(name) is not None:
            return False
        return resolved(self.folder / name).is_relative_to(resolved(self.folder))

    def settings_for(self, path: PurePath) -> Settings:
        """The settings of one checkpoint."""
        settings, name = self.settings, self.relative(path)
        for pattern, narrower in self.paths:
            if path_matches(pattern, name):
                settings = settings.with_(narrower)
        return settings


def find_policy(start: PurePath | None = None) -> Policy:
    """The policy of the nearest folder from `start` upwards that has one; an empty one if none has.

    The search ends at the root of a git repository; outside of one, only the folder `start` is looked at. Beside a
    `pyproject.toml`, a `ckptool.toml` is the policy.

    Raises:
        UsageError: it is malformed, or belongs to another user.
    """
    start = resolved(start or PurePath())
    upwards = [start, *start.parents]
    root = next((at for at, folder in enumerate(upwards) if exists(folder / ".git")), 0)
    for folder in upwards[: root + 1]:
        for name in NAMES:
            file = folder / name
            if is_file(file):
                found = _parsed(relative(file), optional=name == "pyproject.toml")
                if found is not None:
                    _require_owner(file)
                    return found
    return Policy()


def _require_owner(file: PurePath) -> None:
    """Refuses a policy that another user put where this one looks for it."""
    if not is_own(file):
        raise UsageError(
            f"the policy {file} belongs to another user", hint=f"to use it: --policy {shell_quote(file)}", path=file
        )


def read_policy(path: PurePath | str) -> Policy:
    """The policy in a file.

    Raises:
        UsageError: the file is missing or malformed, or a `pyproject.toml` without the table.
    """
    found = _parsed(PurePath(path), optional=False)
    assert found is not None
    return found


def _parsed(path: PurePath, *, optional: bool) -> Policy | None:
    try:
        text = read_bytes(path, _LARGEST, "policy").decode()
    except MissingError as error:
        raise UsageError(f"the policy {error.message}", hint=error.hint, path=path) from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not TOML: it is not UTF-8", path=path) from None
    document = parse_toml_text(text, str(path), path)
    at: tuple[str, ...] = ()
    if path.name == "pyproject.toml":
        for name in _TABLE:
            document = document.get(name, {})
            if not isinstance(document, dict):
                document = {}
        at = _TABLE
        if not document:
            if optional:
                return None
            raise UsageError(f"{path} has no table [tool.ckptool.check]", path=path)
    return _Reader(path, text).policy(document, at)


class _Reader(PolicyReader):
    """Turns the tables of one policy into settings."""

    @cached_property
    def keys(self) -> dict[str, Key[Any]]:
        return policy_keys()

    def policy(self, table: Mapping[str, Any], at: tuple[str | int, ...]) -> Policy:
        paths = []
        rows = table.get("paths", [])
        if not isinstance(rows, list):
            self.refuse("paths is not a list of tables", (*at, "paths"), "write [[paths]]")
        for number, row in enumerate(rows):
            here = (*at, "paths", number)
            if not isinstance(row, dict) or not isinstance(row.get("match"), str) or not row["match"]:
                self.refuse("[[paths]] without match", here, 'match = "weights/*.pth" says which files are meant')
            paths.append((row["match"], self.settings(row, here, also=("match",))))
        fail_on = table.get("fail-on")
        if fail_on is not None and fail_on not in LEVELS:
            self.refuse(f'fail-on is "{fail_on}"', (*at, "fail-on"), f"it may be {', '.join(LEVELS)}")
        return Policy(self.file, self.settings(table, at, also=("paths", "fail-on")), tuple(paths), fail_on)

    def settings(self, table: Mapping[str, Any], at: tuple[str | int, ...], also: tuple[str, ...]) -> Settings:
        found: dict[str, Any] = {}
        values: dict[str, Setting[Any]] = {}
        known = (*self.keys, "levels", "allow", *also)
        for key, value in table.items():
            here = (*at, key)
            if key not in known:
                names = ", ".join(name for name in known if name != "match")
                self.refuse(f'"{key}" is not a key of a policy', here, nearest(key, known) or f"the keys are {names}")
            if key == "levels":
                found["levels"] = self.levels(value, here)
            elif key == "allow":
                found["allow"] = tuple(self.allow(value, here))
            elif key in self.keys:
                values[key] = Setting(self.keys[key].read(self, value, here), self.place(here))
        return Settings(values, **found)

    def levels(self, value: Any, at: tuple[str | int, ...]) -> dict[str, Any]:
        found = {}
        for rule, level in self.table(value, at).items():
            if rule not in RULES:
                self.refuse(f'"{rule}" is not a rule', (*at, rule), nearest(rule, RULES) or f"{', '.join(RULES)}")
            if level not in (*LEVELS, "off"):
                self.refuse(f"levels.{rule} is {level!r}", (*at, rule), f"it may be {', '.join(LEVELS)} or off")
            found[rule] = Setting(level, self.place((*at, rule)))
        return found

    def allow(self, value: Any, at: tuple[str | int, ...]) -> list[Allow]:
        found, lists = [], allow_lists()
        for name, entries in self.table(value, at).items():
            if name not in lists:
                hint = nearest(name, lists) or f"the lists are {', '.join(lists)}"
                self.refuse(f'"{name}" is not an allow-list', (*at, name), hint)
            for number, text in enumerate(self.texts(entries, (*at, name))):
                here = (*at, name, number) if isinstance(entries, list) else (*at, name)
                found.append(Allow(name, lists[name], self.pattern(text, here), self.place(here)))
        return found
