"""Roles under other names: what weights and biases are called is learned from which tensors stand together.

A matrix beside a vector as long as an axis is a weight with its bias, whatever they are called; four vectors of one
length are a batch norm. So keys are read with the usual names at their ends, and nobody else has to know: ``vars/0`` of
Keras, the numbered blobs of Caffe, ``poids`` and ``biais``.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache

from ckptool.core.checkpoint import Note
from ckptool.core.spec import TensorSpec
from ckptool.matching.order import has_order
from ckptool.matching.result import Candidate, Confidence, Evidence, MatchReport, Pair
from ckptool.matching.words import leaf_of, plain, vocabulary

Shape = tuple[int, ...]
Schema = tuple[str, tuple[str, ...]]

_SEEN = 3  # modules of one make-up, of which roles are learned
_NORM = ("weight", "bias", "running_mean", "running_var")
_HOLDER = re.compile(r"[./]vars$")  # of the variables of one layer, in Keras
_AVERAGE = re.compile(r"(?<=mean|ance)[./](EMA|ExponentialMovingAverage)$")  # of a statistic, in Tensorpack
_SCALE = re.compile("scale", re.IGNORECASE)


def usual_names(specs: Mapping[str, TensorSpec]) -> dict[str, str]:
    """For each key, the key with the usual name of its role; none for any where nothing is learned.

    Args:
        specs: in the file's order.

    Example:
        >>> names = [f"l{n}/vars/{role}" for n in range(3) for role in (0, 1)]
        >>> usual_names({name: TensorSpec(name, "float32", (4, 3)[: 2 - int(name[-1])]) for name in names})["l2/vars/1"]
        'l2.bias'
    """
    is_flat = not any("." in key or "/" in key for key in specs)
    averaged = {key: plain for key in specs if (plain := _AVERAGE.sub("", key.removesuffix(":0"))) != key}
    modules: dict[str, dict[str, Shape]] = defaultdict(dict)
    for key, spec in specs.items():
        module, last = _parted(averaged.get(key, key), is_flat)
        modules[module][last] = spec.shape
    is_ordered = has_order([*specs])
    schema_of = cache(lambda rows: _schema(dict(rows), is_ordered))
    schemas = {module: found for module, rows in modules.items() if (found := schema_of(tuple(rows.items())))}
    counts = Counter(schemas.values())
    learned = _learned(counts, is_ordered)
    if not learned and not averaged:
        return {}
    names: dict[str, str] = {}
    for key in specs:
        plain = averaged.get(key, key)
        module, last = _parted(plain, is_flat)
        schema = schemas.get(module)
        role = learned.get(schema, {}).get(last) if schema else None
        names[key] = f"{_home(module, modules)}.{role}" if role else plain
    return names if len({*names.values()}) == len(names) else {}


def _parted(key: str, is_flat: bool) -> tuple[str, str]:
    at = key.rfind("_") if is_flat else max(key.rfind("."), key.rfind("/"))
    return key[: max(at, 0)], key[at + 1 :]


def _home(module: str, modules: Mapping[str, object]) -> str:
    """The module that a tensor belongs to: that of a scale is the norm in front of it, as Caffe has them."""
    norm = _SCALE.sub("bn", module)
    return _HOLDER.sub("", norm if norm in modules else module)


def _schema(rows: Mapping[str, Shape], is_ordered: bool) -> Schema | None:
    """What a module is made of, and the names of that; None where a name is a usual one, or nothing can be learned.

    The kinds: a matrix, with a vector or without; vectors of one length, one to four, with a number or without.
    """
    read = [name for name in rows if not leaf_of(("", name), frozenset()).bare]
    read = [name for name in read if plain(name.lower()) not in vocabulary().foreign]  # may be learned all the same
    if any(_usual(name) not in _NORM[2:] for name in read) or (
        any(name.isdigit() for name in rows) and sorted(rows) != [str(at) for at in range(len(rows))]
    ):
        return None
    matrices = [name for name, shape in rows.items() if len(shape) > 1]
    vectors = [name for name, shape in rows.items() if len(shape) == 1 and shape != (1,)]
    vectors = vectors if is_ordered else sorted(vectors)
    single = [name for name, shape in rows.items() if shape in ((), (1,))]
    lengths = {rows[name] for name in vectors}
    if len(matrices) == 1 and not single and len(vectors) < 2:
        ends = rows[matrices[0]][0], rows[matrices[0]][-1]
        return ("matrix", (*matrices, *vectors)) if all(length[0] in ends for length in lengths) else None
    if not matrices and len(lengths) == 1 and len(vectors) in (1, 2, 4) and len(single) < 2:
        return ("norm" if single or len(vectors) == 4 else "vector"), (*vectors, *single)
    return None


def _usual(name: str) -> str:
    """The role that everyone knows by this name; "" if nobody does."""
    return vocabulary().roles.get(plain(name.lower()), "")


def _learned(counts: Mapping[Schema, int], is_ordered: bool) -> dict[Schema, dict[str, str]]:
    """The roles of the names of each make-up, if some are seen often; matrices tell what the names are in norms."""
    often = [schema for schema, count in counts.items() if count >= _SEEN]
    norms = {name for kind, names in often if kind == "norm" for name in names}
    known: dict[str, str] = {}
    for kind, names in counts:
        is_known = norms >= {*names} or (len(names) == 2 and counts[kind, names] >= _SEEN)
        if kind == "matrix" and not names[0].isdigit() and is_known:
            known |= dict(zip(names, _NORM, strict=False))
    for kind, names in often:
        if kind == "norm" and not names[0].isdigit():
            known |= _of_vectors(names, known, is_ordered)
    is_counted = any(kind in ("matrix", "norm") and names[0].isdigit() for kind, names in often)
    found: dict[Schema, dict[str, str]] = {}
    for kind, names in counts:
        if not names[0].isdigit():
            roles = {name: known[name] for name in names if name in known}
        elif not is_counted:
            continue
        elif kind == "norm" and len(names) == 3:  # Caffe's: a mean, a variance, and by what both are to be divided
            roles = {"0": "running_mean", "1": "running_var"}
        else:
            roles = dict(zip(names, _NORM, strict=False)) if kind == "matrix" else _of_vectors(names, {}, True)
        if roles:
            found[kind, names] = roles
    return found


def _of_vectors(names: Sequence[str], known: Mapping[str, str], is_ordered: bool) -> dict[str, str]:
    """The roles of a norm's vectors: those that are known, then a variance by its name, then in the usual order."""
    vectors, single = (names[:-1], names[-1:]) if len(names) in (3, 5) else (names, ())
    wanted = _NORM[: len(vectors)]
    roles = {name: role for name in vectors if (role := known.get(name, _usual(name))) in wanted}
    left = [name for name in vectors if name not in roles]
    free = [role for role in wanted if role not in roles.values()]
    if len(left) > 1 and not is_ordered:
        return {}
    return {**roles, **dict(zip(left, free, strict=True)), **dict.fromkeys(single, "num_batches_tracked")}


def called(specs: Mapping[str, TensorSpec], names: Mapping[str, str]) -> Mapping[str, TensorSpec]:
    """The tensors under other names; the same mapping where none is another."""
    if all(key == name for key, name in names.items()):
        return specs
    return {names[key]: replace(spec, key=names[key]) for key, spec in specs.items()}


def called_back(report: MatchReport, sources: Mapping[str, str], targets: Mapping[str, str]) -> MatchReport:
    """The report in the keys of both files, by the names under which they were matched."""
    ours, theirs = ({name: key for key, name in side.items() if name != key} for side in (sources, targets))
    return renamed(report, (sources, targets), (ours, theirs)) if ours or theirs else report


def renamed(report: MatchReport, asked: Sequence[Mapping[str, str]], back: Sequence[Mapping[str, str]]) -> MatchReport:
    """The report in other keys.

    Args:
        report: it.
        asked: of each side, by the key that somebody asks for, that which the report knows.
        back: of each side, the other key of those that have one.
    """
    ours, theirs = back

    def others(keys: Iterable[str], names: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(names.get(key, key) for key in keys))

    def pair_back(pair: Pair) -> Pair:
        rival = pair.runner_up and (ours.get(pair.runner_up[0], pair.runner_up[0]), pair.runner_up[1])
        return replace(pair, targets=others(pair.targets, theirs), sources=others(pair.sources, ours), runner_up=rival)

    def weighed(key: str) -> list[Candidate]:
        names = dict.fromkeys(side.get(key, key) for side in asked)
        found = dict.fromkeys(one for name in names for one in (report.weighed(name) if report.weighed else ()))
        return [replace(one, targets=others(one.targets, theirs), sources=others(one.sources, ours)) for one in found]

    return replace(
        report,
        pairs=tuple(map(pair_back, report.pairs)),
        reshaped=tuple(map(pair_back, report.reshaped)),
        unmatched_targets=others(report.unmatched_targets, theirs),
        unmatched_sources=others(report.unmatched_sources, ours),
        notes=tuple(replace(note, keys=others(note.keys, theirs)) for note in report.notes),
        weighed=weighed,
    )


def without_sums(
    report: MatchReport, source: Mapping[str, TensorSpec], target: Mapping[str, TensorSpec]
) -> MatchReport:
    """The report, in which Caffe's means and variances are guesses: they are sums, and the next blob counts them."""
    sums = [
        pair
        for pair in report.accepted()
        if any(_is_sum(key, side) for keys, side in ((pair.sources, source), (pair.targets, target)) for key in keys)
    ]
    if not sums:
        return report
    guesses = {
        id(pair): replace(pair, confidence=Confidence.GUESS, evidence=(*pair.evidence, Evidence.UNDIVIDED))
        for pair in sums
    }
    text = "Caffe's means and variances are sums, to be divided by the third blob of their layer: they are not taken"
    first = sums[0].sources[0][:-1]
    made = {pair.sources[0]: pair.targets[0] for pair in sums}
    hint = "--accept guess takes them, which is right if that is 1"
    if {f"{first}0", f"{first}1"} <= made.keys():
        rules = [f"{first}2 -> {first}2, {first}3", "---"]  # each rule uses up what it takes
        rules += [f"{first}{at}, {first}{at + 2} -> {made[f'{first}{at}']} | = $1 / $2" for at in (0, 1)]
        hint = "for one layer: " + " ".join(f'-r "{rule}"' for rule in rules)
    note = Note(text, hint, tuple(key for pair in sums for key in pair.targets), "warning")
    pairs = tuple(guesses.get(id(pair), pair) for pair in report.pairs)
    return replace(report, pairs=pairs, notes=(*report.notes, note))


def _is_sum(key: str, specs: Mapping[str, TensorSpec]) -> bool:
    """The first or the second of three blobs, of which the third is one number."""
    factor = specs.get(f"{key[:-1]}2")
    return key[-1:] in ("0", "1") and key[-2:-1] in (".", "/") and factor is not None and factor.shape == (1,)
