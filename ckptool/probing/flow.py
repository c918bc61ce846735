"""What is computed from what: every storage carries the marks of the tensors and modules that have a part in it.

Torch tells of each operation below the level of modules. Its results get the marks of its arguments, so it makes no
difference whether two modules are joined by a residual, a reshape or a function of the model's own code. A mark is a
bit, a set of them an int.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode


class Marks:
    """The marks of storages, by their identity, while a model runs inside `watching`."""

    def __init__(self) -> None:
        self._marks: dict[int, int] = {}

    def of(self, tensors: Iterable[torch.Tensor]) -> int:
        """The marks of all of them."""
        found = 0
        for place in _places(tensors):
            found |= self._marks.get(place, 0)
        return found

    def add(self, tensors: Iterable[torch.Tensor], marks: int) -> None:
        for place in _places(tensors):
            self._marks[place] = self._marks.get(place, 0) | marks

    def computed(self, inputs: list[torch.Tensor], outputs: list[torch.Tensor], is_new: bool) -> None:
        """An operation was run. What it made shares its storage with an input, or begins without marks."""
        marks = 0 if is_new else self.of(inputs)
        kept = set() if is_new else set(_places(inputs))
        for place in _places(outputs):
            self._marks[place] = marks | (self._marks.get(place, 0) if place in kept else 0)

    def watching(self) -> TorchDispatchMode:
        """A context in which operations carry the marks on."""
        mode: TorchDispatchMode = _watcher()(self)
        return mode


def _places(tensors: Iterable[torch.Tensor]) -> Iterator[int]:
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
            made = func(*args, **(kwargs or {}))
            self.marks.computed(tensors_in((args, kwargs)), tensors_in(made), func in begins)
            return made

    return Watcher
