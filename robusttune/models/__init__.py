"""Networks and losses as plain torch modules: they use no files, configurations or trainers."""

from robusttune.models.base import Fused, FusionModel, FusionNetwork
from robusttune.models.baselines import Concatenation, ImageOnly, LateFusion, TextOnly
from robusttune.models.cross_attention import CrossAttention
from robusttune.models.experts import Experts
from robusttune.models.losses import CorrelationLoss
from robusttune.models.mmrl import MMRL, MMRLNetwork
from robusttune.models.molt import MoLT, MoLTNetwork

__all__ = [
    "MMRL",
    "Concatenation",
    "CorrelationLoss",
    "CrossAttention",
    "Experts",
    "Fused",
    "FusionModel",
    "FusionNetwork",
    "ImageOnly",
    "LateFusion",
    "MMRLNetwork",
    "MoLT",
    "MoLTNetwork",
    "TextOnly",
]
