"""What `robusttune plan` says of a step and of an epoch, against a real fit, by turns.

The demo with and without its cache, MMRL with and without, a tiny encoder of photos, which waits for the loader, and
ViT-B/16 and BERT-base with random weights. The real step is the median over a fit, or, where several workers hand over
their batches together, the mean; run folder and loggers are included.

`python tests/benchmarks/bench_plan.py [--rounds 3] [--only demo demo-cached mmrl mmrl-cached photos vit_base]`
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.bench_cache import write_data
from lightning.pytorch import Callback
from rich.console import Console
from rich.table import Table

from robusttune.cli import main as robusttune

CONFIGS = Path(__file__).parents[2] / "configs"
FOLDER = Path("runs/benchmarks")


class StepTimer(Callback):
    """Seconds from the end of a step to that of the next, and of epochs."""

    steps: list[float] = []  # noqa: RUF012, of the last fit
    epochs: list[float] = []  # noqa: RUF012
    last = 0.0
    begun = 0.0

    def on_train_start(self, *_: Any) -> None:
        StepTimer.steps, StepTimer.epochs = [], []

    def on_train_epoch_start(self, *_: Any) -> None:
        self.begun = perf_counter()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now = perf_counter()
        if batch_idx > 0:
            StepTimer.steps.append(now - self.last)
        self.last = now

    def on_train_epoch_end(self, *_: Any) -> None:
        StepTimer.epochs.append(self.last - self.begun)


def run(*args: str) -> None:
    if robusttune(args):
        sys.exit(1)


def real(folder: Path, flags: Sequence[str]) -> tuple[float, float]:
    """Seconds of a step and of an epoch of a fit."""
    run("fit", *flags, f"--run_root={folder}/runs", "--trainer.callbacks+=benchmarks.bench_plan.StepTimer")
    from benchmarks.bench_plan import StepTimer as Used  # by the name that the fit knew it by

    typical = fmean if "--data.loader.workers=2" in flags else median
    return typical(Used.steps), median(Used.epochs)


def planned(folder: Path, flags: Sequence[str]) -> tuple[float, float]:
    """What a plan says of them."""
    run("plan", *flags, f"--json={folder}/plan.json")
    time = json.loads((folder / "plan.json").read_text())["time"]
    return time["step"]["seconds"], time["epoch"]


def cases(folder: Path) -> dict[str, list[str]]:
    """Configurations of a few epochs, so that a round takes seconds."""
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    demo = [f"--config={CONFIGS}/demo.yaml", "--trainer.max_epochs=3", *quiet]
    mmrl = [f"--config={CONFIGS}/demo_mmrl.yaml", "--trainer.max_epochs=3", *quiet]
    table = [
        *(f"--config={CONFIGS}/{name}.yaml" for name in ("table", "fusion/molt")),
        *("--trainer.max_epochs=10", "--data.cache.folder=null"),
        f"--data.source.train={folder}/train.jsonl",
        f"--data.source.val={folder}/val.jsonl",
        "--image_encoder.weights=random",
        "--trainer.precision=32-true",
        *quiet,
    ]
    tiny = [
        "--image_encoder.name=test_vit",
        "--image_encoder.size=32",
        "--image_encoder.layers=2",
        "--text_encoder.layers=2",
    ]
    tiny += ["--image_encoder.grid=2", "--text_encoder.name=robusttune:demo_clip", "--text_encoder.pooling=end"]
    photos = [*table, *tiny, "--text_encoder.max_length=32", "--data.batch_size=8", "--data.loader.workers=2"]
    vit_base = [
        *table,
        f"--text_encoder.name={folder}/bert",
        "--text_encoder.weights=random",
        "--data.batch_size=8",
        "--trainer.max_steps=12",
        "--trainer.limit_train_batches=6",
    ]
    return {
        "demo": [*demo, "--data.cache.folder=null"],
        "demo-cached": [*demo, f"--data.cache.folder={folder}/cache"],
        "mmrl": [*mmrl, "--data.cache.folder=null"],
        "mmrl-cached": [*mmrl, f"--data.cache.folder={folder}/cache"],
        "photos": [*photos, "--model.fusion.cca_dim=4", "--trainer.max_epochs=3"],
        "vit_base": vit_base,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+")
    given = parser.parse_args()
    table = Table("", "planned step (s)", "real", "off by", "planned epoch (s)", "real", "off by")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder)
        for case, flags in cases(folder).items():
            if given.only and case not in given.only:
                continue
            if "cached" in case:
                real(folder, flags)  # fills the cache
            rounds = [(planned(folder, flags), real(folder, flags)) for _ in range(given.rounds)]
            said, was = ([median(pair[which][n] for pair in rounds) for n in (0, 1)] for which in (0, 1))
            off = [median(pair[0][n] / pair[1][n] - 1 for pair in rounds) for n in (0, 1)]
            found[case] = {"rounds": rounds, "off": off}
            cells = [(f"{said[n]:.4g}", f"{was[n]:.4g}", f"{off[n]:+.1%}") for n in (0, 1)]
            table.add_row(case, *cells[0], *cells[1])
            Console().print(table)
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "plan.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
