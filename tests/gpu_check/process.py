"""A part in a process of its own: starting it, ending it at its limit, and reading what it has recorded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from time import perf_counter

from gpu_check.results import PartResult, Record

MISSING = 3  # exit status of a part that needs a package which is not installed
MAIN = Path(__file__).with_name("__main__.py")


def run_in_process(name: str, device: str, small: bool, seconds: float) -> PartResult:
    """Run a part in a process of its own, and end it with everything that it has started when its time is over.

    Args:
        name: Name of the part.
        device: ``cuda`` or ``cpu``.
        small: True for the small form.
        seconds: Time limit.
    """
    with tempfile.TemporaryDirectory(prefix="gpu-check-", ignore_cleanup_errors=True) as folder:
        records, log = Path(folder) / "records.json", Path(folder) / "log"
        command = [sys.executable, str(MAIN), "--part", name, "--device", device, "--folder", folder]
        start = perf_counter()
        with log.open("w") as file:
            process = subprocess.Popen(
                [*command, "--small"] if small else command,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"},
            )
            try:
                status: int | None = process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                end_group(process)
        took = perf_counter() - start
        return outcome(status, took, records, log.read_text(encoding="utf-8", errors="replace"))


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and everything that it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
    with suppress(subprocess.TimeoutExpired):  # A process that hangs in the driver cannot be waited for.
        process.wait(timeout=10)


def outcome(status: int | None, took: float, records: Path, log: str) -> PartResult:
    """Return the result of a part whose process has ended.

    Args:
        status: Exit status of the process; None if it was ended at its limit.
        took: Duration of the process in seconds.
        records: JSON file of its records, which may be absent.
        log: Output of the process.
    """
    found = [Record(**record) for record in json.loads(records.read_text())] if records.exists() else []
    result = PartResult("passed", round(took, 1), records=found)
    if status is None:
        result.state, result.note = "timed out", f"ended after {took:.0f} s; the last lines: {log[-1000:]}"
    elif status == MISSING:
        result.state, result.note = "package missing", log.strip().splitlines()[-1]
    elif status != 0:
        result.state, result.note = "crashed", f"exit status {status}: {log[-3000:]}"
    elif any(record.passed is False for record in found):
        result.state = "failed"
    return result


def run_here(name: str, device: str, small: bool, folder: Path) -> int:
    """Run a part in this process, and return the exit status. The records go to ``records.json`` in the folder."""
    try:
        from gpu_check.context import Context

        part = import_module(f"gpu_check.parts.{name}")
        files = folder / "files"
        files.mkdir()
        part.run(Context(device, small, files, folder / "records.json"))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in ("robusttune", "gpu_check"):
            raise
        print(f"the package {error.name} is not installed")
        return MISSING
    return 0
