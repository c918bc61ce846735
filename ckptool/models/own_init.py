"""A model's own init as a source of tensors, made when it is first needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias

from ckptool.core.arrays import numpy_dtype
from ckptool.core.plan import Apply, Op, Run, Source, Value
from ckptool.core.spec import TensorSpec
from ckptool.engine.reading import read_array

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ckptool.models import Target

    Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(slots=True, eq=False)
class ModelInit:
    """The tensors that the target has before anything is loaded: its init under a seed; of a checkpoint, its own.

    A model is built once, on the CPU, when the first tensor is asked for, and only the tensors that plans speak of are
    kept of it.

    Attributes:
        target: the model or checkpoint.
        seed: of the init.
        wanted: keys that plans speak of.
    """

    target: Target
    seed: int = 0
    wanted: set[str] = field(default_factory=set)
    _state: dict[str, torch.Tensor] | None = None
    _lock: Lock = field(default_factory=Lock)

    def value(self, spec: TensorSpec) -> Value:
        """One of its tensors in a plan; a checkpoint is the plan's second input."""
        return Source(1, spec.key) if self.target.checkpoint is not None else Apply(self.op(spec), ())

    def op(self, spec: TensorSpec) -> Initial:
        """The op that makes one of its tensors."""
        self.wanted.add(spec.key)
        return Initial(spec, self)

    def array(self, spec: TensorSpec) -> Array:
        """One of its tensors as an array."""
        if self.target.checkpoint is not None:
            return read_array(self.target.checkpoint[spec.key])
        import torch

        from ckptool.models import initial_state

        with self._lock:
            if self._state is None:
                self._state = initial_state(self.target, sorted(self.wanted), self.seed)
        tensor = self._state[spec.key].detach().contiguous().reshape(-1)
        return tensor.view(torch.uint8).numpy().view(numpy_dtype(spec.dtype)).reshape(spec.shape)


@dataclass(frozen=True, slots=True)
class Initial:
    """The target's own tensor; an op without arguments."""

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

    def fingerprint(self) -> str:
        """Of its bytes: code that makes other values since is another plan."""
        return f"{self.spec.short} {sha256(self.compute([]).tobytes()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Blended:
    """A fit that keeps elements of the target's own tensor, which it gets as its second argument."""

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
