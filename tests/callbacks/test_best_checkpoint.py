"""Which checkpoint is the best."""

from __future__ import annotations

import pytest

from robusttune.callbacks import BestCheckpoint


@pytest.mark.parametrize(
    ("metric", "mode"),
    [("accuracy", "max"), ("auroc", "max"), ("loss", "min"), ("brier", "min"), ("calibration_error", "min")],
)
def test_less_is_better_of_what_is_an_error(metric: str, mode: str) -> None:
    assert BestCheckpoint(f"val/mean/{metric}").mode == mode
