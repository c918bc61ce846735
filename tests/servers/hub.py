"""A hub with a content network of its own, which signs each range, as the real one does for large files."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from tests.servers.base import Asked, Handler, Log, serving

LARGE = 1 << 10  # bytes from which on a file lies at the content network


@dataclass
class Hub:
    """Repositories and rules.

    Attributes:
        files: by "OWNER/NAME" (for data sets "datasets/OWNER/NAME"), the content of each path.
        token: what a private repository asks for; None where everything is public.
        gated: nobody has access.
        pages: names of a page of the tree; 0 to list siblings.
        no_sizes: the listing has names alone.
    """

    files: dict[str, dict[str, bytes]]
    token: str | None = None
    gated: bool = False
    pages: int = 0
    no_sizes: bool = False
    revisions: dict[str, str] = field(default_factory=dict)
    url: str = ""
    cdn: str = ""
    log: Log = field(default_factory=Log)
    signed: dict[str, tuple[bytes, tuple[int, int] | None]] = field(default_factory=dict)

    def commit(self, repository: str) -> str:
        """Another one after any change of a file."""
        digest = hashlib.sha1(repository.encode())
        for path, data in sorted(self.files[repository].items()):
            digest.update(path.encode() + hashlib.sha256(data).digest())
        return digest.hexdigest()

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The ranges that the content network was asked for, or the hub for small files."""
        return [each.range for each in self.log.asked if each.range and (each.server == "cdn" or "cache" in each.path)]

    # ------------------------------------------------------------------ the hub

    def answer(self, handler: Handler, asked: Asked) -> None:
        parts = urlsplit(asked.path)
        if parts.path.startswith("/api/resolve-cache/"):
            return self._small(handler, asked, parts.path)
        segments = [unquote(each) for each in parts.path.strip("/").split("/")]
        is_api = segments[0] == "api"
        if is_api:
            kind, owner, name, *rest = segments[1:]
        else:
            kind = segments.pop(0) if segments[0] in ("datasets", "spaces") else "models"
            owner, name, *rest = segments
        repository = f"{owner}/{name}" if kind == "models" else f"{kind}/{owner}/{name}"
        if repository not in self.files:
            return self._refused(handler, 401 if self._is_anonymous(asked) else 404, "RepoNotFound")
        if self.token is not None and asked.headers.get("authorization") != f"Bearer {self.token}":
            return self._refused(handler, 401, "RepoNotFound")
        if self.gated and not is_api:
            return self._refused(handler, 403, "GatedRepo")
        if rest[0] in ("revision", "tree", "resolve") and not self._is_revision(repository, rest[1]):
            return self._refused(handler, 404, "RevisionNotFound")
        if rest[0] == "revision":
            return self._about(handler, repository)
        if rest[0] == "tree":
            return self._tree(handler, asked, repository, parse_qs(parts.query))
        return self._resolve(handler, asked, repository, kind, "/".join(rest[2:]))

    def _is_anonymous(self, asked: Asked) -> bool:
        return "authorization" not in asked.headers

    def _is_revision(self, repository: str, revision: str) -> bool:
        return revision in ("main", self.commit(repository), *self.revisions)

    def _refused(self, handler: Handler, status: int, code: str) -> None:
        handler.say(status, b"{}", X_Error_Code=code, X_Error_Message=f"{code} it is")

    def _about(self, handler: Handler, repository: str) -> None:
        said: dict[str, object] = {"id": repository, "sha": self.commit(repository)}
        if not self.pages:
            said["siblings"] = [
                {"rfilename": path} if self.no_sizes else {"rfilename": path, "size": len(data)}
                for path, data in self.files[repository].items()
            ]
        handler.say(200, json.dumps(said).encode(), Content_Type="application/json")

    def _tree(self, handler: Handler, asked: Asked, repository: str, query: Mapping[str, list[str]]) -> None:
        files = sorted(self.files[repository].items())
        start = int(query.get("cursor", ["0"])[0])
        stop = start + self.pages
        page = [{"type": "file", "path": path, "size": len(data)} for path, data in files[start:stop]]
        path = asked.path.partition("?")[0]
        more = {"Link": f'<{self.url}{path}?recursive=true&cursor={stop}>; rel="next"'} if stop < len(files) else {}
        handler.say(200, json.dumps(page).encode(), **more)

    def _resolve(self, handler: Handler, asked: Asked, repository: str, kind: str, path: str) -> None:
        data = self.files[repository].get(path)
        commit = self.commit(repository)
        if data is None:
            return self._refused(handler, 404, "EntryNotFound")
        if len(data) < LARGE:
            target = f"/api/resolve-cache/{kind}/{repository.removeprefix(kind + '/')}/{commit}/{path}"
            return handler.say(307, b"Temporary Redirect", Location=target, X_Repo_Commit=commit)
        signature = secrets.token_hex(8)
        self.signed[signature] = (data, asked.range)
        return handler.say(
            302,
            b"Found",
            Location=f"{self.cdn}/blob/{path.rpartition('/')[2]}?X-Xet-Signature={signature}",
            X_Repo_Commit=commit,
            X_Linked_Size=str(len(data)),
            X_Linked_ETag=f'"{hashlib.sha256(data).hexdigest()}"',
        )

    def _small(self, handler: Handler, asked: Asked, path: str) -> None:
        kind, owner, name, commit, *rest = unquote(path).split("/")[3:]
        repository = f"{owner}/{name}" if kind == "models" else f"{kind}/{owner}/{name}"
        data = self.files[repository]["/".join(rest)]
        etag = f'"{hashlib.sha1(data).hexdigest()}"'
        handler.say_range(data, asked, ETag=etag, X_Repo_Commit=commit)

    # ------------------------------------------------------------------ the content network

    def answer_cdn(self, handler: Handler, asked: Asked) -> None:
        found = self.signed.get(parse_qs(urlsplit(asked.path).query).get("X-Xet-Signature", [""])[0])
        if found is None or found[1] != asked.range:
            return handler.say(403, b"invalid range", Content_Type="text/plain")
        return handler.say_range(found[0], asked, ETag=f'"{hashlib.md5(found[0]).hexdigest()}"')


@contextmanager
def serving_hub(hub: Hub) -> Iterator[Hub]:
    """Serve a hub and its content network on two ports of the loopback."""
    with ExitStack() as stack:
        hub.url, _ = stack.enter_context(serving(hub.answer, hub.log, "hub"))
        hub.cdn, _ = stack.enter_context(serving(hub.answer_cdn, hub.log, "cdn"))
        yield hub
