"""What a merge method is, and the decorator that makes a function one. The functions stand in `methods`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ckptool.commands.merging.measures import MEASURES, Blocks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[np.float64]"


@dataclass(frozen=True, slots=True)
class Method:
    """A merge method as it is found by its name.

    Attributes:
        name: "task-arithmetic".
        function: called with slices and keywords; see the head of `ckptool.commands.merging.methods`.
        about: the first line of its docstring.
        needs_base: it works on differences from a base model.
        uses_weights: it has a weight for each model.
        measure: what it must know of the whole tensors, a name of `MEASURES`; None if nothing.
        options: its further options and their defaults.
        models: exactly how many models it takes; None for any number.
    """

    name: str
    function: Callable[..., Array]
    about: str
    needs_base: bool
    uses_weights: bool
    measure: str | None
    options: Mapping[str, float]
    models: int | None

    @property
    def is_elementwise(self) -> bool:
        """Element i of the result needs only element i of each tensor."""
        return self.measure is None

    def prepared(
        self, blocks: Blocks, *, weights: Sequence[float], options: Mapping[str, float], salt: int = 0
    ) -> Callable[[Sequence[Array]], Array]:
        """The function from slices (the models', then the base's) to a slice of the result.

        Args:
            blocks: called as often as needed; each time gives all slices of all tensors, in order.
            weights: a number for each model.
            options: options by name; the others have their defaults.
            salt: what distinguishes this tensor from others of the same shape, for methods that draw at random.
        """
        keywords: dict[str, Any] = {**self.options, **options}
        if self.measure is not None:
            seen = (lambda: (_changes(block) for block in blocks())) if self.needs_base else blocks
            found = MEASURES[self.measure](seen, models=len(weights), salt=salt, **keywords)
            keywords[self.measure] = found
        if self.uses_weights:
            keywords["weights"] = weights

        def compute(slices: Sequence[Array]) -> Array:
            if self.needs_base:
                return self.function(slices[:-1], base=slices[-1], **keywords)
            return self.function(slices, **keywords)

        return compute


METHODS: dict[str, Method] = {}
ALIASES = {"dare": "dare-linear"}


def method_named(name: str) -> Method | None:
    """A method by its name, spelled as here or as in mergekit; None if there is none.

    Example:
        >>> from ckptool.commands.merging import methods
        >>> method_named("task_arithmetic").name, method_named("dare").name
        ('task-arithmetic', 'dare-linear')
    """
    spelled = name.replace("_", "-")
    return METHODS.get(ALIASES.get(spelled, spelled))


def _changes(slices: Sequence[Array]) -> list[Array]:
    return [tensor - slices[-1] for tensor in slices[:-1]]


def method(*, models: int | None = None) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """Make a function a merge method under its own name (``_`` becomes ``-``)."""

    def register(function: Callable[..., Array]) -> Callable[..., Array]:
        parameters = inspect.signature(function).parameters
        options = {
            name: float(parameter.default)
            for name, parameter in parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }
        about = (inspect.getdoc(function) or "").partition("\n")[0]
        name = function.__name__.replace("_", "-")
        measure = next((measure for measure in MEASURES if measure in parameters), None)
        METHODS[name] = Method(
            name, function, about, "base" in parameters, "weights" in parameters, measure, options, models
        )
        return function

    return register
