"""How fast `shapes` are drawn and captioned, on one core.

`python tests/benchmarks/bench_shapes.py`
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

from rich.console import Console
from rich.table import Table

from robusttune.data.sources import Shapes
from robusttune.data.sources.shapes.drawing import STYLES

NUMBER, ROUNDS = 2000, 5


def rates(make: Callable[[int], object]) -> list[float]:
    """Samples a second, in each of a few rounds; the first pays for the stamps."""
    found = []
    for round_ in range(ROUNDS):
        start = perf_counter()
        for index in range(NUMBER):
            make(round_ * NUMBER + index)
        found.append(NUMBER / (perf_counter() - start))
    return found


def main() -> None:
    measured = {}
    for style in STYLES:
        shapes = Shapes(style=style)
        measured[f"scenes on {style}"] = rates(partial(shapes.draw, "train"))
    measured["captions"] = rates(lambda index: Shapes().caption("train", index))
    table = Table("", "first round", "median", "least", "greatest", title="a second, one core", title_justify="left")
    for name, values in measured.items():
        table.add_row(name, *(f"{value:,.0f}" for value in (values[0], median(values), min(values), max(values))))
    Console(width=100).print(table)
    folder = Path("runs/benchmarks")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shapes.json").write_text(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    main()
