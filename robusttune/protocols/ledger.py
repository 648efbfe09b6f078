"""The ledger of published numbers: one CSV file per kind of summary in the folder ``ledger``."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "ledger"
AVERAGE = "average"  # data set of an average over several data sets


@dataclass(frozen=True)
class Published:
    """A published number, or a cell of a published table that could not be verified.

    Attributes:
        method: Name of the method.
        dataset: Data set of the test, or ``average``.
        condition: Kind of training and test if the summary has several, such as ``trained on ImageNet``.
        metric: Name of the metric.
        value: Value in percent; None for a cell that could not be verified.
        spread: Standard deviation over seeds in percentage points; None if it is unknown.
        seeds: Number of seeds; None if it is unknown.
        precision: Arithmetic of the training, such as ``AMP``; empty if it is unknown.
        origin: ``paper``, ``from memory``, ``note by others`` or ``re-run by others``.
        source: Publication or file that has the value.
        setting: Setting of the experiment in words.
        averaging: Rule of averaging in words; empty if it is unknown or nothing is averaged.
        over: Data sets behind an average.
        note: Remark; may be empty.

    Example:
        >>> (published,) = [p for p in load("base_to_new") if p.method == "UPrompt" and p.metric == "harmonic_mean"]
        >>> published.value, published.spread, published.origin
        (82.12, None, 'paper')
    """

    method: str
    dataset: str
    condition: str
    metric: str
    value: float | None
    spread: float | None
    seeds: int | None
    precision: str
    origin: str
    source: str
    setting: str
    averaging: str
    over: tuple[str, ...]
    note: str

    def is_for(self, dataset: str, over: tuple[str, ...]) -> bool:
        """Return whether the number is for this data set, and if it is an average, over the same data sets.

        Args:
            dataset: Data set, or ``average``. Case, spaces and hyphens do not matter.
            over: Data sets behind an average, in any order.
        """
        same_average = {*map(plain, self.over)} == {*map(plain, over)}
        return plain(self.dataset) == plain(dataset) and (dataset != AVERAGE or same_average)

    def has_within_spread(self, value: float) -> bool | None:
        """Return whether a value differs by the published spread at most; None if value or spread are unknown.

        Args:
            value: Own value in percent.
        """
        if self.value is None or self.spread is None:
            return None
        return abs(value - self.value) <= self.spread + 1e-9  # decimals such as 77.98 - 77.90 are not exact


def load(summary: str) -> list[Published]:
    """Return the published numbers for a kind of summary, such as ``base_to_new``; none if the ledger has no file."""
    path = FOLDER / f"{summary}.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [_published(row) for row in csv.DictReader(file)]


def plain(name: str) -> str:
    """Return the name of a data set without case, spaces and hyphens.

    Example:
        >>> plain("Food-101"), plain("ImageNet V2")
        ('food101', 'imagenetv2')
    """
    return re.sub(r"[\W_]+", "", name).lower()


def _published(row: dict[str, str]) -> Published:
    texts = {name: row[name] for name in ("method", "dataset", "condition", "metric", "precision", "origin", "source")}
    return Published(
        **texts,
        **{name: row[name] for name in ("setting", "averaging", "note")},
        value=_number(row["value"]),
        spread=_number(row["spread"]),
        seeds=int(row["seeds"]) if row["seeds"] else None,
        over=tuple(filter(None, row["over"].split(";"))),
    )


def _number(text: str) -> float | None:
    return float(text) if text else None
