"""Temperatures: what is fitted, and to which samples."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss
from torch import Tensor
from torch.nn import functional

from robusttune.models.temperatures import COLDEST, HOTTEST, VIEWS, Temperatures, blocks_of, fit_temperature
from robusttune.types import View


def drawn(samples: int, classes: int, multilabel: bool = False, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits, and labels as these logits have it."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, classes, generator=generator)
    if multilabel:
        return logits, torch.bernoulli(logits.sigmoid(), generator=generator)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("true", [0.25, 1.0, 3.0])
def test_logits_that_are_too_sure_by_a_factor_are_divided_by_it(true: float, multilabel: bool) -> None:
    logits, label = drawn(4000, 5, multilabel)
    assert fit_temperature(true * logits, label) == pytest.approx(true, rel=0.06)


def test_nothing_makes_the_cross_entropy_less() -> None:
    for seed in range(3):
        logits, label = drawn(60, 4, seed=seed)

        def loss(temperature: float, logits: Tensor = logits, label: Tensor = label) -> float:
            """With one more sample, of which all classes are as likely."""
            shares = (logits.double() / temperature).softmax(1)
            found: float = 60 * log_loss(label, shares, labels=range(4)) - float(shares.log().mean())
            return found

        best = minimize_scalar(loss, bounds=(COLDEST, HOTTEST), method="bounded", options={"xatol": 1e-8})
        assert fit_temperature(logits, label) == pytest.approx(best.x, rel=1e-4)


def test_logits_that_say_nothing_or_are_always_right_stay_in_range() -> None:
    logits, label = drawn(50, 3)
    assert fit_temperature(1e-9 * functional.one_hot(label, 3), label) == pytest.approx(COLDEST)
    sure = [fit_temperature(5.0 * functional.one_hot(label[:n], 3), label[:n]) for n in (5, 20, 50)]
    assert COLDEST < sure[2] < sure[1] < sure[0]  # the more samples it is right on, the surer it may be
    assert fit_temperature(-1.0 * functional.one_hot(label, 3), label) == pytest.approx(HOTTEST)
    assert fit_temperature(logits[:0], label[:0]) == 1


def test_patterns() -> None:
    present = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    shown = {
        View(): [0, 1, 2, 3],
        View(text=None): [1, 1, 3, 3],
        View(image=None): [2, 3, 2, 3],
        View(None, None): [3, 3, 3, 3],
        View("blur_3", "typos_1"): [0, 1, 2, 3],
    }
    for view, numbers in shown.items():
        assert view.patterns(present).tolist() == numbers


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("lacking", ["image", "text"])
def test_each_pattern_has_its_own_samples_each_once(lacking: str, multilabel: bool) -> None:
    """Whatever other views there are, and in whatever order; those with noise and of nothing are left out."""
    generator = torch.Generator().manual_seed(1)
    views = [View("blur_1"), VIEWS[2], View(None, None), VIEWS[0], View("clean", "typos_2"), VIEWS[1]]
    true, label = drawn(90, 3, multilabel)
    logits = true + torch.randn(len(views), 90, 3, generator=generator)
    present = torch.ones(90, 2, dtype=torch.bool)
    alone = torch.arange(90) < 40
    present[alone, ("image", "text").index(lacking)] = False
    temperatures = Temperatures()
    of_view = dict(zip(views, logits, strict=True))
    rows = dict(zip(VIEWS, (present.all(1), present[:, 0], present[:, 1]), strict=True))
    expected = [fit_temperature(of_view[view][rows[view]], label[rows[view]]) for view in VIEWS]
    assert temperatures.fit(blocks_of(logits, label, present, views)) == pytest.approx(expected)
    assert temperatures.values.tolist() == pytest.approx([*expected, 1])
    calibrated, by_pattern = temperatures(logits, present, VIEWS[:1]), temperatures.values
    assert torch.equal(calibrated[0, ~alone], logits[0, ~alone] / by_pattern[0])
    of_one = by_pattern[2 if lacking == "image" else 1]
    assert torch.equal(calibrated[0, alone], logits[0, alone] / of_one)


def test_a_pattern_that_no_sample_has_stays_as_it_is() -> None:
    logits, label = drawn(90, 3)
    present = torch.tensor([[True, False]]).expand(90, 2)
    both, image, text = Temperatures().fit(blocks_of(logits.expand(3, 90, 3), label, present, VIEWS))
    assert (both, text) == (1, 1)
    assert image == pytest.approx(fit_temperature(logits, label))


def test_a_model_that_does_not_look_keeps_its_prior() -> None:
    """However little the labels at hand resemble it."""
    logits, label = torch.tensor([0.5, 0.3, 0.2]).log().expand(40, 3), torch.arange(40) % 3
    assert fit_temperature(logits, label) == 1
