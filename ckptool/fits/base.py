"""What every op of ``fit`` is: one tensor in, one of the target's shape out, of the dtype it came in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from ckptool.core.errors import PlanError
from ckptool.core.ops import Cast
from ckptool.core.plan import Run
from ckptool.core.spec import DTYPES, TensorSpec
from ckptool.fits.args import Fit
from ckptool.fits.lists import Lookup

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Fitting:
    """An op that fits one tensor to a target.

    Attributes:
        text: the fit as the recipe wrote it.
        source: the shape it was made for.
        target: the spec of the target's tensor; the result has its shape, and the source's dtype.
    """

    text: str
    source: tuple[int, ...]
    target: TensorSpec

    is_elementwise: ClassVar[bool] = False

    @property
    def needs_initial(self) -> bool:
        """True if `compute` wants the target's own tensor, before anything is loaded, as a second argument."""
        return False

    @property
    def covered(self) -> int:
        """How many elements of the result come from the source."""
        return self.target.elements

    def result(self, args: Sequence[TensorSpec]) -> TensorSpec:
        if args[0].shape != self.source:
            raise PlanError(f'"{self.text}" was made for another shape than {args[0].short}', key=args[0].key)
        if len(args) > 1 and args[1].shape != self.target.shape:
            raise PlanError(f'"{self.text}": the initial tensor is {args[1].short}', key=args[1].key)
        return TensorSpec(args[0].key, args[0].dtype, self.target.shape)

    def runs(self, args: Sequence[TensorSpec]) -> list[Run] | None:
        return None

    def compute(self, args: Sequence[Array]) -> Array:
        raise AssertionError(f'"{self.text}" does not say how it is computed')


@dataclass(frozen=True, slots=True)
class Request:
    """What a fit is made from.

    Attributes:
        fit: the step of the recipe.
        source: the tensor that is there.
        target: what it is to fit.
        lookup: gives the text of files that the fit names.
        seed: of random numbers.
    """

    fit: Fit
    source: TensorSpec
    target: TensorSpec
    lookup: Lookup
    seed: int = 0

    @property
    def text(self) -> str:
        return self.fit.text

    def misfit(self, needs: str, hint: str | None = None) -> PlanError:
        """The error for two tensors that the method is not meant for: what it needs, and both specs."""
        what = f'"fit {self.fit.method}" needs {needs}'
        return PlanError(
            f"{what}: {self.source.key} is {self.source.short}, the target {self.target.short}",
            hint=hint,
            key=self.source.key,
        )

    def require_numbers(self) -> None:
        """`PlanError` if the source holds no floating-point numbers."""
        dtype = DTYPES[self.source.dtype]
        if dtype.kind != "float" or dtype.is_packed:
            raise self.misfit("floating-point numbers")

    def require_torch(self) -> None:
        """`PlanError` if torch, whose interpolation defines the result, is not installed."""
        if find_spec("torch") is None:
            raise PlanError(
                f'"{self.text}" interpolates with torch, which is not installed',
                hint='pip install "ckptool[torch]"',
                key=self.source.key,
            )


def float32(array: Array) -> Array:
    """A copy in float32, which may be written to."""
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(np.float32)


def rounded(array: Array, like: Array) -> Array:
    """The numbers in another array's dtype, rounded to nearest even."""
    return Cast(like.dtype.name).compute([array])


def resized(planes: Array, size: tuple[int, int], mode: str, *, antialias: bool, align_corners: bool | None) -> Array:
    """Images [n, c, h, w] in another size, exactly as ``torch.nn.functional.interpolate`` makes them."""
    import torch

    image = torch.from_numpy(planes)
    with torch.no_grad():
        made = torch.nn.functional.interpolate(
            image, size=size, mode=mode, antialias=antialias, align_corners=align_corners
        )
    found: Array = made.numpy()
    return found
