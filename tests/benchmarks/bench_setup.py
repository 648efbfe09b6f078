"""Setup of a fit on a large table: durations, memory of the process and of a worker, first batch of texts.

The table is a Parquet file with texts of about 60 characters and one of 1,000 classes, or with ``--multilabel`` 0 to 5
of them; ``--masks`` adds a missing-modality protocol, and one image to all rows. A first process reads and checks it,
and a second one finds what the first has kept.

`python tests/benchmarks/bench_setup.py [--rows 1000000] [--multilabel] [--masks]`
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from benchmarks.process_memory import PeakMemory, parts
from dishes import DISHES, FILLERS, write_text_encoder
from fakes import tiny_image_encoder, tiny_text_encoder
from PIL import Image

from robusttune.data import ImageTextDataModule, LoaderSettings, Missing, MissingBySplit
from robusttune.data.sources import Table

CLASSES, CHUNK = 1_000, 1 << 16
READY, WORKER = "all until the first batch", "a worker adds"
WORDS = np.array([word for _, _, words in DISHES.values() for word in words] + FILLERS)


def write_rows(path: Path, rows: int, multilabel: bool, image: str | None) -> None:
    rng, names = np.random.default_rng(0), np.array([f"class {index}" for index in range(CLASSES)])
    drawn = names[(CLASSES * rng.random((CHUNK, 5 if multilabel else 1)) ** 2).astype(int)].tolist()
    counts = rng.integers(0, 6, CHUNK) if multilabel else np.ones(CHUNK, dtype=np.int64)
    labels = [[*dict.fromkeys(of[:count])] for of, count in zip(drawn, counts.tolist(), strict=True)]
    texts = [" ".join(words) for words in WORDS[rng.integers(0, len(WORDS), (CHUNK, 9))].tolist()]
    if not multilabel:
        labels = [label for label, *_ in labels]
    content = pa.table([pa.array(texts), pa.array(labels)], ["text", "label"])
    if image is not None:
        content = content.append_column("image", pa.array([image] * CHUNK))
    with pq.ParquetWriter(path, content.schema) as writer:
        for start in range(0, rows, CHUNK):  # the same texts and labels in another order, each time
            size = min(CHUNK, rows - start)
            writer.write_table(content.take(pa.array(rng.permutation(CHUNK)[:size])))


class Phase(NamedTuple):
    """What a part of the setup took: seconds, CPU seconds, and bytes of private memory, kept at its end and at most."""

    name: str
    seconds: float
    cpu: float
    kept: int
    peak: int


def measure(folder: Path, multilabel: bool, masks: bool) -> list[Phase]:
    """Return all phases, all of them together, and what a worker adds."""
    missing = MissingBySplit(train=Missing(rate=0.7)) if masks else MissingBySplit()
    encoders = tiny_image_encoder(), tiny_text_encoder(folder / "bert")
    source = Table(train=str(folder / "rows.parquet"), image_column="image" if masks else None, multilabel=multilabel)
    data = ImageTextDataModule(source, *encoders, loader=LoaderSettings(workers=0), missing=missing)
    data.preprocessing.tokenizer([""])  # loads it
    before, phases = parts()["dirty"], list[Phase]()

    def phase(name: str, work: Any) -> Any:
        memory = PeakMemory()
        memory.start()
        start = perf_counter(), process_time()
        result = work()
        seconds, cpu = perf_counter() - start[0], process_time() - start[1]
        memory.above()
        phases.append(Phase(name, seconds, cpu, parts()["dirty"] - before, memory.most["dirty"] - before))
        return result

    phase("read", lambda: data.source_table("train"))
    phase("classes, split, frequencies", lambda: data.facts)
    phase("check", lambda: data.check("fit"))
    phase("setup", lambda: data.setup("fit"))
    loader = phase("loader", data.train_dataloader)
    phase("first batch", lambda: next(iter(loader)))
    seconds, cpu = sum(each.seconds for each in phases), sum(each.cpu for each in phases)
    phases.append(Phase(READY, seconds, cpu, phases[-1].kept, max(each.peak for each in phases)))
    data.loaders.settings = LoaderSettings(workers=1)
    loader = data.train_dataloader()
    batches = iter(loader)
    for _ in range(min(200, len(loader) // 2)):
        next(batches)
    added = sum(parts(worker)["dirty"] for worker in children())
    return [*phases, Phase(WORKER, 0.0, 0.0, added, added)]


def children() -> list[int]:
    """Processes that this one has started."""
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


def two_processes(rows: int, *flags: str) -> list[list[Phase]]:
    """Return the phases of a first process and of a second one, which finds what the first has kept."""
    multilabel, masks = "--multilabel" in flags, "--masks" in flags
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_text_encoder(folder / "bert", width=32, layers=2)
        Image.new("RGB", (32, 32)).save(folder / "a.png")
        write_rows(folder / "rows.parquet", rows, multilabel, str(folder / "a.png") if masks else None)
        time.sleep(3)  # what is made from a file that has just been written is not kept
        environment = os.environ | {"XDG_CACHE_HOME": f"{folder}/cache"}
        command = [sys.executable, __file__, f"--folder={name}", *flags]
        outputs = [
            subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout
            for _ in range(2)
        ]
    return [[Phase(*each) for each in json.loads(output.splitlines()[-1])] for output in outputs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--multilabel", action="store_true")
    parser.add_argument("--masks", action="store_true")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # of the process that is measured
    given = parser.parse_args()
    if given.folder is not None:
        print(json.dumps(measure(given.folder, given.multilabel, given.masks)))
        return
    flags = [f"--{name}" for name in ("multilabel", "masks") if getattr(given, name)]
    for attempt, phases in zip(("first", "second"), two_processes(given.rows, *flags), strict=True):
        print(f"{given.rows:,} rows, {attempt} process")
        print(f"{'':<28}{'duration':>11}{'CPU':>11}{'private':>12}{'peak':>12}")
        for name, seconds, cpu, kept, peak in phases:
            print(f"{name:<28}{seconds:>9.2f} s{cpu:>9.2f} s{kept / 1e6:>9.0f} MB{peak / 1e6:>9.0f} MB")


if __name__ == "__main__":
    main()
