"""What all kinds of facts look at, computed once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.observations import Observation
from ckptool.core.outlines import by_outline
from ckptool.core.spec import Form

_Seen = TypeVar("_Seen", bound=Observation)


@dataclass(frozen=True, slots=True)
class Headers:
    """A checkpoint and its keys by their last part.

    Attributes:
        checkpoint: the checkpoint.
        keys: its keys, in file order.
        forms: their dtypes, shapes and sizes.
        kinds: those of them that differ.
        outlines: the keys of each outline.
        parts: every name that occurs between dots.
        modules: for each last part, the modules that have it: {"running_mean": ["bn1", "layer1.0.bn1"]}.
    """

    checkpoint: Checkpoint
    keys: tuple[str, ...]
    forms: tuple[Form, ...]
    kinds: frozenset[Form]
    outlines: Mapping[str, list[str]]
    parts: set[str]
    modules: Mapping[str, list[str]]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Headers:
        keys = tuple(checkpoint.tensors)
        outlines = by_outline(keys)
        parts = {part for outline, alike in outlines.items() for part in _parts(outline, alike)}
        kinds = frozenset(checkpoint.form_counts())
        return cls(checkpoint, keys, tuple(checkpoint.forms()), kinds, outlines, parts, _Modules(keys, outlines))

    @property
    def is_script(self) -> bool:
        """True for a TorchScript archive, which torch.jit.load reads."""
        return self.checkpoint.format.is_program

    @property
    def is_torch_file(self) -> bool:
        """True for a file of `torch.save`."""
        return self.checkpoint.format.has_versions and not self.is_script

    def observed(self, kind: type[_Seen]) -> Iterator[_Seen]:
        """What the reader noticed of one kind."""
        return (each for each in self.checkpoint.observations if isinstance(each, kind))

    def with_all(self, *lasts: str) -> list[str]:
        """The modules that have all of these last parts, in file order."""
        first, *others = (self.modules.get(last, []) for last in lasts)
        for other in map(set, others):
            first = [module for module in first if module in other]
        return first


def _parts(outline: str, keys: Sequence[str]) -> Iterator[str]:
    """The names between dots in keys of one outline."""
    begin = 0
    for part in outline.split("."):
        end = begin + len(part)
        if "0" in part:
            yield from {key[begin:end] for key in keys}
        else:
            yield part
        begin = end + 1


class _Modules(Mapping[str, list[str]]):
    """As `modules_by_last`; the names of modules are made where they are asked for."""

    def __init__(self, keys: Sequence[str], outlines: Mapping[str, Sequence[str]]) -> None:
        self._keys = keys
        self._lasts: dict[str, None] = {}
        for outline, alike in outlines.items():
            last = outline.rpartition(".")[2]
            self._lasts |= dict.fromkeys(key.rpartition(".")[2] for key in (alike if "0" in last else alike[:1]))

    def __getitem__(self, last: str) -> list[str]:
        if last not in self._lasts:
            raise KeyError(last)
        end = f".{last}"
        return [key.rpartition(".")[0] for key in self._keys if key.endswith(end) or key == last]

    def __contains__(self, last: object) -> bool:
        return last in self._lasts

    def __iter__(self) -> Iterator[str]:
        return iter(self._lasts)

    def __len__(self) -> int:
        return len(self._lasts)


def modules_by_last(keys: Iterable[str]) -> dict[str, list[str]]:
    """The modules of the keys by their last part.

    Example:
        >>> modules_by_last(["bn1.bias", "a.bn2.bias", "scale"])
        {'bias': ['bn1', 'a.bn2'], 'scale': ['']}
    """
    modules: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        module, _, last = key.rpartition(".")
        modules[last].append(module)
    return dict(modules)


def below(modules: Iterable[str], last: str) -> tuple[str, ...]:
    """The keys with this last part in these modules."""
    return tuple(f"{module}.{last}" if module else last for module in modules)


def amount(nbytes: int) -> str:
    """Bytes in a sentence.

    Example:
        >>> amount(999), amount(4_000_000_000)
        ('999 B', '4.0 GB')
    """
    figure, units = float(nbytes), ["B", "kB", "MB", "GB", "TB", "PB"]
    while figure >= 999.5 and len(units) > 1:
        figure, units = figure / 1000, units[1:]
    return f"{figure:.0f} {units[0]}" if units[0] == "B" or figure >= 100 else f"{figure:.1f} {units[0]}"
