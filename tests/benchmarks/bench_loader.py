"""Samples a second: the loader with one worker, against bare Pillow that decodes and resizes the same files.

`python tests/benchmarks/bench_loader.py`
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.paired import compare
from fakes import tiny_text_encoder, write_table

from robusttune.commands.demo import write_text_encoder
from robusttune.data import Corruption, ImageTextDataModule
from robusttune.data.sources import Table
from robusttune.encoders import TimmEncoder

COUNT = 512
SIZE, RESIZED = 224, 249  # of ViT-B/16 in timm


def write_photos(folder: Path) -> list[Path]:
    """JPEGs of 512 x 384 with some texture, about 60 kB each as photos of that size are."""
    rng, paths = np.random.default_rng(0), []
    for number in range(COUNT):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((512, 384), Image.BICUBIC)
        pixels = np.asarray(coarse) + rng.normal(0, 6, (384, 512, 1))
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_photos(folder)
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
            workers=1,
            corruption=Corruption(image_dropout=0, text_dropout=0),
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
                image.resize((round(image.width * scale), round(image.height * scale)), Image.BICUBIC)
            return len(paths) / (perf_counter() - start)

        print(f"{COUNT} JPEGs of 512 x 384, {sum(p.stat().st_size for p in paths) / COUNT / 1000:.0f} kB each")
        compare("loader", "samples/s", {"loader, 1 worker": ours, "bare Pillow": pillow})


if __name__ == "__main__":
    main()
