"""A threaded server whose answers are functions, and a log of what it was asked."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass(frozen=True)
class Asked:
    """One request."""

    path: str
    headers: dict[str, str]
    server: str = ""

    @property
    def range(self) -> tuple[int, int] | None:
        """First byte and end; None without a range."""
        text = self.headers.get("range", "")
        if not text.startswith("bytes="):
            return None
        first, _, last = text.removeprefix("bytes=").partition("-")
        return int(first), int(last) + 1


@dataclass
class Log:
    """What servers were asked, in order."""

    asked: list[Asked] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, asked: Asked) -> None:
        with self.lock:
            self.asked.append(asked)

    def ranges(self, of: str = "") -> list[tuple[int, int]]:
        return [each.range for each in self.asked if each.range is not None and of in each.path]


class Handler(BaseHTTPRequestHandler):
    """Logs a request and has the server's function answer it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.path, headers, self.server.name)  # type: ignore[attr-defined]
        self.server.log.add(asked)  # type: ignore[attr-defined]
        try:
            self.server.answer(self, asked)  # type: ignore[attr-defined]
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass

    def say(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send a whole answer; underscores in names stand for hyphens."""
        self.send_response(status)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in ({"Content-Length": str(len(body))} | named).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def say_range(self, data: bytes, asked: Asked, **headers: str) -> None:
        """Send the range that was asked for, as a good server does."""
        if asked.range is None:
            self.say(200, data, **headers)
            return
        first, stop = asked.range
        stop = min(stop, len(data))
        if first >= len(data):
            self.say(416, b"", Content_Range=f"bytes */{len(data)}")
            return
        headers["Content_Range"] = f"bytes {first}-{stop - 1}/{len(data)}"
        self.say(206, data[first:stop], **headers)


Answer = Callable[[Handler, Asked], None]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: object, address: object) -> None:
        pass  # a client that gives up is no error here


@contextmanager
def serving(
    answer: Answer, log: Log | None = None, name: str = "", certificate: Path | None = None
) -> Iterator[tuple[str, Log]]:
    """A server on a free port of the loopback; its address and its log. With a certificate (and key) it speaks TLS."""
    server = _Server(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        # a client that never shakes hands waits in its own thread, not in that of all
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.answer, server.log, server.name = answer, log or Log(), name  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        scheme = "http" if certificate is None else "https"
        yield f"{scheme}://127.0.0.1:{server.server_address[1]}", server.log  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
