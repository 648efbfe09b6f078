"""Thresholds of multi-label predictions: the best F1, own ones where there is enough to fit them, and by pattern."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import f1_score
from torch import Tensor

from robusttune.models.temperatures import VIEWS, blocks_of
from robusttune.models.thresholds import LEAST_POSITIVES, Thresholds, best_thresholds
from robusttune.models.thresholds import fit_thresholds as fit_thresholds_to_blocks
from robusttune.predictions import predicted_classes


def predictions(rows: int = 200, classes: int = 4) -> tuple[Tensor, Tensor]:
    """Return probabilities far below 0.5 that show the labels, and labels of rare classes."""
    torch.manual_seed(0)
    label = (torch.rand(rows, classes) < 0.25).float()
    return (2 * label - 3 + torch.randn(rows, classes)).sigmoid(), label


def best_threshold(probability: Tensor, label: Tensor) -> float:
    """The threshold of one class, with the samples in two blocks."""
    blocks = [(probability[part].unsqueeze(1), label[part].unsqueeze(1)) for part in (slice(3), slice(3, None))]
    return float(best_thresholds(lambda: blocks))


def fit_thresholds(probability: Tensor, label: Tensor) -> Tensor:
    """The thresholds of all classes, with the samples in one block."""
    found = fit_thresholds_to_blocks(lambda: [(probability, label)])
    assert found is not None
    return found


def test_the_best_threshold_has_the_highest_f1_of_all() -> None:
    probability, label = predictions(60)
    for column in range(4):
        own, actual = probability[:, column], label[:, column]
        scores = {float(t): f1_score(actual, own >= t) for t in torch.linspace(0, 1, 201)}
        found = best_threshold(own, actual)
        assert f1_score(actual, own >= found) >= max(scores.values()) - 1e-9
        assert found not in own


def test_equal_probabilities_are_predicted_together() -> None:
    probability, label = torch.tensor([0.8, 0.3, 0.3, 0.3, 0.1]), torch.tensor([0, 1, 0, 1, 0])
    assert best_threshold(probability, label) == pytest.approx(0.2)
    assert best_threshold(torch.full((4,), 0.3), torch.tensor([0, 1, 0, 0])) == pytest.approx(0.15)
    assert best_threshold(probability, torch.zeros(5)) == 0.5


def test_f1_rises_and_rare_classes_share_a_threshold() -> None:
    probability, label = predictions()
    label[:, 3] = 0
    label[: LEAST_POSITIVES - 1, 3] = 1
    found = fit_thresholds(probability, label)
    assert found[3] == pytest.approx(best_threshold(probability.flatten(), label.flatten()))
    assert [float(value) for value in found[:3]] == pytest.approx(
        [best_threshold(probability[:, column], label[:, column]) for column in range(3)]
    )
    before, after = (f1_score(label, probability >= cut, average="macro") for cut in (0.5, found))
    assert after > before + 0.1


def test_each_pattern_has_thresholds_of_its_own() -> None:
    """From the samples that can show it; without any, they stay as they are."""
    probability, label = predictions()
    logits = torch.stack([probability.logit(), probability.logit() - 1, probability.logit() + 1])
    present = torch.ones(200, 2, dtype=torch.bool)
    thresholds = Thresholds(4)
    thresholds.keep(thresholds.fit(blocks_of(logits, label, present, VIEWS)))
    for number in range(3):
        expected = fit_thresholds(logits[number].sigmoid(), label)
        torch.testing.assert_close(thresholds.values[number], expected)
        predicted = predicted_classes(logits[number], True, thresholds.cuts[number])
        assert torch.equal(predicted, logits[number].sigmoid() >= expected)
    assert (thresholds.values[3] == 0.5).all()
    present[:, 0] = False
    alone = Thresholds(4, 0.3)
    alone.keep(alone.fit(blocks_of(logits, label, present, VIEWS)))
    assert (alone.values[:2] == torch.tensor(0.3)).all()
    assert not (alone.values[2] == torch.tensor(0.3)).any()
