"""What the hub's refusals mean: a repository that is missing, private or gated looks much the same from outside."""

from __future__ import annotations

from dataclasses import replace

from ckptool.core.errors import CkptError, MissingError, UnreadableError
from ckptool.storage.http import StatusError
from ckptool.storage.hub_address import HubPlace
from ckptool.storage.hub_settings import hub_token


def worded(error: StatusError, place: HubPlace) -> CkptError:
    """The error for a status of the hub.

    Args:
        error: what it answered.
        place: what was asked for.
    """
    where = place.address
    repository = replace(place, path="").address
    code = error.answer.first_header("X-Error-Code") or ""
    said = (error.answer.first_header("X-Error-Message") or "")[:200]
    has_token = bool(hub_token())
    match error.status, code:
        case _, "EntryNotFound":
            return MissingError(f"{where} does not exist", path=where, hint="check the spelling")
        case _, "RevisionNotFound":
            return MissingError(f"{repository} does not exist: no such revision", path=where, hint="check the spelling")
        case 401, _ if "invalid" in said.lower() and "credentials" in said.lower():
            hint = "make a new one on the hub's page of tokens, or unset HF_TOKEN"
            return UnreadableError("the hub does not know the token", path=where, hint=hint)
        case ((401 | 403), "GatedRepo"):
            hint = "ask for access on its page" + ("" if has_token else ", then set HF_TOKEN")
            return UnreadableError(f"{repository} is gated, and this user has no access", path=where, hint=hint)
        case 401, _:
            which = "; the token in use has no access to it if it is there"
            hint = "check the spelling" + (which if has_token else "; for a private or gated one set HF_TOKEN")
            return UnreadableError(f"{repository} does not exist, is private, or is gated", path=where, hint=hint)
        case 403, _:
            why = said or error.words or "access is refused"
            return UnreadableError(f"{repository} may not be read: {why}", path=where, hint="look at its page")
        case 404, _:
            hint = "check the spelling" + ("; a private one looks the same without access" if has_token else "")
            return MissingError(f"{where} does not exist", path=where, hint=hint)
    words = said or error.words
    return UnreadableError(
        f"{where} cannot be read: {error.answer.url.shown} answers {error.status}{f' ({words})' if words else ''}",
        path=where,
    )
