"""Estimate the cost of a training run (memory, disk, time, traffic) by measuring a few real steps."""

from robusttune.planning.estimate import estimate
from robusttune.planning.extent import Extent
from robusttune.planning.measurement import TRAINER
from robusttune.planning.plan import Plan

__all__ = ["TRAINER", "Extent", "Plan", "estimate"]
