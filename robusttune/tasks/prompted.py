"""What tasks share that tell images and texts by the prompts of class names, on the two towers of one CLIP."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from robusttune.encoders import ImageEncoder, TextEncoder
from robusttune.encoders.clip import FrozenCLIPImage, FrozenCLIPText
from robusttune.errors import RobustTuneError
from robusttune.models.base import log_prior
from robusttune.tasks.base import OptimizerCallable, RobustTask, adamw
from robusttune.tasks.prompts import ClassPrompts, check_templates, encode_prompts, tokenise
from robusttune.tasks.schedule import Schedule
from robusttune.types import Batch, Facts, View

COMBINATION_SMOOTHING = 0.005


class PromptedTask(RobustTask):
    """Compares features of images and texts with those of the classes' prompts.

    Where both modalities are present, their smoothed class probabilities are multiplied. With neither, the prediction
    is the class frequencies of the training data.

    Args:
        image_encoder: settings of the image encoder, of which the class is `CLIPImageEncoder`.
        text_encoder: settings of the text encoder, of which the class is `CLIPTextEncoder`, of the same CLIP.
        facts: class names, class frequencies and task kind, from the data.
        templates: of prompts, with ``{}`` where the name of the class stands.
        optimizer: makes the optimiser of the trained parameters.
        schedule: of the learning rate.
        combination_smoothing: Constant added to each modality's class probabilities before they are multiplied, at
            least 0, so that a noisy modality cannot rule out a class alone. 0 is the product rule of Kittler et al.
            (1998); larger values approach their sum rule.
        calibrate: fit temperatures, see `RobustTask`.

    Raises:
        RobustTuneError: the encoders are not the two towers of one CLIP, a template has no place for a name, samples
            may have several labels, or the smoothing is not a number of at least 0.
    """

    # Data sets that a model is transferred to have their own prompts, and the smoothing is not trained.
    free_settings = (*RobustTask.free_settings, "templates", "combination_smoothing")

    image_encoder: FrozenCLIPImage
    text_encoder: FrozenCLIPText

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        facts: Facts,
        templates: list[str],
        optimizer: OptimizerCallable = adamw,
        schedule: Schedule = Schedule(),  # noqa: B008, it is frozen
        combination_smoothing: float = COMBINATION_SMOOTHING,
        calibrate: bool = False,
    ) -> None:
        if not 0 <= combination_smoothing < math.inf:  # nor not a number
            raise RobustTuneError(
                f"combination_smoothing is {combination_smoothing}: give a number of at least 0, such as "
                f"{COMBINATION_SMOOTHING}"
            )
        if facts.multilabel:
            raise RobustTuneError(
                f"{type(self).__name__.removesuffix('Task')} answers with one class: for several labels a sample set "
                "model.class_path to FusionTask"
            )
        check_templates(templates)
        super().__init__(image_encoder, text_encoder, facts, optimizer, schedule, calibrate)
        self._refuse_other_encoders()
        self.templates = templates
        self.combination_smoothing = combination_smoothing
        self._prompts: ClassPrompts | None = None
        self.set_classes(facts.class_names)

    def set_classes(self, class_names: list[str]) -> None:
        """Answer with one of these classes from now on, whether or not they were trained.

        Raises:
            RobustTuneError: a name is blank or comes twice, or its prompt is too long.
        """
        for template in self.templates:
            tokenise(class_names, template, self.text_encoder.prompt_tokenizer)
        self.class_names = list(class_names)
        self._prior = self._log_prior()
        self._prompts = None

    def prompts(self) -> ClassPrompts:
        """What the frozen CLIP makes of the classes' prompts: computed once for a list of classes."""
        anchor = self.text_encoder.anchor
        if self._prompts is None or self._prompts.packed.states.dtype != anchor.dtype:
            self._prompts = encode_prompts(self.text_encoder, self.class_names, self.templates)
        if self._prompts.untouched.device != anchor.device:
            with torch.inference_mode(False):  # see encode_prompts
                self._prompts = self._prompts.map(lambda tensor: tensor.to(anchor.device))
        return self._prompts

    def before_release(self) -> None:
        self.prompts()

    def combine_modalities(
        self, batch: Batch, views: Sequence[View], images: Mapping[str, Tensor], texts: Mapping[str, Tensor]
    ) -> Tensor:
        """Logits (W, B, C) of views, out of those (B, C) of each variant of the images and of the texts."""
        found = []
        smoothed_images, smoothed_texts = (
            {variant: self._smoothed(logits) for variant, logits in side.items()} for side in (images, texts)
        )
        for view in views:
            answer = self._prior.to(self.device).expand(len(batch), -1)
            image_shown, text_shown = (shown.unsqueeze(1) for shown in view.presence(batch))
            if view.image:
                answer = torch.where(image_shown, images[view.image], answer)
            if view.text:
                answer = torch.where(text_shown, texts[view.text], answer)
            if view.image and view.text:
                together = smoothed_images[view.image] + smoothed_texts[view.text]
                answer = torch.where(image_shown & text_shown, together, answer)
            found.append(answer)
        return torch.stack(found)

    def _smoothed(self, logits: Tensor) -> Tensor:
        """Return the logarithm of the smoothed class probabilities, shape (B, C), up to a constant."""
        if self.combination_smoothing == 0:
            return logits
        return torch.logaddexp(logits.log_softmax(1), logits.new_tensor(math.log(self.combination_smoothing)))

    def cosine_logits(self, features: Tensor, classes: Tensor) -> Tensor:
        """(N, C), of features (N, d_e) and those of classes (C, d_e), all of length 1."""
        with torch.autocast(features.device.type, enabled=False):  # 100 x what half precision leaves off is too much
            return self.text_encoder.logit_scale * features.to(classes) @ classes.T

    def _log_prior(self) -> Tensor:
        """(C,) logits of how frequent classes were in training; new ones count as the mean of the others."""
        of = dict(zip(self.facts.class_names, log_prior(self.facts).exp().tolist(), strict=True))
        mean = sum(of.values()) / len(of)
        shares = torch.tensor([of.get(name, mean) for name in self.class_names], dtype=torch.float32)
        return shares.log().log_softmax(0)

    def _refuse_other_encoders(self) -> None:
        for name, kind in (("image_encoder", FrozenCLIPImage), ("text_encoder", FrozenCLIPText)):
            if not isinstance(getattr(self, name), kind):
                raise RobustTuneError(
                    f"{type(self).__name__.removesuffix('Task')} works on the towers of one CLIP: "
                    f"set {name}.class_path to {kind.__name__.removeprefix('Frozen')}Encoder"
                )
        image, text = (self.encoder_settings[name] for name in ("image_encoder", "text_encoder"))
        for what in ("name", "weights", "revision"):
            if getattr(image, what) != getattr(text, what):
                raise RobustTuneError(
                    f"image_encoder.{what} is {getattr(image, what)!r} and text_encoder.{what} is "
                    f"{getattr(text, what)!r}: name the same CLIP for both"
                )


def variants_of(views: Sequence[View]) -> tuple[list[str], list[str]]:
    """Of the images and of the texts that are shown in any of the views, each once."""
    images = dict.fromkeys(view.image for view in views if view.image)
    return list(images), list(dict.fromkeys(view.text for view in views if view.text))


def spread(values: Tensor, present: Tensor) -> Tensor:
    """Values (P, ...) of the ``P`` rows that are present as (B, ...); the others have something of no meaning."""
    return values[present.cumsum(0).sub(1).clamp(min=0)]  # no boolean index: it would wait for the device
