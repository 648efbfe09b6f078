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


BY_WEIGHT = (Progress.RUNNING, Progress.FAILED, Progress.DATA_MISSING, Progress.NOT_STARTED)


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
        """Return the progress of the run: done if all steps are, else that of the step that matters most."""
        found = {step.progress for step in (self.fit, *self.tests)}
        return next((progress for progress in BY_WEIGHT if progress in found), Progress.DONE)

    @property
    def reasons(self) -> list[str]:
        """Return the sentences of the steps that have failed, and the paths of missing data, each once."""
        steps = {
            "fit": self.fit,
            **{f"test {test.report}": step for test, step in zip(self.run.tests, self.tests, strict=True)},
        }
        found: dict[str, str] = {}
        for name, step in steps.items():
            if step.progress is Progress.FAILED:
                found.setdefault(f"{name}: {step.reason}", "")
            elif step.progress is Progress.DATA_MISSING:
                found.setdefault(f"{step.reason} does not exist", "")
        return [*found]
