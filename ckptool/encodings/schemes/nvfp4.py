"""NV fp4: an E4M3 scale for 16 codes and a global one. compressed-tensors, ModelOpt, ComfyUI (see `fp4`)."""

from __future__ import annotations

from collections.abc import Iterator

from ckptool.encodings.encoded import Encoded, Scheme
from ckptool.encodings.fp4 import decode, find_groups, granule, settle
from ckptool.encodings.headers import Headers


def find(headers: Headers) -> Iterator[Encoded]:
    """Payloads with a scale for each 16 codes."""
    return find_groups(headers, 16)


SCHEME = Scheme("nvfp4", 20, find, decode, settle, granule)
