"""HTTP: one GET after the other over kept connections, each answer checked before a byte of it is used.

The standard library's `http.client` does the protocol. Redirects are followed here, so that a token never leaves the
server it is for, no redirect leads into a local network, and what the hub says on the way is kept.
"""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from random import random
from typing import TypeVar

from ckptool.core.errors import UnreadableError
from ckptool.storage.deadline import CONNECT, Deadline, TooSlowError
from ckptool.storage.hosts import LookupFailedError, Zone, endpoints
from ckptool.storage.http_connection import Connection, connected, proxy_of, words_of
from ckptool.storage.http_url import Url
from ckptool.storage.transfer import Transfer

T = TypeVar("T")

AT_ONCE = 8
"""Requests that run at the same time."""

_MAX_REDIRECTS = 5
_TRIES = 4
_BACKOFF = 0.3  # seconds
DOWNLOAD = "download the file by other means, then give its path"
_PATIENCE = 10  # seconds of a Retry-After that are waited
_RETRIED = {408, 429, 500, 502, 503, 504}
_REDIRECTS = {301, 302, 303, 307, 308}
_SMALL = 1 << 16  # bytes of a body that is read to keep a connection
_WORDS = 300  # characters of an error's body


class TroubleError(Exception):
    """A request came to nothing for a reason that may pass; its text says which."""


class StatusError(Exception):
    """The server answered something other than what was asked for.

    Attributes:
        status: the number.
        answer: what came with it.
        words: the beginning of the body.
    """

    def __init__(self, answer: Answer, words: str) -> None:
        super().__init__(f"{answer.url.shown} answers {answer.status}")
        self.answer = answer
        self.status = answer.status
        self.words = words

    @property
    def wait(self) -> float | None:
        """Seconds that the server asks to wait; None if it does not."""
        for name, pattern in (("Retry-After", r"\s*(\d{1,9})\s*"), ("RateLimit", r".*;r=0;.*?\bt=(\d{1,9}).*")):
            match = re.fullmatch(pattern, self.answer.header(name) or "")
            if match:
                return float(match[1])
        return None


@dataclass(slots=True)
class Answer:
    """A server's answer, the body not read yet.

    Attributes:
        url: the URL that answered, after redirects.
        status: 200, 206, ...
        headers: of the answer.
        hops: the headers of the redirects before it.
        body: for `read_exactly` and `read_all`.
        deadline: for the whole of it.
    """

    url: Url
    status: int
    headers: Message
    hops: tuple[Message, ...]
    body: http.client.HTTPResponse
    deadline: Deadline

    def header(self, name: str) -> str | None:
        """A header of the answer itself."""
        return self.headers.get(name)

    def first_header(self, name: str) -> str | None:
        """A header of the first redirect that has it, else of the answer: what the hub itself says."""
        return next((value for each in (*self.hops, self.headers) if (value := each.get(name)) is not None), None)

    def require_plain(self) -> None:
        """Refuse a body that is compressed, whose size nobody can foretell."""
        coding = (self.header("Content-Encoding") or "identity").strip().lower()
        if coding != "identity":
            raise UnreadableError(
                f"{self.url.shown} sends the file {coding}-encoded, although it was asked not to", hint=DOWNLOAD
            )

    def read(self, nbytes: int) -> bytes:
        """Up to so many bytes of the body; none at its end."""
        try:
            data = self.body.read(nbytes)
        except http.client.IncompleteRead as error:
            data = error.partial
        except (OSError, http.client.HTTPException, TooSlowError, ValueError) as error:
            raise TroubleError(words_of(error, self.url)) from error
        return data

    def read_all(self, limit: int, what: str) -> bytes:
        """The whole body.

        Raises:
            UnreadableError: it is longer than `limit` bytes.
        """
        self.require_plain()
        pieces: list[bytes] = []
        length, stated = 0, self.header("Content-Length")
        while data := self.read(min(_SMALL, limit + 1 - length)):
            pieces.append(data)
            length += len(data)
            if length > limit:
                raise UnreadableError(f"{self.url.shown} sends a {what} of more than {limit:,} bytes")
        if stated is not None and stated.isdigit() and length < int(stated) <= limit:
            raise TroubleError(f"{self.url.shown} closed the connection early")
        return b"".join(pieces)


class Client:
    """Asks servers, over at most eight connections at a time that are kept for the next request.

    Args:
        transfer: counts requests and bytes.
    """

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer
        self._free: dict[tuple[str, str, int], list[Connection]] = {}
        self._busy: set[Connection] = set()
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(AT_ONCE)
        self._is_closed = False

    @contextmanager
    def get(
        self,
        url: Url,
        headers: Mapping[str, str],
        deadline: Deadline,
        *,
        secrets: Mapping[str, str],
        zones: frozenset[Zone],
    ) -> Iterator[Answer]:
        """Ask once, and follow redirects.

        Args:
            url: what to get.
            headers: sent to every server on the way.
            deadline: for all of it.
            secrets: headers for the origin of `url` alone.
            zones: the networks that redirects may lead to; see `zones_of`.

        Raises:
            TroubleError: something that may pass.
            UnreadableError: a redirect that is not followed.
        """
        hops: list[Message] = []
        origin = url.origin
        deadline.pause()
        with self._slots:
            while True:
                own = secrets if url.origin == origin else {}
                connection, response = self._ask(url, {**headers, **own}, deadline, zones)
                reusable = False
                try:
                    if response.status not in _REDIRECTS:
                        yield Answer(url, response.status, response.headers, tuple(hops), response, deadline)
                        reusable = response.isclosed() and not response.will_close
                        return
                    hops.append(response.headers)
                    url = _redirected(url, response.headers.get("Location"), len(hops))
                    reusable = _is_drained(response)
                finally:
                    self._give_back(connection, reusable)

    def close(self) -> None:
        """Close every connection, also those that threads wait for."""
        with self._lock:
            self._is_closed = True
            busy, free = [*self._busy], [each for kept in self._free.values() for each in kept]
            self._free.clear()
        for connection in busy:
            connection.abort()
        for connection in free:
            connection.close()

    def _ask(
        self, url: Url, headers: Mapping[str, str], deadline: Deadline, zones: frozenset[Zone]
    ) -> tuple[Connection, http.client.HTTPResponse]:
        """One request and the head of its answer; a kept connection that the server closed is replaced once."""
        while True:
            connection, is_kept = self._connection(url, deadline, zones)
            self._transfer.count_request()
            try:
                return connection, connection.exchange(url, headers, deadline)
            except (http.client.RemoteDisconnected, ConnectionError) as error:
                self._give_back(connection, False)
                if not is_kept or self._is_closed:
                    raise TroubleError(words_of(error, url)) from error
            except (OSError, http.client.HTTPException, TooSlowError, ValueError) as error:
                self._give_back(connection, False)
                raise TroubleError(words_of(error, url)) from error
            except BaseException:
                self._give_back(connection, False)
                raise

    def _connection(self, url: Url, deadline: Deadline, zones: frozenset[Zone]) -> tuple[Connection, bool]:
        with self._lock:
            if self._is_closed:
                raise TroubleError("the command has ended")
            free = self._free.get(url.origin)
            kept = free.pop() if free else None
            if kept is not None:
                self._busy.add(kept)
                return kept, True
        try:
            made = connected(url, min(CONNECT, deadline.left()), zones)
        except LookupFailedError as error:
            raise TroubleError(f"{url.host} is not found: {error}") from None
        except (OSError, TooSlowError, http.client.HTTPException) as error:
            raise TroubleError(words_of(error, url)) from error
        with self._lock:
            self._busy.add(made)
        return made, False

    def _give_back(self, connection: Connection, reusable: bool) -> None:
        with self._lock:
            self._busy.discard(connection)
            if reusable and not self._is_closed:
                self._free.setdefault(connection.origin, []).append(connection)
                return
        connection.close()


def patiently(attempt: Callable[[], T], deadline: Deadline, name: str, done: Callable[[], int] = int) -> T:
    """Try up to four times what may fail for a reason that passes; four times more where something came of a try.

    Args:
        attempt: raises TroubleError or StatusError.
        deadline: for all tries together.
        name: what is read, for the error.
        done: how many bytes are there so far.

    Raises:
        UnreadableError: it did not come.
        StatusError: one that trying again does not change.
    """
    why, last = "", Exception()
    number, before = 0, done()
    while True:
        wait = _BACKOFF * 2**number * (0.5 + random())
        try:
            return attempt()
        except TroubleError as error:
            why, last = str(error), error
        except StatusError as error:
            if error.status not in _RETRIED:
                raise
            asked, last = error.wait, error
            why = f"{error.answer.url.shown} answers {error.status}"
            if asked is not None and (asked > _PATIENCE or not deadline.allows(asked)):
                raise UnreadableError(
                    f"{name} cannot be read now: {why} and asks to wait {asked:,.0f} seconds",
                    hint=_hint(error.status, asked),
                ) from None
            wait = wait if asked is None else asked
        number, before = (number + 1 if done() == before else 1), done()
        if number == _TRIES or not deadline.allows(wait):
            break
        time.sleep(wait)
    raise UnreadableError(f"{name} cannot be read: {why}", hint="check the network, or try again later") from last


def _hint(status: int, seconds: float) -> str:
    wait = f"run it again in {seconds / 60:.0f} minutes" if seconds > 90 else f"run it again in {seconds:.0f} seconds"
    return f"{wait}; a token in HF_TOKEN has a larger quota at the hub" if status == 429 else wait


def status_error(answer: Answer) -> StatusError:
    """The error for an answer that is not what was asked for, with the first words of its body."""
    words = ""
    kind = (answer.header("Content-Type") or "").partition(";")[0].strip().lower()
    if kind in ("text/plain", "application/json", "application/xml", "text/xml"):
        with suppress(TroubleError):
            text = answer.read(4 * _WORDS).decode("utf-8", "replace")
            words = " ".join(re.sub(r"\?\S+", "?...", re.sub(r"<[^>]*>", " ", text)).split())[:_WORDS]
    return StatusError(answer, words)


def zones_of(url: Url) -> frozenset[Zone]:
    """The networks that a request may reach, by where the address that the user gave leads.

    Raises:
        UnreadableError: it leads where nothing may be asked.
        TroubleError: the name is not found.
    """
    if proxy_of(url) is not None:
        return frozenset({"public"})
    try:
        found = endpoints(url.host, url.port, frozenset({"public", "private", "loopback"}))
    except LookupFailedError as error:
        raise TroubleError(f"{url.host} is not found: {error}") from None
    return frozenset({"public", *(each.zone for each in found)})


def _redirected(url: Url, location: str | None, hops: int) -> Url:
    if hops > _MAX_REDIRECTS:
        raise UnreadableError(f"{url.shown} redirects more than {_MAX_REDIRECTS} times")
    try:
        if not location:
            raise ValueError
        return url.join(location.strip())
    except ValueError:
        where = re.sub(r"[?#].*", "", location or "nowhere", flags=re.DOTALL)
        shown = re.sub(r"//[^/]*@", "//", where)[:200]
        raise UnreadableError(f"{url.shown} redirects to {shown}, which is not followed") from None


def _is_drained(response: http.client.HTTPResponse) -> bool:
    """Read the rest of a small body, so that the connection can be used again."""
    length = response.headers.get("Content-Length", "")
    if not length.isdigit() or int(length) > _SMALL or response.will_close:
        return False
    try:
        response.read()
    except (OSError, http.client.HTTPException, TooSlowError, ValueError):
        return False
    return True
