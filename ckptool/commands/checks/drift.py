from __future__ import annotations

from collections.abc import Iterator

from ckptool.commands.checks.case import Case, Found, asked_by, columns
from ckptool.commands.checks.settings import Drift, Setting
from ckptool.commands.diff.comparison import compare
from ckptool.commands.diff.result import Change, Status
from ckptool.core.counts import many
from ckptool.core.errors import NoMatchError
from ckptool.core.shell import shell_quote
from ckptool.values.delta import Tolerance


def drift(case: Case) -> Iterator[Found]:
    """A part that must not move has moved away from another checkpoint.

    Found: tensors that `keys` means and that differ from those of the checkpoint `from`: by more than `rel`, which is
    ||new - base|| / ||base||, in shape, or by being in one of the two only. `rel = 0.0` asks for equal bytes. A wrapper
    prefix on one side ("module.") is seen through.

    Why: "the backbone is frozen" is easily said. An optimizer that was given all parameters, weight decay, or BatchNorm
    in training mode move it all the same.

    What to do: ckptool diff BASE FILE --only 'backbone.*' shows how far. Freeze with requires_grad_(False) and eval();
    BatchNorm statistics that may move go into the allow-list.

    Policy: it runs where `drift` is set: one table or a list of them.

        drift = {from = "resnet18.pth", keys = "{conv1,bn1}.*", rel = 0.0}
        allow.drift = ["*.num_batches_tracked"]
    """
    for asked in case.settings.drift.value if case.settings.drift else ():
        yield from _moved(case, asked)


def _moved(case: Case, asked: Setting[Drift]) -> Iterator[Found]:
    drift, place = asked.value, asked.place
    with asked_by(asked):
        base = case.bases.checkpoint(case.path_of(drift.base))
    tolerance = Tolerance(rel=drift.rel) if drift.rel else Tolerance()
    try:
        diff = compare(base, case.checkpoint, only=drift.keys, tolerance=tolerance, threads=case.threads)
    except NoMatchError as error:
        yield Found(error.given_as("drift.keys").message, help=error.hint or "", place=place, short="no keys")
        return
    moved = [change for change in diff.changes.differing if not _is_same(change, drift.rel)]
    moved = [change for change in moved if not case.allows("drift", change.key)]
    if moved:
        of = f"{len(moved):,} of {many(len(diff.changes), 'tensor')}"
        only = " ".join(f"--only {shell_quote(key)}" for key in drift.keys)
        yield Found(
            f"{of} moved away from {drift.base}{f' by more than {drift.rel:g}' if drift.rel else ''}",
            tuple(change.key for change in moved),
            columns(_row(change) for change in moved),
            f"ckptool diff {shell_quote(case.path_of(drift.base))} {case.word} {only}",
            place,
            short=f"{len(moved):,} moved",
        )


def _is_same(change: Change, rel: float) -> bool:
    if change.status is Status.CAST:
        return change.delta is not None and change.delta.rel is not None and change.delta.rel <= rel
    return change.status is Status.SAME


def _row(change: Change) -> tuple[str, ...]:
    if change.delta is not None and change.delta.rel is not None:
        return change.key, change.new.spec.short if change.new else "", f"rel {change.delta.rel:.1e}"
    if change.old is not None and change.new is not None:
        return change.key, change.new.spec.short, f"was {change.old.spec.short}"
    return change.key, "", change.status.value
