"""The results of a protocol: one for each finished test of each run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from robusttune.protocols.matrix import Labels
from robusttune.protocols.state import Progress, RunState
from robusttune.report.runs import TestResults, read_tested


@dataclass(frozen=True)
class Result:
    """The result of one test.

    Attributes:
        labels: Labels of the run and of the test, by axis.
        folder: Folder of the run.
        report: Name of the report; the predictions are in ``report/<name>.parquet``.
        tested: Results of the test.
    """

    labels: Labels
    folder: Path
    report: str
    tested: TestResults

    @property
    def predictions(self) -> Path:
        """Return the path of the Parquet file with the predictions for each sample."""
        return self.folder / "report" / f"{self.report}.parquet"


def collect(states: Sequence[RunState]) -> list[Result]:
    """Read the results of all finished tests.

    Args:
        states: States of the runs of a protocol.

    Raises:
        RobustTuneError: The files of a test cannot be read.
    """
    return [
        Result(state.run.labels | test.labels, state.folder, test.report, read_tested(state.folder, test.report))
        for state in states
        if state.folder is not None
        for test, step in zip(state.run.tests, state.tests, strict=True)
        if step.progress is Progress.DONE
    ]
