"""Which quantized tensors are compared as numbers: those that the other side does not store in the same scheme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ckptool.commands.diff.pairing import seen_through
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.dtypes import DTYPES
from ckptool.core.tensor import Tensor
from ckptool.encodings.encoded import Encoded
from ckptool.engine.dequantize import dequantized, encoded_of, settled


def logical_sides(old: Checkpoint, new: Checkpoint) -> tuple[Checkpoint, Checkpoint]:
    """Both sides as they are compared.

    A tensor that both store in one scheme keeps its codes, if these are numbers. Any other encoded one is decoded, in
    the dtype that the other side has, so that equal numbers are equal bytes. What cannot be decoded keeps its codes,
    too.

    Raises:
        UnreadableError: a description cannot be read.
    """
    olds, news = encoded_of(old), encoded_of(new)
    if not olds and not news:
        return old, new
    olds, news = settled(old, olds), settled(new, news)
    before, after = seen_through(logical_tensors(old, olds), logical_tensors(new, news))
    one, two = ({each.key.removeprefix(cut): each for each in side} for side, cut in ((olds, before), (news, after)))
    return (
        _decoded(old, one, two, before, {key.removeprefix(after): tensor for key, tensor in new.items()}),
        _decoded(new, two, one, after, {key.removeprefix(before): tensor for key, tensor in old.items()}),
    )


def logical_tensors(checkpoint: Checkpoint, encoded: Sequence[Encoded]) -> Mapping[str, Tensor]:
    """The tensors by logical key, none of them to be read."""
    gone = {key for each in encoded for key in each.keys}
    plain = {key: tensor for key, tensor in checkpoint.items() if key not in gone} if gone else checkpoint
    return {**plain, **{each.key: Tensor(each.spec) for each in encoded}}


def _decoded(
    checkpoint: Checkpoint,
    own: Mapping[str, Encoded],
    others: Mapping[str, Encoded],
    prefix: str,
    tensors: Mapping[str, Tensor],
) -> Checkpoint:
    dtypes: dict[str, str] = {}
    for key, encoded in own.items():
        partner, plain = others.get(key), tensors.get(key)
        if encoded.problems or (partner is not None and partner.problems):
            continue
        # blocks with their scales inside are no numbers that could be compared
        has_codes = DTYPES[checkpoint.form(encoded.codes.key).dtype].numpy != ""
        if partner is not None and partner.scheme == encoded.scheme and has_codes:
            continue
        if partner is None and plain is None and others:  # of a file that is quantized, too: its codes may be renamed
            continue
        wanted = plain.dtype if plain is not None else ""
        if partner is not None:  # blocks on both sides say nothing of a dtype
            wanted = partner.spec.dtype if has_codes else "float32"
        is_float = wanted in DTYPES and DTYPES[wanted].kind == "float" and DTYPES[wanted].bits >= 16
        dtypes[prefix + key] = wanted if is_float else encoded.spec.dtype
    return dequantized(checkpoint, only=dtypes.keys(), dtypes=dtypes) if dtypes else checkpoint
