"""How good an answer is, against the truth of a pair."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import Any

from ckptool.core.errors import CkptError
from ckptool.core.plan import Apply, Source, Value, sources_of
from ckptool.core.spec import TensorSpec
from ckptool.recipes.expand import expand
from ckptool.recipes.rearrange import Rearrange
from ckptool.recipes.recipe import parse_recipe
from tests.bench.match.pairs import Case, Link

_ELEMENTS = 1 << 25  # of tensors whose layouts are compared by moving numbers


@dataclass(frozen=True, slots=True)
class Answer:
    """One pair that a matcher gave: as `ckptool.matching.result.Pair`, without its reasons.

    `layout` is None where a method knows none: right where a copy is. `values` says exactly what is made, if given.
    """

    targets: tuple[str, ...]
    sources: tuple[str, ...]
    layout: str | None = None
    values: Mapping[str, Value] | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """Counts; they add up over pairs.

    Attributes:
        one: true pairs of one tensor and one tensor that a header can tell.
        one_found: of these, found.
        groups: fused, split and stacked groups.
        groups_found: of these, found whole, with the right layout.
        given: target tensors that were given a source.
        wrong: of these, with other sources than the true ones, or where nothing belongs.
        layouts: of these, with the right sources in a wrong arrangement.
        refused: 1 if the method ended with an error.
        seconds: wall time.
    """

    one: int = 0
    one_found: int = 0
    groups: int = 0
    groups_found: int = 0
    given: int = 0
    wrong: int = 0
    layouts: int = 0
    refused: int = 0
    seconds: float = 0.0

    def __add__(self, other: Score) -> Score:
        return Score(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def precision(self) -> float | None:
        """Share of what was given that is right, sources and layout; None if nothing was given."""
        return 1 - (self.wrong + self.layouts) / self.given if self.given else None


@dataclass(frozen=True, slots=True)
class Mistake:
    """A target tensor with a wrong answer."""

    target: str
    given: tuple[str, ...]
    right: tuple[str, ...]
    layout: str = ""


def judge(case: Case, answers: Iterable[Answer]) -> tuple[Score, list[Mistake]]:
    """The counts and every mistake."""
    link_of = {key: link for link in case.truth for key in link.targets}
    right: set[str] = set()
    mistakes: list[Mistake] = []
    given = wrong = layouts = 0
    for answer in answers:
        given += len(answer.targets)
        bad = [key for key in answer.targets if set(answer.sources) != set(_sources(link_of.get(key), key, answer))]
        wrong += len(bad)
        mistakes += [Mistake(key, answer.sources, _sources(link_of.get(key), key, answer)) for key in bad]
        if bad:
            continue
        crooked = _crooked(case, answer, link_of)
        layouts += len(crooked)
        mistakes += [Mistake(key, answer.sources, answer.sources, f"{answer.layout} for {link_of[key].layout}")
                     for key in crooked]  # fmt: skip
        right |= set(answer.targets) - set(crooked)
    counted = [link for link in case.truth if not link.is_undecided]
    one = [link for link in counted if not link.is_group]
    groups = [link for link in counted if link.is_group]

    def found(links: Sequence[Link]) -> int:
        return sum(set(link.targets) <= right for link in links)

    score = Score(len(one), found(one), len(groups), found(groups), given, wrong, layouts)
    return score, mistakes


def _sources(link: Link | None, key: str, answer: Answer) -> tuple[str, ...]:
    """The true sources of one target tensor."""
    if link is None:
        return ()
    if set(answer.targets) == set(link.targets):
        return link.sources  # the group as a whole
    step = next(step for step in link.steps if step.target.key == key)
    return tuple(dict.fromkeys(source.key for source in sources_of(step.value)))


# ---------------------------------------------------------------------------------------------- layouts


def _crooked(case: Case, answer: Answer, link_of: Mapping[str, Link]) -> list[str]:
    """The targets whose elements would come from other places than the true ones."""
    if any(link_of[key].is_hidden for key in answer.targets):
        return []
    right = {key: _value(link_of, key) for key in answer.targets}
    if answer.values is not None:
        return [key for key in answer.targets if not _same(answer.values.get(key), right[key], case)]
    if answer.layout is None:
        return [key for key in answer.targets if not _is_copy(right[key])]
    fewest = list(answer.targets)
    for made in _readings(case, answer):
        crooked = [key for key in answer.targets if not _same(made.get(key), right[key], case)]
        fewest = min(fewest, crooked, key=len)
    return fewest


def _readings(case: Case, answer: Answer) -> Iterator[dict[str, Value]]:
    """What the layout of an answer can mean: as in a rule, a name on one side only counts the tensors of that side.

    Tensors that a rule writes out (``o i, p i``) and those that a name counts may be listed in either order.
    """
    left, _, right = answer.layout.partition("->") if answer.layout else ("", "", "")
    before, after = (set(re.findall(r"[A-Za-z_]\w*", side)) for side in (left, right))
    written = left.count(",") + 1, right.count(",") + 1
    sides = []
    for keys, number, letter, names in (
        (answer.sources, written[0], "s", after - before), (answer.targets, written[1], "t", before - after),
    ):  # fmt: skip
        number = number if answer.layout else len(keys)
        counted = len(keys) // number
        if number * counted != len(keys):
            return
        plain = ",".join(f"{letter}{at}" for at in range(number))
        readings = [(plain, {f"{letter}{at}": key for at, key in enumerate(keys)})] if counted == 1 else []
        for name in sorted(names) if counted > 1 else ():
            pattern = ",".join(f"{letter}{at}.{{{name}=0..}}" for at in range(number))
            pattern = pattern.replace("0..", "|".join(map(str, range(counted))))
            for inner in {1, number}:  # blocks of one tensor, or of one count
                place = [(at // counted, at % counted) if inner == 1 else (at % number, at // number)
                         for at in range(len(keys))]  # fmt: skip
                called = {f"{letter}{a}.{b}": key for (a, b), key in zip(place, keys, strict=True)}
                readings.append((pattern, called))
        sides.append(readings)
    for (source_side, sources), (target_side, targets) in product(*sides):
        found = _expanded(f"{source_side} -> {target_side}", answer.layout, sources, targets, case)
        if found:
            yield found


def _expanded(
    rule: str, layout: str | None, sources: Mapping[str, str], targets: Mapping[str, str], case: Case
) -> dict[str, Value]:
    """What a rule makes of tensors under other names; nothing if it cannot be."""
    left = {name: TensorSpec(name, case.source[key].dtype, case.source[key].shape) for name, key in sources.items()}
    right = {name: TensorSpec(name, case.target[key].dtype, case.target[key].shape) for name, key in targets.items()}
    try:
        found = expand(parse_recipe([f"{rule} | {layout}" if layout else rule]), left, targets=right)
    except CkptError:
        return {}
    if found.problems:
        return {}
    return {targets[s.target.key]: _called(s.value, sources) for s in found.steps if s.target.key in targets}


def _called(value: Value, names: Mapping[str, str]) -> Value:
    """The value with the sources' own names."""
    if isinstance(value, Source):
        return Source(value.input, names[value.key])
    return Apply(value.op, tuple(_called(arg, names) for arg in value.args))


def _value(link_of: Mapping[str, Link], key: str) -> Value:
    return next(step.value for step in link_of[key].steps if step.target.key == key)


def _is_copy(value: Value) -> bool:
    return isinstance(value, Source) or (
        getattr(value.op, "is_identity", False) or getattr(value.op, "text", "") in ("= $1",)
    )


_seen: dict[Any, bool] = {}


def _same(given: Value | None, true: Value, case: Case) -> bool:
    """Both values move the same elements, shown by moving numbers; by their form if the tensors are huge."""
    if given is None or given == true:
        return given is not None
    names = {source.key: at for at, source in enumerate([*sources_of(true)])}
    shapes = tuple(case.source[key].shape for key in names)
    if not all(source.key in names for source in sources_of(given)):
        return False
    mark = (shapes, _form(given, names), _form(true, names))
    if mark not in _seen:
        _seen[mark] = mark[1] == mark[2] or _moves_alike(given, true, case)
    return _seen[mark]


def _form(value: Value, names: Mapping[str, int]) -> Any:
    if isinstance(value, Source):
        return names[value.key]
    op = (value.op.shape, value.op.boxes) if isinstance(value.op, Rearrange) else value.op  # however it is written
    return op, tuple(_form(arg, names) for arg in value.args)


def _moves_alike(given: Value, true: Value, case: Case) -> bool:
    import numpy as np

    from ckptool.engine.evaluate import compute

    arrays: dict[Source, Any] = {}
    start = 1
    for source in dict.fromkeys([*sources_of(true)]):
        spec = case.source[source.key]
        if spec.elements > _ELEMENTS:
            return _text(given) == _text(true)
        arrays[source] = np.arange(start, start + spec.elements, dtype=np.int32).reshape(spec.shape)
        start += spec.elements
    a, b = (np.asarray(compute(value, arrays)) for value in (given, true))
    return a.shape == b.shape and bool((a == b).all())


def _text(value: Value) -> str:
    return f"{value.op.text}({', '.join(map(_text, value.args))})" if isinstance(value, Apply) else ""
