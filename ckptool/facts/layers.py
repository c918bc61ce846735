"""Numbered layers: those that are missing, and mixtures of experts."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from ckptool.core.facts import Fact
from ckptool.core.keys import escape
from ckptool.core.shapes import braces
from ckptool.facts.headers import Headers, many
from ckptool.facts.registry import finder

_LAYERS = re.compile(
    r"(.*\.)?(?:(?:encoder_|decoder_)?layers?|(?:transformer_)?blocks?|h|resblocks)\.(?P<number>[0-9]{1,4})\.",
    re.DOTALL,
)
_MOST = 10_000  # names that are remembered


@dataclass(frozen=True, slots=True)
class MissingLayers(Fact):
    """A gap in a numbered sequence of like layers.

    Attributes:
        module: what holds the sequence.
        numbers: the absent ones.
        more: how many further sequences have gaps.
    """

    module: str = ""
    numbers: tuple[int, ...] = ()
    more: int = 0

    name = "missing-layers"
    level = "warning"
    rank = 3

    @property
    def text(self) -> str:
        more = f" (and {many(self.more, 'more such gap')})" if self.more else ""
        are = "is" if len(self.numbers) == 1 else "are"
        listed = braces(list(map(str, self.numbers)))
        return f"{escape(self.module)}.{listed} {are} missing from a numbered sequence{more}"

    @property
    def hint(self) -> str:
        return "a shard, a part of a pipeline, or layers were pruned"


@dataclass(frozen=True, slots=True)
class Experts(Fact):
    """A mixture of experts, one module each; `counts` are (number of layers, experts in each)."""

    counts: tuple[tuple[int, int], ...] = ()

    name = "experts"
    rank = 15

    @property
    def text(self) -> str:
        listed = ", ".join(f"{many(layers, 'layer')} of {number:,}" for layers, number in self.counts)
        return f"a mixture of experts: {listed}"


@finder
def find_gaps(headers: Headers) -> Iterator[MissingLayers]:
    places: dict[str, int] = defaultdict(int)  # how many keys have a numbered module, by its path with a dot behind it
    place, plain = "\0", set[str]()  # what stands below numbered modules, and holds none
    for key in headers.keys:
        if not (key.startswith(place) and key[len(place) :] in plain):
            match = _LAYERS.match(key)
            if match is None:
                continue
            place = match[0]
            if len(plain) < _MOST:
                plain.add(key[len(place) :])
        places[place] += 1
    inside: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    first: dict[str, int] = {}  # where what is numbered comes first
    orders = dict(zip(places, range(len(places)), strict=True))
    while places:  # from the innermost numbers to those around them
        around: dict[str, int] = defaultdict(int)
        for place, size in places.items():
            module, _, number = place[:-1].rpartition(".")
            inside[module][int(number)] += size
            around[module] += size
            first[module] = min(first.get(module, len(headers.keys)), orders[place])
        places = defaultdict(int)
        orders = {}
        for module, size in around.items():
            match = _LAYERS.match(f"{module}.")
            if match is not None:
                places[match[0]] += size
                orders[match[0]] = min(orders.get(match[0], len(headers.keys)), first[module])
    gaps = {module: missing for module, sizes in inside.items() if (missing := _missing(sizes))}
    if gaps:
        module = min(gaps, key=lambda module: (first[module], len(module)))
        yield MissingLayers((), module, tuple(gaps[module]), len(gaps) - 1)


def _missing(sizes: dict[int, int]) -> list[int]:
    """The absent numbers of a sequence, given the number of keys of each that is there; [] if nothing is odd.

    Transformer layers have many keys and are alike. What is not so is a Sequential, where steps without weights leave
    gaps; counting from 1 is a habit.
    """
    first, last = min(sizes), max(sizes)
    usual, times = Counter(sizes.values()).most_common(1)[0]
    holes = last - first + 1 - len(sizes)
    if len(sizes) < 4 or usual < 3 or times * 3 < len(sizes) * 2 or holes * 5 > len(sizes):
        return []
    return [number for number in range(0 if first > 1 else first, last) if number not in sizes]


@finder
def find_experts(headers: Headers) -> Iterator[Experts]:
    if "experts" not in headers.parts:
        return
    found: dict[str, set[str]] = defaultdict(set)
    for key in headers.keys:
        if ".experts." in key:
            module, _, rest = key.partition(".experts.")
            found[module].add(rest.split(".")[0])
    numbers = Counter(len({name for name in names if name.isdecimal()}) for names in found.values())
    numbers.pop(0, None)
    if numbers:
        yield Experts((), tuple((layers, number) for number, layers in numbers.most_common(3)))
