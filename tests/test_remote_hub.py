"""The hub by its addresses: what is asked, how often, what is said, and what never leaves this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from console import Run, runner
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch

import ckptool
from ckptool.core.errors import CkptError, MissingError, UnreadableError, UsageError
from ckptool.storage.locate import locate, locate_file
from tests.servers.base import serving
from tests.servers.hub import Hub, serving_hub

MB = 1 << 20


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(tmp_path, monkeypatch, capsys)


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests set the hub's variables for transformers."""
    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with serving_hub(Hub({})) as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        yield made


def layers(count: int, elements: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    return {f"layers.{n}.weight": random.random((elements,), np.float32) for n in range(count)}


def one_file(folder: Path, tensors: dict[str, np.ndarray]) -> bytes:
    save_file(tensors, folder / "one.safetensors")
    return (folder / "one.safetensors").read_bytes()


def shards_of(folder: Path, tensors: dict[str, np.ndarray], count: int) -> dict[str, bytes]:
    """A folder of shards with its index."""
    keys, files, where = list(tensors), {}, {}
    for n in range(count):
        name = f"model-{n + 1:05d}-of-{count:05d}.safetensors"
        part = {key: tensors[key] for key in keys[n::count]}
        files[name] = one_file(folder, part)
        where |= dict.fromkeys(part, name)
    return {**files, "model.safetensors.index.json": json.dumps({"weight_map": where}).encode()}


# --- how often is asked -----------------------------------------------------------------------------------------------


def test_a_file_of_the_hub_is_inspected_in_one_range(hub: Hub, run: Run, tmp_path: Path) -> None:
    hub.files["org/model"] = {"model.safetensors": one_file(tmp_path, layers(40, 50_000))}
    code, out, _ = run("inspect", "hf://org/model/model.safetensors")
    assert code == 0 and "40 tensors" in out
    assert hub.ranges == [(0, 131072)]
    assert out.splitlines()[-1] == "read: 2 requests, 131 kB of 8.00 MB"


@pytest.mark.parametrize("count", [3000, 6000])
def test_a_long_header_takes_a_second_range(hub: Hub, run: Run, tmp_path: Path, count: int) -> None:
    hub.files["org/model"] = {"model.safetensors": one_file(tmp_path, layers(count, 100))}
    code, out, _ = run("inspect", "hf://org/model/model.safetensors", "--json")
    assert code == 0 and json.loads(out)["transfer"]["requests"] == 4
    assert len(hub.ranges) == 2 and hub.ranges[1][0] == 131072


def test_shards_take_one_range_each_beside_the_index(hub: Hub, run: Run, tmp_path: Path) -> None:
    hub.files["org/model"] = shards_of(tmp_path, layers(8000, 10), 4)
    code, out, _ = run("inspect", "hf://org/model", "--json")
    said = json.loads(out)
    assert code == 0 and len(said["tensors"]) == 8000
    assert len(hub.ranges) == 1 + 4, "the header of each shard has 180 kB, as the index tells"
    assert sum("/api/models" in each.path for each in hub.log.asked) == 1


def test_a_torch_zip_takes_four_ranges(hub: Hub, run: Run, tmp_path: Path) -> None:
    state = {f"layer{n}.weight": torch.rand(5000) for n in range(1500)}
    torch.save(state, tmp_path / "a.pth")
    hub.files["org/model"] = {"pytorch_model.bin": (tmp_path / "a.pth").read_bytes()}
    code, out, err = run("inspect", "hf://org/model/pytorch_model.bin", "--json")
    assert code == 0, err
    assert len(json.loads(out)["tensors"]) == 1500
    assert len(hub.ranges) <= 4
    assert sum(stop - start for start, stop in hub.ranges) < 1 * MB


def test_a_legacy_file_takes_three_ranges(hub: Hub, run: Run, tmp_path: Path) -> None:
    state = {f"layer{n}.weight": torch.rand(5000) for n in range(600)}
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    hub.files["org/model"] = {"old.pth": (tmp_path / "a.pth").read_bytes()}
    code, _, err = run("inspect", "hf://org/model/old.pth")
    assert code == 0, err
    assert len(hub.ranges) <= 3


def test_filter_reads_what_it_keeps(hub: Hub, run: Run, tmp_path: Path) -> None:
    tensors = layers(30, 200_000) | {"lm_head.weight": np.ones((100, 1000), np.float32)}
    hub.files["org/model"] = {"model.safetensors": one_file(tmp_path, tensors)}
    code, out, err = run("filter", "hf://org/model", "--keep", "lm_head.*", "-o", "head.safetensors")
    assert code == 0, err
    assert "will read 400 kB of 24.4 MB in 1 range" in out
    assert len(hub.ranges) == 2
    assert np.array_equal(load_file(tmp_path / "head.safetensors")["lm_head.weight"], tensors["lm_head.weight"])
    assert out.splitlines()[-1].startswith("read: 5 requests, 531 kB of 24.4 MB")


def test_a_conversion_reads_everything_once(hub: Hub, run: Run, tmp_path: Path) -> None:
    tensors = layers(30, 200_000)
    hub.files["org/model"] = {"model.safetensors": one_file(tmp_path, tensors)}
    code, out, err = run("filter", "hf://org/model", "--dtype", "bf16", "-o", "out.safetensors", "--json")
    assert code == 0, err
    said = json.loads(out)
    assert said["transfer"]["bytes"] == pytest.approx(24 * 10**6, rel=0.01)
    assert said["reads"]["ranges"] == len(hub.ranges) - 1
    found = load_torch(tmp_path / "out.safetensors")
    assert all(torch.equal(found[key], torch.from_numpy(array).bfloat16()) for key, array in tensors.items())


def test_a_torch_file_is_copied_with_its_checksums(hub: Hub, run: Run, tmp_path: Path) -> None:
    state = {f"layer{n}.weight": torch.rand(50_000) for n in range(40)}
    torch.save(state, tmp_path / "a.pth")
    data = (tmp_path / "a.pth").read_bytes()
    hub.files["org/model"] = {"a.pth": data}
    code, _, err = run("filter", "hf://org/model/a.pth", "--keep", "layer3*", "-o", "out.pth")
    assert code == 0, err
    found = torch.load(tmp_path / "out.pth", weights_only=True)
    assert set(found) == {key for key in state if key.startswith("layer3")}
    assert all(torch.equal(found[key], state[key]) for key in found)
    place = data.index(state["layer39.weight"].numpy().tobytes()[:64]) + 5
    hub.files["org/bad"] = {"a.pth": data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]}
    code, _, err = run("filter", "hf://org/bad/a.pth", "--keep", "layer39.*", "-o", "bad.pth")
    assert code == 2 and "is damaged" in err and not (tmp_path / "bad.pth").exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_header_that_lies_is_found_when_its_bytes_are_read(hub: Hub, run: Run, tmp_path: Path, legacy: bool) -> None:
    state = {f"layer{n}.weight": torch.full((100_000,), float(n)) for n in range(30)}
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    data = bytearray((tmp_path / "a.pth").read_bytes())
    places = {key: data.index(tensor.numpy().tobytes()[:4000]) for key, tensor in state.items()}
    first, last = min(places, key=places.__getitem__), max(places, key=places.__getitem__)
    at = places[last]
    if legacy:
        data[at - 8 : at] = (7).to_bytes(8, "little")
    else:
        at = data.rindex(b"PK\x03\x04", 0, at)
        data[at + 30] ^= 1  # its name
    hub.files["org/model"] = {"a.pth": bytes(data)}
    assert run("inspect", "hf://org/model/a.pth")[0] == 0, "it is not read yet"
    assert run("filter", "hf://org/model/a.pth", "--keep", first, "-o", "one.pth")[0] == 0
    code, _, err = run("filter", "hf://org/model/a.pth", "--keep", last, "-o", "out.pth")
    assert code == 2 and "is damaged" in err and not (tmp_path / "out.pth").exists()


def test_values_are_compared_and_summed_over_the_network(hub: Hub, run: Run, tmp_path: Path) -> None:
    tensors = layers(30, 100_000)
    changed = tensors | {"layers.7.weight": tensors["layers.7.weight"] + 1}
    hub.files["org/a"] = {"model.safetensors": one_file(tmp_path, tensors)}
    hub.files["org/b"] = shards_of(tmp_path, changed, 3)
    assert run("diff", "hf://org/a", "hf://org/b", "--keys-only")[0] == 0
    assert max(stop - start for start, stop in hub.ranges) <= 131072
    hub.log.asked.clear()
    code, out, err = run("diff", "hf://org/a", "hf://org/b")
    assert code == 1 and "1 of 30 tensors" in out, err
    assert len(hub.ranges) < 30
    one_file(tmp_path, tensors)
    far = run("inspect", "hf://org/a", "--stats", "--json")[1]
    near = run("inspect", "one.safetensors", "--stats", "--json")[1]
    assert stats_of(far) == stats_of(near)
    assert run("check", "hf://org/b")[0] == 0


def stats_of(text: str) -> list[object]:
    return [tensor["stats"] for tensor in json.loads(text)["tensors"]]


def test_a_folder_is_remapped_and_merged(hub: Hub, run: Run, tmp_path: Path) -> None:
    tensors = layers(8, 40_000)
    files = shards_of(tmp_path, tensors, 2)
    hub.files["org/a"] = files | {"config.json": b'{"model_type": "x"}'}
    assert run("remap", "hf://org/a", "-r", "layers. -> blocks.", "-o", "out")[0] == 0
    assert (tmp_path / "out" / "config.json").read_bytes() == b'{"model_type": "x"}'
    assert set(ckptool.open(tmp_path / "out")) == {key.replace("layers", "blocks") for key in tensors}
    assert run("merge", "hf://org/a", "hf://org/a", "--method", "linear", "-o", "mean.safetensors")[0] == 0
    assert np.allclose(load_file(tmp_path / "mean.safetensors")["layers.3.weight"], tensors["layers.3.weight"])


# --- which repository, which commit -----------------------------------------------------------------------------------


def test_data_sets_revisions_and_pages_of_the_web(hub: Hub, run: Run, tmp_path: Path) -> None:
    data = one_file(tmp_path, layers(3, 1000))
    hub.files["datasets/org/set"] = {"sub/model.safetensors": data}
    hub.files["org/model"] = {"model.safetensors": data}
    hub.revisions["refs/pr/3"] = ""
    commit = hub.commit("org/model")
    for address in (
        "hf://datasets/org/set/sub/model.safetensors",
        "hf://datasets/org/set/sub",
        "hf://org/model@refs/pr/3",
        "hf://models/org/model@main/model.safetensors",
        f"hf://org/model@{commit}",
        f"{hub.url}/org/model",
        f"{hub.url}/org/model/blob/refs%2Fpr%2F3/model.safetensors",
        f"{hub.url}/datasets/org/set/tree/main/sub",
    ):
        assert len(ckptool.open(address)) == 3, address


def test_names_come_in_pages_and_without_sizes(hub: Hub, tmp_path: Path) -> None:
    hub.files["org/model"] = shards_of(tmp_path, layers(9, 1000), 3)
    hub.pages = 2
    assert len(ckptool.open("hf://org/model")) == 9
    assert sum("cursor" in each.path for each in hub.log.asked) == 1
    hub.pages, hub.no_sizes = 0, True
    assert len(ckptool.open("hf://org/model")) == 9


def test_a_branch_is_one_commit_for_a_whole_command(hub: Hub, run: Run, tmp_path: Path) -> None:
    hub.files["org/model"] = shards_of(tmp_path, layers(9, 1000), 3)
    commit = hub.commit("org/model")
    assert run("inspect", "hf://org/model")[0] == 0
    resolved = [each.path for each in hub.log.asked if "/resolve/" in each.path]
    assert resolved and all(f"/resolve/{commit}/" in path for path in resolved)


def test_the_python_api_sees_a_new_commit(hub: Hub, tmp_path: Path) -> None:
    hub.files["org/model"] = {"model.safetensors": one_file(tmp_path, layers(3, 1000))}
    first = ckptool.open("hf://org/model")
    hub.files["org/model"] = {"model.safetensors": one_file(tmp_path, layers(4, 1000))}
    second = ckptool.open("hf://org/model")
    assert (len(first), len(second)) == (3, 4)
    assert first.files[0].identity != second.files[0].identity


@pytest.mark.parametrize(
    ("address", "error", "words"),
    [
        ("hf://org/none", UnreadableError, "does not exist, is private, or is gated"),
        ("hf://org/model@gone", MissingError, "no such revision"),
        ("hf://org/model/modl.safetensors", MissingError, "does not exist"),
        ("hf://org/model/../x", UsageError, "not a plain path"),
        ("hf://org/model//x", UsageError, "not a plain path"),
        ("hf://model", UsageError, "not an address of a repository"),
        ("hf://org/model@", UsageError, "no revision"),
        ("hf://buckets/org/x", UsageError, "does not read"),
    ],
)
def test_what_is_not_there_is_said(hub: Hub, tmp_path: Path, address: str, error: type[CkptError], words: str) -> None:
    hub.files["org/model"] = {"model.safetensors": one_file(tmp_path, layers(3, 1000))}
    with pytest.raises(error, match=words) as refused:
        ckptool.open(address)
    assert refused.value.hint


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_the_token_goes_to_the_hub_and_no_further(
    hub: Hub, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files["org/model"] = {"model.safetensors": one_file(tmp_path, layers(3, 1000)), "config.json": b"{}"}
    hub.token = "hf_secret"
    assert run("inspect", "hf://org/model")[0] == 2
    monkeypatch.setenv("HF_TOKEN", " hf_secret\n")
    code, out, err = run("inspect", "hf://org/model")
    assert code == 0 and "hf_secret" not in out + err
    assert "the token is sent there" in err, "HF_ENDPOINT is not the hub itself"
    for each in hub.log.asked[1:]:
        expected = "Bearer hf_secret" if each.server == "hub" else None
        assert each.headers.get("authorization") == expected
    assert any(each.server == "cdn" for each in hub.log.asked)
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text("hf_secret\n")
    assert run("inspect", "hf://org/model")[0] == 0
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    assert run("inspect", "hf://org/model")[0] == 2


def test_a_gated_repository(hub: Hub, run: Run, tmp_path: Path) -> None:
    hub.files["org/model"] = {"model.safetensors": one_file(tmp_path, layers(3, 1000))}
    hub.gated = True
    code, _, err = run("inspect", "hf://org/model")
    assert code == 2 and "is gated" in err and "HF_TOKEN" in err


# --- the cache of this machine ----------------------------------------------------------------------------------------


def put_into_cache(tmp_path: Path, hub: Hub, repository: str, *, two_hops: bool) -> str:
    """What the hub's own library leaves after a download."""
    commit = hub.commit(repository)
    root = tmp_path / "hf" / "hub" / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    (root / "blobs").mkdir()
    for number, (path, data) in enumerate(hub.files[repository].items()):
        blob = root / "blobs" / f"{number:064x}"
        if two_hops:
            shared = tmp_path / "hf" / "hub" / "blobs" / "ab" / f"{number:064x}"
            shared.parent.mkdir(parents=True, exist_ok=True)
            shared.write_bytes(data)
            blob.symlink_to(f"../../blobs/ab/{shared.name}")
        else:
            blob.write_bytes(data)
        link = root / "snapshots" / commit / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(*[".."] * (path.count("/") + 2)) / "blobs" / blob.name)
    return commit


@pytest.mark.parametrize("two_hops", [False, True])
def test_the_cache_is_read_first(
    hub: Hub, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_hops: bool
) -> None:
    hub.files["org/model"] = shards_of(tmp_path, layers(9, 1000), 3) | {"sub/x.bin": b"x"}
    commit = put_into_cache(tmp_path, hub, "org/model", two_hops=two_hops)
    code, out, _ = run("inspect", "hf://org/model")
    assert code == 0 and not hub.ranges and len(hub.log.asked) == 1, "which commit is asked"
    assert "read: 1 request, 0 B" in out
    hub.log.asked.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for address in ("hf://org/model", f"hf://org/model@{commit}", "hf://org/model/model.safetensors.index.json"):
        code, out, err = run("inspect", address)
        assert code == 0 and "9 tensors" in out, err
        assert "read:" not in out or "read: 0 requests" in out
    code, _, err = run("inspect", "hf://org/other")
    assert code == 2 and "is not in the cache, and HF_HUB_OFFLINE is set" in err
    assert hub.log.asked == []
    file = locate_file("hf://org/model/sub/x.bin")
    assert file.size == 1 and str(file.path) == "hf://org/model/sub/x.bin"


def test_a_stale_cache_is_not_read(hub: Hub, run: Run, tmp_path: Path) -> None:
    hub.files["org/model"] = {"model.safetensors": one_file(tmp_path, layers(3, 1000))}
    put_into_cache(tmp_path, hub, "org/model", two_hops=False)
    hub.files["org/model"] = {"model.safetensors": one_file(tmp_path, layers(5, 1000))}
    assert "5 tensors" in run("inspect", "hf://org/model")[1]
    assert "5 tensors" in run("inspect", "hf://org/model/model.safetensors")[1]


def test_cached_files_are_never_written_to(hub: Hub, run: Run, tmp_path: Path) -> None:
    hub.files["org/model"] = {"model.safetensors": one_file(tmp_path, layers(3, 1000))}
    commit = put_into_cache(tmp_path, hub, "org/model", two_hops=False)
    blob = (tmp_path / f"hf/hub/models--org--model/snapshots/{commit}/model.safetensors").resolve()
    (tmp_path / "again.safetensors").symlink_to(blob)
    code, _, err = run("filter", "hf://org/model", "-o", "again.safetensors", "--force")
    assert code == 2 and "input" in err


# --- a hub that is none -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [["../x.safetensors"], ["/etc/x"], ["a\\b"], ["a//b"], ["c:/x"], ["a\0b"]])
def test_names_of_a_listing_that_lead_elsewhere(hub: Hub, run: Run, names: list[str]) -> None:
    hub.files["org/model"] = dict.fromkeys(names, b"x")
    code, _, err = run("inspect", "hf://org/model")
    assert code == 2 and "a name that leads elsewhere" in err


def test_outputs_are_no_addresses_of_the_hub(hub: Hub, run: Run, fixtures: Path) -> None:
    code, _, err = run("filter", str(fixtures / "resnet18.pth"), "-o", "hf://org/model/x.safetensors")
    assert code == 2 and "cannot be written" in err
    code, _, err = run("filter", str(fixtures / "resnet18.pth"), "-o", "https://host/x.safetensors")
    assert code == 2 and "cannot be written" in err


def test_a_folder_of_the_hub_says_what_it_holds(hub: Hub, tmp_path: Path) -> None:
    hub.files["org/model"] = {"a/b/model.safetensors": one_file(tmp_path, layers(3, 1000)), "c.txt": b"x"}
    root = locate("hf://org/model")
    assert [tuple(entry) for entry in root.entries()] == [("a", True), ("c.txt", False)]  # type: ignore[union-attr]
    below = root.folder("a").folder("b")  # type: ignore[union-attr]
    assert str(below.open("model.safetensors").path) == "hf://org/model/a/b/model.safetensors"


def test_addresses_are_targets_too(hub: Hub, run: Run, tmp_path: Path) -> None:
    tensors = layers(4, 1000)
    hub.files["org/a"] = {"model.safetensors": one_file(tmp_path, tensors)}
    hub.files["org/b"] = {"model.safetensors": one_file(tmp_path, tensors | {"head.weight": np.ones(3, np.float32)})}
    code, out, err = run("check", "hf://org/a", "--into", "hf://org/b")
    assert code == 1 and "head.weight" in out, err
    assert run("check", "hf://org/a", "--into", "hf://org/a")[0] == 0
    code, out, err = run("transplant", "hf://org/a", "--into", "hf://org/b", "-o", "out.safetensors")
    assert code == 0 and set(load_file(tmp_path / "out.safetensors")) == {*tensors, "head.weight"}, err
    code, _, err = run("remap", "hf://org/a", "-r", "layers. -> layers.", "--like", "hf://org/b", "--check")
    assert code == 1 and "head.weight" in err


def test_a_policy_that_is_not_trusted_asks_no_server(hub: Hub, run: Run, tmp_path: Path) -> None:
    tensors = layers(4, 1000)
    hub.files["org/a"] = {"model.safetensors": one_file(tmp_path, tensors)}
    (tmp_path / "ckptool.toml").write_text('into = "hf://org/a"\n')
    code, _, err = run("check", "one.safetensors")
    assert code == 2 and "lies outside" in err and hub.log.asked == []
    assert run("check", "one.safetensors", "--trust-policy")[0] == 0 and hub.log.asked


def test_the_report_names_the_commit(hub: Hub, run: Run, tmp_path: Path) -> None:
    hub.files["org/model"] = {"model.safetensors": one_file(tmp_path, layers(4, 1000))}
    commit = hub.commit("org/model")
    _, out, _ = run("inspect", "hf://org/model")
    assert f"pinned: hf://org/model@{commit}" in out
    _, again, _ = run("inspect", f"hf://org/model@{commit}")
    assert "4 tensors" in again and "pinned" not in again
    assert json.loads(run("inspect", "hf://org/model", "--json")[1])["transfer"]["commits"] == {
        "hf://org/model": commit
    }


@pytest.mark.parametrize("address", ["hf://org/model", "hf://org/model/model.safetensors"])
def test_a_captive_portal_is_no_hub(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    page = b"<html>Please log in</html>"
    with serving(lambda handler, asked: handler.say(200, page, Content_Type="text/html")) as (url, _):
        monkeypatch.setenv("HF_ENDPOINT", url)
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        code, _, err = run("inspect", address)
        assert code == 2 and "is not a hub" in err


def test_a_folder_with_files_of_any_kind_is_checked(hub: Hub, run: Run, tmp_path: Path) -> None:
    torch.save({"w": torch.ones(3)}, tmp_path / "w.bin")
    hub.files["org/model"] = {
        "a/w.bin": (tmp_path / "w.bin").read_bytes(),
        "b/other.bin": b"x" * 3000,
        "README.md": b"#",
    }
    code, out, err = run("check", "hf://org/model")
    assert code == 0 and "1 file" in out, err


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_other_containers_are_read_by_ranges(hub: Hub, run: Run, tmp_path: Path, save: Callable[..., None]) -> None:
    tensors = {f"w{n}": np.arange(n, 60_000 + n, dtype=np.float32) for n in range(12)}
    save(tmp_path / "a.npz", **tensors)
    hub.files["org/model"] = {"a.npz": (tmp_path / "a.npz").read_bytes()}
    code, out, err = run("filter", "hf://org/model/a.npz", "--keep", "w1", "--keep", "w7", "-o", "out.safetensors")
    assert code == 0 and "will read" in out, err
    found = load_file(tmp_path / "out.safetensors")
    assert set(found) == {"w1", "w7"} and all(np.array_equal(found[key], tensors[key]) for key in found)
    assert len(hub.ranges) <= 12 + 4, "each array has a header of its own"
