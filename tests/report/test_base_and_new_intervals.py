"""Base and new accuracy are resampled from the predictions of a test, as the metrics are computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from fakes import FACTS

from robusttune.callbacks.report_files import write_samples
from robusttune.corruption.conditions import Conditions
from robusttune.evaluation import ConditionMetrics
from robusttune.evaluation.bootstrap import id_hashes, poisson_weights
from robusttune.evaluation.tables import sample_tables
from robusttune.report.predictions import Predictions, read_predictions
from robusttune.report.resample import resampled

SAMPLES, BASE, CLASSES = 60, ["a", "b", "c"], ["a", "b", "c", "d", "e"]


@pytest.fixture(scope="module")
def metrics() -> ConditionMetrics:
    """Metrics of random predictions for base and new classes, where the model prefers base classes."""
    facts = FACTS._replace(class_names=BASE, class_frequencies=[1 / 3] * 3, multilabel=False)
    found = ConditionMetrics(facts, Conditions(["complete", "no_text"]), CLASSES)
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(SAMPLES) % 5
    logits = torch.randn(2, SAMPLES, 5, generator=generator) + torch.nn.functional.one_hot(label, 5)
    logits[..., :3] += 2
    unknown = logits - torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0])
    present = torch.ones(SAMPLES, 2, dtype=torch.bool)
    found.update([f"s{i:02}" for i in range(SAMPLES)], label, present, logits, unknown)
    found.compute()
    return found


@pytest.fixture(scope="module")
def predictions(metrics: ConditionMetrics, tmp_path_factory: pytest.TempPathFactory) -> Predictions:
    folder = tmp_path_factory.mktemp("test")
    write_samples(folder / "00000.parquet", sample_tables(metrics))
    return read_predictions(folder)


def test_columns_of_samples(metrics: ConditionMetrics, predictions: Predictions) -> None:
    rows = [row for row in predictions.table.to_pylist() if row["condition"] == "complete"]
    assert all(row["base"] == (row["label"] in BASE) == (row["prediction_in_group"] in BASE) for row in rows)
    for name, kept in (("base_accuracy", True), ("new_accuracy", False)):
        right = [row["prediction_in_group"] == row["label"] for row in rows if row["base"] == kept]
        assert np.mean(right) == pytest.approx(metrics.values[f"complete/{name}"])
    assert np.mean([row["prediction"] == row["label"] for row in rows]) == pytest.approx(
        metrics.values["complete/unknown_accuracy"]
    )


@pytest.mark.parametrize("metric", ["base_accuracy", "new_accuracy", "harmonic_mean"])
def test_resampled_metrics(metrics: ConditionMetrics, predictions: Predictions, metric: str) -> None:
    found = resampled(predictions, metric)
    assert found is not None
    hashes = id_hashes([f"s{i:02}" for i in range(SAMPLES)])
    weights = poisson_weights(hashes, 0, 1000, seed=int(predictions.samples[:8], 16)).numpy().T.astype(float)
    for column, condition in enumerate(predictions.conditions):
        rows = sorted(
            (row for row in predictions.table.to_pylist() if row["condition"] == condition), key=lambda row: row["id"]
        )
        right = np.array([row["prediction_in_group"] == row["label"] for row in rows])
        base = np.array([row["base"] for row in rows])
        b, n = ((weights[:, kept] @ right[kept]) / weights[:, kept].sum(1) for kept in (base, ~base))
        expected = {"base_accuracy": b, "new_accuracy": n, "harmonic_mean": 2 / (1 / b + 1 / n)}[metric]
        assert found[:, column].numpy() == pytest.approx(expected)
        assert found[:, column].mean().item() == pytest.approx(metrics.values[f"{condition}/{metric}"], abs=0.02)


def test_predictions_without_the_group_have_no_resamples(predictions: Predictions, tmp_path: Path) -> None:
    pq.write_table(predictions.table.drop_columns(["base", "prediction_in_group"]), tmp_path / "00000.parquet")
    assert resampled(read_predictions(tmp_path), "new_accuracy") is None
