"""The few calls of Google's and Azure's object stores that obstore makes, in the words of their documentation.

Google by its XML interface (lists, objects, multipart uploads as in S3), Azure by blobs and blocks. Signatures are not
looked at: what is tested is our use of the library, and the library's of a store that answers as these do.
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_DATE = "Mon, 30 Nov 2026 12:00:00 GMT"


@dataclass
class Objects:
    """What a store holds: objects by key, and parts of uploads that are not complete."""

    held: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, dict[str, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


class _Store(BaseHTTPRequestHandler):
    """What both stores have in common; a key is the path after the bucket."""

    protocol_version = "HTTP/1.1"
    objects: Objects

    def answer(self) -> None:
        length = self.headers.get("Content-Length")
        body = self.rfile.read(int(length)) if length else b""
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        key = "/".join(unquote(parts.path).strip("/").split("/")[self.skipped :])
        self.objects.asked.append(f"{self.command} {self.path} {self.headers.get('Range', '')}")
        self.call(key, query, body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815
    skipped = 1

    def call(self, key: str, query: dict[str, str], body: bytes) -> None:
        raise NotImplementedError

    def log_message(self, *_: object) -> None:
        pass

    def say(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        named = {"Content-Length": str(len(body)), "Last-Modified": _DATE}
        for name, value in (named | {name.replace("_", "-"): value for name, value in headers.items()}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def read(self, key: str) -> None:
        data = self.objects.held.get(key)
        if data is None:
            return self.say(404)
        wanted = self.headers.get("If-Match")
        if wanted is not None and wanted != _etag(data):
            return self.say(412)
        about = {"ETag": _etag(data), "x_ms_blob_type": "BlockBlob"}
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if self.command == "HEAD":
            return self.say(200, Content_Length=str(len(data)), **about)
        if found is None:
            return self.say(200, data, **about)
        first, last = int(found[1]), min(int(found[2]), len(data) - 1)
        return self.say(206, data[first : last + 1], Content_Range=f"bytes {first}-{last}/{len(data)}", **about)

    def write(self, key: str, data: bytes, status: int) -> None:
        if self.headers.get("If-None-Match") == "*" and key in self.objects.held:
            return self.say(412)
        self.objects.held[key] = data
        return self.say(status, ETag=_etag(data))

    def below(self, prefix: str) -> tuple[list[str], list[str]]:
        """Keys and folders under a prefix."""
        names = [key for key in sorted(self.objects.held) if key.startswith(prefix)]
        rest = {name: name[len(prefix) :] for name in names}
        folders = sorted({prefix + left.partition("/")[0] + "/" for left in rest.values() if "/" in left})
        return [name for name, left in rest.items() if "/" not in left], folders


class Google(_Store):
    """``/BUCKET/KEY``"""

    def call(self, key: str, query: dict[str, str], body: bytes) -> None:
        objects = self.objects
        if self.command == "GET" and "list-type" in query:
            keys, folders = self.below(query.get("prefix", ""))
            rows = "".join(
                f"<Contents><Key>{escape(name)}</Key><LastModified>2026-11-30T12:00:00.000Z</LastModified>"
                f"<ETag>{_etag(objects.held[name])}</ETag><Size>{len(objects.held[name])}</Size></Contents>"
                for name in keys
            )
            rows += "".join(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders)
            return self.say(200, f"<ListBucketResult>{rows}</ListBucketResult>".encode())
        if self.command in ("GET", "HEAD"):
            return self.read(key)
        if self.command == "POST" and "uploads" in query:
            objects.parts[key] = {}
            text = f"<InitiateMultipartUploadResult><UploadId>{escape(key)}</UploadId></InitiateMultipartUploadResult>"
            return self.say(200, text.encode())
        if self.command == "PUT" and "partNumber" in query:
            objects.parts[key][query["partNumber"].zfill(5)] = body
            return self.say(200, ETag=_etag(body))
        if self.command == "POST" and "uploadId" in query:
            data = b"".join(part for _, part in sorted(objects.parts.pop(key).items()))
            objects.held[key] = data
            text = f"<CompleteMultipartUploadResult><ETag>{_etag(data)}</ETag></CompleteMultipartUploadResult>"
            return self.say(200, text.encode())
        if self.command == "DELETE":
            (objects.parts if "uploadId" in query else objects.held).pop(key, None)
            return self.say(204)
        status = 412 if self.headers.get("x-goog-if-generation-match") == "0" and key in objects.held else 200
        return self.write(key, body, 200) if status == 200 else self.say(status)


class Azure(_Store):
    """``/ACCOUNT/CONTAINER/KEY``"""

    skipped = 2

    def call(self, key: str, query: dict[str, str], body: bytes) -> None:
        objects, what = self.objects, query.get("comp")
        if what == "list":
            keys, folders = self.below(query.get("prefix", ""))
            rows = "".join(
                f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>{_DATE}</Last-Modified>"
                f"<Content-Length>{len(objects.held[name])}</Content-Length><Content-Type>x</Content-Type>"
                f"<Etag>{_etag(objects.held[name])}</Etag></Properties></Blob>"
                for name in keys
            )
            rows += "".join(f"<BlobPrefix><Name>{escape(name)}</Name></BlobPrefix>" for name in folders)
            return self.say(200, f"<EnumerationResults><Blobs>{rows}</Blobs></EnumerationResults>".encode())
        if self.command in ("GET", "HEAD"):
            return self.read(key)
        if what == "block":
            objects.parts.setdefault(key, {})[query["blockid"]] = body
            return self.say(201)
        if what == "blocklist":
            names = re.findall(r"<(?:Uncommitted|Latest)>([^<]*)<", body.decode())
            parts = objects.parts.pop(key)
            assert all(base64.b64decode(name) for name in names)
            return self.write(key, b"".join(parts[name] for name in names), 201)
        if what == "batch":
            return self.batch(body)
        if self.command == "DELETE":
            return self.say(202 if objects.held.pop(key, None) is not None else 404)
        return self.write(key, body, 201)

    def batch(self, body: bytes) -> None:
        """Several blobs removed by one request."""
        lines = []
        for number, name in enumerate(re.findall(rb"DELETE /[^/ ]+/[^/ ]+/(\S+) HTTP", body)):
            status = (
                "202 Accepted" if self.objects.held.pop(unquote(name.decode()), None) is not None else "404 Not Found"
            )
            lines += ["--batch", "Content-Type: application/http", f"Content-ID: {number}", "", f"HTTP/1.1 {status}"]
            lines += ["x-ms-version: 2023-11-03", "", ""]
        text = "\r\n".join([*lines, "--batch--", ""])
        self.say(202, text.encode(), Content_Type="multipart/mixed; boundary=batch")


@contextmanager
def store(kind: type[_Store]) -> Iterator[tuple[str, Objects]]:
    """A store on a free port of the loopback: its address, and what it holds."""
    objects = Objects()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (kind,), {"objects": objects}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", objects
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
