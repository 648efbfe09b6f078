"""Classifiers, networks and losses as plain torch modules: they use no configurations or trainers."""

from robusttune.models.balance import Balance
from robusttune.models.base import Fused, FusionModel, FusionNetwork
from robusttune.models.baselines import Concatenation, ImageOnly, LateFusion, TextOnly
from robusttune.models.classifier import Classifier
from robusttune.models.cross_attention import CrossAttention
from robusttune.models.dcp import DCP, DCPNetwork
from robusttune.models.dpl import DPL, DPLNetwork
from robusttune.models.experts import Experts
from robusttune.models.fusion_classifier import FusionClassifier
from robusttune.models.linear import LinearNetwork, LogisticRegression
from robusttune.models.losses import CorrelationLoss
from robusttune.models.low_rank import LoRA, LowRankNetwork
from robusttune.models.mmrl import MMRL, MMRLNetwork
from robusttune.models.mmrl_classifier import MMRLClassifier
from robusttune.models.molt import MoLT, MoLTNetwork
from robusttune.models.mora import MoRA
from robusttune.models.prototypes import Prototypes
from robusttune.models.stacking import Stacking, StackingNetwork
from robusttune.models.zero_shot import ZeroShotClassifier

__all__ = [
    "DCP",
    "DPL",
    "MMRL",
    "Balance",
    "Classifier",
    "Concatenation",
    "CorrelationLoss",
    "CrossAttention",
    "DCPNetwork",
    "DPLNetwork",
    "Experts",
    "Fused",
    "FusionClassifier",
    "FusionModel",
    "FusionNetwork",
    "ImageOnly",
    "LateFusion",
    "LinearNetwork",
    "LoRA",
    "LogisticRegression",
    "LowRankNetwork",
    "MMRLClassifier",
    "MMRLNetwork",
    "MoLT",
    "MoLTNetwork",
    "MoRA",
    "Prototypes",
    "Stacking",
    "StackingNetwork",
    "TextOnly",
    "ZeroShotClassifier",
]
