"""Would it load? Asked of torch itself, with tensors that have no data."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
        summary: the first line of it.
    """

    strict: bool
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    message: str = ""
    summary: str = ""


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
        entries: names of entries that are not tensors; torch takes them for unexpected keys, or for extra state.

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
    state = empty_state(specs, versions, entries)
    found, error = load_without_data(module, state)
    if error is None:
        return Verdict(True)
    message = str(error) or type(error).__name__  # a model may refuse in its own way: MNASNet raises ValueError
    mismatched = tuple(_MISMATCH.findall(message))
    if found is None:
        return Verdict(False, (), (), mismatched, message, message.splitlines()[0])
    missing, unexpected = tuple(found.missing_keys), tuple(found.unexpected_keys)
    return Verdict(False, missing, unexpected, mismatched, message, message.splitlines()[0])


def load_without_data(
    module: torch.nn.Module,
    state: OrderedDict[str, Any],
    recording: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> tuple[Any, Exception | None]:
    """Load strictly, with tensors that have no data on both sides.

    Args:
        module: it is as before at the end.
        state: from `empty_state`.
        recording: what is on while it loads; made after the module's tensors are replaced.

    Returns:
        The keys that torch judged, after every hook; None if it did not come so far. And what was raised, if anything.
    """
    import torch

    found: list[Any] = []
    raised: Exception | None = None
    # a hook may make tensors of its own: on the CPU they do not go together with those that have no data
    for device in ("cpu", "meta"):
        with guarded(), _without_data(module), torch.device(device):
            watch = module.register_load_state_dict_post_hook(lambda _, keys: found.append(keys))  # type: ignore[no-untyped-call]
            try:
                with recording():
                    module.load_state_dict(state, strict=True)
            except Exception as error:  # of the model's own hooks, too
                raised = raised if raised is not None and not found else error
            else:
                return found[-1] if found else None, None
            finally:
                watch.remove()
        if found:
            break
    return found[-1] if found else None, raised


def empty_state(
    specs: Mapping[str, TensorSpec], versions: Mapping[str, int] | None, entries: Iterable[str]
) -> OrderedDict[str, Any]:
    """The state dict that torch would get, of tensors without data; see `strict_verdict` for the arguments."""
    state: OrderedDict[str, Any] = OrderedDict((key, _empty(spec)) for key, spec in specs.items())
    state.update((name, None) for name in entries if name not in state)
    if versions is not None:
        state._metadata = OrderedDict((name, {"version": version}) for name, version in versions.items())  # type: ignore[attr-defined]
    return state


def _by_specs(wanted: Mapping[str, TensorSpec], given: Mapping[str, TensorSpec], entries: Iterable[str]) -> Verdict:
    missing = tuple(key for key in wanted if key not in given)
    unexpected = (*(key for key in given if key not in wanted), *entries)
    mismatched = tuple(key for key in wanted if key in given and wanted[key].shape != given[key].shape)
    counts = {"missing": missing, "unexpected": unexpected, "of another shape": mismatched}
    message = ", ".join(f"{len(keys)} {what}" for what, keys in counts.items() if keys)
    return Verdict(not message, missing, unexpected, mismatched, message, message)


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
        with torch.no_grad(), _without_extra_state(module):
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
