"""Building without data: on the meta device, and without the detour that filling a meta tensor takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.overrides import TorchFunctionMode

_FILLS = ("normal_", "uniform_", "random_", "bernoulli_", "exponential_", "log_normal_", "cauchy_", "geometric_")
_MAKERS = ("randn", "rand")


@contextmanager
def on_device(name: str) -> Iterator[None]:
    """A block whose new tensors are on this device: "meta" or "cpu"."""
    import torch

    with torch.device(name):
        if name != "meta":
            yield
            return
        with _unfilled()():
            yield


@cache
def _unfilled() -> type[TorchFunctionMode]:
    """A mode in which random numbers are not drawn for tensors that have no data.

    torch would write them by a Python reference, which imports its compiler: more than a second, for nothing.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    fills = {getattr(torch.Tensor, name) for name in _FILLS} | {torch.nn.init.normal_, torch.nn.init.uniform_}
    makers = {getattr(torch, name) for name in _MAKERS}

    class Unfilled(TorchFunctionMode):
        def __torch_function__(
            self,
            func: Callable[..., Any],
            types: object,
            args: Sequence[Any] = (),
            kwargs: Mapping[str, Any] | None = None,
        ) -> Any:
            named = kwargs or {}
            if func in fills:
                tensor = args[0] if args else named.get("tensor")
                if isinstance(tensor, torch.Tensor) and tensor.is_meta:
                    return tensor
            if func in makers and not named.keys() & {"device", "generator", "out"}:
                return torch.empty(*args, **named)
            return func(*args, **named)

    return Unfilled
