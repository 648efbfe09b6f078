"""Comparison of an interrupted and resumed run with an uninterrupted one."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

# Entries that differ between equal runs: paths, durations and digests of them, and the score of the last validation,
# which Lightning does not save.
OWN = ("dirpath", "_path", "best_k_models", "seconds", "current_score", "digest")


def differences(found: Path, expected: Path) -> list[str]:
    """Compare the checkpoints and metrics of two runs bit by bit.

    Args:
        found: Folder of one run.
        expected: Folder of the other run.

    Returns:
        A line for each difference, except for the folders' paths and the durations; no lines for equal runs.
    """
    lines = []
    for name in ("best", "last"):
        pair = [
            torch.load(run / f"checkpoints/{name}.ckpt", map_location="cpu", weights_only=True)
            for run in (found, expected)
        ]
        lines += [f"{name}.ckpt: {line}" for line in _differing(*pair)]
    rows = [_metrics(run) for run in (found, expected)]
    if [row["step"] for row in rows[0]] != [row["step"] for row in rows[1]]:
        lines.append(f"metrics.csv: {len(rows[0])} and {len(rows[1])} rows")
    lines += [f"metrics.csv: {one} is not {other}" for one, other in zip(*rows, strict=False) if one != other]
    return lines


def _metrics(run: Path) -> list[dict[str, str]]:
    """Return the rows of a run's metrics.csv without empty cells."""
    with (run / "metrics.csv").open() as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


def _differing(found: Any, expected: Any, path: str = "") -> Iterator[str]:
    """Yield a line for each difference between nested dicts, lists, tensors and plain values."""
    if path.endswith(OWN):
        return
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in {**found, **expected}:
            yield from _differing(found.get(key), expected.get(key), f"{path}.{key}")
    elif isinstance(found, list | tuple) and isinstance(expected, list | tuple) and len(found) == len(expected):
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            yield from _differing(one, other, f"{path}[{index}]")
    elif isinstance(found, torch.Tensor) and isinstance(expected, torch.Tensor):
        if not torch.equal(found, expected):
            yield f"{path} differs"
    elif found != expected and not (isinstance(found, float) and math.isnan(found)):
        yield f"{path}: {found!r:.60} is not {expected!r:.60}"
