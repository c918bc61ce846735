"""A model's own init as a source of tensors, made when it is first needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias

from ckptool.reading import numpy_dtype
from ckptool.spec import TensorSpec
from ckptool.surgery.plan import Op, Run

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ckptool.models import Target

    Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(slots=True, eq=False)
class ModelInit:
    """The tensors that the model's own constructor makes under a seed.

    The model is built once, on the CPU, when the first tensor is asked for.
    """

    target: Target
    seed: int
    _state: dict[str, torch.Tensor] | None = None
    _lock: Lock = field(default_factory=Lock)

    def array(self, spec: TensorSpec) -> Array:
        """One tensor of the model, as an array."""
        import torch

        from ckptool.models import initial_state

        with self._lock:
            if self._state is None:
                self._state = dict(initial_state(self.target, list(self.target.specs), self.seed))
        tensor = self._state[spec.key].detach().contiguous().reshape(-1)
        return tensor.view(torch.uint8).numpy().view(numpy_dtype(spec.dtype)).reshape(spec.shape)


@dataclass(frozen=True, slots=True)
class Initial:
    """The model's own init of one tensor; an op without arguments."""

    spec: TensorSpec
    init: ModelInit = field(repr=False, compare=False)

    is_elementwise = False

    @property
    def text(self) -> str:
        return f"init of the model, seed {self.init.seed}"

    def result(self, args: Sequence[TensorSpec]) -> TensorSpec:
        return self.spec

    def runs(self, args: Sequence[TensorSpec]) -> list[Run] | None:
        return None

    def compute(self, args: Sequence[Array]) -> Array:
        return self.init.array(self.spec)


@dataclass(frozen=True, slots=True)
class Blended:
    """A fit that keeps elements of the model's own: it gets the model's init as its second argument."""

    op: Op
    initial: Initial

    is_elementwise = False

    @property
    def text(self) -> str:
        return self.op.text

    def result(self, args: Sequence[TensorSpec]) -> TensorSpec:
        return self.op.result([*args, self.initial.spec])

    def runs(self, args: Sequence[TensorSpec]) -> list[Run] | None:
        return None

    def compute(self, args: Sequence[Array]) -> Array:
        return self.op.compute([*args, self.initial.compute([])])
