"""Sizes in bytes as people write them."""

from __future__ import annotations

import re

from ckptool.core.errors import UsageError

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def parse_size(text: str, least: int = 0) -> int:
    """Bytes of ``5GB``, ``500MB``, ``1.5 GiB``.

    Raises:
        UsageError: it is not a size, or less than `least` bytes.

    Example:
        >>> parse_size("50MB"), parse_size("1.5 GiB")
        (50000000, 1610612736)
    """
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)", text.strip())
    factor = _UNITS.get(match[2].upper()) if match else None
    if match is None or factor is None or float(match[1]) * factor < least:
        raise UsageError(f'"{text}" is not a size', hint="5GB, 50MB, 1.5GiB")
    return int(float(match[1]) * factor)
