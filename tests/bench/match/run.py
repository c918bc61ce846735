"""The table: every matcher on every pair.

python -m tests.bench.match.run [--only NAME]... [--matcher NAME]... [--mistakes N] [--per-matcher] [--markdown]
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ckptool.core.plan import sources_of
from ckptool.recipes.expand import expand
from ckptool.recipes.recipe import load_recipe
from tests.bench.match.baselines import BASELINES, RefusedError
from tests.bench.match.pairs import Case, case_of, entries
from tests.bench.match.score import Answer, Mistake, Score, judge

Matcher = Callable[[Case], Iterable[Answer]]
OURS = "ckptool"


def report_of(case: Case) -> Any:
    """`ckptool.matching.match` on a pair."""
    from ckptool.matching.match import match

    return match(case.source, case.target, source_modules=case.source_modules, target_modules=case.target_modules)


def ours(case: Case) -> list[Answer]:
    """Our pairs at the default confidence."""
    return [Answer(pair.targets, pair.sources, pair.layout) for pair in report_of(case).accepted()]


def ours_all(case: Case) -> list[Answer]:
    """Our pairs with guesses and interchangeable ones."""
    return [Answer(pair.targets, pair.sources, pair.layout) for pair in report_of(case).pairs]


def our_recipe(case: Case) -> list[Answer]:
    """What our recipe, as it is written at the default confidence, makes of the source: the proof of the pudding."""
    from ckptool.report.match_recipe import match_recipe

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.toml"
        path.write_text(match_recipe(report_of(case)))
        found = expand(load_recipe(path), case.source, targets=case.target)
    if found.problems:
        raise RefusedError(found.problems[0].message)
    return [
        Answer((step.target.key,), tuple(dict.fromkeys(source.key for source in sources_of(step.value))), None,
               {step.target.key: step.value})
        for step in found.steps
        if step.target.key in case.target and case.target[step.target.key].shape == step.target.shape
        and any(sources_of(step.value))
    ]  # fmt: skip


def baseline(name: str) -> Matcher:
    """One of the others."""

    def run(case: Case) -> list[Answer]:
        return [Answer((target,), (source,)) for target, source in BASELINES[name](case.source, case.target)]

    return run


def matchers() -> dict[str, Matcher]:
    """Those that are installed, ours first."""
    found: dict[str, Matcher] = {}
    if importlib.util.find_spec("ckptool.matching.match"):
        found[OURS] = ours
        if importlib.util.find_spec("ckptool.report.match_recipe"):
            found[f"{OURS}, its recipe"] = our_recipe
        found[f"{OURS}, with guesses"] = ours_all
    for name in BASELINES:
        if name != "torch_liberator" or importlib.util.find_spec("torch_liberator"):
            found[name] = baseline(name)
    return found


def run_one(matcher: Matcher, case: Case) -> tuple[Score, list[Mistake], str]:
    """One matcher on one pair; the reason if it refused."""
    start = time.perf_counter()
    refusal = ""
    try:
        answers = list(matcher(case))
    except RefusedError as error:
        answers, refusal = [], str(error)
    except Exception as error:  # a matcher that breaks on a pair has no answer there; the others go on
        answers, refusal = [], f"it broke: {type(error).__name__}: {error}"
    seconds = time.perf_counter() - start
    score, mistakes = judge(case, answers)
    return score + Score(seconds=seconds, refused=bool(refusal)), mistakes, refusal


def share(found: int, of: int) -> str:
    """Per cent, rounded down so that 100 means all."""
    return f"{int(1000 * found / of) / 10:.1f} %" if of else "-"


def row(score: Score) -> list[str]:
    """The columns of a table."""
    precision = "-" if score.precision is None else f"{int(1000 * score.precision) / 10:.1f} %"
    return [
        precision, f"{score.wrong}", f"{score.layouts}", share(score.one_found, score.one),
        share(score.groups_found, score.groups), f"{score.seconds:.2f}", f"{score.refused}" if score.refused else "",
    ]  # fmt: skip


HEAD = ["precision", "wrong", "wrong layout", "recall 1-1", "recall groups", "s", "refused"]


def table(rows: list[list[str]], markdown: bool) -> str:
    """Columns under each other; the first to the left."""
    widths = [max(len(line[at]) for line in rows) for at in range(len(rows[0]))]
    lines = []
    for number, line in enumerate(rows):
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        lines.append(f"| {' | '.join(cells)} |" if markdown else "  ".join(cells))
        if markdown and number == 0:
            lines.append("|" + "|".join(["---", *["---:"] * (len(line) - 1)]) + "|")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.match.run")
    parser.add_argument("--only", action="append", default=[], help="pairs whose name has this")
    parser.add_argument("--matcher", action="append", default=[], help="matchers whose name has this")
    parser.add_argument("--mistakes", type=int, default=0, help="print so many mistakes of each pair")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--per-matcher", action="store_true", help="the pairs of every matcher, not of ours alone")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    chosen = {
        name: run for name, run in matchers().items() if not options.matcher or any(m in name for m in options.matcher)
    }
    detailed = [name for name in chosen if name == OURS or options.per_matcher or len(chosen) == 1]
    totals = {name: Score() for name in chosen}
    details: dict[str, list[list[str]]] = {name: [["pair", "keys", *HEAD]] for name in detailed}
    unrelated = dict.fromkeys(chosen, 0)
    pairs = 0
    for entry in entries(options.only):
        case = case_of(entry)
        pairs += 1
        for name, matcher in chosen.items():
            score, mistakes, refusal = run_one(matcher, case)
            totals[name] += score
            unrelated[name] += 0 if case.truth else score.given
            if name in details:
                details[name].append([entry.name, f"{len(case.source)} > {len(case.target)}", *row(score)])
            _say(name, entry.name, mistakes[: options.mistakes], refusal)
    for name, lines in details.items():
        print(f"\n{name}, pair by pair\n\n{table(lines, options.markdown)}")
    head = ["in total", *HEAD, "matched in unrelated"]
    lines = [head, *([name, *row(score), f"{unrelated[name]}"] for name, score in totals.items())]
    first: Any = next(iter(totals.values()), Score())
    print(
        f"\n{pairs} pairs, {first.one:,} one-to-one links, {first.groups:,} groups\n\n{table(lines, options.markdown)}"
    )


def _say(matcher: str, pair: str, mistakes: list[Mistake], refusal: str) -> None:
    if refusal:
        print(f"{matcher} refused {pair}: {refusal}", file=sys.stderr)
    for mistake in mistakes:
        what = mistake.layout or f"right is {', '.join(mistake.right) or 'nothing'}"
        print(f"{matcher} on {pair}: {mistake.target} <- {', '.join(mistake.given)}: {what}", file=sys.stderr)


if __name__ == "__main__":
    main()
