"""probe: one input through the source's model and the target, and the first module whose output differs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from ckptool.checkpoint import Checkpoint, Note
from ckptool.errors import CkptError
from ckptool.models import Target, open_target
from ckptool.plan import Plan
from ckptool.probing.building import Loaded, check_plan, load, load_plan, load_source
from ckptool.probing.inputs import Shown, inputs_for
from ckptool.probing.judging import Compared, judge, largest, marks_of, nearest
from ckptool.probing.recording import Call, Run
from ckptool.probing.report import Divergence, ProbeReport, Skipped
from ckptool.probing.running import Both, run_both, side_of
from ckptool.probing.settings import settings_that_differ
from ckptool.surgery.transplant import Transplant


def probe(
    done: Transplant,
    source_model: Target | str,
    *,
    input_shape: Sequence[int] | None = None,
    seed: int = 0,
    tolerance: float | None = None,
) -> ProbeReport:
    """Run one input through both models and compare what their modules make of it.

    Both models run on the CPU, in eval mode and float64; in float32 where their code does not take that. Modules are
    compared if they have the same tensors, as the plan has it. Source tensors that hold one number throughout (zero
    biases, the ones of new norms) are varied, and tiny ones (layer scales) enlarged, the same way for both models: an
    exchange would not show otherwise.

    Args:
        done: the transplant; its plan is run in memory.
        source_model: the model that the source was saved from: a target, or its name as for ``--into``.
        input_shape: of the input, where it cannot be worked out or should be another.
        seed: of the input, and of whatever the models draw.
        tolerance: the largest difference that may be rounding, in standard deviations of an output; see `rounding`.

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
    return _probe(done.source, source_model, done.target, lambda: load(done, seed), (input_shape, seed, tolerance))


def probe_plan(
    plan: Plan,
    source_model: Target | str,
    target_model: Target | str,
    *,
    input_shape: Sequence[int] | None = None,
    seed: int = 0,
    tolerance: float | None = None,
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
    check_plan(plan, target)
    numbers = (input_shape, seed, tolerance)
    return _probe(plan.inputs[0], source_model, target, lambda: load_plan(plan, target, seed), numbers)


def _probe(
    checkpoint: Checkpoint,
    source_model: Target | str,
    target_model: Target,
    load_target: Callable[[], Loaded],
    numbers: tuple[Sequence[int] | None, int, float | None],
) -> ProbeReport:
    begun = time.perf_counter()
    shape, seed, tolerance = numbers
    opened = open_target(source_model) if isinstance(source_model, str) else source_model
    sides = (side_of(opened, lambda: load_source(checkpoint, opened, seed)), side_of(target_model, load_target))
    given = None if shape is None else tuple(shape)

    def inputs() -> Iterator[Shown]:
        return inputs_for(sides[0].module, sides[1].module, (sides[0].name, sides[1].name), given, seed)

    both = run_both(*sides, inputs, seed, tolerance)
    source, target = both.source, both.target
    used = {origin for origins in target.origins.values() for origin in origins}
    taken = [key for key, origins in source.origins.items() if not used.isdisjoint(origins)]
    its, mine = both.comparer.source.keys, both.run.keys
    unused = marks_of(its, source.origins.keys() - set(taken)) & ~marks_of(its, taken)
    judge(both.comparer, marks_of(mine, target.unfilled) & ~marks_of(mine, target.origins), unused)
    return _report(both, seed, begun)


# ---------------------------------------------------------------------------------------------- what came of it


def _report(both: Both, seed: int, begun: float) -> ProbeReport:
    source, target = both.source, both.target
    rows = both.comparer.compared
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
    keys = both.run.keys
    behind = 0
    for row in rows:
        behind |= row.call.made if row.verdict == "behind" else 0
    return ProbeReport(
        source.name,
        target.name,
        both.shown.texts,
        seed,
        both.comparer.rounding.precision,
        both.comparer.rounding.most,
        len(said),
        len(agreeing),
        largest(rows),
        tuple(_divergence(row, rows, both) for row in roots),
        len(differing) - len(roots),
        tuple(dict.fromkeys(row.call.module for row in said if row.verdict == "divided")),
        tuple(_skipped(target, both, rows)),
        tuple(key for key in keys if key in target.unfilled and keys[key] & behind),
        len(target.origins),
        tuple(key for key in target.origins if not keys.get(key, 0) & proven),
        tuple(_notes(both)),
        time.perf_counter() - begun,
    )


def _divergence(row: Compared, rows: Sequence[Compared], both: Both) -> Divergence:
    source, target = both.source, both.target
    mine = target.module.get_submodule(row.call.module)
    its = source.module.get_submodule(row.other.module)
    above = nearest(row, rows)
    there = _nearest_there(row, rows)
    here = tuple(dict.fromkeys(one.call.module for one in above))
    known = 0
    for one in above:
        known |= one.call.made | one.call.mark
    owners = {key.rpartition(".")[0] for key in target.origins}
    between = [call.module for call in both.run.calls if row.call.before & call.mark & ~known and call.module in owners]
    compared = {one.call.module for one in rows}
    hidden = tuple(dict.fromkeys(name for name in between if name not in compared))
    agrees_within = row.input_error is not None and row.input_error <= row.limit
    return Divergence(
        row.call.module,
        row.other.module,
        (type(mine).__name__, type(its).__name__),
        row.error,
        row.limit,
        row.scale,
        row.shapes,
        row.input_error,
        tuple({one.call.module: one.other.module for one in above if one.verdict in ("agrees", "divided")}.items()),
        hidden,
        there if set(there) != set(here) and not agrees_within else (),
        tuple(settings_that_differ(mine, its)) if agrees_within else (),
        tuple(origin for name in (*hidden, row.call.module) for origin in _origins(name, target)),
    )


def _nearest_there(row: Compared, rows: Sequence[Compared]) -> tuple[str, ...]:
    """What the source's module is computed from, under the target's names."""
    above = [one for one in rows if row.other.before & one.other.mark]
    last = [one for one in above if not any(o.other.made & one.other.mark for o in above if o is not one)]
    return tuple(dict.fromkeys(one.call.module for one in last))


def _origins(module: str, target: Loaded) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """What the plan says of a module's own tensors; of all below it, if it has none."""
    before = f"{module}." if module else ""
    below = [key for key in target.origins if key.startswith(before)]
    own = [key for key in below if "." not in key[len(before) :]]
    for key in own or below:
        yield key, target.origins[key], target.steps[key].why


def _skipped(target: Loaded, both: Both, rows: Sequence[Compared]) -> Iterator[Skipped]:
    """Modules with weights of the source that were not compared, and why."""
    ran = {call.module for call in both.run.calls}
    behind = {row.call.module: row for row in rows if row.verdict == "behind"}
    compared = {row.call.module for row in rows}
    own: dict[str, set[str]] = {}
    for key, origins in target.origins.items():
        own.setdefault(key.rpartition(".")[0], set()).update(one.rpartition(".")[0] for one in origins)
    for module, sources in own.items():
        if module in behind:
            first = _first_unfilled(behind[module].call, target, both.run)
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


def _notes(both: Both) -> Iterator[Note]:
    for setting in dict.fromkeys((one.name, one.mine, one.its) for one in both.aligned):
        names = tuple(one.module for one in both.aligned if (one.name, one.mine, one.its) == setting)
        some = names[0] if len(names) == 1 else f"{len(names):,} modules ({names[0]}, ...)"
        yield Note(
            f"{setting[0]} of {some} is {setting[1]}, in the source's {setting[2]}",
            "the probe took the source's, to see what else differs",
            names,
        )
    varied = tuple(sorted(both.source.varied | both.target.varied))
    if varied:
        some = "1 source tensor holds" if len(varied) == 1 else f"{len(varied):,} source tensors hold"
        yield Note(
            f"{some} one number throughout or next to nothing, and {'was' if len(varied) == 1 else 'were'} varied",
            "the same in both models: an exchange would not show otherwise",
            varied,
        )
