"""Memory and time of a test's evaluation on random logits, without a model: metrics, intervals, fits and tables.

`python tests/benchmarks/bench_evaluation.py [--samples 50000] [--classes 1000] [--conditions full] [--multilabel]`

`--conditions` is a list in `configs/conditions`. Logits that do not fit into memory are in a file in `TMPDIR`,
whose pages the system keeps in memory while there is room; they are not counted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
import yaml
from torch.nn import functional

from robusttune.callbacks.report_files import write_samples
from robusttune.corruption.conditions import Conditions
from robusttune.evaluation import ConditionMetrics
from robusttune.evaluation.tables import sample_tables
from robusttune.models.temperatures import VIEWS, Temperatures
from robusttune.models.thresholds import Thresholds
from robusttune.packaged_configs import find_packaged
from robusttune.types import Facts

BATCH = 256


def peak() -> float:
    """The highest memory of this process so far, in GB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1e6


def timed(name: str, do: Callable[[], Any]) -> None:
    """Print the time of a step, and the highest memory until its end."""
    begun, worked = perf_counter(), process_time()
    do()
    took, work = perf_counter() - begun, process_time() - worked
    print(f"| {name} | {took:.1f} s | {work:.1f} s | {peak():.2f} GB |", flush=True)


def conditions_of(name: str) -> Conditions:
    """The conditions of a list."""
    settings = yaml.safe_load(find_packaged(f"conditions/{name}").read_text(encoding="utf-8"))
    return Conditions(settings["data"]["evaluation"]["conditions"])


def fill(metrics: ConditionMetrics, samples: int) -> None:
    """Add random predictions that are better than chance, in batches."""
    generator = torch.Generator().manual_seed(0)
    views, count = len(metrics.conditions.views), len(metrics.classes.names)
    for start in range(0, samples, BATCH):
        size = min(BATCH, samples - start)
        label = torch.randint(count, (size,), generator=generator)
        logits = torch.randn(views, size, count, generator=generator)
        logits += 3 * functional.one_hot(label, count)
        if metrics.classes.multilabel:
            label, logits = functional.one_hot(label, count), logits - 3
        ids = [f"test/{row:09}" for row in range(start, start + size)]
        metrics.update(ids, label, torch.ones(size, 2, dtype=torch.bool), logits)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--conditions", default="full")
    parser.add_argument("--multilabel", action="store_true")
    options = parser.parse_args()
    names = [f"class {number}" for number in range(options.classes)]
    facts = Facts(names, [1 / options.classes] * options.classes, options.multilabel)
    conditions = conditions_of(options.conditions)
    metrics = ConditionMetrics(facts, conditions.with_views(VIEWS))
    print(f"{options.samples} samples, {options.classes} classes, {len(conditions.all)} conditions", file=sys.stderr)
    print("\n| step | time | of a processor | peak memory |\n| --- | --- | --- | --- |")
    print(f"| imports | | | {peak():.2f} GB |")
    timed("update", lambda: fill(metrics, options.samples))
    blocks = lambda number: metrics.blocks_of_view(VIEWS[number], number)  # noqa: E731
    timed("temperatures", lambda: Temperatures().fit(blocks))
    if options.multilabel:
        timed("thresholds", lambda: Thresholds(options.classes).fit(blocks))
    timed("metrics", metrics.compute)
    timed("intervals", metrics.intervals)
    with tempfile.TemporaryDirectory() as folder:
        timed("table of samples", lambda: write_samples(Path(folder) / "00000.parquet", sample_tables(metrics)))


if __name__ == "__main__":
    main()
