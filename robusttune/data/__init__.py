"""Data loading: files on disk become batches for training and evaluation."""

from robusttune.corruption.dropout import ModalityDropout
from robusttune.corruption.missing import Missing, MissingBySplit
from robusttune.data.datamodule import ImageTextDataModule
from robusttune.data.settings import CacheSettings, EvaluationSettings, LoaderSettings, TrainingSettings
from robusttune.data.splits import Splits

__all__ = [
    "CacheSettings",
    "EvaluationSettings",
    "ImageTextDataModule",
    "LoaderSettings",
    "Missing",
    "MissingBySplit",
    "ModalityDropout",
    "Splits",
    "TrainingSettings",
]
