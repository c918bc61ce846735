"""What a path holds: chosen by content, and said in words where it is not a checkpoint."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ckptool.commands.checks.paths import find_targets
from ckptool.core.errors import CkptError, UnreadableError, UsageError
from ckptool.formats.opening import open_checkpoint

TENSORS = {"fc.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3), "fc.bias": torch.ones(2)}


def refusal(path: Path | str) -> CkptError:
    with pytest.raises(CkptError) as refused:
        open_checkpoint(path)
    assert "\n" not in refused.value.message
    return refused.value


def saved(folder: Path, name: str, *, legacy: bool = False) -> Path:
    path = folder / name
    if name.endswith(".safetensors"):
        save_file(TENSORS, path)
    else:
        torch.save(TENSORS, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth", "no_extension", "model.txt"])
@pytest.mark.parametrize("kind", ["safetensors", "torch zip", "torch legacy"])
def test_content_decides_not_the_name(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    saved(tmp_path, "x.safetensors" if kind == "safetensors" else "x.pt", legacy=kind == "torch legacy").rename(path)
    checkpoint = open_checkpoint(path)
    assert str(checkpoint.format) == kind
    assert {key: tensor.spec.short for key, tensor in checkpoint.items()} == {
        "fc.weight": "f32[2,3]", "fc.bias": "f32[2]",
    }  # fmt: skip
    assert open_checkpoint(str(path)).path == path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_legacy_files_of_every_protocol_are_known(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "x.pth"
    torch.save(TENSORS, path, _use_new_zipfile_serialization=False, pickle_protocol=protocol)
    assert str(open_checkpoint(path).format) == "torch legacy"


def tar(*names: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


def other_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "hello")
    return buffer.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1048576\n"
ONNX = b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\x80\x01\n\x10\n\x01x\x12\x01y\x1a\x02fc"

NOT_CHECKPOINTS = {
    "empty": (b"", "is empty"),
    "git lfs": (POINTER, f"is a Git LFS pointer, not the weights ({len(POINTER)} bytes)"),
    "html": (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
    "html with spaces": (b"\n\n  <HTML lang=en>", "web page"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "web page or XML"),
    "json": (b'{"error": "not found"}', "is JSON"),
    "json list": (b"[1, 2]", "is JSON"),
    "text": ("Ümlauts are text\n".encode(), "is text"),
    "gzip": (gzip.compress(b"x" * 100), "gzip"),
    "bzip2": (bz2.compress(b"x" * 100), "bzip2"),
    "xz": (lzma.compress(b"x" * 100), "xz"),
    "zstd": (b"\x28\xb5\x2f\xfd\x24\x00\x01\x00\x00", "zstd"),
    "7z": (b"7z\xbc\xaf\x27\x1c\x00\x04", "7z"),
    "rar": (b"Rar!\x1a\x07\x01\x00", "rar"),
    "tar": (tar("notes.txt"), "is a tar archive"),
    "old torch": (tar("sys_info", "pickle", "tensors", "storages"), "tar format of torch before 0.1.10"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    "zip": (other_zip(), "zip"),
    "onnx": (ONNX, "ONNX"),
    "core ml": (b"\x08\x04\x12\x92\x01\x0a\x33\x0a\x05image\x12\x05", "Core ML"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(20), "TensorFlow Lite"),
    "tf checkpoint": (b'model_checkpoint_path: "model.ckpt-100"\n', "TensorFlow checkpoint"),
    "tf index": (bytes(48) + b"\x01" * 40 + bytes.fromhex("57fb808b247547db"), "index of a TensorFlow checkpoint"),
    "flax": (b"\x82\xa6params\x81\xa5Dense\x81\xa6kernel\xc7\x00\x01", "msgpack"),
    "pickle": (pickle.dumps({"a": [1, 2]}, 4), "not one that torch.save wrote"),
    "old pickle": (pickle.dumps({"a": [1, 2]}, 0), "not one that torch.save wrote"),
    "pickle of protocol 1": (pickle.dumps({"a": [1, 2]}, 1), "not one that torch.save wrote"),
    "zeros": (bytes(10_000), "begins with zeros"),
    "noise": (bytes(range(128, 256)) * 4, "not a checkpoint that ckptool knows"),
    "one byte": (b"\x80", "not a checkpoint that ckptool knows"),
}


@pytest.mark.parametrize("case", NOT_CHECKPOINTS)
def test_not_a_checkpoint_is_said_in_words(tmp_path: Path, case: str) -> None:
    content, words = NOT_CHECKPOINTS[case]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    error = refusal(path)
    assert isinstance(error, UnreadableError)
    assert words in error.message
    assert str(path) in error.message
    assert error.path == path
    assert error.hint or "zip" in case


def test_hints_can_be_followed(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(POINTER)
    assert refusal(path).hint == "git lfs pull --include model.safetensors"


def test_an_old_torch_pickle_is_never_run(tmp_path: Path) -> None:
    class Boom:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    (tmp_path / "x.pth").write_bytes(pickle.dumps(Boom()))
    refusal(tmp_path / "x.pth")
    assert not (tmp_path / "ran").exists()


# --- paths ----------------------------------------------------------------------------------------------------------


def test_a_missing_file_and_its_near_miss(tmp_path: Path) -> None:
    saved(tmp_path, "resnet18.pth")
    error = refusal(tmp_path / "resnet81.pth")
    assert "does not exist" in error.message
    assert str(tmp_path / "resnet18.pth") in str(error.hint)
    assert "nor does its folder" in refusal(tmp_path / "no" / "where.pth").message
    assert "does not exist" in refusal(tmp_path / "resnet18.pth" / "x").message


@pytest.mark.parametrize("address", ["file:///etc/passwd", "FTP://host/x", "hf://model", "https:///x", "s3://"])
def test_addresses_of_other_kinds_are_refused(address: str) -> None:
    error = refusal(address)
    assert isinstance(error, UsageError)
    assert address.partition(":")[0].lower() in error.message


def test_links(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert "loop" in refusal(tmp_path / "a").message
    (tmp_path / "c").symlink_to("gone.pth")
    assert "-> gone.pth" in refusal(tmp_path / "c").message
    saved(tmp_path, "x.pth")
    (tmp_path / "d").symlink_to("x.pth")
    assert str(open_checkpoint(tmp_path / "d").format) == "torch zip"


def test_pipes_and_devices_do_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "named pipe" in refusal(tmp_path / "pipe").message
    assert "device" in refusal("/dev/zero").message


def test_a_name_with_a_nul(tmp_path: Path) -> None:
    assert refusal(f"{tmp_path}/a\0b").message
    assert "too long" in refusal(tmp_path / ("x" * 300)).message


def test_permission_denied(tmp_path: Path) -> None:
    path = saved(tmp_path, "x.pth")
    path.chmod(0)
    root = os.geteuid() == 0
    if root:  # who may read everything
        os.seteuid(65534)
    try:
        assert "may not be read" in refusal(path).message
    finally:
        if root:
            os.seteuid(0)


# --- folders --------------------------------------------------------------------------------------------------------


def test_folders_with_one_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    saved(tmp_path, "training_args.bin")
    saved(tmp_path, "optimizer.pt")
    path = saved(tmp_path, "anything.ckpt", legacy=True)
    checkpoint = open_checkpoint(tmp_path)
    assert (checkpoint.path, str(checkpoint.format), checkpoint.observations) == (path, "torch legacy", ())


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "adapter_model.safetensors"])
def test_names_that_loaders_look_for_come_first(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, name)
    saved(tmp_path, "a.pth")
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.path == path
    assert checkpoint.unopened == ("a.pth",)


@pytest.mark.parametrize("pair", [("model.safetensors", "pytorch_model.bin"), ("lora.safetensors", "lora.pt")])
def test_safetensors_wins_over_a_pickle(tmp_path: Path, pair: tuple[str, str]) -> None:
    saved(tmp_path, pair[0])
    (tmp_path / pair[1]).write_bytes(saved(tmp_path, "tmp.pt").read_bytes())
    (tmp_path / "tmp.pt").unlink()
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.path == tmp_path / pair[0]
    assert checkpoint.unopened == (pair[1],)


def test_several_checkpoints_are_listed(tmp_path: Path) -> None:
    saved(tmp_path, "epoch1.pth")
    saved(tmp_path, "epoch2.pth")
    error = refusal(tmp_path)
    assert isinstance(error, UsageError)
    assert "holds 2 checkpoints: epoch1.pth, epoch2.pth" in error.message
    assert str(tmp_path / "epoch1.pth") in str(error.hint)


def test_folders_without_a_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "model.safetensors"
    folder.mkdir()
    assert "is empty" in refusal(folder).message
    (folder / "readme.md").write_text("hello")
    assert "holds no checkpoint" in refusal(folder).message
    (folder / "inner").mkdir()
    saved(folder / "inner", "model.safetensors")
    assert str(folder / "inner") in str(refusal(folder).hint)
    (folder / "model.safetensors").mkdir()
    assert "holds no checkpoint" in refusal(folder).message
    (folder / "weights.bin").write_bytes(POINTER)
    assert "Git LFS pointer" in refusal(folder).message
    (folder / "saved_model.pb").write_bytes(b"\x08\x01")
    (folder / "weights.bin").unlink()
    assert "SavedModel" in refusal(folder).message


def test_a_cloned_repository_without_its_large_files(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(POINTER)
    assert "Git LFS pointer" in refusal(tmp_path).message


def test_a_pipe_in_a_folder_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.pipe")
    saved(tmp_path, "x.pth")
    assert open_checkpoint(tmp_path).path == tmp_path / "x.pth"


def test_an_index_of_another_kind_is_json(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"weights": {}}))
    assert "is JSON" in refusal(tmp_path / "x.json").message


def test_the_collector_is_running_again(tmp_path: Path) -> None:
    import gc

    saved(tmp_path, "x.pth")
    open_checkpoint(tmp_path / "x.pth")
    assert gc.isenabled()
    refusal(tmp_path / "gone")
    assert gc.isenabled()


OTHER_FOLDERS = {
    "saved_model.pb": ("TensorFlow SavedModel", "tf.saved_model.load"),
    "model.ckpt-7.data-00000-of-00001": ("TensorFlow checkpoint", "tf.train.load_checkpoint"),
    "_CHECKPOINT_METADATA": ("Orbax", "orbax.checkpoint"),
    "manifest.ocdbt": ("Orbax", "orbax.checkpoint"),
    "Manifest.json": ("Core ML package", "converted from"),
}


@pytest.mark.parametrize("name", OTHER_FOLDERS)
def test_folders_of_other_libraries_are_named(tmp_path: Path, name: str) -> None:
    words, help_words = OTHER_FOLDERS[name]
    (tmp_path / "Data").mkdir()
    (tmp_path / name).write_bytes(b"\xd1\x01")
    error = refusal(tmp_path)
    assert words in error.message
    assert help_words in (error.hint or "")
    with pytest.raises(CkptError, match=words):  # `check` searches folders, and names these all the same
        find_targets([tmp_path])


LYING = {  # cut off, or with counts and lengths of 4 GB and more
    "a.msgpack": (b"\x81\xa6params\xc6\xff\xff\xff\xff", "msgpack"),
    "b.msgpack": (b"\xdf\xff\xff\xff\xff\xa6params", "msgpack"),
    "c.msgpack": (b"\x81\xa6params\x81\xa1w\xc7", "msgpack"),
    "d.msgpack": (b"\x81\xa1a" * 100_000, "not a checkpoint"),
    "a.h5": (b"\x89HDF\r\n\x1a\n", "HDF5"),
    "b.h5": (b"\x89HDF\r\n\x1a\n" + b"\xff" * 600, "HDF5"),
    "a.keras": (b"PK\3\4" + b"\xff" * 100, "cut off"),
    "a.onnx": (b"\x08\x07\x12\x07pytorch\x3a\xff\xff\xff\xff\x0f", "ONNX"),
    "b.onnx": (b"\x08\x07\x3a" + b"\xff" * 9 + b"\x01", "ONNX"),
    "c.onnx": (b"\xad\x34\x2b" * 99, "not a checkpoint"),
}


@pytest.mark.parametrize("name", LYING)
def test_lying_files_of_other_libraries_are_named(tmp_path: Path, name: str) -> None:
    data, words = LYING[name]
    (tmp_path / name).write_bytes(data)
    assert words in refusal(tmp_path / name).message


def test_numbers_of_a_tensorflow_checkpoint_are_named(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt.data-00000-of-00001").write_bytes(b"\x3f\x80\x11\xb1" * 20)
    error = refusal(tmp_path / "model.ckpt.data-00000-of-00001")
    assert "TensorFlow checkpoint" in error.message
    assert "tf.train.load_checkpoint" in (error.hint or "")


def test_kerass_zip_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(name, "{}")
    assert "h5py" in (refusal(tmp_path / "m.keras").hint or "")
