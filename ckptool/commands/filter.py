"""filter: choose tensors by their keys, and cast them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ckptool.commands.beside.versions import carried_versions
from ckptool.core.beside import Beside, Fate
from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.counts import many
from ckptool.core.dtypes import DTYPES, dtypes_meant
from ckptool.core.errors import UsageError
from ckptool.core.keys import Pattern, choose
from ckptool.core.near_miss import require_match
from ckptool.core.ops import Cast
from ckptool.core.plan import Apply, Command, Copies, Dropped, Plan, Source, Step, Value
from ckptool.core.reasons import ByOption, Kept, NotKept, Reason
from ckptool.core.spec import Form, TensorSpec
from ckptool.core.tensor import Tensor
from ckptool.core.ties import with_recorded_ties


def plan_filter(
    checkpoint: Checkpoint,
    choices: Sequence[tuple[str, str]] = (),
    *,
    dtype: str | None = None,
    only_weights: bool = False,
) -> Plan:
    """Plan an output that holds some of a checkpoint's tensors.

    Args:
        checkpoint: the input.
        choices: ("keep" | "drop", pattern), in order; the later wins. If the first is a keep, all else is dropped.
        dtype: a float dtype that float tensors are cast to; integers are never cast.
        only_weights: leave everything but the weights behind (optimizer, epoch, ...).

    Raises:
        UsageError: if a pattern matches nothing, a choice is malformed, or the dtype is none.

    Example:
        >>> import ckptool
        >>> plan = plan_filter(ckptool.open("fixtures/resnet18.pth"), [("drop", "fc.*")])
        >>> len(plan.steps), len(plan.dropped)
        (120, 2)
    """
    checkpoint = with_recorded_ties(checkpoint)
    columns = checkpoint.columns
    keys = list(checkpoint) if columns is None else columns.names
    _require_pairs(choices)
    actions = [(verb == "keep", Pattern.parse(text)) for verb, text in choices]
    entries: list[str] = []
    selected: list[list[str]] = []
    for (verb, _), (_, pattern) in zip(choices, actions, strict=True):
        named = _entries_named(pattern, checkpoint) if verb == "drop" else []
        entries += named
        where = checkpoint.path
        selected.append(pattern.select(keys) if named else require_match(pattern, keys, f"--{verb}", where))
    wanted = float_dtype(dtype)
    chosen = choose(keys, actions, selected) if actions else {}
    kept = [key for key, (is_kept, _) in chosen.items() if is_kept] if actions else keys
    forms = list(checkpoint.forms(kept))
    reasons: dict[Pattern | None, Reason] = {None: NotKept()}
    reasons |= {pattern: ByOption("--drop", pattern.text) for _, pattern in actions}
    dropped = [Dropped(Source(0, key), reasons[why]) for key, (is_kept, why) in chosen.items() if not is_kept]
    steps = _steps(checkpoint, kept, forms, wanted)
    same = zip(kept, kept, strict=True)
    versions = checkpoint.module_versions
    return Plan(
        (checkpoint,),
        steps,
        tuple(dropped),
        frame=None if only_weights else 0,
        beside=tuple(left_out(checkpoint)) if only_weights else (),
        left_entries=() if only_weights else tuple(dict.fromkeys(entries)),
        notes=(*module_notes(checkpoint), *_not_cast(steps, wanted)),
        metadata=checkpoint.metadata,
        module_versions=None if versions is None else carried_versions(versions, same, checkpoint),
        command=Command("filter"),
        casts=wanted is not None,
    )


def _require_pairs(choices: Sequence[tuple[str, str]]) -> None:
    for choice in choices:
        if isinstance(choice, str) or len(choice) != 2 or choice[0] not in ("keep", "drop"):
            raise UsageError(f"{choice!r} is not a choice", hint='("keep", PATTERN) or ("drop", PATTERN)')


def _not_cast(steps: Sequence[Step], dtype: str | None) -> Iterator[Note]:
    """Floats that ``--dtype`` leaves as they are: several of them share a byte, and nothing computes with them."""
    if dtype is None:
        return
    if isinstance(steps, Copies) and not any(_stays(form.dtype, dtype) for form in steps.form_counts):
        return
    left = [step.target for step in steps if _stays(step.target.dtype, dtype) and step.is_copy]
    keys = tuple(spec.key for spec in left)
    if keys:
        found = ", ".join(sorted({DTYPES[spec.dtype].short for spec in left}))
        yield Note(f"{many(len(keys), 'tensor')} not cast: {found} can be copied only", "", keys, "warning")


def _steps(checkpoint: Checkpoint, keys: list[str], forms: list[Form], dtype: str | None) -> Sequence[Step]:
    """The tensors of these keys, cast to a float dtype if one is given."""
    unchanged = Kept()
    cast = ByOption("--dtype", dtype or "")
    if checkpoint.columns is not None:
        return cast_copies(Copies(0, keys, keys, forms, [unchanged] * len(keys)), dtype, cast)
    steps: list[Step] = []
    for key in keys:
        source = Source(0, key)
        value, spec = cast_value(source, checkpoint[key], dtype)
        steps.append(Step(spec, value, unchanged if value is source else cast))
    return tuple(steps)


def _entries_named(pattern: Pattern, checkpoint: Checkpoint) -> list[str]:
    """What a --drop means beside the weights: by its whole name, or by a pattern that means no tensor."""
    if not checkpoint.extras:
        return []
    inside = f"{checkpoint.selection.name}."
    names = {extra.name: extra.name.removeprefix(inside) for extra in checkpoint.extras}
    exact = [name for name, short in names.items() if pattern.text in (name, short)]
    if exact or pattern.select(list(checkpoint)):
        return exact
    return [name for name, short in names.items() if pattern.matches(name) or pattern.matches(short)]


def left_out(checkpoint: Checkpoint) -> Iterator[Beside]:
    """What ``--only-weights`` leaves out."""
    return (Beside(extra.name, Fate.DROPPED, ByOption("--only-weights")) for extra in checkpoint.extras)


def module_notes(checkpoint: Checkpoint) -> tuple[Note, ...]:
    """What becomes of a pickled module, said aloud: its class is not written again."""
    if not getattr(checkpoint.tree, "is_module", False):
        return ()
    return (Note("the module is written as its state_dict", "build the module in code, then load_state_dict"),)


def float_dtype(name: str | None) -> str | None:
    """The long name of a float dtype given by any of its names.

    Raises:
        UsageError: if it is not a float dtype, or may be several.
    """
    if name is None:
        return None
    meant = [dtype for dtype in dtypes_meant(name) if dtype.kind == "float" and dtype.is_castable]
    if len(meant) == 1:
        return meant[0].name
    if meant:
        raise UsageError(f'"{name}" means several dtypes', hint=f"one of {', '.join(dtype.short for dtype in meant)}")
    floats = ", ".join(dtype.short for dtype in DTYPES.values() if dtype.kind == "float" and dtype.is_castable)
    raise UsageError(f'"{name}" is not a float dtype', hint=f"one of {floats}")


def cast_value(value: Value, tensor: Tensor | TensorSpec, dtype: str | None) -> tuple[Value, TensorSpec]:
    """A value cast to a float dtype if it is a float of another one; and its spec then."""
    spec = tensor.spec if isinstance(tensor, Tensor) else tensor
    plain = not isinstance(tensor, Tensor) or tensor.layout == "strided"
    if dtype is None or not _is_cast(spec.dtype, dtype) or not plain:
        return value, spec
    return Apply(Cast(dtype), (value,)), TensorSpec(spec.key, dtype, spec.shape)


def cast_copies(steps: Copies, dtype: str | None, reason: Reason | None = None) -> Copies:
    """The steps with their floats in another dtype."""
    if dtype is None:
        return steps
    made = {form: form.cast(dtype) for form in steps.form_counts if _is_cast(form.dtype, dtype)}
    return steps.cast_to(Cast(dtype), made, reason)


def _stays(old: str, new: str) -> bool:
    """True for a dtype of floats that is not the one asked for."""
    return new != old and DTYPES[old].kind == "float"


def _is_cast(old: str, new: str | None) -> bool:
    """True if a tensor of one dtype is cast where another float dtype is asked for."""
    known = DTYPES[old]
    return new is not None and old != new and known.kind == "float" and known.is_castable
