"""torch.distributed checkpoints, written and read back by torch itself."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed._shard.sharded_tensor import Shard, ShardedTensor, init_from_local_shards
from torch.distributed.checkpoint.filesystem import FileSystemWriter, SerializationFormat
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, TensorProperties

import ckptool
from ckptool.core.errors import CkptError, UnreadableError, UsageError
from ckptool.core.tensor import Tensor
from ckptool.engine.reading import read_array
from ckptool.facts.words import notes_of
from ckptool.formats.opening import open_checkpoint

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated"),
]


def training() -> dict[str, object]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "note": "hello", "best": None}


def save(state: dict[str, object], folder: Path, **options: object) -> Path:
    writer = FileSystemWriter(folder, **options)  # type: ignore[arg-type]
    dcp.save(state, storage_writer=writer, no_dist=True)
    return folder


def refusal(folder: Path) -> CkptError:
    with pytest.raises(CkptError) as refused:
        open_checkpoint(folder)
    assert "\n" not in refused.value.message
    return refused.value


def assembled(tensor: Tensor) -> bytes:
    """The tensor's bytes, put together from its pieces."""
    itemsize = tensor.nbytes // max(tensor.elements, 1)
    whole = np.full((*tensor.shape, itemsize), 0xEE, np.uint8)
    filled = np.zeros(tensor.shape, int)
    for piece in tensor.pieces:
        with Path(piece.storage.file.path).open("rb") as file:
            file.seek(piece.storage.offset)
            data = np.frombuffer(file.read(piece.storage.nbytes), np.uint8)
        strides = piece.strides
        if strides is None:
            strides = tuple(int(np.prod(piece.shape[axis + 1 :])) for axis in range(len(piece.shape)))
        box = np.lib.stride_tricks.as_strided(
            data[piece.start * itemsize :], (*piece.shape, itemsize), (*(step * itemsize for step in strides), 1)
        )
        if piece.first is not None:
            rows, counts = whole.reshape(-1, itemsize), filled.reshape(-1)
            rows[piece.first : piece.first + piece.elements] = box
            counts[piece.first : piece.first + piece.elements] += 1
            continue
        at = piece.at or (0,) * len(tensor.shape)
        place = tuple(slice(start, start + size) for start, size in zip(at, piece.shape, strict=True))
        whole[place] = box
        filled[place] += 1
    assert (filled == 1).all()
    return whole.tobytes()


def assert_equals(tensor: Tensor, expected: torch.Tensor) -> None:
    assert (tensor.dtype, tensor.shape) == (str(expected.dtype)[6:], tuple(expected.shape))
    if expected.numel():
        assert assembled(tensor) == bytes(expected.contiguous().reshape(-1).view(torch.uint8).numpy())


def flat(state: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    for key, value in items:
        if isinstance(value, (dict, list)):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def test_a_training_checkpoint(tmp_path: Path) -> None:
    folder = save(training(), tmp_path / "c")
    checkpoint = open_checkpoint(folder)
    dcp_to_torch_save(folder, tmp_path / "c.pt")
    loaded = torch.load(tmp_path / "c.pt", weights_only=False)
    assert str(checkpoint.format) == "torch.distributed"
    assert checkpoint.path == folder
    assert [file.path for file in checkpoint.files] == [folder / "__0_0.distcp"]
    assert checkpoint.nbytes == sum(file.stat().st_size for file in folder.iterdir())
    assert checkpoint.selection.path == ("model",)
    assert list(checkpoint) == list(loaded["model"])
    for key, tensor in checkpoint.items():
        assert_equals(tensor, loaded["model"][key])
    others = {key: value for key, value in flat(loaded) if torch.is_tensor(value) and not key.startswith("model.")}
    assert set(checkpoint.other_tensors) == set(others)
    for key, tensor in checkpoint.other_tensors.items():
        assert_equals(tensor, others[key])
    assert {extra.name: extra.text for extra in checkpoint.extras} == {
        "optimizer": "param_groups: 1, state: 4 entries", "epoch": "3", "note": "hello", "best": "None",
    }  # fmt: skip
    optimizer = next(extra for extra in checkpoint.extras if extra.name == "optimizer")
    assert (optimizer.tensors, optimizer.nbytes) == (len(others), sum(t.nbytes for t in others.values()))
    assert {use.risk for use in checkpoint.globals} == {"harmless"}
    assert checkpoint.observations == ()


def test_select(tmp_path: Path) -> None:
    state = {"app": {"model": {"a.b": torch.ones(2)}, "ema": {"a.b": torch.zeros(2)}}, "step": 1}
    folder = save(state, tmp_path / "c")
    assert open_checkpoint(folder).selection.path == ("app", "model")
    ema = open_checkpoint(folder, "app.ema")
    assert list(ema) == ["a.b"]
    assert_equals(ema["a.b"], torch.zeros(2))
    with pytest.raises(UsageError):
        open_checkpoint(folder, "app.nothing")


def test_a_flat_state_dict(tmp_path: Path) -> None:
    state = {"model.a.weight": torch.ones(2, 3), "lm_head.weight": torch.zeros(3)}
    checkpoint = open_checkpoint(save(dict(state), tmp_path / "c"))
    assert list(checkpoint) == list(state)
    assert checkpoint.selection.path == ()


def test_keys_without_recorded_paths(tmp_path: Path) -> None:
    folder = save(training(), tmp_path / "c")
    change(folder, lambda metadata: setattr(metadata, "planner_data", None))
    checkpoint = open_checkpoint(folder)
    assert checkpoint.selection.path == ("model",)
    assert "1.running_mean" in checkpoint
    assert "optimizer.state.0.exp_avg" in checkpoint.other_tensors


DTYPES = [
    torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.bool,
    torch.int8, torch.uint8, torch.int16, torch.uint16, torch.uint32, torch.int64, torch.uint64,
]  # fmt: skip


def test_dtypes_and_views(tmp_path: Path) -> None:
    state: dict[str, object] = {
        str(d): (torch.arange(24, dtype=torch.uint8) % 2).view(d).reshape(1, -1) for d in DTYPES
    }
    state |= {
        "t": torch.arange(6.0).reshape(2, 3).t(),
        "v": torch.arange(10.0)[2:5],
        "0-dim": torch.tensor(1.5),
        "empty": torch.empty(0, 3),
        "expanded": torch.ones(1, 3).expand(4, 3),
        "conj": torch.tensor([1 + 2j]).conj(),
    }
    checkpoint = open_checkpoint(save(dict(state), tmp_path / "c"))
    for key, value in state.items():
        assert isinstance(value, torch.Tensor)
        if key == "conj":
            assert checkpoint[key].conj
            value = value.conj()
        assert_equals(checkpoint[key], value)


@pytest.mark.parametrize("options", [{"single_file_per_rank": False}, {"thread_count": 3}])
def test_several_files(tmp_path: Path, options: dict[str, object]) -> None:
    state = training()
    checkpoint = open_checkpoint(save(state, tmp_path / "c", **options))
    assert len(checkpoint.files) > 1
    for key, tensor in checkpoint.items():
        assert_equals(tensor, state["model"][key])  # type: ignore[index]


def test_objects_that_hold_tensors(tmp_path: Path) -> None:
    state: dict[str, object] = {"model": {"a": torch.ones(2)}, "pair": (torch.arange(3), torch.arange(4.0))}
    checkpoint = open_checkpoint(save(state, tmp_path / "c"))
    assert list(checkpoint) == ["a"]
    assert_equals(checkpoint.other_tensors["pair.0"], torch.arange(3))
    assert_equals(checkpoint.other_tensors["pair.1"], torch.arange(4.0))


# --- chunks ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def group() -> Iterator[None]:
    """A process group of one, so that one process can hold all shards of a tensor."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def sharded(whole: torch.Tensor, boxes: list[tuple[list[int], list[int]]]) -> ShardedTensor:
    shards = []
    for at, shape in boxes:
        place = tuple(slice(start, start + size) for start, size in zip(at, shape, strict=True))
        shards.append(Shard.from_tensor_and_offsets(whole[place].clone(), at, 0))
    return init_from_local_shards(shards, *whole.shape)


ROWS = [([0, 0], [3, 4]), ([3, 0], [2, 4])]
GRID = [([r, c], [min(2, 5 - r), min(3, 4 - c)]) for r in (0, 2, 4) for c in (0, 3)]


@pytest.mark.parametrize("boxes", [ROWS, GRID, [([0, c], [5, 1]) for c in range(4)]])
def test_chunks_make_up_the_tensor(tmp_path: Path, group: None, boxes: list[tuple[list[int], list[int]]]) -> None:
    whole = torch.arange(20, dtype=torch.bfloat16).reshape(5, 4)
    folder = save({"model": {"w": sharded(whole, boxes), "b": torch.ones(3)}}, tmp_path / "c")
    target = {"model": {"w": torch.zeros_like(whole), "b": torch.zeros(3)}}
    dcp.load(target, checkpoint_id=folder, no_dist=True)
    assert torch.equal(target["model"]["w"], whole)
    checkpoint = open_checkpoint(folder)
    assert checkpoint["w"].spec.short == "bf16[5,4]"
    assert len(checkpoint["w"].pieces) == len(boxes)
    assert_equals(checkpoint["w"], target["model"]["w"])
    assert read_array(checkpoint["w"]).astype("float32").tolist() == whole.tolist()


def rank_saves(rank: int, folder: str, port: int) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, distribute_tensor
    from torch.distributed.tensor import Shard as OnAxis

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    whole = torch.arange(35.0).reshape(7, 5)
    state = {
        "rows": distribute_tensor(whole, mesh, [OnAxis(0)]),
        "columns": distribute_tensor(whole, mesh, [OnAxis(1)]),
        "same": distribute_tensor(whole, mesh, [Replicate()]),
        "short": distribute_tensor(torch.ones(1, 2), mesh, [OnAxis(0)]),  # the second rank has nothing of it
    }
    dcp.save({"model": state, "epoch": 1}, checkpoint_id=folder)
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes(tmp_path: Path) -> None:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(rank_saves, (str(tmp_path / "c"), port), nprocs=2)
    checkpoint = open_checkpoint(tmp_path / "c")
    whole = torch.arange(35.0).reshape(7, 5)
    assert len(checkpoint.files) == 2
    assert {len(checkpoint[key].pieces) for key in ("rows", "columns")} == {2}
    for key in ("rows", "columns", "same"):
        assert_equals(checkpoint[key], whole)
    assert_equals(checkpoint["short"], torch.ones(1, 2))
    assert [extra.text for extra in checkpoint.extras] == ["1"]


# --- damage ---------------------------------------------------------------------------------------------------------


def change(folder: Path, edit: Callable[[Metadata], object]) -> Path:
    """Rewrite `.metadata`; it is our own, so that pickle may read it here."""
    path = folder / ".metadata"
    metadata = pickle.loads(path.read_bytes())
    edit(metadata)
    path.write_bytes(pickle.dumps(metadata))
    return folder


@pytest.fixture
def folder(tmp_path: Path, group: None) -> Path:
    whole = torch.arange(20.0).reshape(5, 4)
    return save({"w": sharded(whole, ROWS), "b": torch.ones(3), "epoch": 1}, tmp_path / "c")


def first(metadata: Metadata) -> MetadataIndex:
    return next(index for index in metadata.storage_data if index.fqn == "w")


def stored(metadata: Metadata, **fields: object) -> None:
    """Change where the first chunk of w is stored."""
    metadata.storage_data[first(metadata)] = replace(metadata.storage_data[first(metadata)], **fields)


def chunked(number: int, **fields: list[int]) -> Callable[[Metadata], None]:
    """Change a chunk of w, and the index along with it."""

    def edit(metadata: Metadata) -> None:
        chunks = metadata.state_dict_metadata["w"].chunks
        old = chunks[number]
        chunks[number] = replace(old, **{name: torch.Size(value) for name, value in fields.items()})
        info = metadata.storage_data.pop(MetadataIndex("w", old.offsets))
        metadata.storage_data[MetadataIndex("w", chunks[number].offsets)] = info

    return edit


def properties(dtype: torch.dtype) -> Callable[[Metadata], None]:
    return lambda metadata: setattr(metadata.state_dict_metadata["b"], "properties", TensorProperties(dtype))


def without(name: str) -> Callable[[Metadata], object]:
    return lambda metadata: metadata.storage_data.pop(next(i for i in metadata.storage_data if i.fqn == name))


DAMAGE: dict[str, tuple[Callable[[Metadata], object], str]] = {
    "path above": (lambda m: stored(m, relative_path="../secret.distcp"), "not a plain file name"),
    "absolute path": (lambda m: stored(m, relative_path="/etc/passwd"), "not a plain file name"),
    "path with NUL": (lambda m: stored(m, relative_path="a\0b"), "not a plain file name"),
    "no path": (lambda m: stored(m, relative_path=""), "not a plain file name"),
    "file missing": (lambda m: stored(m, relative_path="__7_0.distcp"), "lacks 1 of 2 files: __7_0.distcp"),
    "length beyond the file": (lambda m: stored(m, length=10**9), "ends early: w needs it up to byte"),
    "negative offset": (lambda m: stored(m, offset=-1), "does not say where w is"),
    "offset that is a text": (lambda m: stored(m, offset="0"), "does not say where w is"),
    "offset elsewhere": (lambda m: stored(m, offset=1), "w cannot be read at byte 1 of"),
    "extension": (lambda m: stored(m, transform_descriptors=["stream.zstd"]), "through an extension"),
    "hole": (lambda m: m.state_dict_metadata["w"].chunks.pop(), "leaves 8 of 20 elements of w"),
    "bigger tensor": (lambda m: setattr(m.state_dict_metadata["w"], "size", torch.Size([6, 4])), "leaves 4 of 24"),
    "overlap": (chunked(1, offsets=[2, 0]), "has chunks of w that overlap"),
    "outside": (chunked(1, offsets=[4, 0]), "sticks out of the tensor"),
    "negative": (chunked(0, offsets=[-1, 0]), "negative"),
    "rank": (chunked(1, sizes=[2]), "another number of axes"),
    "dtype": (properties(torch.float64), "holds f32[3] for b where .metadata promises f64[3]"),
    "sizes": (chunked(0, sizes=[2, 4]), "leaves 4 of 20"),
    "chunk not stored": (without("w"), "does not say where the chunk of w at [0, 0] is"),
    "object not stored": (without("epoch"), "does not say where epoch is"),
    "no storage": (lambda m: setattr(m, "storage_data", None), "has no storage_data"),
    "no tensors": (lambda m: setattr(m, "state_dict_metadata", [1]), "has no state_dict_metadata"),
    "another object": (lambda m: m.state_dict_metadata.update(b=7), "where a TensorStorageMetadata should be"),
    "chunks without end": (
        lambda m: setattr(m.state_dict_metadata["b"], "chunks", m.state_dict_metadata["b"].chunks * 1000),
        "chunks of b that are stored nowhere",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_metadata(folder: Path, case: str) -> None:
    (folder.parent / "secret.distcp").write_bytes((folder / "__0_0.distcp").read_bytes())
    edit, words = DAMAGE[case]
    change(folder, edit)
    error = refusal(folder)
    assert isinstance(error, UnreadableError)
    assert words in error.message
    assert error.path is not None


def test_a_chunk_that_holds_another_tensor(folder: Path) -> None:
    def swap(metadata: Metadata) -> None:
        index = next(index for index in metadata.storage_data if index.fqn == "b")
        metadata.storage_data[index] = metadata.storage_data[first(metadata)]

    assert "holds f32[3,4] for b where .metadata promises f32[3]" in refusal(change(folder, swap)).message


def test_a_chunk_that_holds_no_tensor(folder: Path) -> None:
    def swap(metadata: Metadata) -> None:
        epoch = next(index for index in metadata.storage_data if index.fqn == "epoch")
        index = next(index for index in metadata.storage_data if index.fqn == "b")
        metadata.storage_data[index] = metadata.storage_data[epoch]

    assert "holds no tensor for b" in refusal(change(folder, swap)).message


def test_incomplete_folders(folder: Path) -> None:
    path = folder / "__0_0.distcp"
    data = path.read_bytes()
    path.write_bytes(data[:-100])
    error = refusal(folder)
    assert f"{path} ends early" in error.message
    assert error.key is not None
    path.unlink()
    assert "lacks 1 of 1 file: __0_0.distcp" in refusal(folder).message
    path.write_bytes(data)
    (folder / ".metadata").rename(folder / ".metadata.tmp")
    assert "incomplete torch.distributed checkpoint" in refusal(folder).message
    assert ".metadata.tmp" in str(refusal(folder).hint)
    # saved without collectives, every rank has its own
    (folder / ".metadata.tmp").rename(folder / "__0.metadata")
    assert list(open_checkpoint(folder)) == ["w", "b"]
    (folder / "__0.metadata").rename(folder / "__1.metadata")
    assert list(open_checkpoint(folder)) == ["w", "b"]


def test_metadata_is_never_run(tmp_path: Path) -> None:
    class Boom:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    folder = save({"a": torch.ones(1), "epoch": 1}, tmp_path / "c")
    change(folder, lambda metadata: setattr(metadata, "storage_meta", Boom()))
    checkpoint = open_checkpoint(folder)
    assert list(checkpoint) == ["a"]
    assert [use.name for use in checkpoint.globals if use.risk == "dangerous"] == ["posix.mkdir"]
    assert not (tmp_path / "ran").exists()
    (folder / ".metadata").write_bytes(pickle.dumps(Boom()))
    assert "where a Metadata should be" in refusal(folder).message
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04.", b"\x80\x04N."])
def test_metadata_that_is_none(tmp_path: Path, content: bytes) -> None:
    folder = save({"a": torch.ones(1)}, tmp_path / "c")
    (folder / ".metadata").write_bytes(content)
    assert refusal(folder).path == folder / ".metadata"


def test_every_cut_of_the_metadata_is_refused(tmp_path: Path) -> None:
    folder = save({"a": torch.ones(1)}, tmp_path / "c")
    data = (folder / ".metadata").read_bytes()
    for end in range(0, len(data) - 1, 7):
        (folder / ".metadata").write_bytes(data[:end])
        assert isinstance(refusal(folder), UnreadableError)


def test_spoiled_bytes_give_one_clear_error_or_none(tmp_path: Path) -> None:
    folder = save({"model": {"a": torch.ones(2, 3), "b": torch.ones(3)}, "epoch": 1}, tmp_path / "c")
    rng = random.Random(5)
    for name, rounds in ((".metadata", 400), ("__0_0.distcp", 200)):
        data = (folder / name).read_bytes()
        for _ in range(rounds):
            spoiled = bytearray(data)
            for _ in range(rng.randint(1, 3)):
                spoiled[rng.randrange(len(data))] = rng.choice([0, 1, 0x7F, 0xFF, rng.randrange(256)])
            (folder / name).write_bytes(spoiled)
            try:
                open_checkpoint(folder)
            except CkptError as error:
                assert error.message
        (folder / name).write_bytes(data)


def test_objects_that_share_a_huge_part_take_no_time(tmp_path: Path) -> None:
    folder = save({"a": torch.ones(1)}, tmp_path / "c")

    def share(metadata: Metadata) -> None:
        tensor = metadata.state_dict_metadata["a"]
        vars(tensor).update({f"x{n}": n for n in range(20_000)})
        metadata.state_dict_metadata.update({f"t{n}": tensor for n in range(20_000)})
        metadata.planner_data = dict.fromkeys(metadata.state_dict_metadata, tuple("a" * 20_000))

    start = time.process_time()
    assert "of a form that torch does not write" in refusal(change(folder, share)).message
    assert time.process_time() - start < 5


def test_items_in_safetensors(tmp_path: Path) -> None:
    state = {"a": torch.arange(3.0), "b": torch.tensor(1.5), "c": torch.arange(4).reshape(2, 2)}
    folder = save(dict(state), tmp_path / "c", serialization_format=SerializationFormat.SAFETENSORS)
    checkpoint = open_checkpoint(folder)
    for key, value in state.items():
        assert_equals(checkpoint[key], value)
    path = folder / "__0_0.distcp"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    assert "ends early" in refusal(folder).message
    length = int.from_bytes(data[:8], "little")
    path.write_bytes(data[:8] + data[8 : 8 + length].replace(b'"b"', b'"d"') + data[8 + length :])
    assert "holds no tensor for b" in refusal(folder).message


def resumed(saved: dict[str, object], weights: str, optimizer: str) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A model and an optimizer of plain torch, from what a .pth file holds."""
    model = network()
    model.load_state_dict(saved[weights], strict=True)  # type: ignore[arg-type]
    adam = torch.optim.AdamW(model.parameters(), lr=0.1)
    adam.load_state_dict(saved[optimizer])  # type: ignore[arg-type]
    return model, adam


def network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))


def steps(model: torch.nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    torch.manual_seed(seed)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("by_name", [True, False])
def test_training_goes_on_in_plain_torch(tmp_path: Path, by_name: bool) -> None:
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    torch.manual_seed(3)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    steps(model, optimizer, 4)
    state = get_optimizer_state_dict(model, optimizer) if by_name else optimizer.state_dict()
    folder = save({"model": model.state_dict(), "optimizer": state, "step": 7}, tmp_path / "c")
    ckptool.plan_filter(folder).apply(tmp_path / "out.pth")
    saved = torch.load(tmp_path / "out.pth", weights_only=True)
    assert saved["step"] == 7
    other, its_optimizer = resumed(saved, "model", "optimizer")
    steps(model, optimizer, 5)
    steps(other, its_optimizer, 5)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_what_lightning_writes_beside(folder: Path) -> None:
    torch.save({"global_step": 12, "epoch": 4, "loops": {"fit": 1}}, folder / "meta.pt")
    checkpoint = open_checkpoint(folder)
    assert checkpoint.ranks is not None
    assert checkpoint.ranks.step == 12
    assert {extra.name: extra.text for extra in checkpoint.extras}["global_step"] == "12"
    assert list(checkpoint) == ["w", "b"]


def test_a_pipe_for_a_file_does_not_block(folder: Path) -> None:
    (folder / "__0_0.distcp").unlink()
    os.mkfifo(folder / "__0_0.distcp")
    assert "named pipe" in refusal(folder).message


def test_files_beside_are_noted(folder: Path) -> None:
    shutil.copy(folder / "__0_0.distcp", folder / "__9_0.distcp")
    torch.save({"epoch": 1}, folder / "meta.pt")
    texts = [note.text for note in notes_of(open_checkpoint(folder))]
    assert any("__9_0.distcp" in text for text in texts)
    assert "meta.epoch" in {extra.name for extra in open_checkpoint(folder).extras}
