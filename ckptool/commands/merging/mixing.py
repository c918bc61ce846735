"""A merge method as an op of a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, TypeAlias

from ckptool.core.arrays import dtype_of
from ckptool.core.casting import cast
from ckptool.core.counts import many
from ckptool.core.errors import PlanError, UsageError
from ckptool.core.plan import Run
from ckptool.core.spec import TensorSpec

if TYPE_CHECKING:
    import numpy as np

    from ckptool.commands.merging.methods import Method

    Array: TypeAlias = np.ndarray[Any, Any]

_SHARE = (lambda value: 0 <= value <= 1, "from 0 to 1")
_LIMITS: dict[str, tuple[Callable[[float], bool], str]] = {
    "density": (lambda value: 0 < value <= 1, "above 0 and at most 1"),
    "gamma": _SHARE,
    "decay": _SHARE,
    "seed": (lambda value: 0 <= value < 2**53 and value == int(value), "a whole number from 0 on"),
}


@dataclass(frozen=True, slots=True)
class Mix:
    """A merge method on the models' tensors and, if it needs one, the base's tensor, in this order.

    Computed in float64 and rounded once.

    Attributes:
        method: its name in `ckptool.commands.merging.methods.METHODS`.
        weights: a number for each model.
        options: the options that were given, by name.
        dtype: of the result; None for the first argument's.
        salt: what distinguishes this tensor from others, for methods that draw at random.
    """

    method: str
    weights: tuple[float, ...]
    options: tuple[tuple[str, float], ...] = ()
    dtype: str | None = None
    salt: int = 0

    @property
    def definition(self) -> Method:
        """The method itself."""
        from ckptool.commands.merging.methods import METHODS

        return METHODS[self.method]

    @property
    def is_elementwise(self) -> bool:
        """True unless the method must measure whole tensors first."""
        return self.definition.is_elementwise

    @property
    def text(self) -> str:
        weights = [f"{weight:g}" for weight in self.weights] if self.definition.uses_weights else []
        return f"{self.method}({', '.join([*weights, *(f'{name}={value:g}' for name, value in self.options)])})"

    def result(self, args: Sequence[TensorSpec]) -> TensorSpec:
        """The first model's spec, in the dtype that is wanted."""
        if len({arg.shape for arg in args}) > 1:
            raise PlanError(f"{args[0].key} has not one shape: {', '.join(arg.short for arg in args)}", key=args[0].key)
        return TensorSpec(args[0].key, self.dtype or args[0].dtype, args[0].shape)

    def runs(self, args: Sequence[TensorSpec]) -> list[Run] | None:
        return None

    def measured(self, blocks: Callable[[], Iterable[Sequence[Array]]]) -> Measured:
        """The elementwise op, with what the method wants to know of the whole tensors."""

        def wide() -> Iterator[list[Array]]:
            return (_wide(args) for args in blocks())

        compute = self.definition.prepared(wide, weights=self.weights, options=dict(self.options), salt=self.salt)
        return Measured(self, compute)

    def compute(self, args: Sequence[Array]) -> Array:
        return self.measured(lambda: [args]).compute(args)


@dataclass(frozen=True, slots=True)
class Measured:
    """A `Mix` that is ready: its method works slice by slice."""

    mix: Mix
    function: Callable[[Sequence[Array]], Array]

    is_elementwise = True

    @property
    def text(self) -> str:
        return self.mix.text

    def result(self, args: Sequence[TensorSpec]) -> TensorSpec:
        return self.mix.result(args)

    def runs(self, args: Sequence[TensorSpec]) -> list[Run] | None:
        return None

    def compute(self, args: Sequence[Array]) -> Array:
        import numpy as np

        with np.errstate(all="ignore"):  # what is not finite stays so
            return cast(self.function(_wide(args)), self.mix.dtype or dtype_of(args[0]))


def _wide(args: Sequence[Array]) -> list[Array]:
    import numpy as np

    # float64 is copied: methods may work in place
    return [arg.astype(np.float64) if arg.dtype == np.float64 else cast(arg, "float64") for arg in args]


def mix(
    name: str,
    models: int,
    *,
    weights: Sequence[float] | None = None,
    has_base: bool = False,
    params: Mapping[str, float] | None = None,
    dtype: str | None = None,
) -> Mix:
    """The op of a method.

    Args:
        name: the method's.
        models: how many models there are, the base aside.
        weights: a number for each; 1 by default.
        has_base: a base is there.
        params: the method's options by name.
        dtype: of the result; None for the first model's.

    Raises:
        UsageError: the method does not exist or does not fit what is given.

    Example:
        >>> mix("linear", 2, weights=[3, 1]).text
        'linear(3, 1)'
    """
    from difflib import get_close_matches

    from ckptool.commands.merging.methods import METHODS, method_named

    method = method_named(name)
    if method is None:
        near = get_close_matches(name.lower(), METHODS, n=1)
        known = f"did you mean {near[0]}?   all: ckptool merge --methods" if near else f"one of {', '.join(METHODS)}"
        raise UsageError(f'"{name}" is not a merge method', hint=known)
    options = dict(params or {})
    _check_options(method, options)
    if method.needs_base and not has_base:
        raise UsageError(f"{method.name} works on differences from a base model", hint="give it: --base base.pth")
    if has_base and not method.needs_base:
        raise UsageError(f"{method.name} takes no base", hint="leave --base out, or name it as an input")
    if method.models is not None and models != method.models:
        count = f"{method.models} model{'s' if method.models > 1 else ''}" + (" and a base" if has_base else "")
        raise UsageError(f"{method.name} takes {count}, not {models}")
    if weights is not None:
        _check_weights(method, weights, models)
    made = Mix(
        method.name,
        (1.0,) * models if weights is None else tuple(map(float, weights)),
        tuple((option, float(value)) for option, value in options.items()),
        dtype,
    )
    rehearse(made)
    return made


def _check_options(method: Method, options: Mapping[str, float]) -> None:
    for option, value in options.items():
        if option not in method.options:
            known = ", ".join(f"{name}={default:g}" for name, default in method.options.items())
            hint = f"it takes {known}" if known else "it takes none"
            raise UsageError(f'{method.name} has no option "{option}"', hint=hint)
        is_fine, wanted = _LIMITS.get(option, (isfinite, "a finite number"))
        if not is_fine(value):
            raise UsageError(f"{option}={value:g}: it must be {wanted}")


def _check_weights(method: Method, weights: Sequence[float], models: int) -> None:
    if not method.uses_weights:
        raise UsageError(f"{method.name} has no weights", hint="leave --weights out")
    if len(weights) != models:
        raise UsageError(
            f"{many(len(weights), 'weight')} for {many(models, 'input')}",
            hint="one number for each input, in their order",
        )
    if not all(map(isfinite, weights)):
        raise UsageError("a weight is not finite")


def rehearse(op: Mix) -> None:
    """Run a method on a zero for each model, so that a request that cannot be computed is refused while planning.

    Raises:
        UsageError: the weights sum to 0, and the method divides by their sum.
    """
    import numpy as np

    op.compute([np.zeros(1)] * (len(op.weights) + op.definition.needs_base))
