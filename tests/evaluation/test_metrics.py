"""Metrics against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes import FACTS
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, log_loss

from robusttune.evaluation import ConditionMetrics
from robusttune.types import CONDITIONS


def test_multiclass() -> None:
    torch.manual_seed(0)
    metrics, label = ConditionMetrics(FACTS), torch.randint(3, (40,))
    logits = {c.name: torch.randn(40, 3) for c in CONDITIONS}
    for name, values in logits.items():
        for part in (slice(0, 25), slice(25, 40)):  # uneven batches
            metrics.update(name, values[part], label[part])
    found = metrics.compute()
    for name, values in logits.items():
        guess = values.argmax(1)
        assert found[f"{name}/accuracy"] == pytest.approx(accuracy_score(label, guess))
        assert found[f"{name}/f1_macro"] == pytest.approx(f1_score(label, guess, average="macro"))
        assert found[f"{name}/loss"] == pytest.approx(log_loss(label, values.softmax(1)), rel=1e-5)
    assert found["mean/accuracy"] == pytest.approx(np.mean([found[f"{c.name}/accuracy"] for c in CONDITIONS]))
    metrics.reset()
    metrics.update("complete", logits["complete"][:1], logits["complete"][:1].argmax(1))
    assert metrics.by_condition["complete"]["accuracy"].compute() == 1  # type: ignore[index, union-attr]


@pytest.mark.parametrize("multilabel", [False, True])
def test_a_batch_without_rows_changes_nothing(multilabel: bool) -> None:
    metrics = ConditionMetrics(FACTS._replace(multilabel=multilabel))
    label = torch.tensor([[0.0, 1.0, 0.0]]) if multilabel else torch.tensor([1])
    for condition in CONDITIONS:
        metrics.update(condition.name, torch.randn(1, 3), label)
    before = metrics.compute()
    metrics.update("complete", torch.zeros(0, 3), label[:0])
    assert metrics.compute() == before
    assert list(before) == metrics.names


def test_multilabel() -> None:
    torch.manual_seed(0)
    metrics, label = ConditionMetrics(FACTS._replace(multilabel=True)), torch.rand(40, 3).round()
    logits = torch.randn(40, 3)
    for condition in CONDITIONS:
        metrics.update(condition.name, logits, label)
    found, guess = metrics.compute(), logits > 0
    assert found["no_text/f1_macro"] == pytest.approx(f1_score(label, guess, average="macro"))
    assert found["no_text/f1_micro"] == pytest.approx(f1_score(label, guess, average="micro"))
    assert found["no_text/average_precision"] == pytest.approx(average_precision_score(label, logits.sigmoid()))
