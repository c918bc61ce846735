"""URLs in parts, and what of them may be printed."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit

from ckptool.storage.hosts import is_loopback

_SAFE = "%/?&=:;+,@~!$'()*[]-._"


class Url(NamedTuple):
    """A URL in parts; `target` is its path and query.

    Example:
        >>> Url.parse("https://Host/a b?x=1")
        Url(scheme='https', host='host', port=443, target='/a%20b?x=1')
    """

    scheme: str
    host: str
    port: int
    target: str

    @classmethod
    def parse(cls, text: str) -> Url:
        """Take a URL apart.

        Raises:
            ValueError: it is none, is of another scheme, or holds a user's name or password.
        """
        parts = urlsplit(text)
        scheme, host = parts.scheme.lower(), parts.hostname
        if scheme not in ("http", "https") or not host or "@" in parts.netloc:
            raise ValueError
        target = quote(parts.path or "/", safe=_SAFE) + (f"?{quote(parts.query, safe=_SAFE)}" if parts.query else "")
        return cls(scheme, host, parts.port or (443 if scheme == "https" else 80), target)

    @property
    def origin(self) -> tuple[str, str, int]:
        return self[:3]

    @property
    def shown(self) -> str:
        """The host, and the port where it is not the usual one: what may be printed of any URL."""
        return self.host if self.port == (443 if self.scheme == "https" else 80) else f"{self.host}:{self.port}"

    def join(self, location: str) -> Url:
        """The URL that a redirect from here names; ValueError if it may not be followed."""
        base = f"{self.scheme}://{bracketed(self.host)}:{self.port}{self.target}"
        found = Url.parse(urljoin(base, location))
        if self.scheme == "https" and found.scheme == "http":
            raise ValueError
        return found


def may_have_secrets(url: Url) -> bool:
    """True if a token may be sent there: over TLS, or to this machine."""
    return url.scheme == "https" or is_loopback(url.host)


def host_header(url: Url) -> str:
    host = bracketed(url.host)
    return host if url.port == (443 if url.scheme == "https" else 80) else f"{host}:{url.port}"


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else unquote(host)
