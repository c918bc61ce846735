"""Experts that are not all there, or are there in two layouts.

A layer has its experts as modules of their own, ``experts.7.w1.weight``, or stacked in tensors that hold all of them,
``experts.gate_up_proj``. How many there should be, the router's weight says: it has a row for each.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from ckptool.core.counts import listed, many
from ckptool.core.facts import Fact
from ckptool.core.keys import escape
from ckptool.core.patch import PATCH_KEY
from ckptool.core.shapes import braces
from ckptool.facts.headers import Headers
from ckptool.facts.parts import one_of_shards
from ckptool.facts.registry import finder

_AT = "experts."
_ROUTERS = ("gate.weight", "router.weight", "gate.wg.weight", "router.layer.weight")
_DIGITS = 4  # of an expert's number
_FEW = 3  # modules that are named
_NUMBER = re.compile(r"(?:^|(?<=\.))\d+(?=\.|$)")


@dataclass(frozen=True, slots=True)
class MissingExperts(Fact):
    """Experts that the numbers of the others, the other layers or the router say are missing, whole or in part.

    Attributes:
        places: (module that holds them, their numbers, the parts that are missing; none for whole experts).
    """

    places: tuple[tuple[str, tuple[int, ...], tuple[str, ...]], ...] = ()

    name = "missing-experts"
    level = "warning"
    grade = "error"
    rank = 2

    @property
    def text(self) -> str:
        whole = sum(len(numbers) for _, numbers, parts in self.places if not parts)
        partly = sum(len(numbers) for _, numbers, parts in self.places if parts)
        said = [
            *([f"{many(whole, 'expert')} {'is' if whole == 1 else 'are'} missing"] if whole else []),
            *([f"{many(partly, 'expert')} {'lacks' if partly == 1 else 'lack'} a part"] if partly else []),
        ]
        names = [_pattern(*place) for place in self.places[:_FEW]]
        more = f" and in {many(len(self.places) - _FEW, 'more place')}" if len(self.places) > _FEW else ""
        return f"{' and '.join(said)}: {', '.join(names)}{more}"

    @property
    def hint(self) -> str:
        return "a part of a model, or an export that lost them: get the checkpoint again, or fill them in from its base"


def _pattern(module: str, numbers: tuple[int, ...], parts: tuple[str, ...]) -> str:
    inside = f".{braces(parts)}" if parts else ""
    return f"{escape(module)}.{braces(list(map(str, numbers)))}{inside}"


@dataclass(frozen=True, slots=True)
class MixedExperts(Fact):
    """Experts in two layouts, in one layer or in several.

    Attributes:
        twice: layers that have both; the keys are those of their stacked tensors.
        apart: how many further layers have a module for each expert.
        stacked: how many further layers have stacked ones.
    """

    twice: tuple[str, ...] = ()
    apart: int = 0
    stacked: int = 0

    name = "mixed-experts"
    level = "warning"
    grade = "error"
    rank = 2

    @property
    def text(self) -> str:
        if self.twice:
            names = listed([escape(layer) or "the model" for layer in self.twice], _FEW)
            have = "has" if len(self.twice) == 1 else "have"
            return f"{many(len(self.twice), 'layer')} {have} the experts twice, as a module each and stacked: {names}"
        return (
            f"experts are stored in two layouts: a module each in {many(self.apart, 'layer')}, "
            f"stacked in {many(self.stacked, 'layer')}"
        )

    @property
    def hint(self) -> str:
        if not self.twice:
            return "loaders expect one of them; recipes bring both into one layout: ckptool help recipes"
        names = sorted({key.rpartition(f".{_AT}")[2] for key in self.keys})
        some = braces(names) if len(names) > 1 else names[0]
        return (
            f"they may differ, and which a loader takes is not said; drop one: ckptool filter {{file}} "
            f'--drop "*.{_AT}{some}" -o OUT'
        )


@dataclass(slots=True)
class _Survey:
    """Where the experts are.

    Attributes:
        apart: for each module with numbered experts, for each name inside of them, a bit for each expert that has it.
        stacked: the stacked tensors of each module.
    """

    apart: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    stacked: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def present(self, module: str) -> int:
        """The experts of a module that have any tensor, a bit for each."""
        found = 0
        for bits in self.apart[module].values():
            found |= bits
        return found

    def alike(self, module: str) -> dict[frozenset[str], int]:
        """The experts of a module that have the same parts, a bit for each, by these parts."""
        found = {frozenset[str](): self.present(module)}
        for part, having in self.apart[module].items():
            without = {parts: bits & ~having for parts, bits in found.items()}
            found = without | {parts | {part}: bits & having for parts, bits in found.items()}
            found = {parts: bits for parts, bits in found.items() if bits}
        return found


def _surveyed(headers: Headers) -> _Survey:
    survey = _Survey()
    for outline, keys in headers.outlines.items():
        at = 0 if outline.startswith(_AT) else outline.find(f".{_AT}") + 1
        if at == 0 and not outline.startswith(_AT):
            continue
        end = at + len(_AT)
        name, dot, rest = outline[end:].partition(".")
        if not name.isdecimal():
            for key in keys:
                survey.stacked[key[: end - 1]].append(key)
        elif dot and len(name) <= _DIGITS:
            part = slice(end + len(name) + 1, end + len(name) + 1 + len(rest.partition(".")[0]))
            for key in keys:
                survey.apart[key[: end - 1]][key[part]] |= 1 << int(key[end : part.start - 1])
    return survey


@finder
def find(headers: Headers) -> Iterator[Fact]:
    if "experts" not in headers.parts or PATCH_KEY in headers.checkpoint.metadata:
        return
    if any(part.startswith(("lora_", "hada_", "lokr_")) for part in headers.parts):
        return  # an adapter of some experts
    survey = _surveyed(headers)
    if one_of_shards(headers.checkpoint) == 0:
        places = tuple(_missing(headers, survey))
        if places:
            yield MissingExperts((), places)
    yield from _mixed(headers, survey)


# ---------------------------------------------------------------------------------------------- missing


def _missing(headers: Headers, survey: _Survey) -> Iterator[tuple[str, tuple[int, ...], tuple[str, ...]]]:
    """Whole experts that are missing, then those of which a part is."""
    whole = _whole_numbers(headers, survey)
    first = min((_numbers(survey.present(module))[0] for module in whole), default=0)
    for module, wanted in whole.items():
        absent = _numbers(((1 << wanted) - 1) & ~survey.present(module))
        if first == 1 and absent[:1] == [0] and _router_rows(headers, module) != wanted:  # counted from 1
            absent = absent[1:]
        if absent:
            yield module, tuple(absent), ()
    usual = _usual_parts(survey)
    for module in survey.apart:
        lacking = [(_numbers(bits), usual - parts) for parts, bits in survey.alike(module).items() if parts < usual]
        yield from ((module, tuple(numbers), tuple(sorted(parts))) for numbers, parts in sorted(lacking))


def _numbers(bits: int) -> list[int]:
    """The places of the bits that are set.

    Example:
        >>> _numbers(0b1011)
        [0, 1, 3]
    """
    return [number for number, bit in enumerate(reversed(f"{bits:b}")) if bit == "1"]


def _whole_numbers(headers: Headers, survey: _Survey) -> dict[str, int]:
    """How many experts each module should have: what its router says, or most modules of its form have."""
    lengths = {module: survey.present(module).bit_length() for module in survey.apart}
    rows = {module: _router_rows(headers, module) for module in lengths}
    agreed = any(rows[module] == length for module, length in lengths.items())
    forms: dict[str, Counter[int]] = defaultdict(Counter)
    for module, length in lengths.items():
        forms[_form(module)][length] += 1
    wanted: dict[str, int] = {}
    for module, length in lengths.items():
        usual, times = forms[_form(module)].most_common(1)[0]
        is_usual = times >= 2 and times * 3 >= forms[_form(module)].total() * 2
        if agreed and rows[module]:
            wanted[module] = max(length, rows[module])
        else:
            wanted[module] = max(length, usual) if is_usual else length
    return wanted


def _form(module: str) -> str:
    return _NUMBER.sub("#", module)


def _router_rows(headers: Headers, module: str) -> int:
    """The rows of the router beside the experts; 0 where it is not known."""
    around = module[: -len(_AT) + 1]
    for name in _ROUTERS:
        if around + name in headers.checkpoint.tensors:
            shape = headers.checkpoint.form(around + name).shape
            return shape[0] if len(shape) == 2 and shape[0] <= 10**_DIGITS else 0
    return 0


def _usual_parts(survey: _Survey) -> frozenset[str]:
    """The parts, such as w1, w2 and w3, that most experts of the file have; none where experts differ by design."""
    counts: Counter[frozenset[str]] = Counter()
    for module in survey.apart:
        for parts, bits in survey.alike(module).items():
            counts[parts] += bits.bit_count()
    if not counts:
        return frozenset()
    usual, times = counts.most_common(1)[0]
    is_plain = len(usual) > 1 and not any(part.isdecimal() for part in usual)
    return usual if is_plain and times * 2 > counts.total() else frozenset()


# ---------------------------------------------------------------------------------------------- two layouts


def _mixed(headers: Headers, survey: _Survey) -> Iterator[MixedExperts]:
    apart = {_layer(module): module for module in survey.apart}
    stacked: dict[str, list[str]] = defaultdict(list)
    for module, keys in survey.stacked.items():
        for key in keys:
            shape = headers.checkpoint.form(key).shape
            if len(shape) == 3 and shape[0] > 1:
                stacked[_layer(module)].append(key)
    if not apart or not stacked:
        return
    twice = [layer for layer in stacked if layer in apart]
    if twice:
        yield MixedExperts(tuple(key for layer in twice for key in stacked[layer]), tuple(twice))
    else:
        yield MixedExperts((), (), len(apart), len(stacked))


def _layer(module: str) -> str:
    """The module down to its last number: ``model.layers.3`` of ``model.layers.3.mlp.experts``."""
    ends = [match.end() for match in _NUMBER.finditer(module)]
    return module[: ends[-1]] if ends else ""
