"""More servers that misbehave, most of them after a good header: one clear error each, and no output."""

from __future__ import annotations

import gzip
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from safetensors.numpy import save
from test_remote_http import lies, own_session, raw, refused_in_time, status, to

import ckptool
from ckptool.core.errors import CkptError
from tests.servers.base import Asked, Handler, serving

assert own_session  # a fixture

TENSORS = {f"layers.{n}.weight": np.full((100_000,), n, np.float32) for n in range(4)}
DATA = save(TENSORS)
SIZE = len(DATA)
Answer = Callable[[Handler, Asked], None]


def good(handler: Handler, asked: Asked) -> None:
    handler.say_range(DATA, asked, ETag='"one"')


def later(bad: Answer) -> Answer:
    """Good for the header, bad for the values."""
    return lambda handler, asked: (good if asked.range and asked.range[0] == 0 else bad)(handler, asked)


def send(handler: Handler, asked: Asked, *lines: str, body: bytes = b"", start: str = "HTTP/1.1 206 Partial") -> None:
    """An answer of any form, and the end of the connection."""
    first, stop = asked.range or (0, SIZE)
    stop = min(stop, SIZE)
    head = [start, *(line.format(first=first, last=stop - 1, size=SIZE, length=stop - first) for line in lines), "", ""]
    handler.wfile.write("\r\n".join(head).encode("latin-1") + (body or DATA[first:stop]))
    handler.close_connection = True


RANGE = "Content-Range: bytes {first}-{last}/{size}"
ETAG = 'ETag: "one"'


def sends(*lines: str, start: str = "HTTP/1.1 206 Partial", body: bytes = b"") -> Answer:
    return lambda handler, asked: send(handler, asked, *lines, start=start, body=body)


def zipped(handler: Handler, asked: Asked) -> None:
    first, stop = asked.range or (0, SIZE)
    body = gzip.compress(DATA[first:stop])
    where = f"bytes {first}-{min(stop, SIZE) - 1}/{SIZE}"
    handler.say(206, body, Content_Range=where, Content_Encoding="gzip", ETag='"one"')


def chunks_without_end(handler: Handler, asked: Asked) -> None:
    send(handler, asked, RANGE, ETAG, "Transfer-Encoding: chunked", body=b"1\r\nx\r\n")
    while True:
        handler.wfile.write(b"1\r\nx\r\n")
        time.sleep(0.02)


def whole_file(handler: Handler, asked: Asked) -> None:
    """Ten gigabytes where some were asked for: whoever reads on never ends."""
    handler.wfile.write(f'HTTP/1.1 200 OK\r\nETag: "one"\r\nContent-Length: {10 << 30}\r\n\r\n'.encode())
    for _ in range(10 << 10):
        handler.wfile.write(bytes(1 << 20))


def a_byte_at_a_time(handler: Handler, asked: Asked) -> None:
    first, _ = asked.range or (0, SIZE)
    send(handler, asked, RANGE, ETAG, "Content-Length: {length}", body=DATA[first : first + 1])


def early_without_end(handler: Handler, asked: Asked) -> None:
    while True:
        handler.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n")
        time.sleep(0.01)


def other_zone(handler: Handler, asked: Asked) -> None:
    handler.say(302, b"", Location="http://2852039166/latest/meta-data")  # 169.254.169.254


ROGUES: dict[str, tuple[Answer, str]] = {
    "another range, later": (later(lies(Content_Range=f"bytes 0-99/{SIZE}")), "sends a range from byte 0 on where"),
    "a longer range, later": (later(lies(Content_Range=f"bytes 131072-9999999/{SIZE}")), "of a file of|sends bytes"),
    "gzip, later": (later(zipped), "gzip-encoded"),
    "chunks without an end": (later(chunks_without_end), "more bytes than were asked for|in time"),
    "chunks of a negative size": (
        later(sends(RANGE, ETAG, "Transfer-Encoding: chunked", body=b"-5\r\nabc\r\n0\r\n\r\n")), "cannot be read"),
    "chunks of no size": (
        later(sends(RANGE, ETAG, "Transfer-Encoding: chunked", body=b"zz\r\nabc\r\n0\r\n\r\n")), "cannot be read"),
    "a chunk of exabytes": (
        later(sends(RANGE, ETAG, "Transfer-Encoding: chunked", body=b"ffffffffffffffffffff\r\nabc")), "cannot be read"),
    "the whole file, later": (later(whole_file), "does not send ranges"),
    "the whole file, always": (whole_file, "does not send ranges"),
    "a byte at a time": (later(a_byte_at_a_time), "closed the connection early|in time"),
    "HTTP/1.0 with more than was asked": (
        later(sends(RANGE, ETAG, start="HTTP/1.0 206 OK", body=DATA * 2)), "more bytes than were asked for"),
    "HTTP/1.0 with less": (
        later(sends(RANGE, ETAG, start="HTTP/1.0 206 OK", body=b"few")), "closed the connection early|in time"),
    "two lengths": (
        later(sends(RANGE, ETAG, "Content-Length: 3", "Content-Length: {length}")), "announces 3 bytes"),
    "a length that is no number": (later(sends(RANGE, ETAG, "Content-Length: many")), "announces many bytes"),
    "a length with a sign": (later(sends(RANGE, ETAG, "Content-Length: -1")), "announces -1 bytes"),
    "two ranges": (later(sends("Content-Range: bytes 0-9/{size}", RANGE, ETAG)), "sends a range from byte 0"),
    "a status of four digits": (later(sends(RANGE, start="HTTP/1.1 2066 What")), "not HTTP"),
    "a status that is none": (later(sends(RANGE, start="HTTP/1.1 two Partial")), "not HTTP"),
    "204": (later(sends(start="HTTP/1.1 204 No Content")), "answers 204"),
    "304": (later(sends(start="HTTP/1.1 304 Not Modified")), "answers 304"),
    "101": (later(sends("Upgrade: h2c", start="HTTP/1.1 101 Switching Protocols")), "answers 101|not HTTP"),
    "a size of exabytes": (lies(Content_Range=f"bytes 0-131071/{2**63 - 1}"), "goes on for|asked for"),
    "a size of too many digits": (lies(Content_Range=f"bytes 0-131071/{10**30}"), "does not say which range"),
    "401 in the middle": (later(status(401)), "may not be read"),
    "404 in the middle": (later(status(404)), "does not exist"),
    "502 in the middle": (later(status(502)), "answers 502"),
    "a redirect to data": (later(to("data:text/plain,abc")), "is not followed"),
    "a redirect without a host": (later(to("http:///x")), "redirects more than 5 times"),
    "a redirect to a port that is none": (later(to("http://127.0.0.1:99999/x")), "is not followed"),
    "a redirect to the metadata in one number": (later(other_zone), "no file is on|not found|not an address"),
    "a redirect to a file, later": (later(to("file:///etc/passwd")), "which is not followed"),
    "a redirect to itself": (later(to("/m.safetensors")), "redirects more than 5 times"),
    "a range as a whole file": (
        sends(RANGE, "Content-Length: {length}", start="HTTP/1.1 200 OK"), "a range as if it were the whole file"),
    "interim answers alone": (later(raw(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3)), "closed the connection early"),
    "interim answers without an end": (later(early_without_end), "in time"),
    "multiple choices": (later(status(300, Location="/other")), "answers 300"),
    "a pointer in place of the file": (
        lambda h, a: h.say_range(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", a),
        "is a Git LFS pointer"),
    "gzip of the whole file": (
        lambda h, a: h.say(200, gzip.compress(DATA), Content_Encoding="gzip"), "gzip-encoded"),
    "a page of text": (later(raw(b"<html>log in</html>")), "not HTTP"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ROGUES)
def test_one_clear_error_in_time(kind: str, tmp_path: Path) -> None:
    refused_in_time(*ROGUES[kind], 1 + 2 * 6, tmp_path)  # a header; two threads that follow five redirects each


@pytest.mark.parametrize("start", ["HTTP/1.0 206 OK", "HTTP/1.1 206 Partial"])
def test_an_old_server_without_lengths_is_read(tmp_path: Path, start: str) -> None:
    """The end of the connection is the end of the body."""
    with serving(sends(RANGE, ETAG, start=start)) as (url, _):
        ckptool.plan_filter(f"{url}/m.safetensors").apply(tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == DATA


# --- signatures and tokens that expire --------------------------------------------------------------------------------


class Signing:
    """A server that redirects to signed addresses, each good for so many requests.

    Attributes:
        good_for: requests that a signature serves.
        token_until: requests after which the token is refused; None for never.
    """

    def __init__(self, good_for: int, token_until: int | None = None) -> None:
        self.good_for, self.token_until = good_for, token_until
        self.left: dict[str, int] = {}
        self.signed = 0

    def __call__(self, handler: Handler, asked: Asked) -> None:
        found = parse_qs(urlsplit(asked.path).query).get("sig", [""])[0]
        if not found:
            self.signed += 1
            if self.token_until is not None and self.signed > self.token_until:
                return handler.say(401, b"expired", X_Error_Message="Invalid credentials in Authorization header")
            name = secrets.token_hex(4)
            self.left[name] = self.good_for
            return handler.say(302, b"", Location=f"/blob?sig={name}")
        self.left[found] -= 1
        if self.left[found] < 0:
            return handler.say(403, b"<Error>Request has expired</Error>", Content_Type="application/xml")
        return good(handler, asked)


@pytest.fixture
def several_ranges(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Values come in requests of 200 kB."""
    from ckptool.storage import ranges

    cut = ranges.segments
    monkeypatch.setattr("ckptool.storage.blocks.segments", lambda parts: cut(parts, longest=200_000))
    return


def test_every_range_is_signed_anew(several_ranges: None, tmp_path: Path) -> None:
    signing = Signing(1)
    with serving(signing) as (url, _):
        ckptool.plan_filter(f"{url}/m.safetensors").apply(tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == DATA
    assert signing.signed >= 8


def test_a_signature_that_expired_is_made_anew(several_ranges: None, tmp_path: Path) -> None:
    """For each range the first one is stale when it is used."""
    signing, stale = Signing(1), set[object]()

    def answer(handler: Handler, asked: Asked) -> None:
        if "sig=" in asked.path and asked.range and asked.range[0] and asked.range not in stale:
            stale.add(asked.range)
            return handler.say(403, b"<Error>Request has expired</Error>", Content_Type="application/xml")
        return signing(handler, asked)

    with serving(answer) as (url, _):
        ckptool.plan_filter(f"{url}/m.safetensors").apply(tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == DATA


def test_signatures_that_are_always_stale_are_said(several_ranges: None, tmp_path: Path) -> None:
    signing = Signing(1)

    def answer(handler: Handler, asked: Asked) -> None:
        if "sig=" in asked.path and asked.range and asked.range[0]:
            return handler.say(403, b"<Error>Request has expired</Error>", Content_Type="application/xml")
        return signing(handler, asked)

    with serving(answer) as (url, log):
        with pytest.raises(CkptError, match="may not be read"):
            ckptool.plan_filter(f"{url}/m.safetensors").apply(tmp_path / "out.safetensors")
        assert len(log.asked) < 60
    assert not list(tmp_path.iterdir())


def test_a_token_that_expires_in_the_middle(
    several_ranges: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.servers.hub import Hub, serving_hub

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub = Hub({"org/model": {"model.safetensors": DATA}})
    count, resolve = [0], Hub._resolve

    def expiring(self: Hub, handler: Handler, asked: Asked, *rest: str) -> None:
        count[0] += 1
        if count[0] > 4:
            said = "Invalid credentials in Authorization header"
            return handler.say(401, b"{}", X_Error_Message=said)
        return resolve(self, handler, asked, *rest)

    monkeypatch.setattr(Hub, "_resolve", expiring)
    with serving_hub(hub) as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        with pytest.raises(CkptError, match="the hub does not know the token") as refused:
            ckptool.plan_filter("hf://org/model/model.safetensors").apply(tmp_path / "out.safetensors")
    assert "hf_secret" not in f"{refused.value.message} {refused.value.hint}"
    assert "HF_TOKEN" in (refused.value.hint or "")
    assert [path.name for path in tmp_path.iterdir()] in ([], ["hf"])
