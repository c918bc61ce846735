"""Patches: files that make one checkpoint of another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from ckptool.core.counts import many
from ckptool.core.facts import FINE, Answer, Fact, Operation, Refuse, Say, Use
from ckptool.core.patch import PATCH_KEY
from ckptool.facts.headers import Headers
from ckptool.facts.registry import finder


@dataclass(frozen=True, slots=True)
class Patch(Fact):
    """A patch.

    Attributes:
        counts: what its metadata says: tensors that come out "same", "changed", "added", "removed", "renamed".
    """

    counts: tuple[tuple[str, int], ...] = ()

    name = "patch"
    level = "warning"
    grade = "note"
    rank = 1

    @property
    def text(self) -> str:
        counts = dict(self.counts)
        said = ", ".join(
            f"{counts.get(name, 0):,} {name}" for name in ("changed", "added", "removed", "renamed", "same")
        )
        return f"this is a patch for a base of {many(counts.get('base_tensors', 0), 'tensor')}: {said}"

    @property
    def hint(self) -> str:
        return "apply it: ckptool merge BASE --patch {file} -o OUT"

    def answer(self, use: Use) -> Answer:
        if use.operation is Operation.LIST:
            return FINE
        text = "this is a patch, not a model: its tensors hold what is to be changed in one"
        return Say(text, self.hint) if use.operation is Operation.COMPARE else Refuse(text, self.hint)


@finder
def find(headers: Headers) -> Iterator[Patch]:
    text = headers.checkpoint.metadata.get(PATCH_KEY)
    if text is None:
        return
    try:
        found = json.loads(text)
        counts = tuple((str(name), value) for name, value in found.items() if type(value) is int)
    except (ValueError, AttributeError, RecursionError):
        counts = ()
    yield Patch((), counts)
