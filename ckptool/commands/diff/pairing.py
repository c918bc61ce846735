"""Which tensor of the old checkpoint stands against which of the new one: by key, wrapper prefixes seen through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, product
from operator import eq

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.keys import common_prefix, wrapper_prefix
from ckptool.core.spec import Form
from ckptool.core.tensor import Tensor

_DEEPEST = 8


@dataclass(frozen=True, slots=True, eq=False)
class Side(Mapping[str, Tensor]):
    """The tensors of a checkpoint by their keys without a prefix; each is made when it is asked for.

    Most keys have the prefix; what they are called without it is no other key.

    Example:
        >>> import ckptool
        >>> side = Side(ckptool.open("fixtures/training.ckpt"), "module.")
        >>> side["fc.bias"].key, side.form("fc.bias").label
        ('module.fc.bias', 'f32[100]')
    """

    checkpoint: Checkpoint
    prefix: str = ""

    def whole(self, key: str) -> str:
        """The key in the file: with the prefix, if there is such a one."""
        whole = self.prefix + key
        return whole if whole in self.checkpoint.tensors else key

    def form(self, key: str) -> Form:
        """Dtype, shape and size of one tensor, without the tensor."""
        return self.checkpoint.form(self.whole(key))

    def forms(self, keys: Iterable[str] | None = None) -> Iterator[Form]:
        """The forms of these tensors, or of all."""
        if not self.prefix or keys is None:
            return self.checkpoint.forms(keys)
        return self.checkpoint.forms(map(self.whole, keys))

    def __getitem__(self, key: str) -> Tensor:
        return self.checkpoint.tensors[self.whole(key)]

    def __contains__(self, key: object) -> bool:
        tensors = self.checkpoint.tensors
        if not isinstance(key, str) or self.prefix + key in tensors:
            return isinstance(key, str)
        return key in tensors and not key.startswith(self.prefix)

    def __iter__(self) -> Iterator[str]:
        keys = iter(self.checkpoint.tensors)
        return (key.removeprefix(self.prefix) for key in keys) if self.prefix else keys

    def __len__(self) -> int:
        return len(self.checkpoint.tensors)


def seen_through(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> tuple[str, str]:
    """The prefixes of old and of new keys without which the most keys line up.

    Wrapper prefixes ("module.") come first; other prefixes of all keys ("model.", "backbone.") are tried where fewer
    than half of the keys of the smaller side line up, and then those of most keys, beside which a model has a head of
    its own. A prefix is only seen through if more tensors of equal key and shape meet without it than with it.

    Example:
        >>> from ckptool.core.spec import TensorSpec
        >>> old, new = ({key: Tensor(TensorSpec(key, "float32", (2,)))} for key in ("module.fc.bias", "fc.bias"))
        >>> seen_through(old, new)
        ('module.', '')
    """
    olds, news = _shapes(old), _shapes(new)
    if olds == news:
        return "", ""
    best, most = ("", ""), _meeting(olds, news, "", "")
    wrappers = ({"", wrapper_prefix(old)}, {"", wrapper_prefix(new)})
    for pair in sorted(product(*wrappers), key=_least):
        if (found := _meeting(olds, news, *pair)) > most:
            best, most = pair, found
    if most * 2 < min(len(old), len(new)):
        for pair in sorted(product(_prefixes(old), _prefixes(new)), key=_least):
            if (found := _meeting(olds, news, *pair)) > most:
                best, most = pair, found
    if most * 2 < (enough := min(len(old), len(new))):
        for pair in sorted(product(_of_most(old), _of_most(new)), key=_least):
            if (found := _meeting_mostly(olds, news, *pair)) > most and found * 2 >= enough:
                best, most = pair, found
    return best


def partners(old: Checkpoint, new: Checkpoint) -> dict[str, str]:
    """The key in the old checkpoint of each new key that it has, prefixes seen through.

    Example:
        >>> import ckptool
        >>> found = partners(ckptool.open("fixtures/resnet18.pth"), ckptool.open("fixtures/training.ckpt"))
        >>> found["module.fc.bias"]
        'fc.bias'
    """
    before, after = seen_through(old, new)
    side = Side(old, before)
    return {key: side.whole(shown) for key in new if (shown := key.removeprefix(after)) in side}


_Shape = tuple[int, ...]


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, _Shape]:
    """The shape of each tensor."""
    if isinstance(tensors, Checkpoint):
        return dict(zip(tensors, (form.shape for form in tensors.forms()), strict=True))
    return {key: tensor.shape for key, tensor in tensors.items()}


def _least(pair: tuple[str, str]) -> tuple[int, str, str]:
    return len(pair[0]) + len(pair[1]), *pair


def _prefixes(keys: Iterable[str]) -> list[str]:
    """Every dotted prefix that all keys have, the empty one first."""
    parts = common_prefix(keys).split(".")[:-1][:_DEEPEST]
    return ["".join(f"{part}." for part in parts[:count]) for count in range(len(parts) + 1)]


def _of_most(keys: Collection[str]) -> list[str]:
    """Every dotted prefix that more than half of the keys have, the empty one first."""
    counts: Counter[str] = Counter()
    for key in keys:
        parts = key.split(".")[:-1][:_DEEPEST]
        counts.update(accumulate(f"{part}." for part in parts))
    return ["", *(prefix for prefix, many in counts.items() if 2 * many > len(keys))]


def _meeting_mostly(old: Mapping[str, _Shape], new: Mapping[str, _Shape], old_prefix: str, new_prefix: str) -> int:
    """The same for prefixes that not all keys have; none where a key would then be there twice."""
    ours, theirs = (
        {key.removeprefix(prefix): shape for key, shape in side.items()}
        for side, prefix in ((old, old_prefix), (new, new_prefix))
    )
    if len(ours) < len(old) or len(theirs) < len(new):
        return 0
    return sum(theirs.get(key) == shape for key, shape in ours.items())


def _meeting(old: Mapping[str, _Shape], new: Mapping[str, _Shape], old_prefix: str, new_prefix: str) -> int:
    """How many keys are on both sides without the prefixes, with equal shapes."""
    if old_prefix == new_prefix:
        return sum(map(eq, map(new.get, old), old.values()))
    size = len(old_prefix)
    return sum(new.get(new_prefix + key[size:]) == shape for key, shape in old.items())


def in_order(
    old: Iterable[str], new: Iterable[str], old_key_of: Mapping[str, str], both: Container[str] = ()
) -> Iterator[tuple[bool, str]]:
    """(is new, key) of all new keys in their order, and of old keys without a partner behind the one they followed.

    Args:
        old: old keys.
        new: new keys.
        old_key_of: the partner of each new key that has one of another name.
        both: keys that are their own partners.

    Example:
        >>> list(in_order(["a", "x", "b"], ["b", "a"], {}, {"a", "b"}))
        [(True, 'b'), (True, 'a'), (False, 'x')]
    """
    taken = {old_key: new_key for new_key, old_key in old_key_of.items()}
    behind: dict[str | None, list[str]] = {}
    anchor = None
    for key in old:
        if key in taken:
            anchor = taken[key]
        elif key in both:
            anchor = key
        else:
            behind.setdefault(anchor, []).append(key)
    for key in behind.get(None, ()):
        yield False, key
    for key in new:
        yield True, key
        for removed in behind.get(key, ()):
            yield False, removed
