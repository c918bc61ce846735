"""What a model's own loading makes of a state dict: hooks that rename, split or compute, followed with empty tensors.

The hooks of the model run once, on tensors without data, while every operation of torch is recorded. What reaches a
tensor of the model is a source tensor under another name, or a short program over source tensors that runs later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from ckptool.core.arrays import numpy_dtype
from ckptool.core.errors import PlanError
from ckptool.core.plan import Run
from ckptool.core.spec import DTYPES, TensorSpec
from ckptool.models.strict import empty_state, load_without_data
from ckptool.models.target import Target

if TYPE_CHECKING:
    import numpy as np
    import torch

    Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class _Ref:
    """A tensor of the program, by its number."""

    number: int


@dataclass(frozen=True, slots=True)
class _Call:
    """One operation of torch; tensors stand in it as `_Ref`."""

    func: Any
    args: Any
    kwargs: Any
    results: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Hooked:
    """What a load hook computes of source tensors, as the op of a plan.

    Attributes:
        key: of the model's tensor that it is for.
        spec: its result.
        sources: specs of the arguments.
    """

    key: str
    spec: TensorSpec
    sources: tuple[TensorSpec, ...]
    _numbers: tuple[int, ...] = field(repr=False, compare=False)
    _calls: tuple[_Call, ...] = field(repr=False, compare=False)
    _constants: Mapping[int, Any] = field(repr=False, compare=False)
    _outcome: int = field(repr=False, compare=False)

    is_elementwise = False

    @property
    def text(self) -> str:
        return "load hook of the model"

    def result(self, args: Sequence[TensorSpec]) -> TensorSpec:
        if [(arg.shape, arg.dtype) for arg in args] != [(spec.shape, spec.dtype) for spec in self.sources]:
            raise PlanError(f"the load hook for {self.key} was followed for other tensors", key=self.key)
        return self.spec

    def runs(self, args: Sequence[TensorSpec]) -> list[Run] | None:
        return None

    def compute(self, args: Sequence[Array]) -> Array:
        import torch

        values = dict(self._constants)
        for number, array, spec in zip(self._numbers, args, self.sources, strict=True):
            values[number] = _tensor(array, spec)
        with torch.no_grad():
            for call in self._calls:
                positional, kwargs = _filled(call.args, values), _filled(call.kwargs, values)
                made = [out for out in _leaves(call.func(*positional, **kwargs)) if isinstance(out, torch.Tensor)]
                values |= dict(zip(call.results, made, strict=True))
        flat = values[self._outcome].contiguous().reshape(-1)
        found: Array = flat.view(torch.uint8).numpy().view(numpy_dtype(self.spec.dtype)).reshape(self.spec.shape)
        return found


@dataclass(frozen=True, slots=True)
class Loading:
    """What reaches the tensors of a model, by their keys.

    Attributes:
        values: the key of a source tensor, or what is computed of several.
        own: keys that the model's loading fills by itself, without the source.
        lost: keys that get something that cannot be followed.
    """

    values: Mapping[str, str | Hooked]
    own: frozenset[str]
    lost: frozenset[str]


def loading(
    target: Target,
    specs: Mapping[str, TensorSpec],
    versions: Mapping[str, int] | None,
    entries: Iterable[str] = (),
) -> Loading | None:
    """What `load_state_dict` puts where, hooks and all; see `strict_verdict` for the arguments.

    Returns:
        None where no hook could change anything, or the model's loading stops at tensors without data.

    Example:
        >>> import torch
        >>> from ckptool.models import target_of
        >>> target = target_of(torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(4, 2)))
        >>> shapes = {"bias": (2,), "weight_g": (2, 1), "weight_v": (2, 4)}
        >>> specs = {key: TensorSpec(key, "float32", shape) for key, shape in shapes.items()}
        >>> loading(target, specs, None).values["parametrizations.weight.original0"]
        'weight_g'
    """
    import torch

    module = target.module
    if module is None:
        return None
    assert isinstance(module, torch.nn.Module)
    if not _has_hooks(module):
        return None
    state = empty_state(specs, versions, entries)
    recorders: list[Any] = []

    def recording() -> AbstractContextManager[object]:
        own = {key: value for key, value in module.state_dict(keep_vars=True).items() if _is_tensor(value)}
        recorders.append(_recorder(state, own))
        mode: AbstractContextManager[object] = recorders[-1]
        return mode

    judged, raised = load_without_data(module, state, recording)
    if judged is None and raised is not None:
        return None
    found: Loading = recorders[-1].loading(specs)
    return found


def _has_hooks(module: torch.nn.Module) -> bool:
    """True if loading does more than to look keys up; the counters that torch's own norms fill in are no such thing."""
    import torch

    plain = (torch.nn.Module, torch.nn.modules.batchnorm._NormBase, torch.nn.modules.instancenorm._InstanceNorm)
    loads = {kind._load_from_state_dict for kind in plain}
    if type(module).load_state_dict is not torch.nn.Module.load_state_dict:
        return True
    return any(
        part._load_state_dict_pre_hooks or type(part)._load_from_state_dict not in loads for part in module.modules()
    )


def _recorder(state: Mapping[str, Any], own: Mapping[str, torch.Tensor]) -> Any:
    """A mode of torch that writes down every operation while it is on."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_map

    class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.tensors: list[torch.Tensor] = []  # kept, so that no identity is used twice
            self.numbers: dict[int, int] = {}
            self.calls: list[_Call] = []
            self.loaded: dict[str, int] = {}
            self.partly: set[str] = set()
            self.sources = {self.number(value): key for key, value in state.items() if isinstance(value, torch.Tensor)}
            self.places: dict[object, list[str]] = {}
            self.storages: dict[int, list[str]] = {}
            for key, value in own.items():
                self.number(value)
                self.places.setdefault(_place(value), []).append(key)
                self.storages.setdefault(_storage(value), []).append(key)

        def number(self, tensor: torch.Tensor) -> int:
            if id(tensor) not in self.numbers:
                self.numbers[id(tensor)] = len(self.tensors)
                self.tensors.append(tensor)
            return self.numbers[id(tensor)]

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            out = func(*args, **kwargs)
            first = args[0] if args and isinstance(args[0], torch.Tensor) else None
            if func._schema.is_mutable and first is not None and _storage(first) in self.storages:
                whole = self.places.get(_place(first), []) if func is torch.ops.aten.copy_.default else []
                for key in self.storages[_storage(first)]:
                    if key in whole and isinstance(args[1], torch.Tensor):
                        self.loaded[key] = self.number(args[1])
                    else:
                        self.partly.add(key)
                return out
            named = [tree_map(self.named, part) for part in (args, kwargs)]
            made = tuple(self.number(leaf) for leaf in _leaves(out) if isinstance(leaf, torch.Tensor))
            self.calls.append(_Call(func, named[0], named[1], made))
            return out

        def named(self, leaf: Any) -> Any:
            return _Ref(self.number(leaf)) if isinstance(leaf, torch.Tensor) else leaf

        def loading(self, specs: Mapping[str, TensorSpec]) -> Loading:
            values: dict[str, str | Hooked] = {}
            theirs, lost = set(), set(self.partly)
            for key, number in self.loaded.items():
                calls, numbers = self.needed(number)
                used = [found for found in sorted(numbers) if found in self.sources]
                if not used:
                    theirs.add(key)
                elif number in self.sources and not calls:
                    values[key] = self.sources[number]
                elif (op := self.op(key, number, used, calls, specs)) is not None:
                    values[key] = op
                else:
                    lost.add(key)
            values = {key: value for key, value in values.items() if key not in lost}
            return Loading(values, frozenset(theirs), frozenset(lost))

        def needed(self, number: int) -> tuple[list[_Call], set[int]]:
            """The calls that a tensor depends on, those that write into shared memory too; and all their tensors."""
            wanted, numbers, calls = {_storage(self.tensors[number])}, {number}, []
            for call in reversed(self.calls):
                inside = [leaf.number for leaf in _leaves((call.args, call.kwargs)) if isinstance(leaf, _Ref)]
                touched = {_storage(self.tensors[made]) for made in call.results}
                if call.func._schema.is_mutable:
                    touched |= {_storage(self.tensors[at]) for at in inside[:1]}
                if touched & wanted:
                    calls.append(call)
                    numbers |= {*inside, *call.results}
                    wanted |= {_storage(self.tensors[at]) for at in inside}
            return calls[::-1], numbers

        def op(
            self, key: str, number: int, used: list[int], calls: list[_Call], specs: Mapping[str, TensorSpec]
        ) -> Hooked | None:
            outcome = self.tensors[number]
            dtype = str(outcome.dtype).removeprefix("torch.")
            sources = tuple(specs[self.sources[at]] for at in used)
            made = {result for call in calls for result in call.results}
            inside = {leaf.number for call in calls for leaf in _leaves((call.args, call.kwargs)) if _is_ref(leaf)}
            others = {at: self.tensors[at] for at in inside - made - set(used)}
            if any(value.is_meta for value in others.values()) or dtype not in DTYPES:
                return None  # it needs values of the model itself
            dtypes = [str(self.tensors[at].dtype) for at in used]
            if dtypes != [f"torch.{spec.dtype}" for spec in sources]:
                return None
            spec = TensorSpec(key, dtype, tuple(outcome.shape))
            return Hooked(key, spec, sources, tuple(used), tuple(calls), others, number)

    return Recorder()


def _is_tensor(value: object) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _is_ref(leaf: object) -> bool:
    return isinstance(leaf, _Ref)


def _leaves(tree: object) -> list[Any]:
    from torch.utils._pytree import tree_leaves

    found: list[Any] = tree_leaves(tree)
    return found


def _storage(tensor: torch.Tensor) -> int:
    found: int = tensor.untyped_storage()._cdata
    return found


def _place(tensor: torch.Tensor) -> object:
    return _storage(tensor), tensor.storage_offset(), tensor.shape, tensor.stride()


def _filled(tree: Any, values: Mapping[int, Any]) -> Any:
    """Arguments of a call with their tensors; what was made without data is made on the CPU."""
    import torch
    from torch.utils._pytree import tree_map

    def leaf(given: Any) -> Any:
        if isinstance(given, _Ref):
            return values[given.number]
        return torch.device("cpu") if isinstance(given, torch.device) else given

    return tree_map(leaf, tree)


def _tensor(array: Array, spec: TensorSpec) -> torch.Tensor:
    """A copy as a tensor, for hooks may write into what they get."""
    import numpy as np
    import torch

    flat = np.array(array, copy=True, order="C").reshape(-1).view(np.uint8)
    dtype: torch.dtype = getattr(torch, spec.dtype)
    return torch.from_numpy(flat).view(dtype).reshape(spec.shape)
