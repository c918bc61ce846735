"""Words of keys: the role of a last part, and what the parts before it say, whatever the library calls it."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SUFFIX = re.compile(r"(.+)_(weight|bias)")
_SHORT = re.compile("(.+)_([wb])")  # where one module has both: Haiku's output_w and output_b
_PREFIX = re.compile(r"(weight|bias)_(.+)")
_RECURRENT = re.compile(r"(weight|bias)_([a-z]{2})_(l\d+)(_reverse)?")  # of torch.nn.LSTM, GRU and RNN
_ORIGINALS = {"original0": ("g",), "original1": ("v",), "original": ("orig",)}  # weight_g, weight_v, weight_orig
_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_PLAIN = str.maketrans({"ß": "ss", "ł": "l", "Ł": "L", "ı": "i"})  # which have no accent to take away
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})
_SHORTEST = 3  # letters of a word that others are made of
_TOGETHER = re.compile("([Ll]ayer|[Bb]atch|[Ff]eed)_?([Nn]orm|[Ff]orward)")  # two words that are one


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The data file, turned round for look-ups.

    Attributes:
        roles: role by last part.
        foreign: the last parts among them that are no English.
        phrases: words by a whole part.
        words: words by one, in English or another language; ckptool's own among them.
        structure: words that say little.
        opposites: two words of which a tower's name has one, and that of another tower the other.
        opposites_around: the same, said of what a module is in.
        backwards: words of lists that count from the end.
        marks: words of towers that stand beside the one that is meant.
        contexts: inside a module of this name, what a part means.
        beside: among these siblings, what a part means.
        rearranged: by the parts of names that tell a library, those of tensors that it holds in an order of its own.
        norms: the place of a norm in its block by what its name says: 0, behind cross attention 1, last 2.
    """

    roles: Mapping[str, str]
    foreign: frozenset[str]
    phrases: Mapping[str, tuple[str, ...]]
    words: Mapping[str, tuple[str, ...]]
    structure: frozenset[str]
    opposites: tuple[tuple[str, str], ...]
    opposites_around: tuple[tuple[str, str], ...]
    backwards: frozenset[str]
    marks: frozenset[str]
    contexts: Mapping[str, Mapping[str, str]]
    beside: Mapping[frozenset[str], Mapping[str, tuple[str, ...]]]
    rearranged: Mapping[frozenset[str], frozenset[str]]
    norms: Mapping[frozenset[str], int]


@cache
def vocabulary() -> Vocabulary:
    """The vocabulary that ckptool comes with."""
    data, languages = _read("synonyms.toml"), _read("languages.toml")
    translated = {
        spelt: meaning
        for rows in reversed(languages.values())
        for meaning, texts in reversed(rows.items())
        for text in texts.lower().split()
        for spelt in (plain(text), plain(text.translate(_UMLAUTS)))
    }
    own = {word for row in (data["words"], *languages.values()) for words in row for word in words.split()}
    english = {text: tuple(word.split()) for word, texts in data["words"].items() for text in texts[:-1]}
    foreign = {text: meaning for text, meaning in translated.items() if meaning in data["roles"]}
    return Vocabulary(
        roles=foreign | {text: role for role, texts in data["roles"].items() for text in texts},
        foreign=frozenset(foreign),
        phrases={phrase: tuple(row[0].split()) for phrase, row in data["phrases"].items()},
        words={text: tuple(meaning.split()) for text, meaning in translated.items()}
        | {word: (word,) for word in (*own, *data["structure"]["words"])}
        | english,
        structure=frozenset(data["structure"]["words"]),
        opposites=tuple((one, other) for one, other in map(str.split, data["opposites"]["words"])),
        opposites_around=tuple((one, other) for one, other in map(str.split, data["opposites"]["around"])),
        backwards=frozenset(data["backwards"]["words"]),
        marks=frozenset(data["copies"]["beside"]),
        contexts={text: row["words"] for text, row in data["contexts"].items()},
        beside={
            frozenset(text.split()): {part: tuple(words.split()) for part, words in row["words"].items()}
            for text, row in data["beside"].items()
        },
        rearranged={
            frozenset(row["marks"].split()): frozenset(row["parts"].split()) for row in data["rearranged"].values()
        },
        norms={frozenset(text.split()): at for at, texts in enumerate(data["norms"].values()) for text in texts},
    )


def _read(name: str) -> dict[str, dict[str, Any]]:
    return tomllib.loads((files("ckptool.matching") / name).read_text(encoding="utf-8"))


def plain(text: str) -> str:
    """The text without accents.

    Example:
        >>> plain("Größe"), plain("Zażółć"), plain("çıkış"), plain("entrée")
        ('Grosse', 'Zazolc', 'cikis', 'entree')
    """
    if text.isascii():
        return text
    apart = unicodedata.normalize("NFKD", text.translate(_PLAIN))
    return "".join(letter for letter in apart if not unicodedata.combining(letter))


@dataclass(frozen=True, slots=True)
class Leaf:
    """A key as a module and a role.

    Attributes:
        module: the parts of the module's name; a bare parameter is a module of its own.
        role: "weight", "bias", "running_mean", ...
        written: the last part itself, "kernel".
        bare: the last part names no role.
    """

    module: tuple[str, ...]
    role: str
    written: str
    bare: bool = False


def leaf_of(parts: tuple[str, ...], siblings: frozenset[str]) -> Leaf:
    """The module and the role of a key.

    Args:
        parts: of the key.
        siblings: the last parts of all keys of the same module, in small letters, without underscores in front.

    Example:
        >>> leaf_of(("attn", "in_proj_bias"), frozenset()).module, leaf_of(("norm", "gamma"), frozenset({"beta"})).role
        (('attn', 'in_proj'), 'weight')
        >>> leaf_of(("rnn", "weight_ih_l0"), frozenset()).module  # as it is in a list of cells: cells.0.weight_ih
        ('rnn', 'l0', 'ih')
    """
    *module, last = parts
    last_word = plain(last.lower().lstrip("_"))
    role = vocabulary().roles.get(last) or vocabulary().roles.get(last_word)
    if role is not None and module and (_is_role(last_word, siblings) or "norm" in words_of(module[-1])):
        return Leaf(tuple(module), role, last)
    if found := _RECURRENT.fullmatch(last):
        way = ["reverse"] if found[4] else ["forward"] if f"{last}_reverse" in siblings else []
        return Leaf((*module, found[3], *way, found[2]), found[1], found[1])
    if module[-2:-1] == ["parametrizations"] and last in _ORIGINALS:
        return Leaf((*module[:-2], *_ORIGINALS[last]), module[-1], last)
    if found := _SUFFIX.fullmatch(last):
        return Leaf((*module, found[1]), found[2], found[2])
    if found := _PREFIX.fullmatch(last):
        return Leaf((*module, found[2]), found[1], found[1])
    if (found := _SHORT.fullmatch(last)) and any(f"{one[:-1]}b" in siblings for one in siblings if one[-2:] == "_w"):
        return Leaf((*module, found[1]), "weight" if found[2] == "w" else "bias", found[2])
    return Leaf(parts, "weight", last, bare=True)


def role_at(key: str) -> int:
    """Where the underscore before the role of a flat name is; -1 if it has none.

    Example:
        >>> role_at("stage1_unit1_bn1_moving_mean"), role_at("pos_embed")
        (16, -1)
    """
    found = _flat().fullmatch(key)
    return found.end(1) if found else -1


@cache
def _flat() -> re.Pattern[str]:
    roles = sorted(vocabulary().roles, key=len, reverse=True)
    return re.compile(f"(.+?)_(?:{'|'.join(map(re.escape, roles))})", re.IGNORECASE)


def layer_numbered(last: str, number: str) -> str:
    """The last part of a recurrent network's key with something else for the number of its layer.

    Example:
        >>> layer_numbered("weight_ih_l0_reverse", "{l}"), layer_numbered("weight", "{l}")
        ('weight_ih_l{l}_reverse', 'weight')
    """
    found = _RECURRENT.fullmatch(last)
    return f"{found[1]}_{found[2]}_l{number}{found[4] or ''}" if found else last


_AMBIGUOUS = {
    "gamma": {"beta"},
    "scale": {"bias", "offset"},
    "offset": {"scale"},
    "mean": {"var", "variance"},
    "var": {"mean"},
    "variance": {"mean"},
    "g": {"b"},
    "b": {"w", "g", "s"},
    "s": {"b"},
}  # a role only beside these; otherwise a parameter's own name


def _is_role(last: str, siblings: frozenset[str]) -> bool:
    beside = _AMBIGUOUS.get(last)
    return beside is None or bool(beside & siblings)


@cache
def words_of(part: str) -> tuple[str, ...]:
    """The words of one part of a key.

    Example:
        >>> words_of("self_attention"), words_of("LayerNorm"), words_of("q_proj"), words_of("ln_1")
        (('self', 'attn'), ('norm',), ('q',), ('norm',))
        >>> words_of("selfAttn"), words_of("postAttentionLayernorm"), words_of("qProj"), words_of("QKV")
        (('self', 'attn'), ('post', 'attn', 'norm'), ('q',), ('qkv',))
    """
    part, phrases = plain(part), vocabulary().phrases
    for text in (part, _HUMPS.sub("_", part).lower()):  # selfAttn is self_attn
        if text in phrases:
            return phrases[text]
    cut = _WORD.findall(_TOGETHER.sub(lambda found: f"_{found[1]}{found[2]}_".lower(), part))
    found = tuple(said for word in cut for said in _meaning(word.lower()) or (word.lower(),))
    return phrases.get("_".join(found), found) if len(found) > 1 else found


@cache
def _meaning(word: str) -> tuple[str, ...]:
    """What a word means, or all that it is made of; nothing if that is not known.

    Example:
        >>> _meaning("aufmerksamkeitsnorm"), _meaning("selfattention"), _meaning("normal")
        (('attn', 'norm'), ('self', 'attn'), ())
    """
    known = vocabulary().words
    if word in known:
        return known[word]
    for at in range(len(word) - _SHORTEST, _SHORTEST - 1, -1):
        first = known.get(word[:at]) or (at > _SHORTEST and known.get(word[:at].removesuffix("s"))) or ()
        if first and (rest := _meaning(word[at:])):
            return (*first, *rest)
    return ()


def in_context(parts: Sequence[str]) -> tuple[str, ...]:
    """What the last part means inside the modules around it; nothing if that is not known.

    Example:
        >>> in_context(["block_sparse_moe", "experts", "#", "w1"]), in_context(["feed_forward", "w1"])
        (('gate',), ())
    """
    contexts = vocabulary().contexts
    found = next((contexts[part][parts[-1]] for part in reversed(parts) if parts[-1] in contexts.get(part, ())), "")
    return tuple(found.split())


def meant_beside(siblings: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """What parts mean because of those that stand beside them.

    Example:
        >>> meant_beside(frozenset({"fc_1", "fc_2", "proj"}))["fc_1"], meant_beside(frozenset({"fc_1", "fc_2"}))
        (('gate',), {})
    """
    found: dict[str, tuple[str, ...]] = {}
    for wanted, words in vocabulary().beside.items():
        if wanted <= siblings:
            found |= words
    return found


def is_structure(word: str) -> bool:
    """The word says little: ``layers``, ``blocks``, ``model``."""
    return word in vocabulary().structure
