"""Which part of a torch file holds the weights.

The file itself, if it is a dict of tensors; else the dict under the name that is usual for weights; else the only one.
A moving average (EMA) is taken only if there is nothing else. Optimizers, schedulers and random states are never
taken. If no single dict is clear, everything is: the keys then carry the whole path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from ckptool.core.checkpoint import Selection
from ckptool.core.errors import UsageError
from ckptool.formats.torch.names import is_ema_name, key_text
from ckptool.formats.torch.storage import StorageOf
from ckptool.formats.torch.tensor import is_numpy, is_tensor, tensor_of
from ckptool.formats.torch.walk import Pairs, Walk, is_container, is_mapping

_USUAL = ("state_dict", "model", "model_state_dict", "model_state", "module", "net", "network", "params", "weights")
_STUDENT, _TEACHER = "student", "teacher"
_EMA_ORDER = ("state_dict_ema", "model_ema", "ema", "ema_state_dict", "params_ema")
_NEVER = re.compile(r"optim|sched|scaler|(?:^|_)rng|^(?:hyper_parameters|hparams|args|config|cfg|opt)$", re.IGNORECASE)
_MAX_LISTED = 1000
_MAX_STEPS = 8

Step = tuple[object, object]
"""A key, and the object under it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The node that was chosen, and the way to it.

    Attributes:
        node: the container or tensor.
        steps: the way from the root: each key, and what is under it.
        everything: True if it is not one dict of weights, but all that holds tensors under it.
        selection: the same in words.
    """

    node: object
    steps: tuple[Step, ...]
    everything: bool
    selection: Selection


class Chooser:
    """Finds the weights in one file.

    Args:
        walk: looks into containers.
        holds: the containers that hold tensors, from `Walk.holds_tensors`.
        storage_of: finds storages, to know the size of loose tensors.

    Where there are torch tensors, numpy arrays do not decide what the weights are: they may be a random state.
    """

    def __init__(self, walk: Walk, holds: AbstractSet[int], storage_of: StorageOf) -> None:
        self.walk = walk
        self.all_holds = self.holds = holds
        self.is_weight: Callable[[object], bool] = is_tensor
        self.storage_of = storage_of
        self._weights: dict[int, bool] = {}

    def choose(self, root: object, select: str | None) -> Choice:
        """The selected weights under `root`.

        Args:
            root: the object in the file.
            select: a dotted path; "" or "." for the root; None to choose.

        Raises:
            UsageError: there is no such path, or no tensor under it.
        """
        if self.walk.met_arrays:
            torch_holds = self.walk.holds_tensors(root, _is_torch)
            if torch_holds or _is_torch(root):
                self.holds, self.is_weight = torch_holds, _is_torch
        candidates = list(self._candidates(root))
        if select is None:
            steps, why, everything = self._automatic(root)
        else:
            steps, why, everything = self._asked_for(root, select, candidates), "asked for", False
        path = tuple(key_text(key) for key, _ in steps)
        others = tuple(".".join(other) for other in candidates if other != path)
        ema = next((".".join(other) for other in candidates if other != path and _is_ema(other, candidates)), None)
        return Choice(steps[-1][1] if steps else root, steps, everything, Selection(path, why, others, ema))

    def _automatic(self, root: object) -> tuple[tuple[Step, ...], str, bool]:
        """Down from the root, as long as one way is clear: (steps, why, everything)."""
        if is_tensor(root):
            return (), 'the file is one tensor, listed as "tensor"', False
        if id(root) not in self.holds:
            return (), "the file holds no tensors", False
        if self._is_weights(root):
            return (), "a whole module" if self.walk.is_module(root) else "the file itself is a dict of tensors", False
        steps: tuple[Step, ...] = ()
        node, why = root, ""
        while not self._is_weights(node):
            found = self._step(node) if len(steps) < _MAX_STEPS else None
            if found is None:
                where = f" under {'.'.join(key_text(key) for key, _ in steps)}" if steps else ""
                return steps, f"no single dict of weights: every tensor{where}, by its whole path", True
            key, node, why = found
            steps = (*steps, (key, node))
        return steps, why, False

    def _step(self, node: object) -> tuple[object, object, str] | None:
        """The one entry of `node` to go on with: (key, child, why); None if none is clear."""
        inside = [(key, child) for key, child in self._allowed(node) if id(child) in self.holds]
        raw = [(key, child) for key, child in inside if not is_ema_name(key_text(key))]
        names = {key_text(key) for key, _ in raw}
        for name in (*_USUAL, _STUDENT):
            if name in names and (name != _STUDENT or names <= {_STUDENT, _TEACHER}):
                key, child = next(pair for pair in raw if key_text(pair[0]) == name)
                why = "the usual name for weights" if len(inside) > 1 else "the only dict of tensors"
                return key, child, why
        if self._has_loose_tensors(node):
            return None
        if len(raw) == 1:
            why = (
                "the only dict of tensors" if len(inside) == 1 else "the only dict of weights that is no moving average"
            )
            return (*raw[0], why)
        if not raw and inside:
            order = {name: place for place, name in enumerate(_EMA_ORDER)}
            best = min(inside, key=lambda pair: order.get(key_text(pair[0]), len(order)))
            return (*best, "a moving average, the only weights in the file")
        return None

    def _allowed(self, node: object) -> Pairs:
        return [(key, child) for key, child in self.walk.entries(node) if not self.is_never(key, child)]

    def is_never(self, key: object, child: object) -> bool:
        """True for optimizers, schedulers, random states: they hold tensors, but no weights."""
        if type(key) is str and _NEVER.search(key):
            return True
        return is_mapping(child) and any(
            name == "param_groups" for name, _ in self.walk.pairs(child) if type(name) is str
        )

    def _has_loose_tensors(self, node: object) -> bool:
        """True if tensors of more than one element lie beside the dicts: then these are parts of a nested whole."""
        for key, child in self._allowed(node):
            tensor = tensor_of(child, self.storage_of, key_text(key)) if self.is_weight(child) else None
            if tensor is not None and tensor.elements > 1:
                return True
        return False

    def _is_weights(self, node: object) -> bool:
        """True for a module, and for a dict that holds tensors directly and no further dicts of tensors."""
        known = self._weights.get(id(node))
        if known is None:
            known = self._weights[id(node)] = self._looks_like_weights(node)
        return known

    def _looks_like_weights(self, node: object) -> bool:
        if not is_container(node):
            return True
        if self.walk.is_module(node):
            return id(node) in self.holds
        entries = self.walk.entries(node)
        if not any(self.is_weight(child) for _, child in entries):
            return False
        return not any(
            id(child) in self.holds and type(child) not in (list, tuple)
            for key, child in entries
            if not (type(key) is str and key.endswith("_extra_state"))
        )

    def _candidates(self, root: object) -> Iterator[tuple[str, ...]]:
        """Paths of everything that --select could take as weights, outermost first; each dict around them once."""
        seen: set[int] = set()
        stack: list[tuple[tuple[str, ...], object]] = [((), root)]
        count = 0
        while stack and count < _MAX_LISTED:
            path, node = stack.pop()
            if id(node) not in self.holds:
                continue
            if self._is_weights(node):
                count += 1
                yield path
            elif id(node) not in seen and len(path) < _MAX_STEPS:
                seen.add(id(node))
                stack.extend(((*path, key_text(key)), child) for key, child in reversed(self._allowed(node)))

    def _asked_for(self, root: object, select: str, candidates: list[tuple[str, ...]]) -> tuple[Step, ...]:
        """The way to a dotted path; a key that holds dots itself is found too."""
        if select in ("", "."):
            return ()
        ways: list[tuple[tuple[Step, ...], object, str]] = [((), root, select)]
        while ways:
            steps, node, rest = ways.pop()
            for key, child in self.walk.entries(node) if is_container(node) else ():
                text = key_text(key)
                if rest == text and (id(child) in self.all_holds or is_tensor(child)):
                    return (*steps, (key, child))
                if rest.startswith(text + "."):
                    ways.append(((*steps, (key, child)), child, rest[len(text) + 1 :]))
        names = ", ".join(".".join(path) or '"."' for path in candidates[:12])
        hint = f"--select takes one of: {names}" if names else "the file holds no dict of tensors"
        if list(candidates) == [()]:
            hint = "the weights are at the top of the file: leave out --select"
        raise UsageError(f"there are no tensors under {select}", hint=hint)


def _is_torch(node: object) -> bool:
    """True for a torch tensor."""
    return is_tensor(node) and not is_numpy(node)


def _is_ema(path: tuple[str, ...], candidates: list[tuple[str, ...]]) -> bool:
    """True if a name on the path says so, or if it is the teacher of a student."""
    if any(is_ema_name(part) for part in path):
        return True
    return path[-1:] == (_TEACHER,) and (*path[:-1], _STUDENT) in candidates
