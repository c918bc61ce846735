from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ckptool.commands.checks import Rule
from ckptool.commands.checks.case import Case, Found, asked_by, columns
from ckptool.commands.checks.settings import At, Key, PolicyReader, Setting
from ckptool.core.counts import many
from ckptool.core.errors import NoMatchError
from ckptool.core.shell import shell_quote
from ckptool.values.delta import Tolerance

if TYPE_CHECKING:
    from ckptool.commands.diff.result import Change


@dataclass(frozen=True, slots=True)
class Drift:
    """``drift = {from = "base.pth", keys = "backbone.*", rel = 0.0}``.

    Attributes:
        base: the checkpoint compared with, as the policy has it.
        keys: patterns of the tensors that must not move.
        rel: how far they may: ||new - base|| / ||base||.
    """

    base: str
    keys: tuple[str, ...] = ("*",)
    rel: float = 0.0


def _drifts(reader: PolicyReader, value: Any, at: At) -> tuple[Setting[Drift], ...]:
    rows = value if isinstance(value, list) else [value]
    return tuple(
        _drift(reader, row, (*at, number) if isinstance(value, list) else at) for number, row in enumerate(rows)
    )


def _drift(reader: PolicyReader, value: Any, at: At) -> Setting[Drift]:
    table = reader.table(value, at)
    for key in table:
        if key not in ("from", "keys", "rel"):
            reader.refuse(f'"{key}" is not a part of drift', (*at, key), "it has from, keys and rel")
    if "from" not in table:
        reader.refuse("drift without from", at, 'from = "base.pth" says what it may not move away from')
    keys = reader.texts(table.get("keys", "*"), (*at, "keys"))
    for key in keys:
        reader.pattern(key, (*at, "keys"))
    rel = table.get("rel", 0.0)
    if not isinstance(rel, int | float) or isinstance(rel, bool) or not 0 <= rel < float("inf"):
        reader.refuse(f"rel is {rel}", (*at, "rel"), "rel = 0.0, or a bound on |new - base| / |base|")
    return Setting(Drift(reader.text(table["from"], (*at, "from")), keys, float(rel)), reader.place(at))


DRIFT: Key[tuple[Setting[Drift], ...]] = Key("drift", _drifts)
RULE = Rule("drift", needs=(DRIFT,), allows=("drift",), reads=True, shares=True, order=130)


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
    setting = case.settings.get(DRIFT)
    for asked in setting.value if setting else ():
        yield from _moved(case, asked)


def _moved(case: Case, asked: Setting[Drift]) -> Iterator[Found]:
    from ckptool.commands.diff.comparison import compare

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
    from ckptool.commands.diff.result import Status

    if change.status is Status.CAST:
        return change.delta is not None and change.delta.rel is not None and change.delta.rel <= rel
    return change.status is Status.SAME


def _row(change: Change) -> tuple[str, ...]:
    if change.delta is not None and change.delta.rel is not None:
        return change.key, change.new.spec.short if change.new else "", f"rel {change.delta.rel:.1e}"
    if change.old is not None and change.new is not None:
        return change.key, change.new.spec.short, f"was {change.old.spec.short}"
    return change.key, "", change.status.value
