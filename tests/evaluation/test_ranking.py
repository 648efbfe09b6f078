"""Ranking metrics against scikit-learn and torchmetrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.classification import multiclass_auroc, multilabel_auroc, multilabel_average_precision

from robusttune.evaluation import ranking
from robusttune.score_counts import count_scores, positive_scores


def ranking_metrics(scores: Tensor, label: Tensor) -> dict[str, float]:
    """The metrics of scores (N, C) and classes (N, C), which are counted in two blocks."""
    rows, classes = label.nonzero().T
    positives = positive_scores(classes, scores[rows, classes], scores.shape[1])
    counts = count_scores(positives, scores.split([len(scores) // 3, len(scores) - len(scores) // 3]))
    return ranking.ranking_metrics(positives, counts, len(scores))


@given(st.integers(0, 999), st.integers(2, 40), st.integers(2, 5), st.sampled_from([1, 2, 8]))
def test_labels_of_any_kind(seed: int, samples: int, classes: int, levels: int) -> None:
    """With tied scores. Classes that no sample has, or all samples, are left out."""
    rng = np.random.default_rng(seed)
    probabilities = rng.integers(0, levels, (samples, classes)) / levels
    label = rng.random((samples, classes)) < rng.random(classes)
    found = ranking_metrics(torch.from_numpy(probabilities), torch.from_numpy(label))
    kept = [c for c in range(classes) if 0 < label[:, c].sum() < samples]
    if not kept:
        assert all(math.isnan(value) for value in found.values())
        return
    areas = [roc_auc_score(label[:, c], probabilities[:, c]) for c in kept]
    precisions = [average_precision_score(label[:, c], probabilities[:, c]) for c in kept]
    assert found == {"auroc": pytest.approx(np.mean(areas)), "average_precision": pytest.approx(np.mean(precisions))}


def test_many_classes() -> None:
    """One class against the rest, with probabilities of a softmax."""
    torch.manual_seed(0)
    classes = 71
    label = torch.arange(3 * classes) % classes
    probabilities = (torch.randn(len(label), classes) + functional.one_hot(label, classes)).double().softmax(1)
    found = ranking_metrics(probabilities, functional.one_hot(label, classes).bool())
    assert found["auroc"] == pytest.approx(roc_auc_score(label, probabilities, multi_class="ovr", average="macro"))
    assert found["average_precision"] == pytest.approx(average_precision_score(label, probabilities, average="macro"))


def test_torchmetrics_has_the_same_averages() -> None:
    torch.manual_seed(0)
    scores, label = torch.rand(200, 5).mul(20).round().div(20), torch.rand(200, 5) < 0.3
    assert ranking_metrics(scores, label) == {
        "auroc": pytest.approx(float(multilabel_auroc(scores, label.long(), 5))),
        "average_precision": pytest.approx(float(multilabel_average_precision(scores, label.long(), 5))),
    }


@pytest.mark.filterwarnings("ignore:No positive samples")
def test_classes_without_samples_do_not_count() -> None:
    """torchmetrics averages over them as if their area were 0."""
    label = torch.tensor([0, 0, 1, 1])
    scores = torch.tensor([[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.7, 0.1]])
    assert ranking_metrics(scores, functional.one_hot(label, 3).bool())["auroc"] == 1
    assert float(multiclass_auroc(scores, label, 3)) == pytest.approx(2 / 3)


def test_the_best_and_the_worst_ranking() -> None:
    label = torch.tensor([[True, False], [True, False], [False, True]])
    assert ranking_metrics(label.float(), label) == {"auroc": 1.0, "average_precision": 1.0}
    assert ranking_metrics(1 - label.float(), label)["auroc"] == 0.0
