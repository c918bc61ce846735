from __future__ import annotations

import re
from collections.abc import Iterator

from ckptool.commands.checks import Rule
from ckptool.commands.checks.case import Case, Found, columns
from ckptool.core.counts import many
from ckptool.facts.headers import amount

_TRAINING = re.compile(
    r"optim|lr_sched|scheduler|scaler|rng|random_state|callbacks|\bloops\b|grad|momentum|exp_avg", re.IGNORECASE
)


RULE = Rule("leftover", level="warning", allows=("leftover",), order=180)


def leftover(case: Case) -> Iterator[Found]:
    """The file holds what only training needs.

    Found: optimizer, scheduler and gradient scaler states, random number states, callbacks and loops of a trainer.
    Plain numbers such as the epoch are not; nor are further sets of weights, such as a moving average.

    Why: an optimizer state triples a file that everybody downloads, and says how the model was trained.

    What to do: ckptool filter FILE --only-weights -o RELEASE.safetensors

    Policy: it always runs, and warns. Make it an error for the folder that is released, and turn it off for runs.

        [[paths]]
        match = "release/**"
        levels.leftover = "error"
    """
    found = [extra for extra in case.checkpoint.extras if _TRAINING.search(extra.name)]
    found = [extra for extra in found if not case.allows("leftover", extra.name)]
    if found:
        nbytes = sum(extra.nbytes for extra in found)
        size = f" ({amount(nbytes)} of {amount(case.checkpoint.nbytes)})" if nbytes else ""
        yield Found(
            f"{', '.join(extra.name for extra in found[:5])} {'is' if len(found) == 1 else 'are'} needed "
            f"to go on training only{size}",
            details=columns((extra.name, extra.text) for extra in found),
            help=f"ckptool filter {case.word} --only-weights -o RELEASE.safetensors",
            short=many(len(found), "entry", "entries"),
        )
