"""Training and evaluation of MMRL and MMRL++ on images, texts, or both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Self

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.nn import functional

from robusttune.encoders import ImageEncoder, TextEncoder
from robusttune.errors import RobustTuneError
from robusttune.evaluation import sample_losses
from robusttune.models import MMRL, MMRLNetwork
from robusttune.models.mmrl import SpaceTokens
from robusttune.models.prompts import Packed
from robusttune.models.runner import Runner
from robusttune.settings import from_plain, to_plain
from robusttune.tasks.base import Losses, OptimizerCallable, adamw, mean_over_ranks
from robusttune.tasks.prompted import COMBINATION_SMOOTHING, PromptedTask, expand_present, variants_of
from robusttune.tasks.schedule import Schedule
from robusttune.types import Batch, Facts, View


class Adapted(NamedTuple):
    """Quantities that depend on the trained weights alone, not on samples. They change with every training step.

    Attributes:
        tokens: Representation tokens that are inserted into the towers.
        classes: Features of the classes' prompts, shape (C, d_e), L2-normalised.
    """

    tokens: SpaceTokens
    classes: Tensor


class CachedAdapted(NamedTuple):
    """A cached `Adapted`, with the weights and the precision that it was computed from.

    Attributes:
        weights: Copies of the trained weights.
        precision: Dtype of autocast, or None if it was off.
        adapted: Cached result.
    """

    weights: list[Tensor]
    precision: torch.dtype | None
    adapted: Adapted

    def holds(self, weights: list[nn.Parameter], precision: torch.dtype | None) -> bool:
        """Return whether the result is still valid.

        Weights are compared by value, because version counters miss changes through ``Tensor.data``.

        Args:
            weights: Current weights.
            precision: Current dtype of autocast, or None if it is off.
        """
        return precision == self.precision and all(
            now.device == then.device and now.dtype == then.dtype and torch.equal(now, then)
            for now, then in zip(weights, self.weights, strict=True)
        )


class ImageLogits(NamedTuple):
    """Logits of a batch of images.

    Attributes:
        by_class: Logits of the class features, shape (B, C).
        by_representation: Logits of the representation features, shape (B, C).
        nearness: Cosine similarity of the class features to the features of CLIP without adaptation, shape (B,); zeros
            if it was not requested.
    """

    by_class: Tensor
    by_representation: Tensor
    nearness: Tensor


class ModalityLogits(NamedTuple):
    """Logits of each modality, by variant.

    Attributes:
        images: Logits of the images, by variant.
        texts: Logits of the texts, shape (B, C), by variant.
    """

    images: dict[str, ImageLogits]
    texts: dict[str, Tensor]


class MMRLTask(PromptedTask):
    """A task that trains MMRL (arXiv 2503.08497) or MMRL++ (arXiv 2505.10088) on a frozen CLIP.

    Let ``f`` and ``f_r`` be the class and the representation feature of an image, ``w`` the features of the classes'
    prompts, and ``f_0`` and ``w_0`` the features of the frozen CLIP for the same inputs. ``CE`` is the cross-entropy.
    The loss is ``alpha`` x CE(f) + (1 - ``alpha``) x CE(f_r) + ``reg_weight`` x (1 - cos(f, f_0) + 1 - cos(w, w_0)),
    averaged over images and over classes. A sample's own text goes through the same text tower, and ``text_weight`` x
    its cross-entropy is added.

    Logits of classes from training combine both features, those of new classes use ``f`` alone. The checkpoint records
    the classes of training.

    Args:
        image_encoder: Settings of the image encoder, a `CLIPImageEncoder`.
        text_encoder: Settings of the text encoder, a `CLIPTextEncoder` of the same CLIP.
        facts: Class names, class frequencies and kind of task, from the data.
        adapter: Settings of the trained network.
        templates: Prompt templates, with ``{}`` in place of the class name. The prompts of the first template are
            adapted; ``w_0`` is the mean over all templates.
        alpha: Weight of class features relative to representation features, in [0, 1].
        reg_weight: Weight of the distance to CLIP's own features, at least 0.
        text_weight: Weight of the cross-entropy of the samples' texts, at least 0.
        inference: Features for the logits of a class: ``recorded`` uses both for classes of training and the class
            feature alone for new ones; ``fused`` uses both for all classes; ``class`` uses the class feature alone.
        optimizer: Function that creates the optimiser of the trained parameters.
        schedule: Schedule of the learning rate.
        combination_smoothing: Constant added to each modality's class probabilities, see `PromptedTask`.
        calibrate: True to fit temperatures, see `RobustTask`.
        compile: True to run the adapted layers through torch.compile; results are the same up to rounding.
        checkpoint_activations: True to recompute activations in the backward pass, which saves memory; results are the
            same.

    Raises:
        RobustTuneError: The encoders are not the two towers of one CLIP, or a setting is out of its range.
    """

    _kept: CachedAdapted | None
    # The weights of losses matter in training only.
    free_settings = (*PromptedTask.free_settings, "reg_weight", "text_weight")

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        facts: Facts,
        adapter: MMRL = MMRL(),  # noqa: B008, the default is immutable
        templates: list[str] = ["a photo of a {}."],  # noqa: B006, the default is never modified
        alpha: float = 0.7,
        reg_weight: float = 5.0,
        text_weight: float = 1.0,
        inference: Literal["recorded", "fused", "class"] = "recorded",
        optimizer: OptimizerCallable = adamw,
        schedule: Schedule = Schedule(),  # noqa: B008, the default is immutable
        combination_smoothing: float = COMBINATION_SMOOTHING,
        calibrate: bool = False,
        compile: bool = False,
        checkpoint_activations: bool = False,
    ) -> None:
        if not (0 <= alpha <= 1 and reg_weight >= 0 and text_weight >= 0):  # This form refuses NaN, too.
            raise RobustTuneError(
                f"alpha {alpha}, reg_weight {reg_weight}, text_weight {text_weight} do not work: "
                "give an alpha in [0, 1], and weights of at least 0"
            )
        super().__init__(
            image_encoder, text_encoder, facts, templates, optimizer, schedule, combination_smoothing, calibrate
        )
        self.adapter = adapter
        self.alpha = alpha
        self.reg_weight = reg_weight
        self.text_weight = text_weight
        self.inference = inference
        self.network = MMRLNetwork(adapter, self.image_encoder.upper.shape, self.text_encoder.upper.shape)
        self.network.run = Runner(compile, checkpoint_activations)

    def settings(self) -> dict[str, Any]:
        """Return this task's own constructor arguments as plain data, see `RobustTask.settings`."""
        return {
            "adapter": to_plain(self.adapter),
            "templates": list(self.templates),
            "alpha": self.alpha,
            "reg_weight": self.reg_weight,
            "text_weight": self.text_weight,
            "combination_smoothing": self.combination_smoothing,
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any], **shared: Any) -> Self:
        """Construct a task from plain settings, encoders and facts, see `RobustTask.from_settings`."""
        return cls(**shared, **{**settings, "adapter": from_plain(settings["adapter"], MMRL)})

    def set_classes(self, class_names: list[str]) -> None:
        """Set the classes that the model predicts from now on, and log how many of them are new.

        Raises:
            RobustTuneError: See `PromptedTask.set_classes`.
        """
        super().set_classes(class_names)
        self._kept = None
        new = [name for name in class_names if name not in {*self.facts.class_names}]
        if new and self.inference == "recorded":
            rank_zero_info(
                f"{len(new)} of {len(class_names)} classes {'is' if len(new) == 1 else 'are'} new, such as {new[0]!r}: "
                "class features alone predict them"
            )

    def training_losses(self, batch: Batch, batch_idx: int) -> Losses:
        """Compute the losses of a training batch: of images and texts, and distances to the frozen CLIP's features."""
        assert batch.label is not None
        adapted, label = self._adapted(), batch.label
        images = self._image_logits(batch, ["clean"], adapted, untouched=True)["clean"]
        by_text = self._text_logits(batch, ["clean"], adapted)["clean"]
        by_class, by_representation = (sample_losses(logits, label) for logits in images[:2])
        image_losses = self.alpha * by_class + (1 - self.alpha) * by_representation
        text_losses = sample_losses(by_text, label)
        with_image, with_text = batch.image_present & batch.counted, batch.text_present & batch.counted
        parts = {
            "task_loss": mean_over_ranks(image_losses, with_image),
            "text_loss": mean_over_ranks(text_losses, with_text),
            "image_distance": mean_over_ranks(1 - images.nearness, with_image),
            "class_distance": 1 - functional.cosine_similarity(adapted.classes, self.prompts().untouched).mean(),
        }
        distance = parts["image_distance"] + parts["class_distance"]
        loss = parts["task_loss"] + self.text_weight * parts["text_loss"] + self.reg_weight * distance
        finite = (image_losses.isfinite() | ~batch.image_present) & (text_losses.isfinite() | ~batch.text_present)
        return Losses(loss, parts, finite)

    def logits(self, batch: Batch, views: Sequence[View]) -> Tensor:
        """Compute logits (W, B, C) under each of the ``W`` views, see `RobustTask.logits`."""
        return self._combined(batch, views, self._modality_logits(batch, views), self._uses_both_features())

    def metric_logits(self, batch: Batch, views: Sequence[View]) -> tuple[Tensor, Tensor | None]:
        """Compute logits for metrics, see `RobustTask.metric_logits`.

        If it is unknown whether a sample belongs to a new class, the logits of all classes use class features alone.
        """
        by_modality, by_both = self._modality_logits(batch, views), self._uses_both_features()
        known = self._combined(batch, views, by_modality, by_both)
        if self.inference != "recorded" or all(by_both) or not any(by_both):
            return known, None
        return known, self._combined(batch, views, by_modality, [False] * len(by_both))

    def _adapted(self) -> Adapted:
        """Compute tokens and class features in training; in evaluation, reuse them until a weight changes its value."""
        if torch.is_grad_enabled():
            return self._adapt()
        kind = self.device.type
        precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        weights = [*self.network.parameters()]
        if self._kept is None or not self._kept.holds(weights, precision):
            self._kept = CachedAdapted([p.detach().clone() for p in weights], precision, self._adapt())
        return self._kept.adapted

    def _adapt(self) -> Adapted:
        tokens = self.network.tokens()
        return Adapted(tokens, self.network.text_features(self.text_encoder.upper, self.prompts().packed, tokens.text))

    def _image_logits(
        self, batch: Batch, variants: Sequence[str], adapted: Adapted, untouched: bool
    ) -> dict[str, ImageLogits]:
        """Compute the logits of each variant of the images.

        Rows without an image get arbitrary values. The nearness is computed only if ``untouched`` is True.
        """
        if not variants or len(batch.images) == 0:
            zeros = self._zero_logits(batch)
            return dict.fromkeys(variants, ImageLogits(zeros, zeros, zeros[:, 0]))
        images = self.image_encoder.encode_lower(batch.images.pick(variants), untouched)
        states, upper = images.tokens[0], self.image_encoder.upper
        features, representation = self.network.image_features(upper, states, adapted.tokens.image)
        nearness = (features * images.pooled).sum(1) if untouched else features.new_zeros(len(features))
        logits = [self.cosine_logits(f, adapted.classes) for f in (features, representation)]
        parts = [values.chunk(len(variants)) for values in (*logits, nearness)]
        return {
            variant: ImageLogits(*(expand_present(values, batch.image_present) for values in outputs))
            for variant, outputs in zip(variants, zip(*parts, strict=True), strict=True)
        }

    def _text_logits(self, batch: Batch, variants: Sequence[str], adapted: Adapted) -> dict[str, Tensor]:
        """Compute the logits (B, C) of each variant of the texts. Rows without a text get arbitrary values."""
        if not variants or len(batch.texts) == 0:
            return dict.fromkeys(variants, self._zero_logits(batch))
        texts = self.text_encoder.encode_lower(batch.texts.pick(variants), untouched=False)
        start = self.prompts().packed.shared[:1]
        packed = Packed.of(texts.tokens[0], texts.mask[0], start.to(texts.tokens[0]))
        features = self.network.text_features(self.text_encoder.upper, packed, adapted.tokens.text)
        parts = self.cosine_logits(features, adapted.classes).chunk(len(variants))
        return {name: expand_present(logits, batch.text_present) for name, logits in zip(variants, parts, strict=True)}

    def _zero_logits(self, batch: Batch) -> Tensor:
        """Return zeros (B, C) that depend on all parameters: DDP hangs on a parameter that only some ranks use."""
        zero = torch.stack([0.0 * parameter.float().sum() for parameter in self.network.parameters()]).sum()
        return zero.expand(len(batch), len(self.class_names))

    def _uses_both_features(self) -> list[bool]:
        """Return for each class whether its logits combine class and representation features."""
        known = {*self.facts.class_names} if self.inference == "recorded" else {*self.class_names}
        return [name in known and self.inference != "class" for name in self.class_names]

    def _modality_logits(self, batch: Batch, views: Sequence[View]) -> ModalityLogits:
        """Compute the logits of all variants in the views. Each variant goes through its tower once."""
        adapted, (images, texts) = self._adapted(), variants_of(views)
        return ModalityLogits(
            self._image_logits(batch, images, adapted, untouched=False), self._text_logits(batch, texts, adapted)
        )

    def _combined(
        self, batch: Batch, views: Sequence[View], by_modality: ModalityLogits, by_both: list[bool]
    ) -> Tensor:
        """Combine both kinds of image features, then both modalities, to logits (W, B, C) of the views."""
        alpha = torch.tensor([self.alpha if both else 1.0 for both in by_both], dtype=torch.float32, device=self.device)
        images = {
            variant: alpha * logits.by_class + (1 - alpha) * logits.by_representation
            for variant, logits in by_modality.images.items()
        }
        return self.combine_modalities(batch, views, images, by_modality.texts)
