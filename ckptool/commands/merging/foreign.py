"""Adapters in kohya's and diffusers' formats, seen as PEFT's.

Source: kohya's sd-scripts (networks/lora.py), LyCORIS (LoCon), diffusers (loaders/lora_conversion_utils.py). The
factors are `lora_down` [r, in] and `lora_up` [out, r], with a number `alpha` for each module in the file; the merged
weight is W + alpha / r * up @ down, and without an alpha W + up @ down. LoCon may have a factor `lora_mid` between them
(Tucker), and `dora_scale`, to which the merged weights of each output are scaled as in PEFT's DoRA. kohya writes module
names with `_` for `.`; which module of the base is meant is told from the base's own keys, not from tables.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from ckptool.commands.merging.adapter import AdapterConfig, parsed_config
from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.counts import many
from ckptool.core.errors import UnreadableError, UsageError
from ckptool.core.tensor import Tensor
from ckptool.engine.reading import Reader

_FACTOR = re.compile(
    r"(?P<module>.+?)(?:\.processor)?(?P<old>\.to_(?:q|k|v|out)_lora)?"
    r"\.(?:lora\.|lora_linear_layer\.|lora_)?(?P<part>down|up|A|B|mid)(?:\.weight)?"
)
_DOWN, _UP = ("down", "A"), ("up", "B")
_SCALE = ".dora_scale"
_METADATA = "lora_adapter_metadata"
_DEEPEST = 3  # leading parts of a name that may be a prefix


@dataclass(slots=True)
class _Module:
    """What the adapter holds for one module, by the name that it has for it."""

    down: str = ""
    up: str = ""
    alpha: str = ""
    mid: str = ""
    dora: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """An adapter as PEFT would write it.

    Attributes:
        adapter: its tensors under PEFT's names, for modules of the base.
        config: ranks and alphas.
        notes: what a user should know.
    """

    adapter: Checkpoint
    config: AdapterConfig
    notes: tuple[Note, ...] = field(default=())


def as_peft(adapter: Checkpoint, base: Checkpoint) -> Seen:
    """An adapter of kohya or diffusers for a base.

    Raises:
        UsageError: it has parts that are no sum of weights, or two modules of the base have the name that it means.
        UnreadableError: a factor is missing.
    """
    modules = _modules(adapter)
    places = _places(modules, base, adapter)
    _require_all(list(modules), places, base, adapter)
    stated = _stated_configs(adapter)
    tensors: dict[str, Tensor] = {}
    ranks: list[tuple[str, float]] = []
    alphas: list[tuple[str, float]] = []
    with Reader((adapter,)) as reader:
        for name, parts in modules.items():
            if not parts.down or not parts.up:
                lacking = "lora_down" if not parts.down else "lora_up"
                raise UnreadableError(f"the adapter has no {lacking} for {name}", path=adapter.path)
            module = places.get(name)
            if module is None:
                continue
            rank = adapter[parts.down].shape[0] if adapter[parts.down].shape else 1
            alpha = _number(adapter[parts.alpha], reader) if parts.alpha else rank * _stated(stated, name)
            ranks.append((re.escape(module), rank))
            alphas.append((re.escape(module), alpha))
            if parts.dora:
                _require_outputs(adapter[parts.dora], base[f"{module}.weight"])
            factors = (("lora_A", parts.down), ("lora_B", parts.up), ("lora_mid", parts.mid))
            for part, key in (*factors, ("lora_magnitude_vector", parts.dora)):
                if not key:
                    continue
                peft = f"base_model.model.{module}.{part}.weight"
                tensors[peft] = replace(adapter[key], spec=replace(adapter[key].spec, key=peft), node=None)
    config = AdapterConfig(1, 1.0, ranks=tuple(ranks), alphas=tuple(alphas))
    return Seen(replace(adapter, tensors=tensors), config, tuple(_notes(modules, places)))


def _modules(adapter: Checkpoint) -> dict[str, _Module]:
    found: dict[str, _Module] = {}
    for key in adapter:
        if key.endswith(".alpha"):
            found.setdefault(key.removesuffix(".alpha"), _Module()).alpha = key
            continue
        if key.endswith(_SCALE):
            found.setdefault(key.removesuffix(_SCALE), _Module()).dora = key
            continue
        match = _FACTOR.fullmatch(key)
        if match is None:
            raise UsageError(f"{key} is no factor of an adapter", hint="is it an adapter?", path=adapter.path, key=key)
        name = match["module"] + (match["old"] or "").removesuffix("_lora")
        parts = found.setdefault(name, _Module())
        if match["part"] in _DOWN:
            parts.down = key
        elif match["part"] in _UP:
            parts.up = key
        else:
            parts.mid = key
    return {name: parts for name, parts in found.items() if parts.down or parts.up}


def _places(found_modules: Mapping[str, _Module], base: Checkpoint, adapter: Checkpoint) -> dict[str, str]:
    """{name in the adapter: module of the base}, behind the prefixes under which most of a group are found.

    Groups for several models, as two text encoders, may have the same names: those that fit none of the shapes, where
    another group fits some, are for another model.
    """
    names = list(found_modules)
    flats = _flattened(key.removesuffix(".weight") for key in base if key.endswith(".weight"))
    groups: list[dict[str, str]] = []
    for group in _grouped(names):
        fits = partial(_count_of_fitting, found_modules, base=base, adapter=adapter)
        options = [
            (len(places), fits(places), not head, places)
            for cut in _prefixes(group)
            for head in ("", *_heads(group, cut, flats))
            if (places := dict(_resolved(group, cut, head, flats)))
        ]
        groups.append(_the_best(options, base, adapter))
    fitting = [best for best in groups if _count_of_fitting(found_modules, best, base, adapter)]
    found: dict[str, str] = {}
    by_module: dict[str, str] = {}
    for best in fitting or groups:
        found.update(best)
        for name, module in best.items():
            if by_module.setdefault(module, name) != name:
                raise UsageError(
                    f"{by_module[module]} and {name} of the adapter both mean {module} of {base.path.name}",
                    hint="leave one of them out: ckptool filter --drop",
                    path=adapter.path,
                )
    twice = [name for name, module in found.items() if len(flats[_flat(module)]) > 1]
    if twice:
        one, two, *_ = flats[_flat(found[twice[0]])]
        raise UsageError(
            f"{twice[0]} of the adapter can mean {one} and {two} of {base.path.name}",
            hint="rename one of them: ckptool remap",
            path=adapter.path,
        )
    return found


def _count_of_fitting(
    modules: Mapping[str, _Module], places: Mapping[str, str], base: Checkpoint, adapter: Checkpoint
) -> int:
    return sum(_fits(modules[name], module, base, adapter) for name, module in places.items())


def _fits(parts: _Module, module: str, base: Checkpoint, adapter: Checkpoint) -> bool:
    """Whether the factors have the sizes of a weight, [out, in] or [in, out]."""
    shape = base[f"{module}.weight"].shape
    if not parts.down or not parts.up or len(shape) < 2:
        return False
    kernel = adapter[parts.mid].shape[2:] if parts.mid else adapter[parts.down].shape[2:]
    sizes = adapter[parts.up].shape[:1], (*adapter[parts.down].shape[1:2], *kernel)
    return sizes in ((shape[:1], shape[1:]), (shape[1:], shape[:1]))


def _flat(module: str) -> str:
    return module.replace(".", "_")


def _flattened(modules: Iterable[str]) -> dict[str, list[str]]:
    flats: dict[str, list[str]] = {}
    for module in modules:
        flats.setdefault(_flat(module), []).append(module)
    return flats


def _grouped(names: Sequence[str]) -> list[list[str]]:
    """Names by what they begin with: an adapter may be for several models, as a U-Net and its text encoder."""
    groups: dict[str, list[str]] = {}
    for name in names:
        dotted = "." in name
        first = name.split(".")[0] if dotted else "_".join(name.split("_")[:2])
        groups.setdefault(first, []).append(name)
    return list(groups.values())


def _prefixes(names: Sequence[str]) -> list[str]:
    """What may stand before the module in all names of a group, flattened."""
    parts = _flat(names[0]).split("_")
    heads = ["".join(f"{part}_" for part in parts[:count]) for count in range(min(_DEEPEST, len(parts) - 1) + 1)]
    return [head for head in heads if all(_flat(name).startswith(head) for name in names)]


def _heads(names: Sequence[str], cut: str, flats: Mapping[str, Sequence[str]]) -> list[str]:
    """What may stand before the names in the base, flattened: what stands there before the first or the last."""
    found: dict[str, None] = {}
    for name in dict.fromkeys((names[0], names[-1])):
        rest = _flat(name)[len(cut) :]
        for end in (rest, f"{rest}_0"):
            found.update(dict.fromkeys(flat[: -len(end)] for flat in flats if flat.endswith(f"_{end}")))
    return list(found)


def _the_best(
    options: Sequence[tuple[int, int, bool, dict[str, str]]], base: Checkpoint, adapter: Checkpoint
) -> dict[str, str]:
    """The places of most modules; of equal ones those whose shapes fit, then those without a prefix in the base.

    Raises:
        UsageError: several prefixes in the base are as good.
    """
    if not options:
        return {}
    top = max(option[:3] for option in options)
    best, *others = (places for *score, places in options if tuple(score) == top)
    if not top[2] and (other := next((each for each in others if each != best), None)):
        name = next(name for name in best if best[name] != other.get(name))
        raise UsageError(
            f"{name} of the adapter can mean {best[name]} and {other.get(name)} of {base.path.name}",
            hint="give the model that it is for: ckptool filter --keep",
            path=adapter.path,
        )
    return best


def _resolved(
    names: Sequence[str], cut: str, head: str, flats: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, str]]:
    for name in names:
        flat = head + _flat(name)[len(cut) :]
        module = flats.get(flat) or flats.get(f"{flat}_0")  # diffusers: to_out for to_out.0
        if module:
            yield name, module[0]


def _require_all(names: Sequence[str], places: Mapping[str, str], base: Checkpoint, adapter: Checkpoint) -> None:
    """Of a group that the base has modules for, it has all."""
    for group in _grouped(names):
        lost = [name for name in group if name not in places]
        if lost and len(lost) < len(group):
            raise UsageError(
                f"the adapter is for {many(len(lost), 'module')} that {base.path.name} does not have: {lost[0]}",
                hint="is it the adapter of this base?",
                path=adapter.path,
            )


def _require_outputs(scale: Tensor, weight: Tensor) -> None:
    """DoRA's magnitudes are one for each output, as PEFT has them; older LyCORIS wrote one for each input."""
    if scale.shape[:1] != weight.shape[:1] or scale.elements != weight.shape[0]:
        raise UsageError(
            f"{scale.key} is {scale.spec.short}: magnitudes for the inputs of {weight.key}",
            hint="merge this adapter with LyCORIS",
            key=scale.key,
        )


def _stated_configs(adapter: Checkpoint) -> dict[str, AdapterConfig]:
    """What newer versions of diffusers say in the metadata of the file, by the first part of names."""
    text = adapter.metadata.get(_METADATA)
    if text is None:
        return {}
    try:
        fields = json.loads(text)
        groups: dict[str, dict[str, object]] = {}
        for name, value in fields.items():
            first, _, rest = name.partition(".")
            groups.setdefault(first, {})[rest] = value
    except (ValueError, AttributeError, RecursionError):
        raise UnreadableError(f"{adapter.path.name} has a {_METADATA} that cannot be read", path=adapter.path) from None
    return {first: parsed_config(group, adapter.path) for first, group in groups.items()}


def _stated(configs: Mapping[str, AdapterConfig], name: str) -> float:
    """The factor of a module, 1 where nothing is said."""
    first, _, rest = name.partition(".")
    config = configs.get(first)
    if config is not None and config.dora:
        raise UsageError(f"{name} is adapted by a DoRA", hint="merge this adapter with diffusers")
    return 1.0 if config is None else config.scaling(rest, 1.0)


def _number(alpha: Tensor, reader: Reader) -> float:
    if alpha.elements != 1:
        raise UnreadableError(f"{alpha.key} is {alpha.spec.short}, not one number", key=alpha.key)
    return float(reader.array(alpha).reshape(-1)[0])


def _notes(modules: Mapping[str, _Module], places: Mapping[str, str]) -> Iterator[Note]:
    """Groups of modules that are for another model than the base."""
    for group in _grouped(list(modules)):
        if not any(name in places for name in group) and places:
            first = group[0]
            yield Note(
                f"{many(len(group), 'module')} of the adapter {'is' if len(group) == 1 else 'are'} for another model, "
                f"and left out: {first}",
                "merge the same adapter into that model, too",
                level="warning",
            )
