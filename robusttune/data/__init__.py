"""Data loading: files on disk become batches for training and evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robusttune.corruption.dropout import ModalityDropout
from robusttune.corruption.missing import Missing, MissingBySplit
from robusttune.data.settings import CacheSettings, EvaluationSettings, LoaderSettings, TrainingSettings
from robusttune.data.splits import Splits
from robusttune.lazy import lazy_attributes

if TYPE_CHECKING:
    from robusttune.data.datamodule import ImageTextDataModule

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

# Reading and preprocessing of single samples do not need Lightning.
__getattr__ = lazy_attributes(__name__, {"ImageTextDataModule": "datamodule"})
