"""A classifier that adapts a frozen CLIP with MMRL or MMRL++."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from robusttune.encoders import ImageEncoder, TextEncoder
from robusttune.encoders.presence import expand_present, nan_if_absent
from robusttune.errors import RobustTuneError
from robusttune.models.balance import Balance
from robusttune.models.mmrl import MMRL, MMRLNetwork, SpaceTokens
from robusttune.models.packed import Packed
from robusttune.models.prompt_classifier import COMBINATION_SMOOTHING, TEMPLATES, PromptClassifier
from robusttune.models.runner import Runner
from robusttune.types import Batch, EncoderInputs, Facts, ImageSets, View, variants_of


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
        pairs = [*zip(weights, self.weights, strict=True)]
        if precision != self.precision or any((a.device, a.dtype) != (b.device, b.dtype) for a, b in pairs):
            return False
        # The host reads one value for all weights: each `torch.equal` would wait for the device.
        return bool(torch.stack([(now == then).all() for now, then in pairs]).all())


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


class MMRLClassifier(PromptClassifier):
    """A frozen CLIP with the adapter MMRL (arXiv 2503.08497) or MMRL++ (arXiv 2505.10088).

    Logits of classes from training combine class and representation features, those of new classes use class features
    alone. A sample's own text goes through the same text tower as the prompts. `robusttune.models.mmrl` says what the
    features are on a SigLIP.

    Args:
        image_encoder: Settings of the image encoder, a `CLIPImageEncoder` of a CLIP or SigLIP.
        text_encoder: Settings of the text encoder, a `CLIPTextEncoder` of the same model.
        facts: Class names, class frequencies and kind of task, from the training data.
        adapter: Settings of the trained network.
        templates: Prompt templates, with ``{}`` in place of the class name. The prompts of the first template are
            adapted; the frozen CLIP's class features are the mean over all templates.
        alpha: Weight of class features relative to representation features, in [0, 1].
        inference: Features for the logits of a class: ``recorded`` uses both for classes of training and the class
            feature alone for new ones; ``fused`` uses both for all classes; ``class`` uses the class feature alone.
        combination_smoothing: Constant added to each modality's class probabilities, see `PromptClassifier`.
        compile: True to run the adapted layers through torch.compile; results are the same up to rounding.
        checkpoint_activations: True to recompute activations in the backward pass, which saves memory; results are the
            same.
        balance: Settings for imbalanced classes, whose ``post_hoc`` part adjusts predictions.

    Attributes:
        network: Adapter, the part that is trained.

    Raises:
        RobustTuneError: See `PromptClassifier`.

    Example:
        >>> from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
        >>> clip = {"name": "robusttune:demo_clip", "weights": "random", "first_layer": 2}
        >>> facts = Facts(["red circle", "blue square"], [0.5, 0.5], multilabel=False)
        >>> classifier = MMRLClassifier(CLIPImageEncoder(**clip), CLIPTextEncoder(**clip), facts)
        >>> classifier.adapted().classes.shape
        torch.Size([2, 128])
    """

    _kept: CachedAdapted | None

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        facts: Facts,
        adapter: MMRL = MMRL(),  # noqa: B008, the default is immutable
        templates: Sequence[str] = TEMPLATES,
        alpha: float = 0.7,
        inference: Literal["recorded", "fused", "class"] = "recorded",
        combination_smoothing: float = COMBINATION_SMOOTHING,
        compile: bool = False,
        checkpoint_activations: bool = False,
        balance: Balance = Balance(),  # noqa: B008
    ) -> None:
        super().__init__(image_encoder, text_encoder, facts, templates, combination_smoothing, balance)
        self.adapter = adapter
        self.alpha = alpha
        self.inference = inference
        for tower in (self.image_encoder, self.text_encoder):
            tower.refuse_no_layers()
        self.network = MMRLNetwork(adapter, self.image_encoder.upper.shape, self.text_encoder.upper.shape)
        self.network.run = Runner(compile, checkpoint_activations)

    def set_classes(self, class_names: list[str]) -> None:
        """Set the classes that are predicted from now on.

        Raises:
            RobustTuneError: See `PromptClassifier.set_classes`.
        """
        super().set_classes(class_names)
        self._kept = None

    def logits(self, batch: Batch, views: Sequence[View]) -> Tensor:
        """Compute logits (W, B, C) under each of the ``W`` views, see `Classifier.logits`."""
        return self._combined(batch, views, self._modality_logits(batch, views), self._uses_both_features())

    def metric_logits(self, batch: Batch, views: Sequence[View]) -> tuple[Tensor, Tensor | None]:
        """Compute logits for metrics, see `Classifier.metric_logits`.

        If it is unknown whether a sample belongs to a new class, the logits of all classes use class features alone.
        """
        by_modality, by_both = self._modality_logits(batch, views), self._uses_both_features()
        known = self._combined(batch, views, by_modality, by_both)
        if self.inference != "recorded" or all(by_both) or not any(by_both):
            return known, None
        return known, self._combined(batch, views, by_modality, [False] * len(by_both))

    def adapted(self) -> Adapted:
        """Compute tokens and class features in training; in evaluation, reuse them until a weight changes its value.

        An exported graph contains those that were computed before the export.
        """
        if torch.compiler.is_compiling() and self._kept is not None:
            return self._kept.adapted
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

    def image_logits(
        self, batch: Batch, variants: Sequence[str], adapted: Adapted, untouched: bool
    ) -> dict[str, ImageLogits]:
        """Compute the logits of each variant of the images.

        Rows without an image get arbitrary values. The nearness is computed only if ``untouched`` is True.
        """
        if not variants or len(batch.images) == 0:
            zeros = self._zero_logits(batch)
            return dict.fromkeys(variants, ImageLogits(zeros, zeros, zeros[:, 0]))
        features, representation, pooled = self._image_features(batch.images.pick(variants), adapted, untouched)
        nearness = (features * pooled).sum(1) if untouched else features.new_zeros(len(features))
        logits = [self.cosine_logits(f, adapted.classes) for f in (features, representation)]
        parts = [values.view(len(variants), -1, *values.shape[1:]) for values in (*logits, nearness)]
        return {
            variant: ImageLogits(*(expand_present(values, batch.image_present) for values in outputs))
            for variant, outputs in zip(variants, zip(*parts, strict=True), strict=True)
        }

    def text_logits(self, batch: Batch, variants: Sequence[str], adapted: Adapted) -> dict[str, Tensor]:
        """Compute the logits (B, C) of each variant of the texts. Rows without a text get arbitrary values."""
        if not variants or len(batch.texts) == 0:
            return dict.fromkeys(variants, self._zero_logits(batch))
        features = self._text_features(batch.texts.pick(variants), adapted)
        parts = self.cosine_logits(features, adapted.classes).view(len(variants), -1, len(adapted.classes))
        return {name: expand_present(logits, batch.text_present) for name, logits in zip(variants, parts, strict=True)}

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the adapted class features of images and texts, see `Classifier.embed`."""
        adapted = self.adapted()
        absent = torch.full((len(batch), adapted.classes.shape[1]), torch.nan, device=self.device)
        image = text = absent
        if len(batch.images):
            image = expand_present(self._image_features(batch.images["clean"], adapted, False)[0], batch.image_present)
        if len(batch.texts):
            text = expand_present(self._text_features(batch.texts["clean"], adapted), batch.text_present)
        image, text = nan_if_absent(image, batch.image_present), nan_if_absent(text, batch.text_present)
        return self.joint_embedding(image, text), image, text

    def _image_features(
        self, inputs: EncoderInputs, adapted: Adapted, untouched: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return class and representation features of ``P`` images, and their pooled CLIP features if requested."""
        if isinstance(inputs, ImageSets):
            raise RobustTuneError("MMRL cannot average the features of several images: give one image for each sample")
        images = self.image_encoder.encode_lower(inputs, untouched)
        features, representation = self.network.image_features(
            self.image_encoder.upper, images.tokens[0], adapted.tokens.image
        )
        return features, representation, images.pooled

    def _text_features(self, inputs: EncoderInputs, adapted: Adapted) -> Tensor:
        """Return the adapted features of ``P`` texts, shape (P, d_e)."""
        texts = self.text_encoder.encode_lower(inputs, untouched=False)
        start = self.prompts().packed.shared[:1]
        # Packing skips the padding, but reads the lengths on the host. An exported graph cannot do so, and an
        # accelerator would have nothing to do meanwhile, in every step.
        keeps_padding = torch.compiler.is_compiling() or self.device.type != "cpu"
        pack = Packed.with_padding if keeps_padding else Packed.of
        packed = pack(texts.tokens[0], texts.mask[0], start.to(texts.tokens[0]))
        return self.network.text_features(self.text_encoder.upper, packed, adapted.tokens.text)

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
        adapted, (images, texts) = self.adapted(), variants_of(views)
        return ModalityLogits(
            self.image_logits(batch, images, adapted, untouched=False), self.text_logits(batch, texts, adapted)
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
