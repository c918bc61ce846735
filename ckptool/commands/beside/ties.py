"""Which tensors of an output are one tensor, and how its container says so."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.counts import many
from ckptool.core.plan import Copies, Plan, Source, Step, Value, sources_of
from ckptool.core.spec import DTYPES
from ckptool.core.tensor import Tensor
from ckptool.core.ties import TIED_KEY, recorded_ties, without_recorded_ties
from ckptool.core.views import c_strides
from ckptool.engine.reading import Reader


def with_ties(plan: Plan) -> Plan:
    """The plan with `tied_to` on every step that gives the same elements as an earlier one.

    Steps are one tensor if they apply equal ops to tensors that are one tensor in the inputs: a cast of tied weights
    stays tied. Tensors of the inputs are one tensor if they view the same elements of a storage, or if the metadata
    says so and their bytes are equal. Two steps that give the same key are two tensors: who repeats layers trains each
    of them.
    """
    same, notes = _recorded(plan.inputs)
    if isinstance(plan.steps, Copies) and not same:  # of tensors that share nothing
        return replace(plan, notes=(*plan.notes, *notes))
    roots: dict[str, str] = {}
    first: dict[object, str] = {}
    uses: Counter[Value] = Counter()
    for step in plan.steps:
        key = step.target.key
        place = _place(plan.inputs, step.value, same)
        if step.tied_to is not None:
            roots[key] = step.tied_to
        if place is not None:
            owner = first.setdefault((place, uses[step.value]), step.tied_to or key)
            uses[step.value] += 1
            if step.tied_to is None and owner != key:
                roots[key] = owner
    steps = tuple(_tied(step, _root(step.target.key, roots)) for step in plan.steps)
    return replace(plan, steps=steps, notes=(*plan.notes, *notes))


def _tied(step: Step, root: str | None) -> Step:
    return step if step.tied_to == root else replace(step, tied_to=root)


def _root(key: str, roots: Mapping[str, str]) -> str | None:
    """The key at the end of a chain of ties; None for a key that is tied to none."""
    if key not in roots:
        return None
    found, seen = key, {key}
    while found in roots and roots[found] not in seen:
        found = roots[found]
        seen.add(found)
    return None if found == key else found


def _place(inputs: Sequence[Checkpoint], value: Value, same: Mapping[Source, Source]) -> object:
    """What values that give the same elements have in common; None for a value of no tensor."""
    if not isinstance(value, Source):
        places = tuple(_place(inputs, arg, same) for arg in value.args)
        return None if not places or None in places else (value.op, places)
    source = same.get(value, value) if same else value
    columns = inputs[source.input].columns
    if columns is not None:  # they share nothing: a tensor is one tensor with itself alone
        if not columns.form(source.key).nbytes:
            return None
        return source.key if len(inputs) == 1 else columns.place(source.key)
    tensor = inputs[source.input][source.key]
    if tensor.layout != "strided":
        return None if tensor.node is None else ("object", id(tensor.node))
    if not tensor.elements or not tensor.pieces:
        return None
    return tensor.pieces, tensor.dtype, tensor.conj, tensor.neg


def _recorded(inputs: Sequence[Checkpoint]) -> tuple[dict[Source, Source], list[Note]]:
    """The tensor that each tensor is a recorded copy of; and a warning for each that is no copy any more."""
    same: dict[Source, Source] = {}
    notes: list[Note] = []
    with Reader() as reader:
        for number, checkpoint in enumerate(inputs):
            for alias, key in recorded_ties(checkpoint).items():
                if alias not in checkpoint.tensors or key not in checkpoint.tensors:
                    continue
                if _is_equal(checkpoint[alias], checkpoint[key], reader):
                    same[Source(number, alias)] = Source(number, key)
                else:
                    text = f"the metadata records {alias} as tied to {key}, but they differ; they are not tied"
                    notes.append(Note(text, "", (alias, key), "warning"))
    return same, notes


def _is_equal(alias: Tensor, tensor: Tensor, reader: Reader) -> bool:
    """True if two tensors hold the same bytes; read only where they lie apart."""
    if (alias.dtype, alias.shape, alias.layout) != (tensor.dtype, tensor.shape, tensor.layout):
        return False
    if alias.pieces == tensor.pieces:
        return True
    return all(one == other for one, other in zip(reader.blocks(alias), reader.blocks(tensor), strict=True))


# ---------------------------------------------------------------------------------------------- in safetensors


def recorded_in_metadata(plan: Plan, *, keep_first: bool) -> Plan:
    """The plan of a safetensors output: which tied keys get no bytes, and metadata that records all ties.

    A key that the input's metadata records without bytes stays so; others get a copy, unless `keep_first`.
    """
    aliases = [recorded_ties(checkpoint).keys() - _with_bytes(checkpoint) for checkpoint in plan.inputs]
    steps = plan.steps
    if not isinstance(steps, Copies):
        steps = tuple(
            _stored(step, step.tied_to is None or not (keep_first or _is_alias(step, aliases))) for step in steps
        )
    metadata = dict(plan.metadata)
    for checkpoint in plan.inputs:
        metadata = without_recorded_ties(metadata, checkpoint)
    ties = {step.target.key: step.tied_to for step in _each(steps) if step.tied_to is not None}
    unchanged = {alias: key for alias, key in ties.items() if plan.metadata.get(alias) == key}
    metadata |= unchanged
    if listed := {alias: key for alias, key in ties.items() if alias not in unchanged}:
        metadata[TIED_KEY] = json.dumps(listed, ensure_ascii=False)
    return replace(plan, steps=steps, metadata=metadata, notes=(*plan.notes, *_tie_notes(steps, keep_first)))


def written_apart(plan: Plan) -> Plan:
    """The plan of an output that holds plain tensors and nothing that could record ties: tied keys get copies."""
    return replace(plan, notes=(*plan.notes, *_tie_notes(plan.steps, False, ways=False)))


def _stored(step: Step, stored: bool) -> Step:
    return step if step.stored == stored else replace(step, stored=stored)


def _with_bytes(checkpoint: Checkpoint) -> set[str]:
    """Keys that hold bytes of their own though the metadata records them."""
    ties = recorded_ties(checkpoint)
    return {
        alias
        for alias, key in ties.items()
        if alias in checkpoint.tensors and checkpoint[alias].pieces != checkpoint[key].pieces
    }


def _is_alias(step: Step, aliases: Sequence[set[str]]) -> bool:
    sources = list(sources_of(step.value))
    return bool(sources) and all(source.key in aliases[source.input] for source in sources)


def _tie_notes(steps: Sequence[Step], keep_first: bool, *, ways: bool = True) -> Iterator[Note]:
    copies = tuple(step.target.key for step in _each(steps) if step.tied_to is not None and step.stored)
    left_out = tuple(step.target.key for step in _each(steps) if not step.stored)
    if copies:
        yield Note(
            f"{many(len(copies), 'tied tensor is written as a copy', 'tied tensors are written as copies')}",
            "--tied keep-first writes each group once" if ways else "",
            copies,
        )
    if left_out and keep_first:
        yield Note(
            f"{many(len(left_out), 'tied tensor')} left out, the first of each group is kept",
            "--tied clone writes them all",
            left_out,
        )


def _each(steps: Sequence[Step]) -> Sequence[Step]:
    """The steps that may be tied."""
    return () if isinstance(steps, Copies) else steps


def untied_notes(plan: Plan) -> Iterator[Note]:
    """A note on tensors that share bytes with others in an input, and not in the output."""
    views: dict[object, dict[str, tuple[int, int, bool, str]]] = {}
    for step in _each(plan.steps):
        for source in sources_of(step.value) if step.tied_to is None else ():
            if plan.inputs[source.input].columns is not None:
                continue
            tensor = plan.inputs[source.input][source.key]
            if tensor.storage is not None and tensor.layout == "strided":
                low, high = _span(tensor)
                is_apart = not (step.is_copy and plan.keeps_ties)
                spans = views.setdefault(tensor.storage, {})
                spans[source.key] = (low, high, is_apart, step.target.key)
    keys: list[str] = []
    for spans in views.values():
        end, before, was_apart = 0, "", False
        for low, high, is_apart, key in sorted(spans.values()):
            if before and low < end and (is_apart or was_apart):
                keys += [before, key]
            if high > end:
                end, before, was_apart = high, key, is_apart
    if found := tuple(dict.fromkeys(keys)):
        yield Note(f"{len(found)} tensors share bytes in the input, and are written apart: {found[0]}", "", found)


def _span(tensor: Tensor) -> tuple[int, int]:
    """The first bit that a tensor views of its storage, and the end."""
    piece, bits = tensor.pieces[0], DTYPES[tensor.dtype].bits
    strides = piece.strides or c_strides(piece.shape)
    last = sum((size - 1) * stride for size, stride in zip(piece.shape, strides, strict=True))
    return piece.start * bits, (piece.start + last + 1) * bits
