"""The base class of classifiers that compare images and texts with prompts of class names, on a CLIP or SigLIP."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from robusttune.encoders import ImageEncoder, TextEncoder
from robusttune.encoders.clip import FrozenCLIPImage, FrozenCLIPText
from robusttune.errors import RobustTuneError
from robusttune.models.balance import Balance
from robusttune.models.base import log_prior
from robusttune.models.classifier import ENCODERS, Classifier
from robusttune.models.prompts import ClassPrompts, check_templates, encode_prompts, tokenise
from robusttune.types import Batch, Facts, View

TEMPLATES = ("a photo of a {}.",)
COMBINATION_SMOOTHING = 0.005


class PromptClassifier(Classifier):
    """A classifier that compares the features of images and texts with those of the classes' prompts.

    Where both modalities are present, their smoothed class probabilities are multiplied. With neither, the prediction
    is the class frequencies of the training data.

    Args:
        image_encoder: Settings of the image encoder, a `CLIPImageEncoder` of a CLIP or SigLIP.
        text_encoder: Settings of the text encoder, a `CLIPTextEncoder` of the same model.
        facts: Class names, class frequencies and kind of task, from the training data.
        templates: Prompt templates, with ``{}`` in place of the class name.
        combination_smoothing: Constant added to each modality's class probabilities before they are multiplied, at
            least 0, so that a noisy modality cannot rule out a class alone. 0 is the product rule of Kittler et al.
            (1998); larger values approach their sum rule.
        balance: Settings for imbalanced classes, whose ``post_hoc`` part adjusts predictions.

    Raises:
        RobustTuneError: The encoders are not the two towers of one CLIP, a template lacks ``{}``, samples may have
            several labels, the smoothing is not a finite number of at least 0, or see `Classifier`.
    """

    image_encoder: FrozenCLIPImage
    text_encoder: FrozenCLIPText

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        facts: Facts,
        templates: Sequence[str] = TEMPLATES,
        combination_smoothing: float = COMBINATION_SMOOTHING,
        balance: Balance = Balance(),  # noqa: B008, the default is immutable
    ) -> None:
        if not 0 <= combination_smoothing < math.inf:  # This form refuses NaN, too.
            raise RobustTuneError(
                f"combination_smoothing is {combination_smoothing}: give a number of at least 0, such as "
                f"{COMBINATION_SMOOTHING}"
            )
        if facts.multilabel:
            raise RobustTuneError(
                f"{self._short_name} predicts one class: for several labels a sample set model.class_path to FusionTask"
            )
        check_templates(templates)
        super().__init__(image_encoder, text_encoder, facts, balance)
        self._refuse_other_encoders()
        self.templates = list(templates)
        self.combination_smoothing = combination_smoothing
        self._prompts: ClassPrompts | None = None
        self.set_classes(facts.class_names)

    def set_classes(self, class_names: list[str]) -> None:
        """Set the classes that the model predicts from now on. They may differ from those of training.

        Args:
            class_names: Names of the classes, in label order.

        Raises:
            RobustTuneError: A name is blank, two classes have the same prompt, or a prompt is too long.
        """
        for template in self.templates:
            tokenise(class_names, template, self.text_encoder.prompt_tokenizer)
        self.class_names = list(class_names)
        self._prior = self._log_prior()
        self._prompts = None

    def prompts(self) -> ClassPrompts:
        """Return the frozen CLIP's features of the classes' prompts. They are computed once for a list of classes."""
        anchor = self.text_encoder.anchor
        if self._prompts is None or self._prompts.packed.states.dtype != anchor.dtype:
            self._prompts = encode_prompts(self.text_encoder, self.class_names, self.templates)
        if self._prompts.untouched.device != anchor.device:
            with torch.inference_mode(False):  # for the reason given at encode_prompts
                self._prompts = self._prompts.map(lambda tensor: tensor.to(anchor.device))
        return self._prompts

    def release_encoders(self) -> None:
        """Compute the features of the classes' prompts, then free the memory of the encoders."""
        self.prompts()
        super().release_encoders()

    def combine_modalities(
        self, batch: Batch, views: Sequence[View], images: Mapping[str, Tensor], texts: Mapping[str, Tensor]
    ) -> Tensor:
        """Combine the class probabilities of images and texts (late fusion by the smoothed product rule).

        A row with one modality keeps the logits of that modality. A row with both gets the log of the product of the
        smoothed class probabilities, up to a constant. A row with neither gets the log class frequencies of training.

        Args:
            batch: Batch of ``B`` samples.
            views: ``W`` views of the samples.
            images: Logits of each variant of the images, shape (B, C).
            texts: Logits of each variant of the texts, shape (B, C).

        Returns:
            Logits of each view, shape (W, B, C).
        """
        by_view = []
        smoothed_images, smoothed_texts = (
            {variant: self._smoothed(logits) for variant, logits in modality.items()} for modality in (images, texts)
        )
        for view in views:
            logits = self._prior.to(self.device).expand(len(batch), -1)
            image_present, text_present = (
                present.unsqueeze(1) for present in view.present(batch.image_present, batch.text_present)
            )
            if view.image:
                logits = torch.where(image_present, images[view.image], logits)
            if view.text:
                logits = torch.where(text_present, texts[view.text], logits)
            if view.image and view.text:
                product = smoothed_images[view.image] + smoothed_texts[view.text]
                logits = torch.where(image_present & text_present, product, logits)
            by_view.append(logits)
        return torch.stack(by_view)

    def joint_embedding(self, image: Tensor, text: Tensor) -> Tensor:
        """Return the L2-normalised mean of image and text embeddings.

        Args:
            image: Embeddings of the images, L2-normalised, shape (B, d_e), NaN in rows without an image.
            text: Embeddings of the texts, L2-normalised, shape (B, d_e), NaN in rows without a text.

        Returns:
            Embeddings, shape (B, d_e): zeros in rows without both.
        """
        return functional.normalize(image.nan_to_num(0.0) + text.nan_to_num(0.0), dim=1)

    def _smoothed(self, logits: Tensor) -> Tensor:
        """Return the logarithm of the smoothed class probabilities, shape (B, C), up to a constant."""
        if self.combination_smoothing == 0:
            return logits
        return torch.logaddexp(logits.log_softmax(1), logits.new_tensor(math.log(self.combination_smoothing)))

    def cosine_logits(self, features: Tensor, classes: Tensor) -> Tensor:
        """Return cosine similarities between samples and classes, multiplied by the model's logit scale.

        SigLIP adds a bias to all logits, for its sigmoid. A softmax over classes does not depend on it.

        Args:
            features: Features of ``N`` samples, shape (N, d_e), L2-normalised.
            classes: Features of ``C`` classes, shape (C, d_e), L2-normalised.

        Returns:
            Logits, shape (N, C), with the dtype of ``classes``.
        """
        # The scale (100 in CLIP) multiplies rounding errors, so half precision is switched off.
        with torch.autocast(features.device.type, enabled=False):
            return self.text_encoder.logit_scale * features.to(classes) @ classes.T

    def _log_prior(self) -> Tensor:
        """Return the log frequencies of the classes in training, shape (C,). New classes get the mean frequency."""
        frequency = dict(zip(self.facts.class_names, log_prior(self.facts).exp().tolist(), strict=True))
        mean = sum(frequency.values()) / len(frequency)
        frequencies = torch.tensor([frequency.get(name, mean) for name in self.class_names], dtype=torch.float32)
        return frequencies.log().log_softmax(0)

    @property
    def _short_name(self) -> str:
        return type(self).__name__.removesuffix("Classifier")

    def _refuse_other_encoders(self) -> None:
        for name, kind in (("image_encoder", FrozenCLIPImage), ("text_encoder", FrozenCLIPText)):
            if not isinstance(getattr(self, name), kind):
                raise RobustTuneError(
                    f"{self._short_name} works on the towers of one CLIP: "
                    f"set {name}.class_path to {kind.__name__.removeprefix('Frozen')}Encoder"
                )
        image, text = (self.encoder_settings[name] for name in ENCODERS)
        for setting in ("name", "weights", "revision"):
            if getattr(image, setting) != getattr(text, setting):
                raise RobustTuneError(
                    f"image_encoder.{setting} is {getattr(image, setting)!r} and text_encoder.{setting} is "
                    f"{getattr(text, setting)!r}: name the same CLIP for both"
                )
