"""Edits of a list of tensors whose truth stays known: what people do to a model's names, order and parts.

Each edit takes a random generator and the rows of a target, and gives new rows; None where it does not apply.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random

Rows = list["Row"]
Edit = Callable[[Random, Rows], "Rows | None"]


@dataclass(frozen=True, slots=True)
class Row:
    """A tensor of the target, in file order.

    Attributes:
        key: its name.
        dtype: long name.
        shape: sizes.
        true: the source tensors that it is made of; none if it is new.
        kind: how: copy, io, hwio, fuse, split, stack.
        place: which part of a split tensor it is.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    true: tuple[str, ...]
    kind: str = "copy"
    place: int = 0


def named(rows: Rows, change: Callable[[str], str]) -> Rows | None:
    """Other names; None if two fall together or none changes."""
    made = [replace(row, key=change(row.key)) for row in rows]
    keys = {row.key for row in made}
    return made if len(keys) == len(rows) and made != rows and all(keys) else None


def worded(rows: Rows, change: Callable[[str], str]) -> Rows | None:
    """Other names, part by part; the leaf stays."""

    def over(key: str) -> str:
        *parts, leaf = key.split(".")
        return ".".join([*map(change, parts), leaf])

    return named(rows, over)


def lists(rows: Rows) -> dict[str, list[int]]:
    """Paths whose children are numbers, and the numbers."""
    found: dict[str, set[int]] = defaultdict(set)
    for row in rows:
        parts = row.key.split(".")
        for at, part in enumerate(parts[:-1]):
            if part.isdigit():
                found[".".join(parts[:at])].add(int(part))
    return {path: sorted(numbers) for path, numbers in found.items() if len(numbers) > 1}


def kind_of(path: str) -> str:
    """A path without its numbers."""
    return re.sub(r"(?<![^.])\d+(?![^.])", "#", path)


def numbered(rows: Rows, change: Callable[[str, int], str | None], keep: Iterable[str] = ()) -> Rows | None:
    """Other numbers in lists: `change` says what a list's number becomes, None drops the block."""
    found = lists(rows)
    chosen = set(keep) or set(found)
    made = []
    for row in rows:
        parts = row.key.split(".")
        new: list[str] | None = []
        for at, part in enumerate(parts):
            path = ".".join(parts[:at])
            to = change(path, int(part)) if part.isdigit() and path in found and path in chosen else part
            if to is None:
                new = None
                break
            assert new is not None
            new.append(to)
        if new is not None:
            made.append(replace(row, key=".".join(new)))
    return made if len({row.key for row in made}) == len(made) and made != rows else None


def of_one_kind(rng: Random, rows: Rows, least: int = 2) -> list[str]:
    """The lists of one kind of path, drawn."""
    found = {path: numbers for path, numbers in lists(rows).items() if len(numbers) >= least}
    kinds = sorted({kind_of(path) for path in found})
    kind = rng.choice(kinds) if kinds else ""
    return [path for path in found if kind_of(path) == kind]


# ---------------------------------------------------------------------------------------------- names


def wrapped(rng: Random, rows: Rows) -> Rows | None:
    """A prefix before everything."""
    prefix = rng.choice(
        ["module.", "model.", "backbone.", "net.", "_orig_mod.", "encoder.", "backbone.body.", "state.model.", "0."]
    )
    return named(rows, lambda key: prefix + key)


def unwrapped(rng: Random, rows: Rows) -> Rows | None:
    """The first part of those that share the commonest goes."""
    firsts = sorted({row.key.split(".")[0] for row in rows if row.key.count(".") > 1})
    if not firsts:
        return None
    top = rng.choice(firsts)
    if sum(row.key.startswith(f"{top}.") for row in rows) * 2 < len(rows) or re.search(r"\d$", top):
        return None
    return named(rows, lambda key: key.removeprefix(f"{top}."))


def deepened(rng: Random, rows: Rows) -> Rows | None:
    """A word's modules stand one level deeper: attn.fn."""
    word = _word(rng, rows)
    inner = rng.choice(["fn", "module", "layer", "0", "body", "inner"])
    return word and named(rows, lambda key: re.sub(rf"(^|\.){re.escape(word)}\.", rf"\g<1>{word}.{inner}.", key))


def flattened(rng: Random, rows: Rows) -> Rows | None:
    """A word in the middle goes, or is tied to the next with an underscore."""
    word = _word(rng, rows)
    joint = rng.choice(["", f"{word}_"])
    return word and named(rows, lambda key: re.sub(rf"\.{re.escape(word)}\.(?=.*\.)", f".{joint}", key))


def _words(rows: Rows) -> list[str]:
    return sorted({part for row in rows for part in row.key.split(".")[:-1] if not part.isdigit()})


def _word(rng: Random, rows: Rows) -> str:
    words = _words(rows)
    return rng.choice(words) if words else ""


ATTENTION = ["attn", "attention", "self_attn", "self_attention", "mha", "SelfAttention"]
MLP = ["mlp", "ffn", "feed_forward", "ff", "FeedForward"]
_ROLES: list[tuple[Sequence[str], str]] = [  # words of one meaning below a parent of one of some words ("": anywhere)
    ((), " ".join(ATTENTION)), ((), " ".join(MLP)),
    ((), "blocks layers h layer resblocks encoder_layers transformer_layers"),
    ((), "embed_tokens wte word_embeddings token_embedding tok_embeddings"),
    ((), "downsample shortcut skip residual_proj proj_shortcut"), ((), "patch_embed patch_embeddings patchify"),
    (MLP, "fc1 c_fc linear1 dense_in lin1 fc_in dense_h_to_4h wi"),
    (MLP, "fc2 c_proj linear2 dense_out lin2 fc_out dense_4h_to_h wo"),
    (MLP, "gate_proj w1 gate"), (MLP, "down_proj w2 down"), (MLP, "up_proj w3 up"),
    (ATTENTION, "q q_proj query to_q wq q_lin"), (ATTENTION, "k k_proj key to_k wk k_lin"),
    (ATTENTION, "v v_proj value to_v wv v_lin"), (ATTENTION, "proj out_proj o_proj to_out wo out_lin o c_proj"),
    (ATTENTION, "qkv to_qkv Wqkv in_proj c_attn query_key_value"),
    (["beside"], "norm1 ln_1 layernorm_before attn_norm input_layernorm ln1 layer_norm1 attention_norm"),
    (["beside"], "norm2 ln_2 layernorm_after ffn_norm post_attention_layernorm ln2 layer_norm2 mlp_norm"),
]  # fmt: skip


def synonyms(rng: Random, rows: Rows) -> Rows | None:
    """Words that people use for the same, each everywhere."""
    beside = {row.key.rsplit(f".{word}.", 1)[0] for row in rows for word in ATTENTION if f".{word}." in row.key}
    beside -= {row.key.rpartition(".")[0].rpartition(".")[0] for row in rows if "feedforward_layernorm" in row.key}
    to = {at: rng.choice(words.split()) for at, (_, words) in enumerate(_ROLES) if rng.random() < 0.7}

    def change(key: str) -> str:
        *parts, leaf = key.split(".")
        new = list(parts)
        for at, part in enumerate(parts):
            for role, word in to.items():
                where, words = _ROLES[role]
                fits = not where or (at and parts[at - 1] in where) or (
                    list(where) == ["beside"] and ".".join(parts[:at]) in beside)  # fmt: skip
                if fits and part in words.split():
                    new[at] = word
                    break
        return ".".join([*new, leaf])

    return named(rows, change)


def cased(rng: Random, rows: Rows) -> Rows | None:
    """camelCase, CONV, or without vowels, everywhere."""
    ways: list[Callable[[str], str]] = [
        lambda word: re.sub(r"_(.)", lambda m: m[1].upper(), word),
        str.upper,
        lambda word: re.sub(r"(?<=.)[aeiou]", "", word),
        lambda word: re.sub(r"(?<=[a-z])(\d)", r"_\1", word),
        lambda word: "".join(piece.capitalize() for piece in word.split("_")),
    ]
    return worded(rows, rng.choice(ways))


def meaningless(rng: Random, rows: Rows) -> Rows | None:
    """Some words, or all, mean nothing."""
    words = _words(rows)
    rng.shuffle(words)
    chosen = words[: max(1, round(len(words) * rng.choice([0.1, 0.3, 0.6, 1.0])))]
    way = rng.choice(["m", "letters", "xyz"])
    made = {word: {"m": f"m{at}", "letters": "abcdefghijklmnopqrstuvwxyz"[at % 26] * (1 + at // 26),
                   "xyz": "".join(rng.choices("bcdfgxyz", k=4))}[way] for at, word in enumerate(chosen)}  # fmt: skip
    return worded(rows, lambda word: made.get(word, word))


def suffix_shift(rng: Random, rows: Rows) -> Rows | None:
    """conv1, bn1 become conv0, bn0, or the other way round."""
    stems: dict[str, set[int]] = defaultdict(set)
    for word in _words(rows):
        if match := re.fullmatch(r"([A-Za-z_]+)(\d)", word):
            stems[match[1]].add(int(match[2]))
    fits = sorted(stem for stem, numbers in stems.items() if len(numbers) > 1 and min(numbers) < 2)
    if not fits:
        return None
    chosen = set(rng.sample(fits, rng.randint(1, len(fits))))

    def change(word: str) -> str:
        match = re.fullmatch(r"([A-Za-z_]+)(\d)", word)
        if not match or match[1] not in chosen:
            return word
        return f"{match[1]}{int(match[2]) + (-1 if min(stems[match[1]]) else 1)}"

    return worded(rows, change)


# ---------------------------------------------------------------------------------------------- numbers


def from_one(rng: Random, rows: Rows) -> Rows | None:
    """Lists of one kind count from another number, with zeros in front, with gaps, or by letters."""
    ways: list[Callable[[int], str]] = [
        lambda n: str(n + 1), lambda n: f"{n:02}", lambda n: str(2 * n), lambda n: str(3 * n + 1),
        lambda n: "abcdefghijklmnopqrstuvwxyz"[n] if n < 26 else f"z{n}", lambda n: f"layer{n}",
        lambda n: f"block_{n + 1}",
    ]  # fmt: skip
    way = rng.choice(ways)
    return numbered(rows, lambda _, n: way(n), of_one_kind(rng, rows))


def shifted(rng: Random, rows: Rows) -> Rows | None:
    """Things without tensors are inserted into Sequentials: the numbers grow, unevenly."""
    paths = of_one_kind(rng, rows)
    if not paths:
        return None
    gaps = [rng.choice([0, 0, 1, 1, 2]) for _ in range(1 + max(max(lists(rows)[path]) for path in paths))]
    return numbered(rows, lambda _, n: str(n + sum(gaps[: n + 1])), paths)


def merged(rng: Random, rows: Rows) -> Rows | None:
    """Lists of lists become one list: layer1.0, layer1.1, layer2.0 or stages.0.blocks.0."""
    found = lists(rows)
    groups: dict[str, list[str]] = defaultdict(list)
    for path in found:
        groups[re.sub(r"\d+", "#", path)].append(path)
    fits = sorted(kind for kind, paths in groups.items() if len(paths) > 1)
    if not fits:
        return None
    kind = rng.choice(fits)
    start, at = {}, 0
    for path in sorted(groups[kind], key=lambda path: [int(number) for number in re.findall(r"\d+", path)]):
        start[path] = at
        at += len(found[path])
    stem = re.sub(r"[._]?#.*", "", kind) or "blocks"

    def change(key: str) -> str:
        for path in groups[kind]:
            match = re.match(rf"{re.escape(path)}\.(\d+)\.", key)
            if match:
                return f"{stem}.{start[path] + found[path].index(int(match[1]))}.{key[match.end() :]}"
        return key

    return named(rows, change)


def split_list(rng: Random, rows: Rows) -> Rows | None:
    """One list becomes stages."""
    paths = of_one_kind(rng, rows, 4)
    if len(paths) != 1:
        return None
    numbers = lists(rows)[paths[0]]
    cuts = sorted(rng.sample(range(1, len(numbers)), min(len(numbers) - 1, rng.choice([1, 2, 3]))))
    place = {n: (sum(c <= at for c in cuts), at - max([0, *(c for c in cuts if c <= at)]))
             for at, n in enumerate(numbers)}  # fmt: skip
    form = rng.choice(["{}.{}", "{}.blocks.{}"])
    return numbered(rows, lambda _, n: form.format(*place[n]), paths)


# ---------------------------------------------------------------------------------------------- order


def by_name(rng: Random, rows: Rows) -> Rows | None:
    """As safetensors lists it."""
    return sorted(rows, key=lambda row: (row.dtype == "int64", row.key))


def shuffle(rng: Random, rows: Rows) -> Rows | None:
    """Any order."""
    return rng.sample(rows, len(rows))


def backwards(rng: Random, rows: Rows) -> Rows | None:
    """Modules from the last to the first."""
    units: dict[str, Rows] = defaultdict(list)
    for row in rows:
        units[row.key.rpartition(".")[0]].append(row)
    return [row for unit in reversed(list(units.values())) for row in unit]


def towers(rng: Random, rows: Rows) -> Rows | None:
    """Top-level modules, or the modules of every block, in another order."""
    depth = rng.choice([1, 1, 2, 3])
    units: dict[str, Rows] = defaultdict(list)
    for row in rows:
        units[".".join(row.key.split(".")[:depth])].append(row)
    names = list(units)
    rng.shuffle(names)
    return [row for name in names for row in units[name]] if len(names) > 1 else None


NAMES: dict[str, Edit] = {edit.__name__: edit for edit in (
    wrapped, unwrapped, deepened, flattened, synonyms, cased, meaningless, suffix_shift)}  # fmt: skip
NUMBERS: dict[str, Edit] = {edit.__name__: edit for edit in (from_one, shifted, merged, split_list)}
ORDER: dict[str, Edit] = {edit.__name__: edit for edit in (by_name, shuffle, backwards, towers)}
