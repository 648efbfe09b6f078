"""Samples a second and memory of streamed training samples, against the same samples in a table.

`python tests/benchmarks/bench_stream.py [--copies 20]`: the photos are repeated, so that the stream is `--copies` times
as long. Memory is that of a process that reads it alone, without a worker.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.paired import compare
from benchmarks.photos import write_photos
from benchmarks.process_memory import peak, reset_peak
from dishes import write_text_encoder
from fakes import tiny_text_encoder, write_table
from tars import write_tar

from robusttune.data import ImageTextDataModule, LoaderSettings, ModalityDropout, TrainingSettings
from robusttune.data.sources import HuggingFace, Source, Stream, Table
from robusttune.encoders import TimmEncoder

COUNT, FILES = 256, 4


def module(source: Source, folder: Path) -> ImageTextDataModule:
    """A data module that loads batches of 64 in this process."""
    encoders = (
        TimmEncoder(name="vit_base_patch16_224.augreg_in21k", weights="random"),
        tiny_text_encoder(folder / "bert"),
    )
    training = TrainingSettings(ModalityDropout(image_dropout=0, text_dropout=0))
    data = ImageTextDataModule(source, *encoders, batch_size=64, loader=LoaderSettings(workers=0), training=training)
    data.setup("fit")
    return data


def streamed(folder: Path, samples: int, name: str) -> HuggingFace:
    """Tar files with some samples, whose photos are repeated."""
    photos = cycle((folder / f"{number}.jpg").read_bytes() for number in range(COUNT))
    for number in range(FILES):
        files = (
            {"jpg": photo, "txt": b"soup of the day", "cls": b"01"[k % 2 : k % 2 + 1]} for k, photo in enumerate(photos)
        )
        write_tar(folder / f"{name}-{number}.tar", islice(files, samples // FILES))
    sets: dict[str, list[str] | str] = {"train": f"{folder}/{name}-*.tar", "validation": f"{folder}/{name}-0.tar"}
    columns = {"image_column": "jpg", "text_column": "txt", "label_column": "cls"}
    return HuggingFace("webdataset", files=sets, stream=Stream(buffer=100), **columns)  # type: ignore[arg-type]


def rate(data: ImageTextDataModule) -> float:
    """Return the samples a second of an epoch."""
    start = perf_counter()
    seen = sum(len(batch) for batch in data.train_dataloader())
    return seen / (perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--copies", type=int, default=20, help="length of the stream whose memory is measured")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["HF_DATASETS_CACHE"] = str(folder / "prepared")
        paths = write_photos(folder, COUNT)
        write_text_encoder(folder / "bert", width=32, layers=2)
        rows = [{"image": path.name, "text": "soup of the day", "label": "01"[i % 2]} for i, path in enumerate(paths)]
        path = str(write_table(folder, "train", rows))
        stream, table = module(streamed(folder, COUNT, "short"), folder), module(Table(train=path, val=path), folder)
        compare("stream", "samples/s", {"stream": lambda: rate(stream), "table": lambda: rate(table)})
        long = module(streamed(folder, COUNT * given.copies, "long"), folder)
        for kind, data in {f"{COUNT:,}": stream, f"{COUNT * given.copies:,}": long}.items():
            reset_peak()
            before = peak()
            rate(data)
            print(f"{kind} samples: {(peak() - before) / 1e6:.0f} MB more than at rest")


if __name__ == "__main__":
    main()
