"""What fills each tensor of a target: a source tensor as it is, cast or fitted; or what the model has itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from ckptool.core.casting import cast
from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.errors import CkptError, UsageError
from ckptool.core.keys import Pattern
from ckptool.core.ops import Cast, made
from ckptool.core.plan import Apply, Op, Problem, Run, Source, Step, Value, sources_of
from ckptool.core.reasons import Init, LeftToModel, OwnTensor, Tie
from ckptool.core.spec import DTYPES, TensorSpec
from ckptool.fits import Fitting, default_fit, fit_op, is_head, named_grid
from ckptool.fits.args import Fit
from ckptool.models.entries import Entry, Filled, Mismatch
from ckptool.models.own_init import Blended, ModelInit
from ckptool.models.target import stated_grids

if TYPE_CHECKING:
    import numpy as np

    from ckptool.models import Target

    Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(slots=True)
class Filling:
    """A target filled.

    Attributes:
        entries: every tensor of the target, in its order.
        steps: every tensor of the output, in the same order.
        loaded: those that the source has a part in.
    """

    entries: tuple[Entry, ...]
    steps: tuple[Step, ...]
    loaded: tuple[Step, ...]
    problems: tuple[Problem, ...] = ()
    notes: tuple[Note, ...] = ()


def fill(
    source: Checkpoint,
    target: Target,
    mapped: Mapping[str, Step],
    mismatch: Mismatch,
    fits: Sequence[tuple[Pattern, Fit]],
    inits: Sequence[tuple[str, str]],
    initial: ModelInit,
    *,
    is_complete: bool = True,
) -> Filling:
    """Decide for each target tensor what fills it.

    Args:
        source: the checkpoint.
        target: the model.
        mapped: the source's tensors under the target's names.
        mismatch: for tensors of another shape that no fit is named for.
        fits: the first pattern that means a target key says how it is fitted.
        inits: the first pattern that means a target key says what it gets if the source has nothing for it.
        initial: the model's own tensors.
        is_complete: what nothing fills gets a step of the model's own.

    Raises:
        UsageError: an init is none.
    """
    chooser = _Chooser(source, target, mismatch, fits, initial)
    entries, steps = chooser.choose(mapped)
    notes = [*_tie(target, entries, steps, source), *_head_notes([key for key in chooser.heads if key not in steps])]
    loaded = dict(steps)
    patterns = [(Pattern.parse(text), how) for text, how in inits]
    for key, entry in entries.items():
        if key in steps:
            continue
        if is_complete:
            steps[key] = _own(entry, patterns, steps, target, initial)
        entries[key] = replace(entry, reason=steps[key].reason if is_complete else LeftToModel())
    for (text, how), (pattern, _) in zip(inits, patterns, strict=True):
        made(how, TensorSpec("", "float32", ()))  # an unknown one is refused, also where it has no effect
        if all(key in loaded for key in pattern.select(target.specs)):
            notes.append(
                Note(f'init "{text}={how}" has no effect: the source fills what it means', "--drop them first")
            )
    return Filling(
        tuple(entries.values()),
        tuple(steps[key] for key in target.specs if key in steps),
        tuple(loaded[key] for key in target.specs if key in loaded),
        tuple(chooser.problems),
        tuple(notes),
    )


def fitted(fit: Fit, spec: TensorSpec, wanted: TensorSpec, initial: ModelInit) -> Op:
    """The op of a fit; where it keeps elements of the target's own tensor, with that at hand."""
    op = fit_op(fit, spec, wanted, seed=initial.seed)
    return Blended(op, initial.op(wanted)) if op.needs_initial else op


@dataclass(frozen=True, slots=True)
class Number:
    """Integers as floats, which a `Cast` leaves alone: what `copy_` does when a model has floats in their place."""

    dtype: str

    is_elementwise = True

    @property
    def text(self) -> str:
        return DTYPES[self.dtype].short

    def result(self, args: Sequence[TensorSpec]) -> TensorSpec:
        return TensorSpec(args[0].key, self.dtype, args[0].shape)

    def runs(self, args: Sequence[TensorSpec]) -> list[Run] | None:
        return None

    def compute(self, args: Sequence[Array]) -> Array:
        return cast(args[0], self.dtype)


_NUMBERS = {"float", "int", "uint", "bool"}


def _converted(value: Value, found: str, wanted: str) -> Value | None:
    """A value in another dtype; None where torch would not convert, or something would be lost that is no rounding."""
    if found == wanted:
        return value
    a, b = DTYPES[found], DTYPES[wanted]
    if not {a.kind, b.kind} <= _NUMBERS or not (a.is_castable and b.is_castable):
        return None
    return Apply(Number(wanted) if b.kind == "float" and a.kind != "float" else Cast(wanted), (value,))


_COMPUTED = {"relative_position_index", "attn_mask", "relative_coords_table", "position_ids", "inv_freq"}
"""Names of buffers that models compute from their sizes, for targets that are checkpoints."""


@dataclass(slots=True)
class _Chooser:
    source: Checkpoint
    target: Target
    mismatch: Mismatch
    fits: Sequence[tuple[Pattern, Fit]]
    initial: ModelInit
    problems: list[Problem] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    last_layer: str = ""
    grids: Sequence[tuple[int, int]] = ()

    def __post_init__(self) -> None:
        if self.mismatch == "fit":
            self.grids = stated_grids(self.target)
        wide = [key for key, spec in self.target.specs.items() if len(spec.shape) > 1]
        self.last_layer = wide[-1].rpartition(".")[0] if wide else ""

    def choose(self, mapped: Mapping[str, Step]) -> tuple[dict[str, Entry], dict[str, Step]]:
        """An entry for each target tensor, and a step for each that a source tensor fills."""
        entries: dict[str, Entry] = {}
        steps: dict[str, Step] = {}
        for key, spec in self.target.specs.items():
            kind = self.target.kinds.get(key, "")
            if key not in mapped:
                entries[key] = Entry(spec, Filled.MISSING, kind=kind)
                continue
            entry, value = self._chosen(spec, mapped[key], kind)
            entries[key] = entry
            if value is not None:
                steps[key] = Step(spec, value, entry.reason)
        return entries, steps

    def _chosen(self, spec: TensorSpec, step: Step, kind: str) -> tuple[Entry, Value | None]:
        sources = tuple(dict.fromkeys(origin.key for origin in sources_of(step.value)))
        is_fitted = len(sources) == 1 and any(isinstance(op, Fitting) for op in _ops(step.value))  # by a recipe's rule
        found = self.source.spec(sources[0]) if is_fitted else step.target
        entry = Entry(spec, Filled.MISMATCHED, 0, sources, found.short, step.reason, kind=kind)
        if self._is_special(step.value, spec.key):
            return entry, None
        fit = self._fit(spec, step.target)
        if fit is None and self.mismatch == "fit" and self._is_left(entry, step.target):
            return entry, None
        value: Value | None = step.value
        if fit is not None:
            value = self._fitted(fit, step, spec)
        elif step.target.shape != spec.shape:
            value = None
            self._refuse(spec, step.target)
        if value is not None:
            value = _converted(value, step.target.dtype, spec.dtype)
        if value is None:
            return entry, None
        fits = [op for op in _ops(value) if isinstance(op, Fitting)]
        status = Filled.FITTED if fits else Filled.CAST if step.target.dtype != spec.dtype else Filled.FILLED
        covered = min([spec.elements, *(op.covered for op in fits)])
        return replace(entry, status=status, covered=covered, fit=fit.text if fit else ""), value

    def _fitted(self, fit: Fit, step: Step, spec: TensorSpec) -> Value | None:
        """A step's value made to fit; None and a problem if the method is not meant for such shapes."""
        try:
            return Apply(fitted(fit, step.target, spec, self.initial), (step.value,))
        except CkptError as error:
            self.problems.append(Problem(error.message, error.hint or "", (spec.key,)))
            return None

    def _fit(self, spec: TensorSpec, found: TensorSpec) -> Fit | None:
        """The fit that is named for a tensor, or the usual one where that was asked for."""
        named = next((fit for pattern, fit in self.fits if pattern.matches(spec.key)), None)
        if named is not None:
            return named if named.moves or found.shape != spec.shape else None
        if self.mismatch != "fit" or found.shape == spec.shape:
            return None
        return default_fit(spec.key, found, spec, self.grids)

    def _is_left(self, entry: Entry, found: TensorSpec) -> bool:
        """True for what is never made to fit: heads of other classes, and buffers that the model makes itself."""
        spec = entry.spec
        if found.shape == spec.shape:
            return False
        if entry.is_harmless or (not entry.kind and spec.key.rpartition(".")[2] in _COMPUTED):
            return True
        if is_head(spec.key, found, spec, is_last=spec.key.rpartition(".")[0] == self.last_layer):
            self.heads.append(spec.key)
            return True
        return False

    def _refuse(self, spec: TensorSpec, found: TensorSpec) -> None:
        if self.mismatch != "skip":
            usual = "; no fit is usual for such a tensor" if self.mismatch == "fit" else ""
            self.problems.append(
                Problem(
                    f"{spec.key} is {found.short} in the source and {spec.short} in the model{usual}",
                    f"{named_grid(spec.key, found, spec)}, --drop leaves it to the model",
                    (spec.key,),
                )
            )

    def _is_special(self, value: Value, key: str) -> bool:
        """True for a sparse, quantized or meta tensor, unless the target is a checkpoint that has the same."""
        layouts = {self.source[origin.key].layout for origin in sources_of(value)} - {"strided"}
        own = self.target.checkpoint
        return bool(layouts) and not (own is not None and isinstance(value, Source) and {own[key].layout} == layouts)


def _ops(value: Value) -> Iterator[Op]:
    """The ops of a value, those inside blends too."""
    stack = [value]
    while stack:
        top = stack.pop()
        if isinstance(top, Apply):
            yield top.op
            if isinstance(top.op, Blended):
                yield top.op.op
            stack.extend(top.args)


def _head_notes(keys: Sequence[str]) -> Iterator[Note]:
    """That heads are left to the model, and what takes their rows."""
    modules = dict.fromkeys(key.rpartition(".")[0] or key for key in keys)
    if modules:
        names, first = ", ".join(modules), next(iter(modules))
        yield Note(
            f"{names}: a head of another number of classes is not fitted",
            f"""--fit "{first}.*=rows(fill='keep')" takes its rows by number all the same""",
            tuple(keys),
        )


# ---------------------------------------------------------------------------------------------- ties


def _tie(target: Target, entries: dict[str, Entry], steps: dict[str, Step], source: Checkpoint) -> Iterator[Note]:
    """Keys that are one tensor in the model get one value: as `load_state_dict` has it, the last that is loaded."""
    for group in target.ties:
        filled = [key for key in group if key in steps]
        if not filled:
            continue
        last = filled[-1]
        if len({_place(steps[key].value, source) for key in filled}) > 1:
            names = ", ".join(group)
            yield Note(f"{names} are one tensor in the model and several in the source", f"{last} counts, as in torch")
        first = group[0]
        value = steps[last].value
        for key in group:
            if key not in steps:
                entry = entries[key]
                entries[key] = replace(entry, reason=Tie(last))
            entries[key] = _as_tied(entries[key], entries[last])
            steps[key] = Step(target.specs[key], value, entries[key].reason, tied_to=None if key == first else first)


def _as_tied(entry: Entry, owner: Entry) -> Entry:
    """An entry as loaded as the one whose tensor it shares."""
    if owner.status is Filled.FITTED or not entry.is_filled:
        status = Filled.FILLED if owner.status is Filled.CAST else owner.status
        found = owner.found if owner.status is Filled.FITTED else entry.found
        entry = replace(entry, status=status, found=found)
    return replace(entry, covered=owner.covered)


def _place(value: Value, source: Checkpoint) -> object:
    """What two values have in common if they are one tensor under two names."""
    if isinstance(value, Apply):
        op = value.op.text if isinstance(value.op, (Fitting, Blended)) else value.op  # a fit names its target
        return op, tuple(_place(arg, source) for arg in value.args)
    tensor = source[value.key] if value.input == 0 else None
    return (tensor.pieces, tensor.shape, tensor.dtype) if tensor is not None and tensor.pieces else value


# ---------------------------------------------------------------------------------------------- what nothing fills


def _own(
    entry: Entry, inits: Sequence[tuple[Pattern, str]], steps: Mapping[str, Step], target: Target, initial: ModelInit
) -> Step:
    """What a tensor gets that nothing fills: what an init says, or what the model has itself."""
    first = next((group[0] for group in target.ties if entry.key in group), entry.key)
    if first != entry.key and first in steps:
        return Step(entry.spec, steps[first].value, Tie(first), tied_to=first)
    how = next((how for pattern, how in inits if pattern.matches(entry.key)), "keep")
    if how.startswith("copy:"):
        origin = steps.get(how[5:])
        if origin is None or origin.target.shape != entry.spec.shape:
            hint = "the source must fill it, and it must have the same shape"
            raise UsageError(f'init "{how}": {how[5:]} cannot be copied to {entry.key}', hint=hint)
        return Step(entry.spec, origin.value, Init(how))
    op = made(how, entry.spec, initial.seed)
    if op is not None:
        return Step(entry.spec, Apply(op, ()), Init(how))
    return Step(entry.spec, initial.value(entry.spec), _own_tensor(entry, target, initial))


def _own_tensor(entry: Entry, target: Target, initial: ModelInit) -> OwnTensor:
    if target.checkpoint is not None:
        return OwnTensor("checkpoint")
    if entry.is_counter:
        return OwnTensor("counter")
    if entry.is_statistic:
        return OwnTensor("statistics")
    return OwnTensor("buffer") if entry.kind == "buffer" else OwnTensor("init", initial.seed)
