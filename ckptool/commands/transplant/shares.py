"""How much of each module is loaded, and norms that do not go with the layer before them or with their own numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from ckptool.core.checkpoint import Note
from ckptool.core.keys import Pattern
from ckptool.models import Target
from ckptool.models.entries import Entry, Filled

_NORM_NAMES = ("norm", "bn", "ln", "gn")


class State(StrEnum):
    """What a module got: every tensor from the source, some of them, or none."""

    LOADED = "loaded"
    PARTLY = "partly loaded"
    NEW = "new"


@dataclass(frozen=True, slots=True)
class Share:
    """A module, and how much of it comes from the source.

    Attributes:
        name: its dotted name; of a tensor that is in no module, its key.
        tensors: (filled, all), counters and buffers that the model computes aside.
        elements: the same of elements.
    """

    name: str
    tensors: tuple[int, int]
    elements: tuple[int, int]

    @property
    def share(self) -> float:
        """The smaller of both shares, 0 to 1."""
        return min((part / whole if whole else 1.0) for part, whole in (self.tensors, self.elements))

    @property
    def state(self) -> State:
        filled, whole = self.elements
        return State.LOADED if filled == whole else State.PARTLY if filled else State.NEW


def share_of(name: str, entries: Iterable[Entry]) -> Share:
    """The share of some tensors, those aside of which nothing depends on the source."""
    counted = [entry for entry in entries if not entry.is_harmless]
    return Share(
        name,
        (sum(entry.is_filled for entry in counted), len(counted)),
        (sum(entry.covered for entry in counted), sum(entry.spec.elements for entry in counted)),
    )


def module_shares(entries: Iterable[Entry]) -> dict[str, Share]:
    """The share of each module that holds tensors itself, in the target's order."""
    modules: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        modules[module_of(entry.key)].append(entry)
    return {name: share_of(name, inside) for name, inside in modules.items()}


def least_filled(entries: Iterable[Entry], mapped: Iterable[str]) -> Share | None:
    """The least-filled module of the target that has a namesake in the source, with all that is inside.

    Args:
        entries: the target's tensors.
        mapped: keys of the source under the target's names.

    A norm of the source that the target split into two modules is the namesake of both.
    """
    inside: dict[str, list[Entry]] = {module_of(key): [] for key in mapped}
    for entry in entries:
        parts = entry.key.split(".")
        for end in range(len(parts), 0, -1):
            name = ".".join(parts[:end])
            if name in inside:
                inside[name].append(entry)
                break
    shares = [share_of(name, found) for name, found in inside.items()]
    return min((share for share in shares if share.tensors[1]), key=lambda share: share.share, default=None)


def module_of(key: str) -> str:
    """The module that holds a tensor; a tensor without one stands for itself."""
    return key.rpartition(".")[0] or key


def uneven_notes(entries: Iterable[Entry], target: Target, new: Iterable[str] = ()) -> Iterator[Note]:
    """A loaded layer before a norm with initial values, or the other way round: the two were trained together."""
    weights = {module_of(entry.key): entry for entry in entries if entry.key.endswith("weight")}
    layers = list(weights)
    patterns = [Pattern.parse(text) for text in new]
    meant = {name for name in layers if any(pattern.matches(weights[name].key) for pattern in patterns)}
    pairs = []
    for first, second in pairwise(layers):
        if first in meant or second in meant:
            continue
        layer, norm = weights[first], weights[second]
        if not _feeds(first, second, weights) or not _is_norm(second, norm, target.modules):
            continue
        if layer.is_filled != norm.is_filled:
            pairs.append((first, second))
    if not pairs:
        return
    first, second = pairs[0]
    what, without = f"{first} is loaded, and the norm after it, {second}, has", weights[second]
    if not weights[first].is_filled:
        what, without = f"{second} is loaded, and the layer before it, {first}, has", weights[first]
    hint = "they were trained together: a rule may fill both"
    if without.status is Filled.MISMATCHED:
        what, hint = f"{what} another shape and", "they were trained together: train both"
    keys = tuple(name for pair in pairs for name in pair)
    yield Note(f"{what} initial values{_more(pairs)}", hint, keys, "warning")


def statistics_notes(entries: Iterable[Entry], mapped: Iterable[str], target: Target) -> Iterator[Note]:
    """Norms whose weight is loaded and whose running statistics are not, or that have none where the source has some.

    Args:
        entries: the target's tensors.
        mapped: keys of the source under the target's names.
        target: the model.
    """
    known = {entry.key: entry for entry in entries}
    found = {module_of(key) for key in mapped if key.endswith(".running_mean")}
    filled = [module_of(key) for key, entry in known.items() if key.endswith(".weight") and entry.is_filled]
    without = [name for name in filled if name in found and f"{name}.running_mean" not in known]
    if without:
        kind = target.modules.get(without[0], "").rpartition(".")[2] or "a norm without statistics"
        what = f"{without[0]} is a BatchNorm in the source and {kind} in the model{_more(without)}"
        hint = "weight and bias are loaded, and mean another thing without its statistics: train it, or --drop them"
        yield Note(what, hint, tuple(without), "warning")
    means = ((name, known.get(f"{name}.running_mean")) for name in filled)
    initial = [name for name, mean in means if mean is not None and not mean.is_filled]
    if initial:
        what = f"the weight of {initial[0]} is loaded, and its running statistics have initial values{_more(initial)}"
        hint = "evaluation uses them: train it, or compute them with torch.optim.swa_utils.update_bn"
        yield Note(what, hint, tuple(initial), "warning")


def _more(found: Sequence[object]) -> str:
    return f"; so it is with {len(found) - 1:,} more" if len(found) > 1 else ""


def _feeds(first: str, second: str, weights: Mapping[str, Entry]) -> bool:
    """True if two modules that follow each other stand in one module, or the second one level deeper: `bn1.IN`."""
    layer, norm = weights[first].spec.shape, weights[second].spec.shape
    around, beside = first.rpartition(".")[0], second.rpartition(".")[0]
    is_near = around in (beside, beside.rpartition(".")[0])
    return is_near and len(layer) > 1 and len(norm) == 1 and norm[0] <= max(layer[0], layer[1])


def _is_norm(name: str, weight: Entry, modules: Mapping[str, str]) -> bool:
    kind = modules.get(name, "").rpartition(".")[2]
    if kind:
        return "norm" in kind.lower()
    *_, above, last = ("", *name.lower().split("."))
    return any(word in part for part in (above, last) for word in _NORM_NAMES) or last in ("in", "bn")
