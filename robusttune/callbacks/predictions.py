"""The output of `predict`: one Parquet file per part of the rows, in the order of the input."""

from __future__ import annotations

import logging
from collections import Counter

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from robusttune.counting import counted
from robusttune.inference.tables.data_module import PredictionData
from robusttune.inference.tables.manifest import cannot_write
from robusttune.inference.tables.plan import unfinished
from robusttune.inference.tables.results import PartWriter
from robusttune.ranks import on_rank_zero
from robusttune.terminal import print_line
from robusttune.types import Batch

log = logging.getLogger(__name__)


class PredictionWriter(Callback):
    """A callback that writes the predictions of each part as soon as all of its rows are predicted.

    Attributes:
        counts: Numbers of predicted rows, of rows that could not be used whole, of rows without both modalities, and of
            texts that were cut, in this process.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._writer: PartWriter | None = None

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: tuple[list[str], Tensor],
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the predictions of a batch to their part, and finish the part after its last row.

        Raises:
            RobustTuneError: The folder cannot be written.
        """
        data = _data_of(trainer)
        probabilities = outputs[1].float().cpu().numpy()
        present = torch.stack([batch.image_present, batch.text_present], 1).cpu().numpy()
        try:
            if self._writer is None:
                self._writer = PartWriter(data.folder, data.pieces.popleft(), data.result_columns)
            unreadable = zip(batch.unreadable_rows, batch.unreadable, strict=True)
            reasons = self._writer.add(probabilities, present, unreadable)
            if self._writer.is_complete:
                self._writer.finish()
                self._writer = None
        except OSError as error:
            raise cannot_write(data.folder, error) from error
        self.counts += Counter(
            rows=len(batch),
            unreadable=sum(map(bool, reasons)),
            neither=int((~present).all(1).sum()),
            cut=len(batch.cut),
        )

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print on rank 0 what all ranks have written."""
        data = _data_of(trainer)
        self._discard()  # A limit such as trainer.limit_predict_batches has ended the run inside a part.

        def report(counts: list[Counter[str]]) -> None:
            """Print the sums over the ranks."""
            found, left = sum(counts, Counter()), len(unfinished(data.folder, data.parts))
            lines = {
                "unreadable": "could not be used whole: the column unreadable has the reasons",
                "neither": "had neither image nor text: the prediction is the class frequencies of training",
                "cut": "had a text that was cut to text_encoder.max_length",
            }
            for name, line in lines.items():
                if found[name]:
                    log.warning("%s %s", counted(found[name], "row"), line)
            state = f"{len(data.parts) - left:,} of {counted(len(data.parts), 'part')} finished"
            print_line(f"{counted(found['rows'], 'prediction')} written to {data.folder}; {state}")

        on_rank_zero(self.counts, report)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the file of a part that is not complete."""
        self._discard()

    def _discard(self) -> None:
        if self._writer is not None:
            self._writer.discard()
            self._writer = None


def _data_of(trainer: Trainer) -> PredictionData:
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, PredictionData)
    return data
