"""From files to batches."""

from robusttune.data.corruption import Corruption
from robusttune.data.datamodule import ImageTextDataModule

__all__ = ["Corruption", "ImageTextDataModule"]
