"""A fit of 800 steps of Experts from a full feature cache, against a plain PyTorch loop on the same features.

519 rows as wide as MobileNetV2 and MiniLM, 15 classes, batches of 128, on one thread. Both train the same network; the
fit also validates, logs and writes checkpoints. The first table compares CPU seconds of whole processes, the second
one seconds inside the loops.

`python tests/benchmarks/bench_small_fit.py`; add `--rounds 1` to see whether it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import yaml
from benchmarks.paired import compare
from dishes import FILLERS, write_text_encoder
from fakes import write_image, write_table
from torch.nn.functional import cross_entropy

from robusttune.types import Encoded, Facts, Widths

ROWS, CLASSES, BATCH, EPOCHS = 519, 15, 128, 200
IMAGE = {"name": "mobilenetv2_100", "weights": "random", "layers": 4, "grid": 4, "size": 32}
SETTINGS = ["--config=emoji", "--config=fusion/experts", "--config=small.yaml"]


def write_data(folder: Path) -> None:
    """Write a table of plain pictures, a BERT as wide as MiniLM, and the settings that replace the recipe's."""
    rows = []
    for row in range(ROWS):
        image = write_image(folder / f"{row}.png", (32, 32), f"hsl({row % 360}, 90%, {30 + row % 50}%)")
        text = " ".join(FILLERS[(row + k) % len(FILLERS)] for k in range(2 + row % 5))
        rows.append({"id": str(row), "image": str(image), "text": text, "label": str(row % CLASSES)})
    write_text_encoder(folder / "bert", width=384)
    table = str(write_table(folder, "train", rows))
    settings: dict[str, Any] = {
        "image_encoder": {"class_path": "robusttune.encoders.TimmEncoder", "init_args": IMAGE},
        "text_encoder": {
            "class_path": "robusttune.encoders.TransformersTextEncoder",
            "init_args": {"name": str(folder / "bert"), "weights": "pretrained", "layers": 4, "max_length": 32},
        },
        "data": {
            "source": {
                "class_path": "robusttune.data.sources.Table",
                "init_args": {"train": table, "val": table, "test": None, "id_column": "id"},
            },
            "batch_size": BATCH,
            "cache": {"folder": str(folder / "cache"), "dtype": "float32"},
        },
        "trainer": {"accelerator": "cpu", "enable_progress_bar": False},
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(settings))


def cpu_seconds(folder: Path, *args: str) -> float:
    """Run Python on one thread, and return the CPU seconds of the process and its children."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    before = os.times()
    subprocess.run([sys.executable, *args], cwd=folder, env=environment, check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def fit(folder: Path, epochs: int) -> float:
    return cpu_seconds(folder, "-m", "robusttune", "fit", *SETTINGS, f"--trainer.max_epochs={epochs}")


def features(widths: Widths, tokens: int) -> Encoded:
    """Return random features of all rows, without padding."""
    layers = [torch.randn(ROWS, tokens, width) for width in widths.layers]
    return Encoded(torch.randn(ROWS, widths.pooled), layers, [torch.ones(ROWS, tokens, dtype=torch.bool)] * len(layers))


def plain_loop(epochs: int) -> float:
    """Train as one would without a framework, on features in memory, and return the seconds of the loop."""
    from robusttune.models import Experts

    torch.manual_seed(0)
    images, texts = features(Widths((24, 32, 96, 320), 1280), 16), features(Widths((384,) * 4, 384), 9)
    labels, absent = torch.arange(ROWS) % CLASSES, torch.zeros(BATCH, dtype=torch.bool)
    facts = Facts([str(label) for label in range(CLASSES)], [1 / CLASSES] * CLASSES, multilabel=False)
    network = Experts().build(Widths((24, 32, 96, 320), 1280), Widths((384,) * 4, 384), facts)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.5)
    steps = epochs * (ROWS // BATCH)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    start = perf_counter()
    for _ in range(epochs):
        for chunk in torch.randperm(ROWS).split(BATCH)[: ROWS // BATCH]:
            image, text = images.map(lambda part, rows=chunk: part[rows]), texts.map(lambda part, rows=chunk: part[rows])
            rows = torch.arange(BATCH).repeat(3)
            shown = torch.cat([~absent, ~absent, absent]), torch.cat([~absent, absent, ~absent])
            logits = network.forward_pairs(image, text, rows, rows, *shown).logits
            losses = cross_entropy(logits, labels[chunk].repeat(3), reduction="none", label_smoothing=0.2).view(3, -1)
            optimizer.zero_grad()
            (losses[0] / 2 + losses[1] / 4 + losses[2] / 4).mean().backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
    return perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plain", type=Path, help="file for the seconds of the plain loop, which is run alone")
    arguments = parser.parse_args()
    if arguments.plain is not None:
        arguments.plain.write_text(json.dumps({"seconds": plain_loop(EPOCHS)}))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder)
        fit(folder, 1)  # fills the cache
        loops: dict[str, list[float]] = {"fit": [], "plain": []}

        def seconds(way: str, measured: Path, *args: str) -> float:
            spent = cpu_seconds(folder, *args)
            loops[way].append(json.loads(measured.read_text())["seconds"])
            return spent

        def whole_fit() -> float:
            finished = folder / f"runs/experts/{len(loops['fit']) + 1}/finished.json"
            return seconds("fit", finished, "-m", "robusttune", "fit", *SETTINGS, f"--trainer.max_epochs={EPOCHS}")

        def whole_loop() -> float:
            return seconds("plain", folder / "plain.json", __file__, f"--plain={folder / 'plain.json'}")

        compare("small-fit", "CPU s", {"robusttune fit": whole_fit, "plain loop": whole_loop}, arguments.rounds)
        for way in loops.values():
            del way[0]  # the round that warms up
        takes = {f"{way}, loop": iter(values).__next__ for way, values in loops.items()}
