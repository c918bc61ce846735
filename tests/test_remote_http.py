"""Web servers that misbehave: one clear error each, in time, and nothing is sent where it should not go."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from console import Run, runner
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

import ckptool
from ckptool.core.address import address_of
from ckptool.core.errors import ChangedError, CkptError, MissingError, UnreadableError, UsageError
from ckptool.storage import blocks, deadline, hosts, http, http_connection, session
from ckptool.storage.blocks import Blocks
from ckptool.storage.http import zones_of
from ckptool.storage.http_url import Url
from ckptool.storage.hub_address import hub_place
from ckptool.storage.memory import Memory
from ckptool.storage.ranges import segments
from tests.servers.base import Asked, Handler, serving

TENSORS = {f"layers.{n}.weight": np.full((20_000,), n, np.float32) for n in range(10)}
DATA = save(TENSORS)
SIZE = len(DATA)


@pytest.fixture(autouse=True)
def own_session() -> Iterator[None]:
    with session.one_session() as made:
        made.is_command = False
        yield


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(tmp_path, monkeypatch, capsys)


def hurry(patch: pytest.MonkeyPatch) -> None:
    """Make all waiting thirty times shorter: for servers that make us wait, and for no others on a busy machine."""
    patch.setattr(http_connection, "IDLE", 0.4)
    patch.setattr(deadline, "PATIENCE", 0.8)
    patch.setattr(deadline, "_GRACE", 0.6)
    patch.setattr(deadline, "_BUSY", 0.2)


def refused_in_time(answer: Callable[[Handler, Asked], None], words: str, most: int, folder: Path) -> None:
    """A server gets one clear error, in time and after so many requests at most; nothing is written or told.

    Args:
        answer: the server.
        words: the error; "in time" among them says that the server makes us wait.
        most: requests; what makes us wait may get more.
        folder: an empty one.
    """
    started = time.monotonic()
    with pytest.MonkeyPatch.context() as patch, serving(answer) as (url, log):
        patch.setattr(http, "_BACKOFF", 0.05)
        if "in time" in words:
            hurry(patch)
        with pytest.raises(CkptError, match=words) as refused:
            ckptool.plan_filter(f"{url}/m.safetensors?sig=a-secret").apply(folder / "out.safetensors")
        assert time.monotonic() - started < 20  # of 25 that a server has
        assert len(log.asked) <= most or "early|in time" in words, "what gets on is not given up"
    assert "a-secret" not in f"{refused.value.message} {refused.value.hint} {refused.value.path}"
    assert not list(folder.iterdir())


def good(handler: Handler, asked: Asked) -> None:
    handler.say_range(DATA, asked, ETag='"one"')


def test_a_good_server_is_read(run: Run, tmp_path: Path) -> None:
    with serving(good) as (url, log):
        code, out, err = run("filter", f"{url}/m.safetensors", "--keep", "layers.9.*", "-o", "one.safetensors")
        assert code == 0, err
        assert "will read 80.0 kB of 801 kB in 1 range" in out and "read: 2 requests" in out
        assert [each.headers["accept-encoding"] for each in log.asked] == ["identity"] * 2
        assert all(each.headers["user-agent"].startswith("ckptool/") for each in log.asked)


# --- a table of misbehaviour: what the server does, and what is said --------------------------------------------------


def lies(**wrong: str) -> Callable[[Handler, Asked], None]:
    """A range with wrong headers."""

    def answer(handler: Handler, asked: Asked) -> None:
        first, stop = asked.range or (0, SIZE)
        stop = min(stop, SIZE)
        headers = {"Content_Range": f"bytes {first}-{stop - 1}/{SIZE}", "ETag": '"one"'} | wrong
        handler.say(206, DATA[first:stop], **headers)

    return answer


def status(number: int, **headers: str) -> Callable[[Handler, Asked], None]:
    return lambda handler, asked: handler.say(number, b"no", **headers)


def raw(text: bytes) -> Callable[[Handler, Asked], None]:
    def answer(handler: Handler, asked: Asked) -> None:
        handler.wfile.write(text)
        handler.close_connection = True

    return answer


def longer(handler: Handler, asked: Asked) -> None:
    first, stop = asked.range or (0, SIZE)
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes {first}-{stop - 1}/{SIZE}")
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    body = DATA[first : stop + 1000]
    handler.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))


def shorter(handler: Handler, asked: Asked) -> None:
    first, stop = asked.range or (0, SIZE)
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes {first}-{stop - 1}/{SIZE}")
    handler.send_header("Content-Length", str(stop - first))
    handler.end_headers()
    handler.close_connection = True


def endless_headers(handler: Handler, asked: Asked) -> None:
    handler.wfile.write(b"HTTP/1.1 206 Partial Content\r\n")
    for number in range(10_000):
        handler.wfile.write(b"X-%d: y\r\n" % number)


def endless_line(handler: Handler, asked: Asked) -> None:
    handler.wfile.write(b"HTTP/1.1 206 Partial Content\r\nX: ")
    for _ in range(10_000):
        handler.wfile.write(b"y" * 1000)


def endless_continue(handler: Handler, asked: Asked) -> None:
    while True:
        handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def drip(handler: Handler, asked: Asked) -> None:
    handler.wfile.write(f"HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-131071/{SIZE}\r\n\r\n".encode())
    for at in range(1000):
        handler.wfile.write(DATA[at : at + 1])
        time.sleep(0.05)


def header_drip(handler: Handler, asked: Asked) -> None:
    for byte in b"HTTP/1.1 206 Partial Content\r\n" * 1000:
        handler.wfile.write(bytes([byte]))
        time.sleep(0.05)


def silent(handler: Handler, asked: Asked) -> None:
    time.sleep(40)


def silent_in_the_middle(handler: Handler, asked: Asked) -> None:
    handler.wfile.write(f"HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-131071/{SIZE}\r\n\r\n".encode() + DATA[:1000])
    handler.wfile.flush()
    time.sleep(8)


def loop(handler: Handler, asked: Asked) -> None:
    handler.say(302, b"", Location=asked.path + "x")


def to(location: str) -> Callable[[Handler, Asked], None]:
    return lambda handler, asked: handler.say(302, b"", Location=location)


MISBEHAVIOUR = {
    "no ranges": (lambda handler, asked: handler.say(200, DATA), "does not send ranges"),
    "another range": (lies(Content_Range=f"bytes 5-131076/{SIZE}"), "sends a range from byte 5 on"),
    "a shorter range": (lies(Content_Range=f"bytes 0-99/{SIZE}"), "sends bytes 0 to 100 where"),
    "no Content-Range": (lies(Content_Range=""), "does not say which range"),
    "an unknown size": (lies(Content_Range="bytes 0-131071/*"), "does not say which range"),
    "a range behind the end": (lies(Content_Range="bytes 0-131071/1000"), "of a file of 1,000"),
    "another unit": (lies(Content_Range="pages 0-1/2"), "does not say which range"),
    "a false Content-Length": (lies(Content_Length="99999999"), "announces 99999999 bytes"),
    "gzip": (lies(Content_Encoding="gzip"), "gzip-encoded"),
    "several parts": (lies(Content_Type="multipart/byteranges; boundary=x"), "several ranges"),
    "more bytes": (longer, "more bytes than were asked for"),
    "fewer bytes": (shorter, "closed the connection early"),
    "no body at all": (raw(b""), "closed the connection early"),
    "no HTTP": (raw(b"220 ftp.example.org ready\r\n"), "not HTTP"),
    "an old protocol": (raw(b"\x16\x03\x01\x02\x00\x01\x00" * 20 + b"\r\n"), "not HTTP"),
    "endless headers": (endless_headers, "not HTTP"),
    "an endless line": (endless_line, "not HTTP"),
    "endless 100 Continue": (endless_continue, "in time"),
    "drops of a body": (drip, "in time"),
    "drops of a header": (header_drip, "in time"),
    "silence": (silent, "in time"),
    "silence in the middle": (silent_in_the_middle, "in time"),
    "a circle of redirects": (loop, "redirects more than 5 times"),
    "a redirect nowhere": (status(302), "is not followed"),
    "a redirect to a file": (to("file:///etc/passwd"), "redirects to file:///etc/passwd, which is not followed"),
    "a redirect to ftp": (to("ftp://host/x"), "is not followed"),
    "a redirect with a password": (to("http://user:word@127.0.0.1/x"), "redirects to http://127.0.0.1/x, which"),
    "a redirect to the metadata": (to("http://169.254.169.254/latest/meta-data"), "a network that no file is on"),
    "a redirect to the same in IPv6": (to("http://[::ffff:169.254.169.254]/x"), "a network that no file is on"),
    "a redirect to link-local": (to("http://[fe80::1]/x"), "a network that no file is on"),
    "a redirect to the local network": (to("http://10.0.0.1/x"), "an address of a local network"),
    "a redirect to another private one": (to("http://192.168.1.1:8080/x"), "an address of a local network"),
    "a redirect to everywhere": (to("http://0.0.0.0:1/x"), "a network that no file is on"),
    "401": (status(401), "may not be read"),
    "403": (status(403), "may not be read"),
    "404": (status(404), "does not exist"),
    "410": (status(410), "does not exist"),
    "418": (status(418), "answers 418"),
    "500": (status(500), "answers 500"),
    "503 for an hour": (status(503, Retry_After="3600"), "asks to wait 3,600 seconds"),
    "429 for minutes": (status(429, Retry_After="240"), "asks to wait 240 seconds"),
    "429 of the hub": (status(429, RateLimit='"resolvers";r=0;t=200'), "asks to wait 200 seconds"),
    "416 at the start": (status(416), "answers 416: the file is empty, or"),
    "206 for a web page": (lambda h, a: h.say_range(b"<html>" + b"x" * SIZE, a), "is a web page"),
    "nothing": (lambda handler, asked: handler.say(200, b""), "is empty"),
    "no length": (raw(b"HTTP/1.1 200 OK\r\n\r\n" + DATA), "does not say how long the file is"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MISBEHAVIOUR)
def test_a_server_that_misbehaves_gets_one_clear_error(kind: str, tmp_path: Path) -> None:
    refused_in_time(*MISBEHAVIOUR[kind], 7, tmp_path)


def slow_continue(handler: Handler, asked: Asked) -> None:
    while True:
        handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.05)


@pytest.mark.slow
def test_it_takes_less_than_thirty_seconds() -> None:
    """With the patience that users have; all at once, since this is waiting alone."""
    started = time.monotonic()
    with ExitStack() as stack:
        urls = [stack.enter_context(serving(answer))[0] for answer in (drip, silent, slow_continue)]
        command = [sys.executable, "-m", "ckptool", "inspect"]
        running = [
            subprocess.Popen([*command, f"{url}/m.safetensors"], stderr=subprocess.PIPE, text=True,
                             env={**os.environ, "PYTHONPATH": str(ROOT)})
            for url in urls
        ]  # fmt: skip
        for process in running:
            _, said = process.communicate(timeout=60)
            assert process.returncode == 2 and "in time" in " ".join(said.split())
    assert time.monotonic() - started < 30 + 5  # starting three processes on a busy machine


class Changing:
    """Good for the header; then every answer is of another version."""

    def __init__(self, **second: str) -> None:
        self.second = second

    def __call__(self, handler: Handler, asked: Asked) -> None:
        first, stop = asked.range or (0, SIZE)
        stop = min(stop, SIZE)
        headers = {"ETag": '"one"', "Last_Modified": "Mon, 30 Nov 2026 10:00:00 GMT"}
        size = str(SIZE)
        if first:
            size = self.second.get("size", size)
            headers |= {name: value for name, value in self.second.items() if name != "size"}
        handler.say(206, DATA[first:stop], Content_Range=f"bytes {first}-{stop - 1}/{size}", **headers)


@pytest.mark.parametrize(
    ("second", "changes"),
    [
        ({"ETag": '"two"'}, True),
        ({"ETag": ""}, True),
        ({"ETag": 'W/"one"'}, True),
        ({"size": str(SIZE + 1)}, True),
        ({"Last_Modified": "Tue, 01 Dec 2026 10:00:00 GMT"}, False),
    ],
)
def test_a_file_that_changes_is_noticed(second: dict[str, str], changes: bool, tmp_path: Path) -> None:
    with serving(Changing(**second)) as (url, _):
        plan = ckptool.plan_filter(f"{url}/m.safetensors")
        if not changes:
            assert plan.apply(tmp_path / "out.safetensors").tensors == 10
            return
        with pytest.raises(ChangedError, match="changed while it was read"):
            plan.apply(tmp_path / "out.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", [416, 412])
def test_a_range_that_is_gone_means_a_change(what: int, tmp_path: Path) -> None:
    def answer(handler: Handler, asked: Asked) -> None:
        good(handler, asked) if asked.range and asked.range[0] == 0 else handler.say(what)

    with serving(answer) as (url, _), pytest.raises(ChangedError):
        ckptool.plan_filter(f"{url}/m.safetensors").apply(tmp_path / "out.safetensors")


class Flaky:
    """Fails so many times for each range, then does what is right."""

    def __init__(self, times: int, fail: Callable[[Handler, Asked], None]) -> None:
        self.times, self.fail, self.failed = times, fail, dict[object, int]()

    def __call__(self, handler: Handler, asked: Asked) -> None:
        key = (asked.range or (0, 0))[1]
        self.failed[key] = self.failed.get(key, 0) + 1
        (self.fail if self.failed[key] <= self.times else good)(handler, asked)


def half(handler: Handler, asked: Asked) -> None:
    first, stop = asked.range or (0, SIZE)
    stop = min(stop, SIZE)
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes {first}-{stop - 1}/{SIZE}")
    handler.send_header("Content-Length", str(stop - first))
    handler.send_header("ETag", '"one"')
    handler.end_headers()
    handler.wfile.write(DATA[first : first + (stop - first) // 2])
    handler.close_connection = True


@pytest.mark.parametrize(
    ("fail", "says_when"),
    [(status(503), False), (status(429, Retry_After="1"), True), (raw(b""), False), (half, False)],
    ids=["503", "429", "cut", "half"],
)
def test_what_passes_is_tried_again(
    fail: Callable[[Handler, Asked], None], says_when: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_BACKOFF", 0.01)
    started = time.monotonic()
    with serving(Flaky(1 if says_when else 2, fail)) as (url, log):
        ckptool.plan_filter(f"{url}/m.safetensors").apply(tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == DATA
    assert not says_when or time.monotonic() - started > 2, "one second for the header, one for the values"
    if fail is half:
        starts = [each.range[0] for each in log.asked if each.range and each.range[1] == SIZE]
        assert len(set(starts)) == 3, "only what is missing is asked for again"


def test_a_server_that_gets_on_is_not_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cuts the values off in the middle, more often than a request is tried: each time there is less to get."""
    monkeypatch.setattr(http, "_BACKOFF", 0.01)
    flaky = Flaky(9, half)
    with serving(
        lambda handler, asked: (flaky if asked.range and asked.range[1] == SIZE else good)(handler, asked)
    ) as (
        url,
        log,
    ):
        ckptool.plan_filter(f"{url}/m.safetensors").apply(tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == DATA
    assert len({each.range[0] for each in log.asked if each.range and each.range[1] == SIZE}) == 10


def test_only_waiting_for_the_server_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what this process does between two reads, nor a wait for one of the connections."""
    monkeypatch.setattr(deadline, "PATIENCE", 0.3)
    monkeypatch.setattr(deadline, "_GRACE", 0.3)
    limit = deadline.Deadline(1 << 30)
    limit.pause()
    time.sleep(0.4)
    assert limit.left() > 0.2
    limit.received(10)
    time.sleep(0.4)
    assert limit.left() > 0.2
    time.sleep(0.4)
    with pytest.raises(deadline.TooSlowError):
        limit.left()


def test_a_server_without_ranges_serves_a_small_file() -> None:
    small = save({"w": np.ones(10, np.float32)})
    with serving(lambda handler, asked: handler.say(200, small)) as (url, _):
        assert ckptool.open(f"{url}/w.safetensors")["w"].shape == (10,)


def test_no_connection_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_BACKOFF", 0.01)
    with serving(good) as (url, _):
        pass
    with pytest.raises(UnreadableError, match="cannot be read"):
        ckptool.open(f"{url}/m.safetensors")


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["http://169.254.169.254/latest/x.pth", "http://[fe80::1]/x", "http://224.0.0.1/x"])
def test_no_address_leads_to_a_clouds_metadata(address: str) -> None:
    with pytest.raises(UnreadableError, match="a network that no file is on"):
        ckptool.open(address)


def test_every_address_of_a_name_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that a stranger controls leads to a good address and a bad one."""
    found = [(2, 1, 6, "", ("93.184.216.34", 443)), (2, 1, 6, "", ("169.254.169.254", 443))]
    monkeypatch.setattr(hosts.socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(UnreadableError, match="a network that no file is on"):
        zones_of(Url.parse("https://example.org/x"))


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("https://user:word@host/x", "a name or password in it"),
        ("https://", "no name follows"),
        ("https:///x", "no name follows"),
        ("file:///etc/passwd", "is an address that ckptool does not read"),
        ("http://host:99999/x", "not an address of a file"),
    ],
)
def test_addresses_that_are_none(address: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        ckptool.open(address)
    assert "word" not in refused.value.message.replace("password", "")


def test_shards_lie_beside_their_index() -> None:
    index = b'{"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}'
    shards = {"/m/a.safetensors": save({"a": np.ones(3)}), "/m/b.safetensors": save({"b": np.ones(3)})}

    def answer(handler: Handler, asked: Asked) -> None:
        found = shards.get(asked.path, index if asked.path == "/m/x.index.json" else None)
        handler.say(404) if found is None else handler.say_range(found, asked)

    with serving(answer) as (url, log):
        assert list(ckptool.open(f"{url}/m/x.index.json")) == ["a", "b"]
        assert len(log.asked) == 3
        del shards["/m/b.safetensors"]
        with pytest.raises(CkptError, match="1 of them missing"):
            ckptool.open(f"{url}/m/x.index.json")
        with pytest.raises(MissingError):
            ckptool.open(f"{url}/m/none.safetensors")


# --- ranges and blocks ------------------------------------------------------------------------------------------------

RANGES = st.lists(
    st.tuples(st.integers(0, 3000), st.integers(0, 400)).map(lambda pair: (pair[0], sum(pair))), max_size=20
)


@given(RANGES, st.integers(0, 300), st.integers(1, 500))
def test_segments_hold_every_range_and_little_more(ranges: list[tuple[int, int]], gap: int, longest: int) -> None:
    found = segments(ranges, gap, longest)
    wanted = {byte for start, stop in ranges for byte in range(start, stop)}
    asked = [byte for start, stop, _ in found for byte in range(start, stop)]
    assert len(asked) == len(set(asked)) and wanted <= set(asked)
    assert all(0 < stop - start <= longest for start, stop, _ in found)
    assert all(each.wanted == len(wanted.intersection(range(each.start, each.stop))) > 0 for each in found)
    extra = sorted(set(asked) - wanted)
    runs = [at for at, byte in enumerate(extra) if at == 0 or extra[at - 1] != byte - 1]
    assert all(length <= gap for length in np.diff([*runs, len(extra)]))


@settings(max_examples=60, deadline=None)
@given(RANGES, st.lists(st.tuples(st.integers(0, 3399), st.integers(1, 300)), max_size=30), st.booleans())
def test_blocks_give_the_bytes_of_the_file(
    announced: list[tuple[int, int]], reads: list[tuple[int, int]], twice: bool
) -> None:
    data = np.random.default_rng(0).bytes(3400)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"FIRST": 100, "_MARGIN": 30, "_AFTER": 7}.items():
            patch.setattr(blocks, name, value)
        asked: list[tuple[int, int]] = []

        def fetch(start: int, stop: int, values: bool) -> bytes:
            assert 0 <= start < stop <= len(data)
            asked.append((start, stop))
            return data[start:stop]

        memory = Memory(2)
        made = Blocks("x", len(data), fetch, memory)
        made.announce((start, min(stop, len(data))) for start, stop in announced)
        for _ in range(1 + twice):
            for start, nbytes in reads:
                stop = min(start + nbytes, len(data))
                assert made.read(start, stop - start) == data[start:stop]
        memory.workers.end()


def test_a_check_is_made_before_what_it_protects_is_read() -> None:
    data = bytes(10_000_000)
    seen: list[int] = []

    def checking(at: int) -> Callable[[bytes], None]:
        return lambda found: seen.append(at)

    made = Blocks("x", len(data), lambda start, stop, values: data[start:stop], Memory())
    for at in range(1_000_000, 9_000_000, 1_000_000):
        made.check_first(at, 100, at + 500_000, checking(at))
    made.read(100, 1000)
    assert seen == []
    made.announce([(3_000_200, 3_000_300)])
    made.read(3_000_200, 100)
    made.read(3_000_250, 10)
    assert seen == [3_000_000]
    made.read(4_900_000, 200_000)
    assert seen == [3_000_000, 5_000_000], "the bytes of a header are checked when they are read"


def test_headers_have_a_budget() -> None:
    made = Blocks("x", 1 << 40, lambda start, stop, values: bytes(stop - start), Memory())
    with pytest.raises(UnreadableError, match="more than 256 requests"):
        for at in range(0, 1 << 30, 1 << 20):
            made.read(at, 1)


def test_values_that_are_held_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every segment is begun and none is read whole: the oldest ones are let go."""
    from ckptool.storage import memory as memory_module

    monkeypatch.setattr(memory_module, "VALUES", 40 << 20)
    monkeypatch.setattr(memory_module, "AHEAD", 20 << 20)
    memory = Memory()
    made = Blocks("x", 1 << 30, lambda start, stop, values: bytes(stop - start), memory)
    made.announce([(0, 1 << 30)])
    for at in range(0, 1 << 30, 16 << 20):
        made.read(at, 10)
        assert memory._value_bytes <= (40 << 20) + 2 * (16 << 20)
    memory.workers.end()


@pytest.mark.parametrize(
    "command", [["filter", "{}", "-o", "out.safetensors"], ["inspect", "{}", "--stats"], ["diff", "{}", "{}b"]]
)
def test_ctrl_c_does_not_wait_for_a_server(command: list[str], tmp_path: Path) -> None:
    """The header comes at once, then the server sends nothing more."""
    asked_for_values = threading.Event()

    def answer(handler: Handler, asked: Asked) -> None:
        if asked.range and asked.range[0] > 0:
            asked_for_values.set()
            time.sleep(20)
        good(handler, asked)

    with serving(answer) as (url, _):
        arguments = [part.format(f"{url}/m.safetensors") for part in command]
        process = subprocess.Popen(
            [sys.executable, "-m", "ckptool", *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert asked_for_values.wait(30)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        _, said = process.communicate(timeout=30)
        assert process.returncode == 130 and b"interrupted" in said
        assert time.monotonic() - started < 4
    assert list(tmp_path.iterdir()) == []


# --- TLS and proxies --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that nobody signed, with its key in the same file."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now - timedelta(1), now + timedelta(1)
        )
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


@pytest.fixture
def run_with(run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run a command with these variables; certificates are read anew, and the texts have no line breaks."""

    def with_variables(*arguments: str, **variables: str) -> tuple[int, str, str]:
        http_connection._tls.cache_clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(http, "_BACKOFF", 0.01)
            for name, value in variables.items():
                patch.setenv(name, value)
            code, out, err = run(*arguments)
        return code, " ".join(out.split()), " ".join(err.split())

    yield with_variables
    http_connection._tls.cache_clear()


def test_a_certificate_is_verified(certificate: Path, run_with: Run) -> None:
    with serving(good, certificate=certificate) as (url, _):
        code, _, err = run_with("inspect", f"{url}/m.safetensors")
        assert code == 2 and "the certificate of 127.0.0.1 is not valid" in err
        code, out, _ = run_with("inspect", f"{url}/m.safetensors", SSL_CERT_FILE=str(certificate))
        assert code == 0 and "10 tensors" in out and "read: 1 request" in out


def test_no_redirect_leads_out_of_tls(certificate: Path, run_with: Run) -> None:
    with serving(good) as (plain, log), serving(to(f"{plain}/m.safetensors"), certificate=certificate) as (url, _):
        code, _, err = run_with("inspect", f"{url}/m.safetensors", SSL_CERT_FILE=str(certificate))
        assert code == 2 and "which is not followed" in err
        assert log.asked == []


def test_tls_and_plain_text_do_not_speak(certificate: Path, run_with: Run) -> None:
    with serving(good) as (plain, _):
        code, _, err = run_with("inspect", plain.replace("http:", "https:") + "/m.safetensors")
        assert code == 2 and "no secure connection" in err


class Proxy(threading.Thread):
    """Connects one client after the other to whom it asks for, and notes whom."""

    def __init__(self, target: tuple[str, int], answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> None:
        super().__init__(daemon=True)
        self.target, self.answer, self.asked = target, answer, list[bytes]()
        self.open: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

    def run(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            request = b""
            while b"\r\n\r\n" not in request:
                request += client.recv(1)
            self.asked.append(request.split(b"\r\n")[0])
            client.sendall(self.answer)
            server = socket.create_connection(self.target)
            self.open += [client, server]
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self.pump, args=(one, other), daemon=True).start()

    def end(self) -> None:
        self.listener.close()
        for each in self.open:
            each.close()

    @staticmethod
    def pump(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)


def test_a_proxy_is_asked_to_connect(certificate: Path, run_with: Run) -> None:
    """The name is the proxy's to look up; the certificate, which is of another name, shows that TLS goes through."""
    with serving(good, certificate=certificate) as (url, _):
        proxy = Proxy(("127.0.0.1", int(url.rpartition(":")[2])))
        proxy.start()
        variables = {"HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}", "SSL_CERT_FILE": str(certificate)}
        code, _, err = run_with("inspect", "https://model.example/m.safetensors", **variables)
        assert proxy.asked and set(proxy.asked) == {b"CONNECT model.example:443 HTTP/1.1"}
        assert code == 2 and "the certificate of model.example is not valid" in err
        asked = len(proxy.asked)
        code, _, err = run_with("inspect", "https://169.254.169.254/x", **variables)
        assert code == 2 and "it is not asked" in err and len(proxy.asked) == asked
        proxy.end()


# --- addresses of any kind --------------------------------------------------------------------------------------------

PARTS = st.text(alphabet="ab.-_@/%:?#\\ é\0", max_size=12)


@given(st.sampled_from(["hf", "https", "s3", "HF", "gs"]), PARTS, PARTS, PARTS)
def test_no_address_is_an_unexpected_error(scheme: str, one: str, two: str, three: str) -> None:
    """Any text is an address that says itself again, or is refused in words; a query is never shown."""
    try:
        address = address_of(f"{scheme}://{one}/{two}/{three}")
        assert address is not None and "?" not in str(address)
        assert str(address_of(str(address))) == str(address)
        if address.scheme == "hf":
            place = hub_place(address)
            assert hub_place(place.address) == place
            assert ".." not in place.path.split("/")
    except CkptError as refused:
        assert refused.message and refused.hint
