"""Whether a run that was interrupted ended as one that was not."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

# A run's own place, what time it took and the digest of both; and the score of the last validation, which Lightning
# does not take along.
OWN = ("dirpath", "_path", "best_k_models", "seconds", "current_score", "digest")


def differences(found: Path, expected: Path) -> list[str]:
    """In what the folders of two runs differ, but for where they are and how long they took: bit by bit."""
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
    with (run / "metrics.csv").open() as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


def _differing(found: Any, expected: Any, path: str = "") -> Iterator[str]:
    if path.endswith(OWN):
        return
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in {**found, **expected}:
            yield from _differing(found.get(key), expected.get(key), f"{path}.{key}")
    elif isinstance(found, list | tuple) and isinstance(expected, list | tuple) and len(found) == len(expected):
        for place, (one, other) in enumerate(zip(found, expected, strict=True)):
            yield from _differing(one, other, f"{path}[{place}]")
    elif isinstance(found, torch.Tensor) and isinstance(expected, torch.Tensor):
        if not torch.equal(found, expected):
            yield f"{path} differs"
    elif found != expected and not (isinstance(found, float) and math.isnan(found)):
        yield f"{path}: {found!r:.60} is not {expected!r:.60}"
