from __future__ import annotations

from collections.abc import Iterator

from ckptool.commands.checks import Rule
from ckptool.commands.checks.case import Case, Found, columns
from ckptool.commands.checks.quantized import members_of
from ckptool.core.counts import many
from ckptool.core.tensor import Tensor

_ONES = frozenset(["weight", "running_var", "gamma", "scale"])


RULE = Rule("dead", level="warning", allows=("dead",), reads=True, order=90)


def dead(case: Case) -> Iterator[Found]:
    """Tensors all of whose elements are one number.

    Found: float tensors that are all zero, or all another number. Vectors at the value that layers begin with (zero;
    one for norm weights and running_var) are not: a layer may have stayed there. A norm weight of zero is. Tensors of
    one element, integers, and scales of quantized weights are skipped.

    Why: a layer that is all zero was pruned away, never initialised, never loaded, or saved from the wrong rank of a
    sharded run. The model runs and is wrong.

    What to do: compare with the checkpoint before: ckptool diff BEFORE FILE. Tensors that are meant to be constant go
    into the allow-list.

    Policy: it always runs, and warns.

        allow.dead = ["*.layer_scale"]
        levels.dead = "error"
    """
    disguised, scales = members_of(case.checkpoint)
    found = []
    for key, measure in case.values.items():
        if measure.constant is not None and key not in disguised | scales:
            value = _number(measure.constant, case.checkpoint[key].dtype)
            if not _is_start(case.checkpoint[key], value) and not case.allows("dead", key):
                found.append((key, value))
    if not found:
        return
    zeros = sum(value == "0" for _, value in found)
    what = "all zero" if zeros == len(found) else "constant" if not zeros else f"constant, {zeros:,} of them zero"
    text = f"{many(len(found), 'tensor is', 'tensors are')} {what}"
    yield Found(
        text if len(found) > 1 else f"{found[0][0]} is {'all zero' if zeros else f'all {found[0][1]}'}",
        tuple(key for key, _ in found),
        columns((key, case.checkpoint[key].spec.short, f"all {value}") for key, value in found),
        f"ckptool inspect {case.word} --stats",
        short=f"{len(found):,} constant",
    )


def _is_start(tensor: Tensor, value: str) -> bool:
    """True for a vector that stands where layers begin."""
    return len(tensor.shape) <= 1 and value == ("1" if tensor.key.rpartition(".")[2] in _ONES else "0")


def _number(element: bytes, dtype: str) -> str:
    """The one element as text, ``-0.0`` as zero."""
    import numpy as np

    from ckptool.core.arrays import numpy_dtype

    value = np.frombuffer(element, numpy_dtype(dtype))[0]
    if dtype == "complex32":
        number = complex(value["real"], value["imag"])
    elif dtype.startswith("complex"):
        number = complex(value)
    else:
        return f"{float(value) or 0.0:.4g}"
    return f"{number:.4g}" if number.imag else f"{number.real or 0.0:.4g}"
