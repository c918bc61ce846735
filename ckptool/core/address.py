"""Addresses of places that are not files of this machine: ``hf://OWNER/NAME``, ``https://HOST/FILE``, ``s3://BUCKET/KEY``.

An address is a path whose text keeps its two slashes, so that everything that asks a path for its name or its folder
may ask an address. Its text never shows a query, which may hold a key; `Address.full` has it, for requests.
"""

from __future__ import annotations

import re
from pathlib import PurePath, PurePosixPath
from typing import Self

from ckptool.core.bytes import PathText
from ckptool.core.errors import UsageError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_COLLAPSED = re.compile(r"(hf|https?|s3|gs|az|abfs|file|ftp):/(?!/)")
SCHEMES = ("hf", "https", "http", "s3", "gs", "az", "abfs")


class Address(PurePosixPath):
    """An address as a path.

    Example:
        >>> place = Address("hf://org/model@main/model.safetensors")
        >>> str(place), place.name, str(place.parent / "config.json")
        ('hf://org/model@main/model.safetensors', 'model.safetensors', 'hf://org/model@main/config.json')
        >>> str(Address("https://host/a/b.pt?X-Amz-Signature=secret"))
        'https://host/a/b.pt'
    """

    __slots__ = ("_full",)

    _full: str

    def __new__(cls, *parts: PathText) -> Self:
        """An address from its text, or from a path that was made of one."""
        made = super().__new__(cls, *_without_query(parts))
        if len(parts) == 1 and isinstance(parts[0], str):
            made._full = parts[0]
        return made

    def __init__(self, *parts: PathText) -> None:
        if hasattr(PurePath, "with_segments"):  # Python 3.12 and newer
            super().__init__(*_without_query(parts))

    def __str__(self) -> str:
        return _COLLAPSED.sub(r"\1://", super().__str__(), count=1)

    def __fspath__(self) -> str:
        return str(self)

    @property
    def scheme(self) -> str:
        """``hf``, ``https``, ``s3``, ..."""
        return str(self).partition("://")[0]

    @property
    def full(self) -> str:
        """The text as it was given, with its query: for a request, never to be shown."""
        return getattr(self, "_full", None) or str(self)

    @property
    def shown(self) -> str:
        """The text for people: a query is there, and not shown."""
        return f"{self}?..." if "?" in self.full else str(self)


def _without_query(parts: tuple[PathText, ...]) -> tuple[PathText, ...]:
    return tuple(
        re.split(r"[?#]", part, maxsplit=1)[0] if isinstance(part, str) and "://" in part else part for part in parts
    )


def address_of(text: PathText) -> Address | None:
    """The address that a text or path is; None for a path of this machine.

    Raises:
        UsageError: it holds a user's name or password, or ckptool knows no such scheme.

    Example:
        >>> address_of("weights/a.pth"), str(address_of("s3://bucket/model/"))
        (None, 's3://bucket/model')
        >>> str(address_of(PurePath("hf://org/model")))
        'hf://org/model'
    """
    if isinstance(text, Address):
        return text
    written = text if isinstance(text, str) else text.__fspath__()
    if not isinstance(text, str):
        written = _COLLAPSED.sub(r"\1://", written, count=1)
    match = _SCHEME.match(written)
    if match is None:
        return None
    scheme, rest = match[1].lower(), written[match.end() :]
    if scheme not in SCHEMES and _COLLAPSED.match(f"{scheme}:/") is None:
        return None
    place = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in place and scheme != "hf":
        raise UsageError(
            f"{scheme}://{place.rpartition('@')[2]} is an address with a name or password in it",
            hint="leave it out; a token is taken from the environment",
        )
    if place in ("", ".", "..") and scheme in SCHEMES:
        raise UsageError(f"{scheme}:// is not an address of anything: no name follows", hint=f"{scheme}://NAME/FILE")
    if scheme not in SCHEMES:
        shown = Address(f"{scheme}://{rest}").shown
        hint = (
            "give the path without file://" if scheme == "file" else f"it may be {', '.join(SCHEMES[:-1])}, or a path"
        )
        raise UsageError(f"{shown} is an address that ckptool does not read", hint=hint)
    return Address(f"{scheme}://{rest}")


def named(text: PathText) -> PurePath:
    """A path or an address, whichever a text is.

    Example:
        >>> type(named("a/b.pth")).__name__ in ("PurePosixPath", "PureWindowsPath"), type(named("hf://a/b")).__name__
        (True, 'Address')
    """
    return address_of(text) or PurePath(text)
