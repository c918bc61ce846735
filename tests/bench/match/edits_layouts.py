"""Edits of layouts: kernels stored in, out; q, k, v in one; experts in one tensor."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from random import Random

from tests.bench.match.edits import Row, Rows, lists, of_one_kind

_EMBEDDING = re.compile(r"embed|wte|wpe|position|token|relative|bias_table", re.I)


def is_matrix(row: Row) -> bool:
    return row.kind == "copy" and len(row.shape) == 2 and row.key.endswith("weight") and not _EMBEDDING.search(row.key)


def roles(rng: Random, rows: Rows) -> Rows | None:
    """gamma, beta, scale, kernel, moving_mean: as TensorFlow and JAX call them; kernels are stored in, out."""
    gamma, mean, is_flipped = (
        rng.choice(["gamma", "scale", "g"]),
        rng.choice(["moving_mean", "mean"]),
        rng.random() < 0.7,
    )
    sizes = {row.key: len(row.shape) for row in rows}

    def change(row: Row) -> Row:
        unit, _, leaf = row.key.rpartition(".")
        is_norm = len(row.shape) == 1 and sizes.get(f"{unit}.weight") == 1
        plain = {"running_mean": mean, "running_var": mean.replace("mean", "var" if mean == "mean" else "variance")}
        if is_norm and leaf in ("weight", "bias"):
            plain |= {"weight": gamma, "bias": "beta" if gamma == "gamma" else "b" if gamma == "g" else "bias"}
        row = replace(row, key=f"{unit}.{plain.get(leaf, leaf)}")
        if not is_flipped or leaf != "weight" or row.kind != "copy" or _EMBEDDING.search(row.key) or ".c_" in row.key:
            return row
        if len(row.shape) == 2:
            return replace(row, key=f"{unit}.kernel", shape=row.shape[::-1], kind="io" if row.true else "copy")
        if len(row.shape) == 4:
            o, i, h, w = row.shape
            return replace(row, key=f"{unit}.kernel", shape=(h, w, i, o), kind="hwio" if row.true else "copy")
        return row

    made = [change(row) for row in rows if "num_batches" not in row.key]
    return made if made != rows and len({row.key for row in made}) == len(made) else None


def conv1d(rng: Random, rows: Rows) -> Rows | None:
    """Every matrix in a list of blocks is stored in, out, as in GPT-2."""
    return [replace(row, shape=row.shape[::-1], kind="io" if row.true else "copy")
            if is_matrix(row) and re.search(r"\.\d+\..*\.", row.key) else row for row in rows]  # fmt: skip


def fused(rng: Random, rows: Rows) -> Rows | None:
    """q, k, v become one."""
    threes = [("q", "k", "v"), ("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("to_q", "to_k", "to_v"),
              ("wq", "wk", "wv"), ("q_lin", "k_lin", "v_lin"), ("query_proj", "key_proj", "value_proj")]  # fmt: skip
    name = rng.choice(["qkv", "qkv_proj", "c_attn", "Wqkv", "in_proj", "query_key_value"])
    at = {row.key: row for row in rows}
    made, gone = [], set()
    for row in rows:
        unit, _, leaf = row.key.rpartition(".")
        parent, _, word = unit.rpartition(".")
        parts = next(([at.get(f"{parent}.{w}.{leaf}") for w in words] for words in threes if word in words), [])
        found = [part for part in parts if part]
        fits = len(found) == 3 and len({p.shape[1:] for p in found}) == 1 and {p.kind for p in found} == {"copy"}
        if not fits or not row.shape or not all(part.true for part in found):
            made.append(row)
        elif row.key not in gone:
            gone |= {part.key for part in found}
            whole = (sum(part.shape[0] for part in found), *row.shape[1:])
            key = f"{parent}.{name}_{leaf}" if name == "in_proj" else f"{parent}.{name}.{leaf}"
            made.append(Row(key, row.dtype, whole, tuple(part.true[0] for part in found), "fuse"))
    return made if gone and len({row.key for row in made}) == len(made) else None


def split(rng: Random, rows: Rows) -> Rows | None:
    """A fused qkv becomes three."""
    words = rng.choice(["q k v", "q_proj k_proj v_proj", "query key value", "to_q to_k to_v"]).split()
    made: Rows = []
    for row in rows:
        match = re.fullmatch(r"(.*\.)(qkv|to_qkv|Wqkv|qkv_proj|in_proj)([._])(weight|bias)", row.key)
        if not match or row.kind != "copy" or not row.true or row.shape[0] % 3:
            made.append(row)
            continue
        part = (row.shape[0] // 3, *row.shape[1:])
        made += [Row(f"{match[1]}{word}.{match[4]}", row.dtype, part, row.true, "split", at)
                 for at, word in enumerate(words)]  # fmt: skip
    return made if len(made) > len(rows) and len({row.key for row in made}) == len(made) else None


def stacked(rng: Random, rows: Rows) -> Rows | None:
    """The experts of a layer, or equal blocks of a list, become one tensor of them all."""
    found = lists(rows)
    paths = [path for path in found if path.endswith("experts")] or of_one_kind(rng, rows)
    groups: dict[str, list[tuple[int, Row]]] = defaultdict(list)
    for row in rows:
        for path in paths:
            if match := re.match(rf"{re.escape(path)}\.(\d+)\.(.*)$", row.key):
                groups[f"{path}.{match[2]}"].append((int(match[1]), row))
    for key, group in groups.items():
        whole = len(found[next(path for path in paths if key.startswith(f"{path}."))])
        if len(group) != whole or len({row.shape for _, row in group}) > 1 or "num_batches" in key:
            return None
        if not all(row.true and row.kind == "copy" for _, row in group):
            return None
    made: Rows = []
    key_of = {row.key: key for key, group in groups.items() for _, row in group}
    for row in rows:
        key = key_of.get(row.key)
        if not key:
            made.append(row)
        elif row is groups[key][0][1]:
            true = tuple(one.true[0] for _, one in sorted(groups[key], key=lambda pair: pair[0]))
            made.append(Row(key, row.dtype, (len(true), *row.shape), true, "stack"))
    return made if groups and len({row.key for row in made}) == len(made) else None
