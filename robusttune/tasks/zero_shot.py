"""Zero-shot classification with a frozen CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robusttune.encoders import ImageEncoder, TextEncoder
from robusttune.encoders.clip import FrozenCLIP
from robusttune.tasks.base import Losses
from robusttune.tasks.prompted import COMBINATION_SMOOTHING, PromptedTask, expand_present, variants_of
from robusttune.types import Batch, Facts, Variants, View


class ZeroShotTask(PromptedTask):
    """A task for zero-shot classification (CLIP, arXiv 2103.00020) of images and texts by prompts of class names.

    Nothing is trained. A fit writes the checkpoint that ``test`` and ``predict`` need, and fits temperatures if
    ``calibrate`` is on.

    Args:
        image_encoder: Settings of the image encoder, a `CLIPImageEncoder`.
        text_encoder: Settings of the text encoder, a `CLIPTextEncoder` of the same CLIP.
        facts: Class names, class frequencies and kind of task, from the data.
        templates: Prompt templates, with ``{}`` in place of the class name. The feature of a class is the mean over all
            templates.
        combination_smoothing: Constant added to each modality's class probabilities, see `PromptedTask`.
        calibrate: True to fit temperatures, see `RobustTask`.

    Raises:
        RobustTuneError: See `PromptedTask`.
    """

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        facts: Facts,
        templates: list[str] = ["a photo of a {}."],  # noqa: B006, the default is never modified
        combination_smoothing: float = COMBINATION_SMOOTHING,
        calibrate: bool = False,
    ) -> None:
        super().__init__(
            image_encoder,
            text_encoder,
            facts,
            templates,
            combination_smoothing=combination_smoothing,
            calibrate=calibrate,
        )
        self.nothing = nn.Parameter(torch.zeros(()))  # DDP needs a parameter to train.

    def settings(self) -> dict[str, Any]:
        """Return this task's own constructor arguments as plain data, see `RobustTask.settings`."""
        return {"templates": list(self.templates), "combination_smoothing": self.combination_smoothing}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return a loss of 0, since nothing is trained."""
        return 0.0 * self.nothing

    def training_losses(self, batch: Batch, batch_idx: int) -> Losses:
        """Raise AssertionError: there are no losses, and `training_step` does not ask for them."""
        raise AssertionError("nothing is trained")

    def configure_optimizers(self) -> None:
        """Return None: there is no optimiser."""

    def logits(self, batch: Batch, views: Sequence[View]) -> Tensor:
        """Compute logits (W, B, C) under each of the ``W`` views, see `RobustTask.logits`."""
        images, texts = variants_of(views)
        return self.combine_modalities(
            batch,
            views,
            self._modality_logits(self.image_encoder, batch.images, images, batch.image_present),
            self._modality_logits(self.text_encoder, batch.texts, texts, batch.text_present),
        )

    def _modality_logits(
        self, encoder: FrozenCLIP, inputs: Variants, names: list[str], present: Tensor
    ) -> dict[str, Tensor]:
        """Compute the logits (B, C) of each variant of a modality. Rows without it get arbitrary values."""
        if not names or len(inputs) == 0:
            return dict.fromkeys(names, torch.zeros(len(present), len(self.class_names), device=self.device))
        features = encoder.encode_lower(inputs.pick(names), untouched=True).pooled
        parts = self.cosine_logits(features, self.prompts().untouched).chunk(len(names))
        return {name: expand_present(logits, present) for name, logits in zip(names, parts, strict=True)}
