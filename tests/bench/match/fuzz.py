"""Real models, edited at random so that the truth stays known: does the matcher give wrong pairs?

python -m tests.bench.match.fuzz [--seed N] [--count N] [--seconds N] [--cache FOLDER] [--only MODEL] [--edit NAME]
                                 [--log FILE] [--shrink]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from ckptool.core.plan import Source, Step
from ckptool.core.spec import TensorSpec
from tests.bench.match.edits import NAMES, NUMBERS, ORDER, Row, Rows
from tests.bench.match.edits_parts import EDITS, PARTS, untold
from tests.bench.match.pairs import Case, Link, Specs
from tests.bench.match.score import Answer, Mistake, Score, judge
from tests.bench.match.score import _expanded as expanded
from tests.bench.match.zoo import models

_PARTS = "a ..., b ..., c ...", "(a + b + c) ..."
_LAYOUTS = {  # of the source and of the target
    "io": ("o i", "i o"), "hwio": ("o i h w", "h w i o"), "fuse": _PARTS, "split": _PARTS[::-1],
    "stack": ("...", "e ..."),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Made:
    """A case and how it was made."""

    seed: int
    edits: tuple[str, ...]
    case: Case


# ---------------------------------------------------------------------------------------------- making cases


def made(name: str, specs: Specs, seed: int, only: Sequence[str] = ()) -> Made | None:
    """A case from a model; None if too little is left."""
    rng = Random(f"{name} {seed}")
    rows = [Row(key, spec.dtype, spec.shape, (key,)) for key, spec in specs.items()]
    done = []
    for pool in rng.choice([[], [], [NAMES], [NAMES, NUMBERS], [NAMES, ORDER]]):  # the source's names may be odd
        rows, edit = _edited(rng, rows, pool)
        done += [f"source:{edit}"] if edit else []
    source = {row.key: TensorSpec(row.key, row.dtype, row.shape) for row in rows}
    rows = [replace(row, true=(row.key,)) for row in rows]
    if only:
        pools = [{edit: EDITS[edit]} for edit in only]
    else:
        pools = [rng.choice([NAMES, NUMBERS, ORDER, PARTS, PARTS, PARTS]) for _ in range(rng.choice([1, 1, 2, 3, 4]))]
    for pool in pools:
        rows, edit = _edited(rng, rows, pool)
        done += [edit] if edit else []
    if not any(edit in EDITS for edit in done) or sum(bool(row.true) for row in rows) < 4:
        return None
    is_back = rng.random() < 0.4
    case = case_of_rows(f"{name} #{seed}", source, rows, is_back)
    return Made(seed, (*done, *(["swapped"] if is_back else [])), case)


def _edited(rng: Random, rows: Rows, pool: dict[str, Any]) -> tuple[Rows, str]:
    for edit in rng.sample(sorted(pool), min(3, len(pool))):
        if new := pool[edit](rng, rows):
            return new, edit
    return rows, ""


def case_of_rows(name: str, source: Specs, rows: Rows, is_back: bool) -> Case:
    """The rows as a case; with sides changed if `is_back`."""
    target = {row.key: TensorSpec(row.key, row.dtype, row.shape) for row in rows}
    groups: dict[tuple[str, ...], Rows] = defaultdict(list)
    for row in rows:
        if row.true:
            groups[row.true].append(row)
    case = Case(name, *((target, source) if is_back else (source, target)), None, None, ())
    return replace(case, truth=tuple(_link(case, sources, group, is_back) for sources, group in groups.items()))


def _link(case: Case, sources: tuple[str, ...], group: Rows, is_back: bool) -> Link:
    kind = group[0].kind
    targets = tuple(row.key for row in sorted(group, key=lambda row: row.place))
    if is_back:
        sources, targets = targets, sources
    if kind == "copy":
        return Link(targets, sources, (Step(case.target[targets[0]], Source(0, sources[0]), "edit"),))
    before, after = _LAYOUTS[kind][::-1] if is_back else _LAYOUTS[kind]
    named = {f"s.{at}": key for at, key in enumerate(sources)}, {f"t.{at}": key for at, key in enumerate(targets)}
    sides = ["s.{e}" if len(sources) > 1 else "s.0", "t.{e}" if len(targets) > 1 else "t.0"]
    if kind != "stack":
        sides = [",".join(called) for called in named]
    values = expanded(" -> ".join(sides), f"{before} -> {after}", *named, case)
    assert set(values) == set(targets), (kind, before, sources, targets)
    steps = tuple(Step(case.target[key], values[key], "edit") for key in targets)
    return Link(targets, sources, steps, max(len(sources), len(targets)) > 1)


# ---------------------------------------------------------------------------------------------- asking the matcher


@dataclass(frozen=True, slots=True)
class Result:
    """What the matcher made of a case."""

    made: Made
    score: Score
    mistakes: tuple[Mistake, ...]
    why: dict[str, str]
    broke: str = ""


def asked(one: Made) -> Result:
    """The matcher's pairs at the default confidence, judged."""
    from ckptool.matching.match import match

    start = time.perf_counter()
    try:
        pairs = match(one.case.source, one.case.target).accepted()
    except Exception as error:  # a matcher that breaks has no answer; the others go on
        return Result(one, Score(refused=1), (), {}, f"{type(error).__name__}: {error}")
    seconds = time.perf_counter() - start
    score, mistakes = judge(one.case, [Answer(pair.targets, pair.sources, pair.layout) for pair in pairs])
    why = {
        key: f"{pair.confidence}: {'; '.join(one.slug for one in pair.evidence)}"
        for pair in pairs
        for key in pair.targets
    }
    return Result(one, score + Score(seconds=seconds), tuple(mistakes), why)


def smallest(result: Result, seconds: float = 60) -> Case:
    """The fewest modules of both sides with which the first mistake is still made."""
    case, first = result.made.case, result.mistakes[0]
    end = time.perf_counter() + seconds

    def is_wrong(case: Case) -> bool:
        found = asked(replace(result.made, case=case)).mistakes
        return any((m.target, m.given) == (first.target, first.given) for m in found)

    def without(keys: set[str], others: set[str]) -> Case:
        source = {key: spec for key, spec in case.source.items() if key not in keys}
        target = {key: spec for key, spec in case.target.items() if key not in others}
        truth = [link for link in case.truth if not keys & set(link.sources) and not others & set(link.targets)]
        return replace(case, source=source, target=target, truth=tuple(truth))

    for depth in (1, 2, 3, 4, 5, 6, 7, 8):
        for key in list(dict.fromkeys(".".join(key.split(".")[:depth]) for key in case.target)):
            if time.perf_counter() > end:
                return case
            gone = {k for k in case.target if f"{k}.".startswith(f"{key}.")}
            links = [link for link in case.truth if gone & set(link.targets)]
            both = {k for link in links for k in link.sources}, gone | {k for link in links for k in link.targets}
            if gone and is_wrong(small := without(*both)):
                case = small
        for key in list(dict.fromkeys(".".join(key.split(".")[:depth]) for key in case.source)):
            gone = {k for k in case.source if f"{k}.".startswith(f"{key}.")}
            free = gone - {k for link in case.truth for k in link.sources}
            if time.perf_counter() < end and free == gone and gone and is_wrong(small := without(gone, set())):
                case = small
    return case


def cases(options: Any) -> Iterator[Made]:
    """Round by round over the models, until count or time is used up."""
    zoo = [(name, specs) for name, specs in models(options.cache, options.most) if options.only in name]
    Random(options.seed).shuffle(zoo)
    start, number = time.perf_counter(), 0
    for round_ in range(1_000_000):
        for name, specs in zoo:
            if number >= options.count or time.perf_counter() - start > options.seconds:
                return
            one = made(name, specs, options.seed + 1000 * round_, options.edit)
            if one:
                number += 1
                yield one


# ---------------------------------------------------------------------------------------------- the report


def main(arguments: list[str] | None = None) -> None:
    """Prints a table by kind of edit; each wrong case as it comes."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.match.fuzz")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--most", type=int, default=600, help="keys of a model")
    parser.add_argument("--cache", type=Path, help="a folder that keeps the models' headers")
    parser.add_argument("--only", default="", help="models whose name has this")
    parser.add_argument("--edit", action="append", default=[], help="these edits and no others")
    parser.add_argument("--log", type=Path, help="a line of JSON for each case")
    parser.add_argument("--shrink", action="store_true", help="print the smallest lists of each wrong case")
    options = parser.parse_args(arguments)
    by_edit: dict[str, Counter[str]] = defaultdict(Counter)
    log = options.log.open("a") if options.log else None
    for one in cases(options):
        result = asked(one)
        score = result.score
        counts = {"cases": 1, "answers": score.given, "wrong": score.wrong, "layouts": score.layouts, "cases wrong":
                  int(bool(result.mistakes)), "one": score.one, "found": score.one_found, "groups": score.groups,
                  "groups found": score.groups_found, "broke": int(bool(result.broke)), "slow": int(score.seconds > 5)
                  }  # fmt: skip
        edits = [edit.removeprefix("source:") for edit in one.edits]
        doubts = untold(edits)
        for edit in {"all, untold", *doubts} if doubts else {"all", *edits}:
            by_edit[edit].update(counts)
        if log:
            wrong = [(m.target, m.given, m.right, m.layout, result.why.get(m.target)) for m in result.mistakes[:6]]
            facts = {"untold": bool(doubts), "case": one.case.name, "edits": one.edits, "keys": len(one.case.source),
                     "seconds": round(score.seconds, 2), "mistakes": wrong, "broke": result.broke}  # fmt: skip
            log.write(json.dumps(facts | counts) + "\n")
            log.flush()
        _say(result, options.shrink)
    print("\n".join(_table(by_edit)))


def _say(result: Result, is_shrunk: bool) -> None:
    case = result.made.case
    if result.broke:
        print(f"{case.name} {result.made.edits}: {result.broke}", file=sys.stderr)
    if not result.mistakes:
        return
    print(f"{case.name} {' '.join(result.made.edits)}: {len(result.mistakes)} of {result.score.given}", file=sys.stderr)
    for m in result.mistakes[:3]:
        right = m.layout or ", ".join(m.right) or "nothing"
        print(f"    {m.target} <- {', '.join(m.given)}: right is {right} ({result.why[m.target]})", file=sys.stderr)
    if is_shrunk:
        small = smallest(result)
        for name, specs in (("source", small.source), ("target", small.target)):
            rows = (f"        {key!r}: {spec.shape}," for key, spec in specs.items())
            print(f"    {name} = {{", *rows, "    }", sep="\n")


def _table(by_edit: dict[str, Counter[str]]) -> Iterator[str]:
    yield "edit | cases | answers | wrong pairs | wrong layouts | cases with wrong | recall 1-1 | recall groups | broke"
    yield "---|---:|---:|---:|---:|---:|---:|---:|---:"
    for edit, n in sorted(by_edit.items()):
        one = f"{100 * n['found'] / n['one']:.1f} %" if n["one"] else "-"
        groups = f"{100 * n['groups found'] / n['groups']:.1f} %" if n["groups"] else "-"
        cells = [
            edit,
            *(n[name] for name in ("cases", "answers", "wrong", "layouts", "cases wrong")),
            one,
            groups,
            n["broke"],
        ]
        yield " | ".join(map(str, cells))


if __name__ == "__main__":
    main()
