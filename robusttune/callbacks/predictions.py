"""What `predict` leaves: one row a sample, in a CSV beside the checkpoint."""

from __future__ import annotations

import csv
from typing import Any

import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from torch import Tensor

from robusttune.callbacks.run_folder import run_folder_of
from robusttune.ranks import world_size
from robusttune.tasks import RobustTask

Rows = list[tuple[str, list[float]]]


class PredictionWriter(Callback):
    """Writes ``report/predictions.csv``: id, prediction (several joined by ``|``), probability of each class."""

    def __init__(self) -> None:
        self.rows: Rows = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: tuple[list[str], Tensor],
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        ids, probabilities = outputs
        self.rows += zip(ids, probabilities.tolist(), strict=True)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, RobustTask)
        rows = _gather(self.rows)
        self.rows = []
        if not trainer.is_global_zero or trainer.ckpt_path is None:
            return
        path = run_folder_of(trainer.ckpt_path) / "report" / "predictions.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        names = pl_module.facts.class_names
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "prediction", *names])
            for sample_id, probabilities in rows:
                writer.writerow(
                    [sample_id, _prediction(probabilities, pl_module), *(f"{p:.6g}" for p in probabilities)]
                )
        partial.replace(path)
        Console().print(f"{len(rows)} predictions written to {path}", soft_wrap=True, highlight=False)


def _prediction(probabilities: list[float], task: RobustTask) -> str:
    names = task.facts.class_names
    if task.facts.multilabel:
        return "|".join(name for name, p in zip(names, probabilities, strict=True) if p >= 0.5)
    return names[max(range(len(names)), key=probabilities.__getitem__)]


def _gather(rows: Rows) -> Rows:
    """The rows of all ranks, in the order in which the samples stand."""
    if world_size() == 1:
        return rows
    gathered: list[Rows] = [[] for _ in range(world_size())]
    dist.all_gather_object(gathered, rows)
    longest = max(map(len, gathered))
    return [part[i] for i in range(longest) for part in gathered if i < len(part)]
