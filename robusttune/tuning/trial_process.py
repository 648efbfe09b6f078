"""A fit in a process of its own, which is followed while it trains."""

from __future__ import annotations

import csv
import ctypes
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import sleep
from typing import IO

from robusttune.errors import RobustTuneError
from robusttune.run_names import is_run_number, run_folders

POLL = 0.5  # seconds between two looks at the metrics
GRACE = 60  # seconds that a fit has to save itself
DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)
SENTENCE = re.compile(r"robusttune: error: (.*)")


class TrialProcess:
    """A running fit.

    Args:
        args: Arguments of ``robusttune fit``, without its folder.
        root: Folder of all runs.
        name: Name of the run. An unfinished run of this name with the same settings is continued.
        monitor: Metric whose values are followed.

    Raises:
        RobustTuneError: The log cannot be written.
    """

    def __init__(self, args: Sequence[str], root: Path, name: str, monitor: str) -> None:
        self.folders, self.monitor = run_folders(root, name), monitor
        self.folders.mkdir(parents=True, exist_ok=True)
        self.log = self.folders / "log.txt"
        place = [f"--run_root={root}", f"--name={name}", "--resume=auto"]
        with self.log.open("w", encoding="utf-8") as log:
            self.process = _start(["fit", *args, *place], log)

    @property
    def folder(self) -> Path | None:
        """Return the folder of the run, or None before it is made."""
        numbers = [int(path.name) for path in self.folders.iterdir() if is_run_number(path.name)]
        return self.folders / str(max(numbers)) if numbers else None

    def values(self) -> Iterator[float]:
        """Yield the monitored value after each validation, until the fit ends.

        Raises:
            RobustTuneError: The fit has failed; with its own sentence.
        """
        read, running = 0, True
        while running:
            running = self.process.poll() is None
            found = self._logged()
            yield from found[read:]
            read = max(read, len(found))
            if running:
                sleep(POLL)
        if self.process.returncode != 0:
            raise RobustTuneError(self._sentence())

    def stop(self) -> None:
        """End the fit, which saves itself if it trains."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(GRACE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def _logged(self) -> list[float]:
        """Return the monitored values that stand in ``metrics.csv`` so far."""
        path = None if self.folder is None else self.folder / "metrics.csv"
        if path is None or not path.is_file():
            return []
        whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")  # the last line may not be complete yet
        return [float(row[self.monitor]) for row in csv.DictReader(whole.splitlines()) if row.get(self.monitor)]

    def _sentence(self) -> str:
        """Return the sentence with which the fit has failed, or its last line."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        said = [found[1] for line in lines if (found := SENTENCE.match(line))]
        last = next((line for line in reversed(lines) if line.strip()), "no output")
        return (
            said[-1] if said else f"the fit ended with status {self.process.returncode} ({last:.200}): see {self.log}"
        )


def _start(args: Sequence[str], log: IO[str]) -> subprocess.Popen[bytes]:
    """Start a command of robusttune that ends when this process does, even by a kill -9."""
    script = "from robusttune.tuning.trial_process import run_child; run_child()"
    return subprocess.Popen([sys.executable, "-c", script, *args], stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def run_child() -> None:
    """Run the command line of this process, and receive SIGTERM when the parent ends."""
    from robusttune.cli import main

    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(DIES_WITH_PARENT, signal.SIGTERM, 0, 0, 0)
    sys.exit(main())
