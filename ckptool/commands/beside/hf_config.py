"""config.json of a Hugging Face folder: what a plan makes untrue in it is edited where the change is certain.

Certain is what the headers of the input confirm: a number of the file that agrees with the input's tensors, and the
same count of the output's. What does not agree any more, and cannot be told, is named.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ckptool.core.checkpoint import Note
from ckptool.core.dtypes import DTYPES
from ckptool.core.errors import CkptError
from ckptool.core.format import QUANTIZATION_CONFIGS
from ckptool.core.plan import Copies, Plan, Source, Step, sources_of
from ckptool.core.spec import Form
from ckptool.facts.encoded import Encoded
from ckptool.facts.registry import facts_of

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
_MAX = 8_000_000
_LAYERS = (
    "num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers",
)  # fmt: skip
_PREDICTING = "num_nextn_predict_layers"
_COUNTING_LAYERS = (
    "max_window_layers", "first_k_dense_replace", "num_kv_shared_layers", "decoder_sparse_step", "mlp_only_layers",
    "cross_attention_layers", "attn_layer_indices", "attn_layer_period", "attn_layer_offset", "expert_layer_period",
    "expert_layer_offset", "full_attention_interval", "full_attn_idxs", "interleave_moe_layer_step", "moe_layers",
    "num_hash_layers", "sliding_window_pattern", "global_attn_every_n_layers", "no_rope_layer_interval",
)  # fmt: skip
"""Names that say which blocks are of another kind, by number."""
_DTYPES = ("torch_dtype", "dtype")
_OF_QUANTIZED = ("expert_dtype",)  # DeepSeek-V4's experts
_EMBEDDING = re.compile(r"(?:.*\.)?(?:embed_tokens|tok_embeddings|word_embeddings|wte|shared|embed_in)\.weight")
_HEAD = re.compile(r"(?:.*\.)?(?:lm_head|embed_out|output_embedding|cls\.predictions\.decoder)\.weight")
_INDEX = re.compile(r"(?:^|(?<=\.))(\d+)(?=\.)")


def is_embedding(key: str) -> bool:
    """True for the table of a language model's input tokens, or its output head."""
    return is_head(key) or _EMBEDDING.fullmatch(key) is not None


def is_head(key: str) -> bool:
    """True for the weight of a language model's output head."""
    return _HEAD.fullmatch(key) is not None


@dataclass(frozen=True, slots=True)
class Edit:
    """What becomes of a config.json.

    Attributes:
        text: the new file; None if nothing is changed.
        changes: (name, old value, new value) as JSON; no new value where the name is taken out.
        notes: what may be untrue in it and is left as it is.
    """

    text: bytes | None
    changes: tuple[tuple[str, str, str], ...] = ()
    notes: tuple[Note, ...] = ()


def edited_config(plan: Plan) -> Edit:
    """The config.json of the first input's folder, made true of the plan's output."""
    config = _read(plan, CONFIG)
    if config is None:
        return Edit(None, notes=(Note(f"{CONFIG} cannot be read, and is carried as it is", level="warning"),))
    made = _Made(plan)
    new = _with_moved_modules(config, made)
    doubts: list[str] = []
    for part in _parts(new):  # text_config of a model of several kinds
        doubts += [*_edit_layers(part, made), *_edit_vocabulary(part, made), *_edit_tokens(part, made)]
    _edit_dtype(new, made)
    _edit_ties(new, made)
    doubts += _edit_quantization(new, made)
    return _edit(CONFIG, config, new, doubts)


def edited_generation(plan: Plan) -> Edit:
    """The generation_config.json of the first input's folder, with the ids that tokens have in the output."""
    config = _read(plan, GENERATION_CONFIG)
    if config is None:
        return Edit(None)
    new = dict(config)
    return _edit(GENERATION_CONFIG, config, new, list(_edit_tokens(new, _Made(plan))))


def _read(plan: Plan, name: str) -> dict[str, Any] | None:
    """The JSON object of a file beside the first input; None if it is none."""
    source = plan.inputs[0].files[0].folder.open(name)
    try:
        with source.open() as opened:
            config = json.loads(opened.read(0, min(opened.size, _MAX)))
    except (CkptError, ValueError, RecursionError):
        return None
    return config if isinstance(config, dict) else None


def _edit(name: str, old: dict[str, Any], new: dict[str, Any], doubts: Iterable[str]) -> Edit:
    changes = tuple(_changes(old, new))
    text = (json.dumps(new, indent=2, ensure_ascii=False) + "\n").encode() if changes else None
    notes = [Note(f"{name} may not be true of the output: {doubt}", "edit it", level="warning") for doubt in doubts]
    return Edit(text, changes, tuple(notes))


def _with_moved_modules(config: dict[str, Any], made: _Made) -> dict[str, Any]:
    """A copy of the config whose quantization config names modules as the output does."""
    if not made.plan.inputs[0].may_hold_codes:
        return dict(config)
    from ckptool.encodings.descriptions import renamed_config

    return renamed_config(config, made.pairs)


def _parts(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield config
    for name, value in config.items():
        if isinstance(value, dict) and name.endswith("_config") and name != "quantization_config":
            config[name] = dict(value)
            yield config[name]


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], under: str = "") -> Iterator[tuple[str, str, str]]:
    for name, value in old.items():
        if name not in new:
            yield under + name, _short(value), ""
        elif isinstance(value, dict) and isinstance(new[name], dict):
            yield from _changes(value, new[name], f"{under}{name}.")
        elif new[name] != value:
            yield under + name, _short(value), _short(new[name])
    yield from ((under + name, "absent", _short(new[name])) for name in new if name not in old)


def _short(value: object) -> str:
    return f"list of {len(value)}" if isinstance(value, list) else json.dumps(value)[:60]


class _Made:
    """What a plan makes of its first input, as far as a config speaks of it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.before = _lists(plan.inputs[0])
        self.ids = None if plan.tokenizer is None else _moved_ids(plan)
        self.is_dequantized = plan.inputs[0].is_decoded

    @property
    def keys(self) -> Iterable[str]:
        """Of the output."""
        steps = self.plan.steps
        return steps.keys if isinstance(steps, Copies) else (step.target.key for step in steps)

    @property
    def pairs(self) -> Iterator[tuple[str, str]]:
        """A key of the first input, and one of the output that is made of it."""
        steps = self.plan.steps
        if isinstance(steps, Copies):
            return zip(steps.sources, steps.keys, strict=True) if steps.input == 0 else iter(())
        return (
            (source.key, step.target.key) for step in steps for source in sources_of(step.value) if source.input == 0
        )

    @property
    def forms(self) -> Mapping[Form, int]:
        """How many tensors of the output have each form."""
        steps = self.plan.steps
        if isinstance(steps, Copies):
            return steps.form_counts
        return Counter(Form(step.target.dtype, step.target.shape, step.target.nbytes) for step in steps)

    def steps_of(self, name: re.Pattern[str]) -> dict[str, Step]:
        """The steps whose keys are of a kind, by key."""
        steps = self.plan.steps
        return {key: steps[at] for at, key in enumerate(self.keys) if name.fullmatch(key)}

    def origins(self, name: str) -> dict[int, int] | None:
        """The block of a list that each block of the output was, if blocks stayed whole and in one list."""
        origins: dict[int, int] = {}
        new_lists: set[str] = set()
        for old, new in self.pairs:
            if not old.startswith(f"{name}.") or not (found := _INDEX.match(old, len(name) + 1)):
                continue
            place = _INDEX.search(new)
            if place is None or origins.setdefault(int(place[1]), int(found[1])) != int(found[1]):
                return None
            new_lists.add(new[: place.start()])
        return origins if len(new_lists) < 2 else None


def _moved_ids(plan: Plan) -> Mapping[int, int] | None:
    from ckptool.fits.vocabulary import moved_ids

    return moved_ids(step.value for step in plan.steps)


def _lists(keys: Iterable[str]) -> dict[str, set[int]]:
    """The numbers of the outermost lists of modules, by the list's name."""
    found: dict[str, set[int]] = defaultdict(set)
    for key in keys:
        if number := _INDEX.search(key):
            found[key[: number.start() - 1] if number.start() else ""].add(int(number[1]))
    return found


def _edit_layers(config: dict[str, Any], made: _Made) -> Iterator[str]:
    """The number of blocks, and the lists that say something of each; yields what may be untrue."""
    extra = config.get(_PREDICTING)  # numbered behind the others, and not counted
    extra = extra if type(extra) is int and extra > 0 else 0
    for name in _LAYERS:
        value = config.get(name)
        if type(value) is not int:
            continue
        side = next((side for side in ("encoder", "decoder") if side in name), "")
        if name == "num_layers" and "num_decoder_layers" in config:  # T5
            side = "encoder"
        lists = {at: numbers for at, numbers in made.before.items() if side in at and len(numbers) > 1}
        known = [at for at, numbers in lists.items() if numbers == set(range(value + extra))]
        known = known or [at for at, numbers in lists.items() if numbers == set(range(value))]
        if not known and lists:  # some of its blocks are gone already
            known = [at for at in [max(lists, key=lambda at: len(lists[at]))] if max(lists[at]) < value]
        origins = [made.origins(at) for at in known or lists]
        kept = [dict(zip(lists[at], lists[at], strict=True)) for at in known or lists]
        if not known and any(each and each != same for each, same in zip(origins, kept, strict=True)):
            yield f"{name} is {value}, and no list of blocks in the input has so many"
        if not known or origins == kept:
            continue
        first = origins[0] or {}
        behind = extra if max(lists[known[0]]) >= value else 0
        count = len(first) - behind
        order = [first.get(place, -1) for place in range(len(first))]
        alike = all(each == first for each in origins) and order[count:] == list(range(value, value + behind))
        if count < 1 or not alike or -1 in order:
            yield f"{name} is {value}, and the blocks of the output are not numbered 0 to {value - 1}"
            continue
        config[name] = count
        for other, values in config.items():
            if other in _COUNTING_LAYERS and _may_name_layer(values, value):
                yield f"{other} is {_short(values)} and speaks of the blocks by number"
            elif isinstance(values, list) and len(values) in (value, value + behind) and "token_id" not in other:
                config[other] = [values[number] for number in order if number < len(values)]


def _may_name_layer(value: object, layers: int) -> bool:
    """True for a number of a block that there was, or a list of some."""
    if isinstance(value, list):
        return any(_may_name_layer(each, layers) for each in value)
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < layers


def _edit_vocabulary(config: dict[str, Any], made: _Made) -> Iterator[str]:
    value = config.get("vocab_size")
    if not isinstance(value, int):
        return
    first = made.plan.inputs[0]
    tables = {key for key in first if _EMBEDDING.fullmatch(key) and first.form(key).shape[:1] == (value,)}
    heirs = {new for old, new in made.pairs if old in tables}
    shapes = [step.target.shape for step in made.plan.steps if step.target.key in heirs] if heirs else []
    sizes = {shape[0] for shape in shapes if shape}
    if len(sizes) == 1:
        (config["vocab_size"],) = sizes
    elif sizes or made.ids is not None:
        sizes = sizes or {step.target.shape[0] for step in made.steps_of(_EMBEDDING).values()}
        yield f"vocab_size is {value}, and the embeddings of the output have {sorted(sizes)} rows"


def _edit_tokens(config: dict[str, Any], made: _Made) -> Iterator[str]:
    """The ids of tokens, where rows follow tokens."""
    for name, value in config.items() if made.ids is not None else ():
        if not name.endswith("_token_id"):
            continue
        ids = value if isinstance(value, list) else [value]
        if not all(type(each) is int for each in ids):
            continue
        moved = [(made.ids or {}).get(each) for each in ids]
        if None in moved:
            yield f"{name} is {_short(value)}, and the new tokenizer has no such token"
        else:
            config[name] = moved if isinstance(value, list) else moved[0]


def _edit_dtype(config: dict[str, Any], made: _Made) -> None:
    """The dtype of most elements, where it is another than the input's, or the input's was decoded."""
    old, new = _usual(made.plan.inputs[0].form_counts()), _usual(made.forms)
    if (old == new and not made.is_dequantized) or not new:
        return
    for part in _parts(config):
        for name in _DTYPES:
            if isinstance(part.get(name), str):
                part[name] = new


def _usual(forms: Mapping[Form, int]) -> str:
    """The floating-point dtype that most elements have; "" without one."""
    counts: Counter[str] = Counter()
    for form, number in forms.items():
        if DTYPES[form.dtype].kind == "float" and DTYPES[form.dtype].bits >= 16:
            counts[form.dtype] += form.elements * number
    return counts.most_common(1)[0][0] if counts else ""


def _edit_ties(config: dict[str, Any], made: _Made) -> None:
    """A head that is no longer the embedding's tensor: loaders would tie them again."""
    heads, tables = (
        [step.value for step in made.steps_of(name).values() if step.stored and step.tied_to is None]
        for name in (_HEAD, _EMBEDDING)
    )
    if not heads or not tables or config.get("tie_word_embeddings") is False:
        return
    was_tied = config.get("tie_word_embeddings") is True
    if was_tied and not _same(heads[0], tables[0], made.plan.inputs[0]):
        config["tie_word_embeddings"] = False


def _same(first: object, second: object, tensors: Mapping[str, Any]) -> bool:
    """True if two values are one tensor, or equal steps on tensors that share their bytes."""
    if isinstance(first, Source) and isinstance(second, Source):
        if first == second:
            return True
        one, two = tensors[first.key], tensors[second.key]
        return bool(one.pieces) and one.pieces == two.pieces
    ops = getattr(first, "op", None), getattr(second, "op", None)
    args = getattr(first, "args", ()), getattr(second, "args", ())
    return (
        ops[0] == ops[1]
        and len(args[0]) == len(args[1])
        and all(_same(a, b, tensors) for a, b in zip(*args, strict=True))
    )


def _edit_quantization(config: dict[str, Any], made: _Made) -> Iterator[str]:
    """The scheme of encoded weights that are decoded, or gone."""
    if made.is_dequantized:
        for part in _parts(config):
            for name in (*QUANTIZATION_CONFIGS, *_OF_QUANTIZED):
                part.pop(name, None)
        return
    encoded = {key for fact in facts_of(made.plan.inputs[0]) if isinstance(fact, Encoded) for key in fact.keys}
    if "quantization_config" not in config or not encoded:
        return
    first = made.plan.inputs[0]
    stored = {
        source.key
        for step in made.plan.steps
        for source in sources_of(step.value)  # what is joined or split holds the same codes
        if source.input == 0 and first.form(source.key).dtype == step.target.dtype
    }
    if stored.isdisjoint(encoded):
        del config["quantization_config"]
    elif not stored >= encoded:
        yield "quantization_config stands for weights of which some are decoded or gone"
