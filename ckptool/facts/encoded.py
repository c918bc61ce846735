"""Encoded weights: codes that mean numbers only together with their scales. Told by dtype and layout."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ckptool.core.checkpoint import Tensor
from ckptool.core.facts import FINE, Answer, Fact, Operation, Refuse, Say, Use
from ckptool.core.spec import DTYPES
from ckptool.facts.headers import Headers, many
from ckptool.facts.registry import finder

_FLOAT8 = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
_FLOAT4 = ("float4_e2m1fn", "float4_e2m1fn_x2", "float6_e2m3fn", "float6_e3m2fn")
_CODES = (*_FLOAT8, *_FLOAT4, "int8", "uint8", "int32", "uint32")
_WIDE = ("float64", "float32", "float16", "bfloat16")
_SCALES = (*_WIDE, "float8_e4m3fn", "float8_e8m0fnu", "uint8")
_ACTIVATION = re.compile(r"input|activation|output|_act$|^[kqv]_scale")
_PAYLOAD = re.compile(r"(?:^|_)(?:q?weight|weight_packed|qdata|data|W_q|w_int|codes|blocks|proj|B|w[123])$")
_MEMBER = re.compile(
    r"scale|zero|absmax|quant_|_map|SCB|weight_format|weight_shape|g_idx|biases|codebook|scb|shift|W_q|nbits"
)


@dataclass(frozen=True, slots=True)
class Encoded(Fact):
    """Weights of one scheme. The keys are those of all groups.

    Attributes:
        scheme: what made them: "GPTQ".
        members: the keys that mean numbers only together, the codes first.
    """

    scheme: str = ""
    members: tuple[tuple[str, ...], ...] = ()

    name = "encoded"
    rank = 11

    @property
    def text(self) -> str:
        are = "is" if len(self.members) == 1 else "are"
        return f"{many(len(self.members), 'layer')} {are} quantized: {self.scheme}"

    @property
    def hint(self) -> str:
        return "casting or averaging these weights gives nonsense; renaming is safe"

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        return self.members

    def answer(self, use: Use) -> Answer:
        what = f"{many(len(use.keys), 'tensor')} of quantized weights ({self.scheme}): {_few(use.keys)}"
        way = "leave them out with patterns, or dequantize the model first with the library that wrote it"
        match use.operation:
            case Operation.CAST:
                codes = {group[0] for group in self.members}
                scales_only = codes.isdisjoint(use.keys)
                why = "their scales lose precision" if scales_only else "codes without their scales are not the weights"
                return Refuse(f"a cast changes {what}; {why}", way, may_insist=scales_only)
            case Operation.COMPUTE:
                why = "the numbers in the file are codes, not the weights"
                return Refuse(f"the result is computed from {what}; {why}", way, may_insist=use.moves)
            case Operation.DROP:
                return Refuse(
                    f"codes and scales are separated ({self.scheme}): {_few(use.keys)} is dropped, the rest is kept",
                    "keep or drop all tensors of a quantized layer together",
                    may_insist=True,
                )
            case Operation.COMPARE:
                return Say(f"codes are compared, not the weights that they stand for ({self.scheme})")
        return FINE


@dataclass(frozen=True, slots=True)
class WithoutScales(Encoded):
    """Codes whose scales are absent, in a file where others have theirs."""

    name = "scales-missing"
    level = "warning"
    grade = "error"

    @property
    def text(self) -> str:
        return f"{many(len(self.keys), 'tensor')} of quantized weights without scales: {_few(self.keys)}"

    @property
    def hint(self) -> str:
        return "other layers of this file have scales; these may be in another shard"

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        return ()


def _few(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")


@finder
def find(headers: Headers) -> Iterator[Encoded]:
    tensors = headers.checkpoint.tensors
    codes = [key for key, tensor in tensors.items() if tensor.dtype in _CODES and tensor.layout == "strided"]
    if not codes and "absmax" not in headers.parts:
        return
    siblings = _siblings(headers, codes)
    schemes: dict[str, list[tuple[str, ...]]] = {}
    alone: list[str] = []
    for key in dict.fromkeys([*codes, *_disguised(headers)]):
        found = _recognised(key, tensors, siblings)
        if found is not None:
            schemes.setdefault(found[0], []).append(found[1])
        elif tensors[key].dtype in _FLOAT8 and len(tensors[key].shape) > 1:
            alone.append(key)
    for scheme, groups in schemes.items():
        yield Encoded(tuple(dict.fromkeys(key for group in groups for key in group)), scheme, tuple(groups))
    taken = {key for groups in schemes.values() for group in groups for key in group}
    left = tuple(key for key in alone if key not in taken)
    if left and any(scheme.startswith("float8") for scheme in schemes):
        yield WithoutScales(left, "float8 without scales", tuple((key,) for key in left))


def _disguised(headers: Headers) -> list[str]:
    """bitsandbytes' 4-bit codes in a storage of floats (bnb_4bit_quant_storage)."""
    return [module for module in headers.with_all("absmax", "quant_map") if module in headers.checkpoint.tensors]


def _siblings(headers: Headers, codes: Sequence[str]) -> dict[str, list[str]]:
    """The keys that may belong to codes, by the module of these; those below the codes' own key included."""
    modules = {key.rpartition(".")[0] for key in codes} | set(headers.modules.get("absmax", ()))
    found: dict[str, list[str]] = {module: [] for module in modules}
    for key in headers.keys:
        module, _, last = key.rpartition(".")
        if not _MEMBER.search(last) and last not in ("scale", "scales", "s"):
            continue
        for place in (module, module.rpartition(".")[0]):
            if place in found:
                found[place].append(key)
    return found


def _recognised(
    key: str, tensors: Mapping[str, Tensor], siblings: Mapping[str, list[str]]
) -> tuple[str, tuple[str, ...]] | None:
    """The scheme of codes and the keys of the group; None if they are no codes."""
    module, _, last = key.rpartition(".")
    stem = last.removesuffix("_blocks").removesuffix("_packed")
    lasts: dict[str, str] = {}
    for other in (*siblings.get(module, ()), *siblings.get(key, ())):
        if other != key:
            name = other[len(key) + 1 :] if other.startswith(f"{key}.") else other[len(module) + 1 if module else 0 :]
            lasts[name] = other
    if last not in ("weight", "qweight", "W_q", "weight_packed", "B"):  # experts and other parameters with own scales
        lasts = {name: other for name, other in lasts.items() if name.startswith(stem) or f"{key}." in other}
    codes = tensors[key]
    scales = [
        name
        for name, other in lasts.items()
        if "." not in name.removeprefix("_data.")
        and re.search(r"scale|^s$|SCB|scb|absmax", name)
        and not _ACTIVATION.search(name)
        and tensors[other].dtype in _SCALES
    ]
    scheme = _packed(last, codes, lasts, tensors) or _scaled(last, codes, [(n, tensors[lasts[n]]) for n in scales])
    if scheme is None:
        return None
    return scheme, (key, *(other for name, other in lasts.items() if not _ACTIVATION.search(name)))


def _packed(last: str, codes: Tensor, lasts: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str | None:
    """Schemes that pack their codes in words, or that have members of their own."""
    if "absmax" in lasts and "quant_map" in lasts and tensors[lasts["quant_map"]].elements in (16, 256):
        return "bitsandbytes in 4 bits"
    if codes.dtype in ("int32", "uint32") and last == "qweight" and "scales" in lasts and len(codes.shape) == 2:
        columns = tensors[lasts["scales"]].shape[-1:] or (0,)
        return "GPTQ" if "g_idx" in lasts or codes.shape[1] == columns[0] else "AWQ"
    if codes.dtype == "int32" and last == "B" and "s" in lasts:
        return "GPTQ in Marlin's layout"
    if last == "W_q" and "scale" in lasts and "zero" in lasts:
        return "HQQ"
    if codes.dtype == "uint32" and last == "weight" and "scales" in lasts:
        return "MLX"
    if codes.dtype == "int8" and "SCB" in lasts and tensors[lasts["SCB"]].elements == codes.shape[0]:
        return "bitsandbytes in 8 bits"
    if last == "codes" and "codebooks" in lasts:
        return "AQLM"
    return None


def _scaled(last: str, codes: Tensor, scales: Sequence[tuple[str, Tensor]]) -> str | None:
    """Schemes of codes with scales beside them, by the dtypes and shapes of both."""
    fitting = [(name, scale) for name, scale in scales if _fits(codes, scale)]
    if not fitting or not (codes.dtype in (*_FLOAT8, *_FLOAT4) or _PAYLOAD.search(last)):
        return None
    name, scale = fitting[0]
    if last == "weight_packed":
        kind = {"float8_e4m3fn": " (nvfp4)", "uint8": " (mxfp4)"}.get(scale.dtype, "") if codes.dtype == "uint8" else ""
        return f"compressed-tensors{kind}"
    if codes.dtype in _FLOAT8:
        if scale.elements == 1:
            return "float8 with a scale per tensor"
        if scale.dtype in ("uint8", "float8_e8m0fnu") and scale.shape[-1:] != (1,) and len(scale.shape) > 1:
            return "float8 in blocks with exponents as scales (mxfp8)"
        if len(scale.shape) < 2 or scale.shape[-1] == 1:
            return "float8 with a scale per row"
        return f"float8 in blocks (weight = {last} x {name})"
    if codes.dtype in ("uint8", "int8", *_FLOAT4):
        if scale.dtype == "float8_e4m3fn":
            return "nvfp4"
        if scale.dtype in ("uint8", "float8_e8m0fnu"):
            return "mxfp4"
    return f"{DTYPES[codes.dtype].short} codes with scales"


def _fits(codes: Tensor, scale: Tensor) -> bool:
    """True if the scale may be one per tensor, per row, or per block of the codes, which may be packed."""
    if scale.elements == 1:
        return True
    if not scale.elements or not codes.shape or len(scale.shape) > len(codes.shape):
        return False
    if len(scale.shape) == 1:
        return scale.shape[0] in {axis * packed for axis in codes.shape for packed in (1, 2, 4, 8)}
    pairs = zip(scale.shape, codes.shape, strict=False)
    return all(blocks <= size * 8 or blocks % 128 == 0 for blocks, size in pairs)
