"""What a model takes: worked out from its forward, its config and its first layers."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ckptool.core.errors import CkptError
from ckptool.models.probing.content import Kind, content

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]

_NAMED: Mapping[str, Kind] = {
    **dict.fromkeys(("input_ids", "ids", "idx", "tokens", "token_ids", "text", "decoder_input_ids"), "ids"),
    **dict.fromkeys(("pixel_values", "image", "images", "img", "imgs"), "image"),
    **dict.fromkeys(("input_features", "input_values", "inputs_embeds"), "numbers"),
    **dict.fromkeys(("attention_mask", "padding_mask"), "mask"),
}
_SIZES = (224, 64, 32, 28, 96, 128, 256, 299, 384, 16)
_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Slot:
    """One argument of a model's forward.

    Attributes:
        name: by which it is given; "" for one that is given by its place.
        kind: of tensor.
        shapes: that may pass, the likeliest first.
        high: size of the vocabulary.
        fixed: given as it is, in place of a tensor.
        is_list: it takes a list of what has no axis for the batch, as detection models of torchvision do.
    """

    name: str
    kind: Kind
    shapes: tuple[Shape, ...] = ()
    high: int = 0
    fixed: object = None
    is_fixed: bool = False
    is_list: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """One input for both models.

    Attributes:
        texts: what it is: ("image 1x3x224x224",).
        source: arguments of the source's forward, by place and by name.
        target: those of the target's.
    """

    texts: tuple[str, ...]
    source: tuple[tuple[Any, ...], dict[str, Any]]
    target: tuple[tuple[Any, ...], dict[str, Any]]


def inputs_for(
    source: torch.nn.Module, target: torch.nn.Module, names: tuple[str, str], given: Shape | None, seed: int
) -> Iterator[Shown]:
    """Inputs that both models may take, the likeliest first; one, if its shape is given.

    Raises:
        CkptError: what they take cannot be worked out, or is not the same.
    """
    sides = (_given(_slots(source), given), _given(_slots(target), given))
    for slots, name in zip(sides, names, strict=True):
        if not any(not slot.is_fixed for slot in slots):
            raise CkptError(
                f"what {name} takes cannot be worked out from its forward and its first layer",
                hint="--probe-input says it, as in --probe-input 1,3,224,224",
            )
    mine, other = (dict(_placed(slots)) for slots in sides)
    if not any(place in other for place in mine):
        kinds = [" and ".join(sorted({kind for kind, _ in side})) for side in (mine, other)]
        raise CkptError(f"there is no one input for both: {names[0]} takes {kinds[0]}, {names[1]} takes {kinds[1]}")
    choices = {place: _shapes(mine.get(place), other.get(place)) for place in {**mine, **other}}
    for at in range(max(map(len, choices.values()))):
        tensors = {}
        for number, (place, shapes) in enumerate(choices.items()):
            highs = [side[place].high for side in (mine, other) if place in side and side[place].high]
            shape = shapes[min(at, len(shapes) - 1)]
            tensors[place] = content(place[0], shape, min(highs, default=0), seed * 1009 + number)
        texts = tuple(f"{kind} {'x'.join(map(str, tensors[kind, n].shape))}" for kind, n in tensors if kind != "mask")
        yield Shown(texts, _arguments(source, sides[0], tensors), _arguments(target, sides[1], tensors))


def _placed(slots: Sequence[Slot]) -> Iterator[tuple[tuple[Kind, int], Slot]]:
    """Each slot with its kind and its number among those of its kind: by that the models' slots meet."""
    counts: dict[Kind, int] = {}
    for slot in slots:
        if not slot.is_fixed:
            yield (slot.kind, counts.get(slot.kind, 0)), slot
            counts[slot.kind] = counts.get(slot.kind, 0) + 1


def _shapes(mine: Slot | None, other: Slot | None) -> tuple[Shape, ...]:
    """What passes both, first; then what passes one, the source first."""
    one, two = (slot.shapes if slot else () for slot in (mine, other))
    both = tuple(shape for shape in one if shape in two)
    return both + tuple(shape for shape in dict.fromkeys((*one, *two)) if shape not in both)


def _arguments(
    module: torch.nn.Module, slots: Sequence[Slot], tensors: Mapping[tuple[Kind, int], torch.Tensor]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    shown = [(slot, tensors[place]) for place, slot in _placed(slots)]
    values = {id(slot): list(tensor) if slot.is_list else tensor for slot, tensor in shown}
    args = tuple(slot.fixed if slot.is_fixed else values[id(slot)] for slot in slots if not slot.name)
    kwargs = {slot.name: slot.fixed if slot.is_fixed else values[id(slot)] for slot in slots if slot.name}
    return args, kwargs


# ---------------------------------------------------------------------------------------------- one model's slots


def _given(slots: list[Slot], given: Shape | None) -> list[Slot]:
    """The slots with the shape that the user gave: for the only one, or for those with as many axes."""
    free = [slot for slot in slots if not slot.is_fixed]
    if given is None:
        return slots
    meant = free if len(free) == 1 else [slot for slot in free if slot.shapes and len(slot.shapes[0]) == len(given)]
    return [replace(slot, shapes=(given,)) if slot in meant else slot for slot in slots]


def _slots(module: torch.nn.Module) -> list[Slot]:
    parameters = list(inspect.signature(module.forward).parameters.values())
    named = {parameter.name for parameter in parameters}
    config = getattr(module, "config", None)
    main = getattr(module, "main_input_name", None)
    if config is not None and isinstance(main, str) and main in named:
        return _of_transformers(module, config, main, named)
    by_place = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    wanted = [p for p in by_place if p.default is p.empty]
    wanted = wanted or [p for p in by_place if p.name in _NAMED and _NAMED[p.name] != "mask"] or by_place[:1]
    if not wanted and any(p.kind is p.VAR_POSITIONAL for p in parameters):
        wanted = [p for p in parameters if p.kind is p.VAR_POSITIONAL]
    return [_slot(module, parameter) for parameter in wanted]


def _slot(module: torch.nn.Module, parameter: inspect.Parameter) -> Slot:
    annotation = getattr(parameter.annotation, "__name__", str(parameter.annotation))
    if "list[" in str(parameter.annotation).lower() and "tensor" in str(parameter.annotation).lower():
        return replace(_by_layers(module, None) or Slot("", "numbers", ((1, _LENGTH),)), is_list=True)
    if annotation in ("int", "float", "bool"):  # a position to start from, a flag
        return Slot("", "numbers", fixed={"int": 0, "float": 0.0, "bool": False}[annotation], is_fixed=True)
    if parameter.name in ("start_pos", "start"):
        return Slot("", "numbers", fixed=0, is_fixed=True)
    kind = _NAMED.get(parameter.name)
    return _by_layers(module, kind) or Slot("", kind or "numbers", ((1, _LENGTH),))


def _by_layers(module: torch.nn.Module, wanted: Kind | None) -> Slot | None:
    """What the first layer takes that says so; the first of the kind, where that is known."""
    from torch import nn

    for name, part in module.named_modules():
        last = name.rpartition(".")[2]
        slot = None
        if isinstance(part, nn.Conv2d):
            slot = Slot("", "image", tuple((1, _channels(module, part), *size) for size in _image_sizes(module)))
        elif isinstance(part, nn.Conv1d):
            slot = Slot("", "numbers", tuple((1, part.in_channels, size) for size in (64, 256, 4000)))
        elif isinstance(part, nn.Conv3d):
            slot = Slot("", "numbers", ((1, part.in_channels, 16, 64, 64), (1, part.in_channels, 8, 112, 112)))
        elif isinstance(part, nn.Embedding) and not any(word in last for word in ("pos", "type", "seg")):
            slot = Slot("", "ids", tuple((1, size) for size in _lengths(module)), part.num_embeddings)
        elif isinstance(part, nn.RNNBase):
            shape = (1, _LENGTH) if part.batch_first else (_LENGTH, 1)
            slot = Slot("", "numbers", ((*shape, part.input_size),))
        elif isinstance(part, nn.Linear):
            slot = Slot("", "numbers", tuple((*some, part.in_features) for some in ((1,), (1, _LENGTH), (_LENGTH, 1))))
        if slot is not None and wanted in (None, slot.kind):
            return slot
    return None


def _channels(module: torch.nn.Module, first: Any) -> int:
    """Of the image: what the config says, else what the first convolution takes."""
    found = _sized(module)
    return found[0] if len(found) == 3 else int(first.in_channels)


def _image_sizes(module: torch.nn.Module) -> list[Shape]:
    known = _sized(module)
    return [known[-2:]] if known else [(size, size) for size in _SIZES]


def _sized(module: torch.nn.Module) -> Shape:
    """The size that a model says it takes: (C, H, W) of timm, else (H, W); empty if it says nothing."""
    patches = getattr(module, "patch_embed", None)
    for owner, name in ((patches, "img_size"), (module, "img_size"), (module, "image_size"), (module, "input_size")):
        value = getattr(owner, name, None)
        if isinstance(value, int) and not isinstance(value, bool):
            return (value, value)
        if isinstance(value, list | tuple) and 2 <= len(value) <= 3 and all(isinstance(item, int) for item in value):
            return tuple(value)
    for inner in (getattr(module, "visual", None), getattr(module, "trunk", None)):
        if inner is not None and (found := _sized(inner)):
            return found
    known = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    size = known.get("input_size") if isinstance(known, dict) else None
    return tuple(size) if isinstance(size, list | tuple) else ()


def _lengths(module: torch.nn.Module) -> list[int]:
    fixed = getattr(module, "context_length", None)
    return [fixed] if isinstance(fixed, int) else [_LENGTH, 8, 4, 32, 64, 77, 128]


# ---------------------------------------------------------------------------------------------- transformers


def _of_transformers(module: torch.nn.Module, config: Any, main: str, named: set[str]) -> list[Slot]:
    """What a model of transformers takes: its main input, beside it those of another tower or of a decoder."""
    names = [main]
    if hasattr(config, "vision_config") and hasattr(config, "text_config"):
        names = [name for name in ("input_ids", "pixel_values") if name in named] or names
    if "decoder_input_ids" in named:
        names.append("decoder_input_ids")
    slots = [_of_config(module, config, name) for name in names]
    return [*slots, *([Slot("use_cache", "numbers", fixed=False, is_fixed=True)] if "use_cache" in named else [])]


def _of_config(module: torch.nn.Module, config: Any, name: str) -> Slot:
    kind = _NAMED.get(name, "numbers")
    if kind == "ids":
        text = getattr(config, "text_config", None) or config
        longest = getattr(text, "max_position_embeddings", None)
        length = min(_LENGTH, longest) if isinstance(longest, int) and longest > 0 else _LENGTH
        high = getattr(text, "vocab_size", 0)
        more = tuple((1, size) for size in _lengths(module) if size != length and size <= (longest or size))
        return Slot(name, kind, ((1, length), *more), high)
    if kind == "image":
        vision = getattr(config, "vision_config", None) or config
        size = getattr(vision, "image_size", None)
        channels = getattr(vision, "num_channels", 3)
        pair = tuple(size) if isinstance(size, list | tuple) else (size, size)
        sizes = [pair] if isinstance(pair[0], int) else [(one, one) for one in _SIZES]
        return Slot(name, kind, tuple((1, channels, *one) for one in sizes))
    if bands := getattr(config, "num_mel_bins", 0):
        frames = 2 * getattr(config, "max_source_positions", 0) or getattr(config, "max_length", 1024)
        whisper = (1, bands, frames)
        return Slot(name, kind, (whisper, (1, getattr(config, "max_length", 1024), bands)))
    return Slot(name, kind, ((1, 4000), (1, 16000)))
