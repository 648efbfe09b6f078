"""The results of a GPU check, and the JSON file that holds them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FAILURES = ("failed", "crashed", "timed out")


@dataclass
class Record:
    """A check or a measurement.

    Attributes:
        name: What was checked or measured.
        passed: Whether the check passed; None for a measurement, and for a check that could not be done.
        values: Measured values by name, with their unit in the name.
        note: Limits of the check, the reason why it could not be done, or the traceback of its error.
    """

    name: str
    passed: bool | None = None
    values: dict[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass
class PartResult:
    """The outcome of a part.

    Attributes:
        state: ``passed``, ``failed``, ``crashed``, ``timed out``, ``package missing`` or ``no time left``.
        seconds: Duration of the part's process.
        note: Reason of the state, if it is not in a record.
        records: Checks and measurements that were done.
    """

    state: str
    seconds: float = 0.0
    note: str = ""
    records: list[Record] = field(default_factory=list)


@dataclass
class Results:
    """The outcome of a GPU check.

    Attributes:
        device: Name of the device, such as ``NVIDIA H200`` or ``cpu``.
        small: Whether everything was small, so that no duration means anything.
        date: Day of the run, as YYYY-MM-DD.
        versions: Version of Python and of each library, by name.
        parts: Outcome of each part, by its name.
    """

    device: str
    small: bool
    date: str
    versions: dict[str, str]
    parts: dict[str, PartResult] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Return whether a check failed or a part did not come to its end."""
        return any(part.state in FAILURES for part in self.parts.values())

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read the results from a file."""
        fields = json.loads(path.read_text(encoding="utf-8"))
        parts = {
            name: PartResult(**part | {"records": [Record(**record) for record in part["records"]]})
            for name, part in fields.pop("parts").items()
        }
        return cls(**fields, parts=parts)

    def write(self, path: Path) -> None:
        """Replace the file atomically."""
        write_json(path, asdict(self))

    def record(self, part: str, name: str) -> Record | None:
        """Return a record by its part and name, or None if it is not there."""
        records = self.parts[part].records if part in self.parts else []
        return next((record for record in records if record.name == name), None)


def write_json(path: Path, value: Any) -> None:
    """Write JSON to a temporary file, then replace ``path`` atomically."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
