"""Signs of life between the ranks of a run on several hosts, to notice within a minute that one of them is gone.

Collective operations do not notice it themselves: if a host loses its power or network, no connection is closed, and
all others wait for half an hour (gloo) or ten minutes (NCCL). Here, each rank has a connection to rank 0, over which
both send a byte every second from a thread of their own. A rank is lost if its connection is closed without a farewell,
or if nothing arrives for `LOST_AFTER` seconds. Rank 0 sends this to all others, so that all name the same rank.
"""

from __future__ import annotations

import hmac
import json
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

LOST_AFTER = 60.0  # Seconds of silence. A slow file system or a long calculation does not silence the thread.
INTERVAL = 1.0  # seconds between two signs of life
TICK = 0.2  # seconds between two looks at what the main thread asks for
CONNECT_WITHIN = 60.0  # seconds
LONGEST = 16384  # bytes of a message
LONGEST_REASON = 1000  # characters, each of which JSON writes as up to 12 bytes
ALIVE = b"\n"
CONNECTION = ("onnection closed", "onnection reset", "onnection refused", "connectFullMesh", "imed out", "roken pipe")


class Ending(NamedTuple):
    """The end of a rank.

    Attributes:
        ranks: Ranks that have ended.
        reason: Reason for the end, empty for a rank that has finished its work.
        lost: True if the ranks are lost, False if they have said farewell.
    """

    ranks: list[int]
    reason: str = ""
    lost: bool = False


class Heartbeat:
    """The connections of one rank, and the thread that listens to them.

    Args:
        rank: Rank of this process.
        peers: Connection to each other rank: to all others on rank 0, to rank 0 on the others.
        on_end: Function that the thread calls once when another rank has ended, before it ends itself.

    Attributes:
        suspected: Event that says that this rank has reason to believe that another one is lost. The thread then waits
            a few seconds instead of `LOST_AFTER`.
    """

    def __init__(self, rank: int, peers: dict[int, socket.socket], on_end: Callable[[Ending], None]) -> None:
        self.rank = rank
        self.suspected = threading.Event()
        self._peers = peers
        self._on_end = on_end
        self._heard = dict.fromkeys(peers, time.monotonic())
        self._received = dict.fromkeys(peers, b"")
        self._own: Ending | None = None
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self, reason: str = "") -> None:
        """Say farewell to the other ranks and close the connections.

        Args:
            reason: Reason for the end, empty if the work is finished.
        """
        self._own = Ending([self.rank], reason)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=10 * INTERVAL)

    def wait(self, seconds: float) -> None:
        """Wait until another rank has ended and ``on_end`` has returned, or the time is over."""
        self._thread.join(timeout=seconds)

    @property
    def stopped(self) -> bool:
        """Return whether this rank has said farewell itself."""
        return self._own is not None

    def _run(self) -> None:
        """Exchange signs of life until a rank ends, this one or another."""
        with selectors.DefaultSelector() as selector:
            for rank, connection in self._peers.items():
                connection.settimeout(TICK)
                selector.register(connection, selectors.EVENT_READ, rank)
            next_beat = time.monotonic()
            ending = None
            while ending is None:
                if time.monotonic() >= next_beat:
                    next_beat += INTERVAL
                    self._send(ALIVE, self._peers)
                ready = [key.data for key, _ in selector.select(TICK)]
                ending = self._own or self._farewell(ready) or self._lost()
        if self.rank == 0 or ending is self._own:
            message = json.dumps(ending._replace(reason=ending.reason[:LONGEST_REASON])).encode() + b"\n"
            self._send(message, set(self._peers) - set(ending.ranks))
        if ending is not self._own:
            self._on_end(ending)
        for connection in self._peers.values():
            connection.close()

    def _send(self, message: bytes, ranks: Iterable[int]) -> None:
        """Send a message to ranks. Those that cannot be reached are noticed by their silence."""
        for rank in ranks:
            with suppress(OSError):
                self._peers[rank].sendall(message)

    def _farewell(self, ready: list[int]) -> Ending | None:
        """Read what has arrived from ranks, and return a farewell if there is one."""
        for rank in ready:
            try:
                arrived = self._peers[rank].recv(LONGEST)
            except TimeoutError:
                continue
            except OSError:
                arrived = b""
            if not arrived:  # The connection is closed.
                self._heard[rank] = float("-inf")
                continue
            self._heard[rank] = time.monotonic()
            *lines, rest = (self._received[rank] + arrived).split(b"\n")
            self._received[rank] = rest[:LONGEST]
            for line in filter(None, lines):
                return Ending(*json.loads(line))
        return None

    def _lost(self) -> Ending | None:
        """Return the end of the ranks that are lost, or None."""
        now = time.monotonic()
        patience = 5 * INTERVAL if self.suspected.is_set() else LOST_AFTER
        if all(now - heard < patience for heard in self._heard.values()):
            return None
        # The ranks of one host become silent within two intervals.
        silent = {rank: now - heard for rank, heard in self._heard.items() if now - heard > patience - 2 * INTERVAL}
        longest = max(silent.values())
        reason = "the connection is closed" if longest == float("inf") else f"no sign of life for {longest:.0f} s"
        return Ending(sorted(silent), reason, lost=True)


def is_connection_error(error: BaseException) -> bool:
    """Return whether an error of a collective operation says that another rank cannot be reached.

    Example:
        >>> is_connection_error(RuntimeError("[gloo/transport/tcp/pair.cc:545] Connection closed by peer"))
        True
    """
    # The names of its classes spare commands that communicate with nobody the import of torch.
    if any(kind.__name__ == "DistError" for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and "gloo" in str(error) and any(words in str(error) for words in CONNECTION)


def listen(count: int) -> tuple[socket.socket, int]:
    """Open a port on rank 0, and return its socket and number.

    Args:
        count: Number of ranks that will connect.
    """
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    server = socket.create_server(("", 0), family=family, backlog=count, dualstack_ipv6=dual)
    return server, int(server.getsockname()[1])


def accept(server: socket.socket, count: int, token: str) -> dict[int, socket.socket]:
    """Accept the connections of the other ranks on rank 0, then close the port.

    Args:
        server: Socket from `listen`.
        count: Number of ranks that connect.
        token: Secret that only the ranks of this run know. Others are turned away.

    Returns:
        Connection of each rank.

    Raises:
        OSError: Not all ranks have connected in time.
    """
    peers: dict[int, socket.socket] = {}
    deadline = time.monotonic() + CONNECT_WITHIN
    with server:
        while len(peers) < count:
            server.settimeout(max(0.001, deadline - time.monotonic()))
            connection, _ = server.accept()
            connection.settimeout(5.0)
            with suppress(OSError, ValueError):
                line = connection.makefile("rb", buffering=0).readline(LONGEST)  # and nothing of what comes behind it
                given, _, rank = line.decode().strip().rpartition(" ")
                if hmac.compare_digest(given.encode(), token.encode()):
                    peers[int(rank)] = connection
                    continue
            connection.close()
    return peers


def connect(address: str, port: int, rank: int, token: str) -> dict[int, socket.socket]:
    """Connect another rank to rank 0.

    Args:
        address: Address or name of the host of rank 0.
        port: Port from `listen`.
        rank: Rank of this process.
        token: Secret that only the ranks of this run know.

    Returns:
        Connection to rank 0.

    Raises:
        OSError: Rank 0 cannot be reached.
    """
    connection = socket.create_connection((address, port), timeout=CONNECT_WITHIN)
    connection.sendall(f"{token} {rank}\n".encode())
    return {0: connection}
