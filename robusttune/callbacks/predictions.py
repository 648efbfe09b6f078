"""The output of `predict`: a CSV file with one row a sample, in the folder of the checkpoint's run."""

from __future__ import annotations

import csv
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from robusttune.callbacks.run_folder import run_folder_of
from robusttune.counting import counted
from robusttune.errors import RobustTuneError
from robusttune.escaping import csv_cell
from robusttune.paths import atomic_write
from robusttune.ranks import on_rank_zero
from robusttune.tasks import RobustTask
from robusttune.terminal import print_line

Rows = list[tuple[str, list[float]]]


class PredictionWriter(Callback):
    """A callback that writes ``report/predictions.csv``.

    Its columns are the sample's id, the prediction (several classes are joined by ``|``) and the probability of each
    class. Ids and class names are escaped with `csv_cell`.
    """

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
        """Keep the ids and probabilities of a batch."""
        ids, probabilities = outputs
        self.rows += zip(ids, probabilities.tolist(), strict=True)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather the predictions of all ranks, and write the file on rank 0.

        Raises:
            RobustTuneError: The file cannot be written.
        """
        assert isinstance(pl_module, RobustTask)
        mine, self.rows = self.rows, []
        on_rank_zero(mine, lambda parts: self._write(trainer, pl_module, interleave(parts)))

    def _write(self, trainer: Trainer, task: RobustTask, rows: Rows) -> None:
        if trainer.ckpt_path is None:
            return
        path = run_folder_of(trainer.ckpt_path) / "report" / "predictions.csv"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(["id", "prediction", *map(csv_cell, task.classifier.class_names)])
                for sample_id, probabilities in rows:
                    texts = map(csv_cell, (sample_id, _prediction(probabilities, task)))
                    writer.writerow([*texts, *(f"{p:.6g}" for p in probabilities)])
        except OSError as error:
            raise RobustTuneError(
                f"{path} cannot be written ({error.strerror}), and the previous one is unchanged: make room, and again"
            ) from error
        print_line(f"{counted(len(rows), 'prediction')} written to {path}")


def _prediction(probabilities: list[float], task: RobustTask) -> str:
    names = task.classifier.class_names
    if task.facts.multilabel:
        return "|".join(name for name, p in zip(names, probabilities, strict=True) if p >= 0.5)
    return names[max(range(len(names)), key=probabilities.__getitem__)]


def interleave(parts: list[Rows]) -> Rows:
    """Merge the rows of all ranks into the order of the data set. Each sample appears once.

    The ranks take samples alternately, and the last ones may be repeated as padding.

    Args:
        parts: Rows of each rank, pairs of sample id and class probabilities.

    Example:
        >>> interleave([[("a", [1.0]), ("c", [0.5])], [("b", [0.0]), ("a", [1.0])]])
        [('a', [1.0]), ('b', [0.0]), ('c', [0.5])]
    """
    longest = max(map(len, parts))
    ordered = [part[i] for i in range(longest) for part in parts if i < len(part)]
    return list(dict(ordered).items())
