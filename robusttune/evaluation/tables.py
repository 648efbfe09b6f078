"""What a test found, sample by sample and class by class, as tables."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional

from robusttune.evaluation.by_condition import ConditionMetrics
from robusttune.evaluation.metrics import label_ranks, predicted_classes, sample_losses
from robusttune.evaluation.scores import Scores
from robusttune.types import View


def sample_tables(metrics: ConditionMetrics, scores: Scores) -> Iterator[pa.Table]:
    """Condition by condition a table with a row a sample.

    Columns are ``condition``, ``id``, ``image_shown``, ``text_shown``, ``label`` and ``prediction``; of one label a
    sample, ``confidence`` (the probability of the prediction), ``label_probability`` and ``label_rank``, from 1; of
    several, ``probabilities``, in the order of the classes that the metadata names.
    """
    names = pa.array(metrics.class_names, pa.string())
    about = {"multilabel": metrics.multilabel, "class_names": metrics.class_names}
    columns = _multilabel_columns if metrics.multilabel else _multiclass_columns
    ids = pa.array(scores.sample_id, pa.string())
    shown = torch.stack([torch.stack(_shown(scores.present, view), 1) for view in metrics.conditions.views])
    seen, rows = torch.from_numpy(metrics.conditions.seen(scores.sample_id)), torch.arange(len(ids))
    for (condition, _, logits), views in zip(metrics.under_conditions(scores), seen, strict=True):
        image, text = shown[views, rows].T
        which = pa.DictionaryArray.from_arrays(pa.array([0] * len(ids), pa.int32()), pa.array([condition]))
        table = pa.table(
            {"condition": which, "id": ids}
            | {"image_shown": pa.array(image.numpy()), "text_shown": pa.array(text.numpy())}
            | columns(logits, scores.label, names)
        )
        yield table.replace_schema_metadata({b"robusttune": json.dumps(about).encode()})


def _shown(present: Tensor, view: View) -> tuple[Tensor, Tensor]:
    """(N,) each, whether samples show their image, and their text."""
    return present[:, 0] & (view.image is not None), present[:, 1] & (view.text is not None)


def _multiclass_columns(logits: Tensor, label: Tensor, names: pa.Array) -> dict[str, pa.Array]:
    said = logits.argmax(1)  # of probabilities it may be another: rounding makes some alike
    confidence = logits.softmax(1).gather(1, said.unsqueeze(1)).squeeze(1)
    return {
        "label": names.take(pa.array(label.numpy())),
        "prediction": names.take(pa.array(said.numpy())),
        "confidence": pa.array(confidence.numpy()),
        "label_probability": pa.array((-sample_losses(logits, label)).exp().numpy()),
        "label_rank": pa.array(label_ranks(logits, label).int().numpy()),
    }


def _multilabel_columns(logits: Tensor, label: Tensor, names: pa.Array) -> dict[str, pa.Array]:
    shares = logits.sigmoid()
    of_samples = torch.arange(len(shares) + 1, dtype=torch.int32) * shares.shape[1]
    return {
        "label": _names_in(label.bool(), names),
        "prediction": _names_in(predicted_classes(logits, multilabel=True), names),
        "probabilities": pa.ListArray.from_arrays(pa.array(of_samples.numpy()), pa.array(shares.flatten().numpy())),
    }


def _names_in(chosen: Tensor, names: pa.Array) -> pa.Array:
    """Lists of the names that are chosen, of (N, C) bool."""
    ends = torch.cat([torch.zeros(1, dtype=torch.int64), chosen.sum(1).cumsum(0)]).int()
    return pa.ListArray.from_arrays(pa.array(ends.numpy()), names.take(pa.array(chosen.nonzero()[:, 1].numpy())))


def class_rows(metrics: ConditionMetrics, scores: Scores) -> Iterator[dict[str, str | int | float]]:
    """A row a condition and class: how many ``samples`` have it, and its ``precision``, ``recall`` and ``f1``.

    Precision is 0 where the class is never said, recall where no sample has it.
    """
    label = scores.label if metrics.multilabel else functional.one_hot(scores.label, len(metrics.class_names))
    hot = label.bool()
    for condition, _, logits in metrics.under_conditions(scores):
        said = predicted_classes(logits, metrics.multilabel)
        counts = torch.stack([(said & hot).sum(0), said.sum(0), hot.sum(0)], 1).tolist()
        for name, (both, says, has) in zip(metrics.class_names, counts, strict=True):
            yield {
                "condition": condition,
                "class": name,
                "samples": has,
                "precision": both / max(says, 1),
                "recall": both / max(has, 1),
                "f1": 2 * both / max(says + has, 1),
            }
