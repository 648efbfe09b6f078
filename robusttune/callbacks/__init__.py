"""Lightning callbacks that write a run's files: folder, checkpoints, masks, predictions and reports."""

from robusttune.callbacks.best_checkpoint import BestCheckpoint
from robusttune.callbacks.checkpoint_io import SafeCheckpointIO
from robusttune.callbacks.host_watch import HostWatch
from robusttune.callbacks.last_checkpoint import LastCheckpoint
from robusttune.callbacks.linear_baseline import LinearBaseline
from robusttune.callbacks.masks import MaskFiles
from robusttune.callbacks.notebook_progress import NotebookProgress
from robusttune.callbacks.prediction_progress import PredictionProgress
from robusttune.callbacks.predictions import PredictionWriter
from robusttune.callbacks.report import ConditionReport
from robusttune.callbacks.resumed import Resumed, TrainingState
from robusttune.callbacks.run_folder import RunFolder
from robusttune.callbacks.validation_interval import ValidationInterval

__all__ = [
    "BestCheckpoint",
    "ConditionReport",
    "HostWatch",
    "LastCheckpoint",
    "LinearBaseline",
    "MaskFiles",
    "NotebookProgress",
    "PredictionProgress",
    "PredictionWriter",
    "Resumed",
    "RunFolder",
    "SafeCheckpointIO",
    "TrainingState",
    "ValidationInterval",
]
