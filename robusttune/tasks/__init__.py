"""LightningModules for training and evaluation: losses, conditions, optimisers and checkpoints of each kind of model.

The networks themselves are in `robusttune.models`.
"""

from robusttune.tasks.base import RobustTask
from robusttune.tasks.fusion import FusionTask
from robusttune.tasks.mmrl import MMRLTask
from robusttune.tasks.schedule import Schedule
from robusttune.tasks.zero_shot import ZeroShotTask

__all__ = ["FusionTask", "MMRLTask", "RobustTask", "Schedule", "ZeroShotTask"]
