"""The errors a user can meet, and the exit codes of the command line.

Everything that is wrong with an input, a request or an output is a `CkptError`. It is raised where the
fact is known and caught once, in `ckptool.cli`. Differences and findings are values, not errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import PurePath

from ckptool.core.counts import many


class Exit(IntEnum):
    """What a command's exit code says.

    Example:
        >>> int(Exit.DIFFERENT)
        1
    """

    OK = 0
    DIFFERENT = 1
    TROUBLE = 2
    INTERRUPTED = 130


class CkptError(Exception):
    """One clear sentence about the user's file or request.

    Args:
        message: what is true (lower case, no full stop, no class names).
        hint: one thing to do next.
        path: the file it is about.
        key: the tensor it is about.
        detail: further lines, shown as they are: a rule with a caret under the place.

    Example:
        >>> str(CkptError("a.pth is empty", hint="download it again"))
        'a.pth is empty'
        >>> CkptError("a.pth is empty", hint="download it again").__notes__
        ['help: download it again']
    """

    code = "error"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        path: PurePath | str | None = None,
        key: str | None = None,
        detail: tuple[str, ...] = (),
    ) -> None:
        super().__init__("\n".join((message, *detail)))
        self.message = message
        self.hint = hint
        self.path = PurePath(path) if isinstance(path, str) else path
        self.key = key
        self.detail = detail
        if hint:
            self.add_note(f"help: {hint}")  # Python shows it under the message

    def add_detail(self, line: str) -> None:
        """Add a line below the message: where the request was made, for one."""
        self.detail = (*self.detail, line)
        self.args = ("\n".join((self.message, *self.detail)),)


class UsageError(CkptError):
    """The request cannot be understood: a malformed pattern, an option that does not fit."""

    code = "usage"


class NoMatchError(UsageError):
    """A pattern matches no key.

    Args:
        option: the option that it was given to.
        pattern: its text.
        what: "matches none of the 122 keys".
    """

    def __init__(
        self, option: str, pattern: str, what: str, *, hint: str | None = None, path: PurePath | str | None = None
    ) -> None:
        super().__init__(f'{option} "{pattern}" {what}', hint=hint, path=path)
        self.pattern = pattern
        self.what = what

    def given_as(self, option: str) -> NoMatchError:
        """The same of a pattern that the user gave elsewhere."""
        return NoMatchError(option, self.pattern, self.what, hint=self.hint, path=self.path)


class UnreadableError(CkptError):
    """The file is not a checkpoint, is damaged, or says something that cannot be true."""

    code = "unreadable"


class MissingError(UnreadableError):
    """There is no such file."""


class ChangedError(UnreadableError):
    """The file is not the one any more whose headers were read: nothing is true of it until it is opened again."""


class DamagedError(UnreadableError):
    """The bytes of a tensor do not have the checksum that the file states for them."""


class UndecodableError(CkptError):
    """The values of a quantized tensor do not go together: it cannot be decoded; others of the file may be."""


class PartlyLoadedError(UnreadableError):
    """Loading into a live model failed after tensors of the model were overwritten, which cannot be undone.

    Args:
        error: what failed.
        overwritten: keys of the model whose tensors were written to; the last of them perhaps in part.
        left: how many tensors were still to be filled: they are as they were.
    """

    def __init__(self, error: CkptError, overwritten: tuple[str, ...], left: int) -> None:
        done = f"{many(len(overwritten), 'tensor')} overwritten, {left:,} left"
        super().__init__(
            f"{error.message}; the model is partly loaded: {done}",
            hint="load the whole file again, or build the model again; `overwritten` of this error has the keys",
            path=error.path,
            key=error.key,
        )
        self.overwritten = overwritten


class UnsafeError(CkptError):
    """Going on would need code from the checkpoint, or would carry it into an output."""

    code = "unsafe-pickle"


class OutputError(CkptError):
    """The output cannot be written as asked; nothing was written."""

    code = "output"


class PlanError(CkptError):
    """The plan has problems and cannot be applied."""

    code = "plan"


class IrreversibleError(PlanError):
    """A recipe has rules that cannot be undone; `rules` says which, and why."""

    def __init__(self, rules: str, *, hint: str | None = None) -> None:
        super().__init__(f"this cannot be reversed: {rules}", hint=hint)
        self.rules = rules


@contextmanager
def naming(path: PurePath) -> Iterator[None]:
    """Errors that leave this block say which file they are about."""
    try:
        yield
    except CkptError as error:
        if error.path is None:
            error.path = path
        raise
