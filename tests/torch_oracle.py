"""torch.load as the oracle: what ckptool lists must be what torch loads, to the byte."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.derived import DerivedBytes
from ckptool.core.tensor import Tensor
from ckptool.formats.torch.legacy import open_legacy
from ckptool.formats.torch.zip import open_zip
from ckptool.storage.locate import locate_file


def opened(path: Path, select: str | None = None) -> Checkpoint:
    """Open by content, as `open_checkpoint` does."""
    is_zip = path.read_bytes()[:4] == b"PK\x03\x04"
    return open_zip(locate_file(path), select) if is_zip else open_legacy(locate_file(path), select)


def bytes_of(tensor: torch.Tensor) -> bytes:
    """The elements of a dense tensor in C order."""
    dense = tensor.detach().resolve_conj().resolve_neg().contiguous()
    raw = torch.empty(0, dtype=torch.uint8).set_(dense.untyped_storage())
    start = dense.storage_offset() * dense.element_size()
    return bytes(raw[start : start + dense.numel() * dense.element_size()].tolist())


def read(tensor: Tensor) -> torch.Tensor:
    """The tensor by the offsets that ckptool found, without torch.load."""
    dtype = getattr(torch, tensor.dtype)
    (piece,) = tensor.pieces
    if isinstance(piece.storage.file, DerivedBytes):  # an array in the pickle has no place of its own in the file
        with piece.storage.file.open() as derived:
            raw = bytearray(derived.read(piece.storage.offset, piece.storage.nbytes))
    else:
        with Path(piece.storage.file.path).open("rb") as file:
            file.seek(piece.storage.offset)
            raw = bytearray(file.read(piece.storage.nbytes))
    assert len(raw) == piece.storage.nbytes
    if not raw:
        return torch.empty(piece.shape, dtype=dtype)
    storage = torch.frombuffer(raw, dtype=torch.uint8).untyped_storage()
    strides = piece.strides if piece.strides is not None else torch.empty(piece.shape, device="meta").stride()
    found = torch.empty(0, dtype=dtype).set_(storage, piece.start, piece.shape, strides)
    if tensor.conj:
        found = found.conj()
    return torch._neg_view(found) if tensor.neg else found


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Keys in order, shapes, dtypes, and every byte."""
    assert list(found) == list(expected)
    for key, tensor in expected.items():
        assert found[key].key == key
        assert found[key].shape == tuple(tensor.shape), key
        assert f"torch.{found[key].dtype}" == str(tensor.dtype), key
        assert bytes_of(read(found[key])) == bytes_of(tensor), key
