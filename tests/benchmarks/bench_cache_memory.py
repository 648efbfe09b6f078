"""Resident memory of training from caches of two sizes; what is in them is made up.

`python tests/benchmarks/bench_cache_memory.py`
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from benchmarks import bench_cache
from fakes import write_table
from lightning.pytorch import Callback, Trainer
from PIL import Image

from robusttune.commands.quiet import quiet
from robusttune.encoders import FrozenEncoder
from robusttune.models.classifier import ENCODERS
from robusttune.tasks import FusionTask
from robusttune.types import Encoded, Tokens

SIZES = (200, 8000)


class PeakMemory(Callback):
    """Most resident memory at the end of any step, bytes."""

    most = 0

    def on_train_batch_end(self, *_: Any) -> None:
        lines = Path("/proc/self/status").read_text().splitlines()
        resident = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))
        self.most = max(self.most, resident)


def make_up(encoder: FrozenEncoder) -> None:
    """Have it return random features of the right shape, at once."""
    one = torch.zeros(1, 3, 224, 224, dtype=torch.uint8)
    tokens = encoder(one).tokens[0].shape[1] if hasattr(encoder, "side") else None

    def forward(inputs: Any) -> Encoded:
        count, length = len(inputs), tokens or inputs.input_ids.shape[1]
        mask = inputs.attention_mask if isinstance(inputs, Tokens) else torch.ones(count, length, dtype=torch.bool)
        layers = [torch.randn(count, length, width) for width in encoder.widths.layers]
        return Encoded(torch.randn(count, encoder.widths.pooled), layers, [mask] * len(layers))

    encoder.forward = forward


def build(folder: Path, samples: int) -> None:
    """Data of so many small images, and their cache."""
    bench_cache.SAMPLES = 8
    bench_cache.write_data(folder)
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    for i in range(samples):
        Image.new("RGB", (16, 16), (i % 256, i // 256, 0)).save(folder / f"{i}.bmp")
    many = [rows[i % 8] | {"image": f"{i}.bmp", "text": f"{rows[i % 8]['text']} {i}"} for i in range(samples)]
    write_table(folder, "train", many)
    data = bench_cache.make_data(folder, folder / "cache")
    task = FusionTask(bench_cache.IMAGE, bench_cache.text_encoder(folder), data.facts)
    for encoder in (task.classifier.image_encoder, task.classifier.text_encoder):
        make_up(encoder)
    data.setup("fit")
    data.fill_cache("fit", {name: task.classifier.encoder(name) for name in ENCODERS})


def train(folder: Path) -> None:
    """One epoch from the cache; says how much memory it took."""
    data = bench_cache.make_data(folder, folder / "cache")
    task, peak = FusionTask(bench_cache.IMAGE, bench_cache.text_encoder(folder), data.facts), PeakMemory()
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    Trainer(accelerator="cpu", max_epochs=1, limit_val_batches=0, callbacks=[peak], **quiet).fit(task, data)
    print(f"resident {peak.most}")


@quiet()
def main() -> None:
    warnings.simplefilter("ignore")
    if len(sys.argv) == 2:
        train(Path(sys.argv[1]))
        return
    found = {}
    for samples in SIZES:
        with tempfile.TemporaryDirectory() as name:
            build(Path(name), samples)
            size = sum(path.stat().st_size for path in Path(name).rglob("cache/*/*/*.safetensors"))
            command = [sys.executable, __file__, name]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found[samples] = {"cache": size, "resident": int(out.split()[-1])}
        print(f"{samples} samples: {size / 1e9:.2f} GB of cache, {found[samples]['resident'] / 1e9:.2f} GB resident")
    Path("runs/benchmarks").mkdir(parents=True, exist_ok=True)
    Path("runs/benchmarks/cache-memory.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
