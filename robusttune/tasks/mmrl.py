"""Training and evaluation of MMRL and MMRL++ on images, texts, or both."""

from __future__ import annotations

from typing import Literal

from lightning.pytorch.utilities import rank_zero_info
from torch.nn import functional

from robusttune.encoders import ImageEncoder, TextEncoder
from robusttune.errors import RobustTuneError
from robusttune.models import MMRL, Balance
from robusttune.models.mmrl_classifier import MMRLClassifier
from robusttune.models.prompt_classifier import COMBINATION_SMOOTHING
from robusttune.tasks.balanced_loss import BalancedLoss
from robusttune.tasks.base import RobustTask
from robusttune.tasks.losses import Losses, mean_over_ranks
from robusttune.tasks.optimisation import OptimizerCallable, adamw
from robusttune.tasks.schedule import Schedule
from robusttune.tasks.several_images import refuse_averaged_images
from robusttune.types import Batch, Facts


class MMRLTask(RobustTask):
    """A task that trains MMRL (arXiv 2503.08497) or MMRL++ (arXiv 2505.10088) on a frozen CLIP.

    Let ``f`` and ``f_r`` be the class and the representation feature of an image, ``w`` the features of the classes'
    prompts, and ``f_0`` and ``w_0`` the features of the frozen CLIP for the same inputs. ``CE`` is the cross-entropy.
    The loss is ``alpha`` x CE(f) + (1 - ``alpha``) x CE(f_r) + ``reg_weight`` x (1 - cos(f, f_0) + 1 - cos(w, w_0)),
    averaged over images and over classes. A sample's own text goes through the same text tower, and ``text_weight`` x
    its cross-entropy is added.

    Logits of classes from training combine both features, those of new classes use ``f`` alone. The checkpoint records
    the classes of training.

    On a SigLIP, ``f`` is its attention pooling over the patches, without the representation tokens, and all tokens of a
    text attend to each other. This extension is the package's own, see `robusttune.models.mmrl`.

    Args:
        image_encoder: Settings of the image encoder, a `CLIPImageEncoder` of a CLIP or SigLIP.
        text_encoder: Settings of the text encoder, a `CLIPTextEncoder` of the same model.
        facts: Class names, class frequencies and kind of task, from the data.
        adapter: Settings of the trained network.
        templates: Prompt templates, with ``{}`` in place of the class name. The prompts of the first template are
            adapted; ``w_0`` is the mean over all templates.
        alpha: Weight of class features relative to representation features, in [0, 1].
        reg_weight: Weight of the distance to CLIP's own features, at least 0.
        text_weight: Weight of the cross-entropy of the samples' texts, at least 0.
        inference: Features for the logits of a class: ``recorded`` uses both for classes of training and the class
            feature alone for new ones; ``fused`` uses both for all classes; ``class`` uses the class feature alone.
        balance: Class weights, focal loss and logit adjustment for imbalanced classes, in every cross-entropy.
        optimizer: Function that creates the optimiser of the trained parameters.
        schedule: Schedule of the learning rate.
        combination_smoothing: Constant added to each modality's class probabilities before they are multiplied, at
            least 0, so that a noisy modality cannot rule out a class alone.
        calibrate: True to fit temperatures, see `RobustTask`.
        compile: True to run the adapted layers through torch.compile; results are the same up to rounding.
        checkpoint_activations: True to recompute activations in the backward pass, which saves memory; results are the
            same.

    Raises:
        RobustTuneError: The encoders are not the two towers of one CLIP, a setting is out of its range, or a class
            lacks the training samples that ``balance`` needs.

    Example:
        >>> from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
        >>> clip = {"name": "robusttune:demo_clip", "weights": "random", "first_layer": 2}
        >>> facts = Facts(["red circle", "blue square"], [0.5, 0.5], multilabel=False)
        >>> task = MMRLTask(CLIPImageEncoder(**clip), CLIPTextEncoder(**clip), facts, reg_weight=1.0)
        >>> task.classifier.network.tokens().text.shape  # of each adapted layer of the text tower
        torch.Size([3, 5, 128])
    """

    classifier: MMRLClassifier
    # A model may be tested on another data set, with its own prompts and another kind of inference. The smoothing is
    # not trained, and the weights of losses matter in training only.
    free_settings = (
        *RobustTask.free_settings,
        *("templates", "combination_smoothing", "inference", "reg_weight", "text_weight", "balance"),
    )

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
        balance: Balance = Balance(),  # noqa: B008, the default is immutable
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
        classifier = MMRLClassifier(
            *(image_encoder, text_encoder, facts, adapter, templates, alpha, inference, combination_smoothing),
            compile=compile,
            checkpoint_activations=checkpoint_activations,
            balance=balance,
        )
        super().__init__(classifier, optimizer, schedule, calibrate)
        self.reg_weight = reg_weight
        self.text_weight = text_weight
        self.balanced_loss = BalancedLoss(balance, facts)

    def setup(self, stage: str) -> None:
        """Set the classes of the data, see `RobustTask.setup`.

        Raises:
            RobustTuneError: See `RobustTask.setup`, or the data averages the features of several images: MMRL changes
                the layers that compute them.
        """
        refuse_averaged_images(self.trainer.datamodule, "MMRL")  # type: ignore[attr-defined]
        super().setup(stage)

    def set_classes(self, class_names: list[str]) -> None:
        """Set the classes that the classifier predicts from now on, and log how many of them are new.

        Raises:
            RobustTuneError: See `PromptClassifier.set_classes`.
        """
        super().set_classes(class_names)
        new = [name for name in class_names if name not in {*self.facts.class_names}]
        if new and self.classifier.inference == "recorded":
            rank_zero_info(
                f"{len(new)} of {len(class_names)} classes {'is' if len(new) == 1 else 'are'} new, such as {new[0]!r}: "
                "class features alone predict them"
            )

    def training_losses(self, batch: Batch, batch_idx: int) -> Losses:
        """Compute the losses of a training batch: of images and texts, and distances to the frozen CLIP's features."""
        assert batch.label is not None
        classifier, label = self.classifier, batch.label
        adapted, alpha = classifier.adapted(), classifier.alpha
        images = classifier.image_logits(batch, ["clean"], adapted, untouched=True)["clean"]
        by_text = classifier.text_logits(batch, ["clean"], adapted)["clean"]
        by_class, by_representation = (self.balanced_loss(logits, label) for logits in images[:2])
        image_losses = alpha * by_class + (1 - alpha) * by_representation
        text_losses, weights = self.balanced_loss(by_text, label), self.balanced_loss.weights(label)
        with_image, with_text = batch.image_present & batch.counted, batch.text_present & batch.counted
        class_nearness = functional.cosine_similarity(adapted.classes, classifier.prompts().untouched)
        parts = {
            "task_loss": mean_over_ranks(image_losses, with_image, weights),
            "text_loss": mean_over_ranks(text_losses, with_text, weights),
            "image_distance": mean_over_ranks(1 - images.nearness, with_image),
            "class_distance": 1 - class_nearness.mean(),
        }
        distance = parts["image_distance"] + parts["class_distance"]
        loss = parts["task_loss"] + self.text_weight * parts["text_loss"] + self.reg_weight * distance
        finite = (image_losses.isfinite() | ~batch.image_present) & (text_losses.isfinite() | ~batch.text_present)
        return Losses(loss, parts, finite)
