"""What others do: from two listings to pairs of (target key, source key), all of equal shape."""

from __future__ import annotations

import re
import signal
import types
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ckptool.core.spec import TensorSpec

Specs = dict[str, TensorSpec]
Pairs = list[tuple[str, str]]

LIBERATOR_SECONDS = 20  # per pair; its trees grow with the square of the keys


class RefusedError(Exception):
    """The method ended with an error of its own instead of an answer."""


def exact_names(source: Specs, target: Specs) -> Pairs:
    """`load_state_dict(strict=False)` after dropping what has another shape."""
    return [(key, key) for key, spec in target.items() if key in source and source[key].shape == spec.shape]


def longest_suffix(source: Specs, target: Specs) -> Pairs:
    """detectron2's `align_and_update_state_dicts`: the longest source key that ends a target key.

    As there, one source key for two target keys is an error, and a pair of other shapes is skipped.
    """
    found: Pairs = []
    taken: dict[str, str] = {}
    for key in sorted(target):
        parts = key.split(".")
        suffixes = (".".join(parts[at:]) for at in range(len(parts)))  # the longest first
        name = next((suffix for suffix in suffixes if suffix in source), None)
        if name is None or source[name].shape != target[key].shape:
            continue
        if name in taken:
            raise RefusedError(f"{name} for both {taken[name]} and {key}")
        taken[name] = key
        found.append((key, name))
    return found


def order_and_shape(source: Specs, target: Specs) -> Pairs:
    """The nth tensor of a shape and dtype here is the nth of it there."""
    return [pair for keys in _classes(source, target) for pair in zip(keys[1], keys[0], strict=False)]


def hungarian(source: Specs, target: Specs) -> Pairs:
    """Within each class of one shape and dtype, the assignment with the most words in common; ties by order."""
    found: Pairs = []
    for sources, targets in _classes(source, target):
        if not sources or not targets:
            continue
        rows, columns = (_bags(keys) for keys in (targets, sources))
        words = sorted(set().union(*rows, *columns))
        at = {word: number for number, word in enumerate(words)}
        a, b = (_matrix(bags, at) for bags in (rows, columns))
        common = np.minimum(a[:, None, :], b[None, :, :]).sum(-1)
        likeness = 2 * common / (a.sum(1)[:, None] + b.sum(1)[None, :])
        places = np.abs(np.linspace(0, 1, len(targets))[:, None] - np.linspace(0, 1, len(sources))[None, :])
        cost = -likeness + 1e-3 * places
        if cost.shape[0] <= cost.shape[1]:
            chosen = enumerate(assignment(cost))
        else:
            chosen = ((row, column) for column, row in enumerate(assignment(cost.T)))
        found += [(targets[row], sources[column]) for row, column in chosen]
    return found


def _classes(source: Specs, target: Specs) -> list[tuple[list[str], list[str]]]:
    classes: dict[tuple[tuple[int, ...], str], tuple[list[str], list[str]]] = {}
    for side, specs in enumerate((source, target)):
        for key, spec in specs.items():
            classes.setdefault((spec.shape, spec.dtype), ([], []))[side].append(key)
    return list(classes.values())


@cache
def _words(key: str) -> tuple[str, ...]:
    """Letters and numbers apart: "layer1.0.bn2" -> layer 1 0 bn 2."""
    return tuple(re.findall(r"[a-z]+|[A-Z][a-z]*|\d+", key))


def _bags(keys: list[str]) -> list[dict[str, int]]:
    bags = []
    for key in keys:
        bag: dict[str, int] = {}
        for word in _words(key):
            word = word.lower()
            bag[word] = bag.get(word, 0) + 1
        bags.append(bag)
    return bags


def _matrix(bags: list[dict[str, int]], at: dict[str, int]) -> Any:
    matrix = np.zeros((len(bags), len(at)), np.int16)
    for row, bag in enumerate(bags):
        for word, number in bag.items():
            matrix[row, at[word]] = number
    return matrix


def assignment(cost: Any) -> list[int]:
    """For each row its column, of the least total cost (the Hungarian method in n^2 m); no more rows than columns.

    Example:
        >>> assignment(np.array([[4.0, 1.0, 3.0], [2.0, 0.0, 5.0]]))
        [1, 0]
    """
    n, m = cost.shape
    u, v = np.zeros(n + 1), np.zeros(m + 1)
    row_of = np.zeros(m + 1, int)  # of each column, counted from one; 0 is none
    way = np.zeros(m + 1, int)
    for row in range(1, n + 1):
        row_of[0], column = row, 0
        least = np.full(m + 1, np.inf)
        used = np.zeros(m + 1, bool)
        while row_of[column]:
            used[column] = True
            reduced = cost[row_of[column] - 1] - u[row_of[column]] - v[1:]
            better = ~used[1:] & (reduced < least[1:])
            least[1:][better] = reduced[better]
            way[1:][better] = column
            free = np.where(used[1:], np.inf, least[1:])
            following = int(free.argmin()) + 1
            delta = free[following - 1]
            u[row_of[used]] += delta
            v[used] -= delta
            least[~used] -= delta
            column = following
        while column:
            row_of[column] = row_of[way[column]]
            column = int(way[column])
    found = [0] * n
    for column in range(1, m + 1):
        if row_of[column]:
            found[row_of[column] - 1] = column - 1
    return found


def torch_liberator(source: Specs, target: Specs) -> Pairs:
    """Its own `load_partial_state(association="isomorphism", mangle=False)` on tensors without data."""
    import torch
    from torch_liberator.initializer import load_partial_state

    states = [
        {key: torch.empty(spec.shape, device="meta", dtype=getattr(torch, spec.dtype)) for key, spec in specs.items()}
        for specs in (source, target)
    ]
    model = types.SimpleNamespace(state_dict=lambda: dict(states[1]), load_state_dict=lambda state: None)
    old = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(LIBERATOR_SECONDS)
    try:
        mapping = load_partial_state(model, states[0], association="isomorphism", mangle=False, verbose=0)["mapping"]
    except (RefusedError, ImportError):
        raise
    except Exception as error:
        raise RefusedError(f"{type(error).__name__}: {error}") from None
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
    found = {mapping.get(key, key): key for key in source}
    return [(key, name) for key, name in found.items() if key in target and source[name].shape == target[key].shape]


def _too_long(*_: Any) -> None:
    raise RefusedError(f"no answer in {LIBERATOR_SECONDS} s")


BASELINES: dict[str, Callable[[Specs, Specs], Pairs]] = {
    "exact names": exact_names,
    "longest suffix (detectron2)": longest_suffix,
    "order and shape": order_and_shape,
    "shape classes, Hungarian": hungarian,
    "torch_liberator": torch_liberator,
}
