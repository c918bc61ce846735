"""What lasts as long as one command: its network, if it asks for one. Importing this costs nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ckptool.storage.transfer import Read

if TYPE_CHECKING:
    from ckptool.core.checkpoint import Note


class Remote(Protocol):
    """The network of a command."""

    @property
    def read(self) -> Read: ...

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Session:
    """What a command knows of the network.

    Attributes:
        is_command: True within one command of the command line: what was found once stays true. In the Python API every
            address that is opened is looked up anew.
        network: its connections; None before the first address.
        notes: what the user should know of servers.
    """

    is_command: bool = False
    network: Remote | None = None
    notes: list[Note] = field(default_factory=list)


_SESSIONS = [Session()]


def session() -> Session:
    """The session that lasts now; all threads have one."""
    return _SESSIONS[-1]


@contextmanager
def one_session() -> Iterator[Session]:
    """A session of its own for one command; its connections are closed at the end."""
    made = Session(is_command=True)
    _SESSIONS.append(made)
    try:
        yield made
    finally:
        _SESSIONS.remove(made)
        if made.network is not None:
            made.network.close()


def interrupt_reads() -> None:
    """Have threads that wait for bytes of the network wait no longer: Ctrl-C ends the command now."""
    network = session().network
    if network is not None:
        network.interrupt()


def read_so_far() -> Read | None:
    """What has been read over the network; None if nothing was asked."""
    network = session().network
    return network.read if network is not None else None
