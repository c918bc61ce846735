"""Addresses of the Hugging Face hub: ``hf://[datasets/|spaces/]OWNER/NAME[@REVISION][/FILE]``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import quote, unquote, urlsplit

from ckptool.core.address import Address
from ckptool.core.errors import UsageError

Kind: TypeAlias = Literal["models", "datasets", "spaces"]

_FORM = "hf://OWNER/NAME, hf://OWNER/NAME@REVISION, or hf://OWNER/NAME/FILE"
_UNREAD = ("kernels", "buckets")
_REVISION = re.compile(r"(refs/pr/\d+|refs/convert/[^/]+|[^/]+)(?:/|$)")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
MAIN = "main"


@dataclass(frozen=True, slots=True)
class HubPlace:
    """A repository at a revision, and a file or folder in it.

    Attributes:
        kind: of the repository.
        id: "OWNER/NAME".
        revision: a branch, a tag, a pull request, a commit.
        path: below the root; "" for the root.
    """

    kind: Kind
    id: str
    revision: str
    path: str = ""

    @property
    def is_pinned(self) -> bool:
        """True if the revision is a commit."""
        return _COMMIT.fullmatch(self.revision) is not None

    @property
    def address(self) -> Address:
        """As an address.

        Example:
            >>> str(HubPlace("datasets", "o/n", "refs/pr/1", "a.bin").address)
            'hf://datasets/o/n@refs/pr/1/a.bin'
        """
        prefix = "" if self.kind == "models" else f"{self.kind}/"
        plain = re.fullmatch(r"refs/pr/\d+|refs/convert/[^/]+", self.revision)
        revision = self.revision if plain else quote(self.revision, safe="")
        at = "" if self.revision == MAIN else f"@{revision}"
        return Address(f"hf://{prefix}{self.id}{at}{'/' if self.path else ''}{self.path}")


def hub_place(address: Address) -> HubPlace:
    """What an address of the hub means.

    Raises:
        UsageError: it is not of the form that such addresses have.

    Example:
        >>> hub_place(Address("hf://org/model@refs/pr/3/vae/model.safetensors"))
        HubPlace(kind='models', id='org/model', revision='refs/pr/3', path='vae/model.safetensors')
        >>> hub_place(Address("hf://org/model")).revision
        'main'
    """
    text = address.full.partition("://")[2].rstrip("/")
    kind: Kind = "models"
    first, _, rest = text.partition("/")
    if first in _UNREAD:
        raise UsageError(f"{address} is in {first} of the hub, which ckptool does not read", hint=_FORM)
    if first in ("models", "datasets", "spaces"):
        kind, text = first, rest  # type: ignore[assignment]
    owner, _, rest = text.partition("/")
    name, at, behind = rest.partition("@")
    if at and "/" not in name:
        match = _REVISION.match(behind)
        if match is None:
            raise UsageError(f"{address} has no revision after its @", hint=_FORM)
        revision, path = unquote(match[1]), behind[match.end() :]
    else:
        name, _, path = rest.partition("/")
        revision = MAIN
    if not owner or not name or not _is_name(owner) or not _is_name(name):
        raise UsageError(f"{address} is not an address of a repository", hint=_FORM)
    require_plain(path, f"{address}")
    require_plain(revision, f"{address}")
    return HubPlace(kind, f"{owner}/{name}", revision, path)


def web_place(address: Address, endpoint: str) -> Address | None:
    """The address of the hub that a page of its web site stands for; None for any other URL.

    Example:
        >>> str(web_place(Address("https://huggingface.co/org/model/blob/main/a.safetensors"), ""))
        'hf://org/model/a.safetensors'
        >>> web_place(Address("https://example.org/org/model"), "") is None
        True
    """
    parts = urlsplit(address.full)
    own = urlsplit(endpoint)
    if parts.netloc.lower() not in _HOSTS and (not own.netloc or parts.netloc.lower() != own.netloc.lower()):
        return None
    kind: Kind = "models"
    segments = parts.path.strip("/").split("/")
    if segments[0] in ("datasets", "spaces"):
        kind = segments.pop(0)  # type: ignore[assignment]
    if len(segments) == 2 and _is_name(segments[0]) and segments[0] != "api":
        return HubPlace(kind, "/".join(segments), MAIN).address
    if len(segments) < 4 or segments[2] not in ("blob", "resolve", "raw", "tree"):
        return None
    match = _REVISION.match("/".join(segments[3:]))
    if match is None:
        return None
    path = unquote("/".join(segments[3:])[match.end() :])
    return HubPlace(kind, "/".join(segments[:2]), unquote(match[1]), path).address


def require_plain(path: str, where: str) -> None:
    """Refuse a relative path that leads elsewhere.

    Raises:
        UsageError: it has an empty part, ``..``, a backslash, a NUL or a drive.
    """
    if path and not is_plain(path):
        raise UsageError(f"{where} names {path!r}, which is not a plain path", hint="leave out empty parts and ..")


def is_plain(path: str) -> bool:
    """True for a relative path that stays below its folder, in parts that every system takes.

    Example:
        >>> is_plain("a/b.c"), is_plain("../a"), is_plain("/a"), is_plain("a//b"), is_plain("c:/x")
        (True, False, False, False, False)
    """
    parts = path.split("/")
    return all(part not in ("", ".", "..") and not re.search(r"[\\\0]", part) for part in parts) and ":" not in parts[0]


def _is_name(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9._-]+", text) is not None and text not in (".", "..")
