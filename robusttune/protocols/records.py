"""The file ``steps.json`` of a run: the outcome of its fit and its tests, and the tested weights."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from robusttune.paths import atomic_write

STEPS = "steps.json"
FIT = "fit"


@dataclass
class StepRecord:
    """The record of the last try of a fit or a test.

    Attributes:
        identity: Hash of its full settings.
        folder: Name of the numbered folder that a test belongs to; None for a fit.
        failed: Sentence of its error; None if it has not failed.
        seconds: Duration of the command; None if it has not ended by itself.
        at: Time of its end, in seconds since 1970; None as for ``seconds``.
    """

    identity: str
    folder: str | None = None
    failed: str | None = None
    seconds: float | None = None
    at: float | None = None

    def end(self, seconds: float, failed: str | None) -> None:
        """Record the end of the step."""
        self.seconds, self.failed, self.at = round(seconds, 1), failed, time.time()


@dataclass
class Records:
    """The records of a run. Only the process that holds the lock of the run writes them.

    Attributes:
        file: File of the records.
        steps: Records by step: ``fit``, and ``test <report>`` of each test.
    """

    file: Path
    steps: dict[str, StepRecord] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Records:
        """Read the records of a run; none if there is no such file, or a damaged one."""
        file = folder / STEPS
        try:
            found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            return cls(file, {name: StepRecord(**record) for name, record in found.items()})
        except (OSError, ValueError, TypeError, AttributeError):
            return cls(file)

    def write(self) -> None:
        """Replace the file."""
        with atomic_write(self.file) as partial:
            partial.write_text(json.dumps({name: asdict(record) for name, record in self.steps.items()}, indent=1))


def name_of_test(report: str) -> str:
    """Return the name of a test among the steps."""
    return f"test {report}"
