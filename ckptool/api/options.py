"""The keyword options of the functions that have many, each named once; which of them a function takes is its type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from ckptool.commands.beside.choices import Choices, Tied
from ckptool.commands.transplant.result import Asked
from ckptool.core.bytes import PathText
from ckptool.core.errors import UsageError
from ckptool.models.entries import Mismatch
from ckptool.recipes.recipe import Recipe, recipe_from
from ckptool.storage.launchers import Share


class LoadOptions(TypedDict, total=False):
    """What `ckptool.load_into` and `ckptool.plan_transplant` may be told; see there."""

    recipe: Recipe | str | Sequence[str] | None
    drop: str | Sequence[str]
    mismatch: Mismatch
    fits: Mapping[str, str] | None
    vars: Mapping[str, float | str] | None
    new: str | Sequence[str]
    strict: bool
    min_coverage: float | None


class TransplantOptions(LoadOptions, total=False):
    """What `ckptool.plan_transplant` may be told besides; see there."""

    init: Mapping[str, str] | None
    seed: int
    only_loaded: bool
    wrap: str | None


class WriteOptions(TypedDict, total=False):
    """What `ckptool.Plan.apply` may be told of the contents; see there."""

    tied: Tied
    only_weights: bool
    drop_optimizer: bool
    optimizer_as_is: bool
    keep_unknown: bool
    allow: str | Sequence[str]


class ReadOptions(TypedDict, total=False):
    """How several processes share what `ckptool.compare`, `ckptool.check` and `ckptool.stats` read; see there."""

    part: tuple[int, int] | None
    work: PathText | None


def share_of(part: tuple[int, int]) -> Share:
    """The share of one process.

    Raises:
        UsageError: there is none.

    Example:
        >>> share_of((2, 8)).number
        1
    """
    number, count = part
    if not 1 <= number <= count:
        raise UsageError(f"part={part!r} is not (I, N) with I from 1 to N", hint="part=(2, 8)")
    return Share(number - 1, count)


def texts_of(given: str | Sequence[str]) -> tuple[str, ...]:
    """One text or several, as several: a text alone is never taken for its letters.

    Example:
        >>> texts_of("fc.*"), texts_of(["conv1.*", "bn1.*"])
        (('fc.*',), ('conv1.*', 'bn1.*'))
    """
    return (given,) if isinstance(given, str) else tuple(given)


def asked_by(options: LoadOptions) -> Asked:
    """The request that options of a transplant make.

    Raises:
        TypeError: there is no such option.

    Example:
        >>> asked_by(TransplantOptions(drop=["fc.*"], init={"fc.*": "zeros"})).init
        (('fc.*', 'zeros'),)
    """
    given = known_options(options, TransplantOptions)
    pairs: dict[str, Any] = {name: tuple((given.pop(name) or {}).items()) for name in ("fits", "init") if name in given}
    rules = recipe_from(given.pop("recipe", None))
    return Asked(rules, texts_of(given.pop("drop", ())), new=texts_of(given.pop("new", ())), **pairs, **given)


def chosen_by(options: WriteOptions) -> Choices:
    """What options of an output say of its contents.

    Raises:
        TypeError: there is no such option.
    """
    given = known_options(options, WriteOptions)
    return Choices(allow=texts_of(given.pop("allow", ())), **given)


def known_options(options: LoadOptions | WriteOptions | ReadOptions, kind: Any) -> dict[str, Any]:
    """The options that are given; `TypeError` for one that is none of the kind."""
    for name in options:
        if name not in kind.__annotations__:
            raise TypeError(
                f"unexpected keyword argument {name!r}; there are {', '.join(sorted(kind.__annotations__))}"
            )
    return dict(options)
