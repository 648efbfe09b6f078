"""Networks and losses: tensors in, tensors out; nothing here knows of files, configurations or trainers."""

from robusttune.models.base import Fused, FusionModel, FusionNetwork
from robusttune.models.losses import CorrelationLoss
from robusttune.models.molt import MoLT, MoLTNetwork

__all__ = ["CorrelationLoss", "Fused", "FusionModel", "FusionNetwork", "MoLT", "MoLTNetwork"]
