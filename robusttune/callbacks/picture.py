"""A picture of a test: some samples, and the predictions for them under several conditions."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import numpy as np
import pyarrow as pa
from PIL import Image

from robusttune.data import ImageTextDataModule
from robusttune.data.images import UnreadableImageError
from robusttune.data.row_images import row_images
from robusttune.evaluation import ConditionMetrics
from robusttune.evaluation.bootstrap import id_hashes
from robusttune.evaluation.cards import Card, Prediction, draw_cards
from robusttune.evaluation.classes import Classes, Shown
from robusttune.evaluation.drawing import tiled
from robusttune.evaluation.sample_text import evenly_spaced, names_or_none
from robusttune.predictions import predicted_classes, probabilities

SAMPLES, CONDITIONS = 12, 3  # largest numbers that fit into a picture


def chosen_predictions(data: ImageTextDataModule, metrics: ConditionMetrics) -> dict[int, list[Prediction]]:
    """Choose samples for a picture, spread evenly over the evaluated samples of the test split.

    Every rank must call this.

    Args:
        data: Data module with a test split.
        metrics: Metrics of the test.

    Returns:
        Predictions under the first `CONDITIONS` conditions for up to `SAMPLES` samples, by row in the test split.
    """
    table = data.records("test")
    assert table is not None
    ids = table["id"].to_pylist()
    evaluated = np.flatnonzero(np.isin(id_hashes(ids), metrics.own.of_all))
    rows = [int(evaluated[number]) for number in evenly_spaced(len(evaluated), SAMPLES)]
    labels = table["labels"].take(pa.array(rows, pa.int64())).to_pylist()
    picked = metrics.picked([ids[row] for row in rows], CONDITIONS)
    return {
        row: [
            _prediction(name, shown[ids[row]], own_labels, metrics.classes)
            for name, shown in zip(metrics.conditions.names, picked, strict=False)
        ]
        for row, own_labels in zip(rows, labels, strict=True)
    }


def draw(data: ImageTextDataModule, predictions: Mapping[int, list[Prediction]], checkpoint: str) -> Image.Image:
    """Draw samples, which are not selected by hand, with a checkpoint's predictions.

    Args:
        data: Data module with a test split.
        predictions: Predictions for each sample, by row in the test split, see `chosen_predictions`.
        checkpoint: Path of the checkpoint, for the title.
    """
    return draw_cards(cards_of(data, predictions), title=f"test: {checkpoint}")


def cards_of(data: ImageTextDataModule, predictions: Mapping[int, list[Prediction]]) -> list[Card]:
    """Return a card for each sample. See `draw` for the arguments."""
    table = data.records("test")
    assert table is not None
    shown = table.take(pa.array([*predictions], pa.int64()))
    return [
        Card(_read(data, images), record["text"], names_or_none(record["labels"]), found)
        for record, images, found in zip(shown.to_pylist(), row_images(shown), predictions.values(), strict=True)
    ]


def _prediction(condition: str, shown: Shown, labels: list[str], classes: Classes) -> Prediction:
    """Return the prediction for one sample."""
    logits = shown.unknown[0]
    is_predicted = predicted_classes(shown.unknown, classes.multilabel, shown.cuts)[0]
    order = logits.argsort(descending=True, stable=True).tolist()
    predicted = [classes.names[index] for index in order if is_predicted[index]]
    highest = float(probabilities(logits, classes.multilabel).max())
    return Prediction(condition, names_or_none(predicted), highest, {*predicted} == {*labels})


def _read(data: ImageTextDataModule, names: list[str]) -> Image.Image | None:
    """Return the readable images of a sample, tiled; None without any."""
    images = []
    for name in names:
        with suppress(UnreadableImageError):
            images.append(data.source.images.read(name))
    return tiled(images) if images else None
