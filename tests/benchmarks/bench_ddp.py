"""Samples a second of two processes against twice those of one, and against two that know nothing of each other.

MoLT on ViT-B/16 and BERT-base with random weights, which both run in every step; one thread a process, 8 complete
samples a process and step. The second comparison is the control: what cores and memory give to two processes at once.

`python tests/benchmarks/bench_ddp.py`; add `--steps 2 --rounds 1` to see whether it runs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from benchmarks.bench_cache import IMAGE, text_encoder, write_data
from benchmarks.paired import compare
from lightning.pytorch import Callback, Trainer

from robusttune.commands.quiet import quiet
from robusttune.data import ImageTextDataModule, LoaderSettings, ModalityDropout, TrainingSettings
from robusttune.data.sources import Table
from robusttune.ranks import leave
from robusttune.tasks import FusionTask

BATCH, WARM_UP, STEPS, ROUNDS = 8, 2, 8, 3


class Clock(Callback):
    """Seconds of the steps after the warm-up, from when all processes that run at once have come so far.

    Args:
        folder: where each process says so, and leaves its seconds.
        processes: how many run at once.
        name: of this process.
    """

    def __init__(self, folder: Path, processes: int, name: str) -> None:
        self.folder, self.processes, self.name = folder, processes, name

    def on_train_batch_end(self, trainer: Trainer, _: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx + 1 == WARM_UP:
            (self.folder / f"{self.name}.warm").touch()
            self._meet()
            self.start = time.perf_counter()
        elif batch_idx + 1 == trainer.num_training_batches:
            (self.folder / f"{self.name}.seconds").write_text(f"{time.perf_counter() - self.start}")

    def _meet(self) -> None:
        patience = time.perf_counter() + 120
        while len(list(self.folder.glob("*.warm"))) < self.processes:
            if time.perf_counter() > patience:
                raise TimeoutError("another process has not come so far")
            time.sleep(0.001)


@quiet()
def train(data_folder: Path, folder: Path, devices: int, processes: int, steps: int) -> None:
    """Take the steps, as one process, or as one of two that Lightning starts."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    encoder = text_encoder(data_folder)
    data = ImageTextDataModule(
        Table(train=f"{data_folder}/train.jsonl", val=f"{data_folder}/val.jsonl"),
        IMAGE,
        encoder,
        batch_size=BATCH,
        loader=LoaderSettings(workers=0),
        training=TrainingSettings(ModalityDropout(image_dropout=0, text_dropout=0)),
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        max_epochs=1,
        limit_train_batches=WARM_UP + steps,
        limit_val_batches=0,
        gradient_clip_val=1.0,
        callbacks=[Clock(folder, processes, str(os.getpid()))],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(FusionTask(IMAGE, encoder, data.facts), data)
    leave()


def rate(data_folder: Path, steps: int, devices: int = 1, beside: int = 1) -> Callable[[], float]:
    """Measures the samples a second of ``beside`` runs at once, of so many processes each."""

    def measure() -> float:
        with tempfile.TemporaryDirectory() as folder:
            arguments = [data_folder, folder, devices, devices * beside, steps]
            command = [sys.executable, __file__, "train", *map(str, arguments)]
            environment, log = os.environ | {"OMP_NUM_THREADS": "1"}, Path(folder) / "log"
            with log.open("w") as file:
                runs = [subprocess.Popen(command, env=environment, stdout=file, stderr=file) for _ in range(beside)]
                statuses = [run.wait() for run in runs]
            if any(statuses):
                sys.exit(log.read_text())
            seconds = [float(path.read_text()) for path in Path(folder).glob("*.seconds")]
        return sum(BATCH * steps / each for each in seconds)

    return measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS, help="that are timed in each measurement, at most 10")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of measurements, after one that does not count")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder))
        one, two, beside = (rate(Path(folder), given.steps, *how) for how in ((1, 1), (2, 1), (1, 2)))
        compare("ddp", "samples/s", {"two processes": two, "twice one": lambda: 2 * one()}, given.rounds)
        compare("ddp-control", "samples/s", {"two processes": two, "two side by side": beside}, given.rounds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        train(Path(sys.argv[2]), Path(sys.argv[3]), *map(int, sys.argv[4:]))
    else:
        main()
