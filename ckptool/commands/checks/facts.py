from __future__ import annotations

from collections.abc import Iterator

from ckptool.commands.checks import Rule
from ckptool.commands.checks.case import Case, Found
from ckptool.facts.checksums import ChecksumDiffers
from ckptool.facts.initial import Initial, initial_among
from ckptool.facts.registry import facts_of
from ckptool.facts.words import note_of

_DETAILS = 3


RULE = Rule("facts", allows=("facts",), reads=True, order=150)


def facts(case: Case) -> Iterator[Found]:
    """The file is not what it looks like: placeholders, a part of a model, weights that torch does not load.

    Found: tensors without values (meta device, ZeRO-3 and FSDP placeholders), one rank's part of a model, one shard,
    pieces that torch.distributed wrote, quantized weights without their scales, tensor classes such as DTensor, and
    files that torch.load refuses: always, or by default (weights_only=True); values that do not have the checksum that
    the file states; experts of which some are missing, or that are there twice, as a module each and stacked. An
    adapter is a note.

    Why: such a file loads, or looks whole, and the model is wrong or cannot be loaded elsewhere.

    What to do: the finding says it for each.

    Policy: it always runs. Names of facts are excused with

        allow.facts = ["shard", "weights-only"]

    and tensors that hold initial values on purpose, such as a new head, with

        allow.missing = ["classifier.*"]
    """
    damaged = tuple(key for key, value in case.values.items() if value.damaged)
    found = (ChecksumDiffers(damaged),) if damaged else ()
    for fact in (*found, *facts_of(case.checkpoint)):
        level = fact.finding_level()
        if level is None or case.allows("facts", fact.name):
            continue
        if isinstance(fact, Initial):
            left = case.refused("missing", fact.keys)
            if not left:
                continue
            fact = initial_among(case.checkpoint, frozenset(left)) if len(left) < len(fact.keys) else fact
        note = note_of(fact, case.checkpoint)
        listed = fact.keys[:_DETAILS] if len(fact.keys) > 1 else ()
        yield Found(note.text, fact.keys, listed, note.hint, level=level, short=fact.name)
