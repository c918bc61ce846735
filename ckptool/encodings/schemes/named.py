"""Schemes that are recognised and not decoded: each is refused by its name.

A scheme is told by the parts of one module: the payload's name and dtypes, and names that must be beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ckptool.core.spec import DTYPES, TensorSpec
from ckptool.encodings.encoded import CODES, Encoded, Scheme
from ckptool.encodings.headers import CODE_DTYPES, Headers, join


@dataclass(frozen=True, slots=True)
class Signature:
    """What a module of a scheme looks like.

    Attributes:
        name: the scheme.
        payload: the last part of the payload's key.
        kinds: kinds of dtype that the payload can have.
        beside: names that the module must have, too.
        optional: further names that belong to it.
    """

    name: str
    payload: str
    kinds: tuple[str, ...]
    beside: tuple[str, ...]
    optional: tuple[str, ...] = ()


_INTEGERS = ("int", "uint")
_ANY = (*_INTEGERS, "float")
_SVDQUANT = (
    *("smooth_factor", "smooth_factor_orig", "proj_down", "proj_up", "lora_down", "lora_up"),
    *("wzeros", "wtscale", "wcscales"),
)
SIGNATURES = (
    Signature("AQLM", "codes", _INTEGERS, ("codebooks", "scales")),
    Signature("VPTQ", "indices", _INTEGERS, ("centroids.weight",), ("weight_scale", "weight_bias", "perm")),
    Signature("SpQR", "dense_weights", _INTEGERS, ("row_offsets", "col_vals"), ("in_perm",)),
    Signature("HIGGS", "weight", _INTEGERS, ("scales", "tables"), ("tables2",)),
    Signature("FP-Quant", "qweight", _INTEGERS, ("scales", "forward_hadamard_matrix"), ("backward_hadamard_matrix",)),
    Signature("ExLlamaV2", "q_weight", _INTEGERS, ("q_scale", "q_groups"), ("q_scale_max", "q_invperm", "q_perm")),
    Signature("ExLlamaV3", "trellis", _INTEGERS, (), ("suh", "svh", "su", "sv", "mcg", "mul1")),
    Signature("EETQ", "weight", ("int",), ("weight_scales",)),
    Signature("EETQ", "qweight", ("int",), ("weight_scales",)),
    Signature("Marlin", "B", _INTEGERS, ("s",), ("workspace", "reduce")),
    Signature("QuIP#", "Qidxs", _INTEGERS, (), ("SU", "SV", "Wscale", "codebook_id")),
    Signature("SVDQuant", "qweight", _INTEGERS, ("wscales",), _SVDQUANT),
    Signature("compressed-tensors sparse bitmask", "compressed", _ANY, ("bitmask",), ("shape", "row_offsets")),
    Signature("Marlin 2:4", "B_24", _INTEGERS, ("meta",), ("scales",)),
    Signature("compressed-tensors marlin-24", "weight_packed", _INTEGERS, ("meta",), ("scale_packed", "weight_shape")),
    Signature("GPTQ or AWQ in another layout", "qweight", _INTEGERS, (), ("qzeros", "scales", "g_idx")),
)
_LIKE_SCALES = ("scale", "zero", "absmax", "codebook", "SCB", "lut", "quant")
_PAYLOADS = ("weight", "qweight", "weight_packed")


def find(headers: Headers) -> Iterator[Encoded]:
    """Modules with a signature; integers named as weights that nothing explains."""
    for signature in SIGNATURES:
        for module in headers.modules.get(signature.payload, ()):
            codes = headers.specs[join(module, signature.payload)]
            names = headers.beside(module, signature.beside)
            optional = headers.beside(module, signature.optional)
            fits = DTYPES[codes.dtype].kind in signature.kinds and DTYPES[codes.dtype].bits < 64
            fits = fits and len(names) == len(signature.beside)
            if fits and len(codes.shape) >= 1 and (names or optional):
                members = {CODES: codes, **names, **optional}
                spec = TensorSpec(join(module, "weight"), headers.dtype, codes.shape)
                yield Encoded("unknown", spec, members, detail=signature.name).with_problem(
                    "refused", f"it is stored as {signature.name}, which ckptool does not decode", _HINT
                )
    yield from _unexplained(headers)


_HINT = "export plain weights with the library that wrote the file"


def _unexplained(headers: Headers) -> Iterator[Encoded]:
    """Integer or fp8 weights with scale-like neighbours, or in a file whose config names a quantization."""
    payloads = [
        (module, last, codes)
        for module, last, codes in headers.payloads(CODE_DTYPES)
        if last in _PAYLOADS and not headers.is_claimed(codes.key)
    ]
    neighbours = _scale_like(headers) if payloads else {}
    for module, _, codes in payloads:
        beside = {name: spec for name in neighbours.get(module, ()) if (spec := headers.get(module, name))}
        if beside or (headers.method and DTYPES[codes.dtype].kind in _INTEGERS):
            names = ", ".join(beside)
            why = f"config.json names {headers.method[:40]!r}" if headers.method else f"it has {names} beside it"
            spec = TensorSpec(codes.key, headers.dtype, codes.shape)
            yield Encoded("unknown", spec, {CODES: codes, **beside}).with_problem(
                "refused", f"it is {codes.short} in an encoding that ckptool does not know: {why}", _HINT
            )


def _scale_like(headers: Headers) -> dict[str, list[str]]:
    """For each module, names that look like scales of its weight."""
    found: dict[str, list[str]] = {}
    for last, modules in headers.modules.items():
        if last not in _PAYLOADS and any(word in last for word in _LIKE_SCALES):
            for module in modules:
                found.setdefault(module, []).append(last)
    return found


SCHEME = Scheme("unknown", 90, find)
