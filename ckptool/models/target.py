"""Target: what the weights go into, as values; and how it is read from a live `torch.nn.Module`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.errors import CkptError
from ckptool.core.spec import DTYPES, TensorSpec

if TYPE_CHECKING:
    import torch

Role = Literal["parameter", "buffer"]


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A model, or a checkpoint taken as one, that weights go into.

    Attributes:
        name: as it was asked for: "torchvision:resnet50", "net.py:Net", "other.pth".
        specs: its tensors, in the order of its state dict.
        kinds: for each of them, whether it is a parameter or a buffer; empty for a checkpoint.
        modules: class names by module name; "" is the model itself. Empty for a checkpoint.
        ties: keys that are one tensor in the model.
        versions: the module versions that its own state dict carries; None if it carries none.
        module: the `torch.nn.Module`, on `device`; None for a checkpoint.
        checkpoint: the checkpoint, if it is one.
        device: where the module was built: "meta", or "cpu" where its init needs real tensors.
        seconds: how long building took, without imports.
        notes: what was noticed on the way.
        build: makes the model once more, on the CPU with this seed; None if it was not made here.
    """

    name: str
    specs: Mapping[str, TensorSpec]
    kinds: Mapping[str, Role]
    modules: Mapping[str, str]
    ties: tuple[tuple[str, ...], ...]
    versions: Mapping[str, int] | None
    module: object | None = None
    checkpoint: Checkpoint | None = None
    device: str = "meta"
    seconds: float = 0.0
    notes: tuple[Note, ...] = ()
    build: Callable[[int], torch.nn.Module] | None = field(default=None, repr=False)


def target_of(module: torch.nn.Module, name: str = "") -> Target:
    """The target that a live module is.

    Args:
        module: it is looked at and not changed.
        name: what to call it; by default its class.

    Raises:
        CkptError: it has parameters whose shape is not known yet, or a dtype that ckptool does not know.

    Example:
        >>> import torch
        >>> target = target_of(torch.nn.BatchNorm1d(8))
        >>> [(spec.key, spec.short, target.kinds[spec.key]) for spec in target.specs.values()][-2:]
        [('running_var', 'f32[8]', 'buffer'), ('num_batches_tracked', 'i64[]', 'buffer')]
        >>> target.name, target.versions, target.modules
        ('BatchNorm1d', {'': 2}, {'': 'torch.nn.modules.batchnorm.BatchNorm1d'})
    """
    import torch

    name = name or type(module).__name__
    _refuse_lazy(module, name)
    state = module.state_dict(keep_vars=True)
    tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    parameters = {id(parameter) for parameter in module.parameters()}
    metadata: Mapping[str, Mapping[str, object]] | None = getattr(state, "_metadata", None)
    return Target(
        name=name,
        specs={key: spec_of(key, tensor, name) for key, tensor in tensors.items()},
        kinds={key: "parameter" if id(tensor) in parameters else "buffer" for key, tensor in tensors.items()},
        modules={at: _class_name(type(part)) for at, part in module.named_modules(remove_duplicate=False)},
        ties=_ties(tensors),
        versions=None if metadata is None else _versions(metadata),
        module=module,
        device=_device(tensors.values()),
        notes=_beside_tensors([key for key in state if key not in tensors]),
    )


def stated_grids(target: Target) -> list[tuple[int, int]]:
    """The grids of patches, (rows, columns), that layers state: timm's `grid_size`, TransReID's `num_y` and `num_x`.

    Example:
        >>> import torch
        >>> module = torch.nn.Linear(2, 3)
        >>> module.grid_size = (16, 8)
        >>> stated_grids(target_of(module))
        [(16, 8)]
    """
    if target.module is None:
        return []
    import torch

    if not isinstance(target.module, torch.nn.Module):
        return []
    found: dict[tuple[int, int], None] = {}
    for layer in target.module.modules():
        for grid in (getattr(layer, "grid_size", None), (getattr(layer, "num_y", None), getattr(layer, "num_x", None))):
            if isinstance(grid, tuple) and len(grid) == 2 and all(type(size) is int and size > 0 for size in grid):
                found[grid] = None
    return list(found)


def spec_of(key: str, tensor: torch.Tensor, name: str) -> TensorSpec:
    """The spec of a tensor of the model called `name`."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise CkptError(f"{key} of {name} has the dtype {dtype}, which ckptool does not know", key=key)
    return TensorSpec(key, dtype, tuple(tensor.shape))


def _refuse_lazy(module: torch.nn.Module, name: str) -> None:
    from torch.nn.parameter import is_lazy

    named = [*module.named_parameters(), *module.named_buffers()]
    lazy = [key for key, tensor in named if is_lazy(tensor)]
    if lazy:
        more = f" and {len(lazy) - 1} more" if len(lazy) > 1 else ""
        raise CkptError(
            f"{name} is not built to the end: the shape of {lazy[0]}{more} is only known after a first forward",
            hint="give its layers their sizes, or name a function that builds it and runs it once",
            key=lazy[0],
        )


def _versions(metadata: Mapping[str, Mapping[str, object]]) -> dict[str, int]:
    found = ((module, entry.get("version")) for module, entry in metadata.items())
    return {module: version for module, version in found if isinstance(version, int)}


def _class_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _ties(tensors: Mapping[str, torch.Tensor]) -> tuple[tuple[str, ...], ...]:
    """Keys of equal views of one storage. A storage is told by its identity, for a meta tensor has no address."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for key, tensor in tensors.items():
        if tensor.layout is _strided():
            storage = tensor.untyped_storage()._cdata
            view = (storage, tensor.storage_offset(), tensor.dtype, tensor.shape, tensor.stride())
            groups.setdefault(view, []).append(key)
    return tuple(tuple(keys) for keys in groups.values() if len(keys) > 1)


def _strided() -> torch.layout:
    import torch

    return torch.strided


def _device(tensors: Iterable[torch.Tensor]) -> str:
    """Where most of it is, by elements."""
    elements: dict[str, int] = {}
    for tensor in tensors:
        kind = tensor.device.type
        elements[kind] = elements.get(kind, 0) + tensor.numel()
    return max(elements, key=lambda kind: elements[kind], default="meta")


def _beside_tensors(keys: list[str]) -> tuple[Note, ...]:
    if not keys:
        return ()
    count = "1 entry" if len(keys) == 1 else f"{len(keys)} entries"
    return (
        Note(
            f"{count} of its state dict {'is' if len(keys) == 1 else 'are'} not a tensor: {', '.join(keys[:3])}",
            "ckptool fills tensors only",
            tuple(keys),
        ),
    )
