"""Files of web servers: ``https://HOST/FILE``. Folders cannot be listed; files beside a known one can be opened."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from ckptool.core.address import Address
from ckptool.core.bytes import Entry
from ckptool.core.errors import CkptError, MissingError, UnreadableError, UsageError
from ckptool.storage.ahead import Ahead, Used
from ckptool.storage.blocks import FIRST, Blocks
from ckptool.storage.http import DOWNLOAD, StatusError
from ckptool.storage.http_ranges import HttpRanges, Site
from ckptool.storage.http_url import Url
from ckptool.storage.network import Network, network
from ckptool.storage.remote import RemoteFile


@dataclass(frozen=True, slots=True)
class HttpsFolder:
    """What is beside a file of a web server; a `ckptool.core.bytes.Folder`."""

    path: Address

    def entries(self) -> Sequence[Entry]:
        raise UnreadableError(f"{self.path} cannot be listed: it is on a web server", path=self.path)

    def open(self, name: str) -> RemoteFile:
        return open_https(self.path / name)

    def folder(self, name: str) -> HttpsFolder:
        return HttpsFolder(self.path / name)

    def will_open(self, heads: Mapping[str, int]) -> None:
        Ahead({name: max(nbytes, FIRST) for name, nbytes in heads.items()}, self._fetch_ahead).start()

    def _fetch_ahead(self, name: str, nbytes: int, used: Used) -> bool:
        at_once, address = network(), self.path / name
        call = partial(_opened_ahead, at_once, address, nbytes, used)
        at_once.known["ahead", address.full] = at_once.memory.workers.run(call)
        return True


def open_https(address: Address, *, is_fresh: bool = False) -> RemoteFile:
    """The file at an address.

    Args:
        address: ``https://...``, or ``http://...``.
        is_fresh: True to ask even if it has been asked for before.

    Raises:
        MissingError: there is none.
        UnreadableError: it may not be read, or the server's answers cannot be used.
    """
    at_once = network()
    key: Hashable = ("https", address.full)
    if is_fresh:
        beside = str(address.parent)
        for other in [
            other for other in at_once.files if isinstance(other, tuple) and str(other[-1]).startswith(beside)
        ]:
            del at_once.files[other]
    ahead = at_once.known.pop(("ahead", address.full), None)
    if isinstance(ahead, Future):
        ahead.result()
    known = at_once.files.get(key)
    if isinstance(known, RemoteFile) and not is_fresh:
        return known
    made = at_once.files[key] = _asked(at_once, address, FIRST)
    return made


def _opened_ahead(at_once: Network, address: Address, nbytes: int, used: Used) -> bytes:
    """Fetch the beginning of a file that will be opened; what is wrong with it is said when it is."""
    key: Hashable = ("https", address.full)
    try:
        if key not in at_once.files:
            at_once.files[key] = _asked(at_once, address, nbytes, used)
            return b""
    except CkptError:
        pass  # it is asked for again
    used()
    return b""


def _asked(at_once: Network, address: Address, nbytes: int, used: Used | None = None) -> RemoteFile:
    try:
        url = Url.parse(address.full)
    except ValueError:
        raise UsageError(f"{address.shown} is not an address of a file", hint="https://HOST/PATH") from None
    ranges = HttpRanges(at_once, url, Site(address.shown, {}, lambda error: _worded(error, address)))
    head = ranges.first(nbytes)
    size = ranges.size or 0
    blocks = Blocks(address.shown, size, ranges.fetch, at_once.memory)
    if head and used is not None:
        blocks.put_ahead(head, used)
    elif head:
        blocks.put(0, head)
    elif used is not None:
        used()
    query = hashlib.sha256(url.target.encode()).hexdigest()[:16]
    identity = ("https", *url.origin, query, *ranges.marks, size)
    at_once.transfer.add_file(identity, size)
    return RemoteFile(address, identity, size, HttpsFolder(Address(str(address.parent))), blocks)


def _worded(error: StatusError, address: Address) -> CkptError:
    host = error.answer.url.shown
    match error.status:
        case 404 | 410:
            return MissingError(f"{address.shown} does not exist: {host} answers {error.status}", path=address)
        case 401 | 403:
            hint = "give an address that is signed, or download it by other means"
            return UnreadableError(
                f"{address.shown} may not be read: {host} answers {error.status}", path=address, hint=hint
            )
        case 416:
            said = f"{host} answers 416: the file is empty, or the server does not send ranges"
            return UnreadableError(f"{address.shown} cannot be read: {said}", path=address, hint=DOWNLOAD)
    words = f" ({error.words})" if error.words else ""
    return UnreadableError(f"{address.shown} cannot be read: {host} answers {error.status}{words}", path=address)
