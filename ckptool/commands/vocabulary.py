"""Embeddings and output heads in the order of another tokenizer: rows follow their tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ckptool.commands.beside.companions import is_of_tokenizer
from ckptool.commands.beside.hf_config import is_embedding
from ckptool.core.beside import Carried
from ckptool.core.bytes import Folder, PathText
from ckptool.core.checkpoint import Note
from ckptool.core.counts import many
from ckptool.core.dtypes import DTYPES
from ckptool.core.errors import PlanError, UsageError
from ckptool.core.ops import Cast
from ckptool.core.plan import Apply, Plan, Step, Value
from ckptool.core.reasons import ByTokens
from ckptool.core.spec import TensorSpec
from ckptool.fits.tokens import MAX_TEXT, Vocabulary, read_vocabulary
from ckptool.fits.vocabulary import TokenRows
from ckptool.storage.locate import locate

_HEAD_BIAS = re.compile(
    r"(?:.*\.)?(?:lm_head|embed_out|output_embedding|cls\.predictions|cls\.predictions\.decoder)\.bias"
)
_SURELY = 1000  # rows; smaller axes may have a length by chance


@dataclass(frozen=True, slots=True)
class Tokenizers:
    """The vocabulary that a model has, and the one that it gets.

    Attributes:
        old: whose rows the tables have.
        new: whose rows they get.
        rows: of the new tables; None for as many as the new vocabulary needs.
        files: those of the new tokenizer, which a folder output holds in place of the old one's.
    """

    old: Vocabulary
    new: Vocabulary
    rows: int | None = None
    files: tuple[Carried, ...] = ()


def tokenizers(new: PathText, old: PathText, rows: int | None = None) -> Tokenizers:
    """Two tokenizers from their files or folders.

    Args:
        new: whose rows the tables get.
        old: whose rows they have.
        rows: of the new tables.

    Raises:
        UsageError: one of them cannot be read.
    """
    return Tokenizers(read_vocabulary(old), read_vocabulary(new), rows, _files_of(new))


def _files_of(path: PathText) -> tuple[Carried, ...]:
    place = locate(path)
    folder = place if isinstance(place, Folder) else place.folder
    found = []
    for entry in folder.entries():
        if entry.is_folder or not is_of_tokenizer(entry.name):
            continue
        source = folder.open(entry.name)
        if source.size > MAX_TEXT:
            raise UsageError(f"{entry.name} is too large for a file of a tokenizer", path=source.path)
        with source.open() as opened:
            found.append(Carried(entry.name, opened.read(0, source.size)))
    return tuple(found)


def with_tokens(plan: Plan, given: Tokenizers) -> Plan:
    """The plan with the rows of embeddings, heads and their biases in the order of another vocabulary.

    A row of a token that both have is copied; any other row is the mean of all rows of the old table.

    Args:
        plan: a plan that is not complete.
        given: both vocabularies.

    Raises:
        PlanError: there is no embedding, or its size is not the vocabulary's.
    """
    tables = {step.target.key: step.target for step in plan.steps if _is_table(step.target)}
    sizes = {spec.shape[0] for spec in tables.values()}
    if not tables:
        raise PlanError(
            "no embedding is among the keys",
            hint="it is known by its name: embed_tokens, wte, word_embeddings, lm_head",
        )
    if len(sizes) > 1:
        listed = ", ".join(f"{key} has {spec.shape[0]:,}" for key, spec in tables.items())
        raise PlanError(f"the embeddings have different numbers of rows: {listed}", key=next(iter(tables)))
    (size,) = sizes
    taken = _taken(given, size, next(iter(tables)))
    copied = len(taken) - taken.count(-1)
    reason = ByTokens(copied, len(taken) - copied)
    steps = [_placed(step, taken, reason) if step.target.key in tables else step for step in plan.steps]
    others = [step.target for step in plan.steps if step.target.key not in tables and size in step.target.shape]
    notes = [*plan.notes, *_others(others, size)]
    return replace(plan, steps=steps, notes=tuple(notes), tokenizer=given.files)


def _is_table(spec: TensorSpec) -> bool:
    if len(spec.shape) == 2:
        return is_embedding(spec.key)
    return len(spec.shape) == 1 and _HEAD_BIAS.fullmatch(spec.key) is not None


def _taken(given: Tokenizers, size: int, key: str) -> tuple[int, ...]:
    """The old row of each new one; -1 for the mean."""
    old, new = given.old, given.new
    if old.rows > size:
        raise PlanError(
            f"{old.path} has {old.rows:,} ids, and {key} has {size:,} rows",
            hint="--old-tokenizer names the tokenizer that the model was made with",
            key=key,
        )
    rows = new.rows if given.rows is None else given.rows
    if rows < new.rows:
        raise PlanError(
            f"{new.path} has {new.rows:,} ids, which {rows:,} rows do not hold", hint="leave out --vocab-rows"
        )
    taken = [-1] * rows
    for token, number in new.ids.items():
        taken[number] = old.ids.get(token, -1)
    if all(at < 0 for at in taken):
        raise PlanError(
            f"{old.path} and {new.path} have no token in common", hint="rows follow tokens that are spelled alike"
        )
    return tuple(taken)


def _placed(step: Step, taken: tuple[int, ...], reason: ByTokens) -> Step:
    """The step with its rows in the new order; a cast comes after it."""
    target = replace(step.target, shape=(len(taken), *step.target.shape[1:]))
    spec = step.target
    if DTYPES[spec.dtype].kind != "float" or DTYPES[spec.dtype].is_packed:
        raise PlanError(f"{spec.key} is {spec.dtype}: a mean of its rows is none", hint="--dequantize", key=spec.key)
    op = TokenRows("rows by token", spec.shape, TensorSpec("", spec.dtype, target.shape), taken)

    def moved(value: Value) -> Value:
        if isinstance(value, Apply) and isinstance(value.op, Cast):
            return Apply(value.op, tuple(map(moved, value.args)))
        return Apply(op, (value,))

    return replace(step, target=target, value=moved(step.value), reason=reason)


def _others(specs: Sequence[TensorSpec], size: int) -> list[Note]:
    """What may be counted by tokens, too, and is left as it is."""
    names = tuple(spec.key for spec in specs)
    if not names or size < _SURELY:
        return []
    what = f"{many(len(names), 'other tensor has', 'other tensors have')} an axis of {size:,}"
    hint = "see whether its rows are tokens: they stay as they are"
    return [Note(f"{what}: {names[0]}", hint, names, level="warning")]
