"""Independent jobs that fill one feature cache, as those of a SLURM array do: time, share of the work, and memory.

Texts of a Parquet table, and a small text encoder of two layers. Each job sets up the data and fills the cache as a
`fit` does, on one core.

`python tests/benchmarks/bench_cache_jobs.py [--rows 10000] [--jobs 1 2] [--folder /path/to/scratch]`
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import pyarrow as pa
import torch
from benchmarks.process_memory import peak, private, reset_peak, resident
from dishes import DISHES, FILLERS, write_text_encoder
from fakes import tiny_image_encoder, tiny_text_encoder
from pyarrow import parquet
from rich.console import Console
from rich.table import Table as Printed

from robusttune.commands.quiet import quiet
from robusttune.data import CacheSettings, ImageTextDataModule, LoaderSettings
from robusttune.data.sources import Table

WORDS = [word for _, _, words in DISHES.values() for word in words] + FILLERS


def write(folder: Path, rows: int) -> None:
    """Write the table and the encoder."""
    rng = random.Random(0)
    texts = [f"{' '.join(rng.choices(WORDS, k=rng.randint(3, 8)))} {row}" for row in range(rows)]
    labels = [f"class {row % 100}" for row in range(rows)]
    parquet.write_table(pa.table({"text": texts, "label": labels}), folder / "train.parquet")
    write_text_encoder(folder / "bert", width=32, layers=2)


@quiet()
def job(folder: Path) -> None:
    """Fill the cache and print what this job did of it."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    source = Table(train=str(folder / "train.parquet"), image_column=None)
    image, text = tiny_image_encoder(), tiny_text_encoder(folder / "bert", layers=1)
    cache = CacheSettings(str(folder / "cache"))
    data = ImageTextDataModule(source, image, text, loader=LoaderSettings(workers=1), cache=cache)
    start = perf_counter()
    data.setup("fit")
    set_up = perf_counter() - start
    encoders: dict[str, Any] = {"image_encoder": image.load(), "text_encoder": text.load()}
    encoded, forward = [0], encoders["text_encoder"].forward

    def counted(inputs: Any) -> Any:
        encoded.append(len(inputs))
        return forward(inputs)

    encoders["text_encoder"].forward = counted
    reset_peak()
    before, own = resident(), private()
    start = perf_counter()
    data.fill_cache("fit", encoders)
    seconds = perf_counter() - start
    print(json.dumps([sum(encoded), set_up, seconds, (peak() - before) / 1e6, (private() - own) / 1e6]))


def run(folder: Path, jobs: int) -> list[list[float]]:
    """Run jobs at the same time and return what each printed."""
    command = [sys.executable, __file__, f"--job={folder}"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(jobs)]
    printed = [process.communicate()[0] for process in running]
    return [json.loads(out.splitlines()[-1]) for out in printed]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2], help="numbers of jobs at the same time")
    parser.add_argument("--folder", type=Path, help="scratch folder; default: a temporary one")
    parser.add_argument("--job", type=Path, help="be one of the jobs")
    given = parser.parse_args()
    if given.job:
        job(given.job)
        return
    head = ("job", "encoded", "set up, s", "cache, s", "memory at most, MB", "private afterwards, MB")
    table = Printed("", *head, title=f"{given.rows:,} texts", title_justify="left")
    for jobs in given.jobs:
        with tempfile.TemporaryDirectory(dir=given.folder) as name:
            write(Path(name), given.rows)
            for step in (f"{jobs} at once", "one afterwards"):
                found = run(Path(name), jobs if step.endswith("at once") else 1)
                for number, (encoded, *rest) in enumerate(found):
                    table.add_row(step, str(number), f"{encoded:,}", *(f"{value:.1f}" for value in rest))
                time.sleep(3)  # so that the index remembers the state of the shards
    Console().print(table)


if __name__ == "__main__":
    main()
