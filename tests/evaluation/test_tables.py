"""Tables of samples and of classes, against scikit-learn and row by row."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from fakes import FACTS
from sklearn.metrics import precision_recall_fscore_support
from torch import Tensor

from robusttune.corruption.conditions import Conditions
from robusttune.evaluation import ConditionMetrics, Scores
from robusttune.evaluation.tables import class_rows, sample_tables

IDS = [f"sample {i:02}" for i in range(50)]
NAMES = ["complete", "missing_both_40", "noisy_image_blur_3+no_text"]
CONDITIONS = Conditions(NAMES)


def measured(multilabel: bool, seed: int = 0) -> tuple[ConditionMetrics, Scores]:
    """Return metrics of random predictions. Some samples lack a modality; the model never predicts the last class."""
    generator = torch.Generator().manual_seed(seed)
    facts = FACTS._replace(class_names=["a", "b", "ü, c", "d"], class_frequencies=[0.25] * 4, multilabel=multilabel)
    metrics = ConditionMetrics(facts, CONDITIONS)
    logits = torch.randn(len(CONDITIONS.views), 50, 4, generator=generator) - torch.tensor([0, 0, 0, 9])
    logits[:, 5] = 0.0  # all alike
    label = torch.arange(50) % 3
    if multilabel:
        label = (torch.rand(50, 4, generator=generator) < torch.tensor([0.5, 0.3, 0.5, 0.0])).float()
    present = torch.rand(50, 2, generator=generator) < 0.8
    metrics.update(IDS, label, present, logits)
    metrics.compute()
    return metrics, Scores(IDS, label, present, logits, logits)


def expected_view(condition: str, row: int) -> int:
    return int(CONDITIONS.view_indices(IDS)[NAMES.index(condition), row])


def samples_of(metrics: ConditionMetrics) -> dict[str, list[dict[str, Any]]]:
    """By condition the rows, as anybody reads them."""
    tables = list(sample_tables(metrics))
    assert all(table.schema == tables[0].schema for table in tables)
    about = json.loads(tables[0].schema.metadata[b"robusttune"])
    assert about == {"multilabel": metrics.classes.multilabel, "class_names": metrics.classes.names}
    found = {table["condition"][0].as_py(): table.to_pylist() for table in tables}
    for name, rows in found.items():
        assert {row["condition"] for row in rows} == {name}
        assert [row["id"] for row in rows] == IDS
    return found


@pytest.mark.parametrize("multilabel", [False, True])
def test_a_modality_is_shown_if_it_is_present_and_not_hidden(multilabel: bool) -> None:
    metrics, scores = measured(multilabel)
    found = samples_of(metrics)
    assert [*found] == NAMES
    for name, rows in found.items():
        for number, row in enumerate(rows):
            view = CONDITIONS.views[expected_view(name, number)]
            image, text = scores.present[number].tolist()
            assert row["image_present"] == (image and view.image is not None)
            assert row["text_present"] == (text and view.text is not None)
    assert not any(row["text_present"] for row in found[NAMES[2]])


def test_columns_of_one_label_a_sample() -> None:
    metrics, scores = measured(multilabel=False)
    for name, rows in samples_of(metrics).items():
        for number, row in enumerate(rows):
            logits = scores.logits[expected_view(name, number), number]
            probabilities, label = logits.softmax(0), int(scores.label[number])
            predicted = int(logits.argmax())
            assert row["label"] == metrics.classes.names[label]
            assert row["prediction"] == metrics.classes.names[predicted]
            assert row["confidence"] == pytest.approx(float(probabilities[predicted]))
            assert row["label_probability"] == pytest.approx(float(probabilities[label]))
            order = sorted(range(len(logits)), key=lambda number: (-logits[number], number))  # of equal ones the first
            assert row["label_rank"] == 1 + order.index(label)
        right = sum(row["prediction"] == row["label"] for row in rows)
        assert right / 50 == pytest.approx(metrics.values[f"{name}/accuracy"])


def test_columns_of_several_labels_a_sample() -> None:
    metrics, scores = measured(multilabel=True)
    for name, rows in samples_of(metrics).items():
        for number, row in enumerate(rows):
            probabilities = scores.logits[expected_view(name, number), number].sigmoid()
            assert row["probabilities"] == pytest.approx(probabilities.tolist())
            assert row["label"] == names_where(metrics, scores.label[number] > 0)
            assert row["prediction"] == names_where(metrics, probabilities >= 0.5)


def names_where(metrics: ConditionMetrics, chosen: Tensor) -> list[str]:
    return [name for name, kept in zip(metrics.classes.names, chosen.tolist(), strict=True) if kept]


@pytest.mark.parametrize("multilabel", [False, True])
def test_classes(multilabel: bool) -> None:
    metrics, scores = measured(multilabel)
    rows = list(class_rows(metrics.measured, metrics.classes.names))
    assert [(row["condition"], row["class"]) for row in rows] == [(n, c) for n in NAMES for c in metrics.classes.names]
    for condition, name in enumerate(NAMES):
        views = torch.tensor([expected_view(name, number) for number in range(50)])
        logits = scores.logits[views, torch.arange(50)]
        predicted = logits.sigmoid() >= 0.5 if multilabel else logits.argmax(1)
        label = scores.label.bool() if multilabel else scores.label
        expected = precision_recall_fscore_support(label, predicted, labels=range(4), average=None, zero_division=0)
        for row, *values in zip(rows[4 * condition : 4 * condition + 4], *expected, strict=True):
            assert [row[key] for key in ("precision", "recall", "f1", "samples")] == pytest.approx(values)
    assert rows[3]["precision"] == rows[3]["recall"] == rows[3]["f1"] == 0  # neither predicted nor true


def test_predictions_that_differ_only_in_the_last_digit() -> None:
    """Rounding in a softmax or sigmoid changes no prediction: tables and metrics say the same of a sample."""
    label, present = torch.tensor([1, 0]), torch.ones(2, 2, dtype=torch.bool)
    logits = torch.tensor([[0.1, 0.10000001], [30.0, 30.000002]]).expand(len(CONDITIONS.views), 2, 2)
    assert (logits.softmax(2)[0, 0] == 0.5).all()
    metrics = ConditionMetrics(FACTS._replace(class_names=["a", "b"]), CONDITIONS)
    metrics.update(IDS[:2], label, present, logits)
    assert metrics.compute()["complete/accuracy"] == 0.5
    table = next(iter(sample_tables(metrics)))
    assert table["prediction"].to_pylist() == ["b", "b"]
    several = ConditionMetrics(FACTS._replace(class_names=["a", "b"], multilabel=True), CONDITIONS)
    tiny = torch.tensor([[-1e-9, 1.0], [1e-9, 0.0]]).expand(len(CONDITIONS.views), 2, 2)
    several.update(IDS[:2], torch.ones(2, 2), present, tiny)
    found = several.compute()
    predicted = next(iter(sample_tables(several)))["prediction"].to_pylist()
    recalls: list[Any] = [row["recall"] for row in class_rows(several.measured, several.classes.names)][:2]
    assert recalls == [sum(name in names for names in predicted) / 2 for name in ("a", "b")]
    assert found["complete/f1_macro"] == pytest.approx(sum(2 * recall / (1 + recall) for recall in recalls) / 2)
