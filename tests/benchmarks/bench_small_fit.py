"""A fit of 800 steps of Experts from a full feature cache, against a plain PyTorch loop on the same features.

512 rows as wide as MobileNetV2 and MiniLM, 15 classes, batches of 128, on one thread. Both train the same network; the
fit also validates, logs and writes checkpoints. The first table compares CPU seconds of whole processes, with their
start, the second one seconds of training in the same processes.

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
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import yaml
from benchmarks.paired import compare
from benchmarks.plain_experts import BATCH, CLASSES, EPOCHS, ROWS
from dishes import FILLERS, write_text_encoder
from fakes import write_image, write_table

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder)
        fit, plain = ["-m", "robusttune", "fit", *SETTINGS], [str(Path(__file__).with_name("plain_experts.py"))]
        cpu_seconds(folder, *fit, "--trainer.max_epochs=1")  # fills the cache
        loops: dict[str, list[float]] = {"robusttune": [], "plain": []}

        def whole_fit() -> float:
            spent = cpu_seconds(folder, *fit, f"--trainer.max_epochs={EPOCHS}")
            run = max((folder / "runs/experts").iterdir(), key=lambda run: int(run.name))
            loops["robusttune"].append(json.loads((run / "finished.json").read_text())["seconds"])
            return spent

        def whole_loop() -> float:
            spent = cpu_seconds(folder, *plain, str(folder / "plain.json"))
            loops["plain"].append(json.loads((folder / "plain.json").read_text())["seconds"])
            return spent

        compare("small-fit", "CPU s", {"robusttune fit": whole_fit, "plain loop": whole_loop}, arguments.rounds)
        inside = {way: iter(values).__next__ for way, values in loops.items()}
        compare("small-fit-loop", "s", inside, arguments.rounds)


if __name__ == "__main__":
    main()
