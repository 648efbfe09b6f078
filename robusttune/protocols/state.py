"""The state of a protocol's runs, from the records that fits and tests leave when they end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from robusttune.protocols.matrix import PlannedRun


class Progress(StrEnum):
    """The progress of a fit or a test."""

    DONE = "done"
    FAILED = "failed"
    RUNNING = "running"
    NOT_STARTED = "not started"
    DATA_MISSING = "data missing"


@dataclass(frozen=True)
class Step:
    """A fit or a test, and how far it is.

    Attributes:
        progress: Progress.
        reason: Sentence of the error for a failed step, and the path for missing data; None otherwise.
        seconds: Duration of a finished step; None if it is unknown.
    """

    progress: Progress
    reason: str | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class RunState:
    """The state of a planned run.

    Attributes:
        run: The run.
        identity: Hash of the full settings of the fit, as hexadecimal digits.
        folder: Numbered folder of the fit, with checkpoints and reports; None before it has started.
        fit: State of the fit.
        tests: State of each test of the run.
    """

    run: PlannedRun
    identity: str
    folder: Path | None
    fit: Step
    tests: tuple[Step, ...]

    @property
    def progress(self) -> Progress:
        """Return the progress of the run: that of the first step that is not done."""
        steps = (self.fit, *self.tests)
        failed = [step.progress for step in steps if step.progress in (Progress.FAILED, Progress.DATA_MISSING)]
        others = [step.progress for step in steps if step.progress is not Progress.DONE]
        return next(iter([*failed, *others]), Progress.DONE)
