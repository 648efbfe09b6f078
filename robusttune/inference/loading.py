"""Loading of tuned models from checkpoints, without the trainer that wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from robusttune.checkpoint_file import KEY, checkpoint_path, read_checkpoint
from robusttune.encoders import ImageEncoder, TextEncoder
from robusttune.errors import RobustTuneError
from robusttune.inference.predictor import Predictor
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
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def load(
    path: str | Path | Sequence[str | Path],
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str = torch.float32,
) -> Predictor:
    """Load a tuned model for predictions.

    No configuration and no data are needed, and only classes of this project are constructed. The frozen encoders are
    read from where the training has found them, such as the cache of the Hugging Face hub.

    Args:
        path: Folder of a run, whose best checkpoint is read, or a checkpoint file. For a list, such as runs of one
            model with several seeds, class probabilities are averaged.
        device: Device of the model, such as ``cuda``.
        dtype: Floating-point type of the weights: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        RobustTuneError: A checkpoint is missing, damaged or of another version, an encoder's weights are not available
            or not those of training, or the models of a list predict different classes.

    Example:
        >>> import robusttune
        >>> model = robusttune.load("runs/demo/0")  # doctest: +SKIP
        >>> print(model.predict(image="photo.jpg", text=None))  # doctest: +SKIP
        red circle (0.71, from the image alone)
    """
    paths = [path] if isinstance(path, str | Path) else list(path)
    if not paths:
        raise RobustTuneError("no checkpoint was given: give the folder of a run, or a list of them")
    number_type = _dtype(dtype)
    classifiers: list[Classifier] = []
    for each in paths:
        classifier = load_classifier(checkpoint_path(each))
        _share_encoders(classifier, classifiers)
        classifiers.append(classifier)
    return Predictor([classifier.to(device=device, dtype=number_type).eval() for classifier in classifiers])


def load_classifier(path: Path) -> Classifier:
    """Construct the classifier of a checkpoint, with its weights, on the CPU. See `load`."""
    checkpoint = read_checkpoint(path)
    metadata = checkpoint[KEY]
    if metadata["task"] not in CLASSIFIERS:
        raise RobustTuneError(f"{path} has the task {metadata['task']!s:.50}, which this version does not have")
    classifier = construct(metadata)
    frozen = {key for key in classifier.state_dict() if key.split(".")[0] in ENCODERS}
    weights = {
        key.removeprefix(PREFIX): value for key, value in checkpoint["state_dict"].items() if key.startswith(PREFIX)
    }
    expected = {key: value.shape for key, value in classifier.state_dict().items() if key not in frozen}
    if {key: value.shape for key, value in weights.items()} != expected:
        raise RobustTuneError(f"{path} lacks weights, or has others: give a checkpoint of this version")
    classifier.load_state_dict(weights, strict=False)  # The encoders have theirs.
    return classifier


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


def _share_encoders(classifier: Classifier, others: Sequence[Classifier]) -> None:
    """Replace encoders by equal ones of other classifiers, so that memory holds them once."""
    for other in others:
        for name in ENCODERS:
            if classifier.encoder_settings[name] == other.encoder_settings[name]:
                setattr(classifier, name, other.encoder(name))


def _dtype(dtype: torch.dtype | str) -> torch.dtype:
    """Return a floating-point type by its name.

    Raises:
        RobustTuneError: It is another type.
    """
    by_name = {str(known).removeprefix("torch."): known for known in DTYPES}
    found = by_name.get(str(dtype).removeprefix("torch."))
    if found is None:
        raise RobustTuneError(f"dtype is {dtype}: give {', '.join(by_name)}")
    return found
