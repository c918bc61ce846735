from __future__ import annotations

from collections.abc import Iterator, Sequence

from ckptool.commands.checks import Rule
from ckptool.commands.checks.case import Case, Found, columns
from ckptool.core.checkpoint import GlobalUse
from ckptool.core.counts import many
from ckptool.core.errors import UnsafeError

_WILD = frozenset("*?[{:")


RULE = Rule("unsafe-pickle", allows=("globals",), anyway=True, order=20)


def unsafe_pickle(case: Case) -> Iterator[Found]:
    """Loading the file with a plain pickle.load would run code of the file's choice.

    Found: classes and functions that the file's pickle names. Those that rebuild tensors and plain data are harmless.
    An error is what runs code, imports, opens files or talks to a network, such as posix.system. A warning is any other
    class, for instance the model's own: nobody can list all code of all packages. ckptool imports and calls none.

    Why: torch.load(weights_only=False), and every torch before 2.6 by default, runs what the pickle says. Whole models
    that were pickled also break as soon as their code moves.

    What to do: ask for safetensors or a plain state_dict. Where you know a class, allow it by name; a dangerous one is
    allowed by its full name only, never by a wildcard.

    Policy: it always runs.

        allow.globals = ["mypkg.model.Net"]
    """
    if isinstance(case.error, UnsafeError):
        yield Found(case.error.message, help=case.error.hint or "", short="refused")
    uses = [use for use in case.checkpoint.globals if use.risk != "harmless"]
    dangerous = [use for use in uses if use.risk == "dangerous" and not _is_named(case, use)]
    unknown = [use for use in uses if use.risk == "unknown" and not case.allows("globals", use.name)]
    if dangerous:
        yield Found(
            "loading this file would run code",
            details=_rows(dangerous),
            help="ask for safetensors; ckptool never executes it",
            short="refused",
        )
    if unknown:
        yield Found(
            f"loading this file needs {many(len(unknown), 'class or function', 'classes or functions')} "
            "that may run code",
            details=_rows(unknown),
            help=f"the weights alone: ckptool filter {case.word} --only-weights -o OUT.safetensors",
            level="warning",
            short=many(len(unknown), "global"),
        )


def _is_named(case: Case, use: GlobalUse) -> bool:
    """True if an allow-list has the very name."""
    named = [each for each in case.settings.allow if each.list == "globals" and each.pattern.text == use.name]
    named = [each for each in named if not _WILD & set(each.pattern.text)]
    case.used.update(named)
    return bool(named)


def _rows(uses: Sequence[GlobalUse]) -> tuple[str, ...]:
    return columns((f"global {use.name}", _called(use)) for use in uses)


def _called(use: GlobalUse) -> str:
    if not use.calls:
        return "named, not called"
    times = "" if use.calls == 1 else f" {use.calls:,} times"
    return f"called{times} with {many(use.arguments, 'argument')}"
