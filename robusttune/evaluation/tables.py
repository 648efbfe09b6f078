"""Tables of test results, with one row per sample or one row per class."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import pyarrow as pa
import torch
from torch import Tensor

from robusttune.evaluation.by_condition import ConditionMetrics
from robusttune.evaluation.metrics import Measured
from robusttune.evaluation.outcomes import Outcomes, chances


def sample_tables(metrics: ConditionMetrics) -> Iterator[pa.Table]:
    """Yield a table of this rank's samples for each condition, with one row per sample, sorted by id.

    All tables have the columns ``condition``, ``id``, ``image_present``, ``text_present``, ``label`` and
    ``prediction``. In multi-class data there are also ``confidence`` (the probability of the prediction),
    ``label_probability`` and ``label_rank``, from 1. In multi-label data there is also ``probabilities``, in the order
    of the class names in the table's metadata.

    If there are base and new classes, all classes are candidates in these columns, and there are two more: ``base``
    says whether the label is a base class, and ``prediction_in_group`` is the prediction among the base classes only,
    or among the new classes only, whichever the label belongs to.

    Args:
        metrics: Metrics after `ConditionMetrics.compute`.
    """
    own, classes = metrics.own, metrics.classes
    names, ids = pa.array(classes.names, pa.string()), pa.array(own.sample_id, pa.string())
    metadata = json.dumps({"multilabel": classes.multilabel, "class_names": classes.names}).encode()
    present = torch.stack([torch.stack(view.present(*own.present.T), 1) for view in metrics.conditions.views])
    for number, (condition, measured) in enumerate(metrics.measured.items()):
        parts = []
        for rows, probabilities in _probabilities(metrics, number):
            image, text = present[own.views[number, rows].long(), torch.arange(len(ids))[rows]].T
            count = len(image)
            about = {
                "condition": pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), [condition]),
                "id": ids.slice(rows.start, count),
                "image_present": pa.array(image.numpy()),
                "text_present": pa.array(text.numpy()),
            }
            of_outcomes = _columns(measured.outcomes, own.label, classes.base, names, rows)
            parts.append(pa.table(about | of_outcomes | probabilities))
        yield pa.concat_tables(parts).sort_by("id").replace_schema_metadata({b"robusttune": metadata})


def _probabilities(metrics: ConditionMetrics, condition: int) -> Iterator[tuple[slice, dict[str, pa.Array]]]:
    """Yield ranges of this rank's samples, with the column of all probabilities in multi-label data."""
    if not metrics.classes.multilabel:
        yield slice(0, len(metrics.own.sample_id)), {}
        return
    done = 0
    for shown in metrics.blocks(condition):
        values = chances(shown.unknown, multilabel=True)
        offsets = torch.arange(len(values) + 1, dtype=torch.int32) * values.shape[1]
        lists = pa.ListArray.from_arrays(pa.array(offsets.numpy()), pa.array(values.flatten().numpy()))
        yield slice(done, done + len(values)), {"probabilities": lists}
        done += len(values)


def _columns(outcomes: Outcomes, label: Tensor, base: Tensor, names: pa.Array, rows: slice) -> dict[str, pa.Array]:
    """Return the columns of labels and predictions of some samples.

    Args:
        outcomes: Outcomes of N samples.
        label: Labels of the samples, shape (N,) or (N, C).
        base: Mask of the base classes, shape (C,), bool.
        names: Names of the C classes.
        rows: Range of samples.
    """
    own_label = label[rows]
    if label.dim() == 2:
        ends = torch.tensor([rows.start, rows.stop], dtype=torch.int32)
        own = slice(*torch.searchsorted(outcomes.rows, ends).tolist())
        pairs = torch.stack([outcomes.rows[own] - rows.start, outcomes.predicted[own]], 1)
        return {
            "label": _lists(own_label.nonzero(), len(own_label), names),
            "prediction": _lists(pairs, len(own_label), names),
        }
    found = {
        "label": names.take(pa.array(own_label.numpy())),
        "prediction": names.take(pa.array(outcomes.predicted[rows].numpy())),
        "confidence": pa.array(outcomes.details["confidence"][rows].numpy()),
        "label_probability": pa.array((-outcomes.values["loss"][rows]).exp().numpy()),
        "label_rank": pa.array(outcomes.details["rank"][rows].numpy()),
    }
    if "in_group" in outcomes.details:
        found["base"] = pa.array(base[own_label].numpy())
        found["prediction_in_group"] = names.take(pa.array(outcomes.details["in_group"][rows].numpy()))
    return found


def _lists(pairs: Tensor, count: int, names: pa.Array) -> pa.Array:
    """Return a list of class names for each of ``count`` samples, given pairs of sample and class, sorted by sample."""
    rows, classes = pairs.T
    ends = torch.bincount(rows.long(), minlength=count).cumsum(0).int()
    ends = torch.cat([torch.zeros(1, dtype=torch.int32), ends])
    return pa.ListArray.from_arrays(pa.array(ends.numpy()), names.take(pa.array(classes.contiguous().numpy())))


def recalls(measured: Mapping[str, Measured], names: list[str]) -> dict[str, dict[str, float | None]]:
    """Return the recall of each class in [0, 1], by condition and class name; None if no sample has the class.

    Args:
        measured: Results by condition.
        names: Names of the classes.
    """
    found: dict[str, dict[str, float | None]] = {}
    for row in class_rows(measured, names):
        recall = float(row["recall"]) if row["samples"] else None
        found.setdefault(str(row["condition"]), {})[str(row["class"])] = recall
    return found


def class_rows(measured: Mapping[str, Measured], names: list[str]) -> Iterator[dict[str, str | int | float]]:
    """Yield one row per condition and class: ``condition``, ``class``, ``samples``, ``precision``, ``recall``, ``f1``.

    ``samples`` is the number of samples of all ranks that have the class. Precision is 0 if the class is never
    predicted, recall is 0 if no sample has it.

    Args:
        measured: Results by condition.
        names: Names of the classes.
    """
    for condition, found in measured.items():
        counts = torch.cat([found.sums.hits, found.sums.predicted, found.sums.actual]).long().T.tolist()
        for name, (both, predictions, samples) in zip(names, counts, strict=True):
            yield {
                "condition": condition,
                "class": name,
                "samples": samples,
                "precision": both / max(predictions, 1),
                "recall": both / max(samples, 1),
                "f1": 2 * both / max(predictions + samples, 1),
            }
