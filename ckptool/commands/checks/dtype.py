from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from ckptool.commands.checks import Rule, nearest
from ckptool.commands.checks.case import Case, Found, columns
from ckptool.commands.checks.settings import At, Key, PolicyReader
from ckptool.core.counts import many
from ckptool.core.spec import DTYPES, dtype_named


def _dtypes(reader: PolicyReader, value: Any, at: At) -> tuple[str, ...]:
    found = []
    for number, name in enumerate(reader.texts(value, at)):
        dtype = dtype_named(name)
        if dtype is None:
            line = (*at, number) if isinstance(value, list) else at
            reader.refuse(f'"{name}" is not a dtype', line, nearest(name, DTYPES) or "float32, bf16, int64, ...")
        else:
            found.append(dtype.name)
    return tuple(found)


DTYPES_ALLOWED: Key[tuple[str, ...]] = Key("dtypes", _dtypes)
RULE = Rule("dtype", needs=(DTYPES_ALLOWED,), allows=("dtype",), order=70)


def dtype(case: Case) -> Iterator[Found]:
    """Tensors have a dtype that the policy does not list.

    Found: every dtype among the weights that is not in `dtypes`, with its tensors.

    Why: a float64 that slipped in doubles the file; half precision where float32 was promised loses digits for good; a
    server may not have kernels for float8.

    What to do: ckptool filter FILE --dtype f32 -o OUT casts the floats, and leaves integers alone.

    Policy: it runs where `dtypes` is set; long and short names both do.

        dtypes = ["float32", "int64"]
        allow.dtype = ["*.attn_bias"]
    """
    setting = case.settings.get(DTYPES_ALLOWED)
    if setting is None:
        return
    found: dict[str, list[str]] = defaultdict(list)
    for key, tensor in case.checkpoint.items():
        if tensor.dtype not in setting.value and not case.allows("dtype", key):
            found[tensor.dtype].append(key)
    floats = [DTYPES[name].short for name in setting.value if DTYPES[name].kind == "float"]
    for name, keys in found.items():
        castable = DTYPES[name].kind == "float" and floats
        yield Found(
            f"{many(len(keys), 'tensor is', 'tensors are')} {name}; the policy has {', '.join(setting.value)}",
            tuple(keys),
            columns((key, case.checkpoint[key].spec.short) for key in keys),
            f"ckptool filter {case.word} --dtype {floats[0]} -o OUT" if castable else "",
            setting.place,
            short=f"{len(keys):,} {DTYPES[name].short}",
        )
