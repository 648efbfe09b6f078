"""Losses for imbalanced classes, against torch's own and against plain loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from two_ranks import in_two_ranks

from robusttune.errors import RobustTuneError
from robusttune.evaluation import sample_losses
from robusttune.models import Balance
from robusttune.models.balance import class_weights, positive_weights, prior_logits
from robusttune.tasks.balanced_loss import BalancedLoss
from robusttune.tasks.losses import mean_over_ranks
from robusttune.types import Facts

FACTS = Facts(["a", "b", "c"], [0.7, 0.2, 0.1], False, 100)
MULTILABEL = Facts(["a", "b", "c"], [0.9, 0.5, 0.1], True, 100)
SIZES = {False: [70, 20, 10], True: [90, 50, 10]}


def samples(multilabel: bool, rows: int = 7) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    logits = 3 * torch.randn(rows, 3)
    return logits, torch.rand(rows, 3).round() if multilabel else torch.arange(rows) % 3


def mean(loss: BalancedLoss, logits: Tensor, label: Tensor) -> Tensor:
    return mean_over_ranks(loss(logits, label), torch.ones(len(label), dtype=torch.bool), loss.weights(label))


def focal_in_loops(logits: Tensor, label: Tensor, balance: Balance, smoothing: float, facts: Facts) -> float:
    """Return the mean loss of the definition, one class of one sample at a time."""
    w, pos = class_weights(balance, facts), positive_weights(balance, facts)
    total, weight_sum, classes = 0.0, 0.0, logits.shape[1]
    for row, own in zip(logits.tolist(), label.tolist(), strict=True):
        for c, x in enumerate(row):
            weight = 1.0 if w is None else float(w[c])
            if facts.multilabel:
                p, t = 1 / (1 + math.exp(-x)), own[c] * (1 - smoothing) + smoothing * facts.class_frequencies[c]
                positive = (1.0 if pos is None else float(pos[c])) * t * (1 - p) ** balance.focal * -math.log(p)
                total += weight * (positive + (1 - t) * p**balance.focal * -math.log(1 - p)) / classes
            else:
                p = math.exp(x) / sum(math.exp(other) for other in row)
                t = (c == own) * (1 - smoothing) + smoothing / classes
                total += weight * t * (1 - p) ** balance.focal * -math.log(p)
        weight_sum += 1.0 if w is None or facts.multilabel else float(w[own])
    return total / weight_sum


@pytest.mark.parametrize("facts", [FACTS, MULTILABEL])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_defaults_are_the_usual_loss_bit_for_bit(facts: Facts, smoothing: float) -> None:
    logits, label = samples(facts.multilabel)
    loss = BalancedLoss(Balance(), facts, smoothing)
    assert torch.equal(
        loss(logits, label), sample_losses(logits, label, smoothing, torch.tensor(facts.class_frequencies))
    )
    assert loss.weights(label) is None
    assert not loss.state_dict()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("balance", [Balance("inverse"), Balance("effective"), Balance("effective", 0.9)])
def test_class_weights_are_those_of_torch(balance: Balance, smoothing: float) -> None:
    beta = balance.effective_beta
    numbers = [n if balance.weights == "inverse" else (1 - beta**n) / (1 - beta) for n in SIZES[False]]
    weights = torch.tensor([1 / number for number in numbers])
    logits, label = samples(False)
    expected = functional.cross_entropy(logits, label, weights, label_smoothing=smoothing)
    torch.testing.assert_close(mean(BalancedLoss(balance, FACTS, smoothing), logits, label), expected)
    logits, label = samples(True)
    numbers = [n if balance.weights == "inverse" else (1 - beta**n) / (1 - beta) for n in SIZES[True]]
    weights = torch.tensor([1 / number for number in numbers])
    target = label * (1 - smoothing) + smoothing * torch.tensor(MULTILABEL.class_frequencies)
    expected = functional.binary_cross_entropy_with_logits(logits, target, 3 * weights / weights.sum())
    torch.testing.assert_close(mean(BalancedLoss(balance, MULTILABEL, smoothing), logits, label), expected)


def test_extreme_betas() -> None:
    assert class_weights(Balance("effective", 0.0), FACTS) == pytest.approx([1, 1, 1])
    inverse = class_weights(Balance("inverse"), FACTS)
    assert inverse is not None
    assert class_weights(Balance("effective", 1 - 1e-9), FACTS) == pytest.approx(inverse.tolist(), rel=1e-5)


def test_positive_weights_are_those_of_torch() -> None:
    logits, label = samples(True)
    expected = functional.binary_cross_entropy_with_logits(logits, label, pos_weight=torch.tensor([1 / 9, 1.0, 9.0]))
    torch.testing.assert_close(mean(BalancedLoss(Balance("positive"), MULTILABEL), logits, label), expected)


@given(
    st.sampled_from([0.5, 1.0, 2.0]),
    st.sampled_from([None, "inverse", "effective", "positive"]),
    st.sampled_from([0.0, 0.3]),
    st.booleans(),
)
def test_the_focal_loss_is_its_formula(focal: float, weights: Any, smoothing: float, multilabel: bool) -> None:
    if weights == "positive" and not multilabel:
        return
    facts, balance = (MULTILABEL if multilabel else FACTS), Balance(weights, focal=focal)
    logits, label = samples(multilabel)
    found = mean(BalancedLoss(balance, facts, smoothing), logits, label)
    assert float(found) == pytest.approx(focal_in_loops(logits, label, balance, smoothing, facts), rel=1e-4)


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("focal", [0.01, 0.5, 2.0])
def test_sure_predictions_have_finite_gradients(multilabel: bool, focal: float) -> None:
    logits = torch.tensor([[200.0, -200.0, 0.0], [-200.0, 200.0, 0.0]], requires_grad=True)
    label = torch.tensor([[1.0, 0.0, 1.0], [1.0, 0.0, 1.0]]) if multilabel else torch.tensor([0, 0])
    loss = mean(BalancedLoss(Balance(focal=focal), MULTILABEL if multilabel else FACTS), logits, label)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_logit_adjustment_is_its_formula() -> None:
    logits, label = samples(False)
    prior = torch.tensor(FACTS.class_frequencies)
    for tau in (0.5, 1.0):
        expected = functional.cross_entropy(logits + tau * prior.log(), label)
        torch.testing.assert_close(mean(BalancedLoss(Balance(logit_adjustment=tau), FACTS), logits, label), expected)
    logits, label = samples(True)
    prior = torch.tensor(MULTILABEL.class_frequencies)
    expected = functional.binary_cross_entropy_with_logits(logits + (prior / (1 - prior)).log(), label)
    found = mean(BalancedLoss(Balance(logit_adjustment=1.0), MULTILABEL), logits, label)
    torch.testing.assert_close(found, expected)


def test_half_precision_does_not_overflow() -> None:
    logits, label = samples(False)
    found = BalancedLoss(Balance(focal=2.0), FACTS)(logits.bfloat16(), label)
    assert found.dtype == torch.float32


def test_new_classes_are_not_adjusted() -> None:
    """A known class of the mean frequency is not, either, and the shift does not change what is predicted."""
    found = prior_logits("post_hoc", FACTS, ["c", "new", "a"])
    assert found[1] == 0
    assert found.tolist() == pytest.approx([math.log(0.3), 0, math.log(2.1)])


def test_two_ranks_have_the_weighted_mean_of_one_process() -> None:
    """Also if the ranks have different classes and numbers of counted rows."""
    logits, label = samples(False, 8)
    loss, counted = BalancedLoss(Balance("inverse", focal=1.0), FACTS), torch.arange(8) < 6
    expected = mean_over_ranks(loss(logits, label), counted, loss.weights(label))

    def part(rank: int) -> float:
        rows = slice(4 * rank, 4 * rank + 4)
        weights = loss.weights(label[rows])
        return float(mean_over_ranks(loss(logits[rows], label[rows]), counted[rows], weights))

    assert sum(in_two_ranks(part)) / 2 == pytest.approx(float(expected))


def test_no_counted_row_gives_zero() -> None:
    logits, label = samples(False)
    loss = BalancedLoss(Balance("inverse"), FACTS)
    assert mean_over_ranks(loss(logits, label), torch.zeros(7, dtype=torch.bool), loss.weights(label)) == 0


EMPTY = Facts(["a", "b", "c"], [0.5, 0.5, 0.0], False, 10)
FULL = Facts(["a", "b"], [1.0, 0.5], True, 10)


@pytest.mark.parametrize(
    ("balance", "facts", "message"),
    [
        (Balance("inverse"), EMPTY, "weights inverse does not work: 1 class has no training sample, .* is 'c': add"),
        (Balance("effective"), EMPTY, "weights effective does not work: 1 class has no training sample"),
        (Balance(logit_adjustment=1.0), EMPTY, "logit_adjustment does not work: 1 class has no training sample"),
        (Balance("positive"), FULL, "weights positive does not work: 1 class has no training sample without it"),
        (
            Balance("positive"),
            FACTS,
            "weights positive is for data with several labels a sample: use inverse or effective",
        ),
        (
            Balance("effective"),
            FACTS._replace(training_samples=None),
            "weights effective needs the number of training samples",
        ),
    ],
)
def test_data_that_lack_samples_are_refused(balance: Balance, facts: Facts, message: str) -> None:
    with pytest.raises(RobustTuneError, match=f"^model.balance.{message}"):
        BalancedLoss(balance, facts)


def test_a_class_that_all_samples_have_can_be_weighted() -> None:
    assert class_weights(Balance("inverse"), FULL) == pytest.approx([2 / 3, 4 / 3])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"focal": -1.0}, "focal is -1.0: give a number of at least 0"),
        ({"focal": math.nan}, "focal is nan: give"),
        ({"post_hoc": math.inf}, "post_hoc is inf: give"),
        ({"weights": "median"}, "weights is median: give inverse, effective, positive"),
        ({"weights": "effective", "effective_beta": 1.0}, r"effective_beta is 1.0: give a number in \[0, 1\)"),
        ({"weights": "inverse", "effective_beta": 0.9}, "effective_beta is set, and weights are not effective"),
        ({"post_hoc": 1.0, "logit_adjustment": 1.0}, "logit_adjustment and model.balance.post_hoc would correct"),
        ({"post_hoc": 1.0, "weights": "inverse"}, "weights and model.balance.post_hoc would correct .* twice: set one"),
    ],
)
def test_contradictions_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RobustTuneError, match=f"^model.balance.{message}"):
        Balance(**settings)
