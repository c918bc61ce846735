"""What model the keys and shapes are those of, whose names it has, and what differs from the plain one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ckptool.core.counts import many
from ckptool.core.facts import Fact
from ckptool.core.keys import natural_key
from ckptool.facts.headers import Headers
from ckptool.facts.registry import finder
from ckptool.facts.signatures import Shape, ShapeOf, Signature, Trait, candidates

_MOST_PREFIXES = 256  # under which the first key of a signature is; most of them are inside of a model
_MOST_KEYS = 200_000  # larger files are language models in many shards, and their first keys say so
_CLASSIFIERS = ("classifier.weight", "fc.weight", "head.weight", "last_linear.weight")  # what people call it


@dataclass(frozen=True, slots=True)
class Part:
    """Something that differs from the plain model, or stands behind it, and the keys that it concerns.

    Attributes:
        text: it in words.
        scopes: patterns of keys without the prefix: stars for names, two stars for any rest.
        at: a prefix under which they stand, where that is not the model's.
    """

    text: str
    scopes: tuple[str, ...] = ()
    at: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Architecture(Fact):
    """A model that is known.

    Attributes:
        model: its name, "resnet50".
        library: whose names it has, "torchvision".
        prefixes: under which it is; several for equal models.
        parts: what differs from the plain one.
        head: what stands behind it, "751 classes"; None for a model that has no such thing.
    """

    model: str = ""
    library: str = ""
    prefixes: tuple[str, ...] = ("",)
    parts: tuple[Part, ...] = ()
    head: Part | None = None

    name = "architecture"
    rank = -2

    @property
    def text(self) -> str:
        places = " and ".join(f'"{prefix[:-1]}"' for prefix in self.prefixes if prefix)
        under = f" under {places}" if places else ""
        said = ", ".join([f"{self.plain}{under}", *(part.text for part in self.parts)])
        return f"{said}; {self.head.text}" if self.head is not None else said

    @property
    def plain(self) -> str:
        """The model and whose names it has: ``resnet50 (torchvision names)``."""
        return f"{self.model} ({self.library}{'' if 'names' in self.library else ' names'})"


@dataclass(frozen=True, slots=True)
class Training(Fact):
    """What a way of training saves around a model.

    Attributes:
        what: it in words.
        take: the prefix of the model that one wants.
    """

    what: str = ""
    take: str = ""

    name = "training"
    rank = -1

    @property
    def text(self) -> str:
        return self.what

    @property
    def hint(self) -> str:
        return f"the model alone: ckptool remap {{file}} -r '{self.take}{{k**}} -> {{k}}' -r '?{{k**}} -> !' -o MODEL"


@finder
def find(headers: Headers) -> Iterator[Fact]:
    if len(headers.keys) > _MOST_KEYS:
        return
    shape_of = _shapes(headers)
    found: list[Architecture] = []
    owned: list[str] = []
    for signature in candidates("model", headers.parts):
        for prefix in _prefixes(signature, headers.keys):
            if any(prefix.startswith(owner) for owner in owned) or any(prefix in each.prefixes for each in found):
                continue
            fact = _recognised(signature, prefix, headers, shape_of)
            if fact is not None:
                found.append(fact)
                owned += [prefix + part for part in signature.owned]
    yield from _joined(found)
    for signature in candidates("training", headers.parts):
        for prefix in _prefixes(signature, headers.keys):
            numbers = signature.numbers(prefix, shape_of)
            if numbers is not None:
                yield Training((), signature.row["text"].format_map(numbers), prefix + signature.row["take"])


def _shapes(headers: Headers) -> ShapeOf:
    tensors = headers.checkpoint.tensors

    def shape_of(key: str) -> Shape | None:
        return headers.checkpoint.form(key).shape if key in tensors else None

    return shape_of


def _prefixes(signature: Signature, keys: Sequence[str]) -> list[str]:
    """The prefixes under which the first key of a signature is."""
    names = signature.has[0].names
    endings = tuple(f".{name}" for name in names)
    found = []
    for key in keys:
        if key in names:
            found.append("")
        elif key.endswith(endings):
            name = next(name for name in names if key.endswith(f".{name}"))
            found.append(key[: -len(name)])
        if len(found) >= _MOST_PREFIXES:
            break
    return found


def _recognised(signature: Signature, prefix: str, headers: Headers, shape_of: ShapeOf) -> Architecture | None:
    numbers = signature.numbers(prefix, shape_of)
    named = None if numbers is None else signature.name(prefix, shape_of, numbers)
    if numbers is None or named is None:
        return None
    model, lacking = named
    parts = [*_unusual(signature, numbers), *(Part(f"without {name}", (f"{name}.**",)) for name in lacking)]
    parts += _traits(signature.traits, prefix, headers.keys)
    head = _head(signature, prefix, headers, shape_of)
    return Architecture((), model, signature.names, (prefix,), tuple(parts), head)


def _unusual(signature: Signature, numbers: Mapping[str, int]) -> Iterator[Part]:
    for text in signature.row.get("usual", ()):
        letter, usual, what = text.split(" ", 2)
        if numbers.get(letter, int(usual)) != int(usual):
            number = numbers[letter]
            words = f"{what} {number}" if what == "width" else f"{number} {what if number != 1 else what[:-1]}"
            yield Part(words)


def _traits(traits: Sequence[Trait], prefix: str, keys: Sequence[str]) -> list[Part]:
    if not traits:
        return []
    where: dict[int, dict[str, None]] = defaultdict(dict)
    for key in keys:
        if key.startswith(prefix):
            for number, trait in enumerate(traits):
                match = trait.key.fullmatch(key, len(prefix))
                if match is not None:
                    first = key[len(prefix) : match.end(1)] if match.groups() else ""
                    where[number][first] = None
    parts = []
    for number, trait in enumerate(traits):
        if (number in where) != trait.absent:
            names = sorted(where[number], key=natural_key)
            words = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}" if names else ""
            part = Part(trait.text.format(where=words), (trait.scope,))
            if part not in parts:
                parts.append(part)
    return parts


def _head(signature: Signature, prefix: str, headers: Headers, shape_of: ShapeOf) -> Part | None:
    """The classifier or the neck, under the model's prefix or one further out."""
    around = prefix.split(".")
    outer = [".".join(around[:depth]) + "." * (depth > 0) for depth in range(len(around) - 1, -1, -1)]
    for row in candidates("head", headers.parts):
        for at in outer:
            numbers = row.numbers(at, shape_of)
            if numbers is not None:
                texts = [
                    there if shape_of(at + key) is not None else absent
                    for key, (there, absent) in row.row.get("flags", {}).items()
                ]
                return Part(row.row["text"].format_map(numbers) + "".join(texts), tuple(row.row["scope"]), at)
    classes: Sequence[str] = signature.row.get("classes", ())
    for at in outer if classes else ():
        for key in (*classes, *_CLASSIFIERS):
            shape = shape_of(at + key)
            if shape and len(shape) in (2, 4):
                return Part(many(shape[0], "class", "classes"), (f"{key.partition('.')[0]}.**",), at)
    return Part("no classifier") if classes and not signature.row.get("quiet") else None


def _joined(found: Sequence[Architecture]) -> Iterator[Architecture]:
    """Equal models under several prefixes as one fact."""
    groups: dict[Architecture, list[str]] = {}
    for fact in found:
        groups.setdefault(replace(fact, prefixes=("",)), []).extend(fact.prefixes)
    for fact, prefixes in groups.items():
        yield replace(fact, prefixes=tuple(prefixes))
