"""Loading of tuned models from checkpoints, without the trainer that wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from robusttune.checkpoint_file import checkpoint_path
from robusttune.errors import RobustTuneError
from robusttune.inference.construction import load_classifier
from robusttune.inference.hub import downloaded
from robusttune.inference.predictor import Predictor
from robusttune.inference.standalone import is_standalone, read_standalone
from robusttune.models.classifier import ENCODERS, Classifier
from robusttune.paths import user_path

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def load(
    path: str | Path | Sequence[str | Path],
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str = torch.float32,
) -> Predictor:
    """Load a tuned model for predictions.

    No configuration and no data are needed, and only classes of this project are constructed. A standalone folder has
    its frozen encoders. Those of a checkpoint are read from where the training has found them, such as the cache of
    the Hugging Face hub.

    Args:
        path: Folder of a run, whose best checkpoint is read, a checkpoint file, a standalone folder that
            `robusttune export` or `Predictor.save_pretrained` wrote, or the name of one on the Hugging Face hub. For a
            list, such as runs of one model with several seeds, class probabilities are averaged.
        device: Device of the model, such as ``cuda``.
        dtype: Floating-point type of the weights: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        RobustTuneError: A model is missing, damaged or of another version, an encoder's weights are not available or
            not those of training, or the models of a list predict different classes.

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
        classifier = _load_one(each)
        _share_encoders(classifier, classifiers)
        classifiers.append(classifier)
    for classifier in classifiers:
        classifier.to(device).eval()
        if number_type != torch.float32:  # A conversion to float32 would shorten numbers in float64.
            classifier.to(number_type)
    predictor = Predictor(classifiers)
    predictor.origin = paths[0] if len(paths) == 1 else None
    return predictor


def _load_one(path: str | Path) -> Classifier:
    """Load the classifier of a run, a checkpoint, a standalone folder or a repository, on the CPU. See `load`."""
    folder = user_path(path) if user_path(path).exists() else downloaded(str(path)) or user_path(path)
    return read_standalone(folder) if is_standalone(folder) else load_classifier(checkpoint_path(folder))


def _share_encoders(classifier: Classifier, others: Sequence[Classifier]) -> None:
    """Replace encoders by equal ones of other classifiers, so that memory holds them once.

    Encoders with updates (`LoRA`) differ, even if their settings are equal.
    """
    for other in others:
        for name in ENCODERS:
            if classifier.encoder_settings[name].is_adapted:
                continue
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
