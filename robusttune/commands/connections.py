"""Connections between the processes of a run: what prevents them, and errors when they fail."""

from __future__ import annotations

import ipaddress
import os
import socket

from robusttune.errors import RobustTuneError
from robusttune.heartbeat import is_connection_error


class LostConnectionError(RobustTuneError):
    """The error that another process of the run cannot be reached. That process does not raise it."""


def connection_error(error: Exception) -> LostConnectionError | None:
    """Translate the error of a collective operation with a process that cannot be reached; None for other errors.

    Example:
        >>> connection_error(ValueError("another error")) is None
        True
    """
    if not is_connection_error(error):
        return None
    first = str(error).strip().splitlines()[0].partition("] ")[2] or str(error)  # without the place in gloo's code
    return LostConnectionError(
        f"another process of this run cannot be reached ({first:.200}): look for its error, and check the network "
        "between the hosts; continue a fit with --resume auto"
    )


def require_reachable_name(nodes: int) -> None:
    """Refuse a run on several hosts if the others cannot reach this one by its name: gloo would wait forever.

    Gloo listens at the address that the host's name stands for. On Debian this is 127.0.1.1 unless `/etc/hosts` was
    edited.

    Args:
        nodes: Number of hosts.

    Raises:
        RobustTuneError: The name stands for no address, or for one that only this host can reach.

    Example:
        >>> require_reachable_name(1)
    """
    if nodes == 1 or "GLOO_SOCKET_IFNAME" in os.environ:
        return
    name = socket.gethostname()
    try:
        address = str(socket.getaddrinfo(name, None)[0][4][0])
    except OSError:
        address = ""
    if not address or ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        meaning = f"stands for {address}, where other hosts cannot reach it" if address else "stands for no address"
        raise RobustTuneError(
            f"the name of this host, {name}, {meaning}: set the environment variable GLOO_SOCKET_IFNAME to the network "
            "interface between the hosts, such as eth0, or correct /etc/hosts"
        )
