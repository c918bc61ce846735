"""8-bit floats without scales, as image models are published: numbers like any others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ckptool.core.counts import many
from ckptool.core.facts import FINE, Answer, Fact, Operation, Say, Use
from ckptool.facts.headers import Headers
from ckptool.facts.registry import finder


@dataclass(frozen=True, slots=True)
class PlainFloat8(Fact):
    """Weights of 8-bit floats that no scale belongs to. A file that lost its scales looks the same."""

    name = "plain-fp8"
    rank = 13
    is_listed = False

    @property
    def text(self) -> str:
        return f"{many(len(self.keys), 'fp8 tensor')} without scales: {self.keys[0]}"

    def answer(self, use: Use) -> Answer:
        if use.operation not in (Operation.CAST, Operation.COMPUTE):
            return FINE
        are = "is" if len(use.keys) == 1 else "are"
        what = f"{many(len(use.keys), 'fp8 tensor')} without scales {are} taken as plain numbers: {use.keys[0]}"
        return Say(what, "if scales were kept elsewhere, the result is wrong by them", level="note")


@finder
def find(headers: Headers) -> Iterator[Fact]:
    kinds = ("float8_e4m3", "float8_e5m2")
    forms = {form for form in headers.kinds if form.dtype.startswith(kinds) and form.layout == "strided"}
    if not forms:
        return
    from ckptool.engine.dequantize import encoded_of

    encoded = {key for each in encoded_of(headers.checkpoint) for key in each.keys}
    plain = zip(headers.keys, headers.forms, strict=True)
    keys = tuple(key for key, form in plain if form in forms and key not in encoded)
    if keys:
        yield PlainFloat8(keys)
