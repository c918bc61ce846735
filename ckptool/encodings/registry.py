"""All schemes: which tensors of a file are encoded, and their decoding in blocks of rows."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from math import prod
from typing import TYPE_CHECKING

from ckptool.core.columns import ColumnSpecs
from ckptool.core.spec import TensorSpec
from ckptool.encodings import schemes as schemes_folder
from ckptool.encodings.encoded import Encoded, Part, Read, Scheme
from ckptool.encodings.groups import Groups
from ckptool.encodings.headers import CODE_DTYPES, Headers

if TYPE_CHECKING:
    from ckptool.core.arrays import Array

BLOCK_ELEMENTS = 1 << 19
"""Elements that `decode_blocks` decodes at a time: 2 MiB of float32, which a core's own cache nearly holds."""


@cache
def schemes() -> Mapping[str, Scheme]:
    """Every scheme by name, those with explicit descriptions first."""
    names = sorted(module.name for module in pkgutil.iter_modules(schemes_folder.__path__))
    modules = [importlib.import_module(f"{schemes_folder.__name__}.{name}") for name in names]
    found: list[Scheme] = sorted((module.SCHEME for module in modules), key=lambda scheme: scheme.priority)
    return {scheme.name: scheme for scheme in found}


def recognise(
    specs: Mapping[str, TensorSpec], config: Mapping[str, object] | None, metadata: Mapping[str, str]
) -> Sequence[Encoded]:
    """The encoded tensors of a file, from headers alone, in the order of their payloads.

    Args:
        specs: all tensors of the checkpoint, of all shards.
        config: config.json. Where it has no quantization config and there is a ``quantize_config.json``,
            ``quant_config.json`` or ``hf_quant_config.json`` beside it, put that in as ``quantization_config``.
        metadata: the file's own metadata.

    Example:
        >>> specs = [TensorSpec("fc.weight", "float8_e4m3fn", (8, 4)), TensorSpec("fc.weight_scale", "float32", ())]
        >>> found = recognise({spec.key: spec for spec in specs}, None, {})
        >>> [(encoded.key, encoded.title, encoded.spec.short) for encoded in found]
        [('fc.weight', 'fp8 per tensor', 'bf16[8,4]')]
    """
    forms = specs.forms if isinstance(specs, ColumnSpecs) else specs.values()
    if CODE_DTYPES.isdisjoint(form.dtype for form in forms):
        return ()  # most files
    headers = Headers.of(specs, config, metadata)
    return Groups.of(_found(headers), headers.keys, headers.rows) or ()


def _found(headers: Headers) -> Iterator[Encoded]:
    """The encoded tensors in the order of their schemes; a stored tensor belongs to the first scheme that finds it."""
    for scheme in schemes().values():
        for encoded in scheme.find(headers):
            keys = encoded.keys
            if not headers.claim(keys):
                continue
            if encoded.key in headers.specs and encoded.key not in keys:
                encoded = encoded.with_problem("config", f"{encoded.key} is also in the file as a plain tensor")
            refusal = "" if encoded.problems else _refusal(encoded, scheme, headers)
            yield encoded.with_problem("refused", refusal, _EXPORT) if refusal else encoded


def _refusal(encoded: Encoded, scheme: Scheme, headers: Headers) -> str:
    """Why a tensor is not decoded though its parts fit: what the config says of it; "" if nothing stands against it."""
    if scheme.decode is None:
        return f"it is stored as {encoded.title}, which ckptool does not decode"
    if scheme.priority < _BY_LAYOUT:
        return ""
    if headers.quantization.get("transform_config"):
        return "its weights are rotated (transform_config)"
    if headers.method and headers.method not in METHODS and not headers.method.startswith("modelopt"):
        return f"config.json names the quantization method {headers.method[:40]!r}, which ckptool does not decode"
    return ""


_BY_LAYOUT = 10
"""Schemes with a lower priority have a description of their own for each tensor; for others the config is asked."""
METHODS = frozenset(
    (
        *("fp8", "fbgemm_fp8", "compressed-tensors", "compressed_tensors", "gptq", "awq", "hqq", "mxfp4", "mxfp8"),
        *("nvfp4", "torchao", "quanto", "bitnet", "bitsandbytes", "metal", "gguf", "mlx"),
        *("auto-round", "auto_round", "intel/auto-round"),
    )
)
"""What `quant_method` may be where a tensor is decoded by its layout."""

_EXPORT = "export plain weights with the library that wrote the file"


def settle(encoded: Encoded, read: Read) -> Encoded:
    """The tensor with shape and parameters that stand in its members' values. Reads the roles in `needs` only.

    A description that cannot be true becomes a problem, not an error.
    """
    if encoded.problems or not encoded.needs:
        return encoded
    return schemes()[encoded.scheme].settle(encoded, read)


def granule(encoded: Encoded) -> int:
    """Rows that are decoded together fastest; `decode` takes any others, too."""
    return schemes()[encoded.scheme].granule(encoded)


def decode(encoded: Encoded, read: Read, start: int, stop: int) -> Array:
    """Rows `start` to `stop` of the logical tensor: float32 ``[stop - start, columns]``, not rounded to its dtype.

    Rows are counted over all stacked matrices: a tensor [experts, out, in] has experts * out rows of `in` elements.

    Raises:
        CkptError: the tensor has a problem, was not settled, or its members' values cannot be true.

    Example:
        >>> import numpy as np
        >>> specs = [TensorSpec("w", "float8_e4m3fn", (2, 2)), TensorSpec("w_scale", "float32", ())]
        >>> (fc,) = recognise({spec.key: spec for spec in specs}, None, {})
        >>> from ckptool.core.arrays import numpy_dtype
        >>> arrays = {"codes": np.ones((2, 2), numpy_dtype("float8_e4m3fn")), "scales": np.array(0.5, np.float32)}
        >>> decode(fc, lambda role, *box: arrays[role][box], 0, 1).tolist()
        [[0.5, 0.5]]
    """
    import numpy as np

    encoded.require_decodable()
    decoder = schemes()[encoded.scheme].decode
    if decoder is None or not 0 <= start <= stop <= encoded.rows:
        raise ValueError(f"rows {start} to {stop} of {encoded.rows} of {encoded.title}")
    parts = []
    stacked, height = encoded.spec.shape[: encoded.lead], encoded.matrix_rows
    with np.errstate(all="ignore"):
        while start < stop:
            index, first = divmod(start, height)
            last = min(height, first + stop - start)
            at = tuple(int(axis) for axis in np.unravel_index(index, stacked)) if stacked else ()
            parts.append(decoder(Part(encoded, read, at), first, last))
            start += last - first
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty((0, encoded.columns), np.float32)


def decode_blocks(encoded: Encoded, read: Read, elements: int = BLOCK_ELEMENTS) -> Iterator[Array]:
    """All rows in order, in blocks of about so many elements; no block spans two stacked matrices.

    Raises:
        CkptError: see `decode`.
    """
    for start, stop in row_blocks(encoded, elements):
        yield decode(encoded, read, start, stop)


def row_blocks(encoded: Encoded, elements: int = BLOCK_ELEMENTS) -> Iterator[tuple[int, int]]:
    """The row ranges of `decode_blocks`; each can be decoded in a thread of its own."""
    if not prod(encoded.spec.shape):
        return
    step, height = row_step(encoded, elements), encoded.matrix_rows
    for base in range(0, encoded.rows, height):
        for first in range(0, height, step):
            yield base + first, base + min(height, first + step)


def row_step(encoded: Encoded, elements: int = BLOCK_ELEMENTS, most: int | None = None) -> int:
    """Rows of a block of about so many elements: whole granules where they have at most `most` elements, or 4 times.

    Where they have more, equal parts of a granule: memory before speed.
    """
    columns = max(1, encoded.columns)
    step, fit = granule(encoded), max(1, elements // columns)
    if step * columns > (4 * elements if most is None else most):
        return next(rows for rows in range(min(step, fit), 0, -1) if step % rows == 0)
    return step * max(1, fit // step)


def block_of_row(encoded: Encoded, row: int, step: int) -> tuple[int, int]:
    """The row range of `row_blocks` that a row is in.

    Args:
        encoded: the tensor.
        row: counted over all stacked matrices.
        step: as `row_step` gives it.
    """
    height = encoded.matrix_rows
    base = row - row % height
    first = (row - base) // step * step
    return base + first, base + min(height, first + step)
