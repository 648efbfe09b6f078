"""Metrics against scikit-learn, and where torchmetrics differs."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch
from fakes import FACTS
from hypothesis import given
from hypothesis import strategies as st
from one_condition import base_and_new_metrics, multiclass_metrics, multilabel_metrics
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    roc_auc_score,
    top_k_accuracy_score,
)
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_accuracy,
    multilabel_f1_score,
)

from robusttune.corruption.conditions import Conditions
from robusttune.errors import RobustTuneError
from robusttune.evaluation import ConditionMetrics
from robusttune.evaluation.metric_names import headline, names_of_metrics
from robusttune.evaluation.per_sample import label_ranks, samples_f1

IDS = [str(i) for i in range(40)]


CONDITIONS = Conditions()
PRESENT = torch.ones(40, 2, dtype=torch.bool)


def everywhere(logits: Tensor) -> Tensor:
    """The same logits (N, C) in every view."""
    return logits.expand(len(CONDITIONS.views), *logits.shape)


def test_multiclass() -> None:
    torch.manual_seed(0)
    metrics, label = ConditionMetrics(FACTS, CONDITIONS), torch.randint(3, (40,))
    logits = torch.randn(3, 40, 3)
    for part in (slice(0, 25), slice(25, 40)):  # uneven batches
        metrics.update(IDS[part], label[part], PRESENT[part], logits[:, part])
    found = metrics.compute()
    assert list(found) == metrics.names
    for name, values in zip(CONDITIONS.names, logits, strict=True):
        guess = values.argmax(1)
        assert found[f"{name}/accuracy"] == pytest.approx(accuracy_score(label, guess))
        assert found[f"{name}/balanced_accuracy"] == pytest.approx(balanced_accuracy_score(label, guess))
        assert found[f"{name}/f1_macro"] == pytest.approx(f1_score(label, guess, average="macro"))
        assert found[f"{name}/loss"] == pytest.approx(log_loss(label, values.double().softmax(1)), rel=1e-5)
    assert found["mean/accuracy"] == pytest.approx(np.mean([found[f"{name}/accuracy"] for name in CONDITIONS.names]))
    metrics = ConditionMetrics(FACTS, CONDITIONS)
    metrics.update(IDS[:1], torch.tensor([2]), PRESENT[:1], everywhere(torch.tensor([[0.0, 0.0, 9.0]])))
    assert metrics.compute()["complete/accuracy"] == 1


@given(st.randoms(use_true_random=False), st.integers(1, 40), st.booleans())
def test_order_batches_and_repeats_do_not_matter(random: Random, batch_size: int, multilabel: bool) -> None:
    facts = FACTS._replace(multilabel=multilabel)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 3, generator=generator)
    label = torch.rand(40, 3, generator=generator).round() if multilabel else torch.arange(40) % 3
    plain, other = ConditionMetrics(facts, CONDITIONS), ConditionMetrics(facts, CONDITIONS)
    plain.update(IDS, label, PRESENT, everywhere(logits))
    order = random.sample(range(40), 40) + random.choices(range(40), k=5)
    for start in range(0, 45, batch_size):
        rows = order[start : start + batch_size]
        other.update([IDS[row] for row in rows], label[rows], PRESENT[: len(rows)], everywhere(logits[rows]))
    assert other.compute() == plain.compute()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_predictions_that_are_not_finite_are_refused(value: float) -> None:
    metrics, logits = ConditionMetrics(FACTS, CONDITIONS), torch.zeros(40, 3)
    logits[7, 1] = logits[9, 0] = value
    metrics.update(IDS, torch.zeros(40, dtype=torch.int64), PRESENT, torch.stack([torch.zeros(40, 3)] * 2 + [logits]))
    with pytest.raises(RobustTuneError, match="the predictions for 2 of 40 samples are not finite, the first is '7'"):
        metrics.compute()


def test_multilabel() -> None:
    torch.manual_seed(0)
    metrics, label = ConditionMetrics(FACTS._replace(multilabel=True), CONDITIONS), torch.rand(40, 3).round()
    logits = torch.randn(40, 3)
    metrics.update(IDS, label, PRESENT, everywhere(logits))
    assert list(metrics.compute()) == metrics.names
    found, guess = metrics.compute(), logits > 0
    assert found["no_text/f1_macro"] == pytest.approx(f1_score(label, guess, average="macro"))
    assert found["no_text/f1_micro"] == pytest.approx(f1_score(label, guess, average="micro"))
    assert found["no_text/average_precision"] == pytest.approx(average_precision_score(label, logits.sigmoid()))


def test_base_and_new_classes() -> None:
    """Base and new accuracy among classes of the same kind, and the accuracy among all classes by other logits."""
    torch.manual_seed(0)
    names = ["new 1", *FACTS.class_names, "new 2"]  # columns 1 to 3 are of training
    metrics, label = ConditionMetrics(FACTS, CONDITIONS, names), torch.arange(40) % 5
    logits, unknown = torch.randn(2, 40, 5) + functional.one_hot(label, 5)
    metrics.update(IDS, label, PRESENT, everywhere(logits), everywhere(unknown))
    found = metrics.compute()
    assert list(found) == metrics.names
    base, new = [1, 2, 3], [0, 4]
    for name, own in (("base_accuracy", base), ("new_accuracy", new)):
        rows = [row for row in range(40) if int(label[row]) in own]
        right = [own[int(logits[row, own].argmax())] == int(label[row]) for row in rows]
        assert found[f"complete/{name}"] == pytest.approx(sum(right) / len(rows))
    both = found["complete/base_accuracy"], found["complete/new_accuracy"]
    assert found["complete/harmonic_mean"] == pytest.approx(2 / (1 / both[0] + 1 / both[1]))
    assert found["complete/unknown_accuracy"] == pytest.approx(accuracy_score(label, unknown.argmax(1)))


@pytest.mark.parametrize("names", [FACTS.class_names, ["other", "ones"]])
def test_classes_of_one_kind_have_the_usual_metrics(names: list[str]) -> None:
    metrics = ConditionMetrics(FACTS, CONDITIONS, names)
    metrics.update(IDS, torch.zeros(40, dtype=torch.int64), PRESENT, everywhere(torch.zeros(40, len(names))))
    assert metrics.compute()["complete/accuracy"] == 1


def test_classes_of_another_data_set_are_measured_together() -> None:
    names = ["new", FACTS.class_names[0], "other"]
    metrics = ConditionMetrics(FACTS, CONDITIONS, names, alike=True)
    label = torch.arange(40) % 3
    metrics.update(IDS, label, PRESENT, everywhere(functional.one_hot(label.clamp(max=1), 3).float()))
    assert metrics.compute()["complete/accuracy"] == pytest.approx(27 / 40)


def test_a_kind_without_samples_has_no_accuracy() -> None:
    metrics = ConditionMetrics(FACTS, CONDITIONS, [*FACTS.class_names, "new"])
    metrics.update(IDS, torch.zeros(40, dtype=torch.int64), PRESENT, everywhere(torch.zeros(40, 4)))
    found = metrics.compute()
    assert found["complete/base_accuracy"] == 1
    assert np.isnan([found["complete/new_accuracy"], found["complete/harmonic_mean"]]).all()


def error_by_bins(probabilities: np.ndarray, right: np.ndarray) -> float:
    """The expected calibration error with 15 bins, written as in Guo et al. 2017, equation 3."""
    total = 0.0
    for low in range(15):
        inside = (probabilities >= low / 15) & ((probabilities < (low + 1) / 15) | ((low == 14) & (probabilities == 1)))
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - probabilities[inside].mean())
    return float(total)


@given(st.integers(0, 999), st.integers(1, 60), st.sampled_from([2, 5, 7]), st.sampled_from([0.3, 3.0, 60.0]))
def test_multiclass_metrics(seed: int, samples: int, classes: int, sure: float) -> None:
    """Also with classes that no sample has, and with probabilities that round to 0 and 1."""
    rng = np.random.default_rng(seed)
    label = rng.choice(classes, samples, p=rng.dirichlet(np.full(classes, 0.5)))
    logits = torch.from_numpy(
        sure * rng.normal(size=(samples, classes))
    )  # float64: no probability is at the edge of a bin
    found = multiclass_metrics(logits, torch.from_numpy(label))
    assert sorted(found) == sorted(names_of_metrics(False, classes, False))
    probabilities, predicted, hot = logits.softmax(1).numpy(), logits.argmax(1).numpy(), np.eye(classes)[label]
    assert found["accuracy"] == pytest.approx(accuracy_score(label, predicted))
    for average in ("macro", "weighted"):
        assert found[f"f1_{average}"] == pytest.approx(f1_score(label, predicted, average=average, zero_division=0))
    if classes > 5:
        expected = top_k_accuracy_score(label, logits.numpy(), k=5, labels=range(classes))
        assert found["top5_accuracy"] == pytest.approx(expected)
    some = [c for c in range(classes) if 0 < hot[:, c].sum() < samples]
    areas = [roc_auc_score(hot[:, c], probabilities[:, c]) for c in some]
    precisions = [average_precision_score(hot[:, c], probabilities[:, c]) for c in some]
    assert found["auroc"] == pytest.approx(np.mean(areas) if some else np.nan, nan_ok=True)
    assert found["average_precision"] == pytest.approx(np.mean(precisions) if some else np.nan, nan_ok=True)
    assert found["brier"] == pytest.approx(((probabilities - hot) ** 2).sum(1).mean(), rel=1e-5, abs=1e-9)
    assert found["loss"] == pytest.approx(-logits.log_softmax(1).numpy()[hot > 0].mean(), rel=1e-5, abs=1e-6)
    assert found["calibration_error"] == pytest.approx(
        error_by_bins(probabilities.max(1), predicted == label), abs=1e-5
    )


@given(st.integers(0, 999), st.integers(1, 60), st.sampled_from([0.3, 3.0, 200.0]))
def test_multilabel_metrics(seed: int, samples: int, sure: float) -> None:
    """Also with classes that no sample has or that are never predicted, samples without classes, and logits of 0."""
    rng = np.random.default_rng(seed)
    classes = 4
    label = rng.random((samples, classes)) < rng.dirichlet(np.full(classes, 0.5))
    raw = sure * rng.normal(size=(samples, classes)) - [0, 0, 0, 3 * sure]
    logits = torch.from_numpy(np.where(rng.random(raw.shape) < 0.1, 0, raw))
    found = multilabel_metrics(logits, torch.from_numpy(label).double())
    assert sorted(found) == sorted(names_of_metrics(True, classes, False))
    probabilities = logits.sigmoid().numpy()
    predicted = probabilities >= 0.5
    for average in ("macro", "micro", "weighted", "samples"):
        expected = f1_score(label, predicted, average=average, zero_division=0)
        assert found[f"f1_{average}"] == pytest.approx(expected), average
    some = [c for c in range(classes) if 0 < label[:, c].sum() < samples]
    areas = [roc_auc_score(label[:, c], probabilities[:, c]) for c in some]
    precisions = [average_precision_score(label[:, c], probabilities[:, c]) for c in some]
    assert found["auroc"] == pytest.approx(np.mean(areas) if some else np.nan, nan_ok=True)
    assert found["average_precision"] == pytest.approx(np.mean(precisions) if some else np.nan, nan_ok=True)
    assert found["brier"] == pytest.approx(((probabilities - label) ** 2).mean(), rel=1e-5, abs=1e-9)
    z = logits.numpy()
    assert found["loss"] == pytest.approx((np.logaddexp(0, z) - z * label).mean(), rel=1e-5)
    assert found["calibration_error"] == pytest.approx(error_by_bins(probabilities.ravel(), label.ravel()), abs=1e-5)


def test_confidences_of_1_share_the_last_bin() -> None:
    """torchmetrics gives them a bin of their own, where errors no longer cancel with those of the last bin."""
    probability = torch.tensor([1.0, 1.0, 0.95, 0.95])
    label = torch.tensor([1, 0, 1, 1])
    logits = torch.tensor([200.0, 200.0, 0.95, 0.95]).where(probability == 1, probability.logit())
    found = multilabel_metrics(logits.unsqueeze(1), label.unsqueeze(1))["calibration_error"]
    assert found == pytest.approx(abs(3 / 4 - 3.9 / 4))
    assert float(binary_calibration_error(probability, label, n_bins=15)) == pytest.approx((2 * 0.5 + 2 * 0.05) / 4)


def test_many_predictions_do_not_exhaust_the_digits() -> None:
    """Sums in float32, which torchmetrics uses for probabilities in float32, are off by one per cent."""
    probability = torch.full((1_000_000, 1), 0.03)
    label = torch.zeros(1_000_000, 1, dtype=torch.int64)
    found = multilabel_metrics(probability.logit(), label)["calibration_error"]
    assert found == pytest.approx(0.03, rel=1e-4)
    theirs = float(binary_calibration_error(probability.flatten(), label.flatten(), n_bins=15))
    assert theirs != pytest.approx(0.03, rel=0.005)


def test_equal_logits_are_ranked_by_the_index_of_the_class() -> None:
    """So top-5 accuracy does not depend on the order in which torch.topk returns equal values."""
    logits = torch.zeros(9, 9)
    assert label_ranks(logits, torch.arange(9)).tolist() == [*range(1, 10)]
    assert multiclass_metrics(logits, torch.arange(9))["top5_accuracy"] == pytest.approx(5 / 9)
    torch.manual_seed(0)
    logits, label = torch.randn(200, 9), torch.randint(9, (200,))
    expected = float(multiclass_accuracy(logits, label, 9, average="micro", top_k=5))
    assert multiclass_metrics(logits, label)["top5_accuracy"] == pytest.approx(expected)


def test_f1_of_samples() -> None:
    torch.manual_seed(0)
    predicted, label = torch.rand(2, 50, 4) < 0.3
    expected = multilabel_f1_score(
        predicted.long().unsqueeze(2), label.long().unsqueeze(2), 4, average="micro", multidim_average="samplewise"
    )
    torch.testing.assert_close(samples_f1(predicted, label), expected)
    assert bool((~predicted & ~label).all(1).any())
    with pytest.raises(IndexError):  # torchmetrics drops the dimension of the samples if it is 1
        multilabel_f1_score(
            torch.ones(1, 4, 1).long(), torch.ones(1, 4, 1).long(), 4, average="micro", multidim_average="samplewise"
        )
    assert samples_f1(torch.ones(1, 4).bool(), torch.ones(1, 4).bool()).tolist() == [1]


def test_calibration_with_base_and_new_classes_uses_the_logits_of_all_classes() -> None:
    torch.manual_seed(0)
    base, label = torch.tensor([True, False, True, False]), torch.arange(40) % 4
    logits, unknown = torch.randn(2, 40, 4)
    found = base_and_new_metrics(logits, label, base, unknown)
    assert sorted(found) == sorted(names_of_metrics(False, 4, True))
    trusted = multiclass_metrics(unknown, label)
    assert found["unknown_accuracy"] == pytest.approx(trusted["accuracy"])
    for name in ("loss", "brier", "calibration_error"):
        assert found[name] == trusted[name]
    assert base_and_new_metrics(-100.0 * functional.one_hot(label), label, base, unknown)["harmonic_mean"] == 0


def test_the_headline_is_measured() -> None:
    for multilabel, mixed in ((False, False), (True, False), (False, True)):
        assert headline(multilabel, mixed) in names_of_metrics(multilabel, 9, mixed)
