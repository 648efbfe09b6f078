"""Time and memory of an epoch's order: drawn as an array, as for small tables, and computed position by position.

`python tests/benchmarks/bench_order.py [--rows 10000 1000000 10000000 1000000000] [--kinds computed] [--balanced]`
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from itertools import islice
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from benchmarks.process_memory import peak, private, reset_peak
from rich.console import Console
from rich.table import Table

from robusttune.data import orders
from robusttune.data.balance import Quotas
from robusttune.data.sampler import ResumableSampler

BATCH, MANY, CLASSES = 64, 200_000, 1000
LIMITS = {"drawn": 1 << 62, "computed": 0}


def quotas_of(rows: int) -> Quotas:
    """Quotas of classes whose sizes differ up to a hundredfold."""
    classes = np.random.default_rng(0).zipf(1.5, rows) % CLASSES
    _, classes, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    return Quotas((rows / len(sizes) / sizes)[classes], classes)


def measure(kind: str, rows: int, balanced: bool) -> None:
    """Print seconds to the first batch, microseconds of a sample after it, and bytes of memory, kept and at most."""
    orders.DRAWN = LIMITS[kind]
    quotas = quotas_of(rows) if balanced else None
    reset_peak()
    before, peak_before = private(), peak()
    start = perf_counter()
    sampler = ResumableSampler(rows, shuffle=True, seed=0, rank=0, world_size=1, quotas=quotas)
    sampler.resume(0, rows // 2)
    draws = iter(sampler)
    list(islice(draws, BATCH))
    first = perf_counter() - start
    start = perf_counter()
    count = sum(1 for _ in islice(draws, MANY))
    each = (perf_counter() - start) / count
    print(first, each * 1e6, private() - before, max(0, peak() - peak_before))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[10**4, 10**6, 10**7, 10**9])
    parser.add_argument("--kinds", nargs="+", choices=[*LIMITS], default=["computed"])
    parser.add_argument("--balanced", action="store_true")
    parser.add_argument("--one", action="store_true", help="print the numbers of one case, in this process")
    given = parser.parse_args()
    if given.one:
        measure(given.kinds[0], given.rows[0], given.balanced)
        return
    table = Table("rows", "order", "first batch, s", "a sample after it, µs", "memory, MB", "at most, MB")
    for rows in given.rows:
        for kind in given.kinds:
            case = [f"--rows={rows}", f"--kinds={kind}", *(["--balanced"] if given.balanced else [])]
            out = subprocess.run([sys.executable, __file__, "--one", *case], capture_output=True, text=True, check=True)
            first, each, kept, most = map(float, out.stdout.split())
            table.add_row(f"{rows:,}", kind, f"{first:.4f}", f"{each:.2f}", f"{kept / 1e6:.1f}", f"{most / 1e6:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
