"""A fit in a process of its own, which is followed while it trains."""

from __future__ import annotations

import csv
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic, sleep

from robusttune.errors import RobustTuneError
from robusttune.protocols import locks
from robusttune.protocols.processes import Child
from robusttune.run_names import is_run_number, run_folders

POLL = 0.5  # seconds between two looks at the metrics
GRACE = 60  # seconds that a fit has to save itself


class TrialProcess:
    """A running fit.

    If a fit of this name still runs, because the search that had started it was killed, its end is awaited first. An
    unfinished run of this name with the same settings is continued; of a finished one, the values are read.

    Args:
        args: Arguments of ``robusttune fit``, without its folder.
        root: Folder of all runs.
        name: Name of the run.
        monitor: Metric whose values are followed.
    """

    def __init__(self, args: Sequence[str], root: Path, name: str, monitor: str) -> None:
        self.folders, self.monitor = run_folders(root, name), monitor
        while (lock := locks.acquire(self.folders)) is None:
            sleep(POLL)
        place = [f"--run_root={root}", f"--name={name}", "--resume=auto", "--trainer.enable_progress_bar=false"]
        self._lock = lock
        self._child = Child(["fit", *args, *place], self.folders / "fit.log", lock, {})

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
        read, status = 0, None
        while status is None:
            status = self._child.poll()
            found = self._logged()
            yield from found[read:]
            read = max(read, len(found))
            if status is None:
                sleep(POLL)
        if status != 0:
            raise RobustTuneError(self._child.sentence())

    def stop(self) -> None:
        """End the fit if it still runs. It saves itself."""
        end = monotonic() + GRACE
        if self._child.poll() is None:
            self._child.send(signal.SIGTERM)
        while self._child.poll() is None:
            if monotonic() > end:
                self._child.send(signal.SIGKILL)
            sleep(POLL)
        self._lock.close()

    def _logged(self) -> list[float]:
        """Return the monitored values that stand in ``metrics.csv`` so far."""
        path = None if self.folder is None else self.folder / "metrics.csv"
        if path is None or not path.is_file():
            return []
        whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")  # the last line may not be complete yet
        return [float(row[self.monitor]) for row in csv.DictReader(whole.splitlines()) if row.get(self.monitor)]
