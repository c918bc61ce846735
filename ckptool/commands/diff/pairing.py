"""Which tensor of the old checkpoint stands against which of the new one: by key, wrapper prefixes seen through."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product

from ckptool.core.checkpoint import Tensor
from ckptool.core.keys import common_prefix, wrapper_prefix

_DEEPEST = 8


def seen_through(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> tuple[str, str]:
    """The prefixes of all old and of all new keys without which the most keys line up.

    Wrapper prefixes ("module.") come first; other prefixes ("model.", "backbone.") are tried where fewer than half of
    the keys of the smaller side line up. A prefix is only seen through if more tensors of equal key and shape meet
    without it than with it.

    Example:
        >>> from ckptool.core.spec import TensorSpec
        >>> old, new = ({key: Tensor(TensorSpec(key, "float32", (2,)))} for key in ("module.fc.bias", "fc.bias"))
        >>> seen_through(old, new)
        ('module.', '')
    """
    best, most = ("", ""), _meeting(old, new, "", "")
    wrappers = ({"", wrapper_prefix(old)}, {"", wrapper_prefix(new)})
    for pair in sorted(product(*wrappers), key=_least):
        if (found := _meeting(old, new, *pair)) > most:
            best, most = pair, found
    if most * 2 < min(len(old), len(new)):
        for pair in sorted(product(_prefixes(old), _prefixes(new)), key=_least):
            if (found := _meeting(old, new, *pair)) > most:
                best, most = pair, found
    return best


def _least(pair: tuple[str, str]) -> tuple[int, str, str]:
    return len(pair[0]) + len(pair[1]), *pair


def _prefixes(keys: Iterable[str]) -> list[str]:
    """Every dotted prefix that all keys have, the empty one first."""
    parts = common_prefix(keys).split(".")[:-1][:_DEEPEST]
    return ["".join(f"{part}." for part in parts[:count]) for count in range(len(parts) + 1)]


def _meeting(old: Mapping[str, Tensor], new: Mapping[str, Tensor], old_prefix: str, new_prefix: str) -> int:
    """How many keys are on both sides without the prefixes, with equal shapes."""
    count = 0
    for key, tensor in old.items():
        other = new.get(new_prefix + key[len(old_prefix) :])
        count += other is not None and other.shape == tensor.shape
    return count


def in_order(old: Iterable[str], new: Iterable[str], old_key_of: Mapping[str, str]) -> Iterator[tuple[bool, str]]:
    """(is new, key) of all new keys in their order, and of old keys without a partner behind the one they followed.

    Args:
        old: old keys.
        new: new keys.
        old_key_of: the partner of each new key that has one.

    Example:
        >>> list(in_order(["a", "x", "b"], ["b", "a"], {"a": "a", "b": "b"}))
        [(True, 'b'), (True, 'a'), (False, 'x')]
    """
    taken = {old_key: new_key for new_key, old_key in old_key_of.items()}
    behind: dict[str | None, list[str]] = {}
    anchor = None
    for key in old:
        if key in taken:
            anchor = taken[key]
        else:
            behind.setdefault(anchor, []).append(key)
    for key in behind.get(None, ()):
        yield False, key
    for key in new:
        yield True, key
        for removed in behind.get(key, ()):
            yield False, removed
