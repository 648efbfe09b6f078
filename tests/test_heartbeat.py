"""Signs of life between ranks, over connections within this process."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import pytest
import torch.distributed as dist

from robusttune import heartbeat
from robusttune.heartbeat import Ending, Heartbeat, is_connection_error

WITHIN = 10.0  # seconds


class Watched:
    """Rank 0 and others of one process, and the endings that each of them has noticed.

    Args:
        count: Number of ranks.
    """

    def __init__(self, count: int) -> None:
        self.pairs = {rank: socket.socketpair() for rank in range(1, count)}
        self.noticed: dict[int, Ending] = {}
        self.ranks = {rank: Heartbeat(rank, {0: pair[1]}, self._note(rank)) for rank, pair in self.pairs.items()}
        self.ranks[0] = Heartbeat(0, {rank: pair[0] for rank, pair in self.pairs.items()}, self._note(0))

    def _note(self, rank: int) -> Callable[[Ending], None]:
        return lambda ending: self.noticed.__setitem__(rank, ending)

    def wait(self, *ranks: int) -> list[Ending]:
        """Wait until these ranks have noticed an ending, and return what they have noticed."""
        for rank in ranks:
            self.ranks[rank].wait(WITHIN)
        return [self.noticed[rank] for rank in ranks]


def test_silent_for_nobody_who_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.1)
    monkeypatch.setattr(heartbeat, "TICK", 0.05)
    monkeypatch.setattr(heartbeat, "LOST_AFTER", 0.6)
    watched = Watched(3)
    time.sleep(1.5)
    assert watched.noticed == {}
    watched.ranks[1].stop()
    assert watched.wait(0, 2) == [Ending([1])] * 2


def test_a_closed_connection_is_a_loss_that_all_know() -> None:
    """Also those whose connection to rank 0 is whole."""
    watched = Watched(4)
    watched.pairs[2][1].shutdown(socket.SHUT_RDWR)  # as the kernel does for a process that was killed
    assert watched.wait(0, 1, 3) == [Ending([2], "the connection is closed", lost=True)] * 3


def test_without_rank_zero_it_is_lost() -> None:
    watched = Watched(2)
    watched.pairs[1][0].shutdown(socket.SHUT_RDWR)
    assert watched.wait(1) == [Ending([0], "the connection is closed", lost=True)]


@pytest.mark.parametrize("suspected", [False, True])
def test_silence_is_a_loss(monkeypatch: pytest.MonkeyPatch, suspected: bool) -> None:
    """After the longer time, or sooner where a collective operation has failed."""
    monkeypatch.setattr(heartbeat, "LOST_AFTER", 60.0 if suspected else 0.7)
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.1)
    (first, silent), (second, also_silent) = socket.socketpair(), socket.socketpair()
    noticed: list[Ending] = []
    beat = Heartbeat(0, {4: first, 5: second}, noticed.append)
    if suspected:
        beat.suspected.set()
    beat.wait(WITHIN)
    assert [(ending.ranks, ending.lost) for ending in noticed] == [([4, 5], True)]
    assert noticed[0].reason.startswith("no sign of life for ")
    silent.close()
    also_silent.close()


def test_an_error_of_one_is_known_to_all() -> None:
    """However long its message is, and in whatever characters."""
    watched = Watched(3)
    watched.ranks[1].stop("a file is broken:\n" + 5000 * "✗")
    for ending in watched.wait(0, 2):
        assert ending.ranks == [1]
        assert ending.reason.startswith("a file is broken:\n✗")
        assert not ending.lost
    assert watched.ranks[1].stopped
    assert not watched.ranks[0].stopped


def test_strangers_are_turned_away() -> None:
    """A port that is open for a moment may be found by a scanner."""
    server, port = heartbeat.listen(2)
    found: dict[int, socket.socket] = {}
    accepting = threading.Thread(target=lambda: found.update(heartbeat.accept(server, 1, "secret")))
    accepting.start()
    for said in (b"GET / HTTP/1.1\n", b"wrong 1\n", b"\xff\xfe\n", b"secret one\n"):
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(said)
            assert stranger.recv(1) == b""
    connected = heartbeat.connect("127.0.0.1", port, 1, "secret")
    accepting.join(WITHIN)
    assert [*found] == [1]
    for connection in (*found.values(), *connected.values()):
        connection.close()
    with pytest.raises(OSError, match="refused"):
        heartbeat.connect("127.0.0.1", port, 1, "secret")  # the port is closed


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (dist.DistBackendError("NCCL error"), True),
        (RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer"), True),
        (RuntimeError("[enforce fail at third_party/gloo/x.cc] op.preamble.length <= op.nbytes. 8 vs 4"), False),
        (RuntimeError("Connection reset by peer"), False),
        (ConnectionResetError("Connection reset by peer"), False),
    ],
    ids=["nccl", "gloo", "another shape", "another library", "a download"],
)
def test_which_errors_are_of_a_lost_rank(error: Exception, expected: bool) -> None:
    assert is_connection_error(error) == expected
