"""Tables of test results, with one row per sample or one row per class."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional

from robusttune.evaluation.by_condition import ConditionMetrics
from robusttune.evaluation.per_sample import label_ranks, sample_losses
from robusttune.evaluation.scores import Scores
from robusttune.predictions import predicted_classes


def sample_tables(metrics: ConditionMetrics, scores: Scores) -> Iterator[pa.Table]:
    """Yield a table for each condition, with one row per sample.

    All tables have the columns ``condition``, ``id``, ``image_present``, ``text_present``, ``label`` and
    ``prediction``. In multi-class data there are also ``confidence`` (the probability of the prediction),
    ``label_probability`` and ``label_rank``, from 1. In multi-label data there is also ``probabilities``, in the order
    of the class names in the table's metadata.

    If there are base and new classes, all classes are candidates in these columns, and there are two more: ``base``
    says whether the label is a base class, and ``prediction_in_group`` is the prediction among the base classes only,
    or among the new classes only, whichever the label belongs to.

    Args:
        metrics: Metrics that hold the conditions and the class names.
        scores: Predictions of all samples.
    """
    names = pa.array(metrics.class_names, pa.string())
    metadata = {"multilabel": metrics.multilabel, "class_names": metrics.class_names}
    columns = _multilabel_columns if metrics.multilabel else _multiclass_columns
    ids = pa.array(scores.sample_id, pa.string())
    present = torch.stack([torch.stack(view.present(*scores.present.T), 1) for view in metrics.conditions.views])
    rows = torch.arange(len(ids))
    view_indices = torch.from_numpy(metrics.conditions.view_indices(scores.sample_id))
    for (condition, known, logits), views in zip(metrics.under_conditions(scores), view_indices, strict=True):
        image, text = present[views, rows].T
        condition_column = pa.DictionaryArray.from_arrays(pa.array([0] * len(ids), pa.int32()), pa.array([condition]))
        table = pa.table(
            {"condition": condition_column, "id": ids}
            | {"image_present": pa.array(image.numpy()), "text_present": pa.array(text.numpy())}
            | columns(logits, scores.label, names)
            | (_group_columns(known, scores.label, metrics.base, names) if metrics.mixed else {})
        )
        yield table.replace_schema_metadata({b"robusttune": json.dumps(metadata).encode()})


def _multiclass_columns(logits: Tensor, label: Tensor, names: pa.Array) -> dict[str, pa.Array]:
    # The argmax of probabilities may be another class, because rounding makes some of them equal.
    predicted = logits.argmax(1)
    confidence = logits.softmax(1).gather(1, predicted.unsqueeze(1)).squeeze(1)
    return {
        "label": names.take(pa.array(label.numpy())),
        "prediction": names.take(pa.array(predicted.numpy())),
        "confidence": pa.array(confidence.numpy()),
        "label_probability": pa.array((-sample_losses(logits, label)).exp().numpy()),
        "label_rank": pa.array(label_ranks(logits, label).int().numpy()),
    }


def _group_columns(logits: Tensor, label: Tensor, base: Tensor, names: pa.Array) -> dict[str, pa.Array]:
    """Return the columns of tests with base and new classes.

    Args:
        logits: Class scores, shape (N, C).
        label: Class indices, shape (N,).
        base: Mask of the base classes, shape (C,), bool.
        names: Names of the C classes.
    """
    in_group = base.unsqueeze(0) == base[label].unsqueeze(1)
    predicted = logits.masked_fill(~in_group, -torch.inf).argmax(1)
    return {"base": pa.array(base[label].numpy()), "prediction_in_group": names.take(pa.array(predicted.numpy()))}


def _multilabel_columns(logits: Tensor, label: Tensor, names: pa.Array) -> dict[str, pa.Array]:
    values = logits.sigmoid()
    offsets = torch.arange(len(values) + 1, dtype=torch.int32) * values.shape[1]
    return {
        "label": _names_in(label.bool(), names),
        "prediction": _names_in(predicted_classes(logits, multilabel=True), names),
        "probabilities": pa.ListArray.from_arrays(pa.array(offsets.numpy()), pa.array(values.flatten().numpy())),
    }


def _names_in(chosen: Tensor, names: pa.Array) -> pa.Array:
    """Return a list of class names per sample, given a mask of the chosen classes, shape (N, C), bool."""
    ends = torch.cat([torch.zeros(1, dtype=torch.int64), chosen.sum(1).cumsum(0)]).int()
    return pa.ListArray.from_arrays(pa.array(ends.numpy()), names.take(pa.array(chosen.nonzero()[:, 1].numpy())))


def recalls(metrics: ConditionMetrics, scores: Scores) -> dict[str, dict[str, float | None]]:
    """Return the recall of each class in [0, 1], by condition and class name; None if no sample has the class.

    Args:
        metrics: Metrics that hold the conditions and the class names.
        scores: Predictions of all samples.
    """
    found: dict[str, dict[str, float | None]] = {}
    for row in class_rows(metrics, scores):
        recall = float(row["recall"]) if row["samples"] else None
        found.setdefault(str(row["condition"]), {})[str(row["class"])] = recall
    return found


def class_rows(metrics: ConditionMetrics, scores: Scores) -> Iterator[dict[str, str | int | float]]:
    """Yield one row per condition and class: ``condition``, ``class``, ``samples``, ``precision``, ``recall``, ``f1``.

    ``samples`` is the number of samples that have the class. Precision is 0 if the class is never predicted, recall is
    0 if no sample has it.

    Args:
        metrics: Metrics that hold the conditions and the class names.
        scores: Predictions of all samples.
    """
    label = scores.label if metrics.multilabel else functional.one_hot(scores.label, len(metrics.class_names))
    actual = label.bool()
    for condition, _, logits in metrics.under_conditions(scores):
        predicted = predicted_classes(logits, metrics.multilabel)
        counts = torch.stack([(predicted & actual).sum(0), predicted.sum(0), actual.sum(0)], 1).tolist()
        for name, (both, predictions, samples) in zip(metrics.class_names, counts, strict=True):
            yield {
                "condition": condition,
                "class": name,
                "samples": samples,
                "precision": both / max(predictions, 1),
                "recall": both / max(samples, 1),
                "f1": 2 * both / max(predictions + samples, 1),
            }
