from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ckptool.commands.beside.hf_config import is_embedding, is_head
from ckptool.commands.checks import Rule
from ckptool.commands.checks.case import Case, Found, columns
from ckptool.commands.checks.counterparts import Counterparts, counterparts
from ckptool.commands.checks.settings import Key, PolicyReader
from ckptool.core.address import address_of
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.counts import many
from ckptool.core.dtypes import DTYPES
from ckptool.core.fold import rollup
from ckptool.core.shell import shell_quote
from ckptool.core.spec import TensorSpec
from ckptool.core.ties import with_recorded_ties
from ckptool.engine.dequantize import config_beside, encoded_of
from ckptool.engine.reading import Reader
from ckptool.facts.adapters import Adapter
from ckptool.facts.headers import amount
from ckptool.facts.registry import facts_of
from ckptool.facts.storages import ties
from ckptool.formats.folder import KNOWN
from ckptool.formats.registry import INDEX_ENDING

Specs = Mapping[str, TensorSpec]

_LAYER = re.compile(r"(?:.*\.)?(?:layers|h)\.(\d+)\.")
_TOKENS = "MTP layer"
_KINDS = (
    (re.compile(r"(?:.*\.)?(?:visual|vision|vision_\w+|vit|image_\w+)\..*"), "image encoder"),
    (re.compile(r"(?:.*\.)?(?:audio|audio_\w+|speech_\w+)\..*"), "audio encoder"),
    (re.compile(r"(?:.*\.)?(?:multi_modal_projector|mm_projector|connector|embed_vision)\..*"), "projector"),
    (re.compile(r"(?:.*\.)?(?:mtp\w*|nextn\w*|eh_proj|shared_head)(?:\..*)?"), _TOKENS),
    (re.compile(r"(?:.*\.)?experts\..*"), "experts"),
)


COMPLETE_WITH: Key[str] = Key("complete-with", PolicyReader.text)
RULE = Rule("complete", needs=(COMPLETE_WITH,), allows=("complete",), order=60)


def complete(case: Case) -> Iterator[Found]:
    """The checkpoint lacks tensors that its base has, or has them in another dtype or shape.

    Found: tensors of the base that are missing, by module (layers for multi-token prediction, an image encoder, an
    output head), those among them that a shard holds and the index does not list; tensors of another shape, as of a
    resized vocabulary; tensors of another dtype. Keys under another prefix ("model." for "model.language_model.",
    "base_model.model." of PEFT, "module.") are seen through, and so are experts in another layout; both are warnings,
    since loaders of the base do not find them. Not missing are tensors that are tied to one that is there, and buffers
    that models compute. Quantized weights count as the weights that they stand for.

    Why: trainers and converters leave out what they do not know. The export loads, with a warning that nobody reads,
    and decodes more slowly, sees no images, or answers with a head at random.

    What to do: ckptool transplant FILE --into BASE -o WHOLE takes what is missing from the base. What is meant to be
    left out goes into an allow-list.

    Policy: it runs where `complete-with` is set, or with --complete-with.

        complete-with = "base/"
        allow.complete = ["model.layers.61.*", "visual.*"]
    """
    setting = case.settings.get(COMPLETE_WITH)
    if setting is None:
        return
    if not (setting.is_typed or case.policy.is_trusted):
        case.policy.path(setting.value)
    name = setting.value
    base = case.bases.named_checkpoint(name, case.policy.folder)
    adapter = next((fact for fact in facts_of(case.checkpoint) if isinstance(fact, Adapter)), None)
    if adapter is not None and not adapter.has_base:
        text = f"this is an adapter and has none of the tensors of {name}"
        yield Found(text, help=adapter.way.replace("{file}", case.word), place=setting.place, short="an adapter")
        return
    both = _compared(case.checkpoint, base)
    words = [_model(case), "--into", str(address_of(name) or case.policy.folder / name), *both.options]
    whole = f"ckptool transplant {' '.join(map(shell_quote, words))} -o WHOLE"
    for found in _told(case, both, name):
        yield replace(found, place=setting.place, help=found.help or whole)


def _model(case: Case) -> str:
    """The file, or its folder where that is what loaders take: with the config and the tokenizer."""
    path = case.target.path
    is_whole = path.name.endswith(INDEX_ENDING) or path.name in KNOWN
    return str(path.parent) if is_whole and address_of(case.name) is None else case.name


@dataclass(slots=True)
class _Both:
    """An export beside its base.

    Attributes:
        base: the base's tensors, by logical key.
        export: the export's that have a counterpart, by the base's keys.
        found: how the names were brought together.
        lacking: what of the base has no counterpart, and what it is: "image encoder".
        layout: rules that bring experts into the layout of the base; none where they have it.
        coded: keys of the base that are quantized in one of both, whose dtype says nothing.
        moved: how many tensors they make.
    """

    base: Specs
    export: dict[str, TensorSpec]
    found: Counterparts
    lacking: dict[str, str] = field(default_factory=dict)
    layout: tuple[str, ...] = ()
    moved: int = 0
    coded: frozenset[str] = frozenset()

    @property
    def options(self) -> tuple[str, ...]:
        """What a transplant needs beside the names, which it sees through where one prefix differs."""
        swaps = [swap for swap, _ in self.found.swaps]
        if self.layout or len(swaps) < 2:
            return self.layout if len(swaps) < 2 else ()
        longest = sorted(swaps, key=lambda swap: -len(swap.take))
        return tuple(word for swap in longest for word in ("-r", f"{swap.take}{{k**}} -> {swap.put}{{k**}}"))


def _compared(checkpoint: Checkpoint, base: Checkpoint) -> _Both:
    from ckptool.commands.diff.explaining import DERIVED
    from ckptool.commands.diff.logical import logical_tensors
    from ckptool.recipes.fitting import expert_layout

    export = with_recorded_ties(checkpoint)
    olds, news = encoded_of(base), encoded_of(export)
    wanted = {key: tensor.spec for key, tensor in logical_tensors(base, olds).items()}
    own = {key: tensor.spec for key, tensor in logical_tensors(export, news).items()}
    found = counterparts(
        {key: spec.shape for key, spec in wanted.items()}, {key: spec.shape for key, spec in own.items()}
    )
    both = _Both(wanted, {key: own[name] for key, name in found.pairs.items()}, found)
    codes = {each.key for each in news}
    both.coded = frozenset({each.key for each in olds} | {key for key, name in found.pairs.items() if name in codes})
    left = [key for key in wanted if key not in both.export]
    if left:
        named = {**both.export, **{name: own[key] for name, key in found.others.items()}}
        both.layout, made = expert_layout(named, {key: wanted[key] for key in left})
        both.moved = len(made)
        both.export |= made
        left = [key for key in left if key not in made]
    both.export = {key: both.export[key] for key in wanted if key in both.export}
    tied = _tied(base, export, both, left)
    listed = set(checkpoint.other_tensors)
    config = config_beside(base) or {}
    both.lacking = {
        key: "in a shard, not in its index" if key in listed else _kind(key, config)
        for key in left
        if key not in tied and key.rpartition(".")[2] not in DERIVED
    }
    return both


# ---------------------------------------------------------------------------------------------- ties


def _tied(base: Checkpoint, export: Checkpoint, both: _Both, left: Sequence[str]) -> set[str]:
    """What is not missing, since it is one tensor with another that is there."""
    says = _says_tied(config_beside(export))
    if says is False:
        return set()
    tied: set[str] = set()
    for group in ties(with_recorded_ties(base)):
        if any(key in both.export for key in group):
            tied.update(group)
    tables = [key for key in both.export if is_embedding(key)]
    for key in left:
        if key in tied or not is_embedding(key):
            continue
        others = [other for other in tables if is_head(other) != is_head(key)]
        if others and (says is True or any(_is_equal(base, key, other) for other in others)):
            tied.add(key)
    return tied.intersection(left)


def _says_tied(config: Mapping[str, Any] | None) -> bool | None:
    """What config.json says of the output head; None if nothing."""
    for part in (config or {}, (config or {}).get("text_config")):
        if isinstance(part, Mapping) and isinstance(part.get("tie_word_embeddings"), bool):
            return bool(part["tie_word_embeddings"])
    return None


def _is_equal(base: Checkpoint, key: str, other: str) -> bool:
    """True if two tensors of the base, if it is on this machine, have equal values."""
    if key not in base or other not in base or address_of(str(base.path)) is not None:
        return False
    if base.form(key) != base.form(other):
        return False
    with Reader() as reader:
        return reader.sha256(base[key]) == reader.sha256(base[other])


# ---------------------------------------------------------------------------------------------- what is said


def _told(case: Case, both: _Both, name: str) -> Iterator[Found]:
    lacking = case.refused("complete", both.lacking)
    if lacking:
        of = f"{len(lacking):,} of {many(len(both.base), 'tensor')} of {name}"
        size = amount(sum(both.base[key].nbytes for key in lacking))
        text = f"{of} {'is' if len(lacking) == 1 else 'are'} missing, {size}"
        if not both.export:
            text = f"none of the {many(len(both.base), 'tensor')} of {name} is there: is it the base of this file?"
        rows = _rows(both, {key: both.lacking[key] for key in lacking})
        yield Found(text, lacking, columns(rows), short=f"{len(lacking):,} missing")
    both_have = {key: (both.base[key], spec) for key, spec in both.export.items()}
    reshaped = case.refused("complete", [key for key, (old, new) in both_have.items() if old.shape != new.shape])
    if reshaped:
        cells = ((key, both.export[key].short, f"there {both.base[key].short}") for key in reshaped)
        why = " (another vocabulary)" if all(map(is_embedding, reshaped)) else ""
        have = "tensor has" if len(reshaped) == 1 else "tensors have"
        text = f"{len(reshaped):,} {have} another shape than in {name}{why}"
        path = shell_quote(str(address_of(name) or case.policy.folder / name))
        help = f"ckptool diff {path} {shell_quote(_model(case))} --keys-only"
        yield Found(text, reshaped, columns(cells), help, short=f"{len(reshaped):,} reshaped")
    cast = [key for key, (old, new) in both_have.items() if old.dtype != new.dtype and key not in both.coded]
    cast = list(case.refused("complete", cast))
    if cast:
        labels = {key: f"{_short(both.export[key])}, there {_short(both.base[key])}" for key in cast}
        have = "tensor has" if len(cast) == 1 else "tensors have"
        help = "export again without the cast, or excuse it: allow.complete"
        text = f"{len(cast):,} {have} another dtype than in {name}"
        yield Found(text, tuple(cast), columns(_rows(both, labels)), help, short=f"{len(cast):,} cast")
    yield from _names(case, both, name)


def _names(case: Case, both: _Both, name: str) -> Iterator[Found]:
    """That names or layouts differ, though nothing is lost."""
    model = shell_quote(_model(case))
    for swap, number in both.found.swaps:
        taken, put = (f'"{prefix}"' if prefix else "no prefix" for prefix in (swap.take, swap.put))
        text = f"{many(number, 'tensor')} under another prefix than in {name}: {taken}, there {put}"
        help = f"ckptool remap {model} -r {shell_quote(swap.rule)} -o RENAMED"
        yield Found(text, help=help, level="warning", short="prefix")
    if both.found.wrapped:
        text = f"{many(both.found.wrapped, 'key')} with parts that a wrapper or an adapter put into the names"
        help = f"ckptool remap {model} -r strip-wrappers -o PLAIN"
        yield Found(text, help=help, level="warning", short="wrapped")
    if both.layout:
        options, are = " ".join(both.layout), "is" if both.moved == 1 else "are"
        text = f"{many(both.moved, 'tensor')} of {name} {are} there in another layout of experts"
        yield Found(text, help=f"ckptool remap {model} {options} -o OUT", level="warning", short="layout")


def _rows(both: _Both, labels: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    """A row for each module that is meant as a whole."""
    for group in rollup([(key, labels.get(key)) for key in both.base]):
        if group.label is None:
            continue
        number = many(len(group.keys), "tensor") if len(group.keys) > 1 else both.base[group.keys[0]].short
        size = amount(sum(both.base[key].nbytes for key in group.keys))
        yield group.pattern, f"{number}, {size}{f': {group.label}' if group.label else ''}"


def _kind(key: str, config: Mapping[str, Any]) -> str:
    """What a tensor belongs to, in a word or two; "" where that is nothing particular."""
    words = next((words for pattern, words in _KINDS if pattern.fullmatch(key)), "")
    if words and words != "experts":
        return words
    layers, layer = config.get("num_hidden_layers"), _LAYER.match(key)
    if isinstance(layers, int) and layer is not None and int(layer[1]) >= layers:
        return _TOKENS
    if is_head(key):
        return "output head, not tied"
    return "embeddings" if is_embedding(key) else words


def _short(spec: TensorSpec) -> str:
    return DTYPES[spec.dtype].short
