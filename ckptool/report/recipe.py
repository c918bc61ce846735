"""A comparison as a recipe: the renames and drops that turn the old keys into the new ones, ready for remap."""

from __future__ import annotations

from collections.abc import Iterator

from ckptool.commands.diff.result import Changes, Diff, Status
from ckptool.core.counts import many
from ckptool.recipes.renaming import drop_rules, rename_rules, unsayable
from ckptool.report.escape import terminal


def diff_recipe(diff: Diff, old_name: str, new_name: str) -> Iterator[str]:
    """TOML for ``ckptool remap OLD -r FILE``. What a recipe cannot do alone (added, reshaped) stands in comments."""
    yield f"# {terminal(old_name)} -> {terminal(new_name)}\n"
    yield "ckptool = 1\n"
    rules = list(_rules(diff))
    if rules:
        yield "rules = '''\n"
        yield from (f"{rule}\n" for rule in rules)
        yield "'''\n"
    else:
        yield "# the keys are the same: there is nothing to rename or to drop\n"
    yield from _comments(diff)


def _rules(diff: Diff) -> Iterator[str]:
    """Three stages: the wrapper off, what differs, the other wrapper on."""
    stages: list[list[str]] = []
    put_on = _put_on(diff)
    if diff.old_prefix:
        stages.append([f"{diff.old_prefix} ->"])
    pairs = {old: new for old, new in _pairs(diff).items() if old != new}
    dropped = diff.changes.where(Status.REMOVED).keys
    kept = [old for old, new in _pairs(diff).items() if old == new]
    stages.append([*drop_rules(dropped, [*pairs, *kept]), *rename_rules(pairs, [*kept, *dropped])])
    if put_on:
        stages.append([f"{{k**}} -> {put_on}{{k**}}"])
    for at, stage in enumerate(stage for stage in stages if stage):
        if at:
            yield "---"
        yield from stage


def _put_on(diff: Diff) -> str:
    """The prefix that the last stage puts before every key; one that not all new keys have is a rename."""
    return diff.new_prefix if all(key.startswith(diff.new_prefix) for key in diff.new) else ""


def _pairs(diff: Diff) -> dict[str, str]:
    """Old key -> new key of every tensor that both have, without what other stages take off and put on."""
    put_on = _put_on(diff)
    return {
        change.old.key.removeprefix(diff.old_prefix): change.new.key.removeprefix(put_on)
        for change in diff.changes
        if change.old is not None and change.new is not None
    }


def _comments(diff: Diff) -> Iterator[str]:
    said = {
        Status.ADDED: "only in the new file; a recipe cannot make them without a target",
        Status.RESHAPED: "of another shape; they need a layout or a fit",
        Status.CAST: "of another dtype; add a step such as | f32",
        Status.CHANGED: "with other values; renaming does not change them",
    }
    for status, text in said.items():
        changes = diff.changes.where(status)
        if changes:
            yield f"# {many(len(changes), 'tensor')} {text}: {_some(changes)}\n"
    odd = unsayable({key for pair in _pairs(diff).items() if pair[0] != pair[1] for key in pair})
    if odd:
        named = ", ".join(terminal(key, 60) for key in odd[:5])
        yield f"# {many(len(odd), 'key')} that no rule can name: {named}\n"


def _some(changes: Changes) -> str:
    shown = ", ".join(terminal(key, 60) for key in changes.keys[:4])
    return f"{shown}, ..." if len(changes) > 4 else shown
