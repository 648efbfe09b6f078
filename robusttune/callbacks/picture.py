"""A picture of a test: some samples, and the predictions for them under several conditions."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice

import pyarrow as pa
from PIL import Image

from robusttune.data import ImageTextDataModule
from robusttune.data.images import UnreadableImageError
from robusttune.data.row_images import row_images
from robusttune.evaluation import ConditionMetrics, Scores
from robusttune.evaluation.by_condition import Shown
from robusttune.evaluation.cards import Card, Prediction, draw_cards
from robusttune.evaluation.drawing import tiled
from robusttune.evaluation.sample_text import evenly_spaced, names_or_none
from robusttune.predictions import predicted_classes, probabilities

SAMPLES, CONDITIONS = 12, 3  # largest numbers that fit into a picture


def draw(data: ImageTextDataModule, metrics: ConditionMetrics, scores: Scores, checkpoint: str) -> Image.Image:
    """Draw samples, spread evenly over the test split and not selected by hand, with a checkpoint's predictions.

    Args:
        data: Data module with a test split.
        metrics: Metrics of the test, which define conditions and classes.
        scores: Logits of all test samples.
        checkpoint: Path of the checkpoint, for the title.
    """
    return draw_cards(cards_of(data, metrics, scores), title=f"test: {checkpoint}")


def cards_of(data: ImageTextDataModule, metrics: ConditionMetrics, scores: Scores) -> list[Card]:
    """Return cards of up to `SAMPLES` samples, spread evenly over the scored samples of the test split.

    Each card has the predictions under the first `CONDITIONS` conditions. See `draw` for the arguments.
    """
    predicted = list(islice(metrics.under_conditions(scores), CONDITIONS))
    table, row_of = data.records("test"), {sample_id: row for row, sample_id in enumerate(scores.sample_id)}
    assert table is not None
    scored = [row for row, sample_id in enumerate(table["id"].to_pylist()) if sample_id in row_of]
    rows = [scored[index] for index in evenly_spaced(len(scored), SAMPLES)]
    shown = table.take(pa.array(rows, pa.int64()))
    return [
        Card(
            image=_read(data, images),
            text=record["text"],
            label=names_or_none(record["labels"]),
            predictions=[_prediction(shown, row_of[record["id"]], record["labels"], metrics) for shown in predicted],
        )
        for record, images in zip(shown.to_pylist(), row_images(shown), strict=True)
    ]


def _prediction(shown: Shown, row: int, labels: list[str], metrics: ConditionMetrics) -> Prediction:
    """Return the prediction for the sample in a row."""
    logits, cuts = shown.unknown[row], shown.cuts if shown.cuts.dim() == 0 else shown.cuts[row]
    is_predicted = predicted_classes(logits.unsqueeze(0), metrics.multilabel, cuts)[0]
    order = logits.argsort(descending=True, stable=True).tolist()
    predicted = [metrics.class_names[index] for index in order if is_predicted[index]]
    highest = float(probabilities(logits, metrics.multilabel).max())
    return Prediction(shown.condition, names_or_none(predicted), highest, {*predicted} == {*labels})


def _read(data: ImageTextDataModule, names: list[str]) -> Image.Image | None:
    """Return the readable images of a sample, tiled; None without any."""
    images = []
    for name in names:
        with suppress(UnreadableImageError):
            images.append(data.source.images.read(name))
    return tiled(images) if images else None
