"""Bootstrap distributions of metrics over test samples, for paired differences between runs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from robusttune.evaluation.bootstrap import id_hashes
from robusttune.evaluation.classes import Classes
from robusttune.evaluation.intervals import bootstrapped
from robusttune.evaluation.outcomes import Outcomes, group_values
from robusttune.evaluation.per_sample import samples_f1
from robusttune.report.predictions import Predictions

TOP = 5


def resampled(predictions: Predictions, metric: str) -> Tensor | None:
    """Bootstrap a metric over the test samples of a run.

    The resamples depend on the test samples alone, so runs on the same samples have the same resamples and their
    differences are paired. Runs on other samples have independent resamples.

    Args:
        predictions: Predictions for N samples under K conditions.
        metric: Name of the metric.

    Returns:
        Metric of each resample under each condition, shape (resamples, K), float64; None if the metric cannot be
        computed from the predictions for single samples.
    """
    in_groups = metric in ("base_accuracy", "new_accuracy", "harmonic_mean")
    if in_groups and "prediction_in_group" not in predictions.table.column_names:
        return None
    # Only `Classes.mixed` matters of the mask: metrics of base and new classes follow from columns of the predictions.
    base = torch.arange(len(predictions.class_names)) < (1 if in_groups else len(predictions.class_names))
    classes = Classes(predictions.class_names, base, predictions.multilabel)
    outcomes = {name: _outcomes(predictions, number, metric) for number, name in enumerate(predictions.conditions)}
    label = torch.from_numpy(predictions.label)
    seed = int(predictions.samples[:8], 16)  # independent of that of other samples, even of samples with the same ids
    values = bootstrapped(outcomes, label, id_hashes(predictions.ids), classes, seed=seed)
    found = [row[metric] for row in values.values() if metric in row]
    return torch.stack(found, 1) if found else None


def _outcomes(predictions: Predictions, condition: int, metric: str) -> Outcomes:
    """Return the outcomes of the samples under a condition, with the values that a metric needs."""
    label, predicted = torch.from_numpy(predictions.label), torch.from_numpy(predictions.prediction[condition])
    if predictions.multilabel:
        rows, classes = predicted.nonzero().T
        return Outcomes(rows.int(), classes, label[rows, classes], {"f1_samples": samples_f1(predicted, label)}, {})
    rows, hits = torch.arange(len(label), dtype=torch.int32), predicted == label
    values = {"accuracy": hits, "unknown_accuracy": hits}
    if metric == f"top{TOP}_accuracy":
        values = {metric: torch.from_numpy(predictions.column("label_rank")[condition] <= TOP)}
    if metric in ("base_accuracy", "new_accuracy", "harmonic_mean"):
        in_base, in_group, true = (
            predictions.column(name)[condition] for name in ("base", "prediction_in_group", "label")
        )
        right = torch.from_numpy(np.asarray(in_group == true))
        values = group_values(torch.from_numpy(in_base.astype(bool)), right)
    return Outcomes(rows, predicted, hits, values, {})
