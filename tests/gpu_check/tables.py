"""Tables of the results of a GPU check, as Markdown, for `tests/benchmarks/README.md`.

python -m gpu_check.tables          # with PYTHONPATH=tests
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from gpu_check.parts import PARTS
from gpu_check.results import Record, Results

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PAGE, PUBLISHED = BENCHMARKS / "README.md", BENCHMARKS / "results" / "gpu_check.json"
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
EMPTY = "not measured yet"


class Table(NamedTuple):
    """A table of measurements.

    Attributes:
        part: Part of the GPU check that measures them.
        rows: Records, one a row.
        columns: Values of the records, by the title of their column.
    """

    part: str
    rows: tuple[str, ...]
    columns: dict[str, str]


MEGABYTES = {"plain, MB": "plain_megabytes", "robusttune, MB": "ours_megabytes"}
STEPS = {"step, ms": "step_ms", "first step, s": "first_step_s", "memory, MB": "megabytes"}
TABLES = {
    "gpu_mmrl": Table(
        "mmrl",
        tuple(f"{classes} classes, batch {batch}" for classes in (51, 500, 1000) for batch in (4, 32)),
        {"plain, ms": "plain_ms", "robusttune, ms": "ours_ms", "times as fast": "times_as_fast", **MEGABYTES},
    ),
    "gpu_fusion": Table(
        "fusion",
        tuple(f"{model}, batch {batch}" for model in ("MoLT", "Experts") for batch in (64, 256)),
        {
            "inputs, ms": "inputs_ms",
            "features, ms": "features_ms",
            "copy of the features, ms": "copy_ms",
            "times as fast": "times_as_fast",
            "inputs, MB": "inputs_megabytes",
            "features, MB": "features_megabytes",
        },
    ),
    "gpu_compile": Table(
        "graphs",
        tuple(f"{model}, {way}" for model in ("MoLT", "MMRL") for way in ("plain", "recomputed", "compiled", "both")),
        STEPS,
    ),
    "gpu_graphs": Table(
        "graphs",
        tuple(f"{model}, CUDA graph" for model in ("MoLT", "MMRL")),
        {"plain, ms": "plain_ms", "graph, ms": "graph_ms", "times as fast": "times_as_fast"},
    ),
    "gpu_memory": Table(
        "memory",
        ("MoLT, inputs", "MoLT, features", "MMRL, inputs"),
        {"planned peak, MB": "planned_peak_megabytes", "peak of a fit, MB": "peak_megabytes"},
    ),
    "gpu_loader": Table(
        "transfer",
        ("loader and steps",),
        {
            "loader, samples/s": "loader_per_second",
            "step, samples/s": "step_per_second",
            "loader / step": "loader_over_step",
            "workers": "workers",
        },
    ),
    "gpu_transfer": Table(
        "transfer",
        tuple(f"pinned memory, {inputs}" for inputs in ("images and tokens", "several images", "features")),
        {"MB": "megabytes", "pinned, ms": "pinned_ms", "not pinned, ms": "not_pinned_ms"},
    ),
}


def markdown(name: str, results: Results | None) -> str:
    """Return a table by its name, with empty cells where there is no measurement.

    Args:
        name: Name of the table, one of `TABLES`, or ``gpu_parts`` for the outcome of each part.
        results: Results of a GPU check, or None if there are none.

    Raises:
        ValueError: The results are of the small form, or of a CPU: their durations mean nothing.
    """
    if results is not None and (results.small or results.device == "cpu"):
        raise ValueError("these results are not of a whole run on a GPU")
    if name == "gpu_parts":
        return _parts(results)
    table = TABLES[name]
    lines = _head([PARTS[table.part].title if results is None else results.device, *table.columns])
    for row in table.rows:
        record = None if results is None else results.record(table.part, row)
        lines.append(_line([row, *(_cell(record, value) for value in table.columns.values())]))
    return "\n".join(lines)


def _parts(results: Results | None) -> str:
    """Return the outcome of each part, and of how many checks."""
    lines = _head(["Part", "Checks or measures", "Outcome", "Checks", "Failed", "Seconds"])
    for name, part in PARTS.items():
        found = None if results is None else results.parts.get(name)
        cells = [EMPTY, "", "", ""]
        if found is not None:
            checks = [record for record in found.records if record.passed is not None]
            failed = sum(not record.passed for record in checks)
            cells = [found.state, str(len(checks)), str(failed), f"{found.seconds:.0f}"]
        lines.append(_line([f"`{name}`", part.title, *cells]))
    return "\n".join(lines)


def _cell(record: Record | None, value: str) -> str:
    if record is None or record.values.get(value) is None:
        return EMPTY
    number = record.values[value]
    return f"{number:.0f}" if abs(number) >= 100 or isinstance(number, int) else f"{number:.3g}"


def _head(titles: list[str]) -> list[str]:
    return [_line(titles), _line(["---"] * len(titles))]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def filled(page: str, results: Results | None) -> str:
    """Return the page with the tables that the results give."""
    return BLOCK.sub(lambda block: f"{block[1]}{markdown(block[2], results)}\n{block[3]}", page)


def published() -> Results | None:
    """Return the results that are published with the code, or None if there are none yet."""
    return Results.read(PUBLISHED) if PUBLISHED.exists() else None


def main() -> None:
    """Write the tables into the page."""
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), published()), encoding="utf-8")


if __name__ == "__main__":
    main()
