"""Two hosts on one machine: network namespaces with own host names, joined by a switch in a third namespace.

The processes of a host see its network, its name and its ``/etc/hosts``, and the files of this machine. Root is needed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

NETWORK = "10.213.77"  # Addresses inside the namespaces, which no other process of the machine sees.
PREFIX = "robusttune"


class Host(NamedTuple):
    """A host of the small network.

    Attributes:
        name: Host name, which the processes of both hosts resolve.
        namespace: Name of its network namespace.
        address: IPv4 address.
    """

    name: str
    namespace: str
    address: str

    def start(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Any:
        """Start a command on this host, which appends its output to a file, and return the process.

        Args:
            command: Program and arguments.
            log: File for standard output and standard error.
            environment: Environment variables; those of this process by default.
        """
        with log.open("ab") as file:
            return subprocess.Popen(self.inside(command), stdout=file, stderr=subprocess.STDOUT, env=environment)

    def kill(self) -> None:
        """Kill every process on this host, as a power failure does."""
        while pids := _output("ip", "netns", "pids", self.namespace).split():
            for pid in map(int, pids):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.05)

    def connect(self, up: bool) -> None:
        """Set the link of this host up or down."""
        _call("ip", "-n", self.namespace, "link", "set", "eth0", "up" if up else "down")

    def inside(self, command: Sequence[str]) -> list[str]:
        """Return the command that runs a command on this host."""
        named = ["sh", "-c", 'hostname "$0" && exec "$@"', self.name, *command]
        return ["ip", "netns", "exec", self.namespace, "unshare", "--uts", *named]


def unavailable() -> str | None:
    """Return why this machine cannot have such hosts, or None if it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [program for program in ("ip", "unshare", "hostname") if shutil.which(program) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    probe = f"{PREFIX}-{os.getpid()}-probe"
    done = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"no network namespaces: {done.stderr.strip()}"
    _call("ip", "netns", "del", probe)
    return None


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host, Host]]:
    """Create two hosts, ``alpha`` and ``beta``, and the ``switch`` between them, which is a host, too.

    At the end, their processes are killed and the namespaces removed. Those of a test process that was killed before it
    could do so are removed first.
    """
    _remove_leftovers()
    hosts = [
        Host(name, f"{PREFIX}-{os.getpid()}-{name}", f"{NETWORK}.{number}")
        for number, name in enumerate(("switch", "alpha", "beta"), 1)
    ]
    switch, alpha, beta = hosts
    names = "".join(f"{host.address} {host.name}\n" for host in hosts)
    try:
        for host in hosts:
            _call("ip", "netns", "add", host.namespace)
            _call("ip", "-n", host.namespace, "link", "set", "lo", "up")
            folder = _etc(host.namespace)  # `ip netns exec` puts its files over those in /etc
            folder.mkdir(parents=True)
            (folder / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
        _call("ip", "-n", switch.namespace, "link", "add", "eth0", "type", "bridge")
        for host in (alpha, beta):
            port = ["port-" + host.name, "netns", switch.namespace]
            _call("ip", "-n", host.namespace, "link", "add", "eth0", "type", "veth", "peer", "name", *port)
            _call("ip", "-n", switch.namespace, "link", "set", port[0], "master", "eth0", "up")
        for host in hosts:
            _call("ip", "-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "eth0")
            host.connect(up=True)
        yield alpha, beta, switch
    finally:
        for host in hosts:
            _remove(host.namespace)


def _remove_leftovers() -> None:
    """Remove the namespaces of test processes that have ended."""
    for line in _output("ip", "netns", "list").splitlines():
        name = line.split()[0]
        prefix, _, rest = name.partition("-")
        if prefix == PREFIX and not Path("/proc", rest.partition("-")[0]).exists():
            _remove(name)


def _remove(namespace: str) -> None:
    """Kill the processes of a namespace, and remove it with its files."""
    if Path("/run/netns", namespace).exists():
        Host("", namespace, "").kill()
        _call("ip", "netns", "del", namespace)
    shutil.rmtree(_etc(namespace), ignore_errors=True)


def _etc(namespace: str) -> Path:
    return Path("/etc/netns", namespace)


def _call(*command: str) -> None:
    subprocess.run(command, check=True)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
