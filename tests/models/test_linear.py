"""Logistic regression per pattern: scikit-learn's solution, the choice of C and features, and who takes part."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from fakes import FACTS, random_encoded
from sklearn.linear_model import LogisticRegression as Theirs
from sklearn.model_selection import cross_val_score
from torch import Tensor

from robusttune.errors import RobustTuneError
from robusttune.models.fitted import TrainingFeatures
from robusttune.models.linear import LinearNetwork, LogisticRegression
from robusttune.models.logistic import Rows, choose_c, fit, rotate, rotate_back, stratified_folds
from robusttune.types import Encoded, Facts, Widths

IMAGE, TEXT = Widths((4, 10), 5), Widths((8,), 7)
SEVERAL = FACTS._replace(multilabel=True)


def made(rows: int = 90, facts: Facts = FACTS, signal: float = 2.0) -> tuple[Encoded, Encoded, Tensor, Tensor]:
    """Return features of images and texts that show the label, their labels, and which are present."""
    torch.manual_seed(0)
    image, text = random_encoded(rows, IMAGE.layers, IMAGE.pooled), random_encoded(rows, TEXT.layers, TEXT.pooled)
    label = torch.rand(rows, 3) < 0.4 if facts.multilabel else torch.arange(rows) % 3
    hot = label.float() if facts.multilabel else torch.eye(3)[label]
    for pooled in (image.pooled, text.pooled):
        pooled[:, :3] += signal * hot
        pooled.mul_(5).add_(torch.arange(pooled.shape[1]))  # The features are on no common scale.
    present = torch.ones(rows, 2, dtype=torch.bool)
    present[::4, 0] = False
    present[1::4, 1] = False
    return image, text, label.float() if facts.multilabel else label, present


def fitted(facts: Facts = FACTS, given: Any = None, **settings: Any) -> LinearNetwork:
    image, text, label, present = given or made(facts=facts)
    network = LogisticRegression(**settings).build(IMAGE, TEXT, facts)
    ids = [f"{row:03}" for row in range(len(label))]
    features = network.image.features(image), network.text.features(text)
    network.fit(TrainingFeatures(*features, present, label, ids), seed=0)
    return network.eval()


def scaled(features: Tensor) -> Tensor:
    return ((features - features.mean(0)) / features.std(0, correction=0)).double()


@pytest.mark.parametrize("width", [12, 200])
def test_solution_is_that_of_scikit_learn(width: int) -> None:
    """Also with more features than rows, which are rotated first."""
    torch.manual_seed(0)
    features = torch.randn(80, width, dtype=torch.float64)
    label = (features[:, :4] + torch.randn(80, 4)).argmax(1)
    several = (features[:, :4] > 0.3).double()
    reduced, basis = rotate(features)
    for target, multilabel in ((torch.eye(4, dtype=torch.float64)[label], False), (several, True)):
        found = fit(Rows(reduced, target, multilabel), c=0.05)
        weights, bias = rotate_back(found[:, :-1], basis), found[:, -1]
        for number in range(4 if multilabel else 1):
            theirs = Theirs(C=0.05, tol=1e-10, max_iter=5000).fit(features, several[:, number] if multilabel else label)
            rows = slice(number, number + 1) if multilabel else slice(None)
            torch.testing.assert_close(weights[rows], torch.tensor(theirs.coef_), rtol=0, atol=1e-4)
            torch.testing.assert_close(
                bias[rows] - (0 if multilabel else bias.mean()),
                torch.tensor(theirs.intercept_) - (0 if multilabel else theirs.intercept_.mean()),
                rtol=0,
                atol=1e-4,
            )


def test_c_has_the_lowest_log_loss_in_cross_validation() -> None:
    torch.manual_seed(0)
    features = torch.randn(90, 30, dtype=torch.float64)
    label = (features[:, :3] + 2 * torch.randn(90, 3)).argmax(1)
    target, fold = torch.eye(3, dtype=torch.float64)[label], torch.arange(90) % 5
    found = choose_c(Rows(features, target, multilabel=False), fold)
    grid = [10 ** (step / 2) for step in range(-8, 1)]
    parts = [(torch.where(fold != n)[0].numpy(), torch.where(fold == n)[0].numpy()) for n in range(5)]
    losses = {
        c: -cross_val_score(Theirs(C=c, max_iter=5000), features, label, cv=parts, scoring="neg_log_loss").mean()
        for c in grid
    }
    assert found.c == pytest.approx(min(losses, key=losses.__getitem__))
    assert found.loss == pytest.approx(min(losses.values()), abs=2e-3)


def test_folds_are_stratified_and_depend_on_the_ids_alone() -> None:
    target = torch.eye(3)[torch.tensor([0] * 50 + [1] * 10 + [2] * 5)]
    ids = [f"{row}" for row in range(65)]
    fold = stratified_folds(target, ids, seed=0)
    for start, stop, each in ((0, 50, 10), (50, 60, 2), (60, 65, 1)):
        assert fold[start:stop].bincount().tolist() == [each] * 5
    order = torch.randperm(65)
    assert torch.equal(stratified_folds(target[order], [ids[row] for row in order], seed=0), fold[order])
    assert not torch.equal(stratified_folds(target, ids, seed=1), fold)


@pytest.mark.parametrize("facts", [FACTS, SEVERAL], ids=["one label", "several labels"])
def test_each_pattern_is_a_regression_on_the_samples_that_can_show_it(facts: Facts) -> None:
    image, text, label, present = made(facts=facts)
    network = fitted(facts, layers=False, c=0.1)
    yes, no = torch.ones(len(label), dtype=torch.bool), torch.zeros(len(label), dtype=torch.bool)
    has_image, has_text = present.unbind(1)
    scales = [(encoded.pooled, has) for encoded, has in ((image, has_image), (text, has_text))]
    images, texts = (
        ((pooled - pooled[has].mean(0)) / pooled[has].std(0, correction=0)).double() for pooled, has in scales
    )
    for shown, features, rows in (
        ((yes, no), images, has_image),
        ((no, yes), texts, has_text),
        ((yes, yes), torch.cat([images, texts], 1), has_image & has_text),
    ):
        logits = network(image, text, *shown).logits
        for number in range(3 if facts.multilabel else 1):
            own = label[:, number] if facts.multilabel else label
            theirs = Theirs(C=0.1, tol=1e-10, max_iter=5000).fit(features[rows], own[rows])
            expected = torch.tensor(theirs.predict_proba(features))
            ours = logits[:, number].sigmoid() if facts.multilabel else logits.softmax(1)
            expected = expected[:, 1] if facts.multilabel else expected
            torch.testing.assert_close(ours.double(), expected, rtol=0, atol=1e-4)


def test_samples_without_a_modality_are_not_read_there() -> None:
    """Whatever stands in place of an absent modality, in training and in prediction."""
    image, text, label, present = made()
    expected = fitted(given=(image, text, label, present))
    spoiled_image, spoiled_text = (
        replace(encoded, pooled=torch.where(has.unsqueeze(1), encoded.pooled, torch.nan))
        for encoded, has in ((image, present[:, 0]), (text, present[:, 1]))
    )
    network = fitted(given=(spoiled_image, spoiled_text, label, present))
    for name, value in network.state_dict().items():
        assert torch.equal(value, expected.state_dict()[name]), name
    has_image, has_text = present.unbind(1)
    found = network(spoiled_image, spoiled_text, has_image, has_text).logits
    assert torch.equal(found, expected(image, text, has_image, has_text).logits)


def test_without_any_modality_the_class_frequencies_are_predicted() -> None:
    image, text, label, _ = made()
    no = torch.zeros(len(label), dtype=torch.bool)
    frequencies = torch.tensor(FACTS.class_frequencies).expand(len(label), 3)
    torch.testing.assert_close(fitted()(image, text, no, no).logits.softmax(1), frequencies)


def test_a_pattern_without_samples_predicts_the_class_frequencies() -> None:
    image, text, label, present = made()
    present[:, 0] = False
    yes, no = torch.ones(len(label), dtype=torch.bool), torch.zeros(len(label), dtype=torch.bool)
    network = fitted(given=(image, text, label, present))
    frequencies = torch.tensor(FACTS.class_frequencies).expand(len(label), 3)
    for shown in ((yes, yes), (yes, no)):
        torch.testing.assert_close(network(image, text, *shown).logits.softmax(1), frequencies)
    assert (network(image, text, no, yes).logits.argmax(1) == label).float().mean() > 0.7


@pytest.mark.parametrize("facts", [FACTS, SEVERAL], ids=["one label", "several labels"])
def test_a_class_that_a_pattern_lacks_keeps_its_frequency(facts: Facts) -> None:
    """No sample of the last class has an image."""
    image, text, label, present = made(facts=facts)
    present[:, 0] &= (label[:, 2] == 0) if facts.multilabel else (label != 2)
    network = fitted(facts, (image, text, label, present))
    yes, no = torch.ones(len(label), dtype=torch.bool), torch.zeros(len(label), dtype=torch.bool)
    logits = network(image, text, yes, no).logits
    found = (logits.sigmoid() if facts.multilabel else logits.softmax(1))[:, 2]
    assert found.min() > 0.01
    assert 0.05 < found.mean() < 0.35  # its frequency is 0.2
    assert not network.image.alone.weight[2].any()


@pytest.mark.parametrize("useful", [True, False])
def test_layers_are_read_if_they_help(useful: bool) -> None:
    """The label is in the tokens, or these are noise beside pooled embeddings that show it."""
    image, text, label, present = made(150, signal=0.0 if useful else 2.0)
    if useful:
        image.tokens[0] += 3 * torch.eye(4)[label].unsqueeze(1)
    network = fitted(given=(image, text, label, present), layers=None)
    assert bool(network.image.alone.weight[:, IMAGE.pooled :].any()) == useful
    assert network.image.alone.weight[:, : IMAGE.pooled].any()


def test_pairs_are_computed_as_one_by_one() -> None:
    image, text, *_ = made()
    network, rows = fitted(), torch.tensor([5, 5, 9, 2])
    others = torch.tensor([1, 5, 3, 3])
    has_image, has_text = torch.tensor([True, True, False, False]), torch.tensor([True, False] * 2)
    found = network.forward_pairs(image, text, rows, others, has_image, has_text).logits
    images, texts = image.map(lambda tensor: tensor[rows]), text.map(lambda tensor: tensor[others])
    torch.testing.assert_close(found, network(images, texts, has_image, has_text).logits)


def test_a_constant_feature_changes_nothing() -> None:
    image, text, label, present = made()
    image.pooled[:, 4] = 3.0
    network = fitted(given=(image, text, label, present), layers=False)
    other = image.map(torch.clone)
    other.pooled[:, 4] = 100.0
    yes = torch.ones(len(label), dtype=torch.bool)
    torch.testing.assert_close(network(other, text, yes, yes).logits, network(image, text, yes, yes).logits)


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_a_handful_of_samples_is_fitted(rows: int) -> None:
    image, text, label, present = made(rows)
    network = fitted(given=(image, text, label, torch.ones_like(present)))
    yes = torch.ones(rows, dtype=torch.bool)
    assert network(image, text, yes, yes).logits.isfinite().all()


@pytest.mark.parametrize("c", [0.0, -1.0, float("nan")])
def test_impossible_settings_are_refused(c: float) -> None:
    with pytest.raises(RobustTuneError, match=r"model.fusion.c is .*: give a number above 0, or null"):
        LogisticRegression(c=c)
