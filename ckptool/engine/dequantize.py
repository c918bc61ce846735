"""The encoded tensors of a checkpoint, and the checkpoint as it is with all of them decoded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from weakref import ref

from ckptool.core.bytes import Folder
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import CkptError
from ckptool.core.format import QUANTIZATION_FILES
from ckptool.core.observations import Decoded
from ckptool.core.spec import TensorSpec
from ckptool.core.tensor import Tensor
from ckptool.encodings.descriptions import renamed_descriptions, without_descriptions
from ckptool.encodings.encoded import Encoded, Read
from ckptool.encodings.groups import Groups
from ckptool.encodings.registry import recognise, settle
from ckptool.encodings.subclasses import flattened
from ckptool.engine.decoded import Bounds, DecodedBytes, Decoding, dtype_decoded, read_box, stored_member
from ckptool.engine.decoded_columns import DecodedColumns
from ckptool.engine.evaluate import give_back_freed_memory
from ckptool.engine.reading import Reader

_MAX_CONFIG = 1 << 24  # bytes

_KNOWN: dict[int, tuple[ref[Checkpoint], Sequence[Encoded]]] = {}  # by id: a checkpoint compares like a dict


def encoded_of(checkpoint: Checkpoint) -> Sequence[Encoded]:
    """The encoded tensors of a checkpoint, from headers alone, not settled; found once for each.

    Example:
        >>> import ckptool
        >>> encoded_of(ckptool.open("fixtures/resnet18.pth"))
        ()
    """
    number = id(checkpoint)
    if number in _KNOWN and _KNOWN[number][0]() is checkpoint:
        return _KNOWN[number][1]
    found = _recognised(checkpoint)
    _KNOWN[number] = ref(checkpoint, lambda _: _KNOWN.pop(number, None)), found
    return found


def _recognised(checkpoint: Checkpoint) -> Sequence[Encoded]:
    if not checkpoint.may_hold_codes:
        return ()
    if checkpoint.columns is not None:
        give_back_freed_memory(len(checkpoint))
        return recognise(checkpoint.specs(), config_beside(checkpoint), checkpoint.metadata)
    every = zip(checkpoint.tensors, checkpoint.forms(), strict=True)
    specs = {key: TensorSpec(key, form.dtype, form.shape) for key, form in every if form.layout == "strided"}
    if len(specs) == len(checkpoint.tensors):
        return recognise(specs, config_beside(checkpoint), checkpoint.metadata)
    inside = flattened(checkpoint)
    metadata = {**checkpoint.metadata, **inside.metadata}
    found = recognise({**specs, **inside.specs}, config_beside(checkpoint), metadata)
    return Groups.of(map(inside.stored, found), list(checkpoint.tensors))


def config_beside(checkpoint: Checkpoint) -> Mapping[str, object] | None:
    """config.json of the folder, with what a file beside it says of the quantization."""
    if not checkpoint.files:
        return None
    folder = checkpoint.files[0].folder
    config = _json(folder, "config.json")
    if config is not None and "quantization_config" in config:
        return config
    for name in QUANTIZATION_FILES:
        found = _json(folder, name)
        if found is not None:
            return {**(config or {}), "quantization_config": found}
    return config


def _json(folder: Folder, name: str) -> Mapping[str, object] | None:
    """A small JSON object; None if there is none, or if it is no such object: headers decide then."""
    try:
        with folder.open(name).open() as file:
            found = json.loads(file.read(0, file.size)) if file.size <= _MAX_CONFIG else None
    except (CkptError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def settled(checkpoint: Checkpoint, encoded: Sequence[Encoded], most: int | None = None) -> Sequence[Encoded]:
    """The tensors with what stands in their descriptions.

    Args:
        checkpoint: whose they are.
        encoded: as `encoded_of` gives them.
        most: bytes of a description; a tensor with a larger one is left as it is.

    Raises:
        UnreadableError: the file ends early, or has changed.
    """
    if not any(each.needs for each in alike(encoded)):
        return encoded
    with Reader() as reader:
        found = (
            settle(each, reads(checkpoint, each, reader))
            if most is None or all(each.members[role].nbytes <= most for role in each.needs)
            else each
            for each in encoded
        )
        return encoded.settled(found) if isinstance(encoded, Groups) else tuple(found)


def alike(encoded: Sequence[Encoded]) -> Iterator[Encoded]:
    """For each of them one that differs from it in nothing but keys."""
    return encoded.alike() if isinstance(encoded, Groups) else iter(encoded)


def reads(checkpoint: Checkpoint, encoded: Encoded, reader: Reader) -> Read:
    """Reads boxes of an encoded tensor's members."""

    def read(role: str, /, *box: slice) -> object:
        tensor = stored_member(checkpoint.tensors, encoded, role)
        whole = (slice(None),) * (len(tensor.shape) - len(box))
        bounds: Bounds = tuple(part.indices(size)[:2] for part, size in zip((*box, *whole), tensor.shape, strict=True))
        return read_box(reader, tensor, bounds)

    return read  # type: ignore[return-value]


def dequantized(
    checkpoint: Checkpoint,
    dtype: str | None = None,
    *,
    only: Collection[str] | None = None,
    dtypes: Mapping[str, str] | None = None,
) -> Checkpoint:
    """The checkpoint with logical tensors in place of its encoded ones; itself if it has none.

    A logical tensor stands where its codes are. Scales, zero points, descriptions and scales of activations are gone,
    and so is what the metadata says of them. Numbers are decoded in float32 and rounded once.

    Args:
        checkpoint: any.
        dtype: the long name of a float dtype for the logical tensors. For other dtypes than float32, bfloat16 and
            float16 they are float32, and are cast like any tensor. By default what the file or its config names.
        only: logical keys; other encoded tensors stay as they are.
        dtypes: a dtype for single logical keys.

    Raises:
        CkptError: an encoded tensor cannot be decoded: says why.
        UnreadableError: a description cannot be read.
    """
    every = encoded_of(checkpoint)
    found = every if only is None else tuple(each for each in every if each.key in only)
    if not found:
        return checkpoint
    is_whole = len(found) == len(every)
    found = settled(checkpoint, found)
    _require_decodable(checkpoint, found)
    markers = frozenset(key for each in alike(found) for key in each.markers) if is_whole else frozenset()
    tensors: Mapping[str, Tensor]
    if checkpoint.columns is not None and isinstance(found, Groups) and not dtypes:
        tensors = DecodedColumns(checkpoint.columns, found, dtype, markers)
    else:
        wanted = {each.key: (dtypes or {}).get(each.key) or dtype for each in found}
        tensors = _tensors(checkpoint, found, wanted, markers)
    metadata = without_descriptions(checkpoint.metadata)
    if not is_whole:
        metadata = renamed_descriptions(checkpoint.metadata, {each.key: None for each in found})
    return replace(checkpoint, tensors=tensors, metadata=metadata, observations=(*checkpoint.observations, Decoded()))


def _tensors(
    checkpoint: Checkpoint, found: Sequence[Encoded], dtypes: Mapping[str, str | None], markers: Collection[str]
) -> dict[str, Tensor]:
    """The tensors with logical ones in place of their codes."""
    by_codes = {each.codes.key: each for each in found}
    gone = {*markers, *(key for each in found for key in each.keys)}
    decoding = Decoding(checkpoint.tensors)
    tensors: dict[str, Tensor] = {}
    for key, tensor in checkpoint.tensors.items():
        each = by_codes.get(key)
        if each is not None:
            tensors[each.key] = _logical_tensor(decoding, each, dtypes[each.key])
        elif key not in gone:
            tensors[key] = tensor
    return tensors


def with_logical_values(checkpoint: Checkpoint, encoded: Iterable[Encoded]) -> Checkpoint:
    """The checkpoint under its stored keys, with the numbers that codes stand for where they can be decoded.

    Args:
        checkpoint: any.
        encoded: its encoded tensors, settled.
    """
    decoding = Decoding(checkpoint.tensors)
    values = {each.codes.key: _logical_tensor(decoding, each, None) for each in encoded if not each.problems}
    return replace(checkpoint, tensors={**checkpoint.tensors, **values}) if values else checkpoint


def _logical_tensor(decoding: Decoding, encoded: Encoded, dtype: str | None) -> Tensor:
    """An encoded tensor, settled and without problems, as the tensor that it stands for."""
    return DecodedBytes(encoded, decoding, dtype_decoded(encoded, dtype)).tensor


def _require_decodable(checkpoint: Checkpoint, found: Sequence[Encoded]) -> None:
    bad = [(each, each.problems[0]) for each in alike(found) if each.problems]
    if not bad and len(set(_keys(found))) < len(found):
        twice = next(key for key, times in Counter(_keys(found)).items() if times > 1)
        raise CkptError(f"{checkpoint.path.name} holds {twice} in two encodings", key=twice)
    if bad:
        each, problem = bad[0]
        more = f" (and {len(bad) - 1:,} more)" if len(bad) > 1 else ""
        raise CkptError(
            f"{each.key}{more} cannot be dequantized ({each.title}): {problem.text}",
            hint=problem.hint or "without --dequantize it is copied as it is",
            path=checkpoint.path,
            key=each.key,
        )


def _keys(encoded: Sequence[Encoded]) -> Iterator[str]:
    """Their logical keys."""
    return encoded.keys() if isinstance(encoded, Groups) else (each.key for each in encoded)
