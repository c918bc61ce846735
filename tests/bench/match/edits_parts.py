"""Edits that change which tensors there are: blocks cut off or put in, twins, layouts, fused and split tensors."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from random import Random

from tests.bench.match.edits import (
    NAMES,
    NUMBERS,
    ORDER,
    Edit,
    Rows,
    kind_of,
    lists,
    numbered,
    of_one_kind,
)
from tests.bench.match.edits_layouts import conv1d, fused, is_matrix, roles, split, stacked


def _chosen(rng: Random, rows: Rows, keep: Callable[[int, int], bool], renumber: bool) -> Rows | None:
    paths = of_one_kind(rng, rows, 3)
    if not paths:
        return None
    found = lists(rows)

    def change(path: str, number: int) -> str | None:
        numbers = found[path]
        kept = [n for at, n in enumerate(numbers) if keep(at, len(numbers))]
        return None if number not in kept else str(kept.index(number)) if renumber else str(number)

    return numbered(rows, change, paths)


# ---------------------------------------------------------------------------------------------- blocks


def first_blocks(rng: Random, rows: Rows) -> Rows | None:
    """Only the first blocks of a list."""
    share = rng.choice([0.3, 0.5, 0.8])
    return _chosen(rng, rows, lambda at, of: at < max(1, of * share), False)


def last_blocks(rng: Random, rows: Rows) -> Rows | None:
    """Only the last blocks, under their own numbers."""
    share = rng.choice([0.3, 0.5, 0.8])
    return _chosen(rng, rows, lambda at, of: at >= of - max(1, of * share), False)


def last_blocks_renumbered(rng: Random, rows: Rows) -> Rows | None:
    """Only the last blocks, counted from 0: equal blocks cannot be told."""
    share = rng.choice([0.3, 0.5, 0.8])
    return _chosen(rng, rows, lambda at, of: at >= of - max(1, of * share), True)


def second_blocks(rng: Random, rows: Rows) -> Rows | None:
    """Every second block, under its own number."""
    return _chosen(rng, rows, lambda at, of: at % 2 == 0, False)


def second_blocks_renumbered(rng: Random, rows: Rows) -> Rows | None:
    """Every second block, counted from 0, as in DistilBERT: equal blocks cannot be told."""
    return _chosen(rng, rows, lambda at, of: at % 2 == 0, True)


def _grown(rng: Random, rows: Rows, where: Callable[[int], int], count: int = 1) -> Rows | None:
    """New blocks, equal to the one at some place of its list, whose later ones count on."""
    paths = of_one_kind(rng, rows)
    if not paths:
        return None
    path = rng.choice(paths)
    numbers = lists(rows)[path]
    if numbers != list(range(len(numbers))):
        return None
    place = where(len(numbers))
    model = min(place, len(numbers) - 1)
    start = f"{path}." if path else ""
    blocks: dict[int, Rows] = defaultdict(list)
    for row in rows:
        if match := re.match(rf"{re.escape(start)}(\d+)\.", row.key):
            blocks[int(match[1])].append(row)
    made: Rows = []
    for row in rows:
        match = re.match(rf"{re.escape(start)}(\d+)\.", row.key)
        number = int(match[1]) if match else -1
        if row is blocks[min(place, len(numbers) - 1)][0] and place < len(numbers):
            made += _copies(blocks[model], start, place, count)
        to = number + count if match and number >= place else number
        made.append(replace(row, key=f"{start}{to}.{row.key[match.end() :]}") if match else row)
        if place == len(numbers) and row is blocks[len(numbers) - 1][-1]:
            made += _copies(blocks[model], start, place, count)
    return made if len({row.key for row in made}) == len(made) else None


def _copies(block: Rows, start: str, place: int, count: int) -> Rows:
    tails = [re.sub(rf"^{re.escape(start)}\d+\.", "", row.key) for row in block]
    return [replace(row, key=f"{start}{place + n}.{tail}", true=(), kind="copy")
            for n in range(count) for row, tail in zip(block, tails, strict=True)]  # fmt: skip


def blocks_behind(rng: Random, rows: Rows) -> Rows | None:
    """New blocks behind the last."""
    return _grown(rng, rows, lambda of: of, rng.choice([1, 2, 4]))


def block_between(rng: Random, rows: Rows) -> Rows | None:
    """A new block in front or in the middle: equal blocks cannot be told."""
    return _grown(rng, rows, rng.randrange, 1)


def adapters(rng: Random, rows: Rows) -> Rows | None:
    """A new module in every block, equal to one that is there."""
    paths = of_one_kind(rng, rows)
    units: dict[str, Rows] = defaultdict(list)
    for row in rows:
        units[row.key.rpartition(".")[0]].append(row)
    inside = [unit for unit in units if any(unit.startswith(f"{path}.") for path in paths)]
    if not inside:
        return None
    model = kind_of(rng.choice(inside))
    name = rng.choice(
        [
            "adapter",
            "norm_extra",
            "ls",
            "side",
            "fc_extra",
            "new_proj",
            "m9",
            "lora",
            "cross_attn",
            "norm0",
            "gate_extra",
        ]
    )
    is_before = rng.random() < 0.5
    made: Rows = []
    for unit, tensors in units.items():
        extra = []
        if kind_of(unit) == model:
            stem = ".".join([*unit.split(".")[:-1], name])
            extra = [replace(row, key=stem + row.key.removeprefix(unit), true=(), kind="copy") for row in tensors]
        made += [*extra, *tensors] if is_before else [*tensors, *extra]
    return made if len({row.key for row in made}) == len(made) > len(rows) else None


def narrowed(rng: Random, rows: Rows) -> Rows | None:
    """One block has other widths."""
    paths = of_one_kind(rng, rows)
    if not paths:
        return None
    path = rng.choice(paths)
    start = ".".join(filter(None, [path, str(rng.choice(lists(rows)[path]))])) + "."
    ratio = rng.choice([2, 3])
    return [replace(row, shape=tuple(n * ratio if n > 1 else n for n in row.shape), true=(), kind="copy")
            if row.key.startswith(start) and row.shape else row for row in rows]  # fmt: skip


# ---------------------------------------------------------------------------------------------- beside the model


def _last(rows: Rows) -> int | None:
    return next((at for at in reversed(range(len(rows))) if is_matrix(rows[at])), None)


def other_head(rng: Random, rows: Rows) -> Rows | None:
    """Other classes."""
    at = _last(rows)
    if at is None:
        return None
    unit = rows[at].key.rpartition(".")[0]
    classes = rng.choice([n for n in (2, 10, 100, 21841) if n != rows[at].shape[0]])
    return [replace(row, shape=(classes, *row.shape[1:]), true=(), kind="copy")
            if row.key.rpartition(".")[0] == unit and row.shape and row.shape[0] == rows[at].shape[0] else row
            for row in rows]  # fmt: skip


def second_head(rng: Random, rows: Rows) -> Rows | None:
    """Another head of the same shape beside the last matrix."""
    at = _last(rows)
    if at is None:
        return None
    unit = rows[at].key.rpartition(".")[0]
    *parents, word = unit.split(".")
    new = ".".join([*parents, rng.choice(["{}_dist", "aux_{}", "{}2", "{}_new"]).format(word)])
    extra = [replace(row, key=new + row.key.removeprefix(unit), true=(), kind="copy")
             for row in rows if row.key.rpartition(".")[0] == unit]  # fmt: skip
    made = [*rows, *extra] if rng.random() < 0.5 else [*extra, *rows]
    return made if len({row.key for row in made}) == len(made) else None


def _beside(rng: Random, rows: Rows, main: str, other: str) -> Rows:
    ours = [replace(row, key=f"{main}.{row.key}") for row in rows]
    theirs = [replace(row, key=f"{other}.{row.key}", true=(), kind="copy") for row in rows]
    return [*ours, *theirs] if rng.random() < 0.5 else [*theirs, *ours]


def twin(rng: Random, rows: Rows) -> Rows | None:
    """The whole model twice, and no name says which is meant."""
    names = rng.choice(
        ["student teacher", "online target", "encoder_q encoder_k", "netA netB", "a b", "left right", "0 1", "m1 m2"]
    )
    return _beside(rng, rows, *rng.sample(names.split(), 2))


def average(rng: Random, rows: Rows) -> Rows | None:
    """The whole model and an average of it, by its name."""
    return _beside(rng, rows, *rng.choice(["model model_ema", "net ema_net", "model ema", "unet ema_unet"]).split())


def own_twin(rng: Random, rows: Rows) -> Rows | None:
    """The model keeps its names; a copy stands beside it below a prefix."""
    prefix = rng.choice(["ema", "teacher", "momentum_encoder", "old_model", "model_ema.module", "aux"])
    theirs = [replace(row, key=f"{prefix}.{row.key}", true=(), kind="copy") for row in rows]
    return [*rows, *theirs] if rng.random() < 0.5 else [*theirs, *rows]


def without_biases(rng: Random, rows: Rows) -> Rows | None:
    """No biases beside matrices."""
    matrices = {row.key.rpartition(".")[0] for row in rows if len(row.shape) > 1}
    made = [row for row in rows if not (row.key.endswith(".bias") and row.key[:-5] in matrices)]
    return made if len(made) < len(rows) else None


def without_counters(rng: Random, rows: Rows) -> Rows | None:
    """No num_batches_tracked."""
    made = [row for row in rows if not row.key.endswith("num_batches_tracked")]
    return made if len(made) < len(rows) else None


PARTS: dict[str, Edit] = {edit.__name__: edit for edit in (
    first_blocks, last_blocks, last_blocks_renumbered, second_blocks, second_blocks_renumbered, blocks_behind,
    block_between, adapters, narrowed, other_head, second_head, twin, average, own_twin, roles, conv1d, fused, split,
    stacked, without_biases, without_counters)}  # fmt: skip
EDITS: dict[str, Edit] = {**NAMES, **NUMBERS, **ORDER, **PARTS}
_UNTOLD = {"last_blocks_renumbered", "second_blocks_renumbered", "block_between", "twin"}
_CUT = {"first_blocks", "last_blocks", "second_blocks"}


def untold(edits: Iterable[str]) -> set[str]:
    """Edits after which a header often cannot tell the truth, so that no answer is right there."""
    found = _UNTOLD & set(edits)
    others = {*NUMBERS, "blocks_behind"} & set(edits)
    if _CUT & set(edits) and (others or sum(edit in _CUT for edit in edits) > 1):
        found.add("cut and renumbered")
    if "conv1d" in edits and {"fused", "split"} & set(edits):
        found.add("half of a block turned")
    if {"average", "own_twin"} & set(edits) and {"unwrapped", "flattened"} & set(edits):
        found.add("a copy under the model's names")
    return found
