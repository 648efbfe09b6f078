"""Checks before a fit on imbalanced classes: a note if nothing balances them, an error if two settings do."""

from __future__ import annotations

from typing import Any

from robusttune.data.balance import imbalance_note, training_sizes
from robusttune.errors import RobustTuneError
from robusttune.models.balance import Balance
from robusttune.types import Facts


def refuse_double_correction(balance: Balance, data: Any) -> None:
    """Check that the loss or the predictions do not correct class frequencies that the sampling has changed.

    Args:
        balance: Settings of the model.
        data: Data module of any kind.

    Raises:
        RobustTuneError: Both correct the class frequencies.
    """
    if _sampling(data) is not None and balance.corrections:
        raise RobustTuneError(
            f"data.training.balance and {balance.corrections[0]} would correct the class frequencies twice: set one of "
            "them"
        )


def note_of_imbalance(facts: Facts, balance: Balance, data: Any) -> str | None:
    """Return a note for classes that are imbalanced while no setting balances them; else None.

    Args:
        facts: Class frequencies of the training data.
        balance: Settings of the model.
        data: Data module of any kind.
    """
    return imbalance_note(training_sizes(facts)) if balance == Balance() and _sampling(data) is None else None


def _sampling(data: Any) -> str | None:
    """Return the kind of balanced sampling of a data module, or None if it has none."""
    sampling: str | None = getattr(getattr(data, "training", None), "balance", None)
    return sampling
