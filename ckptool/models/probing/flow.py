"""What is computed from what: every storage carries the marks of the tensors and modules that have a part in it.

Torch tells of each operation below the level of modules. Its results get the marks of its arguments, so it makes no
difference whether two modules are joined by a residual, a reshape or a function of the model's own code. A mark is a
bit, a set of them an int. The lowest bit says that numbers of float32 have a part in it.

It is the place, too, where everything is made float64 that a model would round to float32 on its way, and where a
tensor that is kept is copied before it is written to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode


ROUNDED = 1
"""The mark of what was rounded to float32: a constant of the model, mostly."""


class Marks:
    """The marks of storages, by their identity, while a model runs inside `watching`.

    Attributes:
        is_wide: casts to float32 and below give float64.
        written: is told of tensors that the next operation writes to.
        doubtful: marks that shall not be carried on by what changes nothing: x + 0, x * 1.
    """

    def __init__(self, is_wide: bool, written: Callable[[list[torch.Tensor]], None]) -> None:
        self.doubtful = 0
        self.is_wide = is_wide
        self.written = written
        self._marks: dict[int, int] = {}

    def of(self, tensors: Iterable[torch.Tensor]) -> int:
        """The marks of all of them."""
        found = 0
        for place in places(tensors):
            found |= self._marks.get(place, 0)
        return found

    def add(self, tensors: Iterable[torch.Tensor], marks: int) -> None:
        for place in places(tensors):
            self._marks[place] = self._marks.get(place, 0) | marks

    def computed(self, inputs: list[torch.Tensor], outputs: list[torch.Tensor], is_new: bool) -> None:
        """An operation was run. What it made shares its storage with an input, or begins without marks."""
        marks = 0 if is_new else self.of(inputs)
        if self.is_wide and any(tensor.dtype in _wider() and has_fractions(tensor) for tensor in inputs):
            marks |= ROUNDED
        kept = set() if is_new else set(places(inputs))
        for output in outputs:
            for place in places([output]):
                is_new_place = place not in kept
                own = marks & self._same(output, inputs) if is_new_place and marks & self.doubtful else marks
                self._marks[place] = own | (0 if is_new_place else self._marks.get(place, 0))

    def _same(self, output: torch.Tensor, inputs: list[torch.Tensor]) -> int:
        """The marks of an input that came out as it went in; all there are, if there is none."""
        for tensor in inputs:
            if tensor.shape == output.shape and tensor.dtype == output.dtype and tensor.equal(output):
                return self.of([tensor])
        return -1

    def watching(self) -> TorchDispatchMode:
        """A context in which operations carry the marks on."""
        mode: TorchDispatchMode = _watcher()(self)
        return mode


def places(tensors: Iterable[torch.Tensor]) -> Iterator[int]:
    """What tells storages apart."""
    import torch

    for tensor in tensors:
        if tensor.layout is torch.strided:
            yield tensor.untyped_storage()._cdata


def tensors_in(value: object) -> list[torch.Tensor]:
    """The tensors in nested tuples, lists, dicts and the outputs of transformers, in order."""
    import torch

    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [found for item in value.values() for found in tensors_in(item)]
    if isinstance(value, list | tuple):
        return [found for item in value for found in tensors_in(item)]
    return []


def has_fractions(tensor: torch.Tensor) -> bool:
    """True if some of its numbers may have been rounded: whole ones, a mask of 0 and -100, are what they are."""
    return tensor.is_complex() or (tensor.is_floating_point() and not bool((tensor == tensor.round()).all()))


@cache
def _wider() -> dict[torch.dtype, torch.dtype]:
    """For each dtype of less than 64 bits the one that has them."""
    import torch

    small = (torch.float32, torch.float16, torch.bfloat16)
    return {**dict.fromkeys(small, torch.float64), torch.complex64: torch.complex128}


@cache
def _writes(func: Any) -> tuple[int | str, ...]:
    """The arguments that an operation writes to, by place or by name."""
    found: list[int | str] = []
    for at, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            found.append(argument.name if argument.kwarg_only else at)
    return tuple(found)


@cache
def _watcher() -> Any:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    begins = {torch.ops.aten.lift_fresh.default, torch.ops.aten.lift_fresh_copy.default}

    class Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __init__(self, marks: Marks) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.marks = marks

        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            return False  # torch would import its compiler, for seconds, to be told that there is nothing to compile

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if func._schema.is_mutable:
                given = [args[at] for at in _writes(func) if isinstance(at, int) and at < len(args)]
                self.marks.written(tensors_in([*given, *(kwargs.get(at) for at in _writes(func))]))
            if self.marks.is_wide and kwargs.get("dtype") in _wider():
                kwargs = {**kwargs, "dtype": _wider()[kwargs["dtype"]]}
            made = func(*args, **kwargs)
            self.marks.computed(tensors_in((args, kwargs)), tensors_in(made), func in begins)
            return made

    return Watcher
