"""gs:// and az://: the same as s3:// (test_remote_objects), at small stores on the loopback that speak their calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from console import Run, runner
from safetensors.numpy import load, save_file

from ckptool.storage import uploads
from tests.servers.stores import Azure, Google, Objects, store

KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # Azurite's, public
ACCOUNT = {"private_key": "private_key", "private_key_id": "id", "client_email": "me", "disable_oauth": True}


@pytest.fixture(params=["gs", "az"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, Objects]]:
    with store({"gs": Google, "az": Azure}[request.param]) as (url, objects):
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"{url}/account")
        (tmp_path / "account.json").write_text(json.dumps({**ACCOUNT, "gcs_base_url": url}))
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "account.json"))
        monkeypatch.setenv("GOOGLE_BASE_URL", url)
        yield f"{request.param}://bucket", objects


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(tmp_path, monkeypatch, capsys)


def made() -> dict[str, np.ndarray]:
    return {f"layers.{n}.weight": np.full((40_000,), n, np.float32) for n in range(10)}


def test_a_file_is_read_by_ranges(run: Run, tmp_path: Path, place: tuple[str, Objects]) -> None:
    address, objects = place
    save_file(made(), tmp_path / "m.safetensors")
    objects.held["models/m.safetensors"] = (tmp_path / "m.safetensors").read_bytes()
    code, out, err = run("inspect", f"{address}/models/m.safetensors", "--json")
    assert code == 0, err
    assert json.loads(out)["summary"]["tensors"] == 10 and json.loads(out)["transfer"]["bytes"] < 200_000
    objects.asked.clear()
    code, _, err = run("filter", f"{address}/models/m.safetensors", "--keep", "layers.7.*", "-o", "out.safetensors")
    assert code == 0, err
    assert list(load((tmp_path / "out.safetensors").read_bytes())) == ["layers.7.weight"]
    code, _, err = run("inspect", f"{address}/models/n.safetensors")
    assert code == 2 and "does not exist" in err and "m.safetensors" in err
    assert run("diff", f"{address}/models/m.safetensors", "m.safetensors")[0] == 0


def test_a_folder_is_written_index_last_and_read_again(
    run: Run, tmp_path: Path, place: tuple[str, Objects], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With shards so large that they go up in parts."""
    address, objects = place
    monkeypatch.setattr(uploads, "_PART", 1 << 18)
    save_file(made(), tmp_path / "m.safetensors")
    code, _, err = run("filter", "m.safetensors", "--max-shard", "600kB", "-o", f"{address}/run/model/")
    assert code == 0, err
    assert sorted(objects.held)[-1] == "run/model/model.safetensors.index.json" == [*objects.held][-1]
    assert objects.parts == {}, "no upload is left open"
    code, out, err = run("diff", "m.safetensors", f"{address}/run/model/")
    assert code == 0 and "identical: 10 tensors" in out, err
    before = dict(objects.held)
    code, _, err = run("filter", "m.safetensors", "-o", f"{address}/run/model/")
    assert code == 2 and "exist" in err and objects.held == before
    assert run("filter", "m.safetensors", "--drop", "layers.0.*", "-o", f"{address}/run/model/", "--force")[0] == 0
    assert run("inspect", f"{address}/run/model/")[0] == 0
    assert KEY not in err and "private_key" not in err
