"""Memory of this process, as Linux counts it."""

from __future__ import annotations

from pathlib import Path


def private() -> int:
    """Return the bytes of memory of its own, without those of mapped files."""
    return _bytes("smaps_rollup", "Anonymous")


def resident() -> int:
    """Return the bytes in memory, with those of mapped files."""
    return _bytes("status", "VmRSS")


def peak() -> int:
    """Return the most bytes in memory since the start or the last `reset_peak`."""
    return _bytes("status", "VmHWM")


def reset_peak() -> None:
    """Forget how much memory was used before."""
    Path("/proc/self/clear_refs").write_text("5")


def _bytes(file: str, name: str) -> int:
    lines = (Path("/proc/self") / file).read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
