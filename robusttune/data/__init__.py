"""From files to batches."""

from robusttune.corruption.dropout import Corruption
from robusttune.corruption.missing import Missing, MissingBySplit
from robusttune.data.datamodule import ImageTextDataModule
from robusttune.data.splits import Splits

__all__ = ["Corruption", "ImageTextDataModule", "Missing", "MissingBySplit", "Splits"]
