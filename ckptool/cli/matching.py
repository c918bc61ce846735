"""Options of the automatic match, and what they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer

from ckptool.core.errors import UsageError
from ckptool.matching.result import Confidence

_PANEL = "Matching"


class Match(StrEnum):
    """How keys of two sides find each other."""

    NAMES = "names"
    AUTO = "auto"


MatchOption = Annotated[
    Match,
    typer.Option(
        "--match",
        metavar="HOW",
        help="names, or auto: find rules from names, shapes and order.",
        rich_help_panel=_PANEL,
    ),
]
AutoOption = Annotated[
    bool,
    typer.Option(
        "--auto",
        help="Find the rules that make the keys of --like, from names, shapes and order.",
        rich_help_panel=_PANEL,
    ),
]
AcceptOption = Annotated[
    Confidence | None,
    typer.Option(
        "--accept",
        metavar="HOW_SURE",
        help="Take rules that are at least: certain, unique, aligned (default), guess, interchangeable.",
        rich_help_panel=_PANEL,
    ),
]

ExplainOption = Annotated[
    list[str] | None,
    typer.Option(
        "--explain",
        metavar="KEY",
        help="Show what was weighed for this key: candidates, signals, what objected; repeats.",
        rich_help_panel=_PANEL,
    ),
]


def require_match_for(explain: Sequence[str] | None, *, is_auto: bool, option: str) -> None:
    """Refuses to explain where nothing is to be matched."""
    if explain and not is_auto:
        raise UsageError("--explain shows how keys were matched, and nothing is to be matched", hint=option)


def asked_for(is_auto: bool, accept: Confidence | None, option: str) -> Confidence | None:
    """How sure rules have to be; None where none are to be found."""
    if not is_auto:
        if accept is not None:
            raise UsageError("--accept says how sure a match must be, and nothing is to be matched", hint=option)
        return None
    return accept or Confidence.ALIGNED
