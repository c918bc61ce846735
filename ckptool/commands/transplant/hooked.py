"""The source as the model's own loading takes it: what its load hooks rename or compute, as steps of the plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ckptool.commands.beside.versions import carried_versions
from ckptool.commands.transplant.names import Mapped
from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.plan import Apply, Step, sources_of
from ckptool.core.reasons import ByHook
from ckptool.core.spec import TensorSpec

if TYPE_CHECKING:
    from ckptool.models import Target
    from ckptool.models.hooks import Hooked, Loading


@dataclass(frozen=True, slots=True)
class Taken:
    """What the load hooks of a model made of a source.

    Attributes:
        mapped: the source under the target's names, hooks included.
        lost: keys that a hook fills with what cannot be followed.
    """

    mapped: Mapped
    lost: tuple[str, ...] = ()


def through_hooks(
    mapped: Mapped,
    source: Checkpoint,
    target: Target,
    entries: Iterable[str] = (),
    *,
    renamed: bool = False,
    live: bool = False,
) -> Taken:
    """What rules made of a source, as the model's own loading takes it.

    Args:
        mapped: the source under the target's names.
        source: the checkpoint.
        target: the model.
        entries: names of entries that are not tensors.
        renamed: rules or prefixes changed names, so the module versions follow.
        live: the tensors go into the module itself, with no loading in between; else a file is written that torch
            loads, hooks and all, so what a hook would do to it once more is left to the hook.
    """
    if target.module is None:
        return Taken(mapped)
    from ckptool.models.hooks import loading

    specs = {key: step.target for key, step in mapped.steps.items()}
    versions = source.module_versions
    if versions is not None and renamed:
        versions = versions_under(source, mapped.steps.values())
    found = loading(target, specs, versions, tuple(entries))
    if found is None:
        return Taken(mapped)
    changed = {key: value for key, value in found.values.items() if value != key}
    steps, again = _steps(mapped.steps, changed, found), set[str]()
    if changed and not live:
        again = _again(target, {key: step.target for key, step in steps.items()}, changed)
        steps = _steps(mapped.steps, {key: value for key, value in changed.items() if key not in again}, found)
    notes = [*_notes(changed, again)]
    return Taken(replace(mapped, steps=steps, notes=(*mapped.notes, *notes)), tuple(sorted(found.lost)))


def versions_under(source: Checkpoint, steps: Iterable[Step]) -> dict[str, int]:
    """A source's module versions under the names that its tensors got."""
    pairs = [(origin.key, step.target.key) for step in steps for origin in sources_of(step.value)]
    return carried_versions(source.module_versions or {}, pairs, source)


def _steps(old: Mapping[str, Step], changed: Mapping[str, str | Hooked], found: Loading) -> dict[str, Step]:
    """The steps, with those that hooks make in the place of those that they take up."""
    if not changed:
        return dict(old)
    used: set[str] = set()
    made: dict[str, Step] = {}
    for key, value in changed.items():
        if isinstance(value, str):
            step = old[value]
            used.add(value)
            made[key] = Step(TensorSpec(key, step.target.dtype, step.target.shape), step.value, ByHook())
        else:
            names = [spec.key for spec in value.sources]
            used |= set(names)
            made[key] = Step(value.spec, Apply(value, tuple(old[name].value for name in names)), ByHook())
    stays = {key for key, value in found.values.items() if value == key}
    return {key: step for key, step in old.items() if key in stays or key not in used} | made


def _again(target: Target, specs: Mapping[str, TensorSpec], changed: Mapping[str, str | Hooked]) -> set[str]:
    """Keys that a hook would change once more if a file held what it made of them."""
    from ckptool.models.hooks import loading

    found: set[str] = set()
    for versions in (target.versions, None):
        once_more = loading(target, specs, versions)
        if once_more is None:
            return set(changed)
        found |= {key for key in changed if once_more.values.get(key) != key}
    return found


def _notes(changed: Mapping[str, str | Hooked], again: set[str]) -> Iterable[Note]:
    done = [key for key in changed if key not in again]
    if done:
        what = "1 tensor is" if len(done) == 1 else f"{len(done):,} tensors are"
        yield Note(f"{what} taken as a load hook of the model takes them", "load_state_dict does the same", tuple(done))
    if again:
        keys = tuple(sorted(again))
        yield Note(
            f"a load hook of the model changes {keys[0]} whenever it loads",
            "it is written as the hook expects it",
            keys,
        )
