"""What should be said of a merge: inputs that do not line up, numbers that were not averaged, what is left behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ckptool.core.beside import Beside, Fate
from ckptool.core.checkpoint import Checkpoint, Note, input_names
from ckptool.core.keys import strip_wrappers
from ckptool.core.plan import Problem, Step
from ckptool.core.reasons import Reason
from ckptool.core.shell import shell_quote
from ckptool.core.spec import DTYPES, TensorSpec
from ckptool.engine.reading import Reader

_COMPARED = 1 << 20  # bytes of a tensor up to which it is seen whether the inputs agree


@dataclass(frozen=True, slots=True)
class Inputs:
    """The models, and the base behind them."""

    all: tuple[Checkpoint, ...]
    has_base: bool

    @property
    def models(self) -> tuple[Checkpoint, ...]:
        return self.all[:-1] if self.has_base else self.all

    def holding(self, key: str) -> list[int]:
        return [number for number, checkpoint in enumerate(self.all) if key in checkpoint]


def misfit_problem(keys: Sequence[str], inputs: Sequence[Checkpoint]) -> tuple[Problem, ...]:
    """The keys that do not line up, with what each input has of them."""
    if not keys:
        return ()
    names = input_names(inputs)
    lines = [
        f"{key}: "
        + ", ".join(f"{name} {_held(checkpoint, key)}" for name, checkpoint in zip(names, inputs, strict=True))
        for key in keys
    ]
    wrapped = wrapper_notes(inputs)
    hint = "--intersect leaves them out, --union merges the inputs that have them; other names: ckptool remap"
    message = f"{count_of(keys, 'key')} {'does' if len(keys) == 1 else 'do'} not line up: {lines[0]}"
    return (Problem(message, wrapped[0].hint if wrapped else hint, tuple(lines)),)


def _held(checkpoint: Checkpoint, key: str) -> str:
    return checkpoint[key].spec.short if key in checkpoint else "absent"


def wrapper_notes(inputs: Sequence[Checkpoint]) -> list[Note]:
    """A word where keys would line up if the names of wrappers were not in them."""
    notes: list[Note] = []
    for checkpoint in inputs:
        others = {key for other in inputs if other is not checkpoint for key in other}
        alone = [key for key in checkpoint if key not in others]
        apart = [key for key in alone if (plain := strip_wrappers(key)) != key and plain in others]
        if apart:
            notes.append(
                Note(
                    f"{count_of(apart, 'key')} of {checkpoint.path.name} are in the others "
                    f"without the names of wrappers: {apart[0]}",
                    f"ckptool remap {shell_quote(checkpoint.path)} -r strip-wrappers "
                    f"-o {shell_quote('plain' + checkpoint.path.suffix)}",
                    tuple(apart),
                    "warning",
                )
            )
    return notes


def mixing_notes(steps: Sequence[Step], inputs: Inputs) -> Iterator[Note]:
    averaged = tuple(step.target.key for step in steps if not step.is_copy)
    several = tuple(
        key for key in averaged if len({inputs.all[number][key].dtype for number in inputs.holding(key)}) > 1
    )
    if several:
        yield Note(
            f"{count_of(several, 'tensor')} of more than one dtype among the inputs; the result has the first input's",
            "--dtype says another",
            several,
        )
    with Reader() as reader:
        differing = tuple(step.target.key for step in steps if step.is_copy and _differs(step.target, inputs, reader))
    if differing:
        verb = "differs" if len(differing) == 1 else "differ"
        yield Note(
            f"{count_of(differing, 'integer tensor')} {verb}; kept from {inputs.all[0].path.name}",
            "",
            differing,
        )


def _differs(spec: TensorSpec, inputs: Inputs, reader: Reader) -> bool:
    """True if a tensor that is no float, and therefore copied, is not the same in all models that have it."""
    tensors = [model[spec.key] for model in inputs.models if spec.key in model]
    if DTYPES[spec.dtype].kind == "float" or len(tensors) < 2:
        return False
    if len({tensor.spec for tensor in tensors}) > 1:
        return True
    if spec.nbytes > _COMPARED:
        return False
    first, *others = (reader.read_bytes(tensor) for tensor in tensors)
    return any(other != first for other in others)


def not_taken(inputs: Sequence[Checkpoint], reason: Reason, *, first: int = 0) -> Iterator[Beside]:
    """What the inputs, from one on, hold beside their weights and the output will not."""
    for number, checkpoint in enumerate(inputs[first:], first):
        yield from (Beside(extra.name, Fate.LOST, reason, number) for extra in checkpoint.extras)


def count_of(things: Sequence[str], noun: str) -> str:
    return f"{len(things):,} {noun}{'s' if len(things) != 1 else ''}"
