"""What `ckptool git install` sets up and takes away: a diff driver in git's configuration, lines of gitattributes."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from ckptool.core.errors import CkptError, OutputError, UsageError
from ckptool.storage.environment import VARIABLES, find_program
from ckptool.storage.paths import (
    absolute,
    expanded,
    is_file,
    is_named,
    link_target,
    make_folders,
    remove_file,
    resolved,
    shown_text,
    size_of,
)
from ckptool.storage.texts import read_bytes

MARK = "# ckptool git install: readable diffs of checkpoints"
_VALUE = "diff=ckptool"
_CACHE = "refs/notes/textconv/ckptool"  # where git keeps what cachetextconv remembers
_LARGEST = 1 << 24  # bytes of a gitattributes file


@dataclass(frozen=True, slots=True)
class Driver:
    """The driver as it is, or is to be, in one scope of the configuration.

    Attributes:
        textconv: turns one side into lines.
        cachetextconv: git keeps them.
        command: prints the whole difference.
    """

    textconv: str | None = None
    cachetextconv: str | None = None
    command: str | None = None


class Scope:
    """One repository, or all of a user's.

    Args:
        everywhere: True for the user's configuration.

    Raises:
        CkptError: git is not there; this is no repository.
    """

    def __init__(self, everywhere: bool) -> None:
        self.everywhere = everywhere
        self.option = "--global" if everywhere else "--local"
        if find_program("git") is None:
            raise CkptError("git is not installed", hint="it is looked for in PATH")
        if not everywhere and _git("rev-parse", "--git-dir", codes=(0, 128)) is None:
            raise UsageError("this is not a git repository", hint="go into one, or set it up for all: --global")

    # ------------------------------------------------------------------------------------------ configuration

    def driver(self) -> Driver:
        """What the configuration of this scope says now."""
        return Driver(*(self._get(name) for name in ("textconv", "cachetextconv", "command")))

    def set_driver(self, driver: Driver) -> None:
        """Make the configuration say this; what is None is removed."""
        for name in ("textconv", "cachetextconv", "command"):
            value = getattr(driver, name)
            if value is not None:
                self._config("--replace-all", f"diff.ckptool.{name}", value)
            elif self._get(name) is not None:
                self._config("--unset-all", f"diff.ckptool.{name}")

    def _get(self, name: str) -> str | None:
        found = _git("config", self.option, "--get", f"diff.ckptool.{name}", codes=(0, 1))
        return None if found is None else found.removesuffix("\n")

    def _config(self, *arguments: str) -> None:
        _git("config", self.option, *arguments)

    def can_cache(self) -> bool:
        """False for a user without a name: git commits what it remembers, and without one its diff would end there."""
        return all(_git("config", "--get", f"user.{name}", codes=(0, 1)) for name in ("name", "email"))

    def forget(self) -> None:
        """Drop what git remembers of earlier conversions, in the repository we are in, if any."""
        if _git("rev-parse", "--verify", "--quiet", _CACHE, codes=(0, 1, 128)) is not None:
            _git("update-ref", "-d", _CACHE)

    # ------------------------------------------------------------------------------------------ attributes

    def attributes(self) -> PurePath:
        """The gitattributes file of this scope; it need not exist."""
        if not self.everywhere:
            top = _git("rev-parse", "--show-toplevel", codes=(0, 128))
            if top is None:
                raise UsageError("this repository has no files", hint="--no-attributes sets up the configuration only")
            return PurePath(top.removesuffix("\n")) / ".gitattributes"
        named = _git("config", "--global", "--type=path", "--get", "core.attributesFile", codes=(0, 1))
        if named:
            return PurePath(named.removesuffix("\n"))
        return expanded(VARIABLES.get("XDG_CONFIG_HOME") or "~/.config") / "git" / "attributes"


def _git(*arguments: str, codes: tuple[int, ...] = (0,)) -> str | None:
    """What git prints; None if it ends with another of the expected codes than 0."""
    done = subprocess.run(["git", *arguments], capture_output=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode not in codes:
        said = shown_text(done.stderr).strip().removeprefix("fatal: ").removeprefix("error: ")
        raise CkptError(f"git {arguments[0]}: {said or f'exit code {done.returncode}'}")
    return shown_text(done.stdout) if done.returncode == 0 else None


def wanted_driver(full: bool, cache: bool) -> Driver:
    """The driver that calls this ckptool, by its path: git may be started where PATH does not have it."""
    program = _program()
    # "--": a file may be called -v
    return Driver(f"{program} git textconv --", "true" if cache else None, f"{program} git diff --" if full else None)


def _program() -> str:
    """This ckptool as words for a shell, which is what git passes them to."""
    name = sys.argv[0]
    if PurePath(name).stem == "ckptool" and (script := find_program(name)):
        return shlex.quote(str(absolute(script)))
    return f"{shlex.quote(sys.executable)} -m ckptool"


def program_of(command: str) -> str:
    """The program that a configured command starts."""
    try:
        return next(iter(shlex.split(command)), "")
    except ValueError:
        return command


# ---------------------------------------------------------------------------------------------- lines


def with_lines(text: str, patterns: Sequence[str]) -> str:
    """The text of a gitattributes file with lines for these patterns, at its end so that they win.

    Patterns that other lines give to the driver already are left alone.

    Example:
        >>> print(with_lines("*.pth filter=lfs diff=lfs\\n", ["*.pth"]), end="")
        *.pth filter=lfs diff=lfs
        # ckptool git install: readable diffs of checkpoints
        *.pth diff=ckptool
        >>> with_lines(with_lines("", ["*.pt"]), ["*.pt"]) == with_lines("", ["*.pt"])
        True
    """
    rest, ours = _split(text)
    end = "\r\n" if "\r\n" in rest else "\n"
    given = _given(rest)
    lines = [pattern for pattern in dict.fromkeys([*ours, *patterns]) if given.get(pattern) != _VALUE]
    if not lines:
        return rest
    if rest and not rest.endswith("\n"):
        rest += end
    return rest + end.join([MARK, *(f"{pattern} {_VALUE}" for pattern in lines), ""])


def without_lines(text: str) -> str:
    """The text without the lines that `with_lines` added.

    Example:
        >>> without_lines(with_lines("*.txt text\\n", ["*.pt"]))
        '*.txt text\\n'
    """
    return _split(text)[0]


def _split(text: str) -> tuple[str, list[str]]:
    """The text without the lines that `with_lines` added, and the patterns of those."""
    kept: list[str] = []
    ours: list[str] = []
    inside = False
    for line in text.splitlines(keepends=True):
        words = line.split()
        is_mark = line.rstrip("\r\n") == MARK
        inside = is_mark or (inside and len(words) == 2 and words[1] == _VALUE)
        if not inside:
            kept.append(line)
        elif not is_mark:
            ours.append(words[0])
    return "".join(kept), ours


def _given(text: str) -> dict[str, str]:
    """The diff attribute that lines give to each pattern; the last one counts."""
    found = {}
    for line in text.splitlines():
        pattern, *attributes = line.split() or [""]
        for attribute in attributes:
            if attribute in ("diff", "-diff", "!diff") or attribute.startswith("diff="):
                found[pattern] = attribute
    return found


def covered(text: str) -> list[str]:
    """The patterns whose files get readable diffs.

    Example:
        >>> covered("*.pt diff=ckptool\\n*.pth diff=lfs -text\\n")
        ['*.pt']
    """
    return [pattern for pattern, value in _given(text).items() if value == _VALUE]


def checked_patterns(patterns: Sequence[str]) -> list[str]:
    """The patterns, if each can stand in a line of its own.

    Raises:
        UsageError: one cannot.
    """
    for pattern in patterns:
        if not pattern or len(pattern.split()) != 1 or pattern[0] in '#!"[' or not pattern.isprintable():
            raise UsageError(f'"{pattern}" is not a pattern of gitattributes', hint='--pattern "*.bin"')
    return list(patterns)


def read_lines(path: PurePath) -> str:
    """The text of a gitattributes file; "" if there is none. Bytes that are no text survive."""
    if not is_named(path):
        return ""
    if not is_file(path) or size_of(path) > _LARGEST:
        raise OutputError(f"{path} is not a file of gitattributes", hint="--no-attributes leaves it alone", path=path)
    return read_bytes(path, _LARGEST).decode("utf-8", "surrogateescape")


def write_lines(path: PurePath, text: str, *, follow: bool = True) -> bool:
    """Make the file hold this text; a file that would be empty is removed. True if anything changed.

    Args:
        path: the file.
        text: what it is to hold.
        follow: a link is followed, as in a folder of dotfiles. In a repository links come with its commits.

    Raises:
        OutputError: it is a link that is not to be followed.
    """
    from ckptool.storage.staging import write_file

    if read_lines(path) == text:
        return False
    if not follow and (link := link_target(path)) is not None:
        raise OutputError(
            f"{path} is a link to {link}, and no link in a repository is written through",
            hint="--no-attributes leaves it alone",
            path=path,
        )
    target = resolved(path)
    if not text:
        remove_file(target)
        return True
    make_folders(target.parent)
    write_file(target, [text.encode("utf-8", "surrogateescape")], force=True, replaces_input=True)
    return True
