"""Building a model without data: what it allocates is on the meta device, what it computes with is real."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch.overrides import TorchFunctionMode

Device = Literal["meta", "cpu"]

_ALLOCATE = ("empty", "zeros", "ones", "full", "empty_strided")
_RANDOM = ("rand", "randn")
_FILL = (
    *("normal_", "uniform_", "random_", "bernoulli_", "exponential_", "log_normal_", "cauchy_", "geometric_"),
    *("erfinv_", "clamp_"),  # the rest of trunc_normal_
)


def on_device(name: Device) -> Any:
    """A context for building: "cpu" as it is written, "meta" without data.

    On "meta" it differs from `torch.device("meta")` in two ways. `arange`, `linspace` and `tensor` stay real, for an
    init that asks for their values (the widths of a RegNet, a drop rate for each layer) would stop without. And nothing
    is drawn for tensors that have no data: torch does that by a Python reference, which imports its compiler.
    """
    import torch

    return _without_data()() if name == "meta" else torch.device(name)


@cache
def _without_data() -> type[TorchFunctionMode]:
    import torch
    from torch.overrides import TorchFunctionMode

    allocate = {getattr(torch, name) for name in _ALLOCATE}
    random = {getattr(torch, name) for name in _RANDOM}
    fill = {getattr(torch.Tensor, name) for name in _FILL} | {torch.nn.init.normal_, torch.nn.init.uniform_}

    class WithoutData(TorchFunctionMode):
        def __torch_function__(
            self,
            func: Callable[..., Any],
            types: object,
            args: Sequence[Any] = (),
            kwargs: Mapping[str, Any] | None = None,
        ) -> Any:
            named = {name: value for name, value in (kwargs or {}).items() if value is not None}
            if func in allocate and "device" not in named:
                return func(*args, **named, device="meta")
            if func in random and not named.keys() & {"device", "generator", "out"}:
                return torch.empty(*args, **named, device="meta")
            if func in fill:
                tensor = args[0] if args else named.get("tensor")
                if isinstance(tensor, torch.Tensor) and tensor.is_meta:
                    return tensor
            return func(*args, **(kwargs or {}))

    return WithoutData
