"""A picture of what a test found: some samples, and the answers when either side is hidden."""

from __future__ import annotations

from itertools import islice

import pyarrow as pa
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor

from robusttune.callbacks.run_folder import run_folder_of
from robusttune.data import ImageTextDataModule
from robusttune.data.images import UnreadableImageError
from robusttune.evaluation import ConditionMetrics, Scores
from robusttune.evaluation.cards import Answer, Card, draw_cards
from robusttune.evaluation.metrics import shares_of
from robusttune.paths import whole_file
from robusttune.tasks import RobustTask
from robusttune.terminal import say

SAMPLES, CONDITIONS = 12, 3  # that a picture has room for


class SamplePicture(Callback):
    """Draws ``report/test.png`` beside the checkpoint: samples spread evenly over the test split, not chosen."""

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(pl_module, RobustTask)
        metrics, scores = pl_module.metrics, pl_module.metrics.gathered
        if trainer.ckpt_path is None or scores is None or not isinstance(data, ImageTextDataModule):
            return
        sheet = draw_cards(cards_of(data, metrics, scores), title=f"test: {trainer.ckpt_path}")
        path = run_folder_of(trainer.ckpt_path) / "report" / "test.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            sheet.save(partial, format="PNG")
        say(f"Samples and answers drawn in {path}")


def cards_of(data: ImageTextDataModule, metrics: ConditionMetrics, scores: Scores) -> list[Card]:
    """Evenly spread over those of the test split that were scored."""
    shown = list(islice(metrics.under_conditions(scores), CONDITIONS))
    table, row_of = data.records("test"), {sample_id: row for row, sample_id in enumerate(scores.sample_id)}
    assert table is not None
    scored = [row for row, sample_id in enumerate(table["id"].to_pylist()) if sample_id in row_of]
    step = max(1, len(scored) / SAMPLES)
    rows = [scored[int(number * step)] for number in range(min(SAMPLES, len(scored)))]
    return [
        Card(
            image=None if record["image"] is None else _read(data, record["image"]),
            text=record["text"],
            label=", ".join(record["labels"]),
            answers=[
                _answer(condition, logits[row_of[record["id"]]], record["labels"], metrics)
                for condition, _, logits in shown
            ],
        )
        for record in table.take(pa.array(rows, pa.int64())).to_pylist()
    ]


def _answer(condition: str, logits: Tensor, labels: list[str], metrics: ConditionMetrics) -> Answer:
    """Of a sample's logits (C,)."""
    names, shares = metrics.class_names, shares_of(logits, metrics.multilabel)
    order = shares.argsort(descending=True).tolist()
    said = [names[i] for i in order if shares[i] >= 0.5] if metrics.multilabel else [names[order[0]]]
    return Answer(condition, ", ".join(said) or "none", float(shares[order[0]]), {*said} == {*labels})


def _read(data: ImageTextDataModule, name: str) -> Image.Image | None:
    try:
        return data.source.images.read(name)
    except UnreadableImageError:
        return None
