"""Sharded checkpoints: the index, the shards, and what may be wrong between them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ckptool.core.errors import CkptError, UnreadableError, UsageError
from ckptool.core.observations import MetadataDiffers, NoIndex, NotInIndex, WrongTotalSize
from ckptool.facts.words import notes_of
from ckptool.formats.opening import open_checkpoint

TENSORS = {f"layers.{n}.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3) + n for n in range(12)}
PARTS = [dict(list(TENSORS.items())[start : start + 4]) for start in (0, 4, 8)]


def shard_name(number: int, count: int = 3, suffix: str = "safetensors") -> str:
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    return f"{stem}-{number:05}-of-{count:05}.{suffix}"


def write_shard(path: Path, part: dict[str, torch.Tensor]) -> None:
    if path.suffix == ".safetensors":
        save_file(part, path, metadata={"format": "pt"})
    else:
        torch.save(part, path)


def write_index(folder: Path, weight_map: dict[str, str], suffix: str = "safetensors", **metadata: object) -> Path:
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    path = folder / f"{stem}.{suffix}.index.json"
    path.write_text(json.dumps({"metadata": metadata, "weight_map": weight_map}, indent=2, sort_keys=True) + "\n")
    return path


def write_sharded(folder: Path, suffix: str = "safetensors", **metadata: object) -> dict[str, str]:
    weight_map = {}
    for number, part in enumerate(PARTS, 1):
        write_shard(folder / shard_name(number, suffix=suffix), part)
        weight_map |= dict.fromkeys(part, shard_name(number, suffix=suffix))
    write_index(folder, weight_map, suffix, **(metadata or {"total_size": 12 * 24}))
    return weight_map


def refusal(path: Path) -> CkptError:
    with pytest.raises(CkptError) as refused:
        open_checkpoint(path)
    assert "\n" not in refused.value.message
    return refused.value


@pytest.mark.parametrize(("suffix", "kind"), [("safetensors", "safetensors"), ("bin", "torch zip")])
def test_a_sharded_folder_is_one_checkpoint(tmp_path: Path, suffix: str, kind: str) -> None:
    write_sharded(tmp_path, suffix)
    checkpoint = open_checkpoint(tmp_path)
    assert str(checkpoint.format) == f"{kind}, 3 shards"
    assert checkpoint.path == tmp_path
    files = [Path(file.path) for file in checkpoint.files]
    assert files == [tmp_path / shard_name(n, suffix=suffix) for n in (1, 2, 3)]
    assert checkpoint.nbytes == sum(file.stat().st_size for file in files)
    assert checkpoint.observations == ()
    loaded: dict[str, torch.Tensor] = {}
    for file in files:
        loaded |= load_file(file) if suffix == "safetensors" else torch.load(file)
    assert set(checkpoint) == set(loaded)
    for key, tensor in checkpoint.items():
        source, offset, nbytes = tensor.run
        assert Path(source.path).read_bytes()[offset : offset + nbytes] == loaded[key].numpy().tobytes()
    if suffix == "safetensors":
        assert checkpoint.metadata == {"format": "pt"}


def test_the_index_itself_can_be_given(tmp_path: Path) -> None:
    write_sharded(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    checkpoint = open_checkpoint(index)
    assert (checkpoint.path, len(checkpoint)) == (index, 12)
    (tmp_path / "other").mkdir()
    index.rename(tmp_path / "any.name")
    assert len(open_checkpoint(tmp_path / "any.name")) == 12


def test_other_index_names(tmp_path: Path) -> None:
    write_sharded(tmp_path)
    (tmp_path / "model.safetensors.index.json").rename(tmp_path / "unet.fp16.safetensors.index.json")
    assert len(open_checkpoint(tmp_path)) == 12
    (tmp_path / "vae.safetensors.index.json").write_text("{}")
    error = refusal(tmp_path)
    assert isinstance(error, UsageError)
    assert "holds 2 checkpoints" in error.message


def test_shards_without_an_index(tmp_path: Path) -> None:
    write_sharded(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    checkpoint = open_checkpoint(tmp_path)
    assert list(checkpoint) == sorted(TENSORS, key=lambda key: (int(key.split(".")[1]) // 4, key))
    assert checkpoint.observations == (NoIndex(),)
    (tmp_path / shard_name(2)).unlink()
    assert f"lacks 1 of 3 shards: {shard_name(2)}" in refusal(tmp_path).message


def test_shards_counted_from_nought(tmp_path: Path) -> None:
    for number, part in enumerate(PARTS):
        write_shard(tmp_path / shard_name(number), part)
    assert len(open_checkpoint(tmp_path)) == 12
    (tmp_path / shard_name(1)).rename(tmp_path / shard_name(3))
    assert "are not 3" in refusal(tmp_path).message


def test_a_count_that_is_a_lie_takes_no_time(tmp_path: Path) -> None:
    write_shard(tmp_path / "model-000000001-of-999999999.safetensors", PARTS[0])
    error = refusal(tmp_path)
    assert "lacks 999,999,998 of 999,999,999 shards: model-000000002-of-999999999.safetensors" in error.message


def test_one_shard_alone_says_so(tmp_path: Path) -> None:
    write_sharded(tmp_path)
    checkpoint = open_checkpoint(tmp_path / shard_name(2))
    assert set(checkpoint) == set(PARTS[1])
    assert "this is one of 3 shards" in [note.text for note in notes_of(checkpoint)]


def test_a_hub_cache_of_links(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0123"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    write_sharded(blobs)
    for number, file in enumerate(sorted(blobs.iterdir())):
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
        file.rename(blobs / str(number))
    checkpoint = open_checkpoint(snapshot)
    assert len(checkpoint) == 12
    assert checkpoint.files[0].path == snapshot / shard_name(1)
    (blobs / "1").unlink()
    error = refusal(snapshot)
    assert "3 shards, 1 of them missing" in error.message


def test_missing_shards_are_named(tmp_path: Path) -> None:
    write_sharded(tmp_path)
    (tmp_path / shard_name(2)).unlink()
    error = refusal(tmp_path)
    assert f"names 3 shards, 1 of them missing: {shard_name(2)}" in error.message
    assert error.hint == "download what is missing"


def test_a_shard_that_is_no_checkpoint(tmp_path: Path) -> None:
    write_sharded(tmp_path)
    (tmp_path / shard_name(2)).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    error = refusal(tmp_path)
    assert str(tmp_path / shard_name(2)) in error.message
    assert "Git LFS pointer" in error.message
    (tmp_path / shard_name(2)).unlink()
    (tmp_path / shard_name(2)).mkdir()
    assert "a folder" in refusal(tmp_path).message
    (tmp_path / shard_name(2)).rmdir()
    write_index(tmp_path, {"a": "model.safetensors.index.json"})
    assert "index of shards where a shard should be" in refusal(tmp_path).message


def test_a_truncated_shard(tmp_path: Path) -> None:
    write_sharded(tmp_path)
    path = tmp_path / shard_name(3)
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{path} ends early" in refusal(tmp_path).message


def test_shards_of_two_formats(tmp_path: Path) -> None:
    write_sharded(tmp_path)
    torch.save(PARTS[1], tmp_path / shard_name(2))
    assert "several formats: safetensors, torch zip" in refusal(tmp_path).message


def test_a_key_in_two_shards(tmp_path: Path) -> None:
    weight_map = write_sharded(tmp_path)
    write_shard(tmp_path / shard_name(2), PARTS[1] | {"layers.0.weight": torch.ones(1)})
    for _ in range(2):  # with and without the index
        error = refusal(tmp_path)
        assert f'"layers.0.weight" is in two shards: {shard_name(1)} and {shard_name(2)}' in error.message
        assert error.key == "layers.0.weight"
        (tmp_path / "model.safetensors.index.json").unlink(missing_ok=True)
    assert weight_map["layers.0.weight"] == shard_name(1)


def test_a_key_that_its_shard_lacks(tmp_path: Path) -> None:
    weight_map = write_sharded(tmp_path)
    write_index(tmp_path, weight_map | {"head.weight": shard_name(3)})
    assert f'puts "head.weight" into {shard_name(3)}, but no shard has it' in refusal(tmp_path).message
    write_index(tmp_path, weight_map | {"layers.0.weight": shard_name(3)})
    message = f'puts "layers.0.weight" into {shard_name(3)}, but it is in {shard_name(1)}'
    assert message in refusal(tmp_path).message


def test_a_key_that_the_index_lacks(tmp_path: Path) -> None:
    weight_map = write_sharded(tmp_path)
    del weight_map["layers.5.weight"]
    write_index(tmp_path, weight_map)
    checkpoint = open_checkpoint(tmp_path)
    assert len(checkpoint) == 11
    assert list(checkpoint.other_tensors) == ["layers.5.weight"]
    assert checkpoint.observations == (NotInIndex(("layers.5.weight",)),)


def test_a_total_size_that_disagrees_is_a_note(tmp_path: Path) -> None:
    write_sharded(tmp_path, total_size=1000)
    assert open_checkpoint(tmp_path).observations == (WrongTotalSize(1000, 288),)


def test_metadata_that_differs_is_a_note(tmp_path: Path) -> None:
    write_sharded(tmp_path)
    save_file(PARTS[1], tmp_path / shard_name(2), metadata={"format": "np", "x": "y"})
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.metadata == {"format": "pt", "x": "y"}
    assert checkpoint.observations == (MetadataDiffers(("format",)),)


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "a\\b", "", ".", "..", "a\0b", "https://host/x"]
)
def test_shard_names_may_not_leave_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    write_shard(tmp_path / "x.safetensors", {"secret": torch.ones(1)})
    write_index(folder, {"secret": name})
    error = refusal(folder)
    assert "which is not a plain file name" in error.message
    assert error.key == "secret"


def test_a_shard_name_longer_than_any_file(tmp_path: Path) -> None:
    write_index(tmp_path, {"a": "x" * 300})
    assert isinstance(refusal(tmp_path), UnreadableError)


BROKEN = {
    "no map": ('{"metadata":{}}', "no weight_map"),
    "empty map": ('{"weight_map":{}}', "no weight_map"),
    "a list": ('["weight_map"]', "is not a JSON object"),
    "map is a list": ('{"weight_map":["a"]}', "weight_map that is not an object"),
    "a number": ('{"weight_map":{"a":1}}', '"a" of weight_map that is not text'),
    "twice": ('{"weight_map":{"a":"x","a":"y"}}', 'names "a" twice in weight_map'),
    "two maps": ('{"weight_map":{"a":"x"},"weight_map":{"b":"y"}}', 'names "weight_map" twice'),
    "deep": ('{"weight_map":{"a":"x"},"b":' + "[" * 30000 + "]" * 30000 + "}", "is not valid JSON"),
    "deep map": ('{"weight_map":' + '{"a":' * 100_000, "not text"),
    "cut": ('{"weight_map":{"a":"x"', "is not valid JSON"),
    "infinite": ('{"weight_map":{"a":"x"},"metadata":{"total_size":Infinity}}', "Infinity"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_indexes(tmp_path: Path, case: str) -> None:
    text, words = BROKEN[case]
    (tmp_path / "model.safetensors.index.json").write_text(text)
    error = refusal(tmp_path / "model.safetensors.index.json" if "weight_map" in text[:20] else tmp_path)
    assert words in error.message or "is JSON" in error.message


def test_torch_shards_with_more_than_weights(tmp_path: Path) -> None:
    for number, part in enumerate(PARTS, 1):
        content = {"state_dict": part, "step": 7, "number": number}
        torch.save(content, tmp_path / shard_name(number, suffix="bin"))
    checkpoint = open_checkpoint(tmp_path, "state_dict")
    assert len(checkpoint) == 12
    assert checkpoint.selection.path == ("state_dict",)
    assert [extra.name for extra in checkpoint.extras].count("step") == 1
    assert [extra.name for extra in checkpoint.extras].count("number") == 3
    assert {use.name for use in checkpoint.globals} >= {"torch._utils._rebuild_tensor_v2"}
    assert sum(use.calls for use in checkpoint.globals if use.name == "torch._utils._rebuild_tensor_v2") == 12
