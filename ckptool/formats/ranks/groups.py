"""Files of ranks by their names: those that differ in one number were saved by the ranks of one run.

What they are called differs (verl, FSDP, a line of one's own); what they hold tells whether they are parts.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

ENDINGS = (".pt", ".pth", ".bin", ".ckpt")
_NUMBER = re.compile(r"\d{1,6}")
_OPTIMIZER = re.compile(r"(?:^|[_.\-])optim")
_BESIDE = re.compile(r"(?:^|[_.\-])(?:extra|rng|random|sched|scheduler|scaler|trainer|dataloader|data)(?:[_.\-]|$)")
_TAIL = re.compile(r"_world_size_|_rank_|[_.\-]?\{\}")


@dataclass(frozen=True, slots=True)
class Group:
    """Files whose names differ in one number.

    Attributes:
        pattern: their name, with ``{}`` in place of the number.
        names: by number.
    """

    pattern: str
    names: Mapping[int, str]

    @property
    def stem(self) -> str:
        """``extra_state`` of ``extra_state_world_size_2_rank_{}.pt``."""
        return self.pattern[: self._tail_at].strip("_.-") or "beside"

    @property
    def tail(self) -> str:
        """What the names of one rank's files end in: ``_world_size_2_rank_{}.pt``."""
        return self.pattern[self._tail_at :]

    @property
    def is_optimizer(self) -> bool:
        """True for files that are named as an optimizer's."""
        return is_optimizer(self.pattern.replace("{}", ""))

    @property
    def is_beside(self) -> bool:
        """True for files that are named as something that lies beside the weights."""
        return self.is_optimizer or bool(_BESIDE.search(self.pattern.replace("{}", "")))

    @property
    def _tail_at(self) -> int:
        match = _TAIL.search(self.pattern)
        return match.start() if match is not None else len(self.pattern)


def is_optimizer(name: str) -> bool:
    """True for a name or key that says that it is an optimizer's."""
    return _OPTIMIZER.search(name) is not None


def groups_of(names: Iterable[str]) -> list[Group]:
    """The groups of torch files whose names differ in one number, large ones first.

    Example:
        >>> [group.pattern for group in groups_of(["optim_2_rank_0.pt", "optim_2_rank_1.pt", "args.bin"])]
        ['optim_2_rank_{}.pt']
    """
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for name in names:
        for pattern, number in _patterns(name):
            found[pattern].setdefault(number, name)
    groups = [Group(pattern, dict(sorted(each.items()))) for pattern, each in found.items() if len(each) > 1]
    return sorted(groups, key=lambda group: (-len(group.names), group.pattern))


def lone_groups(names: Iterable[str], tail: str) -> list[Group]:
    """The torch files whose names end as those of other ranks' files do, each alone in its group.

    Example:
        >>> lone_groups(["optim_rank_1.pt", "model_rank_0.pt", "model_rank_1.pt"], "_rank_{}.pt")
        [Group(pattern='optim_rank_{}.pt', names={1: 'optim_rank_1.pt'})]
    """
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for name in names:
        for pattern, number in _patterns(name):
            if Group(pattern, {}).tail == tail:
                found[pattern][number] = name
    return [Group(pattern, each) for pattern, each in found.items() if len(each) == 1]


def lone_group(name: str) -> Group:
    """The group of a file that is alone, by the last number of its name."""
    *_, (pattern, number) = [(_literal(name), 0), *_patterns(name)]
    return Group(pattern, {number: name})


def _patterns(name: str) -> Iterator[tuple[str, int]]:
    """The names that a torch file may have with another number, and the number that it has."""
    if name.endswith(ENDINGS):
        for match in _NUMBER.finditer(name):
            yield f"{_literal(name[: match.start()])}{{}}{_literal(name[match.end() :])}", int(match[0])


def _literal(text: str) -> str:
    """Text in which str.format changes nothing."""
    return text.replace("{", "{{").replace("}", "}}")
