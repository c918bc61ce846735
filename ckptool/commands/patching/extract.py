"""What makes a tuned checkpoint of its base: one pass over both, a few chunks at a time."""

from __future__ import annotations

import json
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import TypeAlias

from ckptool.commands.diff.pairing import partners
from ckptool.commands.patching.manifest import Digest, Manifest, Part, digest_of
from ckptool.commands.patching.stream import Sink, StreamWriter
from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.counts import many
from ckptool.core.dtypes import DTYPES
from ckptool.core.errors import UsageError
from ckptool.core.patch import MANIFEST, PATCH_KEY
from ckptool.core.tensor import Tensor
from ckptool.core.ties import with_recorded_ties
from ckptool.encodings.delta import CHUNK, encode, is_same
from ckptool.engine.patched import cast_bytes, chunk_nbytes, number_width
from ckptool.engine.reading import Reader
from ckptool.formats.safetensors_header import to_header
from ckptool.storage.signals import signals_held

_AHEAD = 4  # chunks that are encoded while others are read
_Buffers: TypeAlias = tuple[bytearray, bytearray]
_CASTABLE = ("float32", "float16", "bfloat16", "float64")


@dataclass(frozen=True, slots=True)
class Extracted:
    """A patch.

    Attributes:
        base: what it is for.
        tuned: what it makes of it.
        manifest: what becomes of each key.
        notes: what a user should know.
        nbytes: of the whole file.
    """

    base: Checkpoint
    tuned: Checkpoint
    manifest: Manifest
    notes: tuple[Note, ...]
    nbytes: int


@dataclass(frozen=True, slots=True)
class _Pair:
    """A tensor that comes out, and the one of the base that it is made of."""

    part: Part
    tensor: Tensor
    base: Tensor | None


@dataclass(frozen=True, slots=True)
class _Encoders:
    """Threads that encode, one that hashes in order, and buffers to use again: new memory costs more than copies."""

    pool: ThreadPoolExecutor
    hashing: ThreadPoolExecutor
    free: list[_Buffers] = field(default_factory=list)

    def shut_down(self) -> None:
        for pool in (self.pool, self.hashing):
            pool.shutdown(cancel_futures=True)


def extract(
    base: Checkpoint,
    tuned: Checkpoint,
    sink: Sink | None = None,
    *,
    threads: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Extracted:
    """Find what makes `tuned` of `base`, and write it if there is a place for it.

    Args:
        base: the checkpoint that the patch will be applied to.
        tuned: the one that comes out.
        sink: takes the patch; None only measures it.
        threads: that deflate.
        progress: told (bytes read, bytes to read).

    Raises:
        UsageError: a tensor can stand in no patch.
        UnreadableError: a file ends early, or changes while it is read.
    """
    base, tuned = with_recorded_ties(base), with_recorded_ties(tuned)
    _require_plain(tuned)
    todo = sum(tensor.nbytes for tensor in tuned.values())
    done = 0

    def advance(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        if progress is not None:
            progress(done, todo)

    with Reader((base, tuned)) as reader:
        pairs = _pairs(base, tuned, reader)
        writer = StreamWriter(sink, (pair.tensor.spec for pair in pairs))
        with signals_held():
            encoders = _Encoders(ThreadPoolExecutor(threads), ThreadPoolExecutor(1))
        try:
            parts = {pair.part.key: _extracted(pair, reader, encoders, writer, advance) for pair in _in_order(pairs)}
        finally:
            encoders.shut_down()
    found = tuple(parts[pair.part.key] for pair in pairs)
    used = {part.source for part in found if part.how in ("same", "delta")}
    removed = tuple(key for key in base if key not in used)
    manifest = Manifest(found, removed, dict(tuned.metadata), len(base))
    packed = manifest.packed()
    writer.begin()
    writer.add(packed)
    writer.end(MANIFEST, "uint8", (len(packed),))
    nbytes = writer.finish({PATCH_KEY: json.dumps(manifest.counts, separators=(",", ":"))})
    return Extracted(base, tuned, manifest, tuple(_notes(tuned)), nbytes)


def _require_plain(tuned: Checkpoint) -> None:
    for key, tensor in tuned.items():
        if tensor.layout != "strided" or (to_header(tensor.dtype, tensor.shape) is None and not tensor.pieces):
            raise UsageError(
                f"{key} is {tensor.layout}, and a patch holds plain tensors",
                hint="leave it out: ckptool filter --drop",
                path=tuned.path,
                key=key,
            )
        if key in (MANIFEST, "__metadata__"):
            raise UsageError(f"a tensor called {key} cannot stand in a patch", path=tuned.path, key=key)


def _pairs(base: Checkpoint, tuned: Checkpoint, reader: Reader) -> list[_Pair]:
    """Each tensor that comes out and its partner: by key, wrapper prefixes seen through; else by equal bytes."""
    known = partners(base, tuned)
    taken = set(known.values())
    alone = [key for key in tuned if key not in known]
    known.update(_moved({key: base[key] for key in base if key not in taken}, tuned, alone, reader))
    first: dict[object, str] = {}
    pairs = []
    for key, tensor in tuned.items():
        spec = (key, tensor.dtype, tensor.shape)
        twin = first.setdefault((tensor.dtype, tensor.shape, tensor.pieces, tensor.conj, tensor.neg), key)
        partner = base[known[key]] if key in known else None
        if twin != key and tensor.elements:
            pairs.append(_Pair(Part(spec[0], "tied", twin, *spec[1:]), tensor, None))
        elif partner is not None and _fits(partner, tensor):
            pairs.append(_Pair(Part(spec[0], "delta", partner.key, *spec[1:]), tensor, partner))
        else:
            pairs.append(_Pair(Part(spec[0], "whole", "", *spec[1:]), tensor, None))
    return pairs


def _fits(base: Tensor, tensor: Tensor) -> bool:
    if base.layout != "strided" or base.shape != tensor.shape or not base.pieces:
        return False
    return base.dtype == tensor.dtype or {base.dtype, tensor.dtype} <= set(_CASTABLE)


def _moved(
    free: Mapping[str, Tensor], tuned: Checkpoint, alone: Sequence[str], reader: Reader
) -> Iterator[tuple[str, str]]:
    """(key, key of the base) of tensors that are in the base under another key."""
    wanted = {(tuned[key].dtype, tuned[key].shape) for key in alone}
    by_digest: dict[str, str] = {}
    for key, tensor in free.items():
        if (tensor.dtype, tensor.shape) in wanted and tensor.layout == "strided" and tensor.elements:
            by_digest.setdefault(digest_of(tensor, reader), key)
    if not by_digest:
        return
    specs = {(free[key].dtype, free[key].shape) for key in by_digest.values()}
    for key in alone:
        if (tuned[key].dtype, tuned[key].shape) in specs:
            found = by_digest.get(digest_of(tuned[key], reader))
            if found is not None:
                yield key, found


def _in_order(pairs: Sequence[_Pair]) -> list[_Pair]:
    """As they stand in the patch: whole tensors first, the widest numbers at the front, so that they lie aligned."""
    return sorted(pairs, key=lambda pair: (pair.part.how != "whole", -DTYPES[pair.tensor.dtype].block_nbytes))


def _extracted(
    pair: _Pair, reader: Reader, encoders: _Encoders, writer: StreamWriter, advance: Callable[[int], None]
) -> Part:
    part, tensor = pair.part, pair.tensor
    if part.how == "tied":
        advance(tensor.nbytes)
        return part
    after = Digest(tensor.dtype, tensor.shape)
    if pair.base is None:
        writer.begin()
        for block in reader.blocks(tensor):
            after.update(block)
            writer.add(bytes(block) if writer.sink is not None else block)
            advance(len(block))
        return replace(part, after=after.text, nbytes=writer.end(part.key, tensor.dtype, tensor.shape))
    before = Digest(pair.base.dtype, pair.base.shape)
    count = -(-tensor.nbytes // chunk_nbytes(tensor.dtype))
    lengths: list[int] = []
    writer.begin(4 * (1 + count))
    unchanged = pair.base.dtype == tensor.dtype
    for nbytes, chunk in _chunks(pair.base, tensor, reader, encoders, before, after):
        unchanged &= is_same(chunk)
        lengths.append(len(chunk))
        writer.add(chunk)
        advance(nbytes)
    if unchanged:
        writer.forget()
        return replace(part, how="same", before=before.text, after=before.text)
    writer.put(struct.pack(f"<{1 + count}I", count, *lengths))
    nbytes = writer.end(part.key, "uint8", (writer.length,))
    return replace(part, before=before.text, after=after.text, nbytes=nbytes)


def _chunks(
    base: Tensor, tensor: Tensor, reader: Reader, encoders: _Encoders, before: Digest, after: Digest
) -> Iterator[tuple[int, bytes]]:
    """(bytes of the result, its chunk), in order."""
    width = number_width(tensor.dtype)
    olds = reader.blocks(base, CHUNK * number_width(base.dtype))
    news = reader.blocks(tensor, CHUNK * width)
    waiting: deque[tuple[int, Future[bytes], Future[None], _Buffers]] = deque()

    def take() -> tuple[int, bytes]:
        nbytes, chunk, hashed, buffers = waiting.popleft()
        found = chunk.result()
        hashed.result()
        encoders.free.append(buffers)
        return nbytes, found

    for old, new in zip_longest(olds, news):
        buffers = encoders.free.pop() if encoders.free else (bytearray(len(old)), bytearray(len(new)))
        before_kept, after_kept = (_copied(block, buffer) for block, buffer in zip((old, new), buffers, strict=True))
        hashed = encoders.hashing.submit(before.update, before_kept)
        cast = before_kept if base.dtype == tensor.dtype else cast_bytes(old, base.dtype, tensor.dtype)
        waiting.append((len(new), encoders.pool.submit(encode, cast, after_kept, width), hashed, buffers))
        after.update(new)
        if len(waiting) > _AHEAD:
            yield take()
    while waiting:
        yield take()


def _copied(block: memoryview, buffer: bytearray) -> memoryview:
    """A block in a buffer."""
    if len(buffer) < len(block):
        buffer.extend(bytes(len(block) - len(buffer)))
    view = memoryview(buffer)[: len(block)]
    view[:] = block
    return view


def _notes(tuned: Checkpoint) -> Iterator[Note]:
    if tuned.extras:
        names = ", ".join(extra.name for extra in tuned.extras[:5]) + (", ..." if len(tuned.extras) > 5 else "")
        yield Note(
            f"a patch holds tensors only: {many(len(tuned.extras), 'other entry', 'other entries')} of "
            f"{tuned.path.name} are not in it: {names}"
        )
