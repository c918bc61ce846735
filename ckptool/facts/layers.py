"""Numbered layers: those that are missing, and mixtures of experts."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter

from ckptool.core.counts import many
from ckptool.core.facts import Fact
from ckptool.core.keys import escape
from ckptool.core.shapes import braces
from ckptool.facts.headers import Headers
from ckptool.facts.registry import finder

_LAYERS = re.compile(
    r"(.*\.)?(?:(?:encoder_|decoder_)?layers?|(?:transformer_)?blocks?|h|resblocks)\.(?P<number>[0-9]{1,4})\.",
    re.DOTALL,
)


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
    places: Counter[str] = Counter()  # how many keys have a numbered module, by its path with a dot behind it
    for outline, keys in headers.outlines.items():
        match = _LAYERS.match(outline)
        if match is not None:
            places.update(map(itemgetter(slice(match.end())), keys))
    inside: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    while places:  # from the innermost numbers to those around them
        around: Counter[str] = Counter()
        for place, size in places.items():
            module, _, number = place[:-1].rpartition(".")
            inside[module][int(number)] += size
            around[module] += size
        places = Counter()
        for module, size in around.items():
            match = _LAYERS.match(f"{module}.")
            if match is not None:
                places[match[0]] += size
    gaps = {module: missing for module, sizes in inside.items() if (missing := _missing(sizes))}
    if gaps:
        module = next(module for key in headers.keys for module in _numbered(key) if module in gaps)
        yield MissingLayers((), module, tuple(gaps[module]), len(gaps) - 1)


def _numbered(key: str) -> list[str]:
    """The modules around a key that hold numbered ones, from the outermost on.

    Example:
        >>> _numbered("swin.layers.3.blocks.7.w")
        ['swin.layers', 'swin.layers.3.blocks']
    """
    found: list[str] = []
    match = _LAYERS.match(key)
    while match is not None:
        found.append(match[0][:-1].rpartition(".")[0])
        match = _LAYERS.match(f"{found[-1]}.")
    return found[::-1]


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
    places: dict[str, None] = {}  # of each expert
    for outline, keys in headers.outlines.items():
        if ".experts." in outline:
            begin = outline.index(".experts.") + len(".experts.")
            name = outline[begin:].partition(".")[0]
            if name.isdecimal():
                places |= dict.fromkeys(map(itemgetter(slice(begin + len(name))), keys))
    numbers = Counter(Counter(place.rpartition(".")[0] for place in places).values())
    if numbers:
        yield Experts((), tuple((layers, number) for number, layers in numbers.most_common(3)))
