"""Checksums: torch's zip files state a CRC-32 for every record, which torch itself does not look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ckptool.core import observations as seen
from ckptool.core.counts import listed
from ckptool.core.facts import FINE, TAKES_VALUES, Answer, Fact, Operation, Refuse, Say, Use
from ckptool.facts.headers import Headers, amount
from ckptool.facts.registry import finder


@dataclass(frozen=True, slots=True)
class ChecksumDiffers(Fact):
    """Records that do not have the CRC-32 that the file states for them: those of `keys`, and those in `records`.

    The pickle is compared when the file is opened, the values of a tensor when they are read.
    """

    records: tuple[str, ...] = ()

    name = "checksum"
    may_be_allowed = True
    also = ("crc", "damaged")
    tells = True
    level = "warning"
    grade = "error"
    rank = 0

    @property
    def text(self) -> str:
        what = f"{listed(self.records)}, which says what the tensors are," if self.records else listed(self.keys)
        differ = "differs" if len(self.records or self.keys) == 1 else "differ"
        return f"the file is damaged: {what} {differ} from the CRC-32 in the file"

    @property
    def hint(self) -> str:
        return "get the file again from where it came from"

    def answer(self, use: Use) -> Answer:
        if use.operation in TAKES_VALUES:
            return Refuse(self.text, self.hint, may_insist=True)
        return Say(self.text, self.hint) if use.operation is Operation.COMPARE else FINE


@dataclass(frozen=True, slots=True)
class ChecksumNotCompared(Fact):
    """A pickle with arrays that is too large for its CRC-32 to be compared when the file is opened."""

    record: str = ""
    nbytes: int = 0

    name = "checksum-not-compared"
    grade = "note"
    rank = 18

    @property
    def text(self) -> str:
        size = amount(self.nbytes)
        return f"the CRC-32 of {self.record}, which holds the arrays, was not compared: it has {size}"

    @property
    def hint(self) -> str:
        return "unzip -t FILE compares it"


@dataclass(frozen=True, slots=True)
class NoChecksums(Fact):
    """A file of a container that has checksums, written without them."""

    name = "no-checksums"
    rank = 18

    @property
    def text(self) -> str:
        return "the file states no checksums: damage to the values of its tensors cannot be found"

    @property
    def hint(self) -> str:
        return "torch.serialization.set_crc32_options(True) before torch.save"

    @property
    def remedy(self) -> str:
        return "write them: ckptool filter {file} -o OUT.pth"


@finder
def find_differing(headers: Headers) -> Iterator[ChecksumDiffers]:
    records = tuple(each.record for each in headers.observed(seen.ChecksumDiffers))
    if records:
        yield ChecksumDiffers(records=records)


@finder
def find_not_compared(headers: Headers) -> Iterator[ChecksumNotCompared]:
    for each in headers.observed(seen.ChecksumNotCompared):
        yield ChecksumNotCompared(record=each.record, nbytes=each.nbytes)


@finder
def find_none(headers: Headers) -> Iterator[NoChecksums]:
    checkpoint = headers.checkpoint
    if not checkpoint.format.has_checksums:
        return
    keys: list[str] = []
    for tensor in checkpoint.values():  # nearly every file has one for its first tensor
        records = [piece.storage for piece in tensor.pieces if piece.storage.nbytes]
        if any(record.crc is not None for record in records):
            return
        if records:
            keys.append(tensor.key)
    if keys:
        yield NoChecksums(tuple(keys))
