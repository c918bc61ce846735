"""What the environment says of the Hugging Face hub, by the rules of its own library."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ckptool.core.errors import UsageError

HUB = "https://huggingface.co"
_TRUE = {"1", "ON", "YES", "TRUE"}


@dataclass(frozen=True, slots=True)
class HubSettings:
    """How the hub is reached.

    Attributes:
        endpoint: its address, without a slash at the end.
        is_offline: nothing may be asked.
        cache: the folder of downloaded files.
    """

    endpoint: str
    is_offline: bool
    cache: Path

    @property
    def is_mirror(self) -> bool:
        """True if it is not the hub itself."""
        return self.endpoint != HUB


def hub_settings() -> HubSettings:
    """The settings as they are at the moment.

    Raises:
        UsageError: HF_ENDPOINT is not a web address.
    """
    endpoint = (os.environ.get("HF_ENDPOINT") or HUB).strip().rstrip("/")
    if not endpoint.startswith(("http://", "https://")) or "@" in endpoint:
        raise UsageError("HF_ENDPOINT is not a web address", hint="HF_ENDPOINT=https://HOST")
    offline = any(_is_true(name) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return HubSettings(endpoint, offline, _expanded(named) if named else _home() / "hub")


def hub_token() -> str | None:
    """The user's token; None without one, or if the user does not want it to be sent by itself."""
    if _is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN"):
        return None
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if token := _clean(os.environ.get(name, "")):
            return token
    named = os.environ.get("HF_TOKEN_PATH")
    try:
        return _clean((_expanded(named) if named else _home() / "token").read_text(encoding="utf-8")) or None
    except (OSError, ValueError):
        return None


def _clean(token: str) -> str:
    """A token on one line of characters that a header can hold; nothing else is sent."""
    token = token.replace("\r", "").replace("\n", "").strip()
    return token if token.isascii() and token.isprintable() else ""


def _home() -> Path:
    named = os.environ.get("HF_HOME")
    if named:
        return _expanded(named)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (_expanded(cache) if cache else _expanded("~/.cache")) / "huggingface"


def _expanded(text: str) -> Path:
    return Path(os.path.expandvars(text)).expanduser()


def _is_true(name: str) -> bool:
    return os.environ.get(name, "").strip().upper() in _TRUE
