"""MX fp4: an exponent for 32 codes. compressed-tensors `mxfp4-pack-quantized`, DeepSeek-V4's experts (see `fp4`)."""

from __future__ import annotations

from collections.abc import Iterator

from ckptool.encodings.encoded import Encoded, Scheme
from ckptool.encodings.fp4 import decode, find_groups, granule, settle
from ckptool.encodings.headers import Headers


def find(headers: Headers) -> Iterator[Encoded]:
    """Payloads with a scale for each 32 codes."""
    return find_groups(headers, 32)


SCHEME = Scheme("mxfp4", 20, find, decode, settle, granule)
