"""Weights that are computed from stored parts: weight norm, spectral norm, pruning masks, parametrizations."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ckptool.core.counts import many
from ckptool.core.facts import FINE, Answer, Fact, Operation, Say, Use
from ckptool.core.tensor import Tensor
from ckptool.facts.headers import Headers, below
from ckptool.facts.registry import finder


@dataclass(frozen=True, slots=True)
class Reparametrised(Fact):
    """Layers whose weight is computed from stored parts.

    Attributes:
        parts: the keys that make one weight, of each layer.
    """

    parts: tuple[tuple[str, ...], ...] = ()

    name = "reparametrised"
    tells = True
    rank = 12

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        return self.parts

    @property
    @abstractmethod
    def what(self) -> str:
        """The method in two words."""

    def answer(self, use: Use) -> Answer:
        match use.operation:
            case Operation.COMPUTE if use.mixed:
                return Say(
                    f"{many(len(use.keys), 'tensor')} of {self.what} averaged or mixed: the weights that they make are "
                    "not the average of the weights",
                    "fuse the parts of every input before: ckptool remap IN -r weight-norm-fuse -o PLAIN",
                )
            case Operation.DROP:
                return Say(f"parts of {self.what} are dropped and others kept: {use.keys[0]}")
        return FINE


@dataclass(frozen=True, slots=True)
class WeightNorm(Reparametrised):
    """weight_norm; `dim` is the axis that keeps its size in g, -1 for a norm over everything, None if unknown."""

    dim: int | None = None
    new: bool = False

    name = "weight-norm"

    @property
    def what(self) -> str:
        return "weight_norm"

    @property
    def text(self) -> str:
        dim = (
            f" over dim {self.dim}"
            if self.dim not in (0, None, -1)
            else " over the whole tensor"
            if self.dim == -1
            else ""
        )
        layers = many(len(self.parts), "layer")
        if self.new:
            return f"{layers} with weight_norm as a parametrization (original0 = g, original1 = v){dim}"
        return f"{layers} with weight_norm (weight = weight_g * weight_v / norm(weight_v)){dim}"

    @property
    def hint(self) -> str:
        if self.new:
            return "older code calls them weight_g and weight_v"
        return "load into a model with the same, or fuse the two first: see ckptool remap --help"


@dataclass(frozen=True, slots=True)
class SpectralNorm(Reparametrised):
    """spectral_norm; weight_u and weight_v are the state of a power iteration."""

    name = "spectral-norm"

    @property
    def what(self) -> str:
        return "spectral_norm"

    @property
    def text(self) -> str:
        return f"{many(len(self.parts), 'layer')} with spectral_norm (weight = weight_orig / sigma(weight_orig, u, v))"

    @property
    def hint(self) -> str:
        return "load into a model with the same; remove_spectral_norm in torch makes plain weights"

    def answer(self, use: Use) -> Answer:
        if use.operation is Operation.COMPUTE and use.mixed:
            return Say(
                "the vectors u and v of spectral_norm are averaged or mixed: they belong to one weight, and sigma is "
                f"wrong until they are made anew ({many(len(self.parts), 'layer')})",
                "run a few forward passes in train() mode after loading, or remove_spectral_norm before merging",
            )
        return Reparametrised.answer(self, use)


@dataclass(frozen=True, slots=True)
class Pruned(Reparametrised):
    """Pruning masks of torch.nn.utils.prune."""

    name = "pruning-mask"

    @property
    def what(self) -> str:
        return "pruning masks"

    @property
    def text(self) -> str:
        return f"{many(len(self.parts), 'layer')} with pruning masks (weight = weight_orig * weight_mask)"

    @property
    def hint(self) -> str:
        return "load into a model with the same, or fuse the two first: see ckptool remap --help"

    def answer(self, use: Use) -> Answer:
        masks = tuple(key for key in use.keys if key.endswith("_mask"))
        if use.operation is Operation.CAST and not masks:
            return FINE
        return Reparametrised.answer(self, use)


@dataclass(frozen=True, slots=True)
class Parametrized(Reparametrised):
    """Any other parametrization of torch.nn.utils.parametrize: its class is in code, not in the file."""

    name = "parametrization"

    @property
    def what(self) -> str:
        return "parametrizations"

    @property
    def text(self) -> str:
        return f"{many(len(self.parts), 'tensor')} with a parametrization (torch.nn.utils.parametrize)"

    @property
    def hint(self) -> str:
        return "load into a model with the same; which function it is, the file does not say"


def weight_norm_dim(g: Tensor, v: Tensor) -> int | None:
    """The axis of a weight norm: that of which g has the size of v and 1 elsewhere; -1 for one norm of everything.

    Example:
        >>> from ckptool.core.spec import TensorSpec
        >>> weight = Tensor(TensorSpec("v", "float32", (6, 2, 5)))
        >>> weight_norm_dim(Tensor(TensorSpec("g", "float32", (1, 1, 5))), weight)
        2
    """
    if g.elements == 1 and v.elements != 1 and 1 not in v.shape:
        return -1
    axes = [
        axis
        for axis, size in enumerate(v.shape)
        if len(g.shape) == len(v.shape) and g.shape[axis] == size and g.elements == size
    ]
    return axes[0] if axes and math.prod(g.shape) == v.shape[axes[0]] else None


def _parts(headers: Headers, modules: list[str], *lasts: str) -> tuple[tuple[str, ...], ...]:
    rows = zip(*(below(modules, last) for last in lasts), strict=True)
    return tuple(tuple(key for key in row if key in headers.checkpoint.tensors) for row in rows)


def _flat(parts: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    return tuple(key for part in parts for key in part)


def _norms(headers: Headers, parts: tuple[tuple[str, ...], ...], new: bool) -> Iterator[WeightNorm]:
    """One fact for each axis."""
    by_dim: dict[int | None, list[tuple[str, ...]]] = {}
    tensors: Mapping[str, Tensor] = headers.checkpoint.tensors
    for g, v in parts:
        by_dim.setdefault(weight_norm_dim(tensors[g], tensors[v]), []).append((g, v))
    for dim, rows in by_dim.items():
        yield WeightNorm(_flat(tuple(rows)), tuple(rows), dim, new)


@finder
def find(headers: Headers) -> Iterator[Reparametrised]:
    for stem in _stems(headers, "_g", "_v"):
        yield from _norms(
            headers, _parts(headers, headers.with_all(f"{stem}_g", f"{stem}_v"), f"{stem}_g", f"{stem}_v"), False
        )
    for stem in _stems(headers, "_orig", "_mask"):
        parts = _parts(headers, headers.with_all(f"{stem}_orig", f"{stem}_mask"), f"{stem}_orig", f"{stem}_mask")
        yield Pruned(_flat(parts), parts)
    for stem in _stems(headers, "_orig", "_u"):
        names = (f"{stem}_orig", f"{stem}_u", f"{stem}_v")
        parts = _parts(headers, headers.with_all(*names[:2]), *names)
        yield SpectralNorm(_flat(parts), parts)
    yield from _parametrizations(headers)


def _stems(headers: Headers, first: str, second: str) -> list[str]:
    """``weight`` where ``weight_g`` and ``weight_v`` occur."""
    stems = [last.removesuffix(first) for last in headers.modules if last.endswith(first) and last != first]
    return [
        stem for stem in stems if stem + second in headers.modules and headers.with_all(stem + first, stem + second)
    ]


def _parametrizations(headers: Headers) -> Iterator[Reparametrised]:
    """``parametrizations.weight.original0`` and the like, as torch.nn.utils.parametrize writes them."""
    if "parametrizations" not in headers.parts:
        return
    tensors = headers.checkpoint.tensors
    pairs = [name for name in headers.with_all("original0", "original1") if _is_parametrized(name)]
    norms = [
        (g, v)
        for g, v in _parts(headers, pairs, "original0", "original1")
        if weight_norm_dim(tensors[g], tensors[v]) is not None
    ]
    yield from _norms(headers, tuple(norms), True)
    single = [name for name in headers.modules.get("original", ()) if _is_parametrized(name)]
    spectral = tuple(
        (f"{name}.original", f"{name}.0._u", f"{name}.0._v") for name in single if f"{name}.0._u" in tensors
    )
    spectral = tuple(tuple(key for key in part if key in tensors) for part in spectral)  # type: ignore[misc]
    if spectral:
        yield SpectralNorm(_flat(spectral), spectral)
    taken = {key for part in (*spectral, *norms) for key in part}
    keys = [*below(single, "original"), *below(pairs, "original0")]
    other = tuple((key,) for key in keys if key not in taken)
    if other:
        yield Parametrized(_flat(other), other)


def _is_parametrized(module: str) -> bool:
    return module.rpartition(".")[0].rpartition(".")[2] == "parametrizations"
