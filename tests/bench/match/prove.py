"""Shows that the truth is true: each pair that has two models, small, gives equal outputs.

    python -m tests.bench.match.prove [--only NAME]...

The source gets weights that make every mix-up show; its state dict, written as the pair's file, goes through the true
recipe into the target, whose other tensors keep their initial values; then both see the same input. The target must not
give that output before, or the proof would be none.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bench.match.pairs import Two, entries, prepare, recipe_of_two, state_of

sys.path.insert(0, str(Path(__file__).parents[2]))  # recipe_harness, as pytest finds it


def prove(two: Two) -> tuple[float, float]:
    """The largest difference of the outputs, relative to their size: with the recipe, and without it."""
    import torch
    from recipe_harness import remap_torch, structured

    structured(two.source)
    target = two.target.eval()
    ask_target = two.ask_target or two.ask
    assert two.ask and ask_target
    with torch.no_grad():
        wanted = two.ask(two.source)
        before = _difference(wanted, ask_target(target))
        made = remap_torch(recipe_of_two(two), two.source_file(state_of(two.source)), vars=two.vars)
        there = target.state_dict()
        fitting = {key: tensor for key, tensor in made.items() if key in there and there[key].shape == tensor.shape}
        target.load_state_dict(fitting, strict=False)
        after = _difference(wanted, ask_target(target))
    spread = float((wanted[0] - wanted[1]).abs().max() / wanted.abs().max())
    assert spread > 1e-3, f"the output hardly depends on the input: {spread}"
    return after, before


def _difference(a: Any, b: Any) -> float:
    assert a.shape == b.shape, (a.shape, b.shape)
    return float((a - b).abs().max() / a.abs().max())


def main(arguments: list[str] | None = None) -> int:
    """Prints how the truth of each pair is known; 1 if an output differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.match.prove")
    parser.add_argument("--only", action="append", default=[], help="pairs whose name has this")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    prepare()
    import torch

    failures = 0
    for entry in entries(options.only):
        if entry.change:
            print(f"{entry.name:62} the same truth, listed otherwise")
            continue
        torch.manual_seed(0)
        two = entry.build(True)
        if two.rules is None:
            print(f"{entry.name:62} nothing belongs together")
        elif two.ask is None or isinstance(two.source, Mapping):
            print(f"{entry.name:62} not proven here: {two.proof}")
        else:
            after, before = prove(two)
            is_good = after <= two.rel < before
            failures += not is_good
            print(f"{entry.name:62} {'equal outputs' if is_good else 'DIFFERENT'}: {after:.1e} (before: {before:.1e})")
    return bool(failures)


if __name__ == "__main__":
    if not importlib.util.find_spec("torch"):
        raise SystemExit("torch is not installed")
    raise SystemExit(main())
