"""Object stores: read by ranges, written whole or not at all; the store is moto's S3 on the loopback."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
import pytest
from console import Run, runner
from safetensors.numpy import load, save_file

import ckptool
from ckptool.core.errors import CkptError, UsageError
from ckptool.storage import uploads
from ckptool.storage.locate import locate


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"bucket-{abs(hash(request.node.name)) % 10**9}"
    settings = {
        "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "a-secret", "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": server, "AWS_ALLOW_HTTP": "true",
    }  # fmt: skip
    for each, value in settings.items():
        monkeypatch.setenv(each, value)
    ask(f"{server}/{name}", "PUT")
    yield name


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(tmp_path, monkeypatch, capsys)


def ask(url: str, method: str = "GET") -> bytes:
    request = urllib.request.Request(url, method=method)
    with urllib.request.urlopen(request, timeout=20) as answer:
        found: bytes = answer.read()
        return found


def content(bucket: str, key: str) -> bytes:
    from obstore.store import from_url

    found = from_url(f"s3://{bucket}", client_options={"allow_http": True}).get(key)
    return bytes(found.bytes())


def put(bucket: str, key: str, data: bytes) -> None:
    from obstore.store import from_url

    from_url(f"s3://{bucket}", client_options={"allow_http": True}).put(key, data)


def keys(server: str, bucket: str) -> list[str]:
    import re

    return re.findall(r"<Key>([^<]*)</Key>", ask(f"{server}/{bucket}?list-type=2").decode())


def open_uploads(server: str, bucket: str) -> int:
    return ask(f"{server}/{bucket}?uploads").count(b"<UploadId>")


def tensors(count: int = 6, elements: int = 1000) -> dict[str, np.ndarray]:
    return {f"layers.{n}.weight": np.full((elements,), n, np.float32) for n in range(count)}


def put_model(bucket: str, folder: Path, prefix: str = "model") -> dict[str, np.ndarray]:
    made = tensors()
    save_file(made, folder / "m.safetensors")
    put(bucket, f"{prefix}/model.safetensors", (folder / "m.safetensors").read_bytes())
    put(bucket, f"{prefix}/config.json", b'{"model_type": "x"}')
    return made


def test_objects_are_read(server: str, bucket: str, run: Run, tmp_path: Path) -> None:
    put_model(bucket, tmp_path)
    for address in (f"s3://{bucket}/model/model.safetensors", f"s3://{bucket}/model", f"s3://{bucket}/model/"):
        code, out, err = run("inspect", address)
        assert code == 0 and "6 tensors" in out and "read: " in out, err
    assert run("diff", f"s3://{bucket}/model", "m.safetensors")[0] == 0
    code, out, err = run("filter", f"s3://{bucket}/model", "--keep", "layers.3.*", "-o", "one.safetensors", "--json")
    assert code == 0 and json.loads(out)["reads"] == {"bytes": 0, "of": 24472, "ranges": 0}, err
    assert [tuple(entry) for entry in locate(f"s3://{bucket}").entries()] == [("model", True)]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("s3://{}/model/modle.safetensors", "did you mean s3://{}/model/model.safetensors"),
        ("s3://{}/nothing/", "check the spelling"),
        ("s3://no-such-bucket/x", ""),
        ("s3://{}/../x", "leave out"),
    ],
)
def test_what_is_not_there_is_said(server: str, bucket: str, tmp_path: Path, address: str, words: str) -> None:
    put_model(bucket, tmp_path)
    with pytest.raises(CkptError) as refused:
        ckptool.open(address.format(bucket))
    assert words.format(bucket) in (refused.value.hint or "")
    assert "a-secret" not in f"{refused.value} {refused.value.hint}"


def test_a_folder_of_shards_is_uploaded_with_its_index_last(
    server: str, bucket: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = put_model(bucket, tmp_path)
    order: list[str] = []
    upload = uploads.Uploads.put
    monkeypatch.setattr(uploads.Uploads, "put", lambda self, key, path: (order.append(key), upload(self, key, path)))
    code, out, err = run("filter", f"s3://{bucket}/model", "--max-shard", "9kB", "-o", f"s3://{bucket}/copy/")
    assert code == 0 and f"wrote s3://{bucket}/copy" in out, err
    assert order[-1] == "copy/model.safetensors.index.json"
    assert set(keys(server, bucket)) >= set(order) and len(order) == 5
    found = ckptool.open(f"s3://{bucket}/copy")
    assert ckptool.compare(found, tmp_path / "m.safetensors").is_same
    assert len(found) == len(made) and found.format.shards == 3
    assert content(bucket, "copy/config.json") == b'{"model_type": "x"}'


def test_one_file_is_uploaded(server: str, bucket: str, run: Run, tmp_path: Path) -> None:
    put_model(bucket, tmp_path)
    address = f"s3://{bucket}/out/x.safetensors"
    code, _, err = run("remap", f"s3://{bucket}/model", "-r", "layers. -> blocks.", "-o", address)
    assert code == 0, err
    assert set(load(content(bucket, "out/x.safetensors"))) == {f"blocks.{n}.weight" for n in range(6)}
    code, _, err = run("filter", "m.safetensors", "-o", address)
    assert code == 2 and "exists" in err and "--force" in err
    assert run("filter", "m.safetensors", "-o", address, "--force")[0] == 0
    assert set(load(content(bucket, "out/x.safetensors"))) == set(tensors())


def test_large_objects_go_up_in_parts(
    server: str, bucket: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "_CONDITIONAL", 8 << 20)
    monkeypatch.setattr(uploads, "_PART", 5 << 20)
    made = tensors(5, 1_200_000)
    save_file(made, tmp_path / "big.safetensors")
    code, _, err = run("filter", "big.safetensors", "-o", f"s3://{bucket}/big.safetensors")
    assert code == 0, err
    assert content(bucket, "big.safetensors") == (tmp_path / "big.safetensors").read_bytes()
    assert open_uploads(server, bucket) == 0
    code, _, err = run("filter", f"s3://{bucket}/big.safetensors", "--dtype", "bf16", "-o", "half.safetensors")
    assert code == 0, err
    assert ckptool.open(tmp_path / "half.safetensors")["layers.4.weight"].dtype == "bfloat16"


def test_an_existing_folder_is_protected_and_replaced_by_force(
    server: str, bucket: str, run: Run, tmp_path: Path
) -> None:
    put_model(bucket, tmp_path, "out")
    put(bucket, "out/notes.txt", b"mine")
    before = set(keys(server, bucket))
    code, _, err = run("filter", "m.safetensors", "-o", f"s3://{bucket}/out", "--max-shard", "9kB")
    assert code == 2 and "exists" in err and set(keys(server, bucket)) == before
    code, _, err = run("filter", "m.safetensors", "-o", f"s3://{bucket}/out", "--max-shard", "9kB", "--force")
    assert code == 0, err
    left = set(keys(server, bucket))
    assert "out/notes.txt" in left and "out/model.safetensors" not in left
    assert ckptool.compare(f"s3://{bucket}/out", tmp_path / "m.safetensors").is_same


@pytest.mark.parametrize("fails_at", [0, 1, 2, 3])
def test_nothing_is_left_of_an_output_that_failed(
    server: str, bucket: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    save_file(tensors(), tmp_path / "m.safetensors")
    upload, calls = uploads.Uploads.put, []

    def failing(self: uploads.Uploads, key: str, path: Path) -> None:
        calls.append(key)
        if len(calls) > fails_at:
            raise KeyboardInterrupt
        upload(self, key, path)

    monkeypatch.setattr(uploads.Uploads, "put", failing)
    code, _, _ = run("filter", "m.safetensors", "-o", f"s3://{bucket}/out", "--max-shard", "9kB")
    assert code == 130
    assert keys(server, bucket) == [] and open_uploads(server, bucket) == 0


def test_an_upload_that_is_stopped_leaves_no_parts(
    server: str, bucket: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(tensors(5, 6_000_000), tmp_path / "big.safetensors")
    blocks = Path.open

    class Stopping:
        def __init__(self, path: Path) -> None:
            self.file, self.reads = blocks(path, "rb"), 0

        def read(self, nbytes: int) -> bytes:
            self.reads += 1
            if self.reads > 5:
                raise KeyboardInterrupt
            found: bytes = self.file.read(nbytes)
            return found

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

    monkeypatch.setattr(
        Path, "open", lambda path, mode="r", **more: Stopping(path) if mode == "rb" else blocks(path, mode, **more)
    )
    code, _, _ = run("filter", "big.safetensors", "-o", f"s3://{bucket}/big.safetensors")
    assert code == 130
    assert keys(server, bucket) == [] and open_uploads(server, bucket) == 0


def test_an_object_that_changes_is_noticed(server: str, bucket: str, tmp_path: Path) -> None:
    save_file(tensors(6, 100_000), tmp_path / "m.safetensors")
    data = (tmp_path / "m.safetensors").read_bytes()
    put(bucket, "m.safetensors", data)
    plan = ckptool.plan_filter(f"s3://{bucket}/m.safetensors")
    put(bucket, "m.safetensors", data[:-1] + b"x")
    with pytest.raises(CkptError, match="changed"):
        plan.apply(tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(UsageError, match="needs obstore") as refused:
        ckptool.open("s3://another-bucket/x")
    assert "ckptool[remote]" in (refused.value.hint or "")
