"""Repositories of the Hugging Face hub: the cache of this machine first, then ranges of the commit that is meant.

A branch is asked for once; from then on everything is asked of the commit that it was at. The token goes to the hub
alone: redirects to where large files are stored lose it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote

from ckptool.core.address import Address
from ckptool.core.bytes import ByteSource, Folder
from ckptool.core.checkpoint import Note
from ckptool.core.errors import MissingError, UnreadableError
from ckptool.storage.blocks import FIRST, Blocks
from ckptool.storage.deadline import Deadline
from ckptool.storage.http import StatusError, patiently, status_error, zones_of
from ckptool.storage.http_ranges import HttpRanges, Site
from ckptool.storage.http_url import Url, may_have_secrets
from ckptool.storage.hub_address import HubPlace, is_plain
from ckptool.storage.hub_cache import CachedFile, HubCache
from ckptool.storage.hub_settings import HubSettings, hub_token
from ckptool.storage.hub_wording import worded
from ckptool.storage.network import Network
from ckptool.storage.remote import RemoteFile
from ckptool.storage.session import session

_MAX_JSON = 100_000_000
_MAX_ENTRIES = 100_000
_MAX_PAGES = 200
_NOT_A_HUB = "answers, but is not a hub"


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a commit.

    Attributes:
        commit: the commit.
        sizes: their bytes by path; None where the hub does not say.
    """

    commit: str
    sizes: Mapping[str, int | None]


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository of the hub at one revision.

    Attributes:
        place: which one; its path is not looked at.
        settings: how the hub is reached.
        at_once: the network.
        cache: what this machine has of it.
    """

    place: HubPlace
    settings: HubSettings
    at_once: Network
    cache: HubCache

    # ------------------------------------------------------------------ which commit, which files

    @property
    def _key(self) -> tuple[str, ...]:
        return (self.settings.endpoint, self.place.kind, self.place.id)

    def commit(self) -> str | None:
        """The commit, as far as it is known without asking."""
        if self.place.is_pinned:
            return self.place.revision
        if self.settings.is_offline:
            return self.cache.commit(self.place.revision)
        known = self.at_once.known.get(("commit", *self._key, self.place.revision))
        return known if isinstance(known, str) else None

    def pin(self, commit: str) -> None:
        """Remember the commit that the revision is at."""
        self.at_once.known["commit", *self._key, self.place.revision] = commit
        place = replace(self.place, path="")
        if not place.is_pinned:
            self.at_once.transfer.pin(str(place.address), str(replace(place, revision=commit).address))

    def forget(self) -> None:
        """Ask for the commit again."""
        self.at_once.known.pop(("commit", *self._key, self.place.revision), None)

    def known_listing(self) -> Listing | None:
        """The files, if they were listed already; offline, those that the cache has."""
        commit = self.commit()
        if commit is None:
            return None
        if self.settings.is_offline:
            return Listing(commit, self.cache.sizes(commit))
        known = self.at_once.known.get(("listing", *self._key, commit))
        return known if isinstance(known, Listing) else None

    def listing(self) -> Listing:
        """The files, in one request.

        Raises:
            CkptError: there is no such repository or revision, or it may not be read.
        """
        known = self.known_listing()
        if known is not None:
            return known
        if self.settings.is_offline:
            raise self.offline(self.place.address)
        revision = quote(self.commit() or self.place.revision, safe="")
        said = self._api(f"/api/{self.place.kind}/{self.place.id}/revision/{revision}?blobs=true")
        commit = said.get("sha") if isinstance(said, dict) else None
        if not isinstance(commit, str) or not re.fullmatch(r"[0-9a-f]{40}", commit):
            raise UnreadableError(f"{self.settings.endpoint} {_NOT_A_HUB}", hint="check HF_ENDPOINT and the network")
        siblings = said.get("siblings") if isinstance(said, dict) else None
        sizes = self._siblings(siblings) if isinstance(siblings, list) else self._tree(commit)
        self.pin(commit)
        found = Listing(commit, sizes)
        self.at_once.known["listing", *self._key, commit] = found
        return found

    def _siblings(self, siblings: Sequence[object]) -> dict[str, int | None]:
        sizes: dict[str, int | None] = {}
        for each in siblings:
            if not isinstance(each, dict):
                continue
            lfs = each.get("lfs")
            size = lfs.get("size") if isinstance(lfs, dict) else each.get("size")
            self._enter(sizes, each.get("rfilename"), size)
        return sizes

    def _tree(self, commit: str) -> dict[str, int | None]:
        """The files page by page."""
        sizes: dict[str, int | None] = {}
        url = Url.parse(
            f"{self.settings.endpoint}/api/{self.place.kind}/{self.place.id}/tree/{commit}?recursive=true&expand=false"
        )
        for _ in range(_MAX_PAGES):
            entries, following = self._page(url)
            for each in entries if isinstance(entries, list) else ():
                if isinstance(each, dict) and each.get("type") == "file":
                    self._enter(sizes, each.get("path"), each.get("size"))
            if following is None:
                return sizes
            url = following
        raise UnreadableError(
            f"{self.place.address} has more than {_MAX_PAGES} pages of files", hint="name a file of it"
        )

    def _enter(self, sizes: dict[str, int | None], name: object, size: object) -> None:
        """Note a file of a listing, whose names are a stranger's."""
        if not isinstance(name, str) or not is_plain(name):
            raise UnreadableError(
                f"{self.place.address} lists a file under a name that leads elsewhere: {str(name)[:200]!r}"
            )
        sizes[name] = size if type(size) is int and size >= 0 else None
        if len(sizes) > _MAX_ENTRIES:
            raise UnreadableError(
                f"{self.place.address} has more than {_MAX_ENTRIES:,} files", hint="name a file of it"
            )

    # ------------------------------------------------------------------ asking

    @property
    def _secrets(self) -> dict[str, str]:
        token = hub_token()
        if token is None or not may_have_secrets(Url.parse(self.settings.endpoint)):
            return {}
        if self.settings.is_mirror:
            note = Note(
                f"HF_ENDPOINT is {self.settings.endpoint}: the token is sent there",
                "HF_HUB_DISABLE_IMPLICIT_TOKEN=1 keeps it",
            )
            if note not in session().notes:
                session().notes.append(note)
        return {"Authorization": f"Bearer {token}"}

    def _api(self, path: str) -> object:
        return self._page(Url.parse(f"{self.settings.endpoint}{path}"))[0]

    def _page(self, url: Url) -> tuple[object, Url | None]:
        """A JSON answer, and the URL of the next page."""
        secrets = self._secrets

        def attempt() -> tuple[bytes, str]:
            client = self.at_once.client
            headers = {"Accept": "application/json"}
            with client.get(url, headers, deadline, secrets=secrets, zones=zones_of(url)) as answer:
                if answer.status != 200:
                    raise status_error(answer)
                return answer.read_all(_MAX_JSON, "listing"), answer.header("Link") or ""

        deadline = Deadline()
        try:
            text, link = patiently(attempt, deadline, str(self.place.address))
            said = json.loads(text)
        except StatusError as error:
            raise worded(error, replace(self.place, path="")) from None
        except (ValueError, RecursionError):
            raise UnreadableError(f"{url.shown} {_NOT_A_HUB}", hint="check HF_ENDPOINT and the network") from None
        match = re.search(r'<([^<>]*)>\s*;\s*rel="?next"?', link)
        if match is None:
            return said, None
        try:
            following = url.join(match[1])
        except ValueError:
            following = None
        if following is None or following.origin != url.origin:
            raise UnreadableError(f"{url.shown} names a next page on another server")
        return said, following

    # ------------------------------------------------------------------ files

    def file(self, path: str, folder: Folder, address: Address) -> ByteSource:
        """A file by its path: from the cache, or by ranges.

        Raises:
            CkptError: there is no such file, or it may not be read.
        """
        commit = self.commit()
        if commit is not None:
            cached = self.cache.file(commit, path)
            if cached is not None:
                return CachedFile(address, cached, folder)
        if self.settings.is_offline:
            raise self.offline(address)
        key: Hashable = ("hub", *self._key, commit, path)
        known = self.at_once.files.get(key)
        if commit is not None and isinstance(known, RemoteFile):
            return known
        listing = self.known_listing()
        size = None if listing is None else listing.sizes.get(path)
        made = self._ranges(path, folder, address, size)
        if isinstance(made, RemoteFile):
            self.at_once.files["hub", *self._key, self.commit(), path] = made
        return made

    def _ranges(self, path: str, folder: Folder, address: Address, size: int | None) -> ByteSource:
        asked = replace(self.place, path=path)
        site = Site(str(address), self._secrets, lambda error: worded(error, asked), ("X-Repo-Commit", _NOT_A_HUB))
        commit = self.commit()
        ranges = HttpRanges(self.at_once, self._resolve_url(commit or self.place.revision, path), site, size)
        head = b""
        if size is None:
            head = ranges.first(FIRST)
            if commit is None and ranges.commit is not None:
                if not re.fullmatch(r"[0-9a-f]{40}", ranges.commit):
                    raise UnreadableError(
                        f"{self.settings.endpoint} {_NOT_A_HUB}", hint="check HF_ENDPOINT and the network"
                    )
                commit = ranges.commit
                self.pin(commit)
                ranges.url = self._resolve_url(commit, path)
                cached = self.cache.file(commit, path)
                if cached is not None:
                    return CachedFile(address, cached, folder)
        length = ranges.size or 0
        blocks = Blocks(str(address), length, ranges.fetch, self.at_once.memory)
        if head:
            blocks.put(0, head)
        identity = ("hub", *self._key, commit, path, length)
        self.at_once.transfer.add_file(identity, length)
        return RemoteFile(address, identity, length, folder, blocks)

    def _resolve_url(self, revision: str, path: str) -> Url:
        prefix = "" if self.place.kind == "models" else f"/{self.place.kind}"
        where = f"{prefix}/{self.place.id}/resolve/{quote(revision, safe='')}/{quote(path)}"
        return Url.parse(f"{self.settings.endpoint}{where}")

    def offline(self, address: Address) -> UnreadableError:
        return MissingError(
            f"{address} is not in the cache, and HF_HUB_OFFLINE is set",
            hint="unset HF_HUB_OFFLINE, or download it first",
            path=address,
        )
