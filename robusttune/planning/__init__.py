"""What a training will cost, told from a few real steps of it."""

from robusttune.planning.estimate import TRAINER, estimate
from robusttune.planning.extent import Extent
from robusttune.planning.plan import Plan

__all__ = ["TRAINER", "Extent", "Plan", "estimate"]
