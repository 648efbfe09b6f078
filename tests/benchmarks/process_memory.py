"""Memory of this process, as Linux counts it."""

from __future__ import annotations

import threading
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


def parts(process: int | str = "self") -> dict[str, int]:
    """Return the bytes in memory of a process: ``resident``, ``private`` to it, and ``dirty``, which no file has."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:])
    size = {name: int(value.split()[0]) * 1024 for name, value in lines.items()}
    dirty = size["Private_Dirty"]
    return {"resident": size["Rss"], "private": dirty + size["Private_Clean"], "dirty": dirty}


class PeakMemory(threading.Thread):
    """A thread that records the peak of each of the `parts` of this process.

    Attributes:
        most: Peaks since the start of the thread.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = parts()
        self.most = dict(self.before)
        self.end = threading.Event()

    def run(self) -> None:
        """Look at the memory until the end."""
        while not self.end.wait(0.02):
            self.look()

    def look(self) -> None:
        """Compare the memory of this moment with the peaks."""
        for name, size in parts().items():
            self.most[name] = max(self.most[name], size)

    def above(self) -> dict[str, int]:
        """Stop, and return the peaks above the start."""
        self.end.set()
        self.join()
        self.look()
        return {name: self.most[name] - self.before[name] for name in self.most}


def _bytes(file: str, name: str) -> int:
    lines = (Path("/proc/self") / file).read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
