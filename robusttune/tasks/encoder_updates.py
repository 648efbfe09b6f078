"""The training of low-rank updates (LoRA) of the encoders together with a fusion network."""

from __future__ import annotations

import torch
from torch import Tensor

from robusttune.errors import RobustTuneError
from robusttune.models.baselines import SingleModalityNetwork
from robusttune.models.classifier import ENCODERS
from robusttune.models.fusion_classifier import FusionClassifier


def refuse_idle_updates(classifier: FusionClassifier) -> None:
    """Check that the network trains the updates that encoders have.

    Args:
        classifier: Classifier with its network.

    Raises:
        RobustTuneError: An encoder has updates, and the network is fitted at once, or does not read its modality.
    """
    network, name = classifier.network, type(classifier.fusion).__name__
    read = (f"{network.modality}_encoder",) if isinstance(network, SingleModalityNetwork) else ENCODERS
    for encoder in ENCODERS:
        if not classifier.encoder_settings[encoder].is_adapted:
            continue
        if network.fitted_at_once:
            raise RobustTuneError(
                f"{encoder}.lora is trained by gradient steps, and {name} is fitted at once to fixed features: set "
                "model.fusion to a network such as Experts, or lora to null"
            )
        if encoder not in read:
            raise RobustTuneError(f"{encoder}.lora trains an encoder that {name} does not read: set it to null")


def with_every_update(loss: Tensor, classifier: FusionClassifier) -> Tensor:
    """Return the same loss as a function of all updates: DDP hangs on a parameter that only some ranks use.

    A rank may have a batch without any image, or any text.

    Args:
        loss: Loss, shape ().
        classifier: Classifier, whose encoders may have no updates.
    """
    updates = [update for name in ENCODERS for update in classifier.encoder(name).updates()]
    return loss + torch.stack([0.0 * update.float().sum() for update in updates]).sum() if updates else loss
