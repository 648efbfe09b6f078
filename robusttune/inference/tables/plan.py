"""The plan of a prediction: the parts of its output, and which of them a process computes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from robusttune.errors import RobustTuneError

PARTS = "parts"  # A folder without other files, so that it can be read as one table.


class Part(NamedTuple):
    """Consecutive rows of the input, whose predictions are in one file.

    Attributes:
        number: Number of the part, from 0.
        start: Number of the first row, from 0.
        stop: Number of the row after the last one.

    Example:
        >>> Part(2, 20_000, 25_000).name
        'parts/part-00002.parquet'
    """

    number: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """Return the path of the file in the folder of the predictions."""
        return f"{PARTS}/part-{self.number:05d}.parquet"

    @property
    def rows(self) -> int:
        """Return the number of rows."""
        return self.stop - self.start


def parts_of(rows: int, part_rows: int) -> list[Part]:
    """Divide rows into parts of equal size; the last one may have fewer rows.

    Example:
        >>> [part.rows for part in parts_of(25, 10)]
        [10, 10, 5]
    """
    starts = range(0, rows, part_rows)
    return [Part(number, start, min(start + part_rows, rows)) for number, start in enumerate(starts)]


@dataclass(frozen=True)
class Shard:
    """The share of one job among several that predict the same table, such as a SLURM array.

    Attributes:
        number: Number of the job, from 1.
        of: Number of all jobs.

    Example:
        >>> Shard.parse("3/16")
        Shard(number=3, of=16)
    """

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str | None) -> Shard:
        """Read a share such as ``3/16``; None is the whole.

        Raises:
            RobustTuneError: The text has another form, or its numbers do not fit.
        """
        if text is None:
            return cls()
        found = re.fullmatch(r"\s*([0-9]{1,9})\s*/\s*([0-9]{1,9})\s*", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise RobustTuneError(f"--shard is {text!r:.60}: give number/total, from 1/16 to 16/16 for 16 jobs")
        return cls(int(found[1]), int(found[2]))

    def parts(self, parts: Sequence[Part], rank: int = 0, processes: int = 1) -> list[Part]:
        """Return the parts of one process of this job. All processes of all jobs together have every part once.

        Args:
            parts: All parts.
            rank: Number of the process in this job, from 0.
            processes: Number of processes in this job.
        """
        return list(parts[self.number - 1 :: self.of][rank::processes])


def unfinished(folder: Path, parts: Sequence[Part]) -> list[Part]:
    """Return the parts that have no file in a folder yet. A file is complete, because it is renamed at the end."""
    return [part for part in parts if not (folder / part.name).exists()]
