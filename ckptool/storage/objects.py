"""Object stores: ``s3://BUCKET/KEY``, ``gs://BUCKET/KEY``, ``az://CONTAINER/KEY``, by obstore of the extra [remote]."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from difflib import get_close_matches
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ckptool.core.address import Address
from ckptool.core.bytes import ByteSource, Entry, Folder
from ckptool.core.errors import ChangedError, CkptError, MissingError, UnreadableError, UsageError
from ckptool.storage.ahead import Ahead, Used
from ckptool.storage.blocks import FIRST, Blocks
from ckptool.storage.hosts import is_loopback
from ckptool.storage.hub_address import is_plain
from ckptool.storage.network import Network, network
from ckptool.storage.remote import RemoteFile

T = TypeVar("T")

_MAX_ENTRIES = 100_000
_ENDPOINTS: Mapping[str, tuple[str, ...]] = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_SETTINGS: Mapping[str, str] = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, and AWS_ENDPOINT_URL for another server",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket, and the library's way to it.

    Attributes:
        address: of the bucket alone.
        store: an obstore store.
        at_once: the network.
    """

    address: Address
    store: Any
    at_once: Network

    @classmethod
    def at(cls, address: Address) -> tuple[Bucket, str]:
        """The bucket of an address, and the key in it.

        Raises:
            UsageError: obstore is not installed, or there is no bucket in the address.
        """
        _, _, rest = address.full.partition("://")
        name, _, key = rest.partition("/")
        key = key.rstrip("/")
        if not re.fullmatch(r"[A-Za-z0-9._-]+(@[A-Za-z0-9._-]+)?", name) or (key and not is_plain(key)):
            raise UsageError(f"{address} is not {address.scheme}://BUCKET/KEY", hint="leave out empty parts and ..")
        at_once = network()
        place: Hashable = ("bucket", address.scheme, name)
        known = at_once.known.get(place)
        if not isinstance(known, cls):
            root = Address(f"{address.scheme}://{name}")
            known = at_once.known[place] = cls(root, _store(root), at_once)
        return known, key

    def asked(self, call: Callable[[], T], address: Address) -> T:
        """Make one request; what goes wrong is one error without secrets.

        Raises:
            MissingError: there is no such object or bucket.
            ChangedError: it is another version now.
            UnreadableError: it may not be read, or the store cannot be reached.
        """
        from obstore import exceptions

        self.at_once.transfer.count_request()
        try:
            return call()
        except FileNotFoundError:
            raise MissingError(f"{address} does not exist", path=address, hint="check the spelling") from None
        except exceptions.PreconditionError:
            raise changed(address) from None
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError):
            hint = f"credentials come from {_SETTINGS[address.scheme]}"
            raise UnreadableError(f"{address} may not be read", path=address, hint=hint) from None
        except exceptions.BaseError as error:
            raise UnreadableError(
                f"{address} cannot be read: {reason(error)}",
                path=address,
                hint=f"the store is found by {_SETTINGS[address.scheme]}",
            ) from None

    def keys(self, prefix: str) -> tuple[list[str], list[tuple[str, int, str | None]]]:
        """The folders under a prefix, and the objects with their sizes and ETags; names without the prefix."""
        where = self.address / prefix if prefix else self.address
        found = self.asked(lambda: self.store.list_with_delimiter(prefix or None), where)
        start = len(prefix) + 1 if prefix else 0
        folders = [str(each)[start:].strip("/") for each in found["common_prefixes"]]
        objects = [(str(each["path"])[start:], int(each["size"]), each.get("e_tag")) for each in found["objects"]]
        names = [*folders, *(name for name, _, _ in objects)]
        if len(names) > _MAX_ENTRIES:
            raise UnreadableError(
                f"{where} has more than {_MAX_ENTRIES:,} entries", path=where, hint="name a file of it"
            )
        bad = next((name for name in names if name and (not is_plain(name) or "/" in name)), None)
        if bad is not None:
            raise UnreadableError(
                f"{where} lists an object under a name that leads elsewhere: {bad[:200]!r}", path=where
            )
        return [name for name in folders if name], [each for each in objects if each[0]]

    def forget(self, key: str) -> None:
        """Look anew for an object, and at what is beside and under it."""
        for prefix in (key, key.rpartition("/")[0]):
            self.at_once.known.pop(("objects", str(self.address), prefix), None)

    def file(self, key: str, size: int, etag: str | None) -> RemoteFile:
        """An object of known size and version."""
        address = self.address / key
        place: Hashable = ("object", str(address), etag, size)
        known = self.at_once.files.get(place)
        if isinstance(known, RemoteFile):
            return known
        blocks = Blocks(str(address), size, partial(self._fetch, key, etag, size), self.at_once.memory)
        self.at_once.transfer.add_file(place, size)
        folder = ObjectFolder(Address(str(address.parent)), self, key.rpartition("/")[0])
        made = self.at_once.files[place] = RemoteFile(address, place, size, folder, blocks)
        return made

    def _fetch(self, key: str, etag: str | None, size: int, start: int, stop: int, values: bool) -> bytes:
        address = self.address / key
        options: dict[str, object] = {"range": (start, stop)}
        if etag is not None:
            options["if_match"] = etag

        def call() -> bytes:
            answer = self.store.get(key, options=options)
            if tuple(answer.range) != (start, stop) or answer.meta["size"] != size or answer.meta.get("e_tag") != etag:
                raise changed(address)
            return bytes(answer.bytes())

        data = self.asked(call, address)
        if len(data) != stop - start:
            raise UnreadableError(
                f"{address}: the store sends {len(data):,} bytes where {stop - start:,} were asked for"
            )
        self.at_once.transfer.count_bytes(len(data))
        return data


@dataclass(frozen=True, slots=True)
class ObjectFolder:
    """What lies under a prefix; a `ckptool.core.bytes.Folder`.

    Attributes:
        path: its address.
        bucket: what it is in.
        prefix: without a slash at its end; "" for the whole bucket.
    """

    path: Address
    bucket: Bucket = field(compare=False, repr=False)
    prefix: str = ""

    def _listed(self) -> tuple[list[str], dict[str, tuple[int, str | None]]]:
        key: Hashable = ("objects", str(self.bucket.address), self.prefix)
        known = self.bucket.at_once.known.get(key)
        if not isinstance(known, tuple):
            folders, objects = self.bucket.keys(self.prefix)
            known = (folders, {name: (size, etag) for name, size, etag in objects})
            self.bucket.at_once.known[key] = known
        return known

    def entries(self) -> Sequence[Entry]:
        folders, objects = self._listed()
        return tuple(sorted([*(Entry(name, True) for name in folders), *(Entry(name, False) for name in objects)]))

    def open(self, name: str) -> ByteSource:
        if not self.has(name):
            raise MissingError(f"{self.path / name} does not exist", path=self.path / name, hint="check the spelling")
        return self.bucket.file(self._key(name), *self._listed()[1][name])

    def has(self, name: str) -> bool:
        """True if it has an object of this name."""
        return name in self._listed()[1]

    def folder(self, name: str) -> ObjectFolder:
        return ObjectFolder(self.path / name, self.bucket, self._key(name))

    def will_open(self, heads: Mapping[str, int]) -> None:
        Ahead({name: max(nbytes, FIRST) for name, nbytes in heads.items()}, self._fetch_ahead).start()

    def _fetch_ahead(self, name: str, nbytes: int, used: Used) -> bool:
        source = self.open(name) if self.has(name) else None
        return isinstance(source, RemoteFile) and source.blocks.start_head(nbytes, used)

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name


def locate_object(address: Address, *, is_fresh: bool = False) -> ByteSource | Folder:
    """The object at an address, or what lies under it.

    Raises:
        MissingError: there is neither.
        CkptError: it may not be read, or obstore is not installed.
    """
    bucket, key = Bucket.at(address)
    folder = ObjectFolder(Address(str(address)), bucket, key)
    if is_fresh:
        bucket.forget(key)
    if key and not address.full.endswith("/"):
        above = ObjectFolder(Address(str(address.parent)), bucket, key.rpartition("/")[0])
        known = bucket.at_once.known.get(("objects", str(bucket.address), above.prefix))
        if known is not None and above.has(address.name):
            return above.open(address.name)
        try:
            meta = bucket.asked(lambda: bucket.store.head(key), address)
        except MissingError as missing:
            if not folder.entries():
                raise _with_near_misses(missing, above, address) from None
            return folder
        return bucket.file(key, int(meta["size"]), meta.get("e_tag"))
    if key and not folder.entries():
        raise MissingError(f"{address} does not exist: nothing is under it", path=address, hint="check the spelling")
    return folder


def changed(address: Address) -> ChangedError:
    """The error for an object that was written again."""
    return ChangedError(
        f"{address} changed while it was read", hint="run the command again when nothing writes to it", path=address
    )


def _with_near_misses(missing: MissingError, above: ObjectFolder, address: Address) -> CkptError:
    try:
        close = get_close_matches(address.name, [entry.name for entry in above.entries()], n=3)
    except CkptError:
        return missing
    if close:
        missing.hint = f"did you mean {' or '.join(str(above.path / name) for name in close)}?"
    return missing


def _store(root: Address) -> Any:
    """The library's store for a bucket; credentials come from the environment."""
    try:
        from obstore.store import from_url
    except ImportError:
        raise UsageError(
            f"{root} needs obstore, which is not installed", hint="pip install 'ckptool[remote]'"
        ) from None
    from obstore import exceptions

    try:
        return from_url(
            str(root),
            client_options={
                "connect_timeout": timedelta(seconds=5),
                "timeout": timedelta(seconds=120),
                "read_timeout": timedelta(seconds=10),
                "allow_http": _allows_http(root.scheme),
            },
            retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=20)},
        )
    except (exceptions.BaseError, ValueError) as error:
        hint = f"it is found by {_SETTINGS.get(root.scheme, 'the environment')}"
        raise UsageError(f"{root} cannot be opened: {reason(error)}", hint=hint) from None


def _allows_http(scheme: str) -> bool:
    """True if the environment says so, or the store is on this machine."""
    endpoint = urlsplit(next(filter(None, (os.environ.get(name, "") for name in _ENDPOINTS[scheme])), ""))
    allowed = os.environ.get(f"{_ENDPOINTS[scheme][0].partition('_')[0]}_ALLOW_HTTP", "")
    return allowed.lower() in ("1", "true") or is_loopback(endpoint.hostname or "")


def reason(error: BaseException) -> str:
    """The library's reason in one line, without addresses, which may hold keys."""
    text = " ".join(str(error).partition("Debug source")[0].split())
    return re.sub(r"https?://\S+", "the store", text)[:300] or "the store refuses"
