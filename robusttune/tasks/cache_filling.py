"""Filling of the feature cache before the first batch is read."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from robusttune.models.classifier import ENCODERS


class CacheFilling(Callback):
    """A callback that fills the data module's feature cache with a task's encoders, and then frees their memory.

    `RobustTask.configure_callbacks` returns it, so every Trainer that runs a task has it. Nothing happens without a
    cache. Every rank takes part.

    Example:
        >>> CacheFilling().state_key  # it has no state in checkpoints
        'CacheFilling'
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compute the features that the cache lacks for a stage. Lightning calls this after the data module's setup.

        Raises:
            RobustTuneError: The model cannot predict the data's classes, or the cache cannot be filled.
        """
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if getattr(data, "feature_cache", None) is None:
            return
        # Lightning calls the setup of the task after this hook. Call it now: settings that do not work must be refused
        # before hours of computing, and the classes decide which prompts are encoded before the encoders are released.
        pl_module.setup(stage)
        classifier: Any = pl_module.classifier
        # The Trainer converts and moves the model in the same way, but only later.
        convert, device = trainer.precision_plugin.convert_module, trainer.strategy.root_device
        data.fill_cache(stage, {name: convert(classifier.encoder(name)).to(device) for name in ENCODERS})
        classifier.release_encoders()
