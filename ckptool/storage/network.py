"""The network as one command uses it: connections, memory, counts, and what it has found already."""

from __future__ import annotations

from collections.abc import Hashable

from ckptool.core.bytes import ByteSource
from ckptool.storage.http import Client
from ckptool.storage.memory import Memory
from ckptool.storage.session import session
from ckptool.storage.transfer import Read, Transfer


class Network:
    """Connections and memory of one session.

    Attributes:
        transfer: counts.
        client: asks.
        memory: what is kept, and threads that fetch.
        files: the far files that were located, by what tells them apart.
        known: further facts of servers: commits, listings.
    """

    def __init__(self) -> None:
        self.transfer = Transfer()
        self.client = Client(self.transfer)
        self.memory = Memory()
        self.files: dict[Hashable, ByteSource] = {}
        self.known: dict[Hashable, object] = {}

    @property
    def read(self) -> Read:
        """What has been read so far."""
        return self.transfer.read

    def interrupt(self) -> None:
        """Have nobody wait any longer for bytes."""
        self.memory.workers.interrupt()

    def close(self) -> None:
        """Close all connections; threads that fetch end."""
        self.client.close()
        self.memory.workers.end()


def network() -> Network:
    """The network of the session that lasts now."""
    current = session()
    if not isinstance(current.network, Network):
        current.network = Network()
    return current.network
