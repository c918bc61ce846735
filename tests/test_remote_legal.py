"""Servers that do what HTTP allows and few others do: their files are read as any other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from console import Run, runner
from safetensors.numpy import save
from test_remote_http import own_session
from test_remote_rogues import ETAG, RANGE, Answer, sends

from tests.servers.base import Asked, Handler, serving
from tests.servers.hub import Hub, serving_hub

assert own_session  # a fixture

DATA = save({f"layers.{n}.weight": np.full((50_000,), n, np.float32) for n in range(4)})
SIZE = len(DATA)
LENGTH = "Content-Length: {length}"


def part(*lines: str, start: str = "HTTP/1.1 206 Partial Content", before: bytes = b"", end: str = "\r\n") -> Answer:
    """A range with these headers, and nothing of a connection that stays."""

    def answer(handler: Handler, asked: Asked) -> None:
        first, stop = asked.range or (0, SIZE)
        stop = min(stop, SIZE)
        head = [start, *(line.format(first=first, last=stop - 1, size=SIZE, length=stop - first) for line in lines)]
        handler.wfile.write(before + end.join([*head, "", ""]).encode("latin-1") + DATA[first:stop])

    return answer


def chunked(handler: Handler, asked: Asked) -> None:
    """Chunks with extensions, and a trailer."""
    first, stop = asked.range or (0, SIZE)
    body = DATA[first : min(stop, SIZE)]
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes {first}-{first + len(body) - 1}/{SIZE}")
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for at in range(0, len(body), 100_000):
        piece = body[at : at + 100_000]
        handler.wfile.write(b"%x;note=1\r\n%s\r\n" % (len(piece), piece))
    handler.wfile.write(b"0\r\nX-Trailer: 1\r\n\r\n")


def closing(handler: Handler, asked: Asked) -> None:
    """It does not say that it closes the connection."""
    part(RANGE, ETAG, LENGTH)(handler, asked)
    handler.close_connection = True


def without_head(handler: Handler, asked: Asked) -> None:
    if handler.command == "HEAD":
        return handler.say(405, b"", Allow="GET")
    return part(RANGE, ETAG, LENGTH)(handler, asked)


def moved(status: int, where: str) -> Answer:
    """A redirect to the file, from the name that was asked for."""

    def answer(handler: Handler, asked: Asked) -> None:
        if asked.path.startswith("/blob"):
            return part(RANGE, ETAG, LENGTH)(handler, asked)
        location = where.replace("HOST", handler.headers["Host"]).encode().decode("latin-1")
        return handler.say(status, b"elsewhere", Location=location)

    return answer


def once_busy(status: int, wait: str) -> Answer:
    """Each range is refused the first time."""
    seen = set[object]()

    def answer(handler: Handler, asked: Asked) -> None:
        if asked.range in seen:
            return part(RANGE, ETAG, LENGTH)(handler, asked)
        seen.add(asked.range)
        return handler.say(status, b"slow down", Retry_After=wait)

    return answer


EARLY = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n"
LEGAL: dict[str, Callable[[Handler, Asked], None]] = {
    "chunks": chunked,
    "interim answers": part(RANGE, ETAG, LENGTH, before=EARLY),
    "a connection for each answer": part(RANGE, ETAG, LENGTH, "Connection: close"),
    "a connection that closes in silence": closing,
    "no HEAD": without_head,
    "names in small letters": part(RANGE.lower(), ETAG.lower(), LENGTH.lower()),
    "a unit in capitals": part(RANGE.replace("bytes", "Bytes"), LENGTH),
    "much space": part("Content-Range:   bytes   {first}-{last}/{size}  ", LENGTH),
    "an encoding that is none": part(RANGE, LENGTH, "Content-Encoding: identity"),
    "a weak ETag": part(RANGE, LENGTH, 'ETag: W/"x"'),
    "a date and no ETag": part(RANGE, LENGTH, "Last-Modified: Tue, 01 Dec 2026 01:00:00 GMT"),
    "nothing that tells versions apart": part(RANGE, LENGTH),
    "a length that comes twice": part(RANGE, LENGTH, LENGTH),
    "many cookies": part(RANGE, LENGTH, *(f"Set-Cookie: a{n}=b; Path=/" for n in range(50))),
    "a folded header": part(RANGE, LENGTH, "X-Long: a", "\tb"),
    "no reason": part(RANGE, LENGTH, start="HTTP/1.1 206"),
    "ends of lines without CR": part(RANGE, LENGTH, end="\n"),
    "307 to a path with a blank": moved(307, "/blob/a%20b?x=1#fragment"),
    "302 to a path in UTF-8": moved(302, "/blob/\u00e9 b?q=\u00e9 x"),
    "303": moved(303, "/blob"),
    "308 without a scheme": moved(308, "//HOST/blob"),
    "503 until a date that is over": once_busy(503, "Tue, 01 Dec 2020 00:00:00 GMT"),
    "429 for no time": once_busy(429, "0"),
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    (tmp_path / "near.safetensors").write_bytes(DATA)
    monkeypatch.setattr("ckptool.storage.http._BACKOFF", 0.01)
    return runner(tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize("kind", LEGAL)
def test_a_copy_is_the_file(kind: str, run: Run, tmp_path: Path) -> None:
    with serving(LEGAL[kind]) as (url, log):
        code, _, err = run("filter", f"{url}/m.safetensors", "-o", "out.safetensors")
        assert code == 0, err
        assert len(log.asked) <= 4
    assert (tmp_path / "out.safetensors").read_bytes() == DATA


COMMANDS = {
    "inspect": ["inspect", "{}", "--stats"],
    "diff": ["diff", "{}", "near.safetensors"],
    "check": ["check", "{}"],
    "merge": ["merge", "{}", "near.safetensors", "--method", "linear", "-o", "out.safetensors"],
    "transplant": ["transplant", "{}", "--into", "near.safetensors", "-o", "out.safetensors"],
    "remap": ["remap", "{}", "-r", "layers. -> layers.", "-o", "out.safetensors"],
}


@pytest.fixture(params=["https", "hub"])
def address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A file behind a redirect to another host, which sends chunks behind interim answers and knows no ETag."""

    def odd(handler: Handler, asked: Asked) -> None:
        handler.wfile.write(EARLY)
        chunked(handler, asked)

    if request.param == "https":
        with serving(odd) as (blobs, _), serving(lambda h, a: h.say(302, b"", Location=f"{blobs}/blob")) as (url, _):
            yield f"{url}/m.safetensors"
        return
    hub = Hub({"org/model": {"model.safetensors": DATA, "config.json": b"{}"}})
    hub.answer_cdn = lambda handler, asked: odd(handler, asked)  # type: ignore[method-assign]
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with serving_hub(hub) as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        yield "hf://org/model"


def test_every_command_reads_it(address: str, run: Run, tmp_path: Path) -> None:
    for name, command in COMMANDS.items():
        code, out, err = run(*(word.format(address) for word in command))
        assert code == 0, (name, out, err)
        if "-o" in command:
            near = [word.format("near.safetensors") for word in command[:-1]]
            assert run(*near, "near-out.safetensors")[0] == 0
            made = [tmp_path / f"{name}out.safetensors" for name in ("", "near-")]
            assert made[0].read_bytes() == made[1].read_bytes(), name
            for path in made:
                path.unlink()


@pytest.mark.parametrize("kind", ["pointer", "pointers behind an index", "empty", "gzip", "no ranges"])
def test_a_hub_that_has_something_else(kind: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One clear error, that no command of git is the answer to."""
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 800328\n"
    index = json.dumps({"weight_map": {"a": "s-00001-of-00001.safetensors"}}).encode()
    files, words = {
        "pointer": ({"model.safetensors": pointer}, "model.safetensors is a Git LFS pointer"),
        "pointers behind an index": (
            {"model.safetensors.index.json": index, "s-00001-of-00001.safetensors": pointer}, "is a Git LFS pointer"),
        "empty": ({"model.safetensors": b""}, "model.safetensors is empty"),
        "gzip": ({"model.safetensors": DATA}, "gzip-encoded"),
        "no ranges": ({"model.safetensors": DATA}, "does not send ranges"),
    }[kind]  # fmt: skip
    hub = Hub({"org/model": files})
    if kind == "gzip":
        zipped = sends(RANGE, "Content-Encoding: gzip")
        hub.answer_cdn = lambda handler, asked: zipped(handler, asked)  # type: ignore[method-assign]
    if kind == "no ranges":
        hub.answer_cdn = lambda handler, asked: handler.say(200, DATA)  # type: ignore[method-assign]
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with serving_hub(hub) as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        code, out, err = run("filter", "hf://org/model", "-o", "out.safetensors")
    assert (code, out) == (2, "") and words in err and err.count("error:") == 1 and "git lfs pull" not in err
    assert {path.name for path in tmp_path.iterdir()} <= {"near.safetensors", "hf"}
