"""Remarks on what two checkpoints do not share: why the keys or shapes differ, and whether it matters."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ckptool.commands.diff.pairing import Side
from ckptool.commands.diff.result import Changes, Status
from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.counts import many
from ckptool.core.keys import common_prefix, strip_wrappers, wrapper_prefix
from ckptool.core.shell import shell_quote
from ckptool.facts.counters import promised_counters
from ckptool.facts.headers import modules_by_last

_COUNTER = "num_batches_tracked"
_MEAN = ".running_mean"
DERIVED = ("position_ids", "inv_freq", "relative_position_index", "attn_mask", "masked_bias", "token_type_ids")
"""Last parts of buffers that models compute."""


def name_of(sides: tuple[Checkpoint, Checkpoint], side: int) -> str:
    """How notes name a side: by its file's name; by its whole path where both have one name."""
    path, other = sides[side].path, sides[1 - side].path
    if path.name != other.name or path == other:
        return path.name if path != other else ("the old", "the new")[side]
    return str(path)


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two checkpoints by side, 0 the old and 1 the new; keys without a prefix that was seen through."""

    sides: tuple[Checkpoint, Checkpoint]
    tensors: tuple[Side, Side]
    only: tuple[Sequence[str], Sequence[str]]

    def name(self, side: int) -> str:
        """The file's name; its whole path where both have one name."""
        return name_of(self.sides, side)

    def file(self, side: int) -> str:
        """The file as a word for a command line."""
        return shell_quote(self.sides[side].path)

    def reshaped(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        """Keys of both, with the two shapes, where these differ."""
        old, new = self.tensors
        keys = list(old)
        keys = keys if keys == list(new) else [key for key in keys if key in new]
        forms = zip(keys, old.forms(keys), new.forms(keys), strict=True)
        return {key: (a.shape, b.shape) for key, a, b in forms if a.shape != b.shape}


def explain_pair(
    old_only: Sequence[str],
    new_only: Sequence[str],
    old: Checkpoint,
    new: Checkpoint,
    prefixes: tuple[str, str] = ("", ""),
) -> tuple[Note, ...]:
    """Why two checkpoints have different keys and shapes, as far as an expert can tell from the headers.

    Args:
        old_only: keys that only the old checkpoint has.
        new_only: keys that only the new one has.
        old: the old checkpoint.
        new: the new one.
        prefixes: what all old and all new keys begin with and the comparison did not look at: ("module.", "").

    Example:
        >>> from pathlib import Path
        >>> from ckptool.core.tensor import Tensor
        >>> from ckptool.core.format import Format
        >>> from ckptool.core.spec import TensorSpec
        >>> def opened(name, *keys):
        ...     tensors = {key: Tensor(TensorSpec(key, "float32", ())) for key in keys}
        ...     return Checkpoint(Path(name), Format("torch zip"), tensors)
        >>> new = opened("new.pth", "bn.running_mean", "bn.num_batches_tracked")
        >>> notes = explain_pair([], ["bn.num_batches_tracked"], opened("old.pth", "bn.running_mean"), new)
        >>> notes[0].text
        '1 key only in new.pth: a BatchNorm counter (num_batches_tracked)'
    """
    olds, news = Side(old, prefixes[0]), Side(new, prefixes[1])
    only = (
        [name for key in old_only if (name := key.removeprefix(prefixes[0])) not in news],
        [name for key in new_only if (name := key.removeprefix(prefixes[1])) not in olds],
    )
    pair = _Pair((old, new), (olds, news), only)
    return tuple(note for remark in _REMARKS for note in remark(pair))


_STATISTICS = ("running_mean", "running_var", _COUNTER)


def statistics_notes(changes: Changes) -> Iterator[Note]:
    """A model that was frozen, and yet moved: its BatchNorms were not in evaluation mode."""
    moved = changes.differing
    if not moved or len(moved) == len(changes) or moved.count(Status.CHANGED) < len(moved):
        return
    keys = tuple(moved.keys)
    if all(key.rpartition(".")[2] in _STATISTICS for key in keys):
        yield Note(
            "only running statistics moved: BatchNorm was not in eval()",
            "requires_grad_(False) does not stop it; call .eval() on frozen BatchNorm modules after model.train()",
            keys,
        )


def _counters(pair: _Pair) -> Iterator[Note]:
    for side, only in enumerate(pair.only):
        counters = [key for key in only if key.rpartition(".")[2] == _COUNTER]
        if not counters:
            continue
        lost = {key.rpartition(".")[0] for key in only if key.endswith(_MEAN)}  # no BatchNorms on the other side
        modules = {key.rpartition(".")[0] for key in pair.tensors[1 - side]} - lost
        keys = tuple(key for key in counters if key.rpartition(".")[0] in modules)
        if not keys:
            continue
        which = f"BatchNorm counters ({_COUNTER})"
        if len(keys) < len(only):
            text = f"{len(keys):,} of the {many(len(only), 'key')} only in {pair.name(side)}: {which}"
        elif len(keys) > 1:
            text = f"{many(len(keys), 'key')} only in {pair.name(side)}: all {which}"
        else:
            text = f"1 key only in {pair.name(side)}: a BatchNorm counter ({_COUNTER})"
        yield _counter_note(text, keys, pair, side)


def _counter_note(text: str, keys: tuple[str, ...], pair: _Pair, side: int) -> Note:
    why = "torch 0.4.1 and newer write them, evaluation does not use them"
    modules = [key.rpartition(".")[0] for key in keys]
    lacking = pair.name(1 - side)
    prefix = wrapper_prefix(pair.sides[1 - side])
    names = dict.fromkeys(found for module in modules for found in (module, prefix + module))
    promised = promised_counters(pair.sides[1 - side].module_versions, names)
    if promised:
        hint = (
            f"{why}; but a strict load of {lacking} fails with {many(len(promised), 'missing key')}, since its module "
            "versions say they were written: load with strict=False"
        )
        return Note(text, hint, keys, "warning")
    return Note(text, f"harmless: {why}, and loading {lacking} fills in zeros", keys)


def _prefix(pair: _Pair) -> Iterator[Note]:
    """One side's keys are the other's behind a prefix."""
    for side, only in enumerate(pair.only):
        other = pair.tensors[1 - side]
        if not only or not pair.only[1 - side]:
            continue
        wrapper = wrapper_prefix(only)
        for prefix in dict.fromkeys((wrapper, common_prefix(only))):
            if prefix and _most(key.removeprefix(prefix) in other for key in only):
                text = f'the keys of {pair.name(side)} are those of {pair.name(1 - side)} behind the prefix "{prefix}"'
                rule = "strip-wrappers" if prefix == wrapper else f"{prefix} ->"
                yield Note(text, f"remove it: ckptool remap {pair.file(side)} -r '{rule}' -o PLAIN")
                return
        if _most(strip_wrappers(key) in other for key in only):
            text = f"the keys of {pair.name(side)} are those of {pair.name(1 - side)} with wrappers' names between"
            yield Note(text, f"remove them: ckptool remap {pair.file(side)} -r strip-wrappers -o PLAIN")
            return


def _most(found: Iterable[bool]) -> bool:
    flags = list(found)
    return 2 * sum(flags) > len(flags)


def _nothing_shared(pair: _Pair) -> Iterator[Note]:
    old, new = pair.tensors
    if any(pair.only) and old and new and old.keys().isdisjoint(new) and not any(_prefix(pair)):
        text = "no key is in both: another model, or another naming of the same one"
        yield Note(text, f"look for counterparts: ckptool diff {pair.file(0)} {pair.file(1)} --match auto")


def _derived(pair: _Pair) -> Iterator[Note]:
    for side, only in enumerate(pair.only):
        keys = tuple(key for key in only if key.rpartition(".")[2] in DERIVED)
        if keys:
            lasts = ", ".join(dict.fromkeys(key.rpartition(".")[2] for key in keys))
            are = "is" if len(keys) == 1 else "are"
            text = f"{many(len(keys), 'key')} only in {pair.name(side)} {are} computed, not learned: {lasts}"
            yield Note(text, "harmless: a model that wants them makes them itself", keys)


def _fused(pair: _Pair) -> Iterator[Note]:
    fused = re.compile(r"(?:^|[._])(?:qkv|in_proj|c_attn|query_key_value|Wqkv|qkv_proj)(?:[._]|$)")
    parted = re.compile(r"(?:^|\.)(?:q|q_proj|query|to_q|wq|q_lin)\.weight$")
    for side in (0, 1):
        one = [key for key in pair.only[side] if fused.search(key)]
        three = [key for key in pair.only[1 - side] if parted.search(key)]
        if one and three:
            text = (
                f"query, key and value are one tensor in {pair.name(side)} ({one[0]}), three in {pair.name(1 - side)}"
            )
            yield Note(text, "remap can split and join them: a layout such as '(x o) i -> o i'", (*one, *three))


def _experts(pair: _Pair) -> Iterator[Note]:
    """Experts that one side has as a module each, or stacked in another way."""
    if not all(any(".experts." in key for key in keys) for keys in pair.only):
        return
    from ckptool.recipes.fitting import expert_layout

    old, new = ({key: pair.tensors[side][key].spec for key in pair.only[side]} for side in (0, 1))
    for side, specs, wanted in ((0, old, new), (1, new, old)):
        options, made = expert_layout(specs, wanted)
        if options and "--reverse" not in options:
            text = f"experts are stored in another layout: {many(len(specs), 'tensor')} only in {pair.name(side)}"
            text += f" make {len(made):,} of the {many(len(wanted), 'tensor')} only in {pair.name(1 - side)}"
            yield Note(text, f"ckptool diff {pair.file(side)} {pair.file(1 - side)} {' '.join(options)}")
            return


def _norm_names(pair: _Pair) -> Iterator[Note]:
    for side in (0, 1):
        old, new = modules_by_last(pair.only[side]), modules_by_last(pair.only[1 - side])
        both = [module for module in old.get("gamma", ()) if module in new.get("weight", ())]
        if both:
            text = f"{many(len(both), 'norm')} with gamma and beta in {pair.name(side)}, weight and bias in the other"
            rules = "-r '.gamma -> .weight' -r '.beta -> .bias'"
            yield Note(text, f"rename them: ckptool remap {pair.file(side)} {rules} -o OUT")


_POSITIONS = re.compile(r"pos_?emb|position_?emb|positional_emb|wpe\b|relative_position_bias_table", re.IGNORECASE)
_EMBEDDINGS = re.compile(r"embed|wte\b|word_emb", re.IGNORECASE)


def _shapes(pair: _Pair) -> Iterator[Note]:
    """Other classes, another vocabulary, another resolution, other input channels."""
    reshaped = pair.reshaped()
    positions = {key: shapes for key, shapes in reshaped.items() if _POSITIONS.search(key)}
    for key, (old, new) in list(positions.items())[:1]:
        yield Note(
            f"{key} is for another input size: {_grid(key, old)} against {_grid(key, new)}",
            "transplant can resample it to fit",
            tuple(positions),
        )
    rest = {key: shapes for key, shapes in reshaped.items() if key not in positions}
    rows = {key: (old[0], new[0]) for key, (old, new) in rest.items() if old and new and old[1:] == new[1:]}
    if rest and len(rows) == len(rest) and len(set(rows.values())) == 1:
        yield _heads(rows, only=len(rest) == len(reshaped) and not any(pair.only))
        return
    for key, (old, new) in list(rest.items())[:1]:
        if len(old) == len(new) == 4 and (old[0], *old[2:]) == (new[0], *new[2:]) and {old[1], new[1]} & {1, 3}:
            yield Note(f"{key} has another number of input channels: {old[1]} against {new[1]}", "", (key,))


def _heads(rows: dict[str, tuple[int, int]], only: bool) -> Note:
    modules = dict.fromkeys(key.rpartition(".")[0] or key for key in rows)
    old, new = next(iter(rows.values()))
    vocabulary = any(_EMBEDDINGS.search(key) for key in rows)
    what = "vocabulary" if vocabulary else "classifier"
    unit = "tokens" if vocabulary else "classes"
    names = ", ".join(list(modules)[:4]) + (", ..." if len(modules) > 4 else "")
    text = f"{'only ' if only else ''}the {what} ({names}) differs in shape: {old:,} against {new:,} {unit}"
    return Note(text, "everything else fits; transplant can keep the target's own" if only else "", tuple(rows))


def _grid(key: str, shape: tuple[int, ...]) -> str:
    """``14 x 14 patches`` where the number of positions says so."""
    if "bias_table" in key:
        side = (math.isqrt(shape[0]) + 1) // 2 if shape else 0
        return f"windows of {side} x {side}" if (2 * side - 1) ** 2 == shape[:1][0] else str(list(shape))
    positions = shape[-2] if len(shape) > 1 else 0
    for extra in (0, 1, 2):
        side = math.isqrt(max(positions - extra, 0))
        if side > 3 and side * side == positions - extra:
            return f"{side} x {side} patches"
    return f"{positions:,} positions" if positions else str(list(shape))


_REMARKS: tuple[Callable[[_Pair], Iterator[Note]], ...] = (
    _counters,
    _prefix,
    _nothing_shared,
    _derived,
    _fused,
    _experts,
    _norm_names,
    _shapes,
)
