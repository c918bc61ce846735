from __future__ import annotations

from collections.abc import Iterator

from ckptool.commands.checks import Rule
from ckptool.commands.checks.case import Case, Found, columns
from ckptool.commands.checks.quantized import members_of

RULE = Rule("nonfinite", allows=("nonfinite",), reads=True, order=80)


def nonfinite(case: Case) -> Iterator[Found]:
    """Weights are NaN or infinite.

    Found: every tensor with NaN or Inf, and how many. Read from the bits, so it is right for bfloat16, float16 and the
    float8 types (most of which have no Inf), for complex tensors (an element counts once) and for views. Integers are
    skipped.

    Why: one NaN in one weight makes every output NaN. It comes from a diverged run, from a cast to float16 that
    overflowed, or from a damaged disk.

    What to do: take an earlier checkpoint. After a cast, cast to bfloat16 instead. Masks that are meant to hold -inf go
    into the allow-list.

    Policy: it always runs.

        allow.nonfinite = ["*.attn_mask"]
    """
    disguised, _ = members_of(case.checkpoint)  # codes that are stored as floats
    found = [(key, measure) for key, measure in case.values.items() if measure.nan or measure.inf]
    found = [(key, measure) for key, measure in found if key not in disguised]
    bad = [(key, measure) for key, measure in found if not case.allows("nonfinite", key)]
    if not bad:
        return
    nan, inf = sum(measure.nan for _, measure in bad), sum(measure.inf for _, measure in bad)
    where = bad[0][0] if len(bad) == 1 else f"{len(bad):,} tensors"
    of = f" (of {case.checkpoint[bad[0][0]].elements:,})" if len(bad) == 1 else ""
    yield Found(
        f"{_counted(nan, inf)} in {where}{of}",
        tuple(key for key, _ in bad),
        columns((key, case.checkpoint[key].spec.short, _counted(measure.nan, measure.inf)) for key, measure in bad),
        f"ckptool inspect {case.word} --stats",
        short=_counted(nan, inf),
    )


def _counted(nan: int, inf: int) -> str:
    return " and ".join(f"{number:,} {what}" for number, what in ((nan, "NaN"), (inf, "Inf")) if number)
