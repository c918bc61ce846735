"""probe: one input through the source's model and the target, and the first module whose output differs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from ckptool.core.checkpoint import Note
from ckptool.core.reasons import Reason
from ckptool.models import Target
from ckptool.models.probing.building import Loaded
from ckptool.models.probing.inputs import Shown, inputs_for
from ckptool.models.probing.judging import Compared, judge, largest, marks_of, nearest
from ckptool.models.probing.recording import Call, Run
from ckptool.models.probing.report import Divergence, ProbeReport, Skipped
from ckptool.models.probing.running import Both, run_both, side_of
from ckptool.models.probing.settings import settings_that_differ


def probe_models(
    source_model: Target,
    target_model: Target,
    load_source: Callable[[], Loaded],
    load_target: Callable[[], Loaded],
    numbers: tuple[Sequence[int] | None, int, float | None],
) -> ProbeReport:
    """Run one input through two models; see `ckptool.commands.probing.probe`.

    Args:
        source_model: the model that the source was saved from.
        target_model: the model that was loaded into.
        load_source: loads the first one.
        load_target: loads the other one.
        numbers: the input's shape, the seed, and the largest difference that may be rounding.
    """
    begun = time.perf_counter()
    shape, seed, tolerance = numbers
    sides = (side_of(source_model, load_source), side_of(target_model, load_target))
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


def _origins(module: str, target: Loaded) -> Iterator[tuple[str, tuple[str, ...], Reason]]:
    """What the plan says of a module's own tensors; of all below it, if it has none."""
    before = f"{module}." if module else ""
    below = [key for key in target.origins if key.startswith(before)]
    own = [key for key in below if "." not in key[len(before) :]]
    for key in own or below:
        yield key, target.origins[key], target.steps[key].reason


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
