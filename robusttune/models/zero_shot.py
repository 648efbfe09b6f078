"""Zero-shot classification with a frozen CLIP or SigLIP."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robusttune.encoders.clip import FrozenCLIP
from robusttune.encoders.presence import expand_present, nan_if_absent
from robusttune.models.prompt_classifier import PromptClassifier
from robusttune.types import Batch, EncoderInputs, Variants, View, variants_of


class ZeroShotClassifier(PromptClassifier):
    """Zero-shot classification of images and texts by prompts of class names (CLIP, arXiv 2103.00020).

    The feature of a class is the mean over all templates. `PromptClassifier` lists the arguments and errors.

    Example:
        >>> from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
        >>> from robusttune.types import Facts
        >>> clip = {"name": "robusttune:demo_clip", "weights": "random", "first_layer": 2}
        >>> facts = Facts(["red circle", "blue square"], [0.5, 0.5], multilabel=False)
        >>> classifier = ZeroShotClassifier(CLIPImageEncoder(**clip), CLIPTextEncoder(**clip), facts)
        >>> classifier.set_classes(["red circle", "blue square", "red square"])
        >>> classifier.prompts().untouched.shape
        torch.Size([3, 128])
    """

    def logits(self, batch: Batch, views: Sequence[View]) -> Tensor:
        """Compute logits (W, B, C) under each of the ``W`` views, see `Classifier.logits`."""
        images, texts = variants_of(views)
        return self.combine_modalities(
            batch,
            views,
            self._modality_logits(self.image_encoder, batch.images, images, batch.image_present),
            self._modality_logits(self.text_encoder, batch.texts, texts, batch.text_present),
        )

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Compute embeddings in the space of CLIP, see `Classifier.embed` and `PromptClassifier.joint_embedding`."""
        image, text = (
            self._features(self.image_encoder, batch.images["clean"], batch.image_present),
            self._features(self.text_encoder, batch.texts["clean"], batch.text_present),
        )
        return self.joint_embedding(image, text), image, text

    def _features(self, encoder: FrozenCLIP, inputs: EncoderInputs, present: Tensor) -> Tensor:
        """Compute the features (B, d_e) of a modality, NaN in rows without it."""
        if len(inputs) == 0:
            return torch.full((len(present), self.prompts().untouched.shape[1]), torch.nan, device=self.device)
        features = encoder.encode_lower(inputs, untouched=True).pooled
        return nan_if_absent(expand_present(features, present), present)

    def _modality_logits(
        self, encoder: FrozenCLIP, inputs: Variants, names: list[str], present: Tensor
    ) -> dict[str, Tensor]:
        """Compute the logits (B, C) of each variant of a modality. Rows without it get arbitrary values."""
        if not names or len(inputs) == 0:
            return dict.fromkeys(names, torch.zeros(len(present), len(self.class_names), device=self.device))
        features = encoder.encode_lower(inputs.pick(names), untouched=True).pooled
        classes = self.prompts().untouched
        parts = self.cosine_logits(features, classes).view(len(names), -1, len(classes))
        return {name: expand_present(logits, present) for name, logits in zip(names, parts, strict=True)}
