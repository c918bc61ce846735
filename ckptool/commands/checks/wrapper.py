from __future__ import annotations

from collections.abc import Iterator

from ckptool.commands.checks import Rule
from ckptool.commands.checks.case import Case, Found
from ckptool.core.counts import many
from ckptool.core.keys import strip_wrappers
from ckptool.facts.registry import facts_of
from ckptool.facts.words import note_of
from ckptool.facts.wrappers import Wrapped

RULE = Rule("wrapper", level="warning", allows=("wrapper",), order=170)


def wrapper(case: Case) -> Iterator[Found]:
    """A training wrapper left its mark in the keys.

    Found: "module." of DataParallel and DistributedDataParallel in front of every key, "_orig_mod." of torch.compile,
    "_fsdp_wrapped_module." and their like anywhere. A module of the model that is called "module" is not.

    Why: a bare model does not load such keys, and with strict=False it loads nothing and says nothing.

    What to do: ckptool remap FILE -r strip-wrappers -o PLAIN, or save model.module.state_dict().

    Policy: it always runs, and warns.

        levels.wrapper = "error"
    """
    for fact in facts_of(case.checkpoint):
        if not isinstance(fact, Wrapped):
            continue
        note = note_of(fact, case.checkpoint)
        keys = note.keys or tuple(key for key in case.checkpoint if strip_wrappers(key) != key)
        left = case.refused("wrapper", keys)
        if left:
            yield Found(note.text, left, tuple(left[:3]), note.hint, short=many(len(left), "key"))
