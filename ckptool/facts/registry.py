"""All kinds of facts, and those that are true of one checkpoint. Each module of this folder adds its own kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from weakref import ref

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.facts import Fact
from ckptool.facts.headers import Headers

Finder = Callable[[Headers], Iterator[Fact]]

_FINDERS: list[Finder] = []
_KNOWN: dict[int, tuple[ref[Checkpoint], tuple[Fact, ...]]] = {}  # by id: a checkpoint compares like a dict


def finder(function: Finder) -> Finder:
    """Add a function that finds one kind of fact (a decorator)."""
    _FINDERS.append(function)
    _KNOWN.clear()
    return function


def facts_of(checkpoint: Checkpoint) -> tuple[Fact, ...]:
    """The facts of a checkpoint, warnings first; found once for each.

    Example:
        >>> from pathlib import Path
        >>> from ckptool.core.format import Format
        >>> from ckptool.core.tensor import Tensor
        >>> from ckptool.core.spec import TensorSpec
        >>> keys = ["module.fc.weight", "module.fc.bias"]
        >>> tensors = {key: Tensor(TensorSpec(key, "float32", (4,))) for key in keys}
        >>> [fact.name for fact in facts_of(Checkpoint(Path("a.pth"), Format("torch zip"), tensors))]
        ['wrapper']
    """
    key = id(checkpoint)
    if key in _KNOWN and _KNOWN[key][0]() is checkpoint:
        return _KNOWN[key][1]
    _import_kinds()
    headers = Headers.of(checkpoint)
    facts = [fact for find in _FINDERS for fact in find(headers)]
    found = tuple(sorted(facts, key=lambda fact: (fact.level != "warning", fact.rank)))
    if checkpoint.columns is not None:
        checkpoint.columns.forget_rows()
    _KNOWN[key] = ref(checkpoint, lambda _: _KNOWN.pop(key, None)), found
    return found


def kinds() -> tuple[type[Fact], ...]:
    """All kinds of facts."""
    _import_kinds()
    left, found = [*Fact.__subclasses__()], []
    while left:
        kind = left.pop()
        left += kind.__subclasses__()
        found.append(kind)
    return tuple(found)


def names() -> tuple[str, ...]:
    """The names of all kinds, as ``--allow`` takes them."""
    return tuple(sorted({kind.name for kind in kinds()}))


def allowed_words() -> dict[str, str]:
    """What people call the kinds that ``--allow`` may be used for, and their names.

    Example:
        >>> allowed_words()["quantized"], allowed_words()["rank"]
        ('encoded', 'rank')
    """
    return {word: kind.name for kind in kinds() if kind.may_be_allowed for word in (kind.name, *kind.also)}


@cache
def _import_kinds() -> None:
    import ckptool.facts

    for module in iter_modules(ckptool.facts.__path__):
        import_module(f"ckptool.facts.{module.name}")
