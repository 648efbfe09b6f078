"""A CLIP as it is: nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robusttune.encoders import ImageEncoder, TextEncoder
from robusttune.encoders.clip import FrozenCLIP
from robusttune.tasks.base import Losses
from robusttune.tasks.prompted import COMBINATION_SMOOTHING, PromptedTask, spread, variants_of
from robusttune.types import Batch, Facts, Variants, View


class ZeroShotTask(PromptedTask):
    """Zero-shot classification (CLIP, arXiv 2103.00020): images and texts beside the prompts of class names.

    There is nothing to train: a fit writes the checkpoint that other verbs ask for, and temperatures if wanted.

    Args:
        image_encoder: settings of the image encoder, of which the class is `CLIPImageEncoder`.
        text_encoder: settings of the text encoder, of which the class is `CLIPTextEncoder`, of the same CLIP.
        facts: class names, class frequencies and task kind, from the data.
        templates: of prompts, with ``{}`` where the name of the class stands; a class's feature is the mean over all.
        combination_smoothing: Constant added to each modality's class probabilities, see `PromptedTask`.
        calibrate: fit temperatures, see `RobustTask`.
    """

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        facts: Facts,
        templates: list[str] = ["a photo of a {}."],  # noqa: B006, it stays as it is
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
        self.nothing = nn.Parameter(torch.zeros(()))  # which DDP asks for

    def settings(self) -> dict[str, Any]:
        return {"templates": list(self.templates), "combination_smoothing": self.combination_smoothing}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Nothing is learned."""
        return 0.0 * self.nothing

    def training_losses(self, batch: Batch, batch_idx: int) -> Losses:
        raise AssertionError("nothing is trained")

    def configure_optimizers(self) -> None:
        """None."""

    def logits(self, batch: Batch, views: Sequence[View]) -> Tensor:
        images, texts = variants_of(views)
        return self.combine_modalities(
            batch,
            views,
            self._of(self.image_encoder, batch.images, images, batch.image_present),
            self._of(self.text_encoder, batch.texts, texts, batch.text_present),
        )

    def _of(self, encoder: FrozenCLIP, inputs: Variants, names: list[str], present: Tensor) -> dict[str, Tensor]:
        """(B, C) by variant, of rows without the side something of no meaning."""
        if not names or len(inputs) == 0:
            return dict.fromkeys(names, torch.zeros(len(present), len(self.class_names), device=self.device))
        features = encoder.enter(inputs.pick(names), untouched=True).pooled
        parts = self.cosine_logits(features, self.prompts().untouched).chunk(len(names))
        return {name: spread(logits, present) for name, logits in zip(names, parts, strict=True)}
