"""Thin LightningModules: what is trained, on what loss, tested under which conditions."""

from robusttune.tasks.base import RobustTask
from robusttune.tasks.fusion import FusionTask
from robusttune.tasks.mmrl import MMRLTask
from robusttune.tasks.schedule import Schedule

__all__ = ["FusionTask", "MMRLTask", "RobustTask", "Schedule"]
