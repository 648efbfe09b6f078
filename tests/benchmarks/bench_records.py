"""Reading and checking a large table, at first and again in a new process: durations and memory.

The table has ids, paths of images, texts of about 60 characters, and 1,000 classes. Memory is what a process has above
its imports, at its peak: resident (with the pages of mapped files, which processes share) and private.

`python tests/benchmarks/bench_records.py --rows 1000000 --format parquet`
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from benchmarks.process_memory import PeakMemory, parts
from dishes import DISHES, FILLERS

WORDS = [word for _, _, words in DISHES.values() for word in words] + FILLERS
CLASSES = 1000
PART = 100_000  # rows
SETTLED = 2.5  # seconds


def part(start: int, rows: int, texts: list[str]) -> pa.Table:
    """Return some rows of the table."""
    numbers = range(start, start + rows)
    return pa.table(
        {
            "id": [f"product-{number:09d}" for number in numbers],
            "image": [f"images/{number % 1000:03d}/{number:09d}.jpg" for number in numbers],
            "text": [texts[(number * 7919) % len(texts)] for number in numbers],
            "label": [f"class {number % CLASSES:03d}" for number in numbers],
        }
    )


def write(path: Path, rows: int, broken: str | None) -> None:
    """Write the table; with ``broken``, the last row has a problem in this column."""
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=10)) for _ in range(20_011)]
    sink: Any = path.open("w") if path.suffix == ".jsonl" else None
    for start in range(0, rows, PART):
        table = part(start, min(PART, rows - start), texts)
        if broken is not None and start + PART >= rows:
            cells = table[broken].to_pylist()
            cells[-1] = cells[0] if broken == "id" else "\0" if broken == "image" else ["a", "list"]
            table = table.set_column(table.schema.get_field_index(broken), broken, pa.array(cells))
        if path.suffix == ".jsonl":
            sink.writelines(f"{json.dumps(row)}\n" for row in table.to_pylist())
            continue
        if sink is None:
            kinds = {".parquet": pyarrow.parquet.ParquetWriter, ".csv": pyarrow.csv.CSVWriter}
            sink = kinds[path.suffix](path, table.schema)
        sink.write_table(table)
    sink.close()


def read(path: str, id_column: str | None) -> dict[str, Any]:
    """Read the table in this process, and return durations and memory."""
    import lightning.pytorch.utilities  # noqa: F401, a run imports it, and so does a message about the delimiter

    from robusttune.data.sources import Table
    from robusttune.errors import RobustTuneError

    memory = PeakMemory()
    memory.start()
    start, cpu = time.perf_counter(), time.process_time()
    problem = ""
    try:
        source = Table(train=path, id_column=id_column)
        table = source.read("train")
        seconds, used = time.perf_counter() - start, time.process_time() - cpu
        source.class_names(table)
    except RobustTuneError as error:
        problem = str(error)
        seconds, used = time.perf_counter() - start, time.process_time() - cpu
    held = parts()
    classes = time.perf_counter() - start - seconds
    peaks = memory.above()
    return {
        "seconds": seconds,
        "cpu": used,
        "class names": classes,
        **peaks,
        "dirty at end": held["dirty"] - memory.before["dirty"],
        "problem": problem,
    }


def main() -> None:
    """Print a table of both reads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--format", choices=["parquet", "csv", "jsonl"], default="parquet")
    parser.add_argument("--ids", action="store_true", help="check a column of ids")
    parser.add_argument("--broken", choices=["id", "image", "label"], help="column of a problem in the last row")
    parser.add_argument("--folder", help="parent of the temporary folder")
    parser.add_argument("--read", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        print(json.dumps(read(args.read, "id" if args.ids else None)))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / f"train.{args.format}"
        write(path, args.rows, args.broken)
        time.sleep(SETTLED)
        print(f"{args.rows} rows, {path.stat().st_size / 1e6:.0f} MB of {args.format}")
        command = [sys.executable, __file__, "--read", str(path), *["--ids"] * args.ids]
        for name in ("first", "again"):
            result = subprocess.run(
                command, env={**os.environ, "XDG_CACHE_HOME": folder}, check=True, capture_output=True, text=True
            )
            found = json.loads(result.stdout.splitlines()[-1])
            print(
                f"{name}: {found['seconds']:.2f} s ({found['cpu']:.2f} s of CPU), "
                f"class names {found['class names']:.2f} s, peak above imports: "
                f"{found['resident'] / 1e6:.0f} MB resident, {found['private'] / 1e6:.0f} MB private, "
                f"{found['dirty'] / 1e6:.0f} MB private and written to, {found['dirty at end'] / 1e6:.0f} MB of it at "
                f"the end{', ' * bool(found['problem'])}{found['problem']}",
                flush=True,
            )


if __name__ == "__main__":
    main()
