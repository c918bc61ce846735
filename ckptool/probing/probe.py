"""probe: one input through the source's model and the target, and the first module whose output differs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptool.checkpoint import Checkpoint, Note
from ckptool.errors import CkptError
from ckptool.models import Target, open_target
from ckptool.plan import Plan
from ckptool.probing.building import Loaded, load, load_plan, load_source
from ckptool.probing.inputs import Shown, inputs_for
from ckptool.probing.judging import Compared, Comparer, judge, largest, marks_of, nearest
from ckptool.probing.pairing import pair_modules
from ckptool.probing.recording import Call, Run, run
from ckptool.probing.report import Divergence, ProbeReport, Skipped
from ckptool.surgery.transplant import Transplant

if TYPE_CHECKING:
    import torch

TOLERANCE = 1e-4
"""Rounding in float32 comes to about 1e-6 of an output's spread, 1e-5 behind a hundred layers."""

_NOT_SETTINGS = {"training", "momentum", "inplace", "call_super_init", "dump_patches"}


def probe(
    done: Transplant,
    source_model: Target | str,
    *,
    input_shape: Sequence[int] | None = None,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> ProbeReport:
    """Run one input through both models and compare what their modules make of it.

    Both models run on the CPU, in eval mode and float32. Modules are compared if they have the same tensors, as the
    plan has it. Source tensors that hold one number throughout (zero biases, the ones of new norms) are varied, the
    same way for both models, for their exchange would not show otherwise.

    Args:
        done: the transplant; its plan is run in memory.
        source_model: the model that the source was saved from: a target, or its name as for ``--into``.
        input_shape: of the input, where it cannot be worked out or should be another.
        seed: of the input, and of whatever the models draw.
        tolerance: the largest difference that is rounding, in standard deviations of an output.

    Raises:
        CkptError: the source does not load strictly into its model, a model cannot be built or stops on the input, or
            the input cannot be worked out.

    Example:
        >>> import ckptool
        >>> from ckptool.surgery.transplant import plan_transplant
        >>> old = ckptool.open("fixtures/resnet18-102.pth")
        >>> done = plan_transplant(old, open_target("fixtures/models.py:Baseline"), drop=["fc.*"])
        >>> found = probe(done, "fixtures/models.py:ResNet18", input_shape=(1, 3, 64, 64))
        >>> found.agree, found.first.target, found.first.settings[0]
        (False, 'base.layer4.0.downsample.0', ('stride', '(1, 1)', '(2, 2)'))
    """
    return _probe(done.source, source_model, lambda: load(done, seed), (input_shape, seed, tolerance))


def probe_plan(
    plan: Plan,
    source_model: Target | str,
    target_model: Target | str,
    *,
    input_shape: Sequence[int] | None = None,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> ProbeReport:
    """The same for what a remap makes; its keys are those of `target_model`. See `probe`.

    Raises:
        CkptError: besides, the plan joins several files, or makes what the target's model does not have.
    """
    if len(plan.inputs) != 1:
        raise CkptError(
            "the probe loads one file into the source's model, and here are several", hint="join them first"
        )
    target = open_target(target_model) if isinstance(target_model, str) else target_model
    numbers = (input_shape, seed, tolerance)
    return _probe(plan.inputs[0], source_model, lambda: load_plan(plan, target, seed), numbers)


def _probe(
    checkpoint: Checkpoint,
    source_model: Target | str,
    target_of_plan: Callable[[], Loaded],
    numbers: tuple[Sequence[int] | None, int, float],
) -> ProbeReport:
    begun = time.perf_counter()
    shape, seed, tolerance = numbers
    opened = open_target(source_model) if isinstance(source_model, str) else source_model
    source, target = load_source(checkpoint, opened, seed), target_of_plan()
    pair, shown = _first_that_runs(source, target, None if shape is None else tuple(shape), seed, tolerance)
    used = {origin for origins in target.origins.values() for origin in origins}
    taken = [key for key, origins in source.origins.items() if not used.isdisjoint(origins)]
    its, mine = pair.comparer.source.keys, pair.run.keys
    unused = marks_of(its, source.origins.keys() - set(taken)) & ~marks_of(its, taken)
    judge(pair.comparer, marks_of(mine, target.unfilled) & ~marks_of(mine, target.origins), unused)
    return _report(source, target, pair, shown, (seed, tolerance, time.perf_counter() - begun))


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """Both runs."""

    run: Run
    comparer: Comparer


def _first_that_runs(
    source: Loaded, target: Loaded, given: tuple[int, ...] | None, seed: int, tolerance: float
) -> tuple[_Pair, Shown]:
    """Both runs on the first input that both take; else what the first input met."""
    refused: CkptError | None = None
    names = (source.name, target.name)
    shown: Iterator[Shown] = inputs_for(source.module, target.module, names, given, seed)
    for one in shown:
        try:
            return _run_both(source, target, one, seed, tolerance), one
        except CkptError as error:
            refused = refused or error
    assert refused is not None
    raise refused


def _run_both(source: Loaded, target: Loaded, shown: Shown, seed: int, tolerance: float) -> _Pair:
    asked = " and ".join(shown.texts)
    mine, other = ([name for name, _ in side.module.named_modules()] for side in (target, source))
    pairing = pair_modules(target.origins, source.origins, mine, other, (target.elements, source.elements))
    its = run(source.name, source.module, shown.source, asked, seed)
    owners = frozenset(key.rpartition(".")[0] for key in source.origins)
    around = frozenset(name for name, part in target.module.named_modules() if any(part.children()))
    comparer = Comparer(pairing, its, owners, around, tolerance)
    return _Pair(run(target.name, target.module, shown.target, asked, seed, comparer.take), comparer)


# ---------------------------------------------------------------------------------------------- what came of it


def _report(
    source: Loaded, target: Loaded, pair: _Pair, shown: Shown, numbers: tuple[int, float, float]
) -> ProbeReport:
    seed, tolerance, seconds = numbers
    rows = pair.comparer.compared
    said = [row for row in rows if row.verdict != "behind"]
    agreeing = [row for row in said if row.verdict == "agrees"]
    differing = [row for row in said if row.verdict == "differs"]
    wrong = 0
    for row in differing:
        wrong |= row.call.mark
    roots = [row for row in differing if not row.call.made & wrong]
    proven = 0
    for row in agreeing:
        proven |= row.call.made
    keys = pair.run.keys
    behind = 0
    for row in rows:
        behind |= row.call.made if row.verdict == "behind" else 0
    return ProbeReport(
        source.name,
        target.name,
        shown.texts,
        seed,
        tolerance,
        len(said),
        len(agreeing),
        largest(rows),
        tuple(_divergence(row, rows, source, target, pair) for row in roots),
        len(differing) - len(roots),
        tuple(dict.fromkeys(row.call.module for row in said if row.verdict == "divided")),
        tuple(_skipped(target, pair, rows)),
        tuple(key for key in keys if key in target.unfilled and keys[key] & behind),
        len(target.origins),
        tuple(key for key in target.origins if not keys.get(key, 0) & proven),
        tuple(_notes(source, target)),
        seconds,
    )


def _divergence(row: Compared, rows: Sequence[Compared], source: Loaded, target: Loaded, pair: _Pair) -> Divergence:
    mine = target.module.get_submodule(row.call.module)
    its = source.module.get_submodule(row.other.module)
    above = nearest(row, rows)
    there = _nearest_there(row, rows)
    here = tuple(dict.fromkeys(one.call.module for one in above))
    known = 0
    for one in above:
        known |= one.call.made | one.call.mark
    owners = {key.rpartition(".")[0] for key in target.origins}
    between = [call.module for call in pair.run.calls if row.call.before & call.mark & ~known and call.module in owners]
    compared = {one.call.module for one in rows}
    hidden = tuple(dict.fromkeys(name for name in between if name not in compared))
    agrees_within = row.input_error is not None and row.input_error <= pair.comparer.tolerance
    return Divergence(
        row.call.module,
        row.other.module,
        (type(mine).__name__, type(its).__name__),
        row.error,
        row.scale,
        row.shapes,
        row.input_error,
        tuple({one.call.module: one.other.module for one in above if one.verdict in ("agrees", "divided")}.items()),
        hidden,
        there if set(there) != set(here) and not agrees_within else (),
        tuple(_settings(mine, its)) if agrees_within else (),
        tuple(origin for name in (*hidden, row.call.module) for origin in _origins(name, target)),
    )


def _nearest_there(row: Compared, rows: Sequence[Compared]) -> tuple[str, ...]:
    """What the source's module is computed from, under the target's names."""
    above = [one for one in rows if row.other.before & one.other.mark]
    last = [one for one in above if not any(o.other.made & one.other.mark for o in above if o is not one)]
    return tuple(dict.fromkeys(one.call.module for one in last))


def _settings(mine: torch.nn.Module, its: torch.nn.Module) -> Iterator[tuple[str, str, str]]:
    """Numbers and words that two modules were built with and that differ."""
    for name, value in vars(mine).items():
        other = vars(its).get(name)
        if name.startswith("_") or name in _NOT_SETTINGS or type(other) is not type(value):
            continue
        if isinstance(value, int | float | str | tuple) and value != other:
            yield name, str(value), str(other)


def _origins(module: str, target: Loaded) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """What the plan says of a module's own tensors; of all below it, if it has none."""
    before = f"{module}." if module else ""
    below = [key for key in target.origins if key.startswith(before)]
    own = [key for key in below if "." not in key[len(before) :]]
    for key in own or below:
        yield key, target.origins[key], target.steps[key].why


def _skipped(target: Loaded, pair: _Pair, rows: Sequence[Compared]) -> Iterator[Skipped]:
    """Modules with weights of the source that were not compared, and why."""
    ran = {call.module for call in pair.run.calls}
    behind = {row.call.module: row for row in rows if row.verdict == "behind"}
    compared = {row.call.module for row in rows}
    own: dict[str, set[str]] = {}
    for key, origins in target.origins.items():
        own.setdefault(key.rpartition(".")[0], set()).update(one.rpartition(".")[0] for one in origins)
    for module, sources in own.items():
        if module in behind:
            first = _first_unfilled(behind[module].call, target, pair.run)
            what = f"{first}, which nothing filled" if first else "what the target has no place for"
            yield Skipped(module, f"it is computed from {what}")
        elif module in compared:
            continue
        elif module not in ran:
            yield Skipped(module, "it is not called itself: what is around it uses its tensors, or nothing does")
        elif len(sources) > 1:
            yield Skipped(module, f"it is made of {len(sources)} modules")
        else:
            yield Skipped(module, "no module of the source has just its tensors and is called")


def _first_unfilled(call: Call, target: Loaded, run: Run) -> str:
    return next((key for key, mark in run.keys.items() if key in target.unfilled and call.made & mark), "")


def _notes(source: Loaded, target: Loaded) -> Iterator[Note]:
    varied = tuple(sorted(source.varied | target.varied))
    if varied:
        some = "1 source tensor holds" if len(varied) == 1 else f"{len(varied):,} source tensors hold"
        yield Note(
            f"{some} one number throughout, and {'was' if len(varied) == 1 else 'were'} varied",
            "the same in both models: an exchange would not show otherwise",
            varied,
        )
