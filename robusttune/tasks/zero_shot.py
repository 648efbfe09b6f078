"""Evaluation of zero-shot CLIP, with the same checkpoints, tests and reports as trained models."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robusttune.encoders import ImageEncoder, TextEncoder
from robusttune.errors import RobustTuneError
from robusttune.models import Balance
from robusttune.models.prompt_classifier import COMBINATION_SMOOTHING
from robusttune.models.zero_shot import ZeroShotClassifier
from robusttune.tasks.base import RobustTask
from robusttune.tasks.losses import Losses
from robusttune.types import Batch, Facts


class ZeroShotTask(RobustTask):
    """A task for zero-shot classification (CLIP, arXiv 2103.00020) of images and texts by prompts of class names.

    Nothing is trained. A fit writes the checkpoint that ``test`` and ``predict`` need, and fits temperatures if
    ``calibrate`` is on.

    Args:
        image_encoder: Settings of the image encoder, a `CLIPImageEncoder` of a CLIP or SigLIP.
        text_encoder: Settings of the text encoder, a `CLIPTextEncoder` of the same model.
        facts: Class names, class frequencies and kind of task, from the data.
        templates: Prompt templates, with ``{}`` in place of the class name. The feature of a class is the mean over all
            templates.
        combination_smoothing: Constant added to each modality's class probabilities before they are multiplied, at
            least 0, so that a noisy modality cannot rule out a class alone.
        balance: Settings for imbalanced classes, of which ``post_hoc`` alone is allowed, since nothing is trained.
        calibrate: True to fit temperatures, see `RobustTask`.

    Raises:
        RobustTuneError: ``balance`` has settings of a loss, or see `PromptClassifier`.

    Example:
        >>> from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
        >>> clip = {"name": "robusttune:demo_clip", "weights": "random", "first_layer": 2}
        >>> facts = Facts(["red circle", "blue square"], [0.5, 0.5], multilabel=False)
        >>> task = ZeroShotTask(CLIPImageEncoder(**clip), CLIPTextEncoder(**clip), facts, ["a drawing of a {}"])
        >>> task.classifier.templates
        ['a drawing of a {}']
    """

    classifier: ZeroShotClassifier
    # A model may be tested on another data set, with its own prompts, and the smoothing is not trained.
    free_settings = (*RobustTask.free_settings, "templates", "combination_smoothing", "balance")

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        facts: Facts,
        templates: list[str] = ["a photo of a {}."],  # noqa: B006, the default is never modified
        combination_smoothing: float = COMBINATION_SMOOTHING,
        balance: Balance = Balance(),  # noqa: B008, the default is immutable
        calibrate: bool = False,
    ) -> None:
        if balance != Balance(post_hoc=balance.post_hoc):
            raise RobustTuneError("nothing is trained, so model.balance has no loss to change: set post_hoc alone")
        classifier = ZeroShotClassifier(image_encoder, text_encoder, facts, templates, combination_smoothing, balance)
        super().__init__(classifier, calibrate=calibrate)
        self.nothing = nn.Parameter(torch.zeros(()))  # DDP needs a parameter to train.

    @property
    def learns_by_steps(self) -> bool:
        """Return False, since nothing is trained."""
        return False

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return a loss of 0, since nothing is trained."""
        return 0.0 * self.nothing

    def training_losses(self, batch: Batch, batch_idx: int) -> Losses:
        """Raise AssertionError: there are no losses, and `training_step` does not ask for them."""
        raise AssertionError("nothing is trained")

    def configure_optimizers(self) -> None:
        """Return None: there is no optimiser."""
