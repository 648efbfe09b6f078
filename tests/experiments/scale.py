"""What grows with the number of samples, on one process: reading, setup, order, index of the cache, memory.

Tables of texts with one of 1,000 classes in Parquet files of up to ten million rows; beyond, figures are calculated.

    make scale
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import bench_setup
from experiments.records import ROOT, RUNS, Record, Results, run_jobs

ROWS = (10**4, 10**6, 10**7)
CALCULATED = (10**8, 10**9)
CACHE_BYTES = 180_000  # of a sample's features: MoLT on ViT-B/16 and BERT-base, 4 layers, 4 x 4 tokens an image


class Job(NamedTuple):
    """Settings of one run: the number of rows."""

    rows: int


def measure(job: Job) -> Record:
    """Return seconds and bytes, of a first process and of a second one that finds what the first has kept."""
    attempts = bench_setup.two_processes(job.rows)
    found: Record = {}
    for attempt, phases in zip(("first", "second"), attempts, strict=True):
        by_name = {phase.name: phase for phase in phases}
        ready, worker = by_name[bench_setup.READY], by_name[bench_setup.WORKER]
        found[attempt] = {
            "seconds": round(ready.seconds, 2),
            "cpu": round(ready.cpu, 2),
            "memory": ready.kept,
            "peak": ready.peak,
            "worker": worker.kept,
        }
    script = ROOT / "tests/benchmarks/bench_order.py"
    command = [sys.executable, str(script), "--one", f"--rows={job.rows}", "--kinds=computed"]
    first_batch, *_ = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return {**found, "order": round(float(first_batch), 5)}


def table(results: Results) -> str:
    """Return Markdown: measured rows, and rows that are calculated from ten million measured ones."""
    heads = ("samples", "first setup", "second setup", "memory", "a worker adds", "order", "features on disk")
    lines = [f"| {' | '.join(heads)} |", "| --- " + "| ---: " * (len(heads) - 1) + "|"]
    measured = {job["rows"]: job["metrics"] for job in results.jobs}
    for rows, metrics in measured.items():
        lines.append(_row(f"{rows:,}", rows, metrics, 1.0))
    if ROWS[-1] in measured:  # The cost of smaller tables is mostly that of a start.
        for rows in CALCULATED:
            lines.append(_row(f"{rows:,}, calculated", rows, measured[ROWS[-1]], rows / ROWS[-1]))
    return "\n".join(lines)


def _row(name: str, rows: int, metrics: dict[str, Any], factor: float) -> str:
    first, second = metrics["first"], metrics["second"]
    cells = [
        _seconds(first["seconds"] * factor),
        _seconds(second["seconds"] * factor),
        _bytes(first["peak"] * factor),
        _bytes(second["worker"]),
        "below 0.01 s" if metrics["order"] < 0.01 else f"{metrics['order']:.2f} s",
        _bytes(CACHE_BYTES * rows),
    ]
    return f"| {name} | {' | '.join(cells)} |"


def _seconds(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds > 120 else f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def _bytes(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e6:,.0f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=RUNS / "scale", help="folder of progress.json and results.json")
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    given = parser.parse_args()
    root = given.root.resolve()
    results = run_jobs(root, [Job(rows) for rows in given.rows], measure, processes=1)
    results.write(root / "results.json")
    print(json.dumps(results.jobs, indent=1))
    print(table(results))


if __name__ == "__main__":
    main()
