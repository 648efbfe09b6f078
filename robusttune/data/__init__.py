"""From files to batches."""

from robusttune.data.corruption import Corruption
from robusttune.data.datamodule import ImageTextDataModule
from robusttune.data.missing import Missing, MissingBySplit
from robusttune.data.splits import Splits

__all__ = ["Corruption", "ImageTextDataModule", "Missing", "MissingBySplit", "Splits"]
