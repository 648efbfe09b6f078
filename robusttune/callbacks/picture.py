"""A picture of what a test found: some samples, and the answers when either side is hidden."""

from __future__ import annotations

from itertools import islice

import pyarrow as pa
from PIL import Image
from torch import Tensor

from robusttune.data import ImageTextDataModule
from robusttune.data.images import UnreadableImageError
from robusttune.evaluation import ConditionMetrics, Scores
from robusttune.evaluation.cards import Answer, Card, draw_cards
from robusttune.evaluation.metrics import probabilities

SAMPLES, CONDITIONS = 12, 3  # that a picture has room for


def draw(data: ImageTextDataModule, metrics: ConditionMetrics, scores: Scores, checkpoint: str) -> Image.Image:
    """Draw samples spread evenly over the test split, not chosen, with the answers of a checkpoint."""
    return draw_cards(cards_of(data, metrics, scores), title=f"test: {checkpoint}")


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
    names, shares = metrics.class_names, probabilities(logits, metrics.multilabel)
    order = shares.argsort(descending=True).tolist()
    said = [names[i] for i in order if shares[i] >= 0.5] if metrics.multilabel else [names[order[0]]]
    return Answer(condition, ", ".join(said) or "none", float(shares[order[0]]), {*said} == {*labels})


def _read(data: ImageTextDataModule, name: str) -> Image.Image | None:
    try:
        return data.source.images.read(name)
    except UnreadableImageError:
        return None
