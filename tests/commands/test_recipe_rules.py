"""What `recipe: auto` chooses for data of all sizes."""

from __future__ import annotations

from math import ceil
from typing import Any

import pytest

from robusttune.commands.recipe_rules import FITTED_AT_ONCE, TRAINED, Situation, choose


def chosen(rows: int, classes: int = 10, **settings: Any) -> dict[str, Any]:
    return choose(Situation(rows, classes, **settings)).settings


@pytest.mark.parametrize(
    ("rows", "classes", "overlay"),
    [
        (40, 2, FITTED_AT_ONCE),
        (5_000, 50, FITTED_AT_ONCE),
        (5_000, 51, TRAINED),  # many rows x classes
        (5_001, 2, TRAINED),
        (1_000, 250, FITTED_AT_ONCE),
    ],
)
def test_small_data_are_fitted_at_once(rows: int, classes: int, overlay: str) -> None:
    assert choose(Situation(rows, classes)).overlay == overlay


@pytest.mark.parametrize("rows", [1, 63, 64, 427, 1_999, 2_000, 6_101, 19_999, 20_000, 75_000, 1_000_000])
def test_a_training_has_enough_steps_and_about_twenty_validations(rows: int) -> None:
    found = chosen(rows, fusion="MoLT")
    batch, epochs, every = (
        found[name] for name in ("data.batch_size", "trainer.max_epochs", "trainer.check_val_every_n_epoch")
    )
    steps = epochs * ceil(rows / batch)
    assert batch == (64 if rows < 2_000 else 128 if rows < 20_000 else 256)
    assert steps >= 1_500
    assert epochs >= 10
    assert steps < 1_700 or epochs == 10, "no longer than that"
    assert epochs % every == 0, "the last epoch is validated"
    assert epochs / every <= 40
    assert every * ceil(rows / batch) >= 30, "no validation after a handful of steps"
    assert (found["data.cache.folder"] == "auto") == (rows <= 100_000)


def test_numbers_of_the_user_count() -> None:
    """The batch size decides how many epochs there are; of the user's own epochs, the last one is validated."""
    assert chosen(1_000, fusion="MoLT", batch_size=500)["trainer.max_epochs"] == 777, "1,554 steps, 21 validations"
    own = chosen(1_000, fusion="MoLT", max_epochs=250)
    assert (own["trainer.max_epochs"], own["trainer.check_val_every_n_epoch"]) == (250, 10)
    assert chosen(1_000, fusion="MoLT", max_epochs=7)["trainer.check_val_every_n_epoch"] == 1
    assert "trainer.max_epochs" not in chosen(1_000, fusion="MoLT", max_steps=1_600), "which might end it before"


def test_a_model_that_is_fitted_at_once_stays_so_on_large_data() -> None:
    assert choose(Situation(1_000_000, 1_000, fusion="LogisticRegression")).overlay == FITTED_AT_ONCE
    assert choose(Situation(1_000, 10, fusion="Experts")).overlay is None, "the model of the user has its own settings"


def test_it_is_said_in_words() -> None:
    assert choose(Situation(427, 15)).summary == (
        "427 training rows, 15 classes: stacking of logistic regression and kernel regression, fitted at once, from "
        "features that are computed once"
    )
    assert choose(Situation(427, 15, needs_steps="model.optimizer", random_inputs=True)).summary == (
        "427 training rows, 15 classes: Experts, 1,540 steps in 220 epochs of 7 batches of 64 (since model.optimizer "
        "is set)"
    )
    own = choose(Situation(6_000, 2, fusion="MoLT", needs_steps="model.optimizer"))
    assert own.summary == (
        "6,000 training rows, 2 classes: MoLT, 1,504 steps in 32 epochs of 47 batches of 128, from features that are "
        "computed once"
    )
