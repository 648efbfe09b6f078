"""Run commands of the package as forks of a process that has made the imports, which take most of a small command.

The ranks of a distributed command are started here, as torchrun does it, and not by Lightning, which would repeat the
imports.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import yaml

from robusttune.protocols.processes import PRELOADED

FORKS = get_context("forkserver")
TIMEOUT = 180  # seconds after which a hanging command fails


def run_command(*arguments: str, status: int = 0) -> str:
    """Run ``robusttune`` with these arguments, on as many ranks as they set devices, and return its output.

    Args:
        arguments: Verb, configurations and flags.
        status: Exit status that each rank must have.

    Returns:
        What all ranks have written to both streams, that of rank 0 first.
    """
    count = devices(arguments)
    FORKS.set_forkserver_preload(PRELOADED)
    with TemporaryDirectory() as folder:
        logs = [Path(folder) / f"{rank}.log" for rank in range(count)]
        port = _free_port()
        ranks = [
            FORKS.Process(target=_run, args=(arguments, _environment(rank, count, port), str(log)), daemon=False)
            for rank, log in enumerate(logs)
        ]
        for process in ranks:
            process.start()
        end = monotonic() + TIMEOUT
        for process in ranks:
            process.join(max(0.0, end - monotonic()))
        for process in ranks:
            process.kill()
            process.join()
        output = "".join(log.read_text() for log in logs if log.exists())
        assert [process.exitcode for process in ranks] == [status] * count, output
    return output


def devices(arguments: tuple[str, ...]) -> int:
    """Return the number of devices that a command line sets, in its last flag or in its configurations."""
    for argument in reversed(arguments):
        if argument.startswith("--trainer.devices="):
            return int(argument.partition("=")[2])
    for argument in reversed(arguments):
        if argument.startswith("--config="):
            trainer = yaml.safe_load(Path(argument.partition("=")[2]).read_text()).get("trainer") or {}
            if re.fullmatch(r"\d+", str(trainer.get("devices"))):
                return int(trainer["devices"])
    return 1


def _environment(rank: int, count: int, port: int) -> dict[str, str]:
    """Return the variables that tell Lightning not to start processes itself; none for a single rank."""
    if count == 1:
        return {}
    found = {"LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {name: str(value) for name, value in found.items()}


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
    return port


def _run(arguments: tuple[str, ...], environment: dict[str, str], log: str) -> None:
    """Run a command in this process, whose output goes to a file."""
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    from robusttune.cli import main

    out = os.open(log, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(out, stream)
    os.environ.update(environment)
    # The server has set it when it imported Lightning.
    rank_zero_only.rank = int(environment.get("LOCAL_RANK", 0))  # type: ignore[attr-defined]
    sys.argv = ["robusttune", *arguments]
    sys.exit(main(arguments))
