"""MMRL and MMRL++ on images, texts, or both."""

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
from robusttune.tasks.prompted import COMBINATION_SMOOTHING, PromptedTask, spread, variants_of
from robusttune.tasks.schedule import Schedule
from robusttune.types import Batch, Facts, View


class Adapted(NamedTuple):
    """What does not depend on samples, but changes with every step of training.

    Attributes:
        tokens: that go into the towers.
        classes: (C, d_e) features of the classes' prompts, of length 1.
    """

    tokens: SpaceTokens
    classes: Tensor


class Kept(NamedTuple):
    """What was computed, with the weights and the autocast precision that it was computed with."""

    weights: list[Tensor]
    precision: torch.dtype | None
    adapted: Adapted

    def holds(self, weights: list[nn.Parameter], precision: torch.dtype | None) -> bool:
        """By value: version counters do not see changes through ``data``."""
        return precision == self.precision and all(
            now.device == then.device and now.dtype == then.dtype and torch.equal(now, then)
            for now, then in zip(weights, self.weights, strict=True)
        )


class ImageLogits(NamedTuple):
    """(B, C) logits of class and of representation features, and (B,) cosines of the former to those of CLIP itself."""

    by_class: Tensor
    by_representation: Tensor
    nearness: Tensor


class Sides(NamedTuple):
    """Logits by variant of the images, and (B, C) by variant of the texts."""

    images: dict[str, ImageLogits]
    texts: dict[str, Tensor]


class MMRLTask(PromptedTask):
    """MMRL (arXiv 2503.08497) and MMRL++ (arXiv 2505.10088).

    With ``f`` and ``f_r`` the class and the representation feature of an image, ``w`` the features of the classes'
    prompts, and ``f_0``, ``w_0`` what the untouched CLIP makes of them, the loss is ``alpha`` x the cross-entropy by
    ``f`` + (1 - ``alpha``) x that by ``f_r`` + ``reg_weight`` x (1 - cos(f, f_0) + 1 - cos(w, w_0)), means over images
    and over classes. A sample's own text goes through the same text tower, and ``text_weight`` x its cross-entropy is
    added.

    Classes of training are answered by both features, new ones by ``f`` alone, and which is which follows from the
    checkpoint.

    Args:
        image_encoder: settings of the image encoder, of which the class is `CLIPImageEncoder`.
        text_encoder: settings of the text encoder, of which the class is `CLIPTextEncoder`, of the same CLIP.
        facts: class names, class frequencies and task kind, from the data.
        adapter: settings of what is trained.
        templates: of prompts, with ``{}`` where the name of the class stands. The first one's prompts are adapted;
            ``w_0`` is the mean over all.
        alpha: weight of class features beside representation features, in [0, 1].
        reg_weight: weight of the distance to CLIP's own features, at least 0.
        text_weight: weight of the cross-entropy of the samples' texts, at least 0.
        inference: which features answer for a class: as ``recorded`` in the checkpoint, both if it was trained and the
            class feature alone if not; or both for all (``fused``); or the class feature alone for all (``class``).
        optimizer: makes the optimiser of the trained parameters.
        schedule: of the learning rate.
        combination_smoothing: Constant added to each modality's class probabilities, see `PromptedTask`.
        calibrate: fit temperatures, see `RobustTask`.
        compile: run the adapted layers through torch.compile; results are the same but for rounding.
        checkpoint_activations: keep less for the backward pass and compute it again there; results are the same.

    Raises:
        RobustTuneError: the encoders are not the two towers of one CLIP, or a setting does not work.
    """

    _kept: Kept | None
    # Weights of losses matter to training alone.
    free_settings = (*PromptedTask.free_settings, "reg_weight", "text_weight")

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        facts: Facts,
        adapter: MMRL = MMRL(),  # noqa: B008, it is frozen
        templates: list[str] = ["a photo of a {}."],  # noqa: B006, it stays as it is
        alpha: float = 0.7,
        reg_weight: float = 5.0,
        text_weight: float = 1.0,
        inference: Literal["recorded", "fused", "class"] = "recorded",
        optimizer: OptimizerCallable = adamw,
        schedule: Schedule = Schedule(),  # noqa: B008, it is frozen
        combination_smoothing: float = COMBINATION_SMOOTHING,
        calibrate: bool = False,
        compile: bool = False,
        checkpoint_activations: bool = False,
    ) -> None:
        if not (0 <= alpha <= 1 and reg_weight >= 0 and text_weight >= 0):  # not a number is none of it
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
        return cls(**shared, **{**settings, "adapter": from_plain(settings["adapter"], MMRL)})

    def set_classes(self, class_names: list[str]) -> None:
        super().set_classes(class_names)
        self._kept = None
        new = [name for name in class_names if name not in {*self.facts.class_names}]
        if new and self.inference == "recorded":
            rank_zero_info(
                f"{len(new)} of {len(class_names)} classes {'is' if len(new) == 1 else 'are'} new, such as {new[0]!r}: "
                "class features alone answer for them"
            )

    def training_losses(self, batch: Batch, batch_idx: int) -> Losses:
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
        return self._combined(batch, views, self._sides(batch, views), self._answered_by_both())

    def evaluation_logits(self, batch: Batch, views: Sequence[View]) -> tuple[Tensor, Tensor | None]:
        """Where nothing says whether a sample is of a new class, class features answer for all of them."""
        sides, by_both = self._sides(batch, views), self._answered_by_both()
        known = self._combined(batch, views, sides, by_both)
        if self.inference != "recorded" or all(by_both) or not any(by_both):
            return known, None
        return known, self._combined(batch, views, sides, [False] * len(by_both))

    def _adapted(self) -> Adapted:
        """Anew in training; in evaluation once, until a weight has another value, whoever changed it, and however."""
        if torch.is_grad_enabled():
            return self._adapt()
        kind = self.device.type
        precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        weights = [*self.network.parameters()]
        if self._kept is None or not self._kept.holds(weights, precision):
            self._kept = Kept([p.detach().clone() for p in weights], precision, self._adapt())
        return self._kept.adapted

    def _adapt(self) -> Adapted:
        tokens = self.network.tokens()
        return Adapted(tokens, self.network.text_features(self.text_encoder.upper, self.prompts().packed, tokens.text))

    def _image_logits(
        self, batch: Batch, variants: Sequence[str], adapted: Adapted, untouched: bool
    ) -> dict[str, ImageLogits]:
        """Of the rows without an image, something of no meaning; the nearness only where it is asked for."""
        if not variants or len(batch.images) == 0:
            nothing = self._nothing(batch)
            return dict.fromkeys(variants, ImageLogits(nothing, nothing, nothing[:, 0]))
        images = self.image_encoder.enter(batch.images.pick(variants), untouched)
        states, upper = images.tokens[0], self.image_encoder.upper
        features, representation = self.network.image_features(upper, states, adapted.tokens.image)
        nearness = (features * images.pooled).sum(1) if untouched else features.new_zeros(len(features))
        logits = [self.cosine_logits(f, adapted.classes) for f in (features, representation)]
        parts = [values.chunk(len(variants)) for values in (*logits, nearness)]
        return {
            variant: ImageLogits(*(spread(values, batch.image_present) for values in of_variant))
            for variant, of_variant in zip(variants, zip(*parts, strict=True), strict=True)
        }

    def _text_logits(self, batch: Batch, variants: Sequence[str], adapted: Adapted) -> dict[str, Tensor]:
        """(B, C) each, of the rows without a text something of no meaning."""
        if not variants or len(batch.texts) == 0:
            return dict.fromkeys(variants, self._nothing(batch))
        texts = self.text_encoder.enter(batch.texts.pick(variants), untouched=False)
        start = self.prompts().packed.shared[:1]
        packed = Packed.of(texts.tokens[0], texts.mask[0], start.to(texts.tokens[0]))
        features = self.network.text_features(self.text_encoder.upper, packed, adapted.tokens.text)
        parts = self.cosine_logits(features, adapted.classes).chunk(len(variants))
        return {name: spread(logits, batch.text_present) for name, logits in zip(variants, parts, strict=True)}

    def _nothing(self, batch: Batch) -> Tensor:
        """(B, C) zeros that keep all parameters in the graph: one that is used on some ranks only stops DDP."""
        zero = torch.stack([0.0 * parameter.float().sum() for parameter in self.network.parameters()]).sum()
        return zero.expand(len(batch), len(self.class_names))

    def _answered_by_both(self) -> list[bool]:
        """For each class whether representation features answer for it, too."""
        known = {*self.facts.class_names} if self.inference == "recorded" else {*self.class_names}
        return [name in known and self.inference != "class" for name in self.class_names]

    def _sides(self, batch: Batch, views: Sequence[View]) -> Sides:
        """Each variant goes through its tower once."""
        adapted, (images, texts) = self._adapted(), variants_of(views)
        return Sides(
            self._image_logits(batch, images, adapted, untouched=False), self._text_logits(batch, texts, adapted)
        )

    def _combined(self, batch: Batch, views: Sequence[View], sides: Sides, by_both: list[bool]) -> Tensor:
        """(W, B, C), of each view."""
        share = torch.tensor([self.alpha if both else 1.0 for both in by_both], dtype=torch.float32, device=self.device)
        images = {
            variant: share * found.by_class + (1 - share) * found.by_representation
            for variant, found in sides.images.items()
        }
        return self.combine_modalities(batch, views, images, sides.texts)
