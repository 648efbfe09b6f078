"""Groups of settings of the data module: loader, training, evaluation and cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from robusttune.corruption.dropout import ModalityDropout
from robusttune.data.balance import Sampling
from robusttune.encoders import Augmentation
from robusttune.errors import RobustTuneError


@dataclass(frozen=True)
class LoaderSettings:
    """Settings of the loader processes.

    Args:
        workers: Number of loader processes per device, at least 0. The default is the number of cores per device, at
            most 8, or 0 if a model on the CPU reads from the cache, where starting a process costs more than reading.
            Without a number, the features of training and validation, or test, are read once and kept on the device
            if they take at most 1 GiB.
        prefetch: Number of batches that each worker loads ahead, at least 1.

    Raises:
        RobustTuneError: A number is too small.

    Example:
        >>> LoaderSettings(workers=4).prefetch
        2
    """

    workers: int | None = None
    prefetch: int = 2

    def __post_init__(self) -> None:
        require_minimum("data.loader.workers", self.workers, 0)
        require_minimum("data.loader.prefetch", self.prefetch, 1)


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of training samples only.

    Args:
        modality_dropout: Modality dropout: random removal of the image or the text of a sample.
        augmentation: Random augmentation of images, in place of the deterministic transform.
        balance: Sampling of imbalanced classes. ``balanced`` draws every class equally often, ``square_root`` in
            proportion to the square root of its number of samples (Mahajan et al. 2018, Kang et al. 2020). An epoch
            still has as many draws as samples: rare samples are drawn several times, each time with another random
            view, and some frequent ones not at all. The default draws every sample once.

    Example:
        >>> TrainingSettings(ModalityDropout(0.5, 0.5)).augmentation is None
        True
    """

    modality_dropout: ModalityDropout = ModalityDropout()  # noqa: RUF009, a frozen default can be shared
    augmentation: Augmentation | None = None
    balance: Sampling | None = None


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of validation and test.

    Args:
        conditions: Names of the conditions, see `Conditions`. The default is ``complete``, ``no_image`` and
            ``no_text``, or ``complete`` alone if no sample has both modalities. The noise of a condition replaces the
            noise of the split.
        classes: Classes that a test sample may be assigned to. ``training``: the training classes; samples of other
            classes are refused. ``all``: the training classes and the new classes of the test split, for a model that
            can predict any class name. ``test``: the classes of the test split only, as is usual for a transfer to
            other data sets and domains.

    Example:
        >>> EvaluationSettings(conditions=["complete", "no_text"]).classes
        'training'
    """

    conditions: list[str] | None = None
    classes: Literal["training", "all", "test"] = "training"


@dataclass(frozen=True)
class CacheSettings:
    """Settings of the feature cache.

    Args:
        folder: Folder of the feature cache, so that the frozen encoders process each input once; ``auto`` for a folder
            in the user's cache, None to encode the inputs in every epoch.
        dtype: Number format of the cache: ``bfloat16`` needs half the space, ``float32`` is exact.
        views: Number of random views per training input in the cache, at least 1, which the epochs use alternately. It
            is required if augmentation or noise make random views of training inputs.

    Raises:
        RobustTuneError: The number of views is too small, or it is set without a folder.

    Example:
        >>> CacheSettings("auto", views=8).dtype
        'bfloat16'
    """

    folder: str | None = None
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    views: int | None = None

    def __post_init__(self) -> None:
        require_minimum("data.cache.views", self.views, 1)
        if self.folder is None and self.views is not None:
            raise RobustTuneError(
                f"data.cache.views is {self.views}, and there is no cache: give data.cache.folder, or leave it out"
            )


def require_minimum(name: str, value: int | None, minimum: int) -> None:
    """Check that a setting is not below its minimum; None is accepted.

    Raises:
        RobustTuneError: The value is too small. The message names the setting.
    """
    if value is not None and value < minimum:
        raise RobustTuneError(f"{name} is {value}: give at least {minimum}")
