"""The learning rate over training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from robusttune.errors import RobustTuneError


@dataclass(frozen=True)
class Schedule:
    """The learning rate over training, as a share of the optimiser's.

    Args:
        name: how it falls after the warm-up: as a half ``cosine``, ``linear``, or not at all.
        warmup: share of training in which the learning rate rises from 0, in [0, 1].
        warmup_rate: share of the learning rate, in [0, 1], at which it stays during the warm-up instead of rising; it
            then falls as slowly as without a warm-up, and so not to the end, as in the recipes of MMRL.
        every: whether it changes with every ``step`` or every ``epoch``.

    Raises:
        RobustTuneError: a share is none.
    """

    name: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup: float = 0.05
    warmup_rate: float | None = None
    every: Literal["step", "epoch"] = "step"

    def __post_init__(self) -> None:
        for name, value in (("warmup", self.warmup), ("warmup_rate", self.warmup_rate)):
            if value is not None and not 0 <= value <= 1:
                raise RobustTuneError(f"schedule.{name} is {value}: give a share from 0 to 1")

    def factor(self, done: int, total: int) -> float:
        """The share after so many steps or epochs of all."""
        warm = round(self.warmup * total)
        if done < warm:
            return done / warm if self.warmup_rate is None else self.warmup_rate
        falling = total - warm if self.warmup_rate is None else total
        progress = min(1.0, (done - warm) / max(1, falling))
        falls = {"cosine": 0.5 * (1 + math.cos(math.pi * progress)), "linear": 1 - progress}
        return falls.get(self.name, 1.0)
