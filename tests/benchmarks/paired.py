"""Two ways of doing one thing, timed in turns, so that whatever slows the machine slows both."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

FOLDER = Path("runs/benchmarks")


def compare(name: str, unit: str, ways: dict[str, Callable[[], float]], rounds: int = 7) -> dict[str, float]:
    """Measure two ways by turns; print a table and write it to ``runs/benchmarks/<name>.json``.

    Args:
        name: of the benchmark.
        unit: of what the ways return.
        ways: name -> a function that returns one measurement.
        rounds: how often each is measured, after once for warming up.

    Returns:
        Median and range of each way, and of the ratio, round by round, of the first to the second.
    """
    (first, measure_first), (second, measure_second) = ways.items()
    found: list[tuple[float, float]] = [(measure_first(), measure_second()) for _ in range(rounds + 1)][1:]
    columns = {
        f"{first} ({unit})": [a for a, _ in found],
        f"{second} ({unit})": [b for _, b in found],
        f"{first} / {second}": [a / b for a, b in found],
    }
    table = Table("", "median", "least", "greatest", title=f"{name}, {rounds} rounds", title_justify="left")
    for title, values in columns.items():
        table.add_row(title, *(f"{value:.4g}" for value in (median(values), min(values), max(values))))
    Console().print(table)
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(columns, indent=2) + "\n")
    return {title: median(values) for title, values in columns.items()}
