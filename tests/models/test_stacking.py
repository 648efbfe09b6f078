"""Stacking of logistic and kernel regression: references computed another way, and what a user relies on."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from fakes import FACTS
from sklearn.kernel_ridge import KernelRidge
from torch import Tensor

from robusttune.models.fitted import Labels, Outcome, TrainingFeatures
from robusttune.models.kernel import PENALTIES, SimilarModality, fit_ridge
from robusttune.models.linear import LogisticRegression
from robusttune.models.stacking import Stacking, StackingNetwork
from robusttune.types import Encoded, Facts, Widths

IMAGE, TEXT = Widths((6,), 5), Widths((), 7)
SEVERAL = FACTS._replace(multilabel=True)


def encoded(features: Tensor, widths: Widths) -> Encoded:
    """Return the output of an encoder whose layers have one token."""
    parts = torch.split(features, [widths.pooled, *widths.layers], 1)
    ones = torch.ones(len(features), 1, dtype=torch.bool)
    return Encoded(parts[0], [part.unsqueeze(1) for part in parts[1:]], [ones for _ in parts[1:]])


def samples(rows: int, facts: Facts = FACTS, curved: bool = False, signal: float = 1.5, seed: int = 0) -> Any:
    """Return features of both modalities, presence and labels; a curved signal has no linear part."""
    torch.manual_seed(seed)
    label = torch.rand(rows, 3) < 0.4 if facts.multilabel else torch.randint(3, (rows,))
    hot = label.float() if facts.multilabel else torch.eye(3)[label]
    image, text = torch.randn(rows, 11), torch.randn(rows, 7)
    shift = hot * torch.randint(0, 2, (rows, 1)).mul(2).sub(1) if curved else hot
    image[:, :3] += signal * shift
    text[:, :3] += signal * shift
    present = torch.ones(rows, 2, dtype=torch.bool)
    return TrainingFeatures(
        image, text, present, label.float() if facts.multilabel else label, [f"{n:04}" for n in range(rows)]
    )


def fitted(data: TrainingFeatures, facts: Facts = FACTS, model: Any = None) -> tuple[StackingNetwork, Outcome]:
    network = (model or Stacking()).build(IMAGE, TEXT, facts._replace(training_samples=len(data.label)))
    return network.eval(), network.fit(data, seed=0)


def logits(network: StackingNetwork, data: TrainingFeatures, present: Tensor | None = None) -> Tensor:
    present = data.present if present is None else present
    return network(encoded(data.image, IMAGE), encoded(data.text, TEXT), *present.unbind(1)).logits


def accuracy(network: StackingNetwork, data: TrainingFeatures) -> float:
    return float((logits(network, data).argmax(1) == data.label).float().mean())


def test_held_out_scores_of_a_ridge_regression_are_those_of_fits_without_the_fold() -> None:
    """Compared with scikit-learn's kernel ridge regression, fitted once for each fold."""
    torch.manual_seed(0)
    features, label = torch.randn(40, 6, dtype=torch.float64), torch.arange(40) % 3
    labels = Labels(torch.eye(3, dtype=torch.float64)[label], torch.arange(40) % 5, multilabel=False)
    found = fit_ridge(features, labels)
    candidates = []
    for penalty in PENALTIES:
        expected = torch.empty(40, 3, dtype=torch.float64)
        for fold in range(5):
            train, held_out = labels.fold != fold, labels.fold == fold
            centre, level = features[train].mean(0), labels.target[train].mean(0)
            # The penalty is relative to the variance of all rows.
            alpha = penalty * float((features - features.mean(0)).square().sum(0).mean()) * features.shape[1] / 40
            theirs = KernelRidge(alpha=alpha).fit(features[train] - centre, labels.target[train] - level)
            expected[held_out] = torch.tensor(theirs.predict(features[held_out] - centre)) + level
        candidates.append(expected)
    ratios = [found.held_out / each for each in candidates]
    assert min(float(ratio.std() / ratio.mean().abs()) for ratio in ratios) < 1e-6


def test_similarity_is_the_mean_of_rbf_kernels_on_unit_vectors() -> None:
    torch.manual_seed(0)
    part = SimilarModality(None, IMAGE, FACTS._replace(training_samples=4))
    rows, centres = torch.randn(3, 11), torch.randn(4, 11)
    for number, row in enumerate(rows):
        for other, centre in enumerate(centres):
            kernels = []
            for start, stop in ((0, 5), (5, 11)):
                a, b = (each[start:stop] / each[start:stop].norm() for each in (row, centre))
                kernels.append(torch.exp(-(a - b).square().sum()))  # |a - b|^2 = 2 (1 - cosine)
            expected = sum(kernels) / 2
            torch.testing.assert_close(part.similarities(rows, centres)[number, other], expected)


@pytest.mark.parametrize("curved", [True, False])
def test_it_learns_what_logistic_regression_cannot_and_loses_nothing_elsewhere(curved: bool) -> None:
    train, test = samples(300, curved=curved), samples(1000, curved=curved, seed=1)
    stacked, linear = (accuracy(fitted(train, model=model)[0], test) for model in (Stacking(), LogisticRegression()))
    if curved:
        assert stacked > linear + 0.1
    else:
        assert stacked > linear - 0.015


def test_held_out_logits_of_random_labels_are_at_chance() -> None:
    """Otherwise temperatures, thresholds and the choice of weights would rest on rows that were seen."""
    correct = []
    for seed in range(6):  # one data set of 300 rows has a standard error of 0.03
        data = samples(300, signal=0.0, seed=seed)
        held_out = fitted(data)[1].held_out
        assert held_out is not None
        correct.append(torch.stack([(each.argmax(1) == data.label).float().mean() for each in held_out]))
    assert float(torch.stack(correct).mean(0).max()) < 0.4


def test_few_samples_are_fitted_with_several_divisions_into_folds() -> None:
    """So that the weights, which each division chooses, depend less on the seed."""

    def spread(rows: int) -> float:
        """Return the mean standard deviation of test probabilities over seeds of the fit."""
        train, test = samples(rows, signal=0.7), samples(200, signal=0.7, seed=1)
        found = []
        for seed in range(4):
            network = Stacking().build(IMAGE, TEXT, FACTS._replace(training_samples=rows)).eval()
            network.fit(train, seed=seed)
            found.append(logits(network, test).softmax(1))
        return float(torch.stack(found).std(0).mean())

    several = spread(120)
    with mock.patch("robusttune.models.stacking.REPEATS", 1):
        assert several < 0.8 * spread(120)


@pytest.mark.parametrize("facts", [FACTS, SEVERAL], ids=["one label", "several labels"])
def test_neither_the_order_of_the_samples_nor_what_stands_for_absent_ones_changes_anything(facts: Facts) -> None:
    data = samples(80, facts)
    data.present[::4, 0] = False
    data.present[1::4, 1] = False
    expected = logits(fitted(data, facts)[0], data)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(3))
    parts = [each[order] for each in data[:4]]
    parts[0][~parts[2][:, 0]] = torch.nan
    parts[1][~parts[2][:, 1]] = torch.nan
    image, text, shown, label = parts
    names = [data.sample_id[row] for row in order]
    shuffled = TrainingFeatures.join([TrainingFeatures(image, text, shown, label, names)])
    torch.testing.assert_close(logits(fitted(shuffled, facts)[0], shuffled), expected, rtol=1e-3, atol=1e-3)


def test_each_pattern_predicts_better_than_chance_with_the_modalities_it_has() -> None:
    train, test = samples(200), samples(500, seed=1)
    network, outcome = fitted(train)
    assert len(outcome.lines) == 3
    for present in ([True, True], [True, False], [False, True]):
        found = logits(network, test, torch.tensor([present] * 500))
        assert float((found.argmax(1) == test.label).float().mean()) > 0.55


@pytest.mark.parametrize("rows", [1, 3, 12])
def test_few_samples(rows: int) -> None:
    """Also without a class, without a complete sample, and with too few to cross-validate."""
    data = samples(rows)
    data.present[:, 1] = False
    network, outcome = fitted(data)
    assert logits(network, data).isfinite().all()
    assert (outcome.held_out is None) == (rows < 4)
    other = samples(5, seed=2)
    assert logits(network, other).isfinite().all()


def test_more_samples_than_centres(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = samples(300, curved=True), samples(1000, curved=True, seed=1)
    whole = accuracy(fitted(train)[0], test)
    monkeypatch.setattr("robusttune.models.kernel.MOST_CENTRES", 100)
    network, _ = fitted(train)
    assert network.image.centres.shape == (100, 11)
    assert accuracy(network, test) > whole - 0.05


def test_choices_of_an_earlier_fit_are_kept() -> None:
    data = samples(120)
    network, first = fitted(data)
    again = network.fit(samples(150), 0, first.choices)
    assert [choice and choice.c for choice in again.choices] == [choice and choice.c for choice in first.choices]


def test_a_modality_that_is_the_same_in_all_samples_changes_nothing() -> None:
    data = samples(60)
    data.text[:] = 1.0
    network, _ = fitted(data)
    shown = torch.tensor([[True, True]] * 60), torch.tensor([[True, False]] * 60)
    both, image = (logits(network, data, present).log_softmax(1) for present in shown)
    assert both.isfinite().all()
    assert float((both.argmax(1) == image.argmax(1)).float().mean()) > 0.9
