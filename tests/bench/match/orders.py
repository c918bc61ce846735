"""Macro F1 in four orders: both files as given, the source sorted by letters, both sorted, both shuffled.

python -m tests.bench.match.orders [--only NAME]... [--list] [--mistakes N]
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

from tests.bench.match.pairs import Case, both_sorted, case_of, entries, shuffled, sorted_keys
from tests.bench.match.run import ours
from tests.bench.match.score import Score, judge

ORDERS: dict[str, Callable[[Case], Case]] = {
    "given": lambda case: case,
    "source": sorted_keys,
    "sorted": both_sorted,
    "shuffled": lambda case: shuffled(shuffled(case, "source", 1), "target", 2),
}


def f1(case: Case, score: Score) -> float:
    """Of the tensors that were given a source; 1 for unrelated models if nothing was given."""
    asked = score.one + score.groups
    recall = (score.one_found + score.groups_found) / asked if asked else 1.0
    precision = 1.0 if score.precision is None else score.precision
    if not asked:
        return precision
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def main(arguments: list[str] | None = None) -> None:
    """Prints a line for each order, and one a pair with `--list`."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.match.orders")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--order", action="append", default=[], choices=list(ORDERS))
    parser.add_argument("--skip", action="append", default=[])
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--mistakes", type=int, default=0)
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    chosen = [
        entry for entry in entries(options.only, blind=True) if not any(name in entry.name for name in options.skip)
    ]
    cases = [case_of(entry) for entry in chosen]
    for order in options.order or ORDERS:
        total, scores, unrelated = Score(), [], 0
        start = time.process_time()
        for case in cases:
            listed = ORDERS[order](case)
            score, mistakes = judge(listed, ours(listed))
            value = f1(listed, score)
            scores.append(value)
            total += score
            unrelated += 0 if case.truth else score.given
            if options.list and (value < 0.995 or score.wrong or score.layouts):
                print(f"  {value:.3f} {_counts(score)}  {case.name}")
            for mistake in mistakes[: options.mistakes]:
                what = mistake.layout or f"right is {', '.join(mistake.right) or 'nothing'}"
                print(f"      {mistake.target} <- {', '.join(mistake.given)}: {what}")
        mean = sum(scores) / max(1, len(scores))
        seconds = time.process_time() - start
        print(f"{order}: {len(cases)} pairs, macro F1 {mean:.3f}, {_counts(total)}", end="")
        print(f", {unrelated} in unrelated, {seconds:.0f} s", flush=True)


def _counts(score: Score) -> str:
    found = f"1-1 {score.one_found}/{score.one}, groups {score.groups_found}/{score.groups}"
    return f"wrong {score.wrong}, wrong layout {score.layouts}, {found}"


if __name__ == "__main__":
    main()
