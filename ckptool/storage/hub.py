"""Files and folders of the Hugging Face hub, by their addresses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

from ckptool.core.address import Address
from ckptool.core.bytes import ByteSource, Entry, Folder
from ckptool.core.errors import MissingError
from ckptool.storage.ahead import Ahead, Used
from ckptool.storage.blocks import FIRST
from ckptool.storage.hub_address import hub_place
from ckptool.storage.hub_cache import HubCache
from ckptool.storage.hub_repository import Listing, Repository
from ckptool.storage.hub_settings import hub_settings
from ckptool.storage.network import network
from ckptool.storage.remote import RemoteFile


@dataclass(frozen=True, slots=True)
class HubFolder:
    """A folder of a repository; a `ckptool.core.bytes.Folder`.

    Attributes:
        path: its address.
        repository: what it is in.
        below: its path there; "" for the root.
    """

    path: Address
    repository: Repository = field(compare=False, repr=False)
    below: str = ""

    def entries(self) -> tuple[Entry, ...]:
        start = f"{self.below}/" if self.below else ""
        found = {}
        for path in self.repository.listing().sizes:
            if path.startswith(start):
                name, slash, _ = path[len(start) :].partition("/")
                found[name] = Entry(name, bool(slash))
        return tuple(sorted(found.values()))

    def open(self, name: str) -> ByteSource:
        path = self._path(name)
        listing = self.repository.known_listing()
        if listing is not None and path not in listing.sizes:
            raise MissingError(f"{self.path / name} does not exist", path=self.path / name, hint="check the spelling")
        return self.repository.file(path, self, self.path / name)

    def folder(self, name: str) -> HubFolder:
        return HubFolder(self.path / name, self.repository, self._path(name))

    def will_open(self, heads: Mapping[str, int]) -> None:
        Ahead({name: max(nbytes, FIRST) for name, nbytes in heads.items()}, self._fetch_ahead).start()

    def _fetch_ahead(self, name: str, nbytes: int, used: Used) -> bool:
        listing = self.repository.known_listing()
        if listing is None or listing.sizes.get(self._path(name)) is None:
            return False
        source = self.open(name)
        return isinstance(source, RemoteFile) and source.blocks.start_head(nbytes, used)

    def _path(self, name: str) -> str:
        return f"{self.below}/{name}" if self.below else name


def locate_hub(address: Address, *, is_fresh: bool = False) -> ByteSource | Folder:
    """The file or folder at an address of the hub.

    Args:
        address: ``hf://...``.
        is_fresh: True to ask anew which commit a branch is at.

    Raises:
        MissingError: there is none.
        CkptError: it may not be read, or the hub cannot be reached.
    """
    place = hub_place(address)
    settings = hub_settings()
    repository = Repository(place, settings, network(), HubCache.of(settings.cache, place))
    if is_fresh:
        repository.forget()
    shown = Address(str(address))
    if not place.path:
        if repository.known_listing() is None:
            repository.listing()
        return HubFolder(shown, repository)
    listing = repository.known_listing()
    folder = HubFolder(Address(str(shown.parent)), repository, place.path.rpartition("/")[0])
    if listing is not None:
        return _listed(listing, repository, folder, shown)
    try:
        return repository.file(place.path, folder, shown)
    except MissingError:
        if settings.is_offline:
            raise
        return _listed(repository.listing(), repository, folder, shown)


def _listed(listing: Listing, repository: Repository, folder: HubFolder, address: Address) -> ByteSource | Folder:
    """The file or folder of a listing."""
    path = repository.place.path
    if path in listing.sizes:
        return repository.file(path, folder, address)
    if any(each.startswith(f"{path}/") for each in listing.sizes):
        return HubFolder(address, repository, path)
    if repository.settings.is_offline:
        raise repository.offline(address)
    close = get_close_matches(path, list(listing.sizes), n=3)
    root = replace(repository.place, path="").address
    hint = f"did you mean {' or '.join(str(root / name) for name in close)}?" if close else "check the spelling"
    raise MissingError(f"{address} does not exist", path=address, hint=hint)
