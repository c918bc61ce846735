from __future__ import annotations

from collections.abc import Iterator

from ckptool.commands.checks import Rule
from ckptool.commands.checks.case import Case, Found, columns
from ckptool.commands.checks.lock_file import Locked, Section
from ckptool.commands.checks.settings import Key, PolicyReader

LOCK: Key[str] = Key("lock", PolicyReader.text)
RULE = Rule("lock", needs=(LOCK,), allows=("lock",), reads=True, order=140)


def lock(case: Case) -> Iterator[Found]:
    """The checkpoint is not the one that the lock file was written for.

    Found: keys that were added, removed, have another shape or dtype, or other values than the lock file says; and
    checkpoints that it does not mention. The lock is a text file in the repository, a line for each tensor: key, dtype
    and shape, SHA-256 of the values. The digests do not depend on the format, so converting a file changes nothing.

    Why: weights are binary and often stored elsewhere, and a review does not see that they changed. It sees the lock.

    What to do: where the change is meant, ckptool check --update-lock FILE, and commit the lock file.

    Policy: it runs where `lock` is set. The file need not exist before the first --update-lock.

        lock = "weights.lock"
        allow.lock = ["*.num_batches_tracked"]
    """
    setting = case.settings.get(LOCK)
    if setting is None:
        return
    if case.locked is None:
        text = f"{setting.value} does not mention this checkpoint"
        yield Found(text, help=f"ckptool check --update-lock {case.word}", place=setting.place, short="not locked")
        return
    rows = sorted(_differences(case.locked, section_of(case)), key=lambda row: row[0])
    rows = [row for row in rows if not case.allows("lock", row[0])]
    if rows:
        counts = {what: sum(row[1] == what for row in rows) for what in ("changed", "added", "removed")}
        said = ", ".join(f"{number:,} {what}" for what, number in counts.items() if number)
        yield Found(
            f"not what {setting.value} says: {said}",
            tuple(row[0] for row in rows),
            columns(rows),
            f"if it is meant: ckptool check --update-lock {case.word}",
            setting.place,
            short=said,
        )


def section_of(case: Case) -> dict[str, Locked]:
    """What the lock file is to say of the checkpoint."""
    return {
        key: Locked(tensor.spec.short, case.values[key].digest if key in case.values else "-")
        for key, tensor in case.checkpoint.items()
    }


def _differences(locked: Section, found: Section) -> Iterator[tuple[str, str, str]]:
    for key in [*found, *(key for key in locked if key not in found)]:
        old, new = locked.get(key), found.get(key)
        if new is None:
            yield key, "removed", locked[key].spec
        elif old is None:
            yield key, "added", new.spec
        elif old != new:
            yield key, "changed", "other values" if old.spec == new.spec else f"{old.spec} -> {new.spec}"
