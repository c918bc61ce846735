"""What `inspect` knows of a checkpoint when all questions are answered: any output renders this."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from ckptool.core.checkpoint import Checkpoint, GlobalUse, Note
from ckptool.core.counts import many
from ckptool.core.spec import DTYPES, Form
from ckptool.core.tensor import Tensor

if TYPE_CHECKING:
    from ckptool.encodings.encoded import Encoded
    from ckptool.values.stats import Stats


@dataclass(frozen=True)
class Inspection:
    """A checkpoint and what was asked about it.

    Attributes:
        checkpoint: the opened file.
        name: the file as the user named it.
        keys: the tensors to show, in the order to show them.
        ties: groups of keys that share their bytes.
        notes: what the reader noticed and what an expert would add.
        stats: numbers of each shown tensor, if asked for; those of codes are of what they stand for.
        encoded: the quantized tensors by the key of their codes.
    """

    checkpoint: Checkpoint
    name: str
    keys: tuple[str, ...]
    ties: tuple[tuple[str, ...], ...] = ()
    notes: tuple[Note, ...] = ()
    stats: Mapping[str, Stats] = field(default_factory=dict)
    encoded: Mapping[str, Encoded] = field(default_factory=dict)

    @property
    def tensors(self) -> Iterator[Tensor]:
        """The tensors to show."""
        return (self.checkpoint[key] for key in self.keys)

    @cached_property
    def forms(self) -> Mapping[Form, int]:
        """How many tensors to show have each form."""
        return self.checkpoint.form_counts(self.keys)

    @cached_property
    def tied_to(self) -> Mapping[str, str]:
        """Each key that is not the first of its tie -> the first."""
        return {key: group[0] for group in self.ties for key in group[1:]}

    @property
    def is_partial(self) -> bool:
        """True if not every tensor is shown."""
        return len(self.keys) < len(self.checkpoint)

    @cached_property
    def elements(self) -> int:
        return sum(form.elements * number for form, number in self.forms.items())

    @cached_property
    def nbytes(self) -> int:
        return sum(form.nbytes * number for form, number in self.forms.items())

    @cached_property
    def dtypes(self) -> tuple[tuple[str, int], ...]:
        """(short dtype, tensors) with the most frequent first."""
        found: Counter[str] = Counter()
        for form, number in self.forms.items():
            found[DTYPES[form.dtype].short] += number
        return tuple(found.most_common())

    def labels(self, keys: Iterable[str]) -> Iterator[str]:
        """The spec of each key: ``f32[64,3]``; of codes also what they stand for: ``fp8 per tensor → bf16[64,3]``."""
        if not self.encoded:
            yield from (form.label for form in self.checkpoint.forms(keys))
            return
        for key in keys:
            encoded = self.encoded.get(key)
            if encoded is None or encoded.problems:
                yield self.checkpoint.form(key).label
            else:
                yield f"{encoded.title} → {encoded.spec.short}"

    @cached_property
    def logical(self) -> tuple[int, int, int] | None:
        """Tensors, elements and bytes of what is shown when it is decoded; None if nothing of it is quantized."""
        gone: set[str] = set()
        tensors = elements = nbytes = 0
        for encoded in (self.encoded[key] for key in self.keys if key in self.encoded):
            gone.update(encoded.keys)
            tensors += 1
            elements += encoded.spec.elements
            nbytes += encoded.spec.nbytes
        if not tensors:
            return None
        for form in self.checkpoint.forms(key for key in self.keys if key not in gone):
            tensors += 1
            elements += form.elements
            nbytes += form.nbytes
        return tensors, elements, nbytes

    @property
    def dangerous(self) -> tuple[GlobalUse, ...]:
        """What the pickle asks for that would run code of the file's choice elsewhere."""
        return tuple(use for use in self.checkpoint.globals if use.risk == "dangerous")

    @property
    def unknown(self) -> tuple[GlobalUse, ...]:
        """Classes and functions of packages that ckptool does not know."""
        return tuple(use for use in self.checkpoint.globals if use.risk == "unknown")

    @property
    def is_pickle(self) -> bool:
        """True if loading the file elsewhere runs a pickle."""
        return self.checkpoint.format.is_pickle


def format_text(checkpoint: Checkpoint) -> str:
    """``torch zip``, ``safetensors, 4 shards``: the container and how many files of it there are."""
    several = len(checkpoint.files) > 1 and not (checkpoint.format.shards or checkpoint.ranks)
    return f"{checkpoint.format}, {many(len(checkpoint.files), 'shard')}" if several else str(checkpoint.format)
