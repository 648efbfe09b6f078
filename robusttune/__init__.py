"""Robust tuning of frozen image and text encoders for image-text classification."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robusttune.lazy import lazy_attributes

if TYPE_CHECKING:
    from robusttune.commands.from_python import fit
    from robusttune.data.datamodule import ImageTextDataModule
    from robusttune.errors import RobustTuneError
    from robusttune.inference import Predictor, load
    from robusttune.tasks import FusionTask, MMRLTask, ZeroShotTask

__version__ = "0.1.0"
__all__ = [
    "FusionTask",
    "ImageTextDataModule",
    "MMRLTask",
    "Predictor",
    "RobustTuneError",
    "ZeroShotTask",
    "fit",
    "load",
]

# These are imported on first use: none of them is needed by every command.
__getattr__ = lazy_attributes(
    __name__,
    {
        "FusionTask": "tasks",
        "ImageTextDataModule": "data.datamodule",
        "MMRLTask": "tasks",
        "Predictor": "inference",
        "RobustTuneError": "errors",
        "ZeroShotTask": "tasks",
        "fit": "commands.from_python",
        "load": "inference",
    },
)
