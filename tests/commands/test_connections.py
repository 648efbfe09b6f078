"""What prevents connections between hosts, and how errors of collective operations are worded."""

from __future__ import annotations

import socket

import pytest

from robusttune.commands.connections import connection_error, require_reachable_name
from robusttune.errors import RobustTuneError

GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:545] Connection closed by peer [10.0.0.2]:9. GLHF"


def named(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let the name of this host stand for addresses."""

    def lookup(*_: object) -> list[object]:
        if not addresses:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(socket, "gethostname", lambda: "node7")
    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        (["127.0.1.1"], "the name of this host, node7, stands for 127.0.1.1, where other hosts cannot reach it: set "),
        (["::1", "10.0.0.7"], "stands for ::1, where other hosts cannot reach it: set "),
        ([], "the name of this host, node7, stands for no address: set the environment variable GLOO_SOCKET_IFNAME "),
    ],
    ids=["debian", "ipv6", "unknown"],
)
def test_a_host_that_others_cannot_reach_is_refused(
    monkeypatch: pytest.MonkeyPatch, addresses: list[str], expected: str
) -> None:
    named(monkeypatch, *addresses)
    with pytest.raises(RobustTuneError) as refused:
        require_reachable_name(2)
    assert expected in str(refused.value)
    require_reachable_name(1)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth0")
    require_reachable_name(2)


@pytest.mark.parametrize("address", ["10.0.0.7", "fe80::1%eth0", "2001:db8::7"])
def test_a_host_with_an_address_is_not(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    named(monkeypatch, address, "127.0.0.1")
    require_reachable_name(2)


def test_a_failed_connection_is_one_sentence() -> None:
    error = connection_error(RuntimeError(f"{GLOO}\nException raised from read\nframe #0: c10::Error"))
    assert str(error) == (
        "another process of this run cannot be reached (Connection closed by peer [10.0.0.2]:9. GLHF): look for its "
        "error, and check the network between the hosts; continue a fit with --resume auto"
    )
    assert connection_error(RuntimeError("CUDA out of memory")) is None
