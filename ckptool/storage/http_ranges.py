"""One file of a web server, range by range, every answer held against the first one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from ckptool.core.errors import ChangedError, CkptError, UnreadableError
from ckptool.storage.deadline import Deadline
from ckptool.storage.hosts import Zone
from ckptool.storage.http import DOWNLOAD, Answer, StatusError, TroubleError, patiently, status_error, zones_of
from ckptool.storage.http_url import Url
from ckptool.storage.network import Network

_CONTENT_RANGE = re.compile(r"\s*bytes\s+(\d{1,19})-(\d{1,19})/(\d{1,19})\s*", re.IGNORECASE)
_STEP = 1 << 20  # bytes that are taken at once
_MARKS = ("X-Repo-Commit", "X-Linked-ETag")


@dataclass(frozen=True, slots=True)
class Site:
    """Where a file is asked for, and how its server is spoken to.

    Attributes:
        name: the file, for messages.
        secrets: headers for the origin of the URL alone.
        wording: the error for a status.
        required: a header without which an answer is none of this kind of server, and what is said then.
    """

    name: str
    secrets: Mapping[str, str]
    wording: Callable[[StatusError], CkptError]
    required: tuple[str, str] | None = None


class HttpRanges:
    """Fetches ranges of one file.

    Args:
        network: asks.
        url: where the file is; it may be narrowed to a commit afterwards.
        site: how to ask.
        size: bytes of the file, where they are known already.
    """

    def __init__(self, network: Network, url: Url, site: Site, size: int | None = None) -> None:
        self.url = url
        self.size = size
        self.commit: str | None = None
        self._network = network
        self._site = site
        self._marks: tuple[str | None, ...] | None = None
        self._zones: frozenset[Zone] | None = None
        self._has_ranges = True

    @property
    def marks(self) -> tuple[str | None, ...]:
        """What tells this version of the file from others: its commit, its ETags or date."""
        return self._marks or ()

    def first(self, nbytes: int) -> bytes:
        """The first bytes, fewer only if the file ends; the size is known then.

        Raises:
            CkptError: there is no such file, or the server's answer cannot be used.
        """

        def attempt() -> bytes:
            with self._asked(0, nbytes, deadline) as answer:
                if answer.status == 416 and re.fullmatch(r"\s*bytes\s+\*/0\s*", answer.header("Content-Range") or ""):
                    self._hold(answer, 0)
                    return b""
                if answer.status == 206:
                    _, stop, size = self._content_range(answer, 0)
                    if stop != min(nbytes, size):
                        raise self._wrong(answer, f"sends bytes 0 to {stop:,} where 0 to {nbytes:,} were asked for")
                    self._hold(answer, size)
                    return bytes(self._body(answer, bytearray(), stop))
                if answer.status == 200:
                    return self._whole(answer, nbytes)
                raise status_error(answer)

        deadline = Deadline()
        return bytes(self._said(lambda: patiently(attempt, deadline, self._site.name)))

    def fetch(self, start: int, stop: int, values: bool) -> bytes | bytearray:
        """The bytes from `start` to `stop`, exactly.

        Raises:
            ChangedError: the file is not the one any more that the first answer was of.
            UnreadableError: they cannot be had.
        """
        buffer = bytearray()
        refused = 0

        def attempt() -> bytearray:
            nonlocal refused
            at = start + len(buffer)
            with self._asked(at, stop, deadline) as answer:
                if answer.status == 206:
                    first, last, size = self._content_range(answer, at)
                    if first != at or last != stop:
                        asked = f"{at:,} to {stop:,}"
                        raise self._wrong(answer, f"sends bytes {first:,} to {last:,} where {asked} were asked for")
                    self._hold(answer, size)
                    return self._body(answer, buffer, stop - start)
                if answer.status == 200 and (at, stop) == (0, self.size):
                    self._hold(answer, _length(answer))
                    return self._body(answer, buffer, stop)
                if answer.status == 200:
                    raise self._no_ranges(answer)
                if answer.status in (412, 416):
                    raise self._changed()
                error = status_error(answer)
                if answer.status == 403 and answer.hops and not refused:  # a signature that has expired
                    refused += 1
                    raise TroubleError(f"{answer.url.shown} answers 403: {error.words}")
                raise error

        deadline = Deadline(stop - start if values else 0)
        if not self._has_ranges:
            raise UnreadableError(f"{self.url.shown} does not send ranges of {self._site.name}", hint=DOWNLOAD)
        return self._said(lambda: patiently(attempt, deadline, self._site.name, lambda: len(buffer)))

    # ------------------------------------------------------------------ asking

    def _asked(self, start: int, stop: int, deadline: Deadline) -> AbstractContextManager[Answer]:
        if self._zones is None:
            self._zones = zones_of(self.url)
        headers = {"Range": f"bytes={start}-{stop - 1}", "Accept": "*/*"}
        client = self._network.client
        return client.get(self.url, headers, deadline, secrets=self._site.secrets, zones=self._zones)

    def _said(self, call: Callable[[], bytes | bytearray]) -> bytes | bytearray:
        try:
            return call()
        except StatusError as error:
            raise self._site.wording(error) from None

    def _body(self, answer: Answer, buffer: bytearray, nbytes: int) -> bytearray:
        """Add the body to a buffer until it holds `nbytes`; not a byte more may come."""
        missing = nbytes - len(buffer)
        stated = answer.header("Content-Length")
        if stated is not None and stated.strip() != str(missing):
            raise self._wrong(answer, f"announces {stated[:20]} bytes where {missing:,} were asked for")
        while len(buffer) < nbytes:
            data = answer.read(min(_STEP, nbytes - len(buffer)))
            if not data:
                raise TroubleError(f"{answer.url.shown} closed the connection early")
            buffer += data
            self._network.transfer.count_bytes(len(data))
        if answer.read(1):
            raise self._wrong(answer, "sends more bytes than were asked for")
        return buffer

    def _whole(self, answer: Answer, nbytes: int) -> bytes:
        """The beginning of a file whose server ignores ranges; the connection is closed before the rest comes."""
        answer.require_plain()
        if answer.header("Content-Range") is not None:
            raise self._wrong(answer, "sends a range as if it were the whole file")
        size = _length(answer)
        if size is not None and size <= nbytes:
            self._hold(answer, size)
            return bytes(self._body(answer, bytearray(), size))
        data = bytearray()
        while len(data) < nbytes and (piece := answer.read(min(_STEP, nbytes - len(data)))):
            data += piece
            self._network.transfer.count_bytes(len(piece))
        if size is None:
            if len(data) == nbytes and answer.read(1):
                raise self._wrong(answer, "does not say how long the file is")
            size = len(data)
        elif len(data) < nbytes:
            raise TroubleError(f"{answer.url.shown} closed the connection early")
        else:
            self._has_ranges = False
        self._hold(answer, size)
        return bytes(data)

    # ------------------------------------------------------------------ holding an answer against the first one

    def _content_range(self, answer: Answer, at: int) -> tuple[int, int, int]:
        """First byte, end and size that an answer of a range states."""
        answer.require_plain()
        if (answer.header("Content-Type") or "").lower().startswith("multipart/byteranges"):
            raise self._wrong(answer, "sends several ranges where one was asked for")
        match = _CONTENT_RANGE.fullmatch(answer.header("Content-Range") or "")
        if match is None:
            raise self._wrong(answer, "does not say which range of which file it sends")
        first, last, size = (int(part) for part in match.groups())
        if not first <= last < size:
            raise self._wrong(answer, f"sends bytes {first:,} to {last:,} of a file of {size:,}")
        if first != at:
            raise self._wrong(answer, f"sends a range from byte {first:,} on where {at:,} was asked for")
        return first, last + 1, size

    def _hold(self, answer: Answer, size: int | None) -> None:
        """Take an answer as the first one, or compare it with that."""
        if self._site.required is not None and answer.first_header(self._site.required[0]) is None:
            raise UnreadableError(
                f"{self.url.shown} {self._site.required[1]}", hint="check HF_ENDPOINT and the network"
            )
        linked = answer.first_header("X-Linked-Size")
        if linked is not None and linked.isdigit() and size != int(linked):
            raise self._wrong(answer, f"sends a file of {size or 0:,} bytes where the hub promises {int(linked):,}")
        marks = tuple(answer.first_header(name) for name in _MARKS) + _version(answer)
        if self.size is None:
            self.size = size
        if self._marks is None:
            self._marks, self.commit = marks, marks[0]
        if size != self.size or marks != self._marks:
            raise self._changed()

    def _changed(self) -> ChangedError:
        return ChangedError(
            f"{self._site.name} changed while it was read", hint="run the command again when nothing writes to it"
        )

    def _no_ranges(self, answer: Answer) -> UnreadableError:
        self._has_ranges = False
        return UnreadableError(f"{answer.url.shown} does not send ranges of {self._site.name}", hint=DOWNLOAD)

    def _wrong(self, answer: Answer, what: str) -> UnreadableError:
        return UnreadableError(f"{answer.url.shown} {what}: {self._site.name} cannot be read from it", hint=DOWNLOAD)


def _version(answer: Answer) -> tuple[str | None, ...]:
    """The strong ETag of an answer; without one, its date."""
    etag = answer.header("ETag")
    if etag and not etag.startswith(("W/", "w/")):
        return etag, None
    return None, answer.header("Last-Modified")


def _length(answer: Answer) -> int | None:
    length = answer.header("Content-Length")
    return int(length) if length is not None and length.isdigit() and len(length) < 20 else None
