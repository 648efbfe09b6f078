"""The schedule of the learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from robusttune.errors import RobustTuneError


@dataclass(frozen=True)
class Schedule:
    """A schedule of the learning rate, as a factor of the optimiser's learning rate.

    Args:
        name: Shape of the decay after the warm-up: ``cosine`` (half a period), ``linear``, or none
            (``constant_with_warmup``).
        warmup: Fraction of training for the warm-up, in [0, 1]. During it the factor rises linearly from 0 to 1.
        warmup_rate: Constant factor during the warm-up, in [0, 1], in place of the rise. The decay then has the length
            of the whole training, and so does not reach 0, as in the recipes of MMRL.
        every: Unit of the changes: every ``step`` or every ``epoch``.

    Raises:
        RobustTuneError: A fraction is not in [0, 1].

    Example:
        >>> schedule = Schedule("linear", warmup=0.5)
        >>> [schedule.factor(done, 4) for done in range(5)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
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
        """Return the factor of the learning rate.

        Args:
            done: Number of finished steps or epochs.
            total: Number of all steps or epochs of the training.
        """
        warm = round(self.warmup * total)
        if done < warm:
            return done / warm if self.warmup_rate is None else self.warmup_rate
        falling = total - warm if self.warmup_rate is None else total
        progress = min(1.0, (done - warm) / max(1, falling))
        falls = {"cosine": 0.5 * (1 + math.cos(math.pi * progress)), "linear": 1 - progress}
        return falls.get(self.name, 1.0)
