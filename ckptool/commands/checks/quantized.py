from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ckptool.commands.checks import Rule
from ckptool.commands.checks.case import Case, Found
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.counts import many
from ckptool.encodings.encoded import CODES, Encoded
from ckptool.encodings.fp4 import DIVISOR
from ckptool.encodings.headers import quantization_of
from ckptool.engine.dequantize import config_beside, encoded_of, reads, settled
from ckptool.engine.reading import Reader

_FP8, _FP4 = ("fp8",), ("mxfp4", "nvfp4")
_SCHEMES: dict[str, tuple[str, ...]] = {
    "fp8": (*_FP8, *_FP4),  # DeepSeek-V4 has experts of fp4
    "fbgemm_fp8": _FP8,
    "mxfp8": _FP8,
    "mxfp4": ("mxfp4 experts", "mxfp4"),
    "gptq": ("GPTQ",),
    "awq": ("AWQ",),
    "bitsandbytes": ("bitsandbytes", "bitsandbytes int8"),
    "hqq": ("HQQ",),
    "torchao": ("torchao",),
    "quanto": ("quanto",),
    "bitnet": ("BitNet",),
    "compressed-tensors": (*_FP8, *_FP4, "packed int", "int8"),
    "modelopt": (*_FP8, *_FP4, "ModelOpt int4", "int8"),
}
_SKIPPED = ("modules_to_not_convert", "ignore", "ignored_layers", "llm_int8_skip_modules", "exclude_modules")
_EXPONENT_NAN = 255
_DETAILS = 5


RULE = Rule("quantized", allows=("quantized",), reads=True, order=160)


def quantized(case: Case) -> Iterator[Found]:
    """Quantized weights cannot be decoded, or config.json describes others.

    Found: values of descriptions that cannot be true, zero points that contradict the config, scales that are NaN where
    NaN is an integer's code, global scales of 0 that divide; a quantization_config of another scheme than the tensors
    have, without tensors that it describes, or that lists a quantized layer as not converted; no quantization_config.

    Why: loaders go by config.json. They find no scales, make weights at random, or read codes as weights.

    What to do: get the file again, or take the config.json that was written with it. ckptool filter --dequantize makes
    a plain checkpoint of what can be decoded.

    Policy: it always runs. Logical keys are excused with

        allow.quantized = ["lm_head.weight"]
    """
    checkpoint = case.checkpoint
    found = encoded_of(checkpoint)
    yield from _described(case, found)
    known = {each.key for each in found if each.problems}  # the rule `facts` names those
    whole = settled(checkpoint, [each for each in found if each.key not in known])
    bad = [each for each in whole if each.problems and not case.allows("quantized", each.key)]
    if bad:
        texts = tuple(f"{each.key}: {each.problems[0].text}" for each in bad)
        yield Found(
            f"{many(len(bad), 'quantized tensor')} cannot be decoded: {texts[0]}",
            tuple(each.key for each in bad),
            texts[1:_DETAILS],
            bad[0].problems[0].hint,
            short=f"{len(bad):,} undecodable",
        )
    nan = {each.key: count for each in whole if (count := _nan_exponents(checkpoint, each))}
    nan = {key: count for key, count in nan.items() if not case.allows("quantized", key)}
    if nan:
        first = next(iter(nan))
        yield Found(
            f"{many(sum(nan.values()), 'scale is', 'scales are')} NaN in {first}"
            + (f" and {len(nan) - 1:,} more" if len(nan) > 1 else ""),
            tuple(nan),
            help="the file is damaged; get it again",
            short=f"{sum(nan.values()):,} NaN scales",
        )
    zero = [each for each in whole if not case.allows("quantized", each.key) and _has_zero_divisor(checkpoint, each)]
    if zero:
        yield Found(
            f"{zero[0].members[DIVISOR].key} is 0, and it divides",
            tuple(each.key for each in zero),
            help="the file is damaged; get it again",
            short=f"{len(zero):,} zero divisors",
        )


def _has_zero_divisor(checkpoint: Checkpoint, encoded: Encoded) -> bool:
    """True if scales are divided by 0."""
    if DIVISOR not in encoded.members:
        return False
    with Reader() as reader:
        return not reads(checkpoint, encoded, reader)(DIVISOR).all()


def _nan_exponents(checkpoint: Checkpoint, encoded: Encoded) -> int:
    """How many scales that are stored as bytes of exponents are NaN; scales of float dtypes are `nonfinite`'s."""
    import numpy as np

    scales = encoded.members.get("scales")
    if scales is None or scales.dtype != "uint8" or encoded.scheme not in ("fp8", "mxfp4", "mxfp4 experts"):
        return 0
    with Reader() as reader:
        read = reads(checkpoint, encoded, reader)
        rows = range(0, scales.shape[0], max(1, (1 << 20) * scales.shape[0] // max(1, scales.elements)))
        step = rows.step
        return sum(int(np.count_nonzero(read("scales", slice(row, row + step)) == _EXPONENT_NAN)) for row in rows)


def _described(case: Case, found: Sequence[Encoded]) -> Iterator[Found]:
    """What config.json says of the quantization, against the tensors."""
    config = config_beside(case.checkpoint)
    if config is None:
        return
    said = quantization_of(config)
    method = str(said.get("quant_method") or ("modelopt" if "quant_algo" in said else "")).lower()
    schemes = tuple(dict.fromkeys(each.scheme for each in found if each.scheme != "unknown"))
    keys = tuple(each.key for each in found)
    if schemes and not said and not any(scheme in ("torchao", "MLX") for scheme in schemes):
        yield Found(
            f"config.json has no quantization_config, and {many(len(found), 'tensor is', 'tensors are')} "
            f"quantized ({found[0].title}): loaders take codes for weights",
            keys,
            help="take the config.json that was written with the weights",
            level="warning",
            short="no quantization_config",
        )
    expected = _SCHEMES.get(method)
    if expected is None:
        return
    if not found:
        yield Found(
            f"config.json says that weights are quantized ({method}), and none is",
            help="remove its quantization_config",
            level="note",
            short="stale quantization_config",
        )
    elif schemes and not set(schemes) & set(expected):
        yield Found(
            f"config.json says {method}, and the quantized tensors are {' and '.join(schemes)}",
            keys,
            help="take the config.json that was written with the weights",
            short=f"{method}, not {schemes[0]}",
        )
    skipped = _named_modules(said)
    converted = [each.key for each in found if any(_is_in(each.key, name) for name in skipped)]
    converted = [key for key in converted if not case.allows("quantized", key)]
    if converted:
        yield Found(
            f"config.json lists {converted[0]} as not converted, and it is quantized",
            tuple(converted),
            tuple(converted[1:_DETAILS]),
            "take the config.json that was written with the weights",
            short="not converted",
        )


def _named_modules(said: Mapping[str, object]) -> list[str]:
    """Full names of modules that the config leaves unquantized; patterns and single words are not judged."""
    listed = [said.get(name) for name in _SKIPPED]
    names = [name for each in listed if isinstance(each, list) for name in each if isinstance(name, str)]
    return [name for name in names if name and all(part.isidentifier() or part.isdecimal() for part in name.split("."))]


def _is_in(key: str, module: str) -> bool:
    """True for the weight of a module that is named in full."""
    return key in (module, f"{module}.weight")


def members_of(checkpoint: Checkpoint) -> tuple[frozenset[str], frozenset[str]]:
    """Keys of quantized tensors: codes that are stored as other dtypes than they have; and scales and the like."""
    found = encoded_of(checkpoint)
    disguised = {each.codes.key for each in found if not each.codes.dtype.startswith("float8")}
    others = {spec.key for each in found for role, spec in each.members.items() if role != CODES}
    return frozenset(disguised), frozenset(others)
