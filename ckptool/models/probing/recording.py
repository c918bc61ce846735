"""Runs a model once and keeps what went into and came out of each of its modules."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from ckptool.core.errors import CkptError
from ckptool.models.guard import guarded
from ckptool.models.probing.flow import ROUNDED, Marks, has_fractions, places, tensors_in
from ckptool.models.probing.measure import array_of

if TYPE_CHECKING:
    import torch

    from ckptool.models.probing.measure import Array


_MANY = 16  # outputs of a model that are looked at


class StoppedError(CkptError):
    """The model's code stops on the input."""


class Kept:
    """A tensor as it was; a copy only if the model writes into it later."""

    __slots__ = ("__weakref__", "tensor")

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor.detach()

    @property
    def array(self) -> Array:
        """Its numbers; not to be written to."""
        return array_of(self.tensor)


@dataclass(slots=True, eq=False)
class Call:
    """One call of a module.

    Attributes:
        module: its name.
        number: how many times it was called before.
        mark: the bit of what it gives.
        before: the marks of what went in.
        made: the marks of what came out, but its own.
        input: the first tensor that went in; None if there is none, or once it is not needed any more.
        outputs: the first tensor that came out, with its marks; of the model itself, all of them.
    """

    module: str
    number: int
    mark: int
    before: int
    made: int
    input: Kept | None = field(default=None, repr=False)
    outputs: tuple[tuple[Kept, int], ...] = field(default=(), repr=False)

    @property
    def output(self) -> Kept | None:
        return self.outputs[0][0] if self.outputs else None


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A model's forward.

    Attributes:
        calls: of its modules, in the order in which they ended: what is inside comes before what is around it.
        keys: the bit of each tensor of its state dict.
    """

    calls: tuple[Call, ...]
    keys: Mapping[str, int]


def run(
    name: str,
    module: torch.nn.Module,
    arguments: tuple[tuple[Any, ...], dict[str, Any]],
    asked: str,
    seed: int,
    exact: Collection[str],
    doubtful: Collection[str] = (),
    done: Callable[[Call], None] | None = None,
) -> Run:
    """Run a model without gradients, in the dtype of its parameters; in float64, its casts to float32 are left out.

    Args:
        name: of the model, for messages.
        module: in eval mode.
        arguments: of its forward, by place and by name.
        asked: what the input is, for messages.
        seed: of whatever the model draws.
        exact: keys of its state dict that hold what is in the file; all else is a constant that it computed itself.
        doubtful: keys that nothing filled; where they change nothing, what comes out is not made of them.
        done: gets each call when it ends, and may drop its tensors.

    Raises:
        StoppedError: the model's code stops; the message says in which module.
    """
    import torch

    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    recorder = _Recorder(module, dtype == torch.float64, frozenset(exact), done)
    for key in doubtful:
        recorder.marks.doubtful |= recorder.keys.get(key, 0)
    args, kwargs = ([_as(dtype, value) for value in arguments[0]], {k: _as(dtype, v) for k, v in arguments[1].items()})
    try:
        with guarded((), seed), torch.no_grad(), _plain_attention(), recorder.hooked(), recorder.marks.watching():
            torch.set_default_dtype(dtype)
            module(*args, **kwargs)
    except CkptError:
        raise
    except (Exception, SystemExit) as error:
        raise _stopped(error, name, recorder, asked) from error
    return Run(tuple(recorder.calls), recorder.keys)


def _as(dtype: torch.dtype, value: Any) -> Any:
    """An argument, floats in the model's dtype."""
    import torch

    if isinstance(value, list):
        return [_as(dtype, item) for item in value]
    return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value


class _Recorder:
    def __init__(
        self, module: torch.nn.Module, is_wide: bool, exact: frozenset[str], done: Callable[[Call], None] | None
    ) -> None:
        self.names = {id(part): name for name, part in module.named_modules()}
        self.parts = list(module.modules())
        self.done = done
        self.marks = Marks(is_wide, self.written)
        self.kept: dict[int, WeakSet[Kept]] = {}
        self.calls: list[Call] = []
        self.counts: dict[str, int] = {}
        self.running: list[tuple[str, str, int, Kept | None]] = []
        self.keys: dict[str, int] = {}
        for key, value in module.state_dict().items():
            tensors = tensors_in(value)  # a state dict may hold other things
            self.keys[key] = self.marks.of(tensors) & ~ROUNDED or 2 << len(self.keys)  # tied tensors have one mark
            is_exact = key in exact or not any(has_fractions(tensor) for tensor in tensors)
            self.marks.add(tensors, self.keys[key] | (0 if is_exact else ROUNDED))
        own = [tensor for tensor in module.buffers() if has_fractions(tensor) and not self.marks.of([tensor])]
        self.marks.add(own, ROUNDED)

    @contextmanager
    def hooked(self) -> Iterator[None]:
        handles = []
        for part in self.parts:
            handles.append(part.register_forward_pre_hook(self.begin, with_kwargs=True, prepend=True))
            handles.append(part.register_forward_hook(self.end, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def begin(self, part: torch.nn.Module, args: Any, kwargs: Any) -> None:
        given = tensors_in((args, kwargs))
        first = self.keep(given[0]) if given else None
        name, kind = self.names[id(part)], type(part).__name__
        self.running.append((name, kind, self.marks.of(given), first))

    def end(self, part: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        name, _, before, first = self.running.pop()
        made = tensors_in(output)
        mark = 2 << (len(self.keys) + len(self.calls))
        outputs = tuple((self.keep(tensor), self.marks.of([tensor])) for tensor in (made[:1] if name else made[:_MANY]))
        call = Call(name, self.counts.get(name, 0), mark, before, self.marks.of(made[:1]), first, outputs)
        self.marks.add(made, mark)
        self.counts[name] = call.number + 1
        self.calls.append(call)
        if self.done is not None:
            self.done(call)

    def keep(self, tensor: torch.Tensor) -> Kept:
        kept = Kept(tensor)
        for place in places([tensor]):
            self.kept.setdefault(place, WeakSet()).add(kept)
        return kept

    def written(self, tensors: list[torch.Tensor]) -> None:
        """What is kept of tensors that will be written to becomes a copy."""
        for place in places(tensors):
            for kept in self.kept.pop(place, ()):
                kept.tensor = kept.tensor.clone()


@contextmanager
def _plain_attention() -> Iterator[None]:
    """No fast path that leaves out the modules inside an encoder layer."""
    import torch

    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


def _stopped(error: BaseException, name: str, recorder: _Recorder, asked: str) -> StoppedError:
    text = " ".join((str(error) or type(error).__name__).split())
    inside = [entry for entry in recorder.running if entry[0]]
    where = f" in {inside[-1][0]} ({inside[-1][1]})" if inside else ""
    return StoppedError(
        f"{name} stops{where} on {asked}: {type(error).__name__}: {text[:300]}",
        hint="--probe-input says what the input is like, as in --probe-input 1,3,224,224",
    )
