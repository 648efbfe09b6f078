"""The feature cache of many inputs: time and memory to open it, to find the inputs, and to read batches.

The features are made up: 16 numbers of an input, in up to 256 shards.

`python tests/benchmarks/bench_cache_index.py [--rows 10000 1000000 10000000] [--folder /path/to/scratch]`
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from benchmarks.process_memory import peak, private, reset_peak, resident
from rich.console import Console
from rich.table import Table

from robusttune.data.cache.keys import Keys
from robusttune.data.cache.shard import Row, shard_name, write_shard
from robusttune.data.cache.store import Store
from robusttune.types import Widths

WIDTHS, BATCH, BATCHES = Widths((8,), 8), 64, 500
STEPS = ("first start", "second start")


def keys_of(rows: int) -> Keys:
    """Random keys, the same each time."""
    return np.random.default_rng(0).integers(1 << 64, size=(rows, 2), dtype=np.uint64)


def write(folder: Path, rows: int) -> None:
    """Write the shards."""
    store, every, size = Store(folder, "made up", WIDTHS), keys_of(rows), max(1 << 10, rows // 256)
    for start in range(0, rows, size):
        keys = every[start : start + size]
        numbers = torch.randn(len(keys), 16, dtype=torch.bfloat16).unbind()
        path = store.path(shard_name(keys))
        path.parent.mkdir(exist_ok=True)
        rows_of_shard = [Row(key.tobytes(), own, [1], False) for key, own in zip(keys, numbers, strict=True)]
        write_shard(path, "made up", rows_of_shard)


def measure(folder: Path, rows: int) -> None:
    """Print seconds to open and to find all inputs, inputs a second, and bytes: private, mapped, most of both."""
    keys = keys_of(rows)
    reset_peak()
    before, own = resident(), private()
    start = perf_counter()
    store = Store(folder, "made up", WIDTHS)
    store.refresh(keys, threads=2)
    store.save()
    opened = perf_counter() - start
    start = perf_counter()
    locations = store.locations(keys)
    found = perf_counter() - start
    order = np.random.default_rng(1).choice(locations, (BATCHES + 1, BATCH)).tolist()
    store.gather(order.pop())
    start = perf_counter()
    for batch in order:
        store.gather(batch)
    each = BATCHES * BATCH / (perf_counter() - start)
    own = private() - own
    print(opened, found, each, own, resident() - before - own, peak() - before)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[10**4, 10**6, 10**7])
    parser.add_argument("--folder", type=Path, help="scratch folder; default: a temporary one")
    parser.add_argument("--one", type=Path, help="measure the store in this folder, in this process")
    given = parser.parse_args()
    if given.one:
        measure(given.one, given.rows[0])
        return
    head = ("", "open, s", "find all, s", "inputs/s read", "private, MB", "mapped, MB", "most of both, MB")
    table = Table("rows", *head)
    for rows in given.rows:
        with tempfile.TemporaryDirectory(dir=given.folder) as name:
            write(Path(name), rows)
            time.sleep(3)  # so that the index remembers the state of the shards
            for step in STEPS:
                command = [sys.executable, __file__, f"--rows={rows}", f"--one={name}"]
                out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                opened, found, each, *sizes = map(float, out.split())
                figures = (f"{opened:.2f}", f"{found:.2f}", f"{each:,.0f}", *(f"{size / 1e6:.0f}" for size in sizes))
                table.add_row(f"{rows:,}", step, *figures)
    Console().print(table)


if __name__ == "__main__":
    main()
