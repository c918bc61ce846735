"""Which addresses of the internet a server's name may lead to.

A name is looked up once, every address is checked, and the connection goes to a checked one: a second look-up could
give another answer. What a redirect names may not lead to this machine, the local network or a cloud's metadata service
unless the address that the user typed leads to the same kind of network.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any, Literal, NamedTuple, TypeAlias

from ckptool.core.errors import UnreadableError

Zone: TypeAlias = Literal["public", "private", "loopback", "forbidden"]


class Endpoint(NamedTuple):
    """An address that a name was found to have."""

    family: int
    address: tuple[Any, ...]
    zone: Zone


class LookupFailedError(Exception):
    """A name has no address now."""


def zone_of(text: str) -> Zone:
    """Which kind of network an IP address is in.

    Example:
        >>> [zone_of(text) for text in ("8.8.8.8", "127.0.0.1", "10.0.0.1", "169.254.169.254", "::ffff:10.0.0.1")]
        ['public', 'loopback', 'private', 'forbidden', 'private']
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address.sixtofour or address
    if address.is_loopback:
        return "loopback"
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        return "forbidden"
    if address.is_global:
        return "public"
    if address.is_private:
        return "forbidden" if address.is_reserved else "private"
    return "private"


def endpoints(host: str, port: int, allowed: frozenset[Zone]) -> list[Endpoint]:
    """The addresses of a name, all of them checked.

    Args:
        host: a name, or an address in digits.
        port: the port.
        allowed: the zones that may be reached.

    Raises:
        LookupFailedError: it has none.
        UnreadableError: one of them is in a zone that may not be reached.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise LookupFailedError(str(getattr(error, "strerror", None) or error)) from None
    checked = [Endpoint(family, address, zone_of(str(address[0]))) for family, _, _, _, address in found]
    for each in checked:
        if each.zone not in allowed:
            raise UnreadableError(
                f"{host} leads to {each.address[0]}, an address of {_WORDS[each.zone]}: it is not asked",
                hint="give the address of the file itself, if you trust it",
            )
    return checked


def is_loopback(host: str) -> bool:
    """True if a host is this machine by its name or digits alone."""
    if host == "localhost":
        return True
    try:
        return zone_of(host) == "loopback"
    except ValueError:
        return False


_WORDS: dict[Zone, str] = {
    "public": "the internet",
    "private": "a local network",
    "loopback": "this machine",
    "forbidden": "a network that no file is on",
}
