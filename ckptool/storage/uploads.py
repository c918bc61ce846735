"""Outputs in object stores: every object appears whole or not at all, and the index of shards last.

An object has no name before its upload is complete, so there is nothing to rename. Each file is written to a temporary
file of this machine first, one at a time, then uploaded in parts. If something goes wrong, the upload in progress is
ended and what was uploaded before is removed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from ckptool.core.address import Address
from ckptool.core.errors import MissingError, OutputError
from ckptool.storage.objects import Bucket, reason
from ckptool.storage.publishing import Replaceable
from ckptool.storage.refusals import created_meanwhile
from ckptool.storage.signals import signals_held
from ckptool.storage.sink import ByteSink

_PART = 16 << 20
_MOST_PARTS = 9_000
_AT_ONCE = 4
_CONDITIONAL = 64 << 20
"""Bytes up to which an object is put in one request, which the store refuses if the object exists."""


@dataclass(slots=True)
class Uploads:
    """The objects of one output.

    Attributes:
        target: the address of the output.
        bucket: what it is in.
        key: the object, or what stands before the names of a folder.
        force: existing objects may be replaced.
        scratch: a folder of this machine.
        done: the keys that are uploaded.
        later: files that are uploaded when all others are.
    """

    target: Address
    bucket: Bucket
    key: str
    force: bool
    scratch: Path
    done: list[str] = field(default_factory=list)
    later: list[tuple[str, Path]] = field(default_factory=list)

    @property
    def new(self) -> PurePath:
        """Where the files are that were written so far."""
        return self.target

    @contextmanager
    def file(self, name: str, about: Mapping[str, Sequence[float]]) -> Iterator[ByteSink]:
        """Give a file of a folder to be written; on leaving, upload it. An index waits for the others.

        Args:
            name: its name in the folder.
            about: not used: nothing is resumed.
        """
        path = self.scratch / name
        sink = ByteSink.create(path)
        try:
            yield sink
        finally:
            sink.close()
        if name.endswith(".index.json"):
            self.later.append((self._key(name), path))
        else:
            self.put(self._key(name), path)
            path.unlink()

    def finished(self, name: str) -> None:
        """Nothing is left of an earlier run."""

    def put(self, key: str, path: Path) -> None:
        """Upload a file.

        Raises:
            OutputError: it cannot be written.
        """
        size = path.stat().st_size
        with self._said(key):
            if size <= _CONDITIONAL:
                mode = "overwrite" if self.force else "create"
                self._counted(partial(self.bucket.store.put, key, path.read_bytes(), mode=mode, use_multipart=False))
            else:
                self._require_free(key)
                self._in_parts(key, path, size)
            self.done.append(key)
            found = self._counted(partial(self.bucket.store.head, key))
        if int(found["size"]) != size:
            raise OutputError(f"{self.bucket.address / key} has {found['size']:,} bytes after the upload, not {size:,}")
        self.bucket.forget(key)

    def finish(self, replaceable: Sequence[str] = ()) -> None:
        """Upload what comes last, then remove what an earlier output left.

        Args:
            replaceable: names of the folder's files that belong to an earlier output.
        """
        for key, path in self.later:
            self.put(key, path)
        self.remove([name for name in replaceable if self._key(name) not in self.done])

    def remove(self, names: Sequence[str]) -> None:
        """Remove objects of the folder."""
        for name in names:
            key = self._key(name)
            with self._said(key):
                self._counted(partial(self.bucket.store.delete, key))
            self.bucket.forget(key)

    def undo(self) -> None:
        """Remove what was uploaded, as far as the store lets us."""
        from obstore import exceptions

        for key in self.done:
            with suppress(exceptions.BaseError, OSError):
                self._counted(partial(self.bucket.store.delete, key))
            self.bucket.forget(key)

    def _key(self, name: str) -> str:
        return f"{self.key}/{name}"

    def _in_parts(self, key: str, path: Path, size: int) -> None:
        from obstore import open_writer

        part = max(_PART, -(-size // _MOST_PARTS))
        with (
            path.open("rb") as file,
            open_writer(self.bucket.store, key, buffer_size=part, max_concurrency=_AT_ONCE) as writer,
        ):  # an exception ends the upload
            while block := file.read(_PART):
                writer.write(block)
                self.bucket.at_once.transfer.count_request()

    def _require_free(self, key: str) -> None:
        if not self.force:
            with suppress(FileNotFoundError):
                self._counted(partial(self.bucket.store.head, key))
                raise created_meanwhile(self.bucket.address / key)

    def _counted(self, call: Any) -> Any:
        self.bucket.at_once.transfer.count_request()
        return call()

    @contextmanager
    def _said(self, key: str) -> Iterator[None]:
        """Turn the library's errors into errors about an object."""
        from obstore import exceptions

        address = self.bucket.address / key
        try:
            yield
        except exceptions.AlreadyExistsError:
            raise created_meanwhile(address) from None
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError):
            raise OutputError(f"{address} may not be written", hint="check the credentials", path=address) from None
        except (exceptions.BaseError, FileNotFoundError) as error:
            raise OutputError(f"{address} cannot be written: {reason(error)}", path=address) from None


@contextmanager
def uploaded_folder(target: Address, replaceable: Replaceable, *, force: bool) -> Iterator[Uploads]:
    """Give a stage whose files are uploaded one by one, the index of shards last.

    Args:
        target: ``s3://BUCKET/PREFIX``.
        replaceable: says which files there belong to an earlier output.
        force: False if no such file may be there. Else its index is removed first, so that no half of it looks whole.

    Raises:
        OutputError: it cannot be written; what was uploaded is removed.
    """
    with _uploads(target, force) as uploads:
        old = sorted(replaceable(target))
        if old and not force:
            raise created_meanwhile(target)
        uploads.remove([name for name in old if name.endswith(".index.json")])
        yield uploads
        uploads.finish([name for name in old if not name.endswith(".index.json")])


@contextmanager
def uploaded_file(target: Address, *, force: bool) -> Iterator[ByteSink]:
    """Give a file to be written; on leaving, it is uploaded under the name of `target`."""
    with _uploads(target, force) as uploads:
        path = uploads.scratch / target.name
        sink = ByteSink.create(path)
        try:
            yield sink
        finally:
            sink.close()
        uploads.put(uploads.key, path)


@contextmanager
def _uploads(target: Address, force: bool) -> Iterator[Uploads]:
    bucket, key = Bucket.at(target)
    with tempfile.TemporaryDirectory(prefix="ckptool-") as folder:
        uploads = Uploads(target, bucket, key, force, Path(folder))
        try:
            yield uploads
        except BaseException:
            with signals_held():
                uploads.undo()
            raise


def check_uploads(address: Address, replaceable: Replaceable | None, *, force: bool) -> None:
    """Refuse an output that is at no object store, or exists.

    Args:
        address: the output.
        replaceable: for a folder, says which of its files an output replaces; None for a file.
        force: True to replace an existing output.

    Raises:
        OutputError: with the reason and what to do.
    """
    if address.scheme not in ("s3", "gs", "az", "abfs"):
        raise OutputError(
            f"{address} cannot be written: outputs go to files, folders and object stores",
            hint="write it here, then upload it: hf upload OWNER/NAME FILE" if address.scheme == "hf" else None,
            path=address,
        )
    bucket, key = Bucket.at(address)
    if not key:
        raise OutputError(f"{address} is a whole bucket", hint=f"give a name in it: {address}/model", path=address)
    if replaceable is None:
        try:
            bucket.asked(lambda: bucket.store.head(key), address)
        except MissingError:
            return
        if not force:
            raise OutputError(f"{address} exists", hint="--force replaces it", path=address)
        return
    names = set(_names(bucket, key))
    if names and not force:
        ours = replaceable(address)
        what = "replaces it" if ours == names else "replaces its weights; other files stay"
        raise OutputError(f"{address} exists", hint=f"--force {what}", path=address)


def _names(bucket: Bucket, key: str) -> list[str]:
    folders, objects = bucket.keys(key)
    return [*folders, *(name for name, _, _ in objects)]
