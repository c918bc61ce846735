"""Encoded weights: codes that mean numbers only together with their scales. `ckptool.encodings` recognises them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import CkptError
from ckptool.core.facts import FINE, Answer, Fact, Operation, Refuse, Say, Use
from ckptool.core.spec import TensorSpec
from ckptool.facts.headers import Headers, many
from ckptool.facts.registry import finder
from ckptool.storage.texts import read_bytes

_MAX_CONFIG = 1 << 24  # bytes
_PLAIN = ("float64", "float32", "float16", "bfloat16", "int64", "bool", "complex64", "complex128")
_CONFIGS = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")


@dataclass(frozen=True, slots=True)
class Encoded(Fact):
    """Weights of one scheme. The keys are those of all groups.

    Attributes:
        scheme: what made them, and their layout: "gptq 4-bit".
        members: the keys that mean numbers only together, the codes first.
    """

    scheme: str = ""
    members: tuple[tuple[str, ...], ...] = ()

    name = "encoded"
    tells = True
    rank = 11

    @property
    def text(self) -> str:
        are = "is" if len(self.members) == 1 else "are"
        return f"{many(len(self.members), 'tensor')} {are} quantized: {self.scheme}"

    @property
    def hint(self) -> str:
        return "casting or averaging these weights gives nonsense; renaming is safe"

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        return self.members

    def answer(self, use: Use) -> Answer:
        stored = f"{many(len(use.keys), 'tensor')} of quantized weights ({self.scheme}): {_few(use.keys)}"
        way = "leave them out of this operation, or dequantize the model first with the library that wrote it"
        match use.operation:
            case Operation.CAST:
                scales_only = {group[0] for group in self.members}.isdisjoint(use.keys)
                why = "their scales lose precision" if scales_only else "codes without their scales are not the weights"
                return Refuse(f"a cast changes {stored}; {why}", way, may_insist=scales_only)
            case Operation.COMPUTE:
                why = "the file holds codes, not the weights"
                return Refuse(f"the result is computed from {stored}; {why}", way, may_insist=use.moves)
            case Operation.DROP:
                return Refuse(
                    f"codes and scales are separated ({self.scheme}): {_few(use.keys)} is dropped, the rest is kept",
                    "keep or drop all tensors of a quantized weight together",
                    may_insist=True,
                )
            case Operation.COMPARE:
                return Say(f"codes are compared, not the weights that they stand for ({self.scheme})")
        return FINE


@dataclass(frozen=True, slots=True)
class Incomplete(Encoded):
    """Encoded weights of which a part is absent; `faults` say which."""

    faults: tuple[str, ...] = ()

    name = "encoded-incomplete"
    level = "warning"
    grade = "error"
    rank = 2

    @property
    def text(self) -> str:
        more = f" (and {len(self.faults) - 1:,} more)" if len(self.faults) > 1 else ""
        return (
            f"{many(len(self.members), 'quantized tensor')} cannot be decoded ({self.scheme}): {self.faults[0]}{more}"
        )

    @property
    def hint(self) -> str:
        return "what is absent may be in another shard"

    def answer(self, use: Use) -> Answer:
        if use.operation in (Operation.COPY, Operation.LOAD):
            return Say(self.text, self.hint)
        return Encoded.answer(self, use)


def _few(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")


@finder
def find(headers: Headers) -> Iterator[Encoded]:
    checkpoint = headers.checkpoint
    if all(form.dtype in _PLAIN for form in set(checkpoint.forms())) and "absmax" not in headers.parts:
        return
    forms = zip(headers.keys, checkpoint.forms(), strict=True)
    specs = {key: TensorSpec(key, form.dtype, form.shape) for key, form in forms if form.layout == "strided"}
    from ckptool.encodings.registry import recognise

    schemes: dict[str, list[tuple[str, ...]]] = {}
    faulty: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for encoded in recognise(specs, _config(headers.checkpoint), headers.checkpoint.metadata):
        group = (encoded.codes.key, *(key for key in encoded.keys if key != encoded.codes.key))
        faults = [problem.text for problem in encoded.problems if problem.kind == "missing"]
        if faults:
            faulty.setdefault(encoded.title, []).append((group, faults[0]))
        else:
            schemes.setdefault(encoded.title, []).append(group)
    for scheme, groups in schemes.items():
        yield Encoded(tuple(dict.fromkeys(key for group in groups for key in group)), scheme, tuple(groups))
    for scheme, rows in faulty.items():
        keys = tuple(dict.fromkeys(key for group, _ in rows for key in group))
        yield Incomplete(keys, scheme, tuple(group for group, _ in rows), tuple(fault for _, fault in rows))


def _config(checkpoint: Checkpoint) -> Mapping[str, object] | None:
    """config.json of the folder, with what a file beside it says of the quantization."""
    if not checkpoint.files:
        return None
    folder = checkpoint.files[0].folder.path
    config = _json(folder / "config.json")
    if config is not None and "quantization_config" in config:
        return config
    for name in _CONFIGS:
        found = _json(folder / name)
        if found is not None:
            return {**(config or {}), "quantization_config": found}
    return config


def _json(path: PurePath) -> Mapping[str, object] | None:
    """A small JSON object; None if there is none, or if it is no such object: headers decide then."""
    try:
        found = json.loads(read_bytes(path, _MAX_CONFIG))
    except (CkptError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
