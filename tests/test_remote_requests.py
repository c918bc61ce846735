"""How often each file is asked for while headers are read: no header is fetched twice, however little is kept."""

from __future__ import annotations

import json
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import ckptool
from ckptool.storage import ahead, memory
from ckptool.storage.ahead import Ahead
from tests.servers.base import Asked, Handler, serving
from tests.servers.hub import Hub, serving_hub

KB = 1 << 10
INDEX = "model.safetensors.index.json"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with serving_hub(Hub({})) as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        yield made


def shard(number: int, keys: int, dimensions: int = 1) -> tuple[bytes, list[str]]:
    """A file whose header is long and whose tensors are empty: many dimensions make an entry longer than is guessed."""
    names = [f"layers.{number}.experts.{at}.weight" for at in range(keys)]
    entry = {"dtype": "F32", "shape": [0] + [1000] * (dimensions - 1), "data_offsets": [0, 0]}
    text = json.dumps(dict.fromkeys(names, entry), separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text, names


def model(sizes: list[int], dimensions: int = 1) -> dict[str, bytes]:
    """Shards with so many keys each, and their index."""
    files: dict[str, bytes] = {}
    where: dict[str, str] = {}
    for number, keys in enumerate(sizes, 1):
        name = f"model-{number:05}-of-{len(sizes):05}.safetensors"
        files[name], names = shard(number, keys, dimensions)
        where |= dict.fromkeys(names, name)
    return files | {INDEX: json.dumps({"weight_map": where}).encode()}


def asked_of(asked: list[Asked]) -> Counter[str]:
    """How many ranges of each file were asked for."""
    return Counter(each.path.rpartition("/")[2].partition("?")[0] for each in asked if each.range is not None)


def little(monkeypatch: pytest.MonkeyPatch, kept: int, unread: int) -> None:
    monkeypatch.setattr(memory, "HEADS", kept)
    monkeypatch.setattr(ahead, "NBYTES", unread)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("place", ["hub", "web"])
def test_a_shard_is_asked_once_and_an_index_twice(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, place: str, seed: int
) -> None:
    """Headers and index together are many times what is kept of them."""
    little(monkeypatch, 200 * KB, 100 * KB)
    chance = random.Random(seed)
    sizes = [chance.randrange(1, 2000) for _ in range(20)]
    files = model(sizes)

    def answer(handler: Handler, asked: Asked) -> None:
        handler.say_range(files[asked.path.strip("/")], asked, ETag='"1"')

    if place == "hub":
        hub.files["org/model"] = files
        assert len(ckptool.open("hf://org/model")) == sum(sizes)
        asked = [each for each in hub.log.asked if each.server == "cdn" or "cache" in each.path]
    else:
        with serving(answer) as (url, log):
            assert len(ckptool.open(f"{url}/{INDEX}")) == sum(sizes)
        asked = log.asked
    counts = asked_of(asked)
    assert counts.pop(INDEX) <= 2
    assert set(counts.values()) == {1} and len(counts) == len(sizes)


@pytest.mark.parametrize("has_index", [True, False])
def test_a_header_longer_than_was_guessed_takes_one_more(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, has_index: bool
) -> None:
    little(monkeypatch, 100 * KB, 100 * KB)
    files = model([2500, 900, 3000, 2000], dimensions=40)
    assert min(map(len, files.values())) > 200 * KB
    hub.files["org/model"] = {name: data for name, data in files.items() if has_index or name != INDEX}
    assert len(ckptool.open("hf://org/model")) == 8400
    cdn = [each for each in hub.log.asked if each.server == "cdn" or "cache" in each.path]
    assert max(asked_of(cdn).values()) == 2


def test_a_header_longer_than_all_that_is_kept_takes_two(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    little(monkeypatch, 100 * KB, 100 * KB)
    hub.files["org/model"] = {"model.safetensors": shard(1, 20_000)[0]}
    assert len(ckptool.open("hf://org/model/model.safetensors")) == 20_000
    assert len(hub.ranges) == 2 and hub.ranges[0] == (0, 128 * KB)


@pytest.mark.parametrize("keys", [10, 1500, 6000])
def test_a_zip_takes_four(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: int) -> None:
    little(monkeypatch, 100 * KB, 100 * KB)
    torch.save({f"layers.{n}.weight": torch.zeros(300) for n in range(keys)}, tmp_path / "a.pth")
    hub.files["org/model"] = {"a.pth": (tmp_path / "a.pth").read_bytes()}
    assert len(ckptool.open("hf://org/model/a.pth")) == keys
    assert len(hub.ranges) <= 4


def test_missing_and_damaged_shards_do_not_stop_what_is_fetched_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    little(monkeypatch, 400 * KB, 200 * KB)
    files = model([2000] * 40)
    names = [name for name in files if name != INDEX]
    for name in names[:16]:
        del files[name]

    def answer(handler: Handler, asked: Asked) -> None:
        data = files.get(asked.path.strip("/"))
        handler.say(404) if data is None else handler.say_range(data, asked, ETag='"1"')

    with serving(answer) as (url, _):
        with pytest.raises(ckptool.CkptError, match="names 40 shards, 16 of them missing"):
            ckptool.open(f"{url}/{INDEX}")
        files |= dict.fromkeys(names[:16], b"")
        with pytest.raises(ckptool.CkptError, match=r"00001-of-00040\.safetensors is empty"):
            ckptool.open(f"{url}/{INDEX}")


def test_never_more_is_fetched_ahead_than_may_be_kept() -> None:
    sizes = {str(number): random.Random(number).randrange(1, 3 * ahead.NBYTES // 2) for number in range(200)}
    running: dict[str, ahead.Used] = {}
    lock = threading.Lock()
    begun: list[str] = []

    def fetch(name: str, nbytes: int, used: ahead.Used) -> bool:
        assert nbytes == sizes[name]
        begun.append(name)
        if int(name) % 7 == 0:
            return False  # it is here already
        with lock:
            running[name] = used
            assert len(running) <= ahead.FILES
            assert len(running) == 1 or sum(sizes[each] for each in running) <= ahead.NBYTES
        return True

    Ahead(sizes, fetch).start()
    while running:
        name = next(iter(running))
        running.pop(name)()
    assert begun == list(sizes)
