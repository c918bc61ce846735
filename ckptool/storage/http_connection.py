"""Connections to web servers: to an address that was checked, through a proxy where the environment names one.

`http.client` speaks the protocol over a socket of ours, on which no read lasts longer than the deadline.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any
from urllib.request import getproxies, proxy_bypass

from ckptool.core.errors import UnreadableError, UsageError
from ckptool.core.version import VERSION
from ckptool.storage.deadline import IDLE, Deadline, TooSlowError
from ckptool.storage.hosts import Zone, endpoints, is_loopback, zone_of
from ckptool.storage.http_url import Url, bracketed, host_header

_MAX_PROXY_ANSWER = 1 << 16  # bytes


def words_of(error: BaseException, url: Url) -> str:
    """What went wrong, in words."""
    if isinstance(error, TooSlowError | TimeoutError):
        return f"{url.shown} does not answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of {url.host} is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no secure connection to {url.shown}: {(error.reason or 'TLS failed').replace('_', ' ').lower()}"
    if isinstance(error, http.client.RemoteDisconnected | http.client.IncompleteRead | ConnectionResetError):
        return f"{url.shown} closed the connection early"
    if isinstance(error, http.client.HTTPException | ValueError):
        return f"{url.shown} answers with something that is not HTTP"
    if isinstance(error, OSError):
        return f"{url.shown}: {(error.strerror or str(error) or 'no connection').lower()}"
    return str(error)


class _Raw(io.RawIOBase):
    """The bytes of a socket, none of them later than the deadline."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        connection = self._connection
        assert connection.deadline is not None
        connection.socket.settimeout(min(IDLE, connection.deadline.left()))
        count = connection.socket.recv_into(buffer)
        connection.deadline.received(count)
        return count


class _Stream:
    """What `http.client` takes for a socket."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def makefile(self, *_: object) -> io.BufferedReader:
        return io.BufferedReader(_Raw(self._connection), 1 << 16)

    def sendall(self, data: bytes) -> None:
        self._connection.socket.sendall(data)

    def close(self) -> None:
        pass  # the connection closes it


class _Response(http.client.HTTPResponse):
    """An answer without the interim ones before it: http.client skips 100 alone, and servers may send 103, too."""

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        is_interim = http.client.SWITCHING_PROTOCOLS < status < http.client.OK
        return version, http.client.CONTINUE if is_interim else status, reason


class Connection:
    """An open connection to one origin."""

    def __init__(self, origin: tuple[str, str, int], found: socket.socket, through_proxy: bool) -> None:
        self.origin = origin
        self.socket = found
        self.deadline: Deadline | None = None
        self._is_absolute = through_proxy and origin[0] == "http"
        self._http = http.client.HTTPConnection(bracketed(origin[1]), origin[2])
        self._http.auto_open = 0
        self._http.response_class = _Response
        self._http.sock = _Stream(self)

    def exchange(self, url: Url, headers: Mapping[str, str], deadline: Deadline) -> http.client.HTTPResponse:
        """Send one request; the answer with its headers."""
        self.deadline = deadline
        self.socket.settimeout(min(IDLE, deadline.left()))
        target = f"http://{bracketed(url.host)}:{url.port}{url.target}" if self._is_absolute else url.target
        self._http.putrequest("GET", target, skip_host=True, skip_accept_encoding=True)
        sent = {"Host": host_header(url), "User-Agent": f"ckptool/{VERSION}", "Accept-Encoding": "identity", **headers}
        for name, value in sent.items():
            self._http.putheader(name, value)
        self._http.endheaders()
        response = self._http.getresponse()
        if self._http.sock is None:  # http.client lets go of a connection that the server will close
            self._http.sock = _Stream(self)
        return response

    def abort(self) -> None:
        """Have whoever waits for it wait no more."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._http.close()
        with suppress(OSError):
            self.socket.close()

    def __del__(self) -> None:
        self.close()


def connected(url: Url, timeout: float, zones: frozenset[Zone]) -> Connection:
    """A new connection, to an address that was checked."""
    proxy = proxy_of(url)
    if proxy is not None:
        _require_public_digits(url, zones)
        found = socket.create_connection((proxy.host, proxy.port), timeout)
        if url.scheme == "https":
            _tunnel(found, url, timeout)
    else:
        found = _socket_to(url, timeout, zones)
    if url.scheme == "https":
        try:
            found = _tls().wrap_socket(found, server_hostname=url.host)
        except BaseException:
            found.close()
            raise
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Connection(url.origin, found, proxy is not None)


def _socket_to(url: Url, timeout: float, zones: frozenset[Zone]) -> socket.socket:
    last: OSError | None = None
    for endpoint in endpoints(url.host, url.port, zones):
        made = socket.socket(endpoint.family, socket.SOCK_STREAM)
        made.settimeout(timeout)
        try:
            made.connect(endpoint.address)
        except OSError as error:
            made.close()
            last = error
        else:
            return made
    raise last or OSError("no address")


def _tunnel(found: socket.socket, url: Url, timeout: float) -> None:
    """Have a proxy connect to the server."""
    place = f"{bracketed(url.host)}:{url.port}"
    found.settimeout(timeout)
    found.sendall(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode("ascii"))
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = found.recv(1)  # byte by byte: what follows belongs to TLS
        answer += data
        if not data or len(answer) > _MAX_PROXY_ANSWER:
            break
    if not re.match(rb"HTTP/1\.[01] 200", answer):
        found.close()
        raise OSError("the proxy refuses the connection")


def _require_public_digits(url: Url, zones: frozenset[Zone]) -> None:
    """Refuse an address in digits that a proxy should not be asked for."""
    try:
        zone = zone_of(url.host)
    except ValueError:
        return
    if zone not in zones:
        raise UnreadableError(f"{url.host} is not an address of the internet: it is not asked")


def proxy_of(url: Url) -> Url | None:
    """The proxy that the environment names for a URL."""
    named = getproxies().get(url.scheme)
    if not named or is_loopback(url.host) or proxy_bypass(url.host):
        return None
    try:
        return Url.parse(named if "://" in named else f"http://{named}")
    except ValueError:
        raise UsageError(
            f"{url.scheme.upper()}_PROXY is not http://HOST:PORT", hint="ckptool knows such proxies without a password"
        ) from None


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
