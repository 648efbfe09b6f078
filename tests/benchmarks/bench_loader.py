"""Samples a second: the loader with one worker, against bare Pillow that decodes and resizes the same files.

`python tests/benchmarks/bench_loader.py`
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from time import perf_counter

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.paired import compare
from benchmarks.photos import write_photos
from dishes import write_text_encoder
from fakes import tiny_text_encoder, write_table

from robusttune.data import ImageTextDataModule, LoaderSettings, ModalityDropout, TrainingSettings
from robusttune.data.sources import Table
from robusttune.encoders import TimmEncoder

COUNT = 512
SIZE, RESIZED = 224, 249  # of ViT-B/16 in timm


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_photos(folder, COUNT)
        write_text_encoder(folder / "bert", width=32, layers=2)
        rows = [
            {"image": path.name, "text": f"soup of the day {i}", "label": "ab"[i % 2]} for i, path in enumerate(paths)
        ]
        table = str(write_table(folder, "train", rows))
        data = ImageTextDataModule(
            Table(train=table, val=table),
            TimmEncoder(name="vit_base_patch16_224.augreg_in21k", weights="random"),
            tiny_text_encoder(folder / "bert"),
            batch_size=64,
            loader=LoaderSettings(workers=1),
            training=TrainingSettings(ModalityDropout(image_dropout=0, text_dropout=0)),
        )
        data.setup("fit")
        loader = data.train_dataloader()

        def ours() -> float:
            batches = iter(loader)
            start, seen = perf_counter(), 0
            for batch in batches:
                seen += len(batch)
            return seen / (perf_counter() - start)

        def pillow() -> float:
            start = perf_counter()
            for path in paths:
                with Image.open(path) as file:
                    image = file.convert("RGB")
                scale = RESIZED / min(image.size)
                image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
            return len(paths) / (perf_counter() - start)

        print(f"{COUNT} JPEGs of 512 x 384, {sum(p.stat().st_size for p in paths) / COUNT / 1000:.0f} kB each")
        compare("loader", "samples/s", {"loader, 1 worker": ours, "bare Pillow": pillow})


if __name__ == "__main__":
    main()
