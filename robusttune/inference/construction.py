"""Construction of classifiers from the metadata and weights of a checkpoint. Only classes of this project are built."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

from torch import Tensor

from robusttune.checkpoint_file import KEY, read_checkpoint
from robusttune.encoders import ImageEncoder, TextEncoder
from robusttune.encoders.low_rank import is_update
from robusttune.errors import RobustTuneError
from robusttune.models.classifier import ENCODERS, Classifier
from robusttune.models.fusion_classifier import FusionClassifier
from robusttune.models.mmrl_classifier import MMRLClassifier
from robusttune.models.zero_shot import ZeroShotClassifier
from robusttune.settings import arguments_from_plain, from_plain, plain
from robusttune.types import Facts

CLASSIFIERS: dict[str, type[Classifier]] = {  # by the name of the task that trains them
    "FusionTask": FusionClassifier,
    "MMRLTask": MMRLClassifier,
    "ZeroShotTask": ZeroShotClassifier,
}
PREFIX = "classifier."  # of a classifier's weights in a checkpoint


def load_classifier(path: Path) -> Classifier:
    """Construct the classifier of a checkpoint, with its weights, on the CPU. See `robusttune.inference.load`.

    Updates of the encoders (`LoRA`) are merged into their weights.
    """
    checkpoint = read_checkpoint(path)
    metadata = checkpoint[KEY]
    if metadata["task"] not in CLASSIFIERS:
        raise RobustTuneError(f"{path} has the task {metadata['task']!s:.50}, which this version does not have")
    classifier = construct(metadata)
    state = checkpoint["state_dict"].items()
    set_weights(classifier, {key.removeprefix(PREFIX): value for key, value in state if key.startswith(PREFIX)}, path)
    for name in ENCODERS:
        classifier.encoder(name).merge()
    return classifier


def own_weights(classifier: Classifier) -> dict[str, Tensor]:
    """Return the part of a classifier's state dict that is trained: all but the frozen weights of its encoders."""
    state = classifier.state_dict().items()
    return {key: value for key, value in state if key.split(".")[0] not in ENCODERS or is_update(key)}


def set_weights(classifier: Classifier, weights: dict[str, Tensor], path: Path) -> None:
    """Set the weights that `own_weights` returns.

    Raises:
        RobustTuneError: A weight is missing, unknown, or of another shape. The message names ``path``.
    """
    expected = {key: value.shape for key, value in own_weights(classifier).items()}
    if {key: value.shape for key, value in weights.items()} != expected:
        raise RobustTuneError(f"{path} lacks weights, or has others: give a model of this version")
    classifier.load_state_dict(weights, strict=False)  # The encoders have theirs.


def construct(metadata: dict[str, Any]) -> Classifier:
    """Construct a classifier from the metadata of a checkpoint, with the weights of its encoders.

    Args:
        metadata: Task, settings, facts and encoders; see `robusttune.tasks.checkpoint.metadata_of`. It may be
            untrusted.

    Raises:
        RobustTuneError: It names what this version does not have, or encoders that differ from those of training.
    """
    cls = CLASSIFIERS[metadata["task"]]
    own = {name: value for name, value in metadata["settings"].items() if name in signature(cls).parameters}
    settings = arguments_from_plain(own, cls, without=("image_encoder", "text_encoder", "facts"))
    image = from_plain(metadata["image_encoder"], ImageEncoder)
    text = from_plain(metadata["text_encoder"], TextEncoder)
    classifier = cls(image, text, Facts(**metadata["facts"]), **settings)
    for name in ENCODERS:
        encoder = classifier.encoder(name)
        if encoder.sha256 != metadata["sha256"][name]:
            raise RobustTuneError(
                f"the weights of {encoder.settings.name!r} are not those that the model was trained with: give the "
                "same ones"
            )
        if plain(encoder.settings.inputs()) != plain(metadata["inputs"][name]):
            raise RobustTuneError(
                f"the preprocessing of {encoder.settings.name!r} is not that of training: give the same files"
            )
    return classifier
