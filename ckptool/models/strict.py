"""Would it load? Asked of torch itself, with tensors that have no data."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ckptool.core.spec import TensorSpec
from ckptool.models.guard import guarded
from ckptool.models.target import Target

if TYPE_CHECKING:
    import torch

_MISMATCH = re.compile(r"^\s*size mismatch for (.*?): copying a param", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What ``load_state_dict(strict=True)`` says.

    Attributes:
        strict: True if it loads.
        missing: keys that the model wants.
        unexpected: keys that it does not know.
        mismatched: keys of another shape.
        message: what torch says; empty if it loads.
    """

    strict: bool
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    message: str = ""


def strict_verdict(
    target: Target,
    specs: Mapping[str, TensorSpec],
    versions: Mapping[str, int] | None,
    entries: Iterable[str] = (),
) -> Verdict:
    """Whether a state dict loads strictly into a model: decided by its own `load_state_dict`, hooks and all.

    Args:
        target: the model. Its tensors are not touched. For a checkpoint, keys and shapes decide.
        specs: the tensors of the state dict.
        versions: the module versions that the state dict carries; None if it is a plain dict without any.
        entries: names of entries that are no tensors; torch takes them for unexpected keys, or for extra state.

    Example:
        >>> import torch
        >>> from ckptool.models import target_of
        >>> target = target_of(torch.nn.BatchNorm1d(8))
        >>> old = {key: spec for key, spec in target.specs.items() if key != "num_batches_tracked"}
        >>> strict_verdict(target, old, None).strict
        True
        >>> strict_verdict(target, old, {"": 2}).missing
        ('num_batches_tracked',)
    """
    if target.module is None:
        return _by_specs(target.specs, specs, entries)
    import torch

    module = target.module
    assert isinstance(module, torch.nn.Module)
    state: OrderedDict[str, Any] = OrderedDict((key, _empty(spec)) for key, spec in specs.items())
    state.update((name, None) for name in entries if name not in state)
    if versions is not None:
        state._metadata = OrderedDict((name, {"version": version}) for name, version in versions.items())  # type: ignore[attr-defined]
    found: list[Any] = []
    with guarded(), _without_data(module), _without_extra_state(module):
        # called after every hook of the model, with the keys as they will be judged
        watch = module.register_load_state_dict_post_hook(lambda _, keys: found.append(keys))  # type: ignore[no-untyped-call]
        try:
            module.load_state_dict(state, strict=True)
        except Exception as error:  # a model may refuse in its own way: MNASNet raises ValueError
            message = str(error) or type(error).__name__
        else:
            return Verdict(True)
        finally:
            watch.remove()
    mismatched = tuple(_MISMATCH.findall(message))
    if not found:
        return Verdict(False, mismatched=mismatched, message=message)
    return Verdict(False, tuple(found[-1].missing_keys), tuple(found[-1].unexpected_keys), mismatched, message)


def renamed_by_hooks(
    target: Target, specs: Mapping[str, TensorSpec], versions: Mapping[str, int] | None
) -> dict[str, str]:
    """What the load hooks of a model rename: {key of the model: key of the state dict whose tensor it gets}.

    torch is watched while it loads tensors without data; where a hook computes another tensor, nothing is told.

    Example:
        >>> import torch, warnings
        >>> from ckptool.models import target_of
        >>> from ckptool.core.spec import TensorSpec
        >>> target = target_of(torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(3, 2)))
        >>> old = [TensorSpec("weight_g", "float32", (2, 1)), TensorSpec("weight_v", "float32", (2, 3))]
        >>> renamed_by_hooks(target, {spec.key: spec for spec in old}, None)["parametrizations.weight.original0"]
        'weight_g'
    """
    if target.module is None:
        return {}
    import torch
    from torch.overrides import TorchFunctionMode

    module = target.module
    assert isinstance(module, torch.nn.Module)
    state: OrderedDict[str, Any] = OrderedDict((key, _empty(spec)) for key, spec in specs.items())
    origins = {id(tensor): key for key, tensor in state.items()}
    if versions is not None:
        state._metadata = OrderedDict((name, {"version": version}) for name, version in versions.items())  # type: ignore[attr-defined]
    copied: dict[int, str] = {}

    class Watch(TorchFunctionMode):
        """Notes what is copied into what."""

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.Tensor.copy_ and len(args) > 1 and id(args[1]) in origins:
                copied[id(args[0])] = origins[id(args[1])]
            return func(*args, **(kwargs or {}))

    with guarded(), _without_data(module), _without_extra_state(module):
        places = {key: id(tensor) for key, tensor in module.state_dict(keep_vars=True).items()}
        with suppress(Exception), Watch():  # what torch says of it is asked elsewhere
            module.load_state_dict(state, strict=False)
    found = {key: copied[place] for key, place in places.items() if place in copied}
    return {key: origin for key, origin in found.items() if key != origin and key not in specs}


def _by_specs(wanted: Mapping[str, TensorSpec], given: Mapping[str, TensorSpec], entries: Iterable[str]) -> Verdict:
    missing = tuple(key for key in wanted if key not in given)
    unexpected = (*(key for key in given if key not in wanted), *entries)
    mismatched = tuple(key for key in wanted if key in given and wanted[key].shape != given[key].shape)
    counts = {"missing": missing, "unexpected": unexpected, "of another shape": mismatched}
    message = ", ".join(f"{len(keys)} {what}" for what, keys in counts.items() if keys)
    return Verdict(not message, missing, unexpected, mismatched, message)


def _empty(spec: TensorSpec) -> torch.Tensor:
    """A tensor without data; as float32 where torch cannot make one of its dtype, for loading asks for shapes."""
    import torch

    try:
        return torch.empty(spec.shape, dtype=getattr(torch, spec.dtype), device="meta")
    except (AttributeError, RuntimeError, TypeError):
        return torch.empty(spec.shape, dtype=torch.float32, device="meta")


@contextmanager
def _without_extra_state(module: torch.nn.Module) -> Iterator[None]:
    """The module with `set_extra_state` methods that take anything: whether the key is known is all that is asked."""
    import torch

    parts = [part for part in module.modules() if type(part).set_extra_state is not torch.nn.Module.set_extra_state]
    parts = [part for part in parts if "set_extra_state" not in vars(part)]
    for part in parts:
        vars(part)["set_extra_state"] = lambda state: None
    try:
        yield
    finally:
        for part in parts:
            del vars(part)["set_extra_state"]


@contextmanager
def _without_data(module: torch.nn.Module) -> Iterator[None]:
    """The module with tensors that have no data in place of its own, which come back at the end."""
    import torch

    kept = [(store, dict(store)) for part in module.modules() for store in (part._parameters, part._buffers)]
    stand_ins: dict[int, torch.Tensor] = {}  # by what they stand for: tied tensors stay tied
    try:
        for store, tensors in kept:
            for name, tensor in tensors.items():
                if tensor is not None:
                    store[name] = stand_ins.setdefault(id(tensor), _stand_in(tensor))  # type: ignore[assignment]
        with torch.no_grad():
            yield
    finally:
        for store, tensors in kept:
            store.clear()
            store.update(tensors)  # type: ignore[arg-type]


def _stand_in(tensor: torch.Tensor) -> torch.Tensor:
    import torch

    with torch.no_grad():
        empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(empty, requires_grad=tensor.requires_grad)
    return empty
