"""An epoch with and without the feature cache, what building it costs, and how near the limit an epoch from it comes.

ViT-B/16 and BERT-base with random weights, images of 224 px, 4 layers, 4 x 4 tokens an image, complete samples.

`python tests/benchmarks/bench_cache.py`
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from benchmarks.paired import compare
from benchmarks.photos import write_photos
from dishes import DISHES, FILLERS, write_text_encoder
from fakes import write_table
from lightning.pytorch import Callback, Trainer
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig

from robusttune.commands.quiet import quiet
from robusttune.data import CacheSettings, ImageTextDataModule, LoaderSettings, ModalityDropout, TrainingSettings
from robusttune.data.sources import Table
from robusttune.encoders import TimmEncoder, TransformersTextEncoder
from robusttune.models.classifier import ENCODERS
from robusttune.tasks import FusionTask
from robusttune.types import Batch, Encoded

SAMPLES = 192
IMAGE = TimmEncoder(name="vit_base_patch16_224.augreg_in21k", weights="random", layers=4, grid=4)


class EpochTimer(Callback):
    """Seconds from the first batch that is asked for to the end of the last step."""

    def on_train_epoch_start(self, *_: Any) -> None:
        self.start = perf_counter()

    def on_train_epoch_end(self, *_: Any) -> None:
        self.seconds = perf_counter() - self.start


def write_data(folder: Path) -> None:
    """Photos, titles of 4 to 16 words, and a BERT-base without weights."""
    rng = random.Random(0)
    words = [word for _, _, words in DISHES.values() for word in words] + FILLERS
    rows = [
        {"image": path.name, "text": " ".join(rng.choices(words, k=rng.randint(3, 12))), "label": "abc"[i % 3]}
        for i, path in enumerate(write_photos(folder, SAMPLES))
    ]
    write_table(folder, "train", rows)
    write_table(folder, "val", rows[:8])
    write_text_encoder(folder / "bert", width=32, layers=1)
    BertConfig().save_pretrained(folder / "bert")


def make_data(folder: Path, cache: Path | None, dropout: float = 0) -> ImageTextDataModule:
    return ImageTextDataModule(
        Table(train=str(folder / "train.jsonl"), val=str(folder / "val.jsonl")),
        IMAGE,
        text_encoder(folder),
        batch_size=64,
        training=TrainingSettings(ModalityDropout(image_dropout=dropout, text_dropout=dropout)),
        cache=CacheSettings(None if cache is None else str(cache)),
    )


def text_encoder(folder: Path) -> TransformersTextEncoder:
    return TransformersTextEncoder(name=str(folder / "bert"), weights="random", layers=4)


def fit(data: ImageTextDataModule, task: FusionTask) -> float:
    """Seconds of one epoch of training."""
    timer = EpochTimer()
    quiet: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    Trainer(accelerator="cpu", max_epochs=1, limit_val_batches=0, callbacks=[timer], **quiet).fit(task, data)
    return timer.seconds


def build(folder: Path, task: FusionTask) -> float:
    """Seconds to fill an empty cache with the training samples."""
    shutil.rmtree(folder / "new", ignore_errors=True)
    data = make_data(folder, folder / "new")
    data.setup("fit")
    start = perf_counter()
    data.fill_cache("fit", {name: task.classifier.encoder(name) for name in ENCODERS})
    return perf_counter() - start


def peak_flops() -> float:
    """What a large matrix product reaches, FLOP a second."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    times = []
    for _ in range(8):
        start = perf_counter()
        a @ b
        times.append(perf_counter() - start)
    return 2 * 2048**3 / min(times)


def say_limit(folder: Path, task: FusionTask, seconds: float) -> None:
    """FLOPs of the trained part and bytes of the cache for a sample, and what share of the machine's peak that is."""
    data = make_data(folder, folder / "cache")
    data.setup("fit")
    data.fill_cache("fit", {name: task.classifier.encoder(name) for name in ENCODERS})
    batch = next(iter(data.train_dataloader()))
    task.train()
    step = steps(task)
    with FlopCounterMode(display=False) as counter:
        step(batch)
    flops = counter.get_total_flops() / len(batch)
    size = sum(path.stat().st_size for path in (folder / "cache").rglob("*.safetensors")) / SAMPLES
    peak = peak_flops()
    print(
        f"a sample: {flops / 1e6:.0f} MFLOP in the trained part, {size / 1e3:.0f} kB in the cache; "
        f"an epoch from the cache: {SAMPLES / seconds:.0f} samples/s = {flops * SAMPLES / seconds / 1e9:.1f} GFLOP/s, "
        f"{flops * SAMPLES / seconds / peak:.0%} of a large matrix product's {peak / 1e9:.0f} GFLOP/s, "
        f"and {size * SAMPLES / seconds / 1e6:.0f} MB/s read"
    )


def encode(task: FusionTask, batch: Batch) -> tuple[Encoded, Encoded]:
    """What the encoders make of a batch."""
    image = task.classifier.image_encoder.encode(batch.images["clean"], batch.image_present)
    return image, task.classifier.text_encoder.encode(batch.texts["clean"], batch.text_present)


def encoder_pass(data: ImageTextDataModule, task: FusionTask) -> float:
    """Samples a second, from files to what the encoders make of them, in this process alone."""
    data.setup("fit")
    data.fill_cache("fit", {name: task.classifier.encoder(name) for name in ENCODERS})
    data.loaders.settings = LoaderSettings(workers=0)
    batches = iter(data.train_dataloader())
    start = perf_counter()
    batch = next(batches)
    encode(task, batch)
    return len(batch) / (perf_counter() - start)


def steps(task: FusionTask) -> Callable[[Any], None]:
    """Forward and backward of one batch, without a Trainer."""

    def step(batch: Any) -> None:
        fused = task.classifier.network(*encode(task, batch), batch.image_present, batch.text_present)
        loss = torch.nn.functional.cross_entropy(fused.logits, batch.label)
        pairs = batch.image_present & batch.text_present
        (loss + 0.1 * task.correlation(fused.image_views, fused.text_views, pairs)).backward()

    return step


@quiet()
def main() -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder)
        plain, cached = make_data(folder, None), make_data(folder, folder / "cache")
        task = FusionTask(IMAGE, text_encoder(folder), plain.facts)
        found = compare(
            "cache-epoch",
            f"s for {SAMPLES} samples",
            {"without cache": lambda: fit(plain, task), "from the cache": lambda: fit(cached, task)},
            rounds=3,
        )
        say_limit(folder, task, found[f"from the cache (s for {SAMPLES} samples)"])
        compare(
            "cache-encoder-pass",
            "samples/s",
            {"from the cache": lambda: encoder_pass(cached, task), "both encoders": lambda: encoder_pass(plain, task)},
            rounds=3,
        )
        compare(
            "cache-build",
            f"s for {SAMPLES} samples",
            {"building": lambda: build(folder, task), "one epoch without cache": lambda: fit(plain, task)},
            rounds=3,
        )


if __name__ == "__main__":
    main()
