"""Thin LightningModules: what is trained, on what loss, tested under which conditions."""

from robusttune.tasks.base import RobustTask, Schedule
from robusttune.tasks.fusion import FusionTask

__all__ = ["FusionTask", "RobustTask", "Schedule"]
